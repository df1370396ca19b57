/* Pooling for CPUs.   max: y = the largest x of the window, argmax = its place r * S + s in the window (the first of equals, a NaN before
   all).   average: y = sum of the window's x / divisor.   Backward: a window gives its dy to its argmax, or its dy / divisor to each x.
   Windows start at p * stride - padding; x is H by W, y is P by Q, the window is R by S.
   One work-item per `chunk` consecutive planes (image, channel). It owns them whole, so that backward may add where it likes. */
#include "prelude.h"

#define FEW 4 /* outputs at a time: LeNet's rows of 4 and 12 fill these and leave wider vectors empty */

/* Every second value of 2 * FEW - 1, without a look at the one after the last. */
#define LOAD_EVERY(stride, p) ((stride) == 1 ? vload4(0, (p)) : (float4)(vload4(0, (p)).even, vload4(0, (p) + FEW - 1).odd))

IN_GROUPS __kernel void max_forward(__global float *y, __global uchar *argmax, __global const float *x, const int planes, const int chunk,
                          const int H, const int W, const int P, const int Q, const int R, const int S, const int stride_h,
                          const int stride_w, const int padding_h, const int padding_w) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, planes);
    for (int plane = from; plane < to; plane++) {
        __global const float *in = x + (size_t)plane * H * W;
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h;
            const int r0 = max(0, -h), r1 = min(R, H - h);
            const size_t out = ((size_t)plane * P + p) * Q;
            for (int q = 0; q < Q;) {
                const int w = q * stride_w - padding_w;
                if (stride_w <= 2 && w >= 0 && q + FEW <= Q && w + (FEW - 1) * stride_w + S <= W) {
                    float4 best = -INFINITY, place = r0 * S;
                    for (int r = r0; r < r1; r++) {
                        __global const float *row = in + (h + r) * W + w;
                        for (int s = 0; s < S; s++) {
                            const float4 v = LOAD_EVERY(stride_w, row + s);
                            const int4 better = (v > best) | (v != v);
                            best = select(best, v, better);
                            place = select(place, (float4)(r * S + s), better);
                        }
                    }
                    vstore4(best, 0, y + out + q);
                    vstore4(convert_uchar4(place), 0, argmax + out + q);
                    q += FEW;
                    continue;
                }
                const int s0 = max(0, -w), s1 = min(S, W - w);
                float best = -INFINITY;
                int place = r0 * S + s0;
                for (int r = r0; r < r1; r++) {
                    __global const float *row = in + (h + r) * W + w;
                    for (int s = s0; s < s1; s++) {
                        const float v = row[s];
                        if (v > best || v != v) {
                            best = v;
                            place = r * S + s;
                        }
                    }
                }
                y[out + q] = best;
                argmax[out + q] = place;
                q++;
            }
        }
    }
}

inline void zero(__global float *to, const int n) {
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) STORE((WIDE)(0.0f), to + i);
    for (; i < n; i++) to[i] = 0.0f;
}

IN_GROUPS __kernel void max_backward(__global float *dx, __global const float *dy, __global const uchar *argmax, const int planes, const int chunk,
                           const int H, const int W, const int P, const int Q, const int R, const int S, const int stride_h,
                           const int stride_w, const int padding_h, const int padding_w) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, planes);
    int offset[256]; /* of a place in the window from the window's start: spares a division for each output */
    for (int r = 0; r < R; r++)
        for (int s = 0; s < S; s++) offset[r * S + s] = r * W + s;
    for (int plane = from; plane < to; plane++) {
        __global float *in = dx + (size_t)plane * H * W;
        zero(in, H * W);
        for (int p = 0; p < P; p++) {
            const size_t out = ((size_t)plane * P + p) * Q;
            const int start = (p * stride_h - padding_h) * W - padding_w;
            for (int q = 0; q < Q; q++) in[start + q * stride_w + offset[argmax[out + q]]] += dy[out + q];
        }
    }
}

/* Values that a window which starts at `start` divides by: those inside the input, or inside input and padding. */
#define DIVISOR(start, window, extent, padding) \
    (count_padding ? min((start) + (window), (extent) + (padding)) - (start) : min((start) + (window), (extent)) - max((start), 0))

IN_GROUPS __kernel void average_forward(__global float *y, __global const float *x, const int planes, const int chunk, const int H, const int W,
                              const int P, const int Q, const int R, const int S, const int stride_h, const int stride_w,
                              const int padding_h, const int padding_w, const int count_padding) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, planes);
    for (int plane = from; plane < to; plane++) {
        __global const float *in = x + (size_t)plane * H * W;
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h;
            const int h0 = max(0, h), h1 = min(h + R, H);
            const int rows = DIVISOR(h, R, H, padding_h);
            for (int q = 0; q < Q; q++) {
                const int w = q * stride_w - padding_w;
                const int w0 = max(0, w), w1 = min(w + S, W);
                float sum = 0.0f;
                for (int i = h0; i < h1; i++)
                    for (int j = w0; j < w1; j++) sum += in[i * W + j];
                y[((size_t)plane * P + p) * Q + q] = sum / (float)(rows * DIVISOR(w, S, W, padding_w));
            }
        }
    }
}

IN_GROUPS __kernel void average_backward(__global float *dx, __global const float *dy, const int planes, const int chunk, const int H, const int W,
                               const int P, const int Q, const int R, const int S, const int stride_h, const int stride_w,
                               const int padding_h, const int padding_w, const int count_padding) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, planes);
    for (int plane = from; plane < to; plane++) {
        __global float *in = dx + (size_t)plane * H * W;
        zero(in, H * W);
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h;
            const int h0 = max(0, h), h1 = min(h + R, H);
            const int rows = DIVISOR(h, R, H, padding_h);
            for (int q = 0; q < Q; q++) {
                const int w = q * stride_w - padding_w;
                const int w0 = max(0, w), w1 = min(w + S, W);
                const float share = dy[((size_t)plane * P + p) * Q + q] / (float)(rows * DIVISOR(w, S, W, padding_w));
                for (int i = h0; i < h1; i++)
                    for (int j = w0; j < w1; j++) in[i * W + j] += share;
            }
        }
    }
}
