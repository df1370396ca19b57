/* What tensor cores read: rows of 128 bytes made of float32 images in blocks of 32 channels, and of
   weights.

   FORMAT 0: a row is 64 channels rounded to bfloat16; 1: 32 channels rounded to TF32; 2: 32 pairs
   of bfloat16, x = high + low, high parts first. */
#include "bfloat16.h"
#if FORMAT == 0
#define ROW_CHANNELS 64
#else
#define ROW_CHANNELS 32
#endif
#define PARTS (ROW_CHANNELS / 8)

/* 8 channels as the pieces of 16 bytes that they take, one with bfloat16 and else two. */
typedef struct {
    uint4 first, second;
} Pieces;

inline Pieces pieces_of(const float8 v) {
    Pieces pieces;
#if FORMAT == 1
    pieces.first = (uint4)(tf32_bits(v.s0), tf32_bits(v.s1), tf32_bits(v.s2), tf32_bits(v.s3));
    pieces.second = (uint4)(tf32_bits(v.s4), tf32_bits(v.s5), tf32_bits(v.s6), tf32_bits(v.s7));
#else
    const uint4 high = (uint4)(bfloat16_pair(v.s0, v.s1), bfloat16_pair(v.s2, v.s3),
                               bfloat16_pair(v.s4, v.s5), bfloat16_pair(v.s6, v.s7));
    pieces.first = high;
    pieces.second = (uint4)(low_pair(v.s0, v.s1, high.x), low_pair(v.s2, v.s3, high.y),
                            low_pair(v.s4, v.s5, high.z), low_pair(v.s6, v.s7, high.w));
#endif
    return pieces;
}

/* Put channels [8 part, 8 part + 8) into a row, whose pieces are exclusive-ored with `swizzle`. */
#define FIRST_PLACE(part) (FORMAT == 1 ? 2 * (part) : (part))
#define SECOND_PLACE(part) (FORMAT == 1 ? 2 * (part) + 1 : (part) + 4)
#define PUT(row, v, part, swizzle)                                                                 \
    {                                                                                              \
        const Pieces pieces = pieces_of(v);                                                        \
        (row)[FIRST_PLACE(part) ^ (swizzle)] = pieces.first;                                       \
        if (FORMAT != 0) (row)[SECOND_PLACE(part) ^ (swizzle)] = pieces.second;                    \
    }

#if FORMAT == 2 /* for tf32's gradients of filters: all other images are rows as they lie */
/* rows (N, chunks, pixels, 128 bytes) from x (N, chunks, pixels, 32); a work-item makes 8
   channels. */
__kernel void pack_images(__global uint4 *rows, __global const float8 *x, const int count) {
    const int item = get_global_id(0);
    if (item < count) PUT(rows + item / PARTS * 8, x[item], item % PARTS, 0);
}
#endif

#ifdef GATHER_C
/* The same of images with few channels, for a filter as if it were 1x1: channel (c R + r) S + s of
   pixel (p, q) is x[c][p * stride + r - pad][q * stride + s - pad]. rows (N, chunks, P, Q, 128
   bytes), x (N, 1, H, W, 4). A work-item takes a pixel, since all that differs between its values is
   then known here: the filter's numbers are definitions. A group puts its rows together in local
   memory, to write them side by side. */
#define TAPS (GATHER_R * GATHER_S)
#define GATHERED (GATHER_C * TAPS)
#define CHUNKS ((GATHERED + ROW_CHANNELS - 1) / ROW_CHANNELS)
#define AT(r, s) ((r) * w + (s))
#define INSIDE(r, s) ((uint)(top + (r)) < (uint)h && (uint)(left + (s)) < (uint)w)
#if TAPS <= 16 /* that many pixels fit into registers */
#define LOAD_PIXELS                                                                                \
    float4 met[TAPS];                                                                              \
    _Pragma("unroll") for (int i = 0; i < TAPS; i++) met[i] =                                      \
        INSIDE(i / GATHER_S, i % GATHER_S) ? from[AT(i / GATHER_S, i % GATHER_S)]                  \
                                           : (float4)(0.0f);
#define TAP(c, r, s) ((const float *)&met[(r) * GATHER_S + (s)])[c]
#else
#define LOAD_PIXELS
#define TAP(c, r, s) (INSIDE(r, s) ? ((__global const float *)(from + AT(r, s)))[c] : 0.0f)
#endif

__attribute__((reqd_work_group_size(PIXELS, 1, 1))) __kernel void pack_gathered(
    __global uint4 *rows, __global const float4 *x, const int h, const int w, const int p,
    const int q, const int stride_h, const int stride_w, const int pad_h, const int pad_w) {
    __local uint4 tile[PIXELS * 8];
    const int me = get_local_id(0), first = get_group_id(0) * PIXELS, n = get_group_id(1),
              plane = p * q, pixel = min(first + me, plane - 1),
              pieces = min(PIXELS, plane - first) * 8;
    const int top = pixel / q * stride_h - pad_h, left = pixel % q * stride_w - pad_w;
    __global const float4 *from = x + ((long)n * h + top) * w + left;
    LOAD_PIXELS
    _Pragma("unroll") for (int chunk = 0; chunk < CHUNKS; chunk++) {
        _Pragma("unroll") for (int part = 0; part < PARTS; part++) {
            float v[8];
            _Pragma("unroll") for (int i = 0; i < 8; i++) {
                const int channel = chunk * ROW_CHANNELS + part * 8 + i, tap = channel % TAPS;
                v[i] =
                    channel < GATHERED ? TAP(channel / TAPS, tap / GATHER_S, tap % GATHER_S) : 0.0f;
            }
            PUT(tile + me * 8, (float8)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]), part,
                me & 7);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        __global uint4 *to = rows + ((size_t)(n * CHUNKS + chunk) * plane + first) * 8;
        for (int i = me; i < pieces; i += PIXELS) to[i] = tile[i ^ (i >> 3 & 7)];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}
#endif

/* Where a correlation's weights come from and go: packed_weights.py. */
typedef struct {
    int first_group, weight, bias, padded, rows, k, c, count, r, s, out_step, in_step, first_row,
        first_column, row_step, column_step, tap_row, rows_first;
} Packing;

/* For each packing, rows (chunks, R S, count, 128 bytes) of weight(k, c, r, s) = weight[k *
   out_step + c * in_step + tap] for a correlation (correlation.py). Of each 32 rows, row 8 j + 2
   i + e is output channel 16 (j / 2) + 4 i + 2 (j % 2) + e: so a work-item of the product holds
   four channels side by side. Pieces of a row are swizzled. `padded` (count) becomes bias, or
   zeros where there is none (bias < 0), and behind K. A group belongs to the packing
   owners[group]; a work-item makes 8 channels of every tap; neighbours are rows (rows_first) or
   channels, whichever lie side by side in weight. */
__kernel void pack_weights(__global float *memory, __global const float *weights,
                           __global const float *biases, __global const Packing *packings,
                           __global const int *owners) {
    const int group = get_group_id(0);
    const Packing f = packings[owners[group]];
    const int chunks = (f.c + ROW_CHANNELS - 1) / ROW_CHANNELS, all_parts = chunks * PARTS,
              item = (group - f.first_group) * get_local_size(0) + get_local_id(0);
    if (item >= f.count * all_parts) return;
    __global const float *weight = weights + f.weight;
    __global uint4 *rows = (__global uint4 *)(memory + f.rows);
    const int out = f.rows_first ? item % f.count : item / all_parts;
    const int all_part = f.rows_first ? item / f.count : item % all_parts;
    const int chunk = all_part / PARTS, part = all_part % PARTS, in = all_part * 8,
              inner = out % 32;
    if (all_part == 0)
        memory[f.padded + out] = f.bias >= 0 && out < f.k ? biases[f.bias + out] : 0.0f;
    const int row =
        out - inner + (inner / 16 * 2 + inner / 2 % 2) * 8 + inner / 4 % 4 * 2 + inner % 2;
    for (int i = 0; i < f.r; i++)
        for (int j = 0; j < f.s; j++) {
            const int tap =
                (f.first_row + i * f.row_step) * f.tap_row + f.first_column + j * f.column_step;
            float v[8];
            _Pragma("unroll") for (int l = 0; l < 8; l++) v[l] =
                out < f.k && in + l < f.c
                    ? weight[(size_t)out * f.out_step + (size_t)(in + l) * f.in_step + tap]
                    : 0.0f;
            PUT(rows + ((size_t)(chunk * f.r * f.s + i * f.s + j) * f.count + row) * 8,
                (float8)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]), part, row & 7);
        }
}
