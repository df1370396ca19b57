/* Gradients as bytes; mpitrain/exchange/codec_numpy.py says what the bytes mean, and makes the
   same ones. v = x + residual (or x - minus);   codes = Q(v);   residual = v - decoded;
   acc = decoded or acc + decoded. A group takes AT_ONCE blocks of 512 values at a time, LANES
   work-items each, and has `chunk` such turns; the last block may be short. Each work-item has
   whole quads of values, and enough of them under way at once to hide the memory's delay. Records
   have an odd length: their bytes are read and written as aligned words all the same. Tables are
   copied to local memory: 32 work-items that look up different lines of a cache wait for each
   other. Scales are powers of two and every sum is rounded once, so all devices make the same
   bytes. Denormals count as zero, for some flush them. */
#include "prelude.h"
#include "codec.h"
#define EACH (BLOCK / LANES)
#define AT_ONCE (GROUP / LANES)
#define RECORD (BLOCK + 1)
#define STEPS (0x3f80 - FLOOR + 1)
#define CODES 256

/* For each turn of this group, whose first block is `first`; work-items of blocks behind the last
   one have a length of zero. */
#define EACH_TURN                                                                                  \
    const int me = get_local_id(0), lane = me % LANES, count = (n + BLOCK - 1) / BLOCK;            \
    int first = get_group_id(0) * AT_ONCE * chunk;                                                 \
    for (const int behind = min(first + AT_ONCE * chunk, count); first < behind; first += AT_ONCE)
/* This work-item's block: where it starts, and how many values it has. */
#define PLACE                                                                                      \
    const size_t start = (size_t)(first + me / LANES) * BLOCK;                                     \
    const int length = (int)clamp((long)n - (long)start, 0L, (long)BLOCK);
/* Where a work-item's value k lies behind its first one, of which there are `left`. */
#define VALUE(k) ((k) / 4 * 4 * LANES + (k) % 4)
#define EACH_VALUE _Pragma("unroll") for (int k = 0; k < EACH; k++)
#define EACH_QUAD _Pragma("unroll") for (int k = 0; k < EACH; k += 4)

inline float4 flush4(const float4 v) {
    return select((float4)0.0f, v, (as_uint4(v) & INFINITE) != 0u);
}

/* `near` has room for whole quads of `count` words. */
inline void copy_near(__local uint4 *near, __global const void *table, const int count) {
    for (int k = get_local_id(0); k < count / 4; k += GROUP)
        near[k] = ((__global const uint4 *)table)[k];
    for (int k = count / 4 * 4 + get_local_id(0); k < count; k += GROUP)
        ((__local uint *)near)[k] = ((__global const uint *)table)[k];
}

/* A work-item's values of a block, with zeros behind the block's end. */
inline void load_values(float *v, __global const float *x, const int left, const bool whole) {
    if (whole)
        EACH_QUAD vstore4(*(__global const float4 *)(x + VALUE(k)), 0, v + k);
    else
        EACH_VALUE v[k] = VALUE(k) < left ? x[VALUE(k)] : 0.0f;
}

/* Codes of a work-item's values; if `keep`, what they leave out takes the values' place. */
inline void code_values(__local uchar *codes, float *v, __local const uint *limits,
                        __local const float *decoded, const int exponent, const bool keep) {
    const int shift = (exponent - 127) << 23;
    const float scale = scale_of(exponent);
    EACH_VALUE {
        const uint bits = as_uint(v[k]);
        const uint unit = max((int)(bits & MAGNITUDE) - shift, FLOOR << 16);
        uint code = (limits[(unit >> 16) - FLOOR] + (unit & 0xffffu)) >> 16;
        if (code) code |= bits >> 31 << 7;
        codes[VALUE(k)] = code;
        if (keep) v[k] = flush(v[k] - decoded[code] * scale);
    }
}

/* codes: per block the scale's exponent byte and 512 codes. `other` is the residual (read and
   written), what to subtract, or unused. The records of a turn lie one after the other: they are
   put together in local memory as they will stand in `codes`, and go there as words. */
IN_GROUPS __kernel void encode8(__global uchar *restrict codes, __global float *restrict other,
                                __global const float *restrict x,
                                __global const uint *restrict thresholds,
                                __global const float *restrict levels, const int n, const int chunk,
                                const int mode) {
    __local uint4 limits[STEPS / 4 + 1], decoded[CODES / 4], largest[GROUP / 4];
    __local ulong words[(AT_ONCE * RECORD + 14) / 8];
    copy_near(limits, thresholds, STEPS);
    if (mode == PLUS) copy_near(decoded, levels, CODES);
    const uint sign = mode == MINUS ? ~MAGNITUDE : 0u;
    EACH_TURN {
        PLACE
        const int left = length - 4 * lane;
        const bool whole = length == BLOCK;
        __global float *beside = other + (start + 4 * lane);
        float v[EACH];
        load_values(v, x + (start + 4 * lane), left, whole);
        if (mode <= MINUS) {
            float second[EACH];
            load_values(second, beside, left, whole);
            EACH_VALUE v[k] = flush(v[k]) + as_float(as_uint(flush(second[k])) ^ sign);
        }
        uint most = 0;
        EACH_VALUE {
            v[k] = flush(v[k]);
            most = max(most, as_uint(v[k]) & MAGNITUDE);
        }
        ((__local uint *)largest)[me] = most;
        barrier(CLK_LOCAL_MEM_FENCE);
        uint4 best = 0;
        _Pragma("unroll") for (int k = 0; k < LANES / 4; k++) best =
            max(best, largest[(me - lane) / 4 + k]);
        const int exponent = exponent_of(max(max(best.s0, best.s1), max(best.s2, best.s3)));
        const bool marked = exponent > MOST;

        const size_t from = (size_t)first * RECORD;
        const int edge = from % 8;
        __local uchar *record = (__local uchar *)words + edge + me / LANES * RECORD;
        if (lane == 0) record[0] = marked ? MARKED : exponent;
        record += 1 + 4 * lane;
        if (marked)
            EACH_VALUE record[VALUE(k)] = 0;
        else if (mode != PLUS)
            code_values(record, v, (__local const uint *)limits, (__local const float *)decoded,
                        exponent, false);
        else {
            code_values(record, v, (__local const uint *)limits, (__local const float *)decoded,
                        exponent, true);
            if (whole)
                EACH_QUAD *(__global float4 *)(beside + VALUE(k)) = vload4(0, v + k);
            else
                EACH_VALUE if (VALUE(k) < left) beside[VALUE(k)] = v[k];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        const int to = edge + min(AT_ONCE, count - first) * RECORD;
        __global ulong *out = (__global ulong *)(codes + (from - edge));
        for (int k = me; 8 * k < to; k += GROUP)
            if (8 * k >= edge && 8 * k + 8 <= to)
                out[k] = words[k];
            else  // other groups write to this word, too, or it ends behind `codes`
                for (int i = max(8 * k, edge); i < min(8 * k + 8, to); i++)
                    ((__global uchar *)out)[i] = ((__local const uchar *)words)[i];
    }
}

/* Four codes that start at any byte are a shifted pair of words. Of the last block single bytes
   are read, for its last word may end behind `codes`. */
IN_GROUPS __kernel void decode_add8(__global float *restrict acc,
                                    __global const uchar *restrict codes,
                                    __global const float *restrict levels, const int n,
                                    const int chunk, const int offset, const int anew) {
    __local uint4 table[CODES / 4];
    __local const float *decoded = (__local const float *)table;
    copy_near(table, levels, CODES);
    barrier(CLK_LOCAL_MEM_FENCE);
    EACH_TURN {
        PLACE
        if (length == 0) return;
        const size_t from = offset + start / BLOCK * RECORD;
        const float scale = scale_of(codes[from]);
        if (start + BLOCK < n) {
            __global const uint *words = (__global const uint *)(codes + (from + 1) / 4 * 4) + lane;
            __global float4 *out = (__global float4 *)(acc + start) + lane;
            const uint shift = (from + 1) % 4 * 8;
            ulong pairs[EACH / 4];
            float4 before[EACH / 4];
            EACH_QUAD pairs[k / 4] = words[k / 4 * LANES] | (ulong)words[k / 4 * LANES + 1] << 32;
            if (!anew) EACH_QUAD before[k / 4] = out[k / 4 * LANES];
            EACH_QUAD {
                const uint four = (uint)(pairs[k / 4] >> shift);
                const float4 value = (float4)(decoded[four & 255], decoded[four >> 8 & 255],
                                              decoded[four >> 16 & 255], decoded[four >> 24]) *
                                     scale;
                out[k / 4 * LANES] = anew ? value : flush4(flush4(before[k / 4]) + value);
            }
        } else
            for (int i = lane; i < length; i += LANES) {
                const float value = decoded[codes[from + 1 + i]] * scale;
                acc[start + i] = anew ? value : flush(flush(acc[start + i]) + value);
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
    EACH_TURN {
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
                                     const int chunk, const int offset, const int anew) {
    __global const half *in = (__global const half *)(codes + offset);
    EACH_TURN {
        PLACE
        for (size_t i = start + lane; i < start + length; i += LANES)
            acc[i] = anew ? vload_half(i, in) : flush(flush(acc[i]) + vload_half(i, in));
    }
}

/* x = factor x, rounded once: on unlike devices the same, which a division would not be. */
IN_GROUPS __kernel void scale(__global float *x, const int n, const int chunk, const float factor) {
    EACH_TURN {
        PLACE
        for (size_t i = start + lane; i < start + length; i += LANES) x[i] *= factor;
    }
}
