/* Filters on their way between (K, C, R, S) and groups of TILE_COLUMNS output channels: at each
   tap a matrix of WIDTH inputs by TILE_COLUMNS outputs, by way of `rows`, which fits the first
   cache: rows[tap][i][o] for TAPS taps. FINISHED: the memory in which write_filters finds them. */
#include "cpu/transpose.h"
#ifndef FINISHED
#define FINISHED __private
#endif
#define FILTERS (TAPS * WIDTH * TILE_COLUMNS)
#define ROW(tap, i) (rows + ((tap) * WIDTH + (i)) * TILE_COLUMNS)

/* The filters of `outputs` output channels and `inputs` input channels, out_step and in_step
   apart. Tap (r, s) of R x TAPS / R is the value at (first_r + r * step_r, first_s + s * step_s)
   of rows of tap_row. `left`: values from `weight` to the end of its memory. */
inline void read_filters(float *rows, __global const float *weight, const int outputs,
                         const int inputs, const int out_step, const int in_step, const int R,
                         const int first_r, const int first_s, const int step_r, const int step_s,
                         const int tap_row, const int left) {
    if (outputs < TILE_COLUMNS)
        for (int i = 0; i < FILTERS; i++) rows[i] = 0.0f;
    const int S = TAPS / R;
    /* And all taps, forwards or backwards. */
    const int whole = inputs == WIDTH && outputs == TILE_COLUMNS && tap_row == S;
    const int backwards = step_r < 0;
    if (whole && in_step == TAPS && step_r == 1 && step_s == 1) {
        /* All that a filter has for these inputs is one run: columns j = i * TAPS + tap of a
           matrix whose rows are outputs. */
        for (int v = 0; v < TILE_COLUMNS; v += WIDTH)
            for (int j = 0; j < TAPS * WIDTH; j += WIDTH) {
                WIDE m[WIDTH];
                _Pragma("unroll") for (int o = 0; o < WIDTH; o++) m[o] =
                    LOAD(weight + (size_t)(v + o) * out_step + j);
                transpose(m);
                _Pragma("unroll") for (int c = 0; c < WIDTH; c++) *
                    (ANYWHERE *)(ROW((j + c) % TAPS, (j + c) / TAPS) + v) = m[c];
            }
        return;
    }
    if (whole && out_step == TAPS && TAPS <= WIDTH &&
        (backwards ? step_r == -1 && step_s == -1 : step_r == 1 && step_s == 1)) {
        /* The same with rows of outputs, each of TAPS values and of others that come after them
           and are dropped. */
        for (int i = 0; i < WIDTH; i++)
            for (int v = 0; v < TILE_COLUMNS; v += WIDTH) {
                __global const float *from = weight + (size_t)i * in_step + v * TAPS;
                if (TAPS == 1) {
                    *(ANYWHERE *)(ROW(0, i) + v) = LOAD(from);
                } else if (from + (WIDTH - 1) * TAPS + WIDTH <= weight + left) {
                    WIDE m[WIDTH];
                    _Pragma("unroll") for (int o = 0; o < WIDTH; o++) m[o] = LOAD(from + o * TAPS);
                    transpose(m);
                    _Pragma("unroll") for (int tap = 0; tap < min(TAPS, WIDTH); tap++) *
                        (ANYWHERE *)(ROW(backwards ? TAPS - 1 - tap : tap, i) + v) = m[tap];
                } else {
                    for (int o = 0; o < WIDTH; o++)
                        for (int tap = 0; tap < TAPS; tap++)
                            ROW(backwards ? TAPS - 1 - tap : tap, i)[v + o] = from[o * TAPS + tap];
                }
            }
        return;
    }
    for (int i = 0; i < inputs; i++)
        for (int o = 0; o < outputs; o++) {
            __global const float *from =
                weight + (size_t)o * out_step + (size_t)i * in_step + first_r * tap_row + first_s;
            SINGLY for (int tap = 0; tap < TAPS; tap++) ROW(tap, i)[o] =
                from[tap / S * step_r * tap_row + tap % S * step_s];
        }
}

/* The way back: into (K, C, R, S) at `weight`, filters of `outputs` by `inputs`, out_step apart;
   added to what is there if `add`. */
inline void write_filters(__global float *weight, FINISHED const float *rows, const int outputs,
                          const int inputs, const int out_step, const int add) {
    if (inputs == WIDTH && outputs == TILE_COLUMNS) {
        for (int v = 0; v < TILE_COLUMNS; v += WIDTH)
            for (int j = 0; j < TAPS * WIDTH; j += WIDTH) {
                WIDE m[WIDTH];
                _Pragma("unroll") for (int c = 0; c < WIDTH; c++) m[c] =
                    *(FINISHED const ANYWHERE *)(ROW((j + c) % TAPS, (j + c) / TAPS) + v);
                transpose(m);
                _Pragma("unroll") for (int o = 0; o < WIDTH; o++) {
                    __global float *to = weight + (size_t)(v + o) * out_step + j;
                    STORE(add ? m[o] + LOAD(to) : m[o], to);
                }
            }
        return;
    }
    for (int o = 0; o < outputs; o++)
        for (int i = 0; i < inputs; i++) SINGLY for (int tap = 0; tap < TAPS; tap++) {
                __global float *to = weight + (size_t)o * out_step + i * TAPS + tap;
                *to = ROW(tap, i)[o] + (add ? *to : 0.0f);
            }
}
