/* Gradients as bytes; mpitrain/exchange/codec_numpy.py says what the bytes mean, and makes the same ones.
   v = x + residual (or x - minus);   codes = Q(v);   residual = v - decoded;        acc = decoded or acc + decoded.
   One work-item per `chunk` blocks of 512 values, the last of which may be short. Scales are powers of two and every sum is rounded
   once, so all devices make the same bytes. Denormals count as zero, for some devices flush them. */
#include "prelude.h"
#pragma OPENCL FP_CONTRACT OFF

#define BLOCK 512
#define LEAST 47
#define MOST 253
#define MARKED 255
#define FLOOR 0x3580
#define INFINITE 0x7f800000u
#define QUIET 0x7fc00000u
#if GROUP == 1
#define ONE_BY_ONE __attribute__((reqd_work_group_size(1, 1, 1)))
#else
#define ONE_BY_ONE
#endif

inline float flush(const float v) { return as_uint(v) & INFINITE ? v : 0.0f; }

/* x + residual, or x - minus, or x, as `mode` says (0, 1, 2): the same way in both kernels that encode. */
#define PLUS 0
#define MINUS 1
inline float combine(const float x, const float other, const int mode) {
    return flush(mode == PLUS ? flush(x) + flush(other) : mode == MINUS ? flush(x) - flush(other) : x);
}

/* codes: per block the scale's exponent byte and 512 codes. `other` is the residual (read and written), what to subtract, or unused. */
ONE_BY_ONE __kernel void encode8(__global uchar *restrict codes, __global float *restrict other, __global const float *restrict x,
                                 __global const uint *restrict thresholds, __global const float *restrict levels, const int n,
                                 const int chunk, const int mode) {
    const int count = (n + BLOCK - 1) / BLOCK;
    const int from = get_global_id(0) * chunk, to = min(from + chunk, count);
    for (int block = from; block < to; block++) {
        const size_t start = (size_t)block * BLOCK;
        const int length = min(BLOCK, n - (int)start);
        __global uchar *restrict record = codes + (size_t)block * (BLOCK + 1);
        __global const float *restrict in = x + start;
        __global float *restrict beside = other + start;
        uint largest = 0, v[BLOCK];
        for (int i = 0; i < length; i++) v[i] = as_uint(combine(in[i], beside[i], mode));
        for (int i = 0; i < length; i++) largest = max(largest, v[i] & 0x7fffffffu);
        const int exponent = max((int)((largest + 0x007fffffu) >> 23), LEAST);
        if (exponent > MOST) {
            record[0] = MARKED;
            for (int i = 0; i < BLOCK; i++) record[1 + i] = 0;
            continue;
        }
        record[0] = exponent;
        const int shift = (exponent - 127) << 23;
        const float scale = as_float(exponent << 23);
        for (int i = 0; i < length; i++) {
            const uint unit = max((int)(v[i] & 0x7fffffffu) - shift, FLOOR << 16);
            const uint code = (thresholds[(unit >> 16) - FLOOR] + (unit & 0xffffu)) >> 16;
            record[1 + i] = code | (code ? v[i] >> 31 << 7 : 0);
        }
        if (mode == PLUS)
            for (int i = 0; i < length; i++) beside[i] = flush(as_float(v[i]) - levels[record[1 + i]] * scale);
        for (int i = length; i < BLOCK; i++) record[1 + i] = 0;
    }
}

ONE_BY_ONE __kernel void decode_add8(__global float *acc, __global const uchar *codes, __global const float *levels, const int n,
                                     const int chunk, const int offset, const int first) {
    const int count = (n + BLOCK - 1) / BLOCK;
    const int from = get_global_id(0) * chunk, to = min(from + chunk, count);
    for (int block = from; block < to; block++) {
        const size_t start = (size_t)block * BLOCK;
        const int length = min(BLOCK, n - (int)start);
        __global const uchar *record = codes + offset + (size_t)block * (BLOCK + 1);
        __global float *out = acc + start;
        const float scale = as_float(record[0] == MARKED ? QUIET : (uint)record[0] << 23);
        if (first)
            for (int i = 0; i < length; i++) out[i] = levels[record[1 + i]] * scale;
        else
            for (int i = 0; i < length; i++) out[i] = flush(flush(out[i]) + levels[record[1 + i]] * scale);
    }
}

/* IEEE half precision, rounded to nearest even; a NaN is 0x7e00. An overflow is an infinity, whose residual stays as it was. */
ONE_BY_ONE __kernel void encode16(__global uchar *codes, __global float *other, __global const float *x, const int n, const int chunk,
                                  const int mode) {
    const int count = (n + BLOCK - 1) / BLOCK;
    const int from = get_global_id(0) * chunk * BLOCK, to = min(from + chunk * BLOCK, count * BLOCK);
    __global half *out = (__global half *)codes;
    __global ushort *bits = (__global ushort *)codes;
    for (int i = from; i < to; i++) {
        if (i >= n) {
            bits[i] = 0;
            continue;
        }
        const float v = combine(x[i], other[i], mode);
        vstore_half_rte(v, i, out);
        if (isnan(v)) bits[i] = 0x7e00;
        if (mode == PLUS && (bits[i] & 0x7c00) != 0x7c00) other[i] = flush(v - vload_half(i, out));
    }
}

ONE_BY_ONE __kernel void decode_add16(__global float *acc, __global const uchar *codes, const int n, const int chunk, const int offset,
                                      const int first) {
    __global const half *in = (__global const half *)(codes + offset);
    const int from = get_global_id(0) * chunk * BLOCK, to = min(from + chunk * BLOCK, n);
    for (int i = from; i < to; i++) acc[i] = first ? vload_half(i, in) : flush(flush(acc[i]) + vload_half(i, in));
}

/* x = factor x, rounded once: on unlike devices the same, which a division would not be. */
ONE_BY_ONE __kernel void scale(__global float *x, const int n, const int chunk, const float factor) {
    const int from = get_global_id(0) * chunk * BLOCK, to = min(from + chunk * BLOCK, n);
    for (int i = from; i < to; i++) x[i] *= factor;
}
