/* Convolution in tiles of local memory, on images in blocks of channels: x in blocks of IN, y in
   blocks of OUT.
     y[n][k][p][q] = bias[k] + sum over c, r, s of weight[k][c][r][s] x[n][c][p * U + r -
     pad_h][q * V + s - pad_w]
   as a matrix product of (n p q, depth) and (depth, k), the depth being (c / 16, r, s, c % 16),
   or (r, s, c) where IN = 4. A group computes a tile of pixels times output channels, a
   work-item what tile.h says; the next step's values are on their way from memory while this
   one's are multiplied. Few tiles: the depth is split, and a second kernel adds up the parts in
   order. The weights are packed before; with IN_PLACE (1x1 filters that need no filling up)
   `packed` is the weights, (K, C), as they lie. */
#include "prelude.h"
#define LEFT_TURNED 1
#define RIGHT_TURNED IN_PLACE
#include "gpu/tile.h"

/* packed[depth][k] = weight(k, c, r, s), zero outside; KP columns. Tap (r, s) is at (first_r + r
   * step_r, first_s + s * step_s) of rows of `tap_row`. A group of 32 x 8 moves 32 k times 32 c,
   a tap at a time, by way of local memory. */
__attribute__((reqd_work_group_size(32, 8, 1))) __kernel void pack(
    __global float *packed, __global const float *weight, const int K, const int C, const int R,
    const int S, const int out_step, const int in_step, const int first_r, const int first_s,
    const int step_r, const int step_s, const int tap_row, const int KP) {
    const int x = get_local_id(0), y = get_local_id(1), k0 = get_group_id(0) * 32,
              c0 = get_group_id(1) * 32, taps = R * S;
    const int along_c = in_step < out_step;
    __local float tile[32][33];
    for (int tap = 0; tap < (IN == 4 ? (taps + 3) / 4 * 4 : taps); tap++) {
        const int at = (first_r + tap / S * step_r) * tap_row + first_s + tap % S * step_s;
        for (int i = y; i < 32; i += 8) {
            const int k = k0 + (along_c ? i : x), c = c0 + (along_c ? x : i);
            const float value = tap < taps && k < K && c < C
                                    ? weight[(size_t)k * out_step + (size_t)c * in_step + at]
                                    : 0.0f;
            if (along_c)
                tile[i][x] = value;
            else
                tile[x][i] = value;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = y; i < 32; i += 8) {
            const int c = c0 + i;
            const int row = IN == 4 ? tap * 4 + c : (c / 16 * taps + tap) * 16 + c % 16;
            if (k0 + x < KP && c < (IN == 4 ? 4 : (C + 15) / 16 * 16))
                packed[(size_t)row * KP + k0 + x] = tile[x][i];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* y may be larger than the P x Q pixels computed here: pixel (p, q) lies at (first_h + p *
   step_h, first_w + q * step_w) of its Y x X. */
#define PIXELS                                                                                     \
    const int N, const int K, const int P, const int Q, const int Y, const int X,                  \
        const int first_h, const int first_w, const int step_h, const int step_w,                  \
        const int has_bias, const int rectify

/* Where channel k of pixel number `pixel` goes. */
#define PLACE(n, p, q, k)                                                                          \
    (((size_t)((n) * out_blocks + (k) / OUT) * Y * X + (size_t)(first_h + (p) * step_h) * X +      \
      first_w + (q) * step_w) *                                                                    \
         OUT +                                                                                     \
     (k) % OUT)

/* Group (i, split): tile i, channels first, and the split-th part of the steps. R, S < 17. With
   one part y is the result, else partial[split][pixel][k] in y's place. */
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void correlate(
    __global float *y, __global const float4 *LOADED x, __global const float4 *LOADED packed,
    __global const float *restrict bias, PIXELS, const int blocks, const int H, const int W,
    const int R, const int S, const int U, const int V, const int pad_h, const int pad_w,
    const int steps, const int KP) {
    const int me = get_local_id(0), tx = me % 8, ty = me / 8, splits = get_num_groups(1),
              split = get_group_id(1);
    const int tiles = KP / TILE_N, tile = get_group_id(0), k0 = tile % tiles * TILE_N,
              pixel0 = tile / tiles * TILE_M;
    const int pixels = N * P * Q, quad = TURNED_QUAD(me);
    SIDE(left, TILE_M);
    SIDE(right, TILE_N);

    /* Each pixel that this work-item brings: its vector for tap (0, 0), and which rows (bits
       0-15) and columns (16-31) of the filter lie inside. */
    int base[LOADS_M];
    uint inside[LOADS_M];
    UNROLL for (int j = 0; j < LOADS_M; j++) {
        const int pixel = pixel0 + TURNED_COLUMN(me, j), n = pixel / (P * Q),
                  at = pixel - n * P * Q, p = at / Q;
        const int h = p * U - pad_h, w = (at - p * Q) * V - pad_w;
        base[j] = (n * blocks * H * W + h * W + w) * (IN / 4) + (IN == 4 ? 0 : quad);
        /* rows r with 0 <= h + r < H: those from -h on, less those from H - h on */
        const int r0 = clamp(-h, 0, R), r1 = clamp(H - h, r0, R), s0 = clamp(-w, 0, S),
                  s1 = clamp(W - w, s0, S);
        inside[j] =
            pixel < pixels ? ((1u << r1) - (1u << r0)) | ((1u << s1) - (1u << s0)) << 16 : 0u;
    }

    const int first = (int)((long)steps * split / splits),
              last = (int)((long)steps * (split + 1) / splits);
    int chunk = first / (R * S), r = first % (R * S) / S,
        s = first % S; /* of the next step to fetch; `chunk` counts 16 channels */
#if IN_PLACE
    packed +=
        (size_t)(k0 + TURNED_COLUMN(me, 0)) * (steps * DEPTH / 4) + first * (DEPTH / 4) + quad;
#define WEIGHTS(load) packed[(size_t)((load) * (ITEMS / 4)) * (steps * DEPTH / 4)]
#define WEIGHTS_STEP (DEPTH / 4)
#else
    packed += ((size_t)(first * DEPTH + STRAIGHT_ROW(me, 0, TILE_N)) * KP + k0 +
               STRAIGHT_COLUMN(me, TILE_N)) /
              4;
#define WEIGHTS(load) packed[(size_t)STRAIGHT_ROW(0, load, TILE_N) * KP / 4]
#define WEIGHTS_STEP (DEPTH * KP / 4)
#endif

    float4 brought_m[LOADS_M], brought_n[LOADS_N], sums[4 * UNITS_M][UNITS_N];
    tile_zero(sums);

#if IN == 4
#define NEXT_TAP                                                                                   \
    const int tap = step * 4 + quad, row = tap / S, column = tap - row * S;                        \
    const int offset = row * W + column, some = row < R;
#else
#define NEXT_TAP                                                                                   \
    const int row = r, column = s, some = 1;                                                       \
    const int offset = (chunk / 2 * H * W + r * W + s) * 8 + chunk % 2 * 4;                        \
    if (++s == S) {                                                                                \
        s = 0;                                                                                     \
        if (++r == R) r = 0, chunk++;                                                              \
    }
#endif
#define FETCH                                                                                      \
    {                                                                                              \
        NEXT_TAP                                                                                   \
        UNROLL for (int j = 0; j < LOADS_M; j++) brought_m[j] =                                    \
            some && (inside[j] >> row & inside[j] >> (16 + column) & 1u) ? x[base[j] + offset]     \
                                                                         : (float4)(0.0f);         \
        UNROLL for (int j = 0; j < LOADS_N; j++) brought_n[j] = WEIGHTS(j);                        \
        packed += WEIGHTS_STEP;                                                                    \
    }
    TILE_STEPS(tx, ty)

    const int out_blocks = (K + OUT - 1) / OUT;
    if (splits > 1) {
        UNROLL for (int m = 0; m < 4 * UNITS_M; m++) {
            const int pixel = pixel0 + m / 4 * 4 * TILE_Y + 4 * ty + m % 4;
            if (pixel < pixels)
                UNROLL for (int v = 0; v < UNITS_N; v++) *
                    (__global float4 *)(y + ((size_t)split * pixels + pixel) * KP + k0 + 32 * v +
                                        4 * tx) = sums[m][v];
        }
        return;
    }
    const float4 floor = (float4)(RELU_FLOOR(rectify));
    float4 start[UNITS_N];
    UNROLL for (int v = 0; v < UNITS_N; v++) {
        const int k = k0 + 32 * v + 4 * tx;
        start[v] = (float4)(0.0f);
        if (has_bias) start[v] = load_some(bias + k, K - k);
    }
    UNROLL for (int u = 0; u < UNITS_M; u++) {
        int pixel = pixel0 + 4 * TILE_Y * u + 4 * ty, n = pixel / (P * Q),
            p = (pixel - n * P * Q) / Q, q = pixel - (n * P + p) * Q;
        UNROLL for (int i = 0; i < 4; i++, pixel++) {
            if (pixel < pixels) UNROLL for (int v = 0; v < UNITS_N; v++) {
                    const int k = k0 + 32 * v + 4 * tx;
                    const float4 value = sums[4 * u + i][v] + start[v];
                    if (k < out_blocks * OUT)
                        *(__global float4 *)(y + PLACE(n, p, q, k)) =
                            select(value, floor, value < floor);
                }
            if (++q == Q) {
                q = 0;
                if (++p == P) p = 0, n++;
            }
        }
    }
}

/* The parts of a split depth, added up in order. One work-item per four channels of a pixel. */
IN_GROUPS __kernel void finish(__global float *y, __global const float *restrict partial,
                               __global const float *restrict bias, PIXELS, const int splits,
                               const int KP) {
    const int out_blocks = (K + OUT - 1) / OUT, quads = out_blocks * OUT / 4, me = get_global_id(0),
              pixels = N * P * Q;
    const int pixel = me / quads, k = (me - pixel * quads) * 4, n = pixel / (P * Q),
              p = (pixel - n * P * Q) / Q, q = pixel - (n * P + p) * Q;
    if (pixel >= pixels) return;
    const float4 floor = (float4)(RELU_FLOOR(rectify));
    float4 sum = (float4)(0.0f);
    if (has_bias) sum = load_some(bias + k, K - k);
    UNROLL_4 for (int split = 0; split < splits; split++) sum +=
        *(__global const float4 *)(partial + ((size_t)split * pixels + pixel) * KP + k);
    *(__global float4 *)(y + PLACE(n, p, q, k)) = select(sum, floor, sum < floor);
}
