/* The gradient of a convolution in groups by its weights, on images in blocks of WIDTH channels.
     dweight(o, c, r, s) = sum over n, p, q of dy[n][o][p][q] x[n][o / OUTS * INS + c][p * U + r -
         pad_h][q * V + s - pad_w]
   A vector is WIDTH output channels, whatever their groups (lanes.h). A work-item takes one block
   of them (dimension 0) and a share of the rows of all images (dimension 1), `band` rows at a time:
   ROWS rows of the filter are summed together, in registers, a band by itself, which keeps float32
   accurate. grouped_pack.cl adds the shares up in order. */
#include "prelude.h"
#include "cpu/lanes.h"

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void filter(
    __global float *partial, __global const float *dy, __global const float *x,
    __global float *scratch, const int N, const int C, const int H, const int W, const int P,
    const int Q, const int pad_h, const int pad_w, const int band, const int scratch_item) {
    const int block = get_global_id(0), share = get_global_id(1), blocks = get_global_size(0),
              shares = get_global_size(1);
    const int width = (Q - 1) * V + S;
    const size_t image = (size_t)((C + WIDTH - 1) / WIDTH) * H * W * WIDTH;
    __global float *copy = scratch + (size_t)(share * blocks + block) * scratch_item;
    __global float *sums = partial + (size_t)(share * blocks + block) * INS * R * S * WIDTH;
    for (int i = 0; i < INS * R * S; i++) STORE((WIDE)(0.0f), sums + i * WIDTH);
    const int last = (int)((long)N * P * (share + 1) / shares);
    for (int line = (int)((long)N * P * share / shares); line < last;) {
        const int n = line / P, p0 = line % P, p1 = min(min(p0 + band, P), p0 + last - line);
        line += p1 - p0;
        for (int c = 0; c < INS; c++) {
            copy_lanes(copy, x + n * image, block, c, C, H, W, p0 * U - pad_h,
                       (p1 - p0 - 1) * U + R, -pad_w, width);
            for (int r0 = 0; r0 < R; r0 += ROWS) {
                WIDE acc[ROWS][S];
                _Pragma("unroll") for (int r = 0; r < ROWS; r++)
                    _Pragma("unroll") for (int s = 0; s < S; s++) acc[r][s] = (WIDE)(0.0f);
                for (int p = p0; p < p1; p++) {
                    __global const float *a = copy + ((p - p0) * U + r0) * width * WIDTH;
                    __global const float *b =
                        dy + ((size_t)(n * blocks + block) * P + p) * Q * WIDTH;
                    for (int q = 0; q < Q; q++, a += V * WIDTH, b += WIDTH) {
                        const WIDE d = LOAD(b);
                        _Pragma("unroll") for (int r = 0; r < ROWS; r++)
                            _Pragma("unroll") for (int s = 0; s < S; s++) acc[r][s] +=
                            d * LOAD(a + (r * width + s) * WIDTH);
                    }
                }
                _Pragma("unroll") for (int r = 0; r < ROWS; r++)
                    _Pragma("unroll") for (int s = 0; s < S; s++) {
                    __global float *to = sums + ((c * R + r0 + r) * S + s) * WIDTH;
                    STORE(LOAD(to) + acc[r][s], to);
                }
            }
        }
    }
}
