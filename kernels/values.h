/* The numbers of images: float32, or one of three that tensor cores read as they lie. BFLOAT16:
   their upper halves. TFLOAT32: float32 rounded to TF32. PAIRS: two bfloat16 for each number, v =
   high + low to 16 bits; a line of 32 channels has their high parts first. All are rounded where
   they are stored (bfloat16.h), and kernels compute in float32. LOAD_VALUES and STORE_VALUES take
   whole vectors, LOAD_VALUE and STORE_VALUE single numbers. A vector as it may stay in registers is
   PACKED, of bfloat16 with half of those in float32; PACKED_INT has numbers of its size. */
#if BFLOAT16 || PAIRS || TFLOAT32 /* else not even seen: older chips lack its instructions */
#include "bfloat16.h"
#endif
#if BFLOAT16 || PAIRS
#define WIDE_USHORT PASTE(ushort, WIDTH)
#define AS_WIDE PASTE(as_float, WIDTH)
#define WIDENED(v) AS_WIDE(PASTE(convert_uint, WIDTH)(v) << 16)
inline WIDE_USHORT bfloat16s_of(const WIDE v) {
#if WIDTH == 8
    return as_ushort8((uint4)(bfloat16_pair(v.s0, v.s1), bfloat16_pair(v.s2, v.s3),
                              bfloat16_pair(v.s4, v.s5), bfloat16_pair(v.s6, v.s7)));
#else
    float values[WIDTH];
    ushort halves[WIDTH];
    PASTE(vstore, WIDTH)(v, 0, values);
    _Pragma("unroll") for (int i = 0; i < WIDTH; i++) halves[i] = bfloat16_bits(values[i]);
    return PASTE(vload, WIDTH)(0, halves);
#endif
}
#endif

#if BFLOAT16
#define VALUE ushort
#define PACKED WIDE_USHORT
#define PACKED_INT PASTE(short, WIDTH)
#define TO_PACKED_INTS PASTE(convert_short, WIDTH)
#define UNPACKED(v) WIDENED(v)
#define LOAD_PACKED(p) (*(__global const PACKED *)(p))
#define STORE_PACKED(v, p) (*(__global PACKED *)(p) = (v))
#define LOAD_VALUE(p) as_float((uint) * (p) << 16)
#define STORE_VALUE(v, p) (*(p) = bfloat16_bits(v))
#define LOAD_VALUES(p) UNPACKED(LOAD_PACKED(p))
#define STORE_VALUES(v, p) (*(__global WIDE_USHORT *)(p) = bfloat16s_of(v))
#define LOAD_VALUES_ANYWHERE LOAD_VALUES /* only rows start anywhere, which are float32 */
#define STORE_VALUES_ANYWHERE STORE_VALUES
#elif PAIRS
#define VALUE uint
#define PACKED WIDE
#define PACKED_INT PASTE(int, WIDTH)
#define TO_PACKED_INTS PASTE(convert_int, WIDTH)
#define UNPACKED(v) (v)
/* Where the high part of a number lies: c halves into its line of 128 bytes, while the number's
   own place is c words into it. */
#define HIGH_PART(p) ((ulong)(p) - ((ulong)(p) & 127) / 2)
#define LOW_PART(p) (HIGH_PART(p) + 64)
inline float load_pair(__global const VALUE *p) {
    return as_float((uint) * (__global const ushort *)HIGH_PART(p) << 16) +
           as_float((uint) * (__global const ushort *)LOW_PART(p) << 16);
}
inline void store_pair(const float v, __global VALUE *p) {
    const uint high = bfloat16_bits(v);
    *(__global ushort *)HIGH_PART(p) = high;
    *(__global ushort *)LOW_PART(p) = bfloat16_bits(v - as_float(high << 16));
}
inline WIDE load_pairs(__global const VALUE *p) {
    return WIDENED(*(__global const WIDE_USHORT *)HIGH_PART(p)) +
           WIDENED(*(__global const WIDE_USHORT *)LOW_PART(p));
}
inline void store_pairs(const WIDE v, __global VALUE *p) {
    const WIDE_USHORT high = bfloat16s_of(v);
    *(__global WIDE_USHORT *)HIGH_PART(p) = high;
    *(__global WIDE_USHORT *)LOW_PART(p) = bfloat16s_of(v - WIDENED(high));
}
#define LOAD_VALUE load_pair
#define STORE_VALUE store_pair
#define LOAD_VALUES load_pairs
#define STORE_VALUES store_pairs
#define LOAD_PACKED load_pairs
#define STORE_PACKED store_pairs
#define LOAD_VALUES_ANYWHERE LOAD_VALUES
#define STORE_VALUES_ANYWHERE STORE_VALUES
#else
#define VALUE float
#define PACKED WIDE
#define PACKED_INT WIDE_INT
#define TO_PACKED_INTS PASTE(convert_int, WIDTH)
#define UNPACKED(v) (v)
#define LOAD_PACKED(p) LOAD_ALIGNED(p)
#define STORE_PACKED(v, p) STORE_ALIGNED(v, p) /* of numbers that were loaded */
#define LOAD_VALUE(p) (*(p))
#define LOAD_VALUES(p) LOAD_ALIGNED(p)
#define LOAD_VALUES_ANYWHERE LOAD
#if TFLOAT32
inline WIDE tf32_of(const WIDE v) {
    float values[WIDTH];
    PASTE(vstore, WIDTH)(v, 0, values);
    _Pragma("unroll") for (int i = 0; i < WIDTH; i++) values[i] = as_float(tf32_bits(values[i]));
    return PASTE(vload, WIDTH)(0, values);
}
#define STORE_VALUE(v, p) (*(p) = as_float(tf32_bits(v)))
#define STORE_VALUES(v, p) STORE_ALIGNED(tf32_of(v), p)
#define STORE_VALUES_ANYWHERE(v, p) STORE(tf32_of(v), p)
#else
#define STORE_VALUE(v, p) (*(p) = (v))
#define STORE_VALUES(v, p) STORE_ALIGNED(v, p)
#define STORE_VALUES_ANYWHERE STORE
#endif
#endif
