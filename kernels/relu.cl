/* Rectified linear unit.   y = max(x, 0),   dx = dy where y > 0, else 0.
   With CEILING, y = min(that, CEILING), and dx = 0 where y has reached it, too.
   A NaN stays one, so that a run that diverges shows it.
   One work-item per `chunk` consecutive values of the flat arrays; y may be x, and dx may be dy. */
#include "prelude.h"
#include "values.h"
#include "ceiling.h"

IN_GROUPS __kernel void relu_forward(__global VALUE *y, __global const VALUE *x, const int n,
                                     const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE v = LOAD_VALUES(x + i);
        STORE_VALUES(CUT(select(v, (WIDE)(0.0f), v < (WIDE)(0.0f))), y + i);
    }
    for (; i < to; i++) {
        const float v = LOAD_VALUE(x + i);
        STORE_VALUE(CUT_ONE(v < 0.0f ? 0.0f : v), y + i);
    }
}

IN_GROUPS __kernel void relu_backward(__global VALUE *dx, __global const VALUE *dy,
                                      __global const VALUE *y, const int n, const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH)
        STORE_VALUES(PASSED(LOAD_VALUES(dy + i), LOAD_VALUES(y + i), (WIDE)(0.0f)), dx + i);
    for (; i < to; i++) {
        const float v = LOAD_VALUE(y + i);
        STORE_VALUE(v <= 0.0f || CUT_OFF(v) ? 0.0f : LOAD_VALUE(dy + i), dx + i);
    }
}
