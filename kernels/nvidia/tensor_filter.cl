/* The gradient by a filter on tensor cores: dweight[k][c][r][s] = sum over pixels m = (n, p, q) of
   dy[m][k] x[m + (r, s)][c].

   A group computes 64 GROUPS REPEATS output channels x COLUMNS / 64 units of (r, s, 64 input
   channels), over one part of the pixels: stages of PIXELS pixels are copied to local memory STAGES
   - 1 - AHEAD stages before the tensor cores take them, zeros where a tap lies outside the image.
   dy (N, chunks, P, Q, 128 bytes) and x (N, chunks, H, W, 128 bytes) are images as they lie, or
   written by tensor_pack.cl; of rows of pairs, high and low parts of two chunks are put side by
   side. `sums` is (parts, K, units, 64); sum_parts then adds up the parts, always in the same
   order, into dweight (K, C, R S). */
#define PIXEL_ROWS 1
#include "nvidia/tensor.h"

#define ITEMS (128 * GROUPS)
#define ROWS_AT_ONCE (ITEMS / 8)
#define ROW_COPIES (PIXELS / ROWS_AT_ONCE)
#define LEFT_UNITS (GROUPS * REPEATS)
#define RIGHT_UNITS (COLUMNS / 64)
#if FORMAT == HIGH
#define CHUNKS 2
#else
#define CHUNKS 1
#endif
#define PART_BYTES (PIXELS * 128)
#define UNIT_BYTES (CHUNKS * PART_BYTES)
#define LEFT_BYTES (LEFT_UNITS * UNIT_BYTES)
#define STAGE_BYTES (LEFT_BYTES + RIGHT_UNITS * UNIT_BYTES)

#if ON_HOPPER
/* Multiply 16 pixels' rows; low: whether of their low parts. */
#define STEP(step, left_low, right_low)                                                            \
    MULTIPLY(sums0, left + (step) * 128 + (left_low) * (PART_BYTES / 16),                          \
             right + (step) * 128 + (right_low) * (PART_BYTES / 16));                              \
    STEP_AGAIN(step, left_low, right_low)
#if REPEATS == 2
#define STEP_AGAIN(step, left_low, right_low)                                                      \
    MULTIPLY(sums1, left + UNIT_BYTES / 16 + (step) * 128 + (left_low) * (PART_BYTES / 16),        \
             right + (step) * 128 + (right_low) * (PART_BYTES / 16));
#else
#define STEP_AGAIN(step, left_low, right_low)
#endif
#else
#define STEP(step, left_low, right_low)                                                            \
    {                                                                                              \
        const uint a_at = left + (step) * 2048 + (left_low) * PART_BYTES;                          \
        const uint4 a0 = load_matrices(a_at);                                                      \
        STEP_AGAIN                                                                                 \
        _Pragma("unroll") for (int j = 0; j < COLUMNS / 16; j++) {                                 \
            const uint4 b = load_matrices(right + (step) * 2048 + (right_low) * PART_BYTES +       \
                                          j / 4 * UNIT_BYTES +                                     \
                                          ((2 * (j % 4) + (lane >> 4) ^ (lane & 7)) << 4));        \
            MMA_8(sums0, 8 * j, a0, b.x, b.y);                                                     \
            MMA_8(sums0, 8 * j + 4, a0, b.z, b.w);                                                 \
            PRODUCTS_AGAIN                                                                         \
        }                                                                                          \
    }
#if REPEATS == 2
#define STEP_AGAIN const uint4 a1 = load_matrices(a_at + UNIT_BYTES);
#define PRODUCTS_AGAIN                                                                             \
    MMA_8(sums1, 8 * j, a1, b.x, b.y);                                                             \
    MMA_8(sums1, 8 * j + 4, a1, b.z, b.w);
#else
#define STEP_AGAIN
#define PRODUCTS_AGAIN
#endif
#endif

/* Of pairs, low parts first. */
#if FORMAT == HIGH
#define STEP_16(step) STEP(step, 1, 0) STEP(step, 0, 1) STEP(step, 0, 0)
#else
#define STEP_16(step) STEP(step, 0, 0)
#endif
#if PIXELS == 64
#define STAGE_PRODUCTS STEP_16(0) STEP_16(1) STEP_16(2) STEP_16(3)
#else
#define STAGE_PRODUCTS STEP_16(0) STEP_16(1)
#endif

__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void filter_parts(
    __global float *sums, __global const uint4 *dy, __global const uint4 *x, const int pixels,
    const int dy_chunks, const int x_chunks, const int h, const int w, const int k, const int p,
    const int q, const int r, const int s, const int stride_h, const int stride_w, const int pad_h,
    const int pad_w, const int pixels_a_part, const uint image_factor, const int image_shift,
    const uint row_factor, const int row_shift) {
    __local uchar tiles[32768] __attribute__((aligned(1024)));
    LOCAL_MEMORY(STAGES * STAGE_BYTES);
    RESIDENT_GROUPS();
    const uint local_start = ADDRESS(tiles);
    const int item = get_local_id(0), piece = item & 7, row = item >> 3, group = get_group_id(0),
              part = get_group_id(1);
    const int channel_units = (x_chunks + CHUNKS - 1) / CHUNKS, units = r * s * channel_units;
    const int columns = (units + RIGHT_UNITS - 1) / RIGHT_UNITS, tile_row = group / columns,
              tile_column = group - tile_row * columns;
    const int first_chunk = tile_row * LEFT_UNITS * CHUNKS, out_image = p * q, in_image = h * w;

    int tap_row[RIGHT_UNITS], tap_column[RIGHT_UNITS], chunk[RIGHT_UNITS];
    _Pragma("unroll") for (int i = 0; i < RIGHT_UNITS; i++) {
        const int unit = tile_column * RIGHT_UNITS + i, tap = unit / channel_units;
        chunk[i] = unit < units ? (unit - tap * channel_units) * CHUNKS : x_chunks;
        tap_row[i] = tap / s - pad_h;
        tap_column[i] = tap % s - pad_w;
    }
    int next_pixel = part * pixels_a_part + row;
    const int last = min((part + 1) * pixels_a_part, pixels);
    const uint to_row = local_start + row * 128;
#if FORMAT == HIGH
    /* Pieces 0-3 of a chunk are high parts, 4-7 low ones. */
    const uint to_part = to_row + (piece >> 2) * PART_BYTES;
    const uint to[2] = {to_part + (((piece & 3) ^ (row & 7)) << 4),
                        to_part + (((piece & 3) + 4 ^ (row & 7)) << 4)};
#else
    const uint to[1] = {to_row + ((piece ^ (row & 7)) << 4)};
#endif

#define COPY_STAGE(place)                                                                          \
    _Pragma("unroll") for (int i = 0; i < ROW_COPIES; i++) {                                       \
        const int m = next_pixel + i * ROWS_AT_ONCE, n = divide(m, image_factor, image_shift),     \
                  rest = m - n * out_image;                                                        \
        const int out_h = divide(rest, row_factor, row_shift), out_w = rest - out_h * q;           \
        const int offset = (place) * STAGE_BYTES + i * ROWS_AT_ONCE * 128, there = m < last;       \
        const int dy_at = (n * dy_chunks * out_image + rest) * 8 + piece;                          \
        _Pragma("unroll") for (int j = 0; j < LEFT_UNITS * CHUNKS; j++) {                          \
            const int take = there && first_chunk + j < dy_chunks;                                 \
            copy_later(to[j % CHUNKS] + offset + j / CHUNKS * UNIT_BYTES,                          \
                       dy + (take ? dy_at + (first_chunk + j) * out_image * 8 : 0),                \
                       take ? 16 : 0);                                                             \
        }                                                                                          \
        _Pragma("unroll") for (int j = 0; j < RIGHT_UNITS; j++) {                                  \
            const int in_h = out_h * stride_h + tap_row[j],                                        \
                      in_w = out_w * stride_w + tap_column[j];                                     \
            const int met = there && (uint)in_h < (uint)h && (uint)in_w < (uint)w;                 \
            const int x_at = (((n * x_chunks + chunk[j]) * h + in_h) * w + in_w) * 8 + piece;      \
            _Pragma("unroll") for (int l = 0; l < CHUNKS; l++) {                                   \
                const int take = met && chunk[j] + l < x_chunks;                                   \
                copy_later(to[l] + offset + LEFT_BYTES + j * UNIT_BYTES,                           \
                           x + (take ? x_at + l * in_image * 8 : 0), take ? 16 : 0);               \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    next_pixel += PIXELS

    SUMS_START();
    const int stages = max(0, (last - part * pixels_a_part + PIXELS - 1) / PIXELS);
    FIRST_COPIES();
#if ON_HOPPER
    const ulong first_left =
        operand(local_start + (item >> 7) * REPEATS * UNIT_BYTES, UNIT_BYTES, 1024);
    const ulong first_right = operand(local_start + LEFT_BYTES, UNIT_BYTES, 1024);
#else
    /* Of a warp's 16 channels and 16 pixels, left: channels 8 higher, then pixels 8 higher; right
       the other way round. */
    const int lane = item & 31, warp = item >> 5 & 3;
    const uint first_left = local_start + (item >> 7) * REPEATS * UNIT_BYTES +
                            ((lane & 7) + (lane >> 4) * 8) * 128 +
                            ((2 * warp + (lane >> 3 & 1) ^ (lane & 7)) << 4);
    const uint first_right = local_start + LEFT_BYTES + ((lane & 7) + (lane >> 3 & 1) * 8) * 128;
#endif
    EACH_STAGE();

    const int first_k = (tile_row * LEFT_UNITS + (item >> 7) * REPEATS) * 64 +
                        (item >> 5 & 3) * 16 + (item >> 2 & 7);
#define STORE_ROW(sums_, half, offset)                                                             \
    if (first_k + (offset) + 8 * (half) < k) {                                                     \
        const long at = (((long)part * k + first_k + (offset) + 8 * (half)) * units +              \
                         tile_column * RIGHT_UNITS) *                                              \
                            64 +                                                                   \
                        (item & 3) * 2;                                                            \
        _Pragma("unroll") for (int j = 0; j < COLUMNS / 8;                                         \
                               j++) if (tile_column * RIGHT_UNITS + j / 8 < units) *               \
            (__global float2 *)(sums + at + j * 8) =                                               \
            (float2)(sums_[4 * j + 2 * (half)], sums_[4 * j + 2 * (half) + 1]);                    \
    }
    STORE_ROW(sums0, 0, 0)
    STORE_ROW(sums0, 1, 0)
#if REPEATS == 2
    STORE_ROW(sums1, 0, 64)
    STORE_ROW(sums1, 1, 64)
#endif
}
