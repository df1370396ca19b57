/* What tells whether two vectors are the same: y[b] for each 512 values of x. A value's bits are
   stirred together with its place, so that any other value there is another summand; sums are of
   whole numbers, so that all devices make the same. One work-item per block. */
#include "prelude.h"
#define BLOCK 512

__kernel void checksums(__global uint *restrict y, __global const uint *restrict x, const int n) {
    const int block = get_global_id(0);
    const int from = block * BLOCK, to = min(from + BLOCK, n);
    if (block >= (n + BLOCK - 1) / BLOCK) return;
    uint sum = 0;
    for (int i = from; i < to; i++) {
        uint bits = x[i] + (uint)i * 0x9e3779b9u;
        bits = (bits ^ bits >> 16) * 0x85ebca6bu;
        sum += bits ^ bits >> 13;
    }
    y[block] = sum;
}
