/* C = A B (+ C, or + bias) in tiles of local memory, for GPUs.   A (M, K), B (K, N), C (M, N). A
   group of 16 x 16 work-items computes a tile of 64 x 64; each work-item 4 x 4 of it, rows and
   columns 16 apart so that neighbours read and write neighbouring addresses. */
#include "prelude.h"
#include "operand.h"
#define TILE 64
#define DEPTH 16

/* B[k][j], from wherever it lies (operand.h). */
inline float right(__global const float *b, const int k, const int j, OPERAND_PARAMETERS) {
#if OPERAND == MATRIX
    return b[(size_t)k * stride_k + (size_t)j * stride_j];
#elif OPERAND == DATA
    const int m = k / (R * S), r = k % (R * S) / S, s = k % S;
    const int n = j / (H * W), h = j % (H * W) / W + pad_h - r, w = j % W + pad_w - s;
    const int p = h / U, q = w / V;
    const int inside = h >= 0 && w >= 0 && p * U == h && q * V == w && p < P && q < Q;
    return inside ? b[(size_t)n * b_image + (m * P + p) * Q + q] : 0.0f;
#else
    const int pixel = OPERAND == IMAGES ? j : k, filter = OPERAND == IMAGES ? k : j;
    const int n = pixel / (P * Q), p = pixel % (P * Q) / Q, q = pixel % Q;
    const int c = filter / (R * S), r = filter % (R * S) / S, s = filter % S;
    const int h = p * U + r - pad_h, w = q * V + s - pad_w;
    const int inside = (uint)h < (uint)H && (uint)w < (uint)W;
    return inside ? b[(size_t)n * b_image + (c * H + h) * W + w] : 0.0f;
#endif
}

/* A[m][k] = a[start_a + (k / span_a) * block + m * row_stride + (k % span_a) * column_stride];
   C[m][j] = c[start_c + (j / span) * c_image + m * ldc + j % span]. bias_by: 0 none, 1 one value
   a row, 2 one a column. */
__attribute__((reqd_work_group_size(16, 16, 1))) __kernel void gemm(
    __global float *c, __global const float *a, __global const float *b, __global const float *bias,
    const int start_a, const int span_a, const int block, const int row_stride,
    const int column_stride, const int M, const int N, const int K, const int start_c,
    const int start_b, const int span, const int c_image, const int ldc, const int accumulate,
    const int bias_by, const int start_bias, OPERAND_PARAMETERS) {
    const int x = get_local_id(0), y = get_local_id(1), me = y * 16 + x;
    const int j0 = get_group_id(0) * TILE, m0 = get_group_id(1) * TILE;
    bias += start_bias;
    __local float left_tile[DEPTH][TILE + 1], right_tile[DEPTH][TILE + 1];
    float sum[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[i][j] = 0.0f;
    for (int k0 = 0; k0 < K; k0 += DEPTH) {
        for (int i = me; i < DEPTH * TILE; i += 256) {
            /* neighbours read along whichever index of A is contiguous */
            const int k = column_stride == 1 ? i % DEPTH : i / TILE,
                      m = column_stride == 1 ? i / DEPTH : i % TILE;
            const int kk = k0 + k, mm = m0 + m;
            left_tile[k][m] =
                kk < K && mm < M
                    ? a[start_a + (size_t)(kk / span_a) * block + (size_t)mm * row_stride +
                        (size_t)(kk % span_a) * column_stride]
                    : 0.0f;
        }
        for (int i = me; i < DEPTH * TILE; i += 256) {
#if OPERAND == MATRIX
            const int along_k = stride_k == 1;
#else
            const int along_k = OPERAND == FILTER;
#endif
            const int k = along_k ? i % DEPTH : i / TILE, j = along_k ? i / DEPTH : i % TILE;
            right_tile[k][j] = k0 + k < K && j0 + j < N
                                   ? right(b + start_b, k0 + k, j0 + j, OPERAND_ARGUMENTS)
                                   : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < DEPTH; k++) {
            float l[4], r[4];
            for (int i = 0; i < 4; i++) l[i] = left_tile[k][y + 16 * i];
            for (int j = 0; j < 4; j++) r[j] = right_tile[k][x + 16 * j];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] += l[i] * r[j];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < 4; i++) {
        const int m = m0 + y + 16 * i;
        for (int jj = 0; jj < 4; jj++) {
            const int j = j0 + x + 16 * jj;
            if (m >= M || j >= N) continue;
            __global float *to =
                c + start_c + (size_t)(j / span) * c_image + (size_t)m * ldc + j % span;
            *to = sum[i][jj] + (accumulate     ? *to
                                : bias_by == 1 ? bias[m]
                                : bias_by == 2 ? bias[j]
                                               : 0.0f);
        }
    }
}
