/* Gradients as bytes; mpitrain/exchange/codec_numpy.py says what the bytes mean, and makes the
   same ones. v = x + residual (or x - minus);   codes = Q(v);   residual = v - decoded;
   acc = decoded or acc + decoded. LANES work-items for each `chunk` blocks of 512 values, the last
   of which may be short; neighbours take neighbouring values, and each has enough of them under
   way at once to hide the memory's delay. Tables are copied to local memory: 32 work-items that
   look up different lines of a cache wait for each other. Scales are powers of two and every sum
   is rounded once, so all devices make the same bytes. Denormals count as zero, for some flush
   them. */
#include "prelude.h"
#include "codec.h"
#define EACH (BLOCK / LANES)
#define STEPS (0x3f80 - FLOOR + 1)
#define CODES 256

/* For each block of this work-item: where it starts, how many values it has (none behind the last
   block), and the work-item's first one there. */
#define EACH_BLOCK                                                                                 \
    const int me = get_local_id(0), lane = me % LANES;                                             \
    size_t block = get_global_id(0) / LANES * chunk;                                               \
    for (const size_t behind = block + chunk; block < behind; block++)
#define PLACE                                                                                      \
    const size_t start = block * BLOCK;                                                            \
    const int length = (int)clamp((long)n - (long)start, 0L, (long)BLOCK);

inline void copy_near(__local void *near, __global const void *table, const int count) {
    for (int k = get_local_id(0); k < count; k += GROUP)
        ((__local uint *)near)[k] = ((__global const uint *)table)[k];
}

/* codes: per block the scale's exponent byte and 512 codes. `other` is the residual (read and
   written), what to subtract, or unused. */
IN_GROUPS __kernel void encode8(__global uchar *codes, __global float *other,
                                __global const float *x, __global const uint *thresholds,
                                __global const float *levels, const int n, const int chunk,
                                const int mode) {
    __local uint largest[GROUP], limits[STEPS];
    __local float decoded[CODES];
    copy_near(limits, thresholds, STEPS);
    copy_near(decoded, levels, CODES);
    EACH_BLOCK {
        PLACE
        uint v[EACH], most = 0;
        _Pragma("unroll") for (int k = 0; k < EACH; k++) {
            const int i = lane + k * LANES;
            v[k] =
                i < length
                    ? as_uint(combine(x[start + i], mode <= MINUS ? other[start + i] : 0.0f, mode))
                    : 0;
            most = max(most, v[k] & MAGNITUDE);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        largest[me] = most;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < LANES; k++) most = max(most, largest[me - lane + k]);
        const int exponent = exponent_of(most);
        const bool marked = exponent > MOST;
        __global uchar *record = codes + block * (BLOCK + 1);
        if (lane == 0 && length) record[0] = marked ? MARKED : exponent;
        const int shift = (exponent - 127) << 23;
        const float scale = scale_of(exponent);
        if (length) _Pragma("unroll") for (int k = 0; k < EACH; k++) {
                const int i = lane + k * LANES;
                uint code = 0;
                if (!marked) {
                    const uint unit = max((int)(v[k] & MAGNITUDE) - shift, FLOOR << 16);
                    code = (limits[(unit >> 16) - FLOOR] + (unit & 0xffffu)) >> 16;
                    if (code) code |= v[k] >> 31 << 7;
                    if (mode == PLUS && i < length)
                        other[start + i] = flush(as_float(v[k]) - decoded[code] * scale);
                }
                record[1 + i] = code;
            }
    }
}

IN_GROUPS __kernel void decode_add8(__global float *acc, __global const uchar *codes,
                                    __global const float *levels, const int n, const int chunk,
                                    const int offset, const int first) {
    __local float decoded[CODES];
    copy_near(decoded, levels, CODES);
    barrier(CLK_LOCAL_MEM_FENCE);
    EACH_BLOCK {
        PLACE
        if (length == 0) return;
        __global const uchar *record = codes + offset + block * (BLOCK + 1);
        const float scale = scale_of(record[0]);
        uchar code[EACH];
        float before[EACH];
        _Pragma("unroll") for (int k = 0; k < EACH; k++) {
            const int i = lane + k * LANES;
            code[k] = record[1 + i];
            before[k] = first || i >= length ? 0.0f : acc[start + i];
        }
        _Pragma("unroll") for (int k = 0; k < EACH; k++) {
            const int i = lane + k * LANES;
            const float value = decoded[code[k]] * scale;
            if (i < length) acc[start + i] = first ? value : flush(flush(before[k]) + value);
        }
    }
}

/* IEEE half precision, rounded to nearest even; a NaN is 0x7e00. An overflow is an infinity,
   whose residual stays as it was. */
IN_GROUPS __kernel void encode16(__global uchar *codes, __global float *other,
                                 __global const float *x, const int n, const int chunk,
                                 const int mode) {
    __global half *out = (__global half *)codes;
    __global ushort *bits = (__global ushort *)codes;
    EACH_BLOCK {
        PLACE
        for (int j = lane; length && j < BLOCK; j += LANES) {
            const size_t i = start + j;
            if (j >= length) {
                bits[i] = 0;
                continue;
            }
            const float v = combine(x[i], mode <= MINUS ? other[i] : 0.0f, mode);
            vstore_half_rte(v, i, out);
            if (isnan(v)) bits[i] = 0x7e00;
            if (mode == PLUS && (bits[i] & 0x7c00) != 0x7c00)
                other[i] = flush(v - vload_half(i, out));
        }
    }
}

IN_GROUPS __kernel void decode_add16(__global float *acc, __global const uchar *codes, const int n,
                                     const int chunk, const int offset, const int first) {
    __global const half *in = (__global const half *)(codes + offset);
    EACH_BLOCK {
        PLACE
        for (size_t i = start + lane; i < start + length; i += LANES)
            acc[i] = first ? vload_half(i, in) : flush(flush(acc[i]) + vload_half(i, in));
    }
}

/* x = factor x, rounded once: on unlike devices the same, which a division would not be. */
IN_GROUPS __kernel void scale(__global float *x, const int n, const int chunk, const float factor) {
    EACH_BLOCK {
        PLACE
        for (size_t i = start + lane; i < start + length; i += LANES) x[i] *= factor;
    }
}
