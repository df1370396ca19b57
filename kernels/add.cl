/* Sum of two values of one shape.   y = a + b.   (Its backward pass is copies.)
   One work-item per `chunk` consecutive values of the flat arrays; y may be a or b. */
#include "prelude.h"

IN_GROUPS __kernel void add(__global float *y, __global const float *a, __global const float *b, const int n, const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) STORE(LOAD(a + i) + LOAD(b + i), y + i);
    for (; i < to; i++) y[i] = a[i] + b[i];
}
