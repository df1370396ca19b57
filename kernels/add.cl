/* Sum of two values of one shape, with a ReLU after it or not.
   y = a + b, or max(a + b, 0) if `rectify`.
   Backward: both get dy; with the ReLU, dy where y > 0, else 0. One work-item per `chunk`
   consecutive values of the flat arrays; y may be a or b, and da may be dy. */
#include "prelude.h"

IN_GROUPS __kernel void add(__global float *y, __global const float *a, __global const float *b,
                            const int n, const int chunk, const int rectify) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    const float floor = rectify ? 0.0f : -INFINITY; /* a NaN is under neither, and stays */
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE sum = LOAD_ALIGNED(a + i) + LOAD_ALIGNED(b + i);
        STORE_ALIGNED(select(sum, (WIDE)(floor), sum < (WIDE)(floor)), y + i);
    }
    for (; i < to; i++) y[i] = a[i] + b[i] < floor ? floor : a[i] + b[i];
}

IN_GROUPS __kernel void add_rectified_backward(__global float *da, __global float *db,
                                               __global const float *dy, __global const float *y,
                                               const int n, const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE d =
            select(LOAD_ALIGNED(dy + i), (WIDE)(0.0f), LOAD_ALIGNED(y + i) <= (WIDE)(0.0f));
        STORE_ALIGNED(d, da + i);
        STORE_ALIGNED(d, db + i);
    }
    for (; i < to; i++) da[i] = db[i] = y[i] <= 0.0f ? 0.0f : dy[i];
}
