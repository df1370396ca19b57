/* The gradient of a convolution in groups by its weights, for GPUs, on images in blocks.
     dweight(o, c, r, s) = sum over n, p, q of dy[n][o][p][q] x[n][o / OUTS * INS + c][p * U + r -
         pad_h][q * V + s - pad_w]
   A group takes a block of output channels (dimension 0), a share of the pixels of all images
   (dimension 1), and one input c and row r of the filter (dimension 2); a work-item sums WIDTH
   channels of every LANES-th pixel for the S taps of the row. grouped_pack.cl adds the shares up in
   order. */
#include "prelude.h"
#include "values.h"
#include "gpu/quads.h"
#include "gpu/lanes.h"

IN_GROUPS __kernel void filter(__global float *partial, __global const VALUE *restrict dy,
                               __global const VALUE *restrict x, const int N, const int C,
                               const int H, const int W, const int P, const int Q, const int pad_h,
                               const int pad_w) {
    const int me = get_local_id(0), quad = me % QUADS * WIDTH;
    const int block = get_group_id(0), share = get_group_id(1), c = get_group_id(2) / R,
              r = get_group_id(2) % R, blocks = get_num_groups(0), shares = get_num_groups(1);
    const int o = block * BLOCK + quad, last = (int)((long)N * P * Q * (share + 1) / shares);
    __local WIDE scratch[GROUP];
    WIDE sums[S];
    _Pragma("unroll") for (int s = 0; s < S; s++) sums[s] = (WIDE)(0.0f);
    for (int j = (int)((long)N * P * Q * share / shares) + me / QUADS; j < last; j += LANES) {
        const int line = j / Q, q = j - line * Q, n = line / P, p = line - n * P;
        const int h = p * U + r - pad_h, w = q * V - pad_w;
        if ((uint)h >= (uint)H) continue;
        const WIDE d =
            LOAD_VALUES(dy + (((size_t)n * blocks + block) * P * Q + p * Q + q) * BLOCK + quad);
        INPUTS(from, x, n, o, c, C, H * W)
        _Pragma("unroll") for (int s = 0; s < S; s++) if ((uint)(w + s) < (uint)W) sums[s] +=
            d * INPUTS_AT(from, h * W + w + s);
    }
    for (int s = 0; s < S; s++) {
        const WIDE total = add_lanes(sums[s], scratch, me);
        if (me < QUADS)
            STORE_ALIGNED(total,
                          partial +
                              ((((size_t)share * blocks + block) * INS + c) * R * S + r * S + s) *
                                  BLOCK +
                              quad);
    }
}
