/* The gradient of a 3x3 convolution with stride 1 by its weights, by Winograd's minimal
   filtering (winograd.h). For each point Z[point] (C, K) = sum over tiles of V[point] (tiles,
   C)' D[point] (tiles, K): V are transformed tiles of x, D those of dy. First kernel: part p of
   `tile_parts` * `out_parts` adds up its share of the tiles for its share of the output channels
   into Z[part]; no share may be empty, or its sums are never written. Second: dweight = the sum
   of the tile parts, in their order, transformed back. */
#include "prelude.h"
#include "cpu/tile.h"
#include "winograd.h"
#define TAPS 9
#include "cpu/filters.h"

/* scratch, an item: V (point, block, tile, channel) then D (point, out block of the share, tile,
   channel), points a line further apart than they need be, or they would all fall on the same
   set of a cache.  Z[tile part][point][group][block][i][o]. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void winograd_filter(
    __global float *Z, __global const float *dy, __global const float *x, __global float *scratch,
    const int N, const int C, const int H, const int W, const int K, const int P, const int Q,
    const int pad_h, const int pad_w, const int many, const int tile_parts, const int out_parts,
    const int scratch_item) {
    const int part = get_global_id(0), tile_part = part / out_parts, out_part = part % out_parts;
    const int blocks = (C + WIDTH - 1) / WIDTH, out_blocks = (K + WIDTH - 1) / WIDTH,
              groups = (K + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int tiles_h = (P + OUT - 1) / OUT, tiles_w = (Q + OUT - 1) / OUT,
              all = N * tiles_h * tiles_w, row = many * WIDTH;
    const int g0 = groups * out_part / out_parts, g1 = groups * (out_part + 1) / out_parts;
    const int begin = (long)all * tile_part / tile_parts,
              end = (long)all * (tile_part + 1) / tile_parts;
    const size_t v_step = blocks * row + WIDTH,
                 d_step = (groups + out_parts - 1) / out_parts * VECTORS * row + WIDTH;
    const int tile_size = WIDTH * TILE_COLUMNS;
    const size_t z_step = (size_t)groups * blocks * tile_size + WIDTH;
    __global float *V = scratch + (size_t)part * scratch_item, *D = V + POINTS * v_step;
    Z += tile_part * POINTS * z_step;
    for (int t0 = begin; t0 < end; t0 += many) {
        const int tiles = min(many, end - t0);
        for (int block = 0; block < blocks; block++)
            transform_inputs(V + block * row, v_step, x, block, blocks, H, W, tiles_h, tiles_w,
                             pad_h, pad_w, t0, tiles);
        for (int block = g0 * VECTORS; block < min(g1 * VECTORS, out_blocks); block++)
            for (int t = 0; t < tiles; t++) {
                const int n = (t0 + t) / (tiles_h * tiles_w),
                          p = (t0 + t) / tiles_w % tiles_h * OUT, q = (t0 + t) % tiles_w * OUT;
                __global const float *from =
                    dy + ((size_t)(n * out_blocks + block) * P * Q + p * Q + q) * WIDTH;
                __global float *to = D + (block - g0 * VECTORS) * row + t * WIDTH;
                const int whole = p + OUT <= P && q + OUT <= Q;
                WIDE half_way[TILE * OUT];
                _Pragma("unroll") for (int j = 0; j < OUT; j++) {
                    WIDE d[OUT];
                    _Pragma("unroll") for (int i = 0; i < OUT; i++) d[i] =
                        whole || (p + i < P && q + j < Q) ? LOAD(from + (i * Q + j) * WIDTH)
                                                          : (WIDE)(0.0f);
                    GRADIENT_LINE(half_way + j, OUT, d, 1);
                }
                _Pragma("unroll") for (int i = 0; i < TILE; i++) {
                    WIDE line[TILE];
                    GRADIENT_LINE(line, 1, half_way + i * OUT, 1);
                    _Pragma("unroll") for (int j = 0; j < TILE; j++)
                        STORE(line[j], to + (i * TILE + j) * d_step);
                }
            }
        for (int point = 0; point < POINTS; point++) {
            __global float *tile = Z + point * z_step + (size_t)g0 * blocks * tile_size;
            for (int group = g0; group < g1; group++) {
                __global const float *b = D + point * d_step + (group - g0) * VECTORS * row;
                /* 0: the missing ones repeat the first. */
                const int vector = (group + 1) * VECTORS <= out_blocks ? row : 0;
                for (int block = 0; block < blocks; block++) {
                    __global const float *a = V + point * v_step + block * row;
                    for (int j = 0; j < WIDTH; j += ROWS, tile += ROWS * TILE_COLUMNS) {
                        WIDE acc[ROWS][VECTORS];
                        if (t0 == begin)
                            tile_zero(acc);
                        else
                            tile_load(acc, tile);
                        tile_outer(acc, a + j, WIDTH, b, WIDTH, vector, tiles, a + row);
                        tile_store(acc, tile);
                    }
                }
            }
        }
    }
}

/* One work-item per group of output channels and block of input channels. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void finish(__global float *dweight,
                                                                    __global const float *Z,
                                                                    const int C, const int K,
                                                                    const int tile_parts,
                                                                    const int accumulate) {
    const int group = get_global_id(0), block = get_global_id(1), groups = get_global_size(0),
              blocks = get_global_size(1);
    const int tile_size = WIDTH * TILE_COLUMNS;
    const size_t z_step = (size_t)groups * blocks * tile_size + WIDTH;
    const int inputs = min(WIDTH, C - block * WIDTH),
              outputs = min(TILE_COLUMNS, K - group * TILE_COLUMNS);
    float rows[FILTERS];
    for (int i = 0; i < inputs; i++)
        for (int v = 0; v < VECTORS; v++) {
            __global const float *from =
                Z + ((size_t)group * blocks + block) * tile_size + i * TILE_COLUMNS + v * WIDTH;
            WIDE half_way[3 * TILE], dw[9];
            _Pragma("unroll") for (int s = 0; s < TILE; s++) {
                WIDE z[TILE];
                _Pragma("unroll") for (int r = 0; r < TILE; r++) z[r] =
                    LOAD(from + (r * TILE + s) * z_step);
                for (int part = 1; part < tile_parts; part++)
                    _Pragma("unroll") for (int r = 0; r < TILE; r++) z[r] +=
                        LOAD(from + ((size_t)part * POINTS + r * TILE + s) * z_step);
                TAPS_LINE(half_way + s, TILE, z, 1);
            }
            _Pragma("unroll") for (int r = 0; r < 3; r++)
                TAPS_LINE(dw + r * 3, 1, half_way + r * TILE, 1);
            _Pragma("unroll") for (int rs = 0; rs < 9; rs++) *
                (ANYWHERE *)(ROW(rs, i) + v * WIDTH) = dw[rs];
        }
    write_filters(dweight + ((size_t)group * TILE_COLUMNS * C + block * WIDTH) * TAPS, rows,
                  outputs, inputs, C * TAPS, accumulate);
}
