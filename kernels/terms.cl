/* y = factor times the sum of `terms` vectors, added up in their order: number `mine` of them is
   own, the others follow one another in `others`, `stride` values from the beginning of one to
   that of the next. y may be own. One work-item per `chunk` values. Rounded as NumPy rounds it,
   so that ranks on unlike devices agree bit for bit. */
#include "prelude.h"
#pragma OPENCL FP_CONTRACT OFF

#define TERM(t) ((t) == mine ? own : others + ((t) - ((t) > mine)) * (long)stride)

__kernel void mean_of_terms(__global float *y, __global const float *own,
                            __global const float *others, const int n, const int chunk,
                            const int terms, const int mine, const int stride, const float factor) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        WIDE sum = LOAD_ALIGNED(TERM(0) + i);
        for (int t = 1; t < terms; t++) sum += LOAD_ALIGNED(TERM(t) + i);
        STORE_ALIGNED(sum * factor, y + i);
    }
    for (; i < to; i++) {
        float sum = TERM(0)[i];
        for (int t = 1; t < terms; t++) sum += TERM(t)[i];
        y[i] = sum * factor;
    }
}
