/* Convolution with 3x3 filters and stride 1 by Winograd's minimal filtering, on images in blocks
   of WIDTH channels. For each point of a tile a matrix product over channels: M[point] (tiles,
   K) = V[point] (tiles, C) U[point] (C, K), where V are transformed tiles of x and U the
   transformed filters; y's tiles are M's, transformed back. winograd.h has the equations. The
   gradient by x is the same with the filter turned round. */
#include "prelude.h"
#include "cpu/tile.h"
#define TAPS 9
#include "cpu/filters.h"
#include "winograd.h"

/* packed[point][group][i][o]: the transformed filters, for inputs i < I and outputs o <
   TILE_COLUMNS of a group (zero from O on), points a line further apart than they need be;
   strides as in pack.cl. One work-item per group and block of inputs. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void transform_filters(
    __global float *packed, __global const float *weight, const int O, const int I,
    const int out_step, const int in_step, const int first_r, const int first_s, const int step_r,
    const int step_s, const int tap_row, const int size) {
    const int group = get_global_id(0), block = get_global_id(1), groups = get_global_size(0);
    const int inside = min(WIDTH, I - block * WIDTH);
    const size_t point_step = (size_t)groups * I * TILE_COLUMNS + WIDTH;
    const int start = group * TILE_COLUMNS * out_step + block * WIDTH * in_step;
    float rows[FILTERS];
    read_filters(rows, weight + start, min(TILE_COLUMNS, O - group * TILE_COLUMNS), inside,
                 out_step, in_step, 3, first_r, first_s, step_r, step_s, tap_row, size - start);
    for (int i = 0; i < inside; i++)
        for (int v = 0; v < VECTORS; v++) {
            WIDE g[9], half_way[3 * TILE];
            _Pragma("unroll") for (int rs = 0; rs < 9; rs++) g[rs] =
                *(const ANYWHERE *)(ROW(rs, i) + v * WIDTH);
            _Pragma("unroll") for (int s = 0; s < 3; s++)
                filter_line(half_way + s, 3, g[s], g[3 + s], g[6 + s]);
            __global float *to =
                packed + ((size_t)group * I + block * WIDTH + i) * TILE_COLUMNS + v * WIDTH;
            _Pragma("unroll") for (int r = 0; r < TILE; r++) {
                WIDE line[TILE];
                filter_line(line, 1, half_way[r * 3], half_way[r * 3 + 1], half_way[r * 3 + 2]);
                _Pragma("unroll") for (int s = 0; s < TILE; s++)
                    STORE(line[s], to + (r * TILE + s) * point_step);
            }
        }
}

/* A unit is `many` tiles (a multiple of ROWS) of the images in a row, with all channels;
   work-item i takes units i, i + items, ... Its scratch holds V and M of these tiles: (point,
   block, tile, channel of the block), points one line further apart than they need be, or those
   of one place would all fall on the same set of a cache. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void winograd(
    __global float *y, __global const float *x, __global const float *packed,
    __global const float *bias, __global float *scratch, const int N, const int C, const int H,
    const int W, const int K, const int P, const int Q, const int pad_h, const int pad_w,
    const int many, const int has_bias, const int rectify, const int scratch_item) {
    const int me = get_global_id(0), items = get_global_size(0);
    const int blocks = (C + WIDTH - 1) / WIDTH, out_blocks = (K + WIDTH - 1) / WIDTH,
              groups = (K + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int tiles_h = (P + OUT - 1) / OUT, tiles_w = (Q + OUT - 1) / OUT,
              all = N * tiles_h * tiles_w, row = many * WIDTH;
    const size_t v_step = blocks * row + WIDTH, m_step = groups * VECTORS * row + WIDTH,
                 u_step = (size_t)groups * C * TILE_COLUMNS + WIDTH;
    __global float *V = scratch + (size_t)me * scratch_item, *M = V + POINTS * v_step;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify));
    for (int t0 = me * many; t0 < all; t0 += items * many) {
        const int tiles = min(many, all - t0), rounds = (tiles + ROWS - 1) / ROWS;
        for (int block = 0; block < blocks; block++)
            transform_inputs(V + block * row, v_step, x, block, blocks, H, W, tiles_h, tiles_w,
                             pad_h, pad_w, t0, tiles);
        for (int point = 0; point < POINTS; point++)
            for (int group = 0; group < groups; group++)
                for (int round = 0; round < rounds; round++) {
                    __global const float *a = V + point * v_step + round * ROWS * WIDTH;
                    __global const float *b =
                        packed + point * u_step + (size_t)group * C * TILE_COLUMNS;
                    WIDE acc[ROWS][VECTORS];
                    tile_zero(acc);
                    for (int block = 0; block < blocks;
                         block++, a += row, b += WIDTH * TILE_COLUMNS)
                        tile_multiply(acc, a, b, min(WIDTH, C - block * WIDTH));
                    __global float *to =
                        M + point * m_step + group * VECTORS * row + round * ROWS * WIDTH;
                    EACH_VECTOR EACH_ROW STORE(acc[i][v], to + v * row + i * WIDTH);
                }
        for (int block = 0; block < out_blocks; block++) {
            const WIDE start =
                has_bias ? load_some(bias + block * WIDTH, K - block * WIDTH) : (WIDE)(0.0f);
            for (int t = 0; t < tiles; t++) {
                const int n = (t0 + t) / (tiles_h * tiles_w),
                          p = (t0 + t) / tiles_w % tiles_h * OUT, q = (t0 + t) % tiles_w * OUT;
                __global const float *from = M + block * row + t * WIDTH;
                __global float *to =
                    y + ((size_t)(n * out_blocks + block) * P * Q + p * Q + q) * WIDTH;
                WIDE half_way[OUT * TILE];
                _Pragma("unroll") for (int j = 0; j < TILE; j++) {
                    WIDE m[TILE];
                    _Pragma("unroll") for (int i = 0; i < TILE; i++) m[i] =
                        LOAD(from + (i * TILE + j) * m_step);
                    OUTPUT_LINE(half_way + j, TILE, m, 1);
                }
                const int whole = p + OUT <= P && q + OUT <= Q;
                _Pragma("unroll") for (int i = 0; i < OUT; i++) {
                    WIDE line[OUT];
                    OUTPUT_LINE(line, 1, half_way + i * TILE, 1);
                    _Pragma("unroll") for (int j = 0; j < OUT; j++) {
                        const WIDE value = line[j] + start;
                        if (whole || (p + i < P && q + j < Q))
                            STORE(select(value, floor, value < floor), to + (i * Q + j) * WIDTH);
                    }
                }
            }
        }
    }
}
