/* Gradient of a bias, and on its way that of a ReLU after it, on images in blocks of WIDTH
   channels.
     dy = dy where y > 0, else 0 (if `rectified`),
     dbias[k] = sum over n, i of dy[n][k][i] (+ dbias[k])
   First kernel: one work-item per block and share of the images; partial[share][k]. Second: one
   per block, adds the shares in order. */
#include "prelude.h"

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void partial_sums(__global float *partial,
                                                                          __global float *dy,
                                                                          __global const float *y,
                                                                          const int N, const int I,
                                                                          const int rectified) {
    const int block = get_global_id(0), share = get_global_id(1), blocks = get_global_size(0),
              shares = get_global_size(1);
    WIDE total = (WIDE)(0.0f);
    for (int n = (long)N * share / shares; n < (int)((long)N * (share + 1) / shares); n++) {
        const size_t at = ((size_t)n * blocks + block) * I * WIDTH;
        WIDE sum = (WIDE)(0.0f); /* a plane at a time keeps float32 accurate */
        if (rectified) {
            for (int i = 0; i < I; i++) {
                const WIDE value = select(LOAD(dy + at + i * WIDTH), (WIDE)(0.0f),
                                          LOAD(y + at + i * WIDTH) <= (WIDE)(0.0f));
                STORE(value, dy + at + i * WIDTH);
                sum += value;
            }
        } else {
            for (int i = 0; i < I; i++) sum += LOAD(dy + at + i * WIDTH);
        }
        total += sum;
    }
    STORE(total, partial + ((size_t)share * blocks + block) * WIDTH);
}

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void finish(__global float *dbias,
                                                                    __global const float *partial,
                                                                    const int K, const int shares,
                                                                    const int accumulate) {
    const int block = get_global_id(0), blocks = get_global_size(0);
    WIDE total = (WIDE)(0.0f);
    for (int share = 0; share < shares; share++)
        total += LOAD(partial + ((size_t)share * blocks + block) * WIDTH);
    store_some(accumulate ? load_some(dbias + block * WIDTH, K - block * WIDTH) + total : total,
               dbias + block * WIDTH, K - block * WIDTH);
}
