/* Momentum SGD with weight decay.   v = momentum * v - rate * (g + decay * w),   w = w + v.
   Nesterov's momentum (NESTEROV) looks ahead:
                    w = w + momentum * v - rate * (g + decay * w),  with the new v.
   g is factor times the sum of `terms` vectors, which lie `apart` values from each other.
   One work-item per `chunk` values. Every multiplication and addition is rounded by itself, so
   that unlike devices agree bit for bit. */
#include "prelude.h"
#pragma OPENCL FP_CONTRACT OFF

#if NESTEROV
#define AHEAD(velocity, pull) (momentum * (velocity) - (pull))
#else
#define AHEAD(velocity, pull) (velocity)
#endif

__kernel void momentum_sgd(__global float *w, __global float *v, __global const float *g,
                           const int n, const int chunk, const float rate, const float momentum,
                           const float decay, const int terms, const long apart,
                           const float factor) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE weight = LOAD_ALIGNED(w + i);
        const WIDE pulled = decay * weight;
        WIDE gradient = LOAD_ALIGNED(g + i);
        for (int t = 1; t < terms; t++) gradient += LOAD_ALIGNED(g + t * apart + i);
        gradient *= factor;
        const WIDE pull = rate * (gradient + pulled);
        const WIDE kept = momentum * LOAD_ALIGNED(v + i);
        const WIDE velocity = kept - pull;
        STORE_ALIGNED(velocity, v + i);
        STORE_ALIGNED(weight + AHEAD(velocity, pull), w + i);
    }
    for (; i < to; i++) {
        const float pulled = decay * w[i];
        float gradient = g[i];
        for (int t = 1; t < terms; t++) gradient += g[t * apart + i];
        gradient *= factor;
        const float pull = rate * (gradient + pulled);
        const float kept = momentum * v[i];
        v[i] = kept - pull;
        w[i] = w[i] + AHEAD(v[i], pull);
    }
}
