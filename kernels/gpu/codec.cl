/* Gradients as bytes; mpitrain/exchange/codec_numpy.py says what the bytes mean, and makes the
   same ones. v = x + residual (or x - minus);   codes = Q(v);   residual = v - decoded;
   acc = decoded or acc + decoded. One group of work-items per block of 512 values, the last of
   which may be short; neighbours take neighbouring values. Scales are powers of two and every
   sum is rounded once, so all devices make the same bytes. Denormals count as zero, for some
   flush them. */
#include "prelude.h"
#include "codec.h"

/* codes: per block the scale's exponent byte and 512 codes. `other` is the residual (read and
   written), what to subtract, or unused. */
IN_GROUPS __kernel void encode8(__global uchar *codes, __global float *other,
                                __global const float *x, __global const uint *restrict thresholds,
                                __global const float *restrict levels, const int n, const int chunk,
                                const int mode) {
    __local uint largest[GROUP];
    const int me = get_local_id(0);
    const size_t start = (size_t)get_group_id(0) * BLOCK;
    const int length = min(BLOCK, n - (int)start);
    __global uchar *record = codes + (size_t)get_group_id(0) * (BLOCK + 1);
    uint v[BLOCK / GROUP], most = 0;
    for (int k = 0; k < BLOCK / GROUP; k++) {
        const int i = me + k * GROUP;
        v[k] = i < length
                   ? as_uint(combine(x[start + i], mode <= MINUS ? other[start + i] : 0.0f, mode))
                   : 0;
        most = max(most, v[k] & MAGNITUDE);
    }
    largest[me] = most;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_size = GROUP / 2; half_size > 0; half_size /= 2) {
        if (me < half_size) largest[me] = max(largest[me], largest[me + half_size]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const int exponent = exponent_of(largest[0]);
    const bool marked = exponent > MOST;
    if (me == 0) record[0] = marked ? MARKED : exponent;
    const int shift = (exponent - 127) << 23;
    const float scale = scale_of(exponent);
    for (int k = 0; k < BLOCK / GROUP; k++) {
        const int i = me + k * GROUP;
        uint code = 0;
        if (!marked) {
            const uint unit = max((int)(v[k] & MAGNITUDE) - shift, FLOOR << 16);
            code = (thresholds[(unit >> 16) - FLOOR] + (unit & 0xffffu)) >> 16;
            if (code) code |= v[k] >> 31 << 7;
            if (mode == PLUS && i < length)
                other[start + i] = flush(as_float(v[k]) - levels[code] * scale);
        }
        record[1 + i] = code;
    }
}

IN_GROUPS __kernel void decode_add8(__global float *acc, __global const uchar *codes,
                                    __global const float *restrict levels, const int n,
                                    const int chunk, const int offset, const int first) {
    const int me = get_local_id(0);
    const size_t start = (size_t)get_group_id(0) * BLOCK;
    const int length = min(BLOCK, n - (int)start);
    __global const uchar *record = codes + offset + (size_t)get_group_id(0) * (BLOCK + 1);
    const float scale = scale_of(record[0]);
    for (int i = me; i < length; i += GROUP) {
        const float decoded = levels[record[1 + i]] * scale;
        acc[start + i] = first ? decoded : flush(flush(acc[start + i]) + decoded);
    }
}

/* IEEE half precision, rounded to nearest even; a NaN is 0x7e00. An overflow is an infinity,
   whose residual stays as it was. */
IN_GROUPS __kernel void encode16(__global uchar *codes, __global float *other,
                                 __global const float *x, const int n, const int chunk,
                                 const int mode) {
    const int from = get_group_id(0) * BLOCK;
    __global half *out = (__global half *)codes;
    __global ushort *bits = (__global ushort *)codes;
    for (int i = from + get_local_id(0); i < from + BLOCK; i += GROUP) {
        if (i >= n) {
            bits[i] = 0;
            continue;
        }
        const float v = combine(x[i], mode <= MINUS ? other[i] : 0.0f, mode);
        vstore_half_rte(v, i, out);
        if (isnan(v)) bits[i] = 0x7e00;
        if (mode == PLUS && (bits[i] & 0x7c00) != 0x7c00) other[i] = flush(v - vload_half(i, out));
    }
}

IN_GROUPS __kernel void decode_add16(__global float *acc, __global const uchar *codes, const int n,
                                     const int chunk, const int offset, const int first) {
    __global const half *in = (__global const half *)(codes + offset);
    const int from = get_group_id(0) * BLOCK, to = min(from + BLOCK, n);
    for (int i = from + get_local_id(0); i < to; i += GROUP)
        acc[i] = first ? vload_half(i, in) : flush(flush(acc[i]) + vload_half(i, in));
}

/* x = factor x, rounded once: on unlike devices the same, which a division would not be. */
IN_GROUPS __kernel void scale(__global float *x, const int n, const int chunk, const float factor) {
    const int from = get_group_id(0) * BLOCK, to = min(from + BLOCK, n);
    for (int i = from + get_local_id(0); i < to; i += GROUP) x[i] *= factor;
}
