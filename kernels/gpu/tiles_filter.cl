/* The gradient of a convolution by its weights in tiles of local memory, on images in blocks of
   channels: x in blocks of IN, dy of OUT.
     dweight[k][c][r][s] = sum over n, p, q of dy[n][k][p][q] x[n][c][p * U + r - pad_h][q * V +
     s - pad_w]   (+ what is there)
   as a matrix product of (k, n p q) and (n p q, column), a column being (c / IN, r, s, c % IN).
   A group computes a tile of output channels times columns over a share of the pixels, a
   work-item what tile.h says; a second kernel adds up the shares in order. */
#include "prelude.h"
#define LEFT_TURNED 0
#define RIGHT_TURNED 0
#include "gpu/tile.h"

/* n / d for 0 <= n < 2^31 by a multiplication: factor = ceil(2^(31 + bits) / d), 2^(bits - 1) <
   d <= 2^bits; factor 0 stands for d = 1. */
#define DIVIDE(n, factor, bits)                                                                    \
    ((factor) ? (int)(mul_hi((uint)(n), (uint)(factor)) >> ((bits) - 1)) : (n))

/* Group (i, share): tile i, columns first. partial[share][k][column], rows of `width`. */
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void filter(
    __global float *partial, __global const float4 *dy, __global const float4 *x, const int N,
    const int blocks, const int H, const int W, const int K, const int P, const int Q, const int R,
    const int S, const int U, const int V, const int pad_h, const int pad_w, const int width,
    const uint factor_pq, const int bits_pq, const uint factor_q, const int bits_q) {
    const int me = get_local_id(0), tx = me % 8, ty = me / 8, shares = get_num_groups(1),
              share = get_group_id(1);
    const int tiles = width / TILE_N, tile = get_group_id(0), j0 = tile % tiles * TILE_N,
              k0 = tile / tiles * TILE_M;
    const int height = get_num_groups(0) / tiles * TILE_M, pixels = N * P * Q,
              out_blocks = (K + OUT - 1) / OUT;
    SIDE(left, TILE_M);
    SIDE(right, TILE_N);

    /* This work-item brings four channels of dy, and four columns, always the same ones, of some
       pixels each step. */
    const int k = k0 + STRAIGHT_COLUMN(me, TILE_M), some_k = k < out_blocks * OUT;
    const int column = j0 + STRAIGHT_COLUMN(me, TILE_N), tap = column / IN % (R * S),
              block = column / IN / (R * S), r = tap / S, s = tap - r * S;
    const int some_column = block < blocks, in_quad = column % IN / 4;
    dy += (k / OUT) * P * Q * (OUT / 4) + k % OUT / 4;
    x += block * H * W * (IN / 4) + in_quad;

    const int steps = (pixels + DEPTH - 1) / DEPTH;
    const int first = (int)((long)steps * share / shares),
              last = (int)((long)steps * (share + 1) / shares);
    float4 brought_m[LOADS_M], brought_n[LOADS_N], sums[4 * UNITS_M][UNITS_N];
    tile_zero(sums);

#define FETCH                                                                                      \
    {                                                                                              \
        UNROLL for (int j = 0; j < LOADS_M; j++) {                                                 \
            const int pixel = step * DEPTH + STRAIGHT_ROW(me, j, TILE_M),                          \
                      n = DIVIDE(pixel, factor_pq, bits_pq);                                       \
            const int at = (n * out_blocks - n) * P * Q + pixel;                                   \
            brought_m[j] = some_k && pixel < pixels ? dy[at * (OUT / 4)] : (float4)(0.0f);         \
        }                                                                                          \
        UNROLL for (int j = 0; j < LOADS_N; j++) {                                                 \
            const int pixel = step * DEPTH + STRAIGHT_ROW(me, j, TILE_N),                          \
                      n = DIVIDE(pixel, factor_pq, bits_pq);                                       \
            const int rest = pixel - n * P * Q, p = DIVIDE(rest, factor_q, bits_q),                \
                      q = rest - p * Q;                                                            \
            const int h = p * U + r - pad_h, w = q * V + s - pad_w;                                \
            const int inside =                                                                     \
                some_column && pixel < pixels && (uint)h < (uint)H && (uint)w < (uint)W;           \
            brought_n[j] =                                                                         \
                inside ? x[(n * blocks * H * W + h * W + w) * (IN / 4)] : (float4)(0.0f);          \
        }                                                                                          \
    }
    TILE_STEPS(tx, ty)

    UNROLL for (int m = 0; m < 4 * UNITS_M; m++) UNROLL for (int v = 0; v < UNITS_N; v++) *
        (__global float4 *)(partial +
                            ((size_t)share * height + k0 + m / 4 * 4 * TILE_Y + 4 * ty + m % 4) *
                                width +
                            j0 + 32 * v + 4 * tx) = sums[m][v];
}

/* The shares added up in order. One work-item per value of dweight. */
IN_GROUPS __kernel void finish(__global float *dweight, __global const float *restrict partial,
                               const int C, const int taps, const int n, const int height,
                               const int width, const int shares, const int accumulate) {
    const int me = get_global_id(0), k = me / (C * taps), rest = me - k * C * taps, c = rest / taps,
              tap = rest - c * taps;
    if (me >= n) return;
    partial += (size_t)k * width + (c / IN * taps + tap) * IN + c % IN;
    float sum = accumulate ? dweight[me] : 0.0f;
    UNROLL_4 for (int share = 0; share < shares; share++) sum +=
        partial[(size_t)share * height * width];
    dweight[me] = sum;
}
