/* A vector that follows another, and two that change places.
   follow: a = a + rate * (w - a).   swap: a, w = w, a.
   One work-item per `chunk` values. Every operation is rounded by itself, so that unlike devices
   agree bit for bit. */
#include "prelude.h"
#pragma OPENCL FP_CONTRACT OFF

__kernel void follow(__global float *a, __global const float *w, const int n, const int chunk,
                     const float rate) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE average = LOAD_ALIGNED(a + i);
        const WIDE way = rate * (LOAD_ALIGNED(w + i) - average);
        STORE_ALIGNED(average + way, a + i);
    }
    for (; i < to; i++) {
        const float way = rate * (w[i] - a[i]);
        a[i] = a[i] + way;
    }
}

__kernel void swap(__global float *a, __global float *w, const int n, const int chunk) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        const WIDE average = LOAD_ALIGNED(a + i);
        STORE_ALIGNED(LOAD_ALIGNED(w + i), a + i);
        STORE_ALIGNED(average, w + i);
    }
    for (; i < to; i++) {
        const float average = a[i];
        a[i] = w[i];
        w[i] = average;
    }
}
