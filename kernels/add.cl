/* Sum of two values of one shape, with a ReLU after it or not.
   y = a + b, or max(a + b, 0) if `rectify`.
   Backward: both get dy; with the ReLU, dy where y > 0, else 0. One work-item per `chunk`
   consecutive values of the flat arrays; y may be a or b, and da may be dy. */
#include "prelude.h"
#include "values.h"

IN_GROUPS __kernel void add(__global VALUE *y, __global const VALUE *a, __global const VALUE *b,
                            const int n, const int chunk, const int rectify) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    const float floor = RELU_FLOOR(rectify);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE sum = LOAD_VALUES(a + i) + LOAD_VALUES(b + i);
        STORE_VALUES(select(sum, (WIDE)(floor), sum < (WIDE)(floor)), y + i);
    }
    for (; i < to; i++) {
        const float sum = LOAD_VALUE(a + i) + LOAD_VALUE(b + i);
        STORE_VALUE(sum < floor ? floor : sum, y + i);
    }
}

IN_GROUPS __kernel void add_rectified_backward(__global VALUE *da, __global VALUE *db,
                                               __global const VALUE *dy, __global const VALUE *y,
                                               const int n, const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE d =
            select(LOAD_VALUES(dy + i), (WIDE)(0.0f), LOAD_VALUES(y + i) <= (WIDE)(0.0f));
        STORE_VALUES(d, da + i);
        STORE_VALUES(d, db + i);
    }
    for (; i < to; i++) {
        const float d = LOAD_VALUE(y + i) <= 0.0f ? 0.0f : LOAD_VALUE(dy + i);
        STORE_VALUE(d, da + i);
        STORE_VALUE(d, db + i);
    }
}
