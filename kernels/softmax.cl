/* Softmax and cross-entropy of an image's scores x with its label.
   p[c] = exp(x[c] - max x) / sum of these,   y = log(sum) + max x - x[label],
   dx[c] = p[c] - (c == label).
   One group per image. A label that is no class makes the loss NaN. */
#include "prelude.h"

IN_GROUPS __kernel void softmax_forward(__global float *y, __global float *probabilities,
                                        __global const float *x, __global const int *labels,
                                        const int classes) {
    GROUP_SCRATCH(scratch);
    const int image = get_group_id(0);
    const int me = get_local_id(0);
    x += (size_t)image * classes;
    probabilities += (size_t)image * classes;

    float best = -INFINITY;
    for (int c = me; c < classes; c += GROUP) best = fmax(best, x[c]);
    best = GROUP_MAX(best, scratch);
    float sum = 0.0f;
    for (int c = me; c < classes; c += GROUP) {
        const float e = exp(x[c] - best);
        probabilities[c] = e;
        sum += e;
    }
    sum = GROUP_SUM(sum, scratch);
    const float scale = 1.0f / sum;
    for (int c = me; c < classes; c += GROUP) probabilities[c] *= scale;
    const int label = labels[image];
    if (me == 0) y[image] = label >= 0 && label < classes ? log(sum) + (best - x[label]) : NAN;
}

IN_GROUPS __kernel void softmax_backward(__global float *dx, __global const float *probabilities,
                                         __global const int *labels, const int classes) {
    const int image = get_group_id(0);
    const int me = get_local_id(0);
    const int label = labels[image];
    dx += (size_t)image * classes;
    probabilities += (size_t)image * classes;
    for (int c = me; c < classes; c += GROUP) dx[c] = probabilities[c] - (c == label ? 1.0f : 0.0f);
}
