/* Pooling for CPUs, on images in blocks of WIDTH channels.
   max: y = the largest x of the window, argmax = its place r * S + s in the
   window (the first of equals, a NaN before all); with GATES, NOWHERE if it is not above 0.
   average: y = sum of the window's x / divisor.   Backward: a window gives its dy to its
   argmax, or its dy / divisor to each x.
   Windows start at p * stride - padding; x is H by W, y is P by Q, the window is R by S.
   One work-item per `chunk` consecutive planes (image, block). It owns them whole, so that
   backward may add where it likes. */
#include "prelude.h"

#define NOWHERE 255

#define PLANES                                                                                     \
    const int planes, const int chunk, const int H, const int W, const int P, const int Q,         \
        const int R, const int S, const int stride_h, const int stride_w, const int padding_h,     \
        const int padding_w
#define EACH_PLANE(plane)                                                                          \
    for (int plane = get_global_id(0) * chunk;                                                     \
         plane < min(planes, (int)(get_global_id(0) + 1) * chunk); plane++)

IN_GROUPS __kernel void max_forward(__global float *y, __global uchar *argmax,
                                    __global const float *x, PLANES) {
    EACH_PLANE(plane) {
        __global const float *in = x + (size_t)plane * H * W * WIDTH;
        size_t out = (size_t)plane * P * Q * WIDTH;
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h, r0 = max(0, -h), r1 = min(R, H - h);
            for (int q = 0; q < Q; q++, out += WIDTH) {
                const int w = q * stride_w - padding_w, s0 = max(0, -w), s1 = min(S, W - w);
                WIDE best = (WIDE)(-INFINITY);
                WIDE_INT place = (WIDE_INT)(r0 * S + s0);
                for (int r = r0; r < r1; r++)
                    for (int s = s0; s < s1; s++) {
                        const WIDE v = LOAD(in + ((h + r) * W + w + s) * WIDTH);
                        const WIDE_INT better = (v > best) | (v != v);
                        best = select(best, v, better);
                        place = select(place, (WIDE_INT)(r * S + s), better);
                    }
                STORE(best, y + out);
                if (GATES) place = select(place, (WIDE_INT)(NOWHERE), best <= (WIDE)(0.0f));
                PASTE(vstore, WIDTH)(PASTE(convert_uchar, WIDTH)(place), 0, argmax + out);
            }
        }
    }
}

inline void zero(__global float *to, const int n) {
    for (int i = 0; i < n; i += WIDTH) STORE((WIDE)(0.0f), to + i);
}

IN_GROUPS __kernel void max_backward(__global float *dx, __global const float *dy,
                                     __global const uchar *argmax, PLANES) {
    /* Windows side by side that cover x write each place once; others add. */
    const int once =
        R == stride_h && S == stride_w && H == P * R && W == Q * S && !padding_h && !padding_w;
    EACH_PLANE(plane) {
        __global float *in = dx + (size_t)plane * H * W * WIDTH;
        size_t out = (size_t)plane * P * Q * WIDTH;
        if (!once) zero(in, H * W * WIDTH);
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h, r0 = max(0, -h), r1 = min(R, H - h);
            for (int q = 0; q < Q; q++, out += WIDTH) {
                const int w = q * stride_w - padding_w, s0 = max(0, -w), s1 = min(S, W - w);
                const WIDE share = LOAD(dy + out);
                const WIDE_INT place =
                    PASTE(convert_int, WIDTH)(PASTE(vload, WIDTH)(0, argmax + out));
                for (int r = r0; r < r1; r++)
                    for (int s = s0; s < s1; s++) {
                        __global float *to = in + ((h + r) * W + w + s) * WIDTH;
                        const WIDE mine =
                            select((WIDE)(0.0f), share, place == (WIDE_INT)(r * S + s));
                        if (once)
                            STORE(mine, to);
                        else
                            STORE(LOAD(to) + mine, to);
                    }
            }
        }
    }
}

/* Values that a window which starts at `start` divides by: those inside the input, or inside
   input and padding. */
#define DIVISOR(start, window, extent, padding)                                                    \
    (count_padding ? min((start) + (window), (extent) + (padding)) - (start)                       \
                   : min((start) + (window), (extent)) - max((start), 0))

IN_GROUPS __kernel void average_forward(__global float *y, __global const float *x, PLANES,
                                        const int count_padding) {
    EACH_PLANE(plane) {
        __global const float *in = x + (size_t)plane * H * W * WIDTH;
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h, h0 = max(0, h), h1 = min(h + R, H),
                      rows = DIVISOR(h, R, H, padding_h);
            for (int q = 0; q < Q; q++) {
                const int w = q * stride_w - padding_w, w0 = max(0, w), w1 = min(w + S, W);
                WIDE sum = (WIDE)(0.0f);
                for (int i = h0; i < h1; i++)
                    for (int j = w0; j < w1; j++) sum += LOAD(in + (i * W + j) * WIDTH);
                STORE(sum / (float)(rows * DIVISOR(w, S, W, padding_w)),
                      y + (((size_t)plane * P + p) * Q + q) * WIDTH);
            }
        }
    }
}

IN_GROUPS __kernel void average_backward(__global float *dx, __global const float *dy, PLANES,
                                         const int count_padding) {
    EACH_PLANE(plane) {
        __global float *in = dx + (size_t)plane * H * W * WIDTH;
        zero(in, H * W * WIDTH);
        for (int p = 0; p < P; p++) {
            const int h = p * stride_h - padding_h, h0 = max(0, h), h1 = min(h + R, H),
                      rows = DIVISOR(h, R, H, padding_h);
            for (int q = 0; q < Q; q++) {
                const int w = q * stride_w - padding_w, w0 = max(0, w), w1 = min(w + S, W);
                const WIDE share = LOAD(dy + (((size_t)plane * P + p) * Q + q) * WIDTH) /
                                   (float)(rows * DIVISOR(w, S, W, padding_w));
                for (int i = h0; i < h1; i++)
                    for (int j = w0; j < w1; j++)
                        STORE(LOAD(in + (i * W + j) * WIDTH) + share, in + (i * W + j) * WIDTH);
            }
        }
    }
}
