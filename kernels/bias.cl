/* Gradient of a bias.   dbias[k] = sum over n, i of dy[n][k][i] (+ dbias[k]),   dy (N, K, I). */
#include "prelude.h"

/* Images of several pixels: one group of work-items per channel. */
__attribute__((reqd_work_group_size(GROUP, 1, 1))) __kernel void bias_gradient(
    __global float *dbias, __global const float *dy, const int N, const int K, const int I,
    const int accumulate) {
    const int k = get_group_id(0), me = get_local_id(0);
    GROUP_SCRATCH(scratch);
    WIDE sums = (WIDE)(0.0f);
    float rest = 0.0f;
    const int whole = I / WIDTH * WIDTH;
    for (int n = 0; n < N; n++) {
        __global const float *from = dy + ((size_t)n * K + k) * I;
        for (int i = me * WIDTH; i < whole; i += GROUP * WIDTH) sums += LOAD(from + i);
        for (int i = whole + me; i < I; i += GROUP) rest += from[i];
    }
    const float total = GROUP_SUM(SUM(sums) + rest, scratch);
    if (me == 0) dbias[k] = total + (accumulate ? dbias[k] : 0.0f);
}

/* Rows (I = 1): one work-item per WIDTH neighbouring channels. */
__kernel void bias_gradient_rows(__global float *dbias, __global const float *dy, const int N,
                                 const int K, const int I, const int accumulate) {
    const int k = get_global_id(0) * WIDTH;
    if (k + WIDTH <= K) {
        WIDE sums = accumulate ? LOAD(dbias + k) : (WIDE)(0.0f);
        for (int n = 0; n < N; n++) sums += LOAD(dy + (size_t)n * K + k);
        STORE(sums, dbias + k);
        return;
    }
    for (int i = k; i < K; i++) {
        float total = accumulate ? dbias[i] : 0.0f;
        for (int n = 0; n < N; n++) total += dy[(size_t)n * K + i];
        dbias[i] = total;
    }
}
