/* What tensor cores read: rows of 128 bytes made of float32 images in blocks of 32 channels, and of
   weights.

   FORMAT 0: a row is 64 channels rounded to bfloat16; 1: 32 channels rounded to TF32; 2: 32 pairs
   of bfloat16, x = high + low, high parts first. One work-item makes 8 channels. */
#include "bfloat16.h"
#if FORMAT == 0
#define ROW_CHANNELS 64
#else
#define ROW_CHANNELS 32
#endif
#define PARTS (ROW_CHANNELS / 8)

/* Put 8 channels, part `part` of a row, into it; pieces of 16 bytes are exclusive-ored with
   `swizzle`. */
inline void put(__global uint4 *row, const float8 v, const int part, const int swizzle) {
#if FORMAT == 1
    row[2 * part ^ swizzle] =
        (uint4)(tf32_bits(v.s0), tf32_bits(v.s1), tf32_bits(v.s2), tf32_bits(v.s3));
    row[2 * part + 1 ^ swizzle] =
        (uint4)(tf32_bits(v.s4), tf32_bits(v.s5), tf32_bits(v.s6), tf32_bits(v.s7));
#else
    const uint4 high = (uint4)(bfloat16_pair(v.s0, v.s1), bfloat16_pair(v.s2, v.s3),
                               bfloat16_pair(v.s4, v.s5), bfloat16_pair(v.s6, v.s7));
    row[part ^ swizzle] = high;
#endif
#if FORMAT == 2
    row[part + 4 ^ swizzle] = (uint4)(low_pair(v.s0, v.s1, high.x), low_pair(v.s2, v.s3, high.y),
                                      low_pair(v.s4, v.s5, high.z), low_pair(v.s6, v.s7, high.w));
#endif
}

#if FORMAT == 2 /* other images are rows as they lie (kernels/values.h) */
/* rows (N, chunks, pixels, 128 bytes) from x (N, chunks, pixels, 32). */
__kernel void pack_images(__global uint4 *rows, __global const float8 *x, const int count) {
    const int item = get_global_id(0);
    if (item < count) put(rows + item / PARTS * 8, x[item], item % PARTS, 0);
}
#endif

#ifdef GATHER_C
/* The same of images with few channels, for a filter as if it were 1x1: channel (c R + r) S + s of
   pixel (p, q) is x[c][p * stride + r - pad][q * stride + s - pad]. rows (N, chunks, P, Q, 128
   bytes), x (N, blocks, H, W, block). The filter's numbers are definitions: dividing by a variable
   takes longer than the memory. */
__kernel void pack_gathered(__global uint4 *rows, __global const float *x, const int images,
                            const int h, const int w, const int p, const int q, const int stride_h,
                            const int stride_w, const int pad_h, const int pad_w) {
    const int c = GATHER_C, r = GATHER_R, s = GATHER_S, block = GATHER_BLOCK;
    const int channels = c * r * s, chunks = (channels + ROW_CHANNELS - 1) / ROW_CHANNELS,
              blocks = (c + block - 1) / block;
    const size_t item = get_global_id(0), row = item / PARTS;
    if (row >= (size_t)images * chunks * p * q) return;
    const int part = item % PARTS, plane = row / (p * q), pixel = row - (size_t)plane * p * q,
              n = plane / chunks;
    const int top = pixel / q * stride_h - pad_h, left = pixel % q * stride_w - pad_w;
    const int first = (plane - n * chunks) * ROW_CHANNELS + part * 8;
    float v[8];
    _Pragma("unroll") for (int i = 0; i < 8; i++) {
        const int from = (first + i) / (r * s), tap = (first + i) % (r * s), in_h = top + tap / s,
                  in_w = left + tap % s;
        v[i] = 0.0f;
        if (first + i < channels && (uint)in_h < (uint)h && (uint)in_w < (uint)w)
            v[i] = x[((((size_t)n * blocks + from / block) * h + in_h) * w + in_w) * block +
                     from % block];
    }
    put(rows + row * 8, (float8)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]), part, 0);
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
            put(rows + ((size_t)(chunk * f.r * f.s + i * f.s + j) * f.count + row) * 8,
                (float8)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]), part, row & 7);
        }
}

/* dweight (K, C, taps) = the sum of sums (parts, K, taps, channels), first part first, plus what is
   there if `add`; channels is C rounded up to 64s. A group adds up taps x 64 values of one k: they
   are read along channels and written along taps. */
__kernel void sum_parts(__global float *dweight, __global const float *sums, const int parts,
                        const int k, const int c, const int taps, const int add) {
    __local float values[MOST_TAPS * 64];
    const int item = get_local_id(0), items = get_local_size(0), out = get_group_id(1),
              first = get_group_id(0) * 64;
    const int channels = (c + 63) / 64 * 64;
    const size_t part_size = (size_t)k * taps * channels;
    for (int i = item; i < taps * 64; i += items) {
        __global const float *from =
            sums + ((size_t)out * taps + i / 64) * channels + first + i % 64;
        float total = 0.0f;
        for (int part = 0; part < parts; part++) total += from[part * part_size];
        values[i % 64 * taps + i / 64] = total;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < taps * min(64, c - first); i += items) {
        __global float *to = dweight + ((size_t)out * c + first) * taps + i;
        *to = add ? *to + values[i] : values[i];
    }
}
