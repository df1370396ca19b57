/* Gradients as bytes; mpitrain/exchange/codec_numpy.py says what the bytes mean, and makes the
   same ones.
   v = x + residual (or x - minus);   codes = Q(v);   residual = v - decoded;
   acc = decoded or acc + decoded.
   One work-item per `chunk` blocks of 512 values, the last of which may be short. Scales are
   powers of two and every sum is rounded once, so all devices make the same bytes. Denormals
   count as zero, for some devices flush them. Tables are read a value at a time, at places that
   were written to memory before: taking them out of a vector's lanes, or leaving the gathering
   to the compiler, takes up to twice as long (benchmarks/codec.py). */
#include "prelude.h"
#include "codec.h"

#define ONE_BY_ONE __attribute__((reqd_work_group_size(1, 1, 1)))
/* As LOAD and STORE, for values that are no floats or lie in a work-item's own memory. */
#define TAKE(p) PASTE(vload, WIDTH)(0, (p))
#define PUT(v, p) PASTE(vstore, WIDTH)((v), 0, (p))
#define BITS(v) PASTE(as_uint, WIDTH)(v)
#define FLOATS(v) PASTE(as_float, WIDTH)(v)
#define USHORTS(v) PASTE(convert_ushort, WIDTH)(v)
#define UCHARS(v) PASTE(convert_uchar, WIDTH)(v)
#define FLUSH(v) FLOATS(BITS(v) & BITS((BITS(v) & INFINITE) != 0u))

/* table[p[0]], table[p[1]], ... as a vector's elements. */
#define EACH8(t, p)                                                                                \
    t[(p)[0]], t[(p)[1]], t[(p)[2]], t[(p)[3]], t[(p)[4]], t[(p)[5]], t[(p)[6]], t[(p)[7]]
#define EACH16(t, p) EACH8(t, p), EACH8(t, (p) + 8)
#define EACH PASTE(EACH, WIDTH)

inline uint most2(const uint2 v) { return max(v.s0, v.s1); }
inline uint most4(const uint4 v) { return most2(max(v.lo, v.hi)); }
inline uint most8(const uint8 v) { return most4(max(v.lo, v.hi)); }
#if WIDTH == 16
inline uint most16(const uint16 v) { return most8(max(v.lo, v.hi)); }
#endif

/* v = x and `other` as `mode` says, with zeros up to a whole block; returns the bits of the
   largest magnitude. */
inline uint load_block(uint *v, __global const float *x, __global const float *other,
                       const int length, const int mode) {
    WIDE_UINT largest = 0;
#define ALL(value)                                                                                 \
    for (int i = 0; i < BLOCK; i += WIDTH) {                                                       \
        const WIDE_UINT bits = BITS(FLUSH(value));                                                 \
        PUT(bits, v + i);                                                                          \
        largest = max(largest, bits & MAGNITUDE);                                                  \
    }
    if (length < BLOCK) {
        for (int i = 0; i < BLOCK; i++)
            v[i] = i < length ? as_uint(combine(x[i], other[i], mode)) : 0;
        for (int i = 0; i < BLOCK; i += WIDTH) largest = max(largest, TAKE(v + i) & MAGNITUDE);
    } else if (mode == PLUS) {
        ALL(FLUSH(LOAD(x + i)) + FLUSH(LOAD(other + i)))
    } else if (mode == MINUS) {
        ALL(FLUSH(LOAD(x + i)) - FLUSH(LOAD(other + i)))
    } else {
        ALL(LOAD(x + i))
    }
    return PASTE(most, WIDTH)(largest);
}

/* codes: per block the scale's exponent byte and 512 codes. `other` is the residual (read and
   written), what to subtract, or unused. */
ONE_BY_ONE __kernel void encode8(__global uchar *restrict codes, __global float *restrict other,
                                 __global const float *restrict x,
                                 __global const uint *restrict thresholds,
                                 __global const float *restrict levels, const int n,
                                 const int chunk, const int mode) {
    const int count = (n + BLOCK - 1) / BLOCK;
    const int from = get_global_id(0) * chunk, to = min(from + chunk, count);
    for (int block = from; block < to; block++) {
        const size_t start = (size_t)block * BLOCK;
        const int length = min(BLOCK, n - (int)start);
        __global uchar *restrict record = codes + (size_t)block * (BLOCK + 1);
        __global float *restrict beside = other + start;
        uint v[BLOCK];
        ushort row[BLOCK];
        const int exponent = exponent_of(load_block(v, x + start, beside, length, mode));
        if (exponent > MOST) {
            record[0] = MARKED;
            for (int i = 0; i < BLOCK; i++) record[1 + i] = 0;
            continue;
        }
        record[0] = exponent;
        const uint first = FLOOR + ((exponent - 127) << 7);
        for (int i = 0; i < BLOCK; i += WIDTH)
            PUT(USHORTS(max((TAKE(v + i) & MAGNITUDE) >> 16, first) - first), row + i);
        for (int i = 0; i < BLOCK; i += WIDTH) {
            const WIDE_UINT bits = TAKE(v + i);
            const WIDE_UINT code =
                ((WIDE_UINT)(EACH(thresholds, row + i)) + (bits & 0xffffu)) >> 16;
            PUT(UCHARS(code | (bits >> 31 << 7 & BITS(code != 0u))), record + 1 + i);
        }
        if (mode != PLUS) continue;
        const float scale = scale_of(exponent);
        if (length < BLOCK)
            for (int i = 0; i < length; i++)
                beside[i] = flush(as_float(v[i]) - levels[record[1 + i]] * scale);
        else
            for (int i = 0; i < BLOCK; i += WIDTH)
                STORE(FLUSH(FLOATS(TAKE(v + i)) - (WIDE)(EACH(levels, record + 1 + i)) * scale),
                      beside + i);
    }
}

ONE_BY_ONE __kernel void decode_add8(__global float *restrict acc,
                                     __global const uchar *restrict codes,
                                     __global const float *restrict levels, const int n,
                                     const int chunk, const int offset, const int first) {
    const int count = (n + BLOCK - 1) / BLOCK;
    const int from = get_global_id(0) * chunk, to = min(from + chunk, count);
    for (int block = from; block < to; block++) {
        const size_t start = (size_t)block * BLOCK;
        const int length = min(BLOCK, n - (int)start);
        __global const uchar *restrict code = codes + offset + (size_t)block * (BLOCK + 1) + 1;
        __global float *restrict out = acc + start;
        const float scale = scale_of(code[-1]);
        if (length < BLOCK)
            for (int i = 0; i < length; i++)
                out[i] = first ? levels[code[i]] * scale
                               : flush(flush(out[i]) + levels[code[i]] * scale);
        else if (first)
            for (int i = 0; i < BLOCK; i += WIDTH)
                STORE((WIDE)(EACH(levels, code + i)) * scale, out + i);
        else
            for (int i = 0; i < BLOCK; i += WIDTH)
                STORE(FLUSH(FLUSH(LOAD(out + i)) + (WIDE)(EACH(levels, code + i)) * scale),
                      out + i);
    }
}

/* IEEE half precision, rounded to nearest even; a NaN is 0x7e00. An overflow is an infinity,
   whose residual stays as it was. */
ONE_BY_ONE __kernel void encode16(__global uchar *codes, __global float *other,
                                  __global const float *x, const int n, const int chunk,
                                  const int mode) {
    const int count = (n + BLOCK - 1) / BLOCK;
    const int from = get_global_id(0) * chunk * BLOCK,
              to = min(from + chunk * BLOCK, count * BLOCK);
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

ONE_BY_ONE __kernel void decode_add16(__global float *acc, __global const uchar *codes, const int n,
                                      const int chunk, const int offset, const int first) {
    __global const half *in = (__global const half *)(codes + offset);
    const int from = get_global_id(0) * chunk * BLOCK, to = min(from + chunk * BLOCK, n);
    for (int i = from; i < to; i++)
        acc[i] = first ? vload_half(i, in) : flush(flush(acc[i]) + vload_half(i, in));
}

/* x = factor x, rounded once: on unlike devices the same, which a division would not be. */
ONE_BY_ONE __kernel void scale(__global float *x, const int n, const int chunk,
                               const float factor) {
    const int from = get_global_id(0) * chunk * BLOCK, to = min(from + chunk * BLOCK, n);
    for (int i = from; i < to; i++) x[i] *= factor;
}
