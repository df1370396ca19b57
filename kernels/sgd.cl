/* Momentum SGD with weight decay.   v = momentum * v - rate * (g + decay * w),   w = w + v.
   Nesterov's momentum looks ahead:  w = w + momentum * v - rate * (g + decay * w), with the new v.
   One work-item per `chunk` values. Every multiplication and addition is rounded by itself, so
   that unlike devices agree bit for bit. */
#include "prelude.h"
#pragma OPENCL FP_CONTRACT OFF

__kernel void momentum_sgd(__global float *w, __global float *v, __global const float *g,
                           const int n, const int chunk, const float rate, const float momentum,
                           const float decay) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE weight = LOAD_ALIGNED(w + i);
        const WIDE pulled = decay * weight;
        const WIDE pull = rate * (LOAD_ALIGNED(g + i) + pulled);
        const WIDE kept = momentum * LOAD_ALIGNED(v + i);
        const WIDE velocity = kept - pull;
        STORE_ALIGNED(velocity, v + i);
        STORE_ALIGNED(weight + velocity, w + i);
    }
    for (; i < to; i++) {
        const float pulled = decay * w[i];
        const float pull = rate * (g[i] + pulled);
        const float kept = momentum * v[i];
        v[i] = kept - pull;
        w[i] = w[i] + v[i];
    }
}

__kernel void nesterov_sgd(__global float *w, __global float *v, __global const float *g,
                           const int n, const int chunk, const float rate, const float momentum,
                           const float decay) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE weight = LOAD_ALIGNED(w + i);
        const WIDE pulled = decay * weight;
        const WIDE pull = rate * (LOAD_ALIGNED(g + i) + pulled);
        const WIDE kept = momentum * LOAD_ALIGNED(v + i);
        const WIDE velocity = kept - pull;
        const WIDE ahead = momentum * velocity;
        STORE_ALIGNED(velocity, v + i);
        STORE_ALIGNED(weight + (ahead - pull), w + i);
    }
    for (; i < to; i++) {
        const float pulled = decay * w[i];
        const float pull = rate * (g[i] + pulled);
        const float kept = momentum * v[i];
        v[i] = kept - pull;
        const float ahead = momentum * v[i];
        w[i] = w[i] + (ahead - pull);
    }
}
