/* Convolution in groups for GPUs, on images in blocks: y is the sum over the INS inputs c of a
   channel's group and the R x S taps of
     y[n][o][p][q] = bias[o] + sum over c, r, s of packed(o, c, r, s) x[n][o / OUTS * INS + c][p * U
         + r - pad_h][q * V + s - pad_w]
   One work-item per vector of WIDTH output channels of a pixel; neighbours take neighbouring
   channels, then pixels. The gradient by x is the same sum, as for tiles.cl. */
#include "prelude.h"
#include "values.h"
#include "gpu/quads.h"
#include "gpu/lanes.h"

/* Pixel (p, q) of y lies at (first_h + p * step_h, first_w + q * step_w) of its Y x X. */
IN_GROUPS __kernel void grouped(__global VALUE *y, __global const VALUE *restrict x,
                                __global const float *restrict packed,
                                __global const float *restrict bias, const int N, const int C,
                                const int H, const int W, const int K, const int P, const int Q,
                                const int pad_h, const int pad_w, const int Y, const int X,
                                const int first_h, const int first_w, const int step_h,
                                const int step_w, const int has_bias, const int rectify) {
    const int me = get_global_id(0), quad = me % QUADS * WIDTH, line = me / QUADS / Q,
              q = me / QUADS - line * Q, plane = line / P, p = line - plane * P;
    const int blocks = (K + BLOCK - 1) / BLOCK, n = plane / blocks, block = plane - n * blocks,
              o = block * BLOCK + quad;
    if (n >= N) return;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify));
    WIDE sum = (WIDE)(0.0f);
    if (has_bias) sum = load_some(bias + o, K - o);
    const int h = p * U - pad_h, w = q * V - pad_w;
    const int r0 = max(0, -h), r1 = min(R, H - h), s0 = max(0, -w), s1 = min(S, W - w);
    for (int c = 0; c < INS; c++) {
        INPUTS(from, x, n, o, c, C, H * W)
        __global const float *filter = packed + ((block * INS + c) * R * S * BLOCK + quad);
        for (int r = r0; r < r1; r++)
            for (int s = s0; s < s1; s++)
                sum += LOAD_ALIGNED(filter + (r * S + s) * BLOCK) *
                       INPUTS_AT(from, (h + r) * W + w + s);
    }
    __global VALUE *to =
        y + (((size_t)plane * Y + first_h + p * step_h) * X + first_w + q * step_w) * BLOCK + quad;
    STORE_VALUES(select(sum, floor, sum < floor), to);
}
