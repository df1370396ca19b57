/* Pooling for GPUs.   max: y = the largest x of the window, argmax = its place r * S + s in the window (the first of equals, a NaN before
   all).   average: y = sum of the window's x / divisor.   Backward: x gathers the dy of the windows whose argmax it is, or dy / divisor of
   all windows that cover it.   Windows start at p * stride - padding; x is H by W, y is P by Q, the window is R by S.
   One work-item per value written; `line` is its row, counted over all planes (image, channel). No atomics. */
#include "prelude.h"

IN_GROUPS __kernel void max_forward(__global float *y, __global uchar *argmax, __global const float *x, const int planes, const int H, const int W,
                          const int P, const int Q, const int R, const int S, const int stride_h, const int stride_w, const int padding_h,
                          const int padding_w) {
    const int o = get_global_id(0);
    if (o >= planes * P * Q) return;
    const int line = o / Q, q = o - line * Q, plane = line / P;
    const int h = (line - plane * P) * stride_h - padding_h, w = q * stride_w - padding_w;
    const int r0 = max(0, -h), r1 = min(R, H - h), s0 = max(0, -w), s1 = min(S, W - w);
    __global const float *in = x + (size_t)plane * H * W;
    float best = -INFINITY;
    int place = r0 * S + s0;
    for (int r = r0; r < r1; r++)
        for (int s = s0; s < s1; s++) {
            const float v = in[(h + r) * W + w + s];
            if (v > best || v != v) {
                best = v;
                place = r * S + s;
            }
        }
    y[o] = best;
    argmax[o] = place;
}

/* The windows [first, last] that cover position `at`: those that start in (at - window, at]. */
#define FIRST_WINDOW(at, window, stride, padding) ((at) + (padding) < (window) ? 0 : ((at) + (padding) - (window)) / (stride) + 1)
#define LAST_WINDOW(at, stride, padding, count) min((count) - 1, ((at) + (padding)) / (stride))

IN_GROUPS __kernel void max_backward(__global float *dx, __global const float *dy, __global const uchar *argmax, const int planes, const int H,
                           const int W, const int P, const int Q, const int R, const int S, const int stride_h, const int stride_w,
                           const int padding_h, const int padding_w) {
    const int i = get_global_id(0);
    if (i >= planes * H * W) return;
    const int line = i / W, w = i - line * W, plane = line / H, h = line - plane * H;
    const int p0 = FIRST_WINDOW(h, R, stride_h, padding_h), p1 = LAST_WINDOW(h, stride_h, padding_h, P);
    const int q0 = FIRST_WINDOW(w, S, stride_w, padding_w), q1 = LAST_WINDOW(w, stride_w, padding_w, Q);
    float sum = 0.0f;
    for (int p = p0; p <= p1; p++)
        for (int q = q0; q <= q1; q++) {
            const int out = (plane * P + p) * Q + q;
            const int here = (h - p * stride_h + padding_h) * S + w - q * stride_w + padding_w;
            if (argmax[out] == here) sum += dy[out];
        }
    dx[i] = sum;
}

/* Values that a window which starts at `start` divides by: those inside the input, or inside input and padding. */
#define DIVISOR(start, window, extent, padding) \
    (count_padding ? min((start) + (window), (extent) + (padding)) - (start) : min((start) + (window), (extent)) - max((start), 0))

IN_GROUPS __kernel void average_forward(__global float *y, __global const float *x, const int planes, const int H, const int W, const int P,
                              const int Q, const int R, const int S, const int stride_h, const int stride_w, const int padding_h,
                              const int padding_w, const int count_padding) {
    const int o = get_global_id(0);
    if (o >= planes * P * Q) return;
    const int line = o / Q, q = o - line * Q, plane = line / P;
    const int h = (line - plane * P) * stride_h - padding_h, w = q * stride_w - padding_w;
    const int h0 = max(0, h), h1 = min(h + R, H), w0 = max(0, w), w1 = min(w + S, W);
    __global const float *in = x + (size_t)plane * H * W;
    float sum = 0.0f;
    for (int j = h0; j < h1; j++)
        for (int k = w0; k < w1; k++) sum += in[j * W + k];
    y[o] = sum / (float)(DIVISOR(h, R, H, padding_h) * DIVISOR(w, S, W, padding_w));
}

IN_GROUPS __kernel void average_backward(__global float *dx, __global const float *dy, const int planes, const int H, const int W, const int P,
                               const int Q, const int R, const int S, const int stride_h, const int stride_w, const int padding_h,
                               const int padding_w, const int count_padding) {
    const int i = get_global_id(0);
    if (i >= planes * H * W) return;
    const int line = i / W, w = i - line * W, plane = line / H, h = line - plane * H;
    const int p0 = FIRST_WINDOW(h, R, stride_h, padding_h), p1 = LAST_WINDOW(h, stride_h, padding_h, P);
    const int q0 = FIRST_WINDOW(w, S, stride_w, padding_w), q1 = LAST_WINDOW(w, stride_w, padding_w, Q);
    float sum = 0.0f;
    for (int p = p0; p <= p1; p++) {
        const int start_h = p * stride_h - padding_h;
        const int rows = DIVISOR(start_h, R, H, padding_h);
        for (int q = q0; q <= q1; q++) {
            const int start_w = q * stride_w - padding_w;
            sum += dy[(plane * P + p) * Q + q] / (float)(rows * DIVISOR(start_w, S, W, padding_w));
        }
    }
    dx[i] = sum;
}
