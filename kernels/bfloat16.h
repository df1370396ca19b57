/* Float32 rounded to fewer bits: to bfloat16, its upper half, to nearest with ties to even, and to
   TF32, which has 10 bits of mantissa and ties away from zero, as the hardware's own rounding. NaNs
   stay NaNs. */
#define BFLOAT16_NAN 0x7fc0u

inline uint bfloat16_bits(const float v) {
    const uint bits = as_uint(v);
    return v != v ? BFLOAT16_NAN : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Two of them, a in the lower half. */
inline uint bfloat16_pair(const float a, const float b) {
#ifdef __NV_CL_C_VERSION /* one instruction, for chips of 8.0 and more, as --precision asks for */
    uint pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
    return pair;
#else
    return bfloat16_bits(a) | bfloat16_bits(b) << 16;
#endif
}

/* What of a value bfloat16 leaves over, itself as bfloat16; of two values. */
inline uint low_pair(const float a, const float b, const uint high) {
    return bfloat16_pair(a - as_float(high << 16), b - as_float(high & 0xffff0000));
}

inline uint tf32_bits(const float v) {
#ifdef __NV_CL_C_VERSION
    uint rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(v));
    return rounded;
#else
    const uint bits = as_uint(v);
    return v != v ? bits | 0x400000 : bits + 0x1000 & 0xffffe000;
#endif
}
