/* Products of matrices in tiles of local memory, for dense layers on GPUs.   C (M, J) = A (M, D)
   B (D, J)   (+ bias[j], + C) A is a[m * a_step + d] (LEFT_TURNED) or a[d * a_step + m], B is
   b[j * b_step + d] (RIGHT_TURNED) or b[d * b_step + j]; C has rows of J. VECTORS: all steps and
   sizes are multiples of four, so that four neighbours are one load. A group computes a tile, a
   work-item what tile.h says. Few tiles: the depth is split, and a second kernel adds up the
   parts in order. */
#include "prelude.h"
#include "gpu/tile.h"

/* The first `count` of four values, zeros after them. */
#if VECTORS
#define SOME(p, count) ((count) > 0 ? *(__global const float4 *)(p) : (float4)(0.0f))
#else
#define SOME(p, count) load_some((p), (count))
#endif

/* Group (i, split): tile i, rows first, and the split-th part of the steps. With one part c is
   the result, else partial[split][m][j] in c's place, whole tiles of it. */
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void product(
    __global float *c, __global const float *a, __global const float *b, __global const float *bias,
    const int M, const int J, const int D, const int a_step, const int b_step, const int has_bias,
    const int accumulate) {
    const int me = get_local_id(0), x = me % 8, y = me / 8, splits = get_num_groups(1),
              split = get_group_id(1);
    const int tiles_m = (M + TILE_M - 1) / TILE_M, tile = get_group_id(0),
              m0 = tile % tiles_m * TILE_M, j0 = tile / tiles_m * TILE_N;
    const int quad = 4 * TURNED_QUAD(me), left_m = STRAIGHT_COLUMN(me, TILE_M),
              right_j = STRAIGHT_COLUMN(me, TILE_N);
    SIDE(left, TILE_M);
    SIDE(right, TILE_N);
    const int steps = (D + DEPTH - 1) / DEPTH;
    const int first = (int)((long)steps * split / splits),
              last = (int)((long)steps * (split + 1) / splits);
    float4 brought_m[LOADS_M], brought_n[LOADS_N], sums[4 * UNITS_M][UNITS_N];
    tile_zero(sums);

#define FETCH                                                                                      \
    {                                                                                              \
        UNROLL for (int i = 0; i < LOADS_M; i++) {                                                 \
            const int d = step * DEPTH + (LEFT_TURNED ? quad : STRAIGHT_ROW(me, i, TILE_M));       \
            const int m = m0 + (LEFT_TURNED ? TURNED_COLUMN(me, i) : left_m);                      \
            const int count = LEFT_TURNED ? (m < M ? D - d : 0) : (d < D ? M - m : 0);             \
            brought_m[i] =                                                                         \
                SOME(a + (LEFT_TURNED ? (size_t)m * a_step + d : (size_t)d * a_step + m), count);  \
        }                                                                                          \
        UNROLL for (int i = 0; i < LOADS_N; i++) {                                                 \
            const int d = step * DEPTH + (RIGHT_TURNED ? quad : STRAIGHT_ROW(me, i, TILE_N));      \
            const int j = j0 + (RIGHT_TURNED ? TURNED_COLUMN(me, i) : right_j);                    \
            const int count = RIGHT_TURNED ? (j < J ? D - d : 0) : (d < D ? J - j : 0);            \
            brought_n[i] =                                                                         \
                SOME(b + (RIGHT_TURNED ? (size_t)j * b_step + d : (size_t)d * b_step + j), count); \
        }                                                                                          \
    }
    TILE_STEPS(x, y)

    const int width = (J + TILE_N - 1) / TILE_N * TILE_N;
    UNROLL for (int i = 0; i < 4 * UNITS_M; i++) {
        const int m = m0 + i / 4 * 4 * TILE_Y + 4 * y + i % 4;
        UNROLL for (int v = 0; v < UNITS_N; v++) {
            const int j = j0 + 32 * v + 4 * x;
            if (splits > 1) {
                *(__global float4 *)(c + ((size_t)split * tiles_m * TILE_M + m) * width + j) =
                    sums[i][v];
            } else if (m < M) {
                __global float *to = c + (size_t)m * J + j;
                float4 value = sums[i][v];
                if (has_bias) value += load_some(bias + j, J - j);
                if (accumulate) value += SOME(to, J - j);
#if VECTORS
                if (j < J) *(__global float4 *)to = value;
#else
                store_some(value, to, J - j);
#endif
            }
        }
    }
}

/* The parts of a split depth, added up in order. One work-item per value of C. */
IN_GROUPS __kernel void finish(__global float *c, __global const float *restrict partial,
                               __global const float *restrict bias, const int M, const int J,
                               const int height, const int width, const int splits,
                               const int has_bias, const int accumulate) {
    const int me = get_global_id(0), m = me / J, j = me - m * J;
    if (m >= M) return;
    float sum = (has_bias ? bias[j] : 0.0f) + (accumulate ? c[me] : 0.0f);
    UNROLL_4 for (int split = 0; split < splits; split++) sum +=
        partial[((size_t)split * height + m) * width + j];
    c[me] = sum;
}
