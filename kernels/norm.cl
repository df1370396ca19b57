/* The length of a long vector, and a vector times a number.
   squares: y[b] = sum over i < 512 of x[512 b + i]^2. A group takes `chunk` blocks. So few squares
   are added up in float32 that the host's float64 sum of y is exact to about 1e-6.
   shrink: x[i] = factor * x[i]. One work-item per `chunk` values. A product is rounded once, so
   that unlike devices agree bit for bit. */
#include "prelude.h"
#define BLOCK 512

IN_GROUPS __kernel void squares(__global float *y, __global const float *x, const int n,
                                const int chunk) {
    GROUP_SCRATCH(scratch);
    const int me = get_local_id(0);
    const int blocks = (n + BLOCK - 1) / BLOCK;
    const int first = get_group_id(0) * chunk, last = min(first + chunk, blocks);
    for (int block = first; block < last; block++) {
        const int to = min((block + 1) * BLOCK, n);
        WIDE sum = 0.0f;
        for (int i = block * BLOCK + me * WIDTH; i < to; i += GROUP * WIDTH) {
            const WIDE value = load_some(x + i, to - i);
            sum += value * value;
        }
        const float total = GROUP_SUM(SUM(sum), scratch);
        if (me == 0) y[block] = total;
    }
}

__kernel void shrink(__global float *x, const int n, const int chunk, const float factor) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) STORE_ALIGNED(factor * LOAD_ALIGNED(x + i), x + i);
    for (; i < to; i++) x[i] = factor * x[i];
}
