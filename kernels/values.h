/* The numbers of images: float32, or with BFLOAT16 their upper halves, rounded to nearest, ties
   to even. Kernels compute in float32. LOAD_VALUES and STORE_VALUES take whole vectors,
   LOAD_VALUE and STORE_VALUE single numbers. A vector as it lies in memory is PACKED, with half the
   registers of one in float32; PACKED_INT has numbers of its size. */
#if BFLOAT16
#define VALUE ushort
#define PACKED WIDE_USHORT
#define PACKED_INT PASTE(short, WIDTH)
#define TO_PACKED_INTS PASTE(convert_short, WIDTH)
#define UNPACKED(v) AS_WIDE(TO_UINTS(v) << 16)
#define LOAD_PACKED(p) (*(__global const PACKED *)(p))
#define STORE_PACKED(v, p) (*(__global PACKED *)(p) = (v))
#define WIDE_USHORT PASTE(ushort, WIDTH)
#define TO_USHORTS PASTE(convert_ushort, WIDTH)
#define TO_UINTS PASTE(convert_uint, WIDTH)
#define AS_WIDE PASTE(as_float, WIDTH)
#define AS_UINTS PASTE(as_uint, WIDTH)
#define BFLOAT16_NAN 0x7fc0u
inline ushort bfloat16_of(const float v) {
    const uint bits = as_uint(v);
    return v != v ? BFLOAT16_NAN : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline WIDE_USHORT bfloat16s_of(const WIDE v) {
    const WIDE_UINT bits = AS_UINTS(v);
    return TO_USHORTS(select((bits + 0x7fff + (bits >> 16 & 1)) >> 16, (WIDE_UINT)(BFLOAT16_NAN),
                             AS_UINTS(v != v)));
}
#define LOAD_VALUE(p) as_float((uint) * (p) << 16)
#define STORE_VALUE(v, p) (*(p) = bfloat16_of(v))
#define LOAD_VALUES(p) UNPACKED(LOAD_PACKED(p))
#define STORE_VALUES(v, p) (*(__global WIDE_USHORT *)(p) = bfloat16s_of(v))
#define LOAD_VALUES_ANYWHERE LOAD_VALUES /* only rows start anywhere, which are float32 */
#define STORE_VALUES_ANYWHERE STORE_VALUES
#else
#define VALUE float
#define PACKED WIDE
#define PACKED_INT WIDE_INT
#define TO_PACKED_INTS PASTE(convert_int, WIDTH)
#define UNPACKED(v) (v)
#define LOAD_PACKED(p) LOAD_ALIGNED(p)
#define STORE_PACKED(v, p) STORE_ALIGNED(v, p)
#define LOAD_VALUE(p) (*(p))
#define STORE_VALUE(v, p) (*(p) = (v))
#define LOAD_VALUES(p) LOAD_ALIGNED(p)
#define STORE_VALUES(v, p) STORE_ALIGNED(v, p)
#define LOAD_VALUES_ANYWHERE LOAD
#define STORE_VALUES_ANYWHERE STORE
#endif
