/* Low-rank factors of a gradient x (rows, columns), for all kinds of devices.
   Factors lie column after column: p (RANK, rows), q (RANK, columns). Every sum has one order. */
#include "prelude.h"

/* x = x + left_out,   p[j][row] = sum over i of x[row][i] q[j][i]. One group per row. */
IN_GROUPS __kernel void multiply_right(__global float *p, __global float *x,
                                       __global const float *left_out, __global const float *q,
                                       const int rows, const int columns) {
    GROUP_SCRATCH(scratch);
    const int row = get_group_id(0), me = get_local_id(0), whole = columns / WIDTH * WIDTH;
    x += (size_t)row * columns;
    left_out += (size_t)row * columns;
    WIDE wide[RANK];
    for (int j = 0; j < RANK; j++) wide[j] = 0.0f;
    for (int i = me * WIDTH; i < whole; i += GROUP * WIDTH) {
        const WIDE value = LOAD(x + i) + LOAD(left_out + i);
        STORE(value, x + i);
        for (int j = 0; j < RANK; j++) wide[j] = fma(value, LOAD(q + j * columns + i), wide[j]);
    }
    float part[RANK];
    for (int j = 0; j < RANK; j++) part[j] = SUM(wide[j]);
    for (int i = whole + me; i < columns; i += GROUP) {
        x[i] += left_out[i];
        for (int j = 0; j < RANK; j++) part[j] = fma(x[i], q[j * columns + i], part[j]);
    }
    for (int j = 0; j < RANK; j++) {
        const float total = GROUP_SUM(part[j], scratch);
        if (me == 0) p[j * rows + row] = total;
    }
}

/* q[j][i] = sum over rows of x[row][i] p[j][row]. One work-item per STRIP vectors of columns. */
__kernel void multiply_left(__global float *q, __global const float *x, __global const float *p,
                            const int rows, const int columns) {
    const int first = get_global_id(0) * STRIP * WIDTH;
    if (first + STRIP * WIDTH <= columns) {
        WIDE sums[RANK][STRIP];
        for (int j = 0; j < RANK; j++)
            for (int s = 0; s < STRIP; s++) sums[j][s] = 0.0f;
        for (int row = 0; row < rows; row++) {
            __global const float *values = x + (size_t)row * columns + first;
            for (int s = 0; s < STRIP; s++) {
                const WIDE value = LOAD(values + s * WIDTH);
                for (int j = 0; j < RANK; j++)
                    sums[j][s] = fma(value, (WIDE)(p[j * rows + row]), sums[j][s]);
            }
        }
        for (int j = 0; j < RANK; j++)
            for (int s = 0; s < STRIP; s++)
                STORE(sums[j][s], q + (size_t)j * columns + first + s * WIDTH);
        return;
    }
    for (int i = first; i < columns; i++)
        for (int j = 0; j < RANK; j++) {
            float sum = 0.0f;
            for (int row = 0; row < rows; row++)
                sum = fma(x[(size_t)row * columns + i], p[j * rows + row], sum);
            q[(size_t)j * columns + i] = sum;
        }
}

/* left_out = x - p own',   x = p mean'. One group per row.
   The second sum is the same, bit for bit, on every device: fused, and in the order of j. */
IN_GROUPS __kernel void rebuild(__global float *x, __global float *left_out,
                                __global const float *p, __global const float *own,
                                __global const float *mean, const int rows, const int columns) {
    const int row = get_group_id(0), me = get_local_id(0), whole = columns / WIDTH * WIDTH;
    x += (size_t)row * columns;
    left_out += (size_t)row * columns;
    for (int i = me * WIDTH; i < whole; i += GROUP * WIDTH) {
        WIDE mine = 0.0f, ours = 0.0f;
        for (int j = 0; j < RANK; j++) {
            const WIDE factor = p[j * rows + row];
            mine = fma(factor, LOAD(own + j * columns + i), mine);
            ours = fma(factor, LOAD(mean + j * columns + i), ours);
        }
        STORE(LOAD(x + i) - mine, left_out + i);
        STORE(ours, x + i);
    }
    for (int i = whole + me; i < columns; i += GROUP) {
        float mine = 0.0f, ours = 0.0f;
        for (int j = 0; j < RANK; j++) {
            mine = fma(p[j * rows + row], own[j * columns + i], mine);
            ours = fma(p[j * rows + row], mean[j * columns + i], ours);
        }
        left_out[i] = x[i] - mine;
        x[i] = ours;
    }
}
