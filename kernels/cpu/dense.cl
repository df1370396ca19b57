/* Dense layers of few images, for CPUs: the weights are most of the traffic, so each is read (or
   written) once, in long runs.
     y[n][f] = bias[f] + sum over i of x[n][i] weight[f][i]
     dx[n][i] = sum over f of dy[n][f] weight[f][i],
     dweight[f][i] = sum over n of dy[n][f] x[n][i]   (+ what is there)
   Tiles of ROWS rows of one operand times IMAGES images stay in registers; CHUNK neighbouring
   values of a row stay in the first cache. */
#include "prelude.h"

#define CHUNK 512
#define EACH_ROW _Pragma("unroll") for (int r = 0; r < ROWS; r++)
#define EACH_IMAGE _Pragma("unroll") for (int m = 0; m < IMAGES; m++)

/* Work-item i takes features [i * share, ...). sums: its tiles between two chunks, (group, image
   group, row, image) vectors. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void dense_forward(
    __global float *y, __global const float *x, __global const float *weight,
    __global const float *bias, __global float *sums, const int N, const int I, const int F,
    const int share, const int has_bias) {
    const int me = get_global_id(0), f0 = me * share, f1 = min(f0 + share, F),
              image_groups = (N + IMAGES - 1) / IMAGES;
    sums += (size_t)me * ((share + ROWS - 1) / ROWS) * image_groups * ROWS * IMAGES * WIDTH;
    for (int i0 = 0; i0 < I; i0 += CHUNK) {
        const int i1 = min(i0 + CHUNK, I), whole = i0 + (i1 - i0) / WIDTH * WIDTH;
        __global float *sum = sums;
        for (int f = f0; f < f1; f += ROWS)
            for (int n = 0; n < N; n += IMAGES, sum += ROWS * IMAGES * WIDTH) {
                __global const float *w[ROWS], *v[IMAGES]; /* rows beyond the last repeat it */
                EACH_ROW w[r] = weight + (size_t)min(f + r, F - 1) * I;
                EACH_IMAGE v[m] = x + (size_t)min(n + m, N - 1) * I;
                WIDE acc[ROWS][IMAGES];
                EACH_ROW EACH_IMAGE acc[r][m] = (WIDE)(0.0f);
                if (i0) EACH_ROW EACH_IMAGE acc[r][m] = LOAD(sum + (r * IMAGES + m) * WIDTH);
                for (int i = i0; i < whole; i += WIDTH) {
                    WIDE right[IMAGES];
                    EACH_IMAGE right[m] = LOAD(v[m] + i);
                    EACH_ROW {
                        /* The next rows of weights. */
                        if (n == 0) PREFETCH(w[r] + (size_t)ROWS * I + i);
                        const WIDE left = LOAD(w[r] + i);
                        EACH_IMAGE acc[r][m] = acc[r][m] + left * right[m];
                    }
                }
                if (whole < i1) EACH_ROW {
                        const WIDE left = load_some(w[r] + whole, i1 - whole);
                        EACH_IMAGE acc[r][m] =
                            acc[r][m] + left * load_some(v[m] + whole, i1 - whole);
                    }
                if (i1 < I) {
                    EACH_ROW EACH_IMAGE STORE(acc[r][m], sum + (r * IMAGES + m) * WIDTH);
                } else {
                    EACH_ROW EACH_IMAGE if (f + r < f1 && n + m < N)
                        y[(size_t)(n + m) * F + f + r] =
                            SUM(acc[r][m]) + (has_bias ? bias[f + r] : 0.0f);
                }
            }
    }
}

/* c[m][j] (+)= sum over k of a[m * a_row + k * a_column] b[k][j], b and c dense rows of J: dx
   with m = n, k = f; dweight with m = f, k = n. Work-item (i, j) takes rows [i * rows, ...) and
   columns [j * columns, ...); DEPTH rows of b at a time, which stay in the second cache. */
#define DEPTH 64

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void rows_product(
    __global float *c, __global const float *a, __global const float *b, const int M, const int J,
    const int K, const int a_row, const int a_column, const int rows, const int columns,
    const int accumulate) {
    const int m0 = get_global_id(0) * rows, m1 = min(m0 + rows, M), j0 = get_global_id(1) * columns,
              j1 = min(j0 + columns, J);
    for (int k0 = 0; k0 < K; k0 += DEPTH) {
        const int k1 = min(k0 + DEPTH, K), add = accumulate || k0 > 0;
        for (int m = m0; m < m1; m += LINES) {
            int left[LINES], below[LINES]; /* lines beyond the last repeat it */
            _Pragma("unroll") for (int r = 0; r < LINES; r++) {
                left[r] = min(m + r, m1 - 1) * a_row;
                below[r] = min(m + r, m1 - 1);
            }
            for (int j = j0; j < j1; j += 2 * WIDTH) {
                const int first = min(WIDTH, j1 - j), second = min(WIDTH, j1 - j - WIDTH);
                WIDE acc[LINES][2];
                if (second == WIDTH) {
                    _Pragma("unroll") for (int r = 0; r < LINES; r++) {
                        __global const float *from = c + (size_t)below[r] * J + j;
                        acc[r][0] = acc[r][1] = (WIDE)(0.0f);
                        if (add) acc[r][0] = LOAD(from), acc[r][1] = LOAD(from + WIDTH);
                    }
                    for (int k = k0; k < k1; k++) {
                        if (m == m0)
                            PREFETCH(b + (size_t)k * J + j + 4 * WIDTH),
                                PREFETCH(b + (size_t)k * J + j + 5 * WIDTH);
                        const WIDE b0 = LOAD(b + (size_t)k * J + j),
                                   b1 = LOAD(b + (size_t)k * J + j + WIDTH);
                        _Pragma("unroll") for (int r = 0; r < LINES; r++) {
                            const WIDE value = (WIDE)(a[left[r] + k * a_column]);
                            acc[r][0] = acc[r][0] + value * b0;
                            acc[r][1] = acc[r][1] + value * b1;
                        }
                    }
                    _Pragma("unroll") for (int r = 0; r < LINES; r++) {
                        __global float *to = c + (size_t)below[r] * J + j;
                        STORE(acc[r][0], to);
                        STORE(acc[r][1], to + WIDTH);
                    }
                } else {
                    for (int r = 0; r < LINES && m + r < m1; r++) {
                        __global float *to = c + (size_t)(m + r) * J + j;
                        WIDE s0 = add ? load_some(to, first) : (WIDE)(0.0f),
                             s1 = add && second > 0 ? load_some(to + WIDTH, second) : (WIDE)(0.0f);
                        for (int k = k0; k < k1; k++) {
                            const WIDE value = (WIDE)(a[left[r] + k * a_column]);
                            s0 = s0 + value * load_some(b + (size_t)k * J + j, first);
                            if (second > 0)
                                s1 = s1 + value * load_some(b + (size_t)k * J + j + WIDTH, second);
                        }
                        store_some(s0, to, first);
                        if (second > 0) store_some(s1, to + WIDTH, second);
                    }
                }
            }
        }
    }
}
