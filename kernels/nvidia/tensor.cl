/* A correlation on tensor cores: y[m][k] = bias[k] + sum over c, r, s of x[m + (r, s)][c] weight(k,
   c, r, s), for m = (n, p, q).

   A group computes 64 GROUPS REPEATS pixels x COLUMNS output channels. The depth is walked in
   stages of one tap and one row of 128 bytes of channels (FORMAT, tensor.h): its rows of x and of
   weight are copied to local memory STAGES - 1 - AHEAD stages before the tensor cores take them,
   zeros where a tap lies outside the image. x (N, chunks, H, W, 128 bytes) is images as they lie,
   or taps that tensor_pack.cl gathered; it also wrote weight (stages, rows, 128 bytes), in such an
   order of rows that a work-item owns four channels side by side. bias has a value for each of
   weight's rows. y has the format of x, (N, chunks, H, W, 128 bytes); pixel (p, q) lies at first +
   (p, q) step of an image of `size`. */
#define PIXEL_ROWS 0
#include "nvidia/tensor.h"

#define ITEMS (128 * GROUPS)
#define ROWS (64 * GROUPS * REPEATS)
#define ROWS_AT_ONCE (ITEMS / 8)
#define LEFT_COPIES (ROWS / ROWS_AT_ONCE)
#define RIGHT_COPIES (COLUMNS / ROWS_AT_ONCE)
#define LEFT_BYTES (ROWS * 128)
#define STAGE_BYTES (LEFT_BYTES + COLUMNS * 128)
/* y's blocks, of PIECES pieces a pixel, and what is stored of four channels (TO_QUAD). */
#if FORMAT == TF32
#define BLOCK 32
#define PIECES 8
#define QUAD uint4
#define TO_QUAD(v) (uint4)(tf32_bits(v.x), tf32_bits(v.y), tf32_bits(v.z), tf32_bits(v.w))
#else
#define BLOCK (FORMAT == BF16 ? 64 : 32)
#define PIECES 16
#define QUAD uint2
#define TO_QUAD(v) (uint2)(bfloat16_pair(v.x, v.y), bfloat16_pair(v.z, v.w))
#endif
/* Of pairs, the low parts lie 8 pieces behind the high ones. */
#if FORMAT == HIGH
#define STORE_LOW(to, v, high)                                                                     \
    to[8] = (uint2)(low_pair(v.x, v.y, high.x), low_pair(v.z, v.w, high.y))
#else
#define STORE_LOW(to, v, high)
#endif

#if ON_HOPPER
/* Multiply a stage's rows: steps of 32 bytes of depth. */
#define STEP(left_step, right_step)                                                                \
    MULTIPLY(sums0, left + 2 * (left_step), right + 2 * (right_step));                             \
    STEP_AGAIN(left_step, right_step)
#if REPEATS == 2
#define STEP_AGAIN(left_step, right_step)                                                          \
    MULTIPLY(sums1, left + 512 + 2 * (left_step), right + 2 * (right_step));
#else
#define STEP_AGAIN(left_step, right_step)
#endif
#else
#define STEP(left_step, right_step)                                                                \
    {                                                                                              \
        const uint4 a0 =                                                                           \
            load_matrices(left + ((2 * (left_step) + (lane >> 4) ^ (lane & 7)) << 4));             \
        STEP_AGAIN(left_step)                                                                      \
        _Pragma("unroll") for (int j = 0; j < COLUMNS / 16; j++) {                                 \
            const uint4 b = load_matrices(                                                         \
                right + j * 2048 + ((2 * (right_step) + (lane >> 3 & 1) ^ (lane & 7)) << 4));      \
            MMA_8(sums0, 8 * j, a0, b.x, b.y);                                                     \
            MMA_8(sums0, 8 * j + 4, a0, b.z, b.w);                                                 \
            PRODUCTS_AGAIN                                                                         \
        }                                                                                          \
    }
#if REPEATS == 2
#define STEP_AGAIN(left_step)                                                                      \
    const uint4 a1 =                                                                               \
        load_matrices(left + 8192 + ((2 * (left_step) + (lane >> 4) ^ (lane & 7)) << 4));
#define PRODUCTS_AGAIN                                                                             \
    MMA_8(sums1, 8 * j, a1, b.x, b.y);                                                             \
    MMA_8(sums1, 8 * j + 4, a1, b.z, b.w);
#else
#define STEP_AGAIN(left_step)
#define PRODUCTS_AGAIN
#endif
#endif

/* Of pairs, low parts first; a row of pairs has them behind the high ones. */
#if FORMAT == HIGH
#define STAGE_PRODUCTS STEP(2, 0) STEP(0, 2) STEP(0, 0) STEP(3, 1) STEP(1, 3) STEP(1, 1)
#else
#define STAGE_PRODUCTS STEP(0, 0) STEP(1, 1) STEP(2, 2) STEP(3, 3)
#endif

__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void correlate(
    __global QUAD *y, __global const uint4 *x, __global const uint4 *weight,
    __global const float4 *bias, const int pixels, const int chunks, const int h, const int w,
    const int k, const int p, const int q, const int r, const int s, const int stride_h,
    const int stride_w, const int pad_h, const int pad_w, const int size_h, const int size_w,
    const int first_h, const int first_w, const int step_h, const int step_w, const int weight_rows,
    const int columns, const int rectify, const uint image_factor, const int image_shift,
    const uint row_factor, const int row_shift) {
    __local uchar tiles[32768] __attribute__((aligned(1024)));
    LOCAL_MEMORY(STAGES * STAGE_BYTES);
    RESIDENT_GROUPS();
    const uint local_start = ADDRESS(tiles);
    const int item = get_local_id(0), piece = item & 7, row = item >> 3, group = get_group_id(0);
    const int tile_row = group / columns, tile_column = group - tile_row * columns;

    int from[LEFT_COPIES];
    uint inside[LEFT_COPIES]; /* bit i: filter row i meets the image; bit 16 + i: column i */
    _Pragma("unroll") for (int i = 0; i < LEFT_COPIES; i++) {
        const int m = tile_row * ROWS + row + i * ROWS_AT_ONCE;
        const int n = divide(m, image_factor, image_shift), rest = m - n * p * q;
        const int out_h = divide(rest, row_factor, row_shift), out_w = rest - out_h * q;
        const int top = out_h * stride_h - pad_h, left = out_w * stride_w - pad_w;
        const uint in_rows = ((1u << clamp(h - top, 0, r)) - 1) & ~((1u << clamp(-top, 0, r)) - 1);
        const uint in_columns =
            ((1u << clamp(w - left, 0, s)) - 1) & ~((1u << clamp(-left, 0, s)) - 1);
        from[i] = ((n * chunks * h + top) * w + left) * 8 + piece;
        inside[i] = m < pixels ? in_rows | in_columns << 16 : 0;
        KEEP(from[i]);
        KEEP(inside[i]);
    }
    const uint to_left = local_start + row * 128 + ((piece ^ (row & 7)) << 4),
               to_right = local_start + LEFT_BYTES + item * 16;
    __global const uint4 *from_right = weight + tile_column * COLUMNS * 8 + item;

    int tap_row = 0, tap_column = 0, chunk = 0;
#define COPY_STAGE(place)                                                                          \
    {                                                                                              \
        const uint needed = 1u << tap_row | 1u << (16 + tap_column);                               \
        const int tap = ((chunk * h + tap_row) * w + tap_column) * 8;                              \
        _Pragma("unroll") for (int l = 0; l < LEFT_COPIES; l++) {                                  \
            const int met = (inside[l] & needed) == needed;                                        \
            copy_later(to_left + (place) * STAGE_BYTES + l * ROWS_AT_ONCE * 128,                   \
                       x + (met ? from[l] + tap : 0), met ? 16 : 0);                               \
        }                                                                                          \
        _Pragma("unroll") for (int l = 0; l < RIGHT_COPIES; l++) copy_later(                       \
            to_right + (place) * STAGE_BYTES + l * ITEMS * 16, from_right + l * ITEMS, 16);        \
        from_right += weight_rows * 8;                                                             \
        if (++tap_column == s) {                                                                   \
            tap_column = 0;                                                                        \
            if (++tap_row == r) {                                                                  \
                tap_row = 0;                                                                       \
                chunk++;                                                                           \
            }                                                                                      \
        }                                                                                          \
    }

    SUMS_START();
    const int stages = chunks * r * s;
    FIRST_COPIES();
#if ON_HOPPER
    const ulong first_left = operand(local_start + (item >> 7) * REPEATS * 8192, 16, 1024);
    const ulong first_right = operand(local_start + LEFT_BYTES, 16, 1024);
#else
    const int lane = item & 31, warp = item >> 5 & 3;
    const uint first_left =
        local_start + ((item >> 7) * REPEATS * 64 + warp * 16 + (lane & 15)) * 128;
    const uint first_right = local_start + LEFT_BYTES + ((lane & 7) + (lane >> 4) * 8) * 128;
#endif
    EACH_STAGE();

    const int blocks = (k + BLOCK - 1) / BLOCK, block = tile_column * (COLUMNS / BLOCK),
              quad = item & 3;
    const int first_row =
        tile_row * ROWS + (item >> 7) * REPEATS * 64 + (item >> 5 & 3) * 16 + (item >> 2 & 7);
    int at[2 * REPEATS]; /* of rows 0, 8, 64 and 72 from there: where y starts, in pieces, -1 behind
                            the last */
    _Pragma("unroll") for (int i = 0; i < 2 * REPEATS; i++) {
        const int m = first_row + i / 2 * 64 + i % 2 * 8, n = divide(m, image_factor, image_shift),
                  rest = m - n * p * q;
        const int out_h = divide(rest, row_factor, row_shift), out_w = rest - out_h * q;
        const int line = (n * blocks + block) * size_h + first_h + out_h * step_h;
        at[i] = m < pixels ? (line * size_w + first_w + out_w * step_w) * PIECES + quad : -1;
    }
    const int plane = size_h * size_w * PIECES;
#define STORE(i, j, sums, half)                                                                    \
    if (at[j] >= 0) {                                                                              \
        float4 v = (float4)(sums[8 * i + 2 * half], sums[8 * i + 2 * half + 1],                    \
                            sums[8 * i + 2 * half + 4], sums[8 * i + 2 * half + 5]) +              \
                   add;                                                                            \
        if (rectify) v = select(v, (float4)(0.0f), v < (float4)(0.0f));                            \
        __global QUAD *to = y + at[j] + i / (BLOCK / 16) * plane + i % (BLOCK / 16) * 4;           \
        const QUAD stored = TO_QUAD(v);                                                            \
        *to = stored;                                                                              \
        STORE_LOW(to, v, stored);                                                                  \
    }
    _Pragma("unroll") for (int i = 0; i < COLUMNS / 16; i++) {
        if (block + i / (BLOCK / 16) < blocks) {
            const float4 add = bias[tile_column * (COLUMNS / 4) + i * 4 + quad];
            STORE(i, 0, sums0, 0)
            STORE(i, 1, sums0, 1)
#if REPEATS == 2
            STORE(i, 2, sums1, 0)
            STORE(i, 3, sums1, 1)
#endif
        }
    }
}
