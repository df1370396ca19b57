/* Half the squared distance of an image's scores from its label's unit vector.
   y = 1/2 sum over c of (x[c] - (c == label))^2,   dx[c] = x[c] - (c == label).
   One group per image. A label that is no class makes the loss NaN. */
#include "prelude.h"

IN_GROUPS __kernel void squared_forward(__global float *y, __global const float *x,
                                        __global const int *labels, const int classes) {
    GROUP_SCRATCH(scratch);
    const int image = get_group_id(0);
    const int me = get_local_id(0);
    const int label = labels[image];
    x += (size_t)image * classes;
    float sum = 0.0f;
    for (int c = me; c < classes; c += GROUP) {
        const float difference = x[c] - (c == label ? 1.0f : 0.0f);
        sum += difference * difference;
    }
    sum = GROUP_SUM(sum, scratch);
    if (me == 0) y[image] = label >= 0 && label < classes ? 0.5f * sum : NAN;
}

IN_GROUPS __kernel void squared_backward(__global float *dx, __global const float *x,
                                         __global const int *labels, const int classes) {
    const int image = get_group_id(0);
    const int me = get_local_id(0);
    const int label = labels[image];
    dx += (size_t)image * classes;
    x += (size_t)image * classes;
    for (int c = me; c < classes; c += GROUP) dx[c] = x[c] - (c == label ? 1.0f : 0.0f);
}
