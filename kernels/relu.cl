/* Rectified linear unit.   y = max(x, 0),   dx = dy where y > 0, else 0.
   A NaN stays one, so that a run that diverges shows it.
   One work-item per `chunk` consecutive values of the flat arrays; y may be x, and dx may be dy. */
#include "prelude.h"

IN_GROUPS __kernel void relu_forward(__global float *y, __global const float *x, const int n,
                                     const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE v = LOAD_ALIGNED(x + i);
        STORE_ALIGNED(select(v, (WIDE)(0.0f), v < (WIDE)(0.0f)), y + i);
    }
    for (; i < to; i++) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

IN_GROUPS __kernel void relu_backward(__global float *dx, __global const float *dy,
                                      __global const float *y, const int n, const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH)
        STORE_ALIGNED(
            select(LOAD_ALIGNED(dy + i), (WIDE)(0.0f), LOAD_ALIGNED(y + i) <= (WIDE)(0.0f)),
            dx + i);
    for (; i < to; i++) dx[i] = y[i] <= 0.0f ? 0.0f : dy[i];
}
