/* Filters as direct.cl reads them: packed[group][block][tap][i][o] = weight[out][in] of tap
   (first_r + r * step_r, first_s + s * step_s), where in = block * WIDTH + i runs over I
   channels and out = group * TILE_COLUMNS + o over O (zero beyond them); weight[out][in][tap] =
   weight[out * out_step + in * in_step + tap]. One work-item per group and block. */
#include "prelude.h"
#define TILE_COLUMNS (VECTORS * WIDTH)
#include "cpu/filters.h"

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void pack(
    __global float *packed, __global const float *weight, const int O, const int I, const int R,
    const int out_step, const int in_step, const int first_r, const int first_s, const int step_r,
    const int step_s, const int tap_row, const int size) {
    const int group = get_global_id(0), block = get_global_id(1);
    const int inputs = min(WIDTH, I - block * WIDTH),
              outputs = min(TILE_COLUMNS, O - group * TILE_COLUMNS);
    const int start = group * TILE_COLUMNS * out_step + block * WIDTH * in_step;
    __global float *to = packed + ((size_t)group * I + block * WIDTH) * TAPS * TILE_COLUMNS;
    float rows[FILTERS];
    read_filters(rows, weight + start, outputs, inputs, out_step, in_step, R, first_r, first_s,
                 step_r, step_s, tap_row, size - start);
    for (int tap = 0; tap < TAPS; tap++)
        for (int i = 0; i < inputs * TILE_COLUMNS; i += WIDTH, to += WIDTH)
            STORE(*(const ANYWHERE *)(ROW(tap, 0) + i), to);
}
