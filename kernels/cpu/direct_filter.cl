/* The gradient of a convolution by its weights, straight from its definition, on images in
   blocks of WIDTH channels.
     dweight[k][c][r][s] = sum over n, p, q of dy[n][k][p][q] x[n][c][p * U + r - pad_h][q * V +
         s - pad_w]
     (+ what is there)
   A tile is ROWS input channels times VECTORS * WIDTH output channels of one tap, summed over
   pixels: scalars of x times vectors of dy. A unit is `out_range` groups of output channels and
   `in_range` blocks of input channels; it goes through all images, some pixels at a time that
   stay in the caches, and adds its tiles up in its own scratch, in a fixed order; of no images it
   would write whatever is there. The copies are those of direct.cl. */
#include "prelude.h"
#include "cpu/tile.h"
#include "cpu/rows.h"
#define FINISHED __global
#include "cpu/filters.h"

/* A piece is `images` images, or `band` rows of one, or (1x1 filters) `run` pixels of a row. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void direct_filter(
    __global float *dweight, __global const float *dy, __global const float *x,
    __global float *scratch, const int N, const int C, const int H, const int W, const int K,
    const int P, const int Q, const int R, const int S, const int U, const int V, const int pad_h,
    const int pad_w, const int out_range, const int in_range, const int images, const int band,
    const int run, const int accumulate, const int scratch_item, const int sums) {
    const int me = get_global_id(0), items = get_global_size(0);
    const int blocks = (C + WIDTH - 1) / WIDTH, out_blocks = (K + WIDTH - 1) / WIDTH,
              groups = (K + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int in_units = (blocks + in_range - 1) / in_range,
              units = (groups + out_range - 1) / out_range * in_units;
    __global float *sum = scratch + (size_t)me * scratch_item, *copy = sum + sums;
#if COPY == COPY_COMPACT
    const int taps = R, together = S * C; /* a row of the filter is one run of scalars */
#else
    const int taps = TAPS, together = WIDTH;
#endif
    const int tiles = (together + ROWS - 1) / ROWS, tile_size = ROWS * TILE_COLUMNS;
    for (int unit = me; unit < units; unit += items) {
        const int g0 = unit / in_units * out_range, g1 = min(g0 + out_range, groups);
        const int b0 = unit % in_units * in_range, b1 = min(b0 + in_range, blocks);
        for (int n0 = 0; n0 < N; n0 += images)
            for (int p0 = 0; p0 < P; p0 += band)
                for (int q0 = 0; q0 < Q; q0 += run) {
                    const int n1 = min(n0 + images, N), p1 = min(p0 + band, P),
                              pixels = min(run, Q - q0);
                    __global const float *from = x + ((size_t)n0 * blocks + b0) * H * W * WIDTH;
                    int h0 = 0, w0 = 0, row_step = W * WIDTH, block_step = H * W * WIDTH,
                        image_step = blocks * block_step, pixel = WIDTH;
#if COPY != COPY_NONE
                    const int rows = (p1 - p0 - 1) * U + R, width = (Q - 1) * V + S;
                    h0 = p0 * U - pad_h, w0 = -pad_w;
#if COPY == COPY_COMPACT
                    pixel = C;
#endif
                    row_step = width * pixel, block_step = rows * row_step,
                    image_step = (b1 - b0) * block_step;
                    for (int n = n0; n < n1; n++) {
                        __global const float *image =
                            from + (size_t)(n - n0) * blocks * H * W * WIDTH;
                        __global float *to = copy + (n - n0) * image_step;
#if COPY == COPY_COMPACT
                        copy_compact(to, image, C, H, W, h0, rows, w0, width);
#else
                        copy_blocks(to, image, b1 - b0, H, W, h0, rows, w0, width);
#endif
                    }
                    from = copy;
#endif
                    __global float *tile = sum;
                    for (int group = g0; group < g1; group++) {
                        /* 0: the missing ones repeat the first. */
                        const int k = group * VECTORS,
                                  vector = k + VECTORS <= out_blocks ? P * Q * WIDTH : 0;
                        for (int block = b0; block < b1; block++)
                            for (int tap = 0; tap < taps; tap++)
                                for (int j = 0; j < tiles; j++, tile += tile_size) {
                                    const int r = COPY == COPY_COMPACT ? tap : tap / S,
                                              s = COPY == COPY_COMPACT ? 0 : tap % S;
                                    WIDE acc[ROWS][VECTORS];
                                    if (n0 || p0 || q0)
                                        tile_load(acc, tile);
                                    else
                                        tile_zero(acc);
                                    for (int n = n0; n < n1; n++)
                                        for (int p = p0; p < p1; p++) {
                                            __global const float *a =
                                                from + (size_t)(n - n0) * image_step +
                                                (block - b0) * block_step +
                                                (p * U + r - pad_h - h0) * row_step +
                                                (q0 * V + s - pad_w - w0) * pixel + j * ROWS;
                                            __global const float *b =
                                                dy +
                                                (((size_t)(n * out_blocks + k) * P + p) * Q + q0) *
                                                    WIDTH;
                                            tile_outer(acc, a, V * pixel, b, WIDTH, vector, pixels,
                                                       j + 1 < tiles ? a : a + block_step);
                                        }
                                    tile_store(acc, tile);
                                }
                    }
                }
        for (int group = g0; group < g1; group++) { /* Dweight in its own order. */
            const int outputs = min(TILE_COLUMNS, K - group * TILE_COLUMNS);
            __global float *to = dweight + (size_t)group * TILE_COLUMNS * C * TAPS;
            __global const float *from =
                sum + (size_t)(group - g0) * (b1 - b0) * taps * tiles * tile_size;
#if COPY == COPY_COMPACT
            for (int o = 0; o < outputs; o++)
                SINGLY for (int c = 0; c < C; c++) SINGLY for (int rs = 0; rs < TAPS; rs++) {
                    const int at = rs / S * tiles * ROWS + rs % S * C + c;
                    __global float *value = to + ((size_t)o * C + c) * TAPS + rs;
                    *value = from[at * TILE_COLUMNS + o] + (accumulate ? *value : 0.0f);
                }
#else
            for (int block = b0; block < b1; block++, from += taps * tiles * tile_size)
                write_filters(to + block * WIDTH * TAPS, from, outputs,
                              min(WIDTH, C - block * WIDTH), C * TAPS, accumulate);
#endif
        }
    }
}
