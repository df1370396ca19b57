/* Pooling for GPUs, on images in blocks of BLOCK channels.   max: y = the largest x of the
   window, argmax = its place r * S + s in the window (the first of equals, a NaN before all); with
   GATES, NOWHERE if it is not above 0.
   average: y = sum of the window's x / divisor.   Backward: x gathers the dy of the windows
   whose argmax it is, or dy / divisor of all windows that cover it.   Windows start at p *
   stride - padding; x is H by W, y is P by Q, the window is R by S; window, strides and paddings
   are definitions, since dividing by a variable takes longer than the memory. One work-item per
   vector of WIDTH channels written, or of a window where windows lie side by side and cover x
   (SIDE_BY_SIDE); planes count the blocks of all images. INSIDE: no window reaches over an edge.
   No atomics. */
#include "prelude.h"
#include "values.h"
#define QUADS (BLOCK / WIDTH)
#define UCHARS PASTE(uchar, WIDTH)
#define TO_UCHARS PASTE(convert_uchar, WIDTH)
#define TO_INTS PASTE(convert_int, WIDTH)

#define NOWHERE 255

#define PLANES const int planes, const int H, const int W, const int P, const int Q

/* Vector `me` of arrays with `height` x `width` pixels: which plane, row, column and vector of
   the pixel. */
#define PLACE(height, width, row, column)                                                          \
    const int me = get_global_id(0), quad = me % QUADS, line = me / QUADS / width,                 \
              column = me / QUADS - line * width;                                                  \
    const int plane = line / height, row = line - plane * height;                                  \
    if (plane >= planes) return;

IN_GROUPS __kernel void max_forward(__global VALUE *y, __global uchar *argmax,
                                    __global const VALUE *restrict x, PLANES) {
    PLACE(P, Q, p, q)
    const int h = p * STRIDE_H - PADDING_H, w = q * STRIDE_W - PADDING_W;
    const int r0 = INSIDE ? 0 : max(0, -h), r1 = INSIDE ? R : min(R, H - h);
    const int s0 = INSIDE ? 0 : max(0, -w), s1 = INSIDE ? S : min(S, W - w);
    __global const VALUE *in = x + ((size_t)plane * H * W * QUADS + quad) * WIDTH;
    WIDE best = (WIDE)(-INFINITY);
    WIDE_INT place = (WIDE_INT)(r0 * S + s0);
    for (int r = r0; r < r1; r++)
        for (int s = s0; s < s1; s++) {
            const WIDE v = LOAD_VALUES(in + ((h + r) * W + w + s) * BLOCK);
            const WIDE_INT takes = (v > best) | (v != v);
            best = select(best, v, takes);
            place = select(place, (WIDE_INT)(r * S + s), takes);
        }
    STORE_VALUES(best, y + (size_t)me * WIDTH);
    if (GATES) place = select(place, (WIDE_INT)(NOWHERE), best <= (WIDE)(0.0f));
    *(__global UCHARS *)(argmax + (size_t)me * WIDTH) = TO_UCHARS(place);
}

/* The windows [first, last] that cover position `at`: those that start in (at - window, at]. */
#define FIRST_WINDOW(at, window, stride, padding)                                                  \
    ((at) + (padding) < (window) ? 0 : ((at) + (padding) - (window)) / (stride) + 1)
#define LAST_WINDOW(at, stride, padding, count) min((count) - 1, ((at) + (padding)) / (stride))
#define WINDOWS                                                                                    \
    const int p0 = FIRST_WINDOW(h, R, STRIDE_H, PADDING_H),                                        \
              p1 = LAST_WINDOW(h, STRIDE_H, PADDING_H, P);                                         \
    const int q0 = FIRST_WINDOW(w, S, STRIDE_W, PADDING_W),                                        \
              q1 = LAST_WINDOW(w, STRIDE_W, PADDING_W, Q);                                         \
    const size_t out = ((size_t)plane * P * Q * QUADS + quad) * WIDTH;                             \
    WIDE sum = (WIDE)(0.0f);

#if SIDE_BY_SIDE
IN_GROUPS __kernel void max_backward(__global VALUE *dx, __global const VALUE *restrict dy,
                                     __global const uchar *restrict argmax, PLANES) {
    PLACE(P, Q, p, q)
    const PACKED gradient = LOAD_PACKED(dy + (size_t)me * WIDTH);
    const PACKED_INT place =
        TO_PACKED_INTS(*(__global const UCHARS *)(argmax + (size_t)me * WIDTH));
    __global VALUE *out = dx + ((size_t)plane * H * W * QUADS + quad) * WIDTH;
    _Pragma("unroll") for (int r = 0; r < R; r++) _Pragma("unroll") for (int s = 0; s < S; s++)
        STORE_PACKED(select((PACKED)(0), gradient, place == (PACKED_INT)(r * S + s)),
                     out + ((p * R + r) * W + q * S + s) * BLOCK);
}
#else
IN_GROUPS __kernel void max_backward(__global VALUE *dx, __global const VALUE *restrict dy,
                                     __global const uchar *restrict argmax, PLANES) {
    PLACE(H, W, h, w)
    WINDOWS
    for (int p = p0; p <= p1; p++)
        for (int q = q0; q <= q1; q++) {
            const size_t at = out + (p * Q + q) * BLOCK;
            const int here = (h - p * STRIDE_H + PADDING_H) * S + w - q * STRIDE_W + PADDING_W;
            const WIDE_INT place = TO_INTS(*(__global const UCHARS *)(argmax + at));
            sum += select((WIDE)(0.0f), LOAD_VALUES(dy + at), place == (WIDE_INT)(here));
        }
    STORE_VALUES(sum, dx + (size_t)me * WIDTH);
}
#endif

/* Values that a window which starts at `start` divides by: those inside the input, or inside
   input and padding. */
#define DIVISOR(start, window, extent, padding)                                                    \
    (count_padding ? min((start) + (window), (extent) + (padding)) - (start)                       \
                   : min((start) + (window), (extent)) - max((start), 0))

IN_GROUPS __kernel void average_forward(__global VALUE *y, __global const VALUE *restrict x, PLANES,
                                        const int count_padding) {
    PLACE(P, Q, p, q)
    const int h = p * STRIDE_H - PADDING_H, w = q * STRIDE_W - PADDING_W;
    const int h0 = max(0, h), h1 = min(h + R, H), w0 = max(0, w), w1 = min(w + S, W);
    __global const VALUE *in = x + ((size_t)plane * H * W * QUADS + quad) * WIDTH;
    WIDE sum = (WIDE)(0.0f);
    for (int j = h0; j < h1; j++)
        for (int k = w0; k < w1; k++) sum += LOAD_VALUES(in + (j * W + k) * BLOCK);
    STORE_VALUES(sum / (float)(DIVISOR(h, R, H, PADDING_H) * DIVISOR(w, S, W, PADDING_W)),
                 y + (size_t)me * WIDTH);
}

IN_GROUPS __kernel void average_backward(__global VALUE *dx, __global const VALUE *restrict dy,
                                         PLANES, const int count_padding) {
    PLACE(H, W, h, w)
    WINDOWS
    for (int p = p0; p <= p1; p++) {
        const int start_h = p * STRIDE_H - PADDING_H;
        const int rows = DIVISOR(start_h, R, H, PADDING_H);
        for (int q = q0; q <= q1; q++) {
            const int start_w = q * STRIDE_W - PADDING_W;
            sum += LOAD_VALUES(dy + out + (p * Q + q) * BLOCK) /
                   (float)(rows * DIVISOR(start_w, S, W, PADDING_W));
        }
    }
    STORE_VALUES(sum, dx + (size_t)me * WIDTH);
}
