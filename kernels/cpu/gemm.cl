/* C = A B (+ C, or + bias) with both operands packed, for CPUs.   A (M, K), B (K, N), C (M, N).
   A is packed once into tiles of MR rows, [tile][k][MR]. Each work-item then takes panels of NR
   = 2 * WIDTH columns: it packs a block of KB rows of B for them into its own scratch (which
   stays in the second-level cache) and multiplies it with all tiles of its share of the rows.
   Registers: MR * 2 accumulators, 2 of B, 1 of A: 27 of 32 with AVX-512, 15 of 16 with AVX2. (8
   rows of 3 vectors are as fast, but 48 columns divide fewer widths.) */
#include "prelude.h"
#include "operand.h"
#include "cpu/transpose.h"

#if WIDTH == 16
#define MR 12
#define ROWS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#else
#define MR 6
#define ROWS(F) F(0) F(1) F(2) F(3) F(4) F(5)
#endif
#define VECTORS 2
#define NR (VECTORS * WIDTH)
/* The first MR = 3/4 WIDTH values of a vector. */
#if WIDTH == 16
typedef float8 HALF_ANYWHERE __attribute__((aligned(4)));
typedef float4 QUARTER_ANYWHERE __attribute__((aligned(4)));
#else
typedef float4 HALF_ANYWHERE __attribute__((aligned(4)));
typedef float2 QUARTER_ANYWHERE __attribute__((aligned(4)));
#endif

/* packed[tile][k][row] = A[m][k] = a[start + (k / span) * block + m * row_stride + (k % span) *
   column_stride], zero for m >= M. One work-item per tile. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void pack_a(
    __global float *packed, __global const float *a, const int start, const int M, const int K,
    const int span, const int block, const int row_stride, const int column_stride) {
    const int tile = get_global_id(0);
    __global float *to = packed + (size_t)tile * K * MR;
    const int rows = min(MR, M - tile * MR);
    __global const float *from = a + start + (size_t)tile * MR * row_stride;
    for (int k0 = 0; k0 < K; k0 += span, from += block) {
        const int stop = min(span, K - k0);
        if (rows == MR && column_stride == 1) {
            int k = 0;
            for (; k + WIDTH <= stop; k += WIDTH) {
                WIDE square[WIDTH]; /* the last quarter is not used */
                _Pragma("unroll") for (int m = 0; m < WIDTH; m++) square[m] =
                    LOAD(from + (size_t)(m % MR) * row_stride + k);
                transpose(square);
                _Pragma("unroll") for (int m = 0; m < WIDTH; m++) {
                    __global float *column = to + (size_t)(k0 + k + m) * MR;
                    *(__global HALF_ANYWHERE *)column = square[m].lo;
                    *(__global QUARTER_ANYWHERE *)(column + WIDTH / 2) = square[m].hi.lo;
                }
            }
            SINGLY for (; k < stop; k++) SINGLY for (int m = 0; m < MR; m++)
                to[(size_t)(k0 + k) * MR + m] = from[(size_t)m * row_stride + k];
        } else if (rows == MR) {
            SINGLY for (int k = 0; k < stop; k++) SINGLY for (int m = 0; m < MR; m++)
                to[(size_t)(k0 + k) * MR + m] =
                    from[(size_t)m * row_stride + (size_t)k * column_stride];
        } else {
            for (int k = 0; k < stop; k++)
                for (int m = 0; m < MR; m++)
                    to[(size_t)(k0 + k) * MR + m] =
                        m < rows ? from[(size_t)m * row_stride + (size_t)k * column_stride] : 0.0f;
        }
    }
}

/* panel[k][j] = B[k0 + k][j0 + j] for k < rows, zero for columns from N on. */
#if OPERAND == MATRIX
inline void pack_b(__global float *panel, __global const float *b, const int k0, const int rows,
                   const int j0, const int N, OPERAND_PARAMETERS) {
    const int columns = min(NR, N - j0);
    __global const float *from = b + (size_t)k0 * stride_k + (size_t)j0 * stride_j;
    if (stride_j == 1 && columns == NR) {
        for (int k = 0; k < rows; k++) {
            __global const float *row = from + (size_t)k * stride_k;
            STORE(LOAD(row), panel + k * NR);
            STORE(LOAD(row + WIDTH), panel + k * NR + WIDTH);
        }
        return;
    }
    /* Squares of 16 rows, so that each line of B that is read, and of the panel that is written,
       is finished while it is near. */
    for (int kb = 0; kb < rows; kb += 16) {
        const int stop = min(kb + 16, rows);
        for (int j = 0; j < columns; j++)
            for (int k = kb; k < stop; k++)
                panel[k * NR + j] = from[(size_t)k * stride_k + (size_t)j * stride_j];
        for (int k = kb; k < stop; k++)
            for (int j = columns; j < NR; j++) panel[k * NR + j] = 0.0f;
    }
}
#elif OPERAND == FILTER
inline void pack_b(__global float *panel, __global const float *b, const int k0, const int rows,
                   const int j0, const int N, OPERAND_PARAMETERS) {
    const int columns = min(NR, N - j0);
    int shift[NR], row[NR], column[NR];
    for (int j = 0; j < NR; j++) {
        const int crs = j0 + min(j, columns - 1), c = crs / (R * S), rs = crs % (R * S);
        row[j] = rs / S;
        column[j] = rs % S;
        shift[j] = (c * H + row[j]) * W + column[j];
    }
    int n = k0 / (P * Q), p = k0 % (P * Q) / Q, q = k0 % Q;
    for (int k = 0; k < rows; k++) {
        const int h = p * U - pad_h, w = q * V - pad_w;
        const int at = n * b_image + h * W + w;
        __global float *to = panel + k * NR;
        if (h >= 0 && h + R <= H && w >= 0 && w + S <= W) {
            for (int j = 0; j < NR; j++) to[j] = b[at + shift[j]];
        } else {
            for (int j = 0; j < NR; j++) {
                const int inside = (uint)(h + row[j]) < (uint)H && (uint)(w + column[j]) < (uint)W;
                to[j] = inside ? b[at + shift[j]] : 0.0f;
            }
        }
        if (++q == Q) {
            q = 0;
            if (++p == P) p = 0, n++;
        }
    }
    for (int k = 0; k < rows; k++)
        for (int j = columns; j < NR; j++) panel[k * NR + j] = 0.0f;
}
#else
/* IMAGES: the value for column (n, p, q) and row (c, r, s) lies r rows and s columns after the
   column's first one. DATA with stride 1: r rows and s columns before it, in dy. Larger strides
   look at each value. */
inline void pack_b(__global float *panel, __global const float *b, const int k0, const int rows,
                   const int j0, const int N, OPERAND_PARAMETERS) {
#if OPERAND == IMAGES
    const int out_h = P, out_w = Q, in_h = H, in_w = W, sign = 1, step = V;
#else
    const int out_h = H, out_w = W, in_h = P, in_w = Q, sign = -1, step = U == 1 ? V : 2;
#endif
    int at[NR], row[NR], column[NR], straight[VECTORS];
    for (int j = 0; j < NR; j++) {
        const int i = j0 + j, n = i / (out_h * out_w), p = i % (out_h * out_w) / out_w,
                  q = i % out_w;
#if OPERAND == IMAGES
        row[j] = p * U - pad_h;
        column[j] = q * V - pad_w;
        at[j] = n * b_image + row[j] * W + column[j];
#else
        row[j] = p + pad_h;
        column[j] = q + pad_w;
        at[j] = U == 1 && V == 1 ? n * b_image + row[j] * Q + column[j] : n * b_image;
#endif
        if (i >= N) row[j] = -(1 << 20); /* outside, whatever r is */
    }
    /* Vectors of columns that lie side by side in one row of the input. */
    for (int v = 0; v < VECTORS; v++)
        straight[v] = step == 1 && row[v * WIDTH] == row[v * WIDTH + WIDTH - 1] &&
                      column[v * WIDTH] + WIDTH - 1 == column[v * WIDTH + WIDTH - 1];
    int c = k0 / (R * S), r = k0 % (R * S) / S, s = k0 % S;
    for (int k = 0; k < rows; k++) {
        const int shift = c * in_h * in_w + sign * (r * in_w + s);
        for (int v = 0; v < VECTORS; v++) {
            __global float *to = panel + k * NR + v * WIDTH;
            const int j = v * WIDTH, h = row[j] + sign * r, w = column[j] + sign * s;
            if (straight[v] && (uint)h >= (uint)in_h) {
                STORE((WIDE)(0.0f), to);
            } else if (straight[v] && w >= 0 && w + WIDTH <= in_w) {
                STORE(LOAD(b + at[j] + shift), to);
            } else {
                for (int i = 0; i < WIDTH; i++) {
                    const int hi = row[j + i] + sign * r, wi = column[j + i] + sign * s;
#if OPERAND == DATA
                    if (U != 1 || V != 1) {
                        const int p = hi / U, q = wi / V;
                        const int inside =
                            hi >= 0 && wi >= 0 && p * U == hi && q * V == wi && p < P && q < Q;
                        to[i] = inside ? b[at[j + i] + (c * P + p) * Q + q] : 0.0f;
                        continue;
                    }
#endif
                    const int inside = (uint)hi < (uint)in_h && (uint)wi < (uint)in_w;
                    to[i] = inside ? b[at[j + i] + shift] : 0.0f;
                }
            }
        }
        if (++s == S) {
            s = 0;
            if (++r == R) r = 0, c++;
        }
    }
}
#endif

#define DECLARE(r) WIDE c##r##0 = 0.0f, c##r##1 = 0.0f;
#define MULTIPLY(r)                                                                                \
    {                                                                                              \
        const WIDE av = (WIDE)(a[r]);                                                              \
        c##r##0 = c##r##0 + av * b0;                                                               \
        c##r##1 = c##r##1 + av * b1;                                                               \
    }
#define KEEP(r)                                                                                    \
    if (r < rows) {                                                                                \
        put(C, c##r##0, m + r, 0, COLUMNS);                                                        \
        put(C, c##r##1, m + r, 1, COLUMNS);                                                        \
    }
#define COLUMNS place, whole, ldc, add, bias, bias_by, j0, N

/* Add one vector of a tile to its place in C: to what is there, to the bias, or to nothing. */
inline void put(__global float *C, const WIDE value, const int m, const int v, const int *place,
                const int *whole, const int ldc, const int add, __global const float *bias,
                const int bias_by, const int j0, const int N) {
    const int j = v * WIDTH;
    if (whole[v]) {
        __global float *to = C + place[j] + (size_t)m * ldc;
        if (add)
            STORE(LOAD(to) + value, to);
        else if (bias_by == 1)
            STORE((WIDE)(bias[m]) + value, to);
        else if (bias_by == 2)
            STORE(LOAD(bias + j0 + j) + value, to);
        else
            STORE(value, to);
        return;
    }
    float values[WIDTH];
    PASTE(vstore, WIDTH)(value, 0, values);
    for (int i = 0; i < WIDTH && j0 + j + i < N; i++) {
        __global float *to = C + place[j + i] + (size_t)m * ldc;
        *to = values[i] + (add            ? *to
                           : bias_by == 1 ? bias[m]
                           : bias_by == 2 ? bias[j0 + j + i]
                                          : 0.0f);
    }
}

/* Column j of C lies in image j / span: C[m][j] = c[start_c + (j / span) * c_image + m * ldc + j
   % span]. `accumulate`: added to C. bias_by: 0 none, 1 one value a row, 2 one a column.
   Work-item i takes units i, i + items, ...; a unit is one of `groups` runs of at most MOST
   panels, and one of `chunks` runs of tiles: a tile of A that is in the first cache serves all
   panels of its unit, which stay in the second. scratch: MOST * KB * NR floats a work-item. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void gemm(
    __global float *c, __global const float *packed, __global const float *b,
    __global const float *bias, __global float *scratch, const int M, const int N, const int K,
    const int start_c, const int start_b, const int span, const int c_image, const int ldc,
    const int accumulate, const int bias_by, const int start_bias, const int groups,
    const int chunks, OPERAND_PARAMETERS) {
    const int me = get_global_id(0), items = get_global_size(0);
    __global float *panels = scratch + (size_t)me * MOST * KB * NR;
    __global float *C = c + start_c;
    bias += start_bias;
    const int count = (N + NR - 1) / NR, tiles = (M + MR - 1) / MR;
    for (int unit = me; unit < groups * chunks; unit += items) {
        const int group = unit / chunks, chunk = unit % chunks, p0 = (long)count * group / groups,
                  p1 = (long)count * (group + 1) / groups;
        const int first = (long)tiles * chunk / chunks, last = (long)tiles * (chunk + 1) / chunks;
        int places[MOST * NR], wholes[MOST * VECTORS];
        for (int j = 0; j < (p1 - p0) * NR; j++)
            places[j] = (p0 * NR + j) / span * c_image + (p0 * NR + j) % span;
        for (int v = 0; v < (p1 - p0) * VECTORS; v++)
            wholes[v] = p0 * NR + (v + 1) * WIDTH <= N &&
                        places[v * WIDTH + WIDTH - 1] == places[v * WIDTH] + WIDTH - 1;
        for (int k0 = 0; k0 < K; k0 += KB) {
            const int depth = min(KB, K - k0), add = accumulate || k0 > 0;
#if OPERAND == MATRIX
            if (stride_j == 1 && p1 * NR <= N) { /* a row of all panels is one run of memory */
                for (int k = 0; k < depth; k++) {
                    __global const float *from =
                        b + start_b + (size_t)(k0 + k) * stride_k + p0 * NR;
                    for (int p = 0; p < p1 - p0; p++, from += NR) {
                        __global float *to = panels + ((size_t)p * KB + k) * NR;
                        const WIDE b0 = LOAD(from), b1 = LOAD(from + WIDTH);
                        STORE(b0, to);
                        STORE(b1, to + WIDTH);
                    }
                }
            } else
#endif
                for (int p = p0; p < p1; p++)
                    pack_b(panels + (p - p0) * KB * NR, b + start_b, k0, depth, p * NR, N,
                           OPERAND_ARGUMENTS);
            for (int tile = first; tile < last; tile++)
                for (int p = p0; p < p1; p++) {
                    __global const float *a = packed + ((size_t)tile * K + k0) * MR;
                    __global const float *row = panels + (p - p0) * KB * NR;
                    const int m = tile * MR, rows = min(MR, M - m), j0 = p * NR,
                              *place = places + (p - p0) * NR, *whole = wholes + (p - p0) * VECTORS;
                    /* The next tile of A, asked for while this one is multiplied. */
                    __global const float *next = p == p0 ? a + (size_t)K * MR : a;
                    for (int r = 0; r < rows; r++)
                        for (int v = 0; v < VECTORS; v++)
                            PREFETCH(C + place[v * WIDTH] + (size_t)(m + r) * ldc);
                    ROWS(DECLARE)
                    for (int k = 0; k < depth; k++, a += MR, row += NR, next += MR) {
                        PREFETCH(next);
                        const WIDE b0 = LOAD(row), b1 = LOAD(row + WIDTH);
                        ROWS(MULTIPLY)
                    }
                    ROWS(KEEP)
                }
        }
    }
}
