/* What both forms of codec.cl share: the numbers of mpitrain/exchange/codec_numpy.py, and
   arithmetic on one value. */
#pragma OPENCL FP_CONTRACT OFF

#define BLOCK 512
#define LEAST 47
#define MOST 253
#define MARKED 255
#define FLOOR 0x3580
#define INFINITE 0x7f800000u
#define QUIET 0x7fc00000u
#define MAGNITUDE 0x7fffffffu

/* What `mode` says: v = x + other, or x - other, or x alone. */
#define PLUS 0
#define MINUS 1

inline float flush(const float v) { return as_uint(v) & INFINITE ? v : 0.0f; }

inline float combine(const float x, const float other, const int mode) {
    return flush(mode == PLUS    ? flush(x) + flush(other)
                 : mode == MINUS ? flush(x) - flush(other)
                                 : x);
}

/* The exponent byte of the smallest power of two that no magnitude exceeds, given the bits of
   the largest. */
inline int exponent_of(const uint largest) {
    return max((int)((largest + 0x007fffffu) >> 23), LEAST);
}

/* 2^(e - 127), or NaN for the mark of a block that is not finite. */
inline float scale_of(const uchar e) { return as_float(e == MARKED ? QUIET : (uint)e << 23); }
