/* Filters of a convolution in groups, as grouped.cl reads them: packed[block][c][tap][lane], where
   lane is output channel o = block * BLOCK + lane and c counts the INS inputs of its group; zeros
   where there is no such channel.
     packed = weight[o / OUTS * group_step + o % OUTS * out_step + c * in_step + tap (r, s)],
     tap (r, s) = (first_r + r * step_r) * tap_row + first_s + s * step_s
   One work-item per `chunk` of the n values written. */
#include "prelude.h"

#define EACH_VALUE(i)                                                                              \
    const int start = get_global_id(0) * chunk;                                                    \
    for (int i = start; i < min(start + chunk, n); i++)

IN_GROUPS __kernel void pack(__global float *packed, __global const float *weight, const int n,
                             const int chunk, const int K, const int group_step, const int out_step,
                             const int in_step, const int first_r, const int first_s,
                             const int step_r, const int step_s, const int tap_row) {
    EACH_VALUE(i) {
        const int tap = i / BLOCK % (R * S), c = i / BLOCK / (R * S) % INS,
                  o = i / BLOCK / (R * S) / INS * BLOCK + i % BLOCK;
        const int at = o / OUTS * group_step + o % OUTS * out_step + c * in_step +
                       (first_r + tap / S * step_r) * tap_row + first_s + tap % S * step_s;
        packed[i] = o < K ? weight[at] : 0.0f;
    }
}

/* The way back, for gradients: dweight (K, INS, R, S) = sum over shares, in order, of
   partial[share][block][c][tap][lane] (+ what is there). `size`: values of a share. */
IN_GROUPS __kernel void finish(__global float *dweight, __global const float *partial, const int n,
                               const int chunk, const int shares, const int size,
                               const int accumulate) {
    EACH_VALUE(i) {
        const int o = i / (INS * R * S);
        __global const float *from =
            partial + (o / BLOCK * INS * R * S + i % (INS * R * S)) * BLOCK + o % BLOCK;
        float total = accumulate ? dweight[i] : 0.0f;
        for (int share = 0; share < shares; share++) total += from[(size_t)share * size];
        dweight[i] = total;
    }
}
