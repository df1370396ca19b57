/* How many classes score higher than an image's label.
   rank = number of c with x[c] > x[label], or x[c] == x[label] and c < label;
   rank = classes if x[label] is NaN or label no class.
   One group per image. Ranks stay exact below 2^24 classes. */
#include "prelude.h"

IN_GROUPS __kernel void accuracy(__global int *rank, __global const float *x,
                                 __global const int *labels, const int classes) {
    GROUP_SCRATCH(scratch);
    const int image = get_group_id(0);
    const int me = get_local_id(0);
    const int label = labels[image];
    const int known = label >= 0 && label < classes;
    x += (size_t)image * classes;
    const float mine = known ? x[label] : NAN;
    float above = 0.0f;
    for (int c = me; c < classes; c += GROUP)
        above += x[c] > mine || (x[c] == mine && c < label) ? 1.0f : 0.0f;
    above = GROUP_SUM(above, scratch);
    if (me == 0) rank[image] = isnan(mine) ? classes : (int)above;
}
