/* Convolution straight from its definition, on images in blocks of WIDTH channels (N, C/WIDTH,
   H, W, WIDTH).
     y[n][k][p][q] = bias[k] + sum over c, r, s of weight[k][c][r][s] x[n][c][p * U + r -
         pad_h][q * V + s - pad_w]
   A tile is ROWS neighbouring pixels of a row times VECTORS * WIDTH output channels: scalars of
   x times vectors of weights packed by pack.cl. Where the filter reaches over an edge, a
   work-item first copies the rows it needs into its scratch, with zeros around them; fewer than
   WIDTH channels are laid side by side there (pixel, channel), so that a whole row of the filter
   is one run of scalars. The gradient by x is the same sum with the filter turned round; with a
   stride, one such sum for each place of a pixel between the strides, which is what y_step and
   y_first are for. */
#include "prelude.h"
#include "cpu/tile.h"
#include "cpu/rows.h"

/* y may be larger than the P x Q pixels computed here: pixel (p, q) lies at (first_h + p *
   step_h, first_w + q * step_w) of its Y x X. A unit is `band` rows and `run` tiles of a row of
   one image, and all K channels; work-item i takes units i, i + items, ... `rectify`: y = max(y,
   0). has_bias: 0 where there is none. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void direct(
    __global float *y, __global const float *x, __global const float *packed,
    __global const float *bias, __global float *scratch, const int N, const int C, const int H,
    const int W, const int K, const int P, const int Q, const int R, const int S, const int U,
    const int V, const int pad_h, const int pad_w, const int Y, const int X, const int first_h,
    const int first_w, const int step_h, const int step_w, const int band, const int run,
    const int has_bias, const int rectify, const int scratch_item) {
    const int me = get_global_id(0), items = get_global_size(0);
    const int blocks = (C + WIDTH - 1) / WIDTH, out_blocks = (K + WIDTH - 1) / WIDTH,
              groups = (K + TILE_COLUMNS - 1) / TILE_COLUMNS;
#if COPY == COPY_COMPACT
    const int columns = 1, together = S * C; /* a row of the filter is one run of scalars */
#else
    const int columns = S, together = 0;
#endif
    const int tiles = (Q + ROWS - 1) / ROWS, bands = (P + band - 1) / band,
              runs = (tiles + run - 1) / run;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify));
    __global float *copy = scratch + (size_t)me * scratch_item;
    for (int unit = me; unit < N * bands * runs; unit += items) {
        const int n = unit / (bands * runs), p0 = unit / runs % bands * band,
                  t0 = unit % runs * run;
        const int p1 = min(p0 + band, P), t1 = min(t0 + run, tiles);
        __global const float *image = x + (size_t)n * blocks * H * W * WIDTH;
        /* Where the tiles read: from the image itself, or from the copy. */
        __global const float *from = image;
        int h0 = 0, w0 = 0, row_step = W * WIDTH, block_step = H * W * WIDTH, pixel = WIDTH;
#if COPY != COPY_NONE
        const int rows = (p1 - p0 - 1) * U + R, width = (Q - 1) * V + S;
        h0 = p0 * U - pad_h, w0 = -pad_w;
        from = copy;
#if COPY == COPY_BLOCKS
        copy_blocks(copy, image, blocks, H, W, h0, rows, w0, width);
#else
        copy_compact(copy, image, C, H, W, h0, rows, w0, width);
        pixel = C;
#endif
        row_step = width * pixel, block_step = rows * row_step;
#endif
        for (int group = 0; group < groups; group++)
            for (int p = p0; p < p1; p++)
                for (int t = t0; t < t1; t++) {
                    /* The last tile of a row goes back over pixels done before. */
                    const int q = min(t * ROWS, Q - ROWS);
                    __global const float *a =
                        from + (p * U - pad_h - h0) * row_step + (q * V - pad_w - w0) * pixel;
                    __global const float *b = packed + (size_t)group * C * R * S * TILE_COLUMNS;
                    WIDE acc[ROWS][VECTORS];
                    tile_zero(acc);
                    /* Rows of the filter that lie outside the image have nothing to add. */
                    const int r0 = max(0, pad_h - p * U), r1 = min(R, H + pad_h - p * U);
                    a += r0 * row_step;
                    b += r0 * columns * TILE_COLUMNS * (together ? together : min(WIDTH, C));
                    /* One loop over all taps: with a loop each for blocks, r and s, compilers
                       move the accumulators between registers. */
                    const int taps = (together ? 1 : blocks) * max(0, r1 - r0) * columns;
                    int s = 0, r = r0, block = 0;
                    for (int tap = 0; tap < taps; tap++) {
                        const int count = together ? together : min(WIDTH, C - block * WIDTH);
                        /* The next tile's, while this one waits for nothing. */
                        if (group == 0) EACH_ROW PREFETCH(a + (ROWS + i) * STEP);
                        tile_multiply(acc, a, b, count);
                        b += count * TILE_COLUMNS;
                        a += WIDTH;
                        if (++s == columns) {
                            s = 0;
                            a += row_step - columns * WIDTH;
                            if (++r == r1) {
                                r = r0, block++;
                                a += block_step - (r1 - r0) * row_step;
                                b += (R - r1) * columns * count * TILE_COLUMNS +
                                     r0 * columns * min(WIDTH, C - block * WIDTH) * TILE_COLUMNS;
                            }
                        }
                    }
                    EACH_VECTOR {
                        const int k = group * VECTORS + v;
                        if (k < out_blocks) {
                            WIDE start = (WIDE)(0.0f);
                            if (has_bias) start = load_some(bias + k * WIDTH, K - k * WIDTH);
                            __global float *to =
                                y + (((size_t)(n * out_blocks + k) * Y + first_h + p * step_h) * X +
                                     first_w + q * step_w) *
                                        WIDTH;
                            EACH_ROW {
                                const WIDE value = acc[i][v] + start;
                                STORE(select(value, floor, value < floor), to + i * step_w * WIDTH);
                            }
                        }
                    }
                }
    }
}
