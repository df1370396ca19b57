/* Softmax and cross-entropy of an image's scores x with soft labels t.
   p[c] = exp(x[c] - max x) / sum of these,   y = log(sum) - sum of t[c] (x[c] - max x),
   dx[c] = p[c] - t[c],
   t[c] = (1 - smoothing) (share (c == label) + (1 - share) (c == other)) + smoothing / classes.
   One group per image. A label that is no class makes the loss NaN. */
#include "prelude.h"

IN_GROUPS __kernel void softmax_soft_forward(__global float *y, __global float *probabilities,
                                             __global const float *x, __global const int *labels,
                                             __global const int *others,
                                             __global const float *shares, const float smoothing,
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
    float all = 0.0f;
    for (int c = me; c < classes; c += GROUP) {
        const float e = exp(x[c] - best);
        probabilities[c] = e;
        sum += e;
        all += x[c] - best;
    }
    sum = GROUP_SUM(sum, scratch);
    all = GROUP_SUM(all, scratch);
    const float scale = 1.0f / sum;
    for (int c = me; c < classes; c += GROUP) probabilities[c] *= scale;
    const int label = labels[image];
    const int other = others[image];
    const float share = shares[image];
    if (me == 0) {
        const bool known = label >= 0 && label < classes && other >= 0 && other < classes;
        const float pair =
            known ? share * (x[label] - best) + (1.0f - share) * (x[other] - best) : NAN;
        y[image] = log(sum) - ((1.0f - smoothing) * pair + smoothing / classes * all);
    }
}

IN_GROUPS __kernel void softmax_soft_backward(__global float *dx,
                                              __global const float *probabilities,
                                              __global const int *labels,
                                              __global const int *others,
                                              __global const float *shares, const float smoothing,
                                              const int classes) {
    const int image = get_group_id(0);
    const int me = get_local_id(0);
    const int label = labels[image];
    const int other = others[image];
    const float share = shares[image];
    dx += (size_t)image * classes;
    probabilities += (size_t)image * classes;
    for (int c = me; c < classes; c += GROUP) {
        const float pair = (c == label ? share : 0.0f) + (c == other ? 1.0f - share : 0.0f);
        dx[c] = probabilities[c] - ((1.0f - smoothing) * pair + smoothing / classes);
    }
}
