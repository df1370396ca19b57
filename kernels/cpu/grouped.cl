/* Convolution in groups, on images (N, C/WIDTH, H, W, WIDTH): y is the sum over the INS inputs c
   of a channel's group and the R x S taps of
     y[n][o][p][q] = bias[o] + sum over c, r, s of packed(o, c, r, s) x[n][o / OUTS * INS + c][p * U
         + r - pad_h][q * V + s - pad_w]
   A vector is WIDTH output channels, whatever their groups: lanes.h lays each one's input beside
   it. A tile is PIXELS neighbouring pixels of a row, in registers. The gradient by x is the same
   sum, as for direct.cl. */
#include "prelude.h"
#include "cpu/lanes.h"

#define EACH_PIXEL _Pragma("unroll") for (int i = 0; i < PIXELS; i++)

/* Pixel (p, q) of y lies at (first_h + p * step_h, first_w + q * step_w) of its Y x X. A unit is
   one block of output channels and `band` rows of one image; work-item i takes units i, i + items,
   ... */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void grouped(
    __global float *y, __global const float *x, __global const float *packed,
    __global const float *bias, __global float *scratch, const int N, const int C, const int H,
    const int W, const int K, const int P, const int Q, const int pad_h, const int pad_w,
    const int Y, const int X, const int first_h, const int first_w, const int step_h,
    const int step_w, const int band, const int has_bias, const int rectify,
    const int scratch_item) {
    const int me = get_global_id(0), items = get_global_size(0);
    const int blocks = (K + WIDTH - 1) / WIDTH, bands = (P + band - 1) / band,
              tiles = (Q + PIXELS - 1) / PIXELS, width = (Q - 1) * V + S;
    const size_t image = (size_t)((C + WIDTH - 1) / WIDTH) * H * W * WIDTH;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify));
    __global float *copy = scratch + (size_t)me * scratch_item;
    for (int unit = me; unit < N * blocks * bands; unit += items) {
        const int n = unit / (blocks * bands), block = unit / bands % blocks,
                  p0 = unit % bands * band, p1 = min(p0 + band, P);
        const int rows = (p1 - p0 - 1) * U + R;
        for (int c = 0; c < INS; c++)
            copy_lanes(copy + (size_t)c * rows * width * WIDTH, x + n * image, block, c, C, H, W,
                       p0 * U - pad_h, rows, -pad_w, width);
        __global const float *filter = packed + (size_t)block * INS * R * S * WIDTH;
        WIDE start = (WIDE)(0.0f);
        if (has_bias) start = load_some(bias + block * WIDTH, K - block * WIDTH);
        for (int p = p0; p < p1; p++)
            for (int t = 0; t < tiles; t++) {
                /* The last tile of a row goes back over pixels done before. */
                const int q = min(t * PIXELS, Q - PIXELS);
                WIDE acc[PIXELS];
                EACH_PIXEL acc[i] = start;
                for (int c = 0; c < INS; c++) {
                    __global const float *a =
                        copy + (((size_t)c * rows + (p - p0) * U) * width + q * V) * WIDTH;
                    __global const float *b = filter + c * R * S * WIDTH;
                    for (int r = 0; r < R; r++, a += width * WIDTH, b += S * WIDTH)
                        _Pragma("unroll") for (int s = 0; s < S; s++) {
                            const WIDE w = LOAD(b + s * WIDTH);
                            EACH_PIXEL acc[i] += w * LOAD(a + (i * V + s) * WIDTH);
                        }
                }
                __global float *to =
                    y + (((size_t)(n * blocks + block) * Y + first_h + p * step_h) * X + first_w +
                         q * step_w) *
                            WIDTH;
                EACH_PIXEL STORE(select(acc[i], floor, acc[i] < floor), to + i * step_w * WIDTH);
            }
    }
}
