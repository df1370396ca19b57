/* What convolutions in groups read on GPUs: for each of the WIDTH output channels from o on, the
   input channel number c of its group. With groups of one channel (SINGLE) these lie as a vector;
   else each one's place is worked out once and read by itself. x is in blocks of IN channels, of C
   in all; y in blocks of BLOCK. */
#if SINGLE
#define INPUTS(name, x, n, o, c, C, pixels)                                                        \
    __global const VALUE *name =                                                                   \
        (x) + (((size_t)(n) * (((C) + BLOCK - 1) / BLOCK) + (o) / BLOCK) * (pixels)) * BLOCK +     \
        (o) % BLOCK;
#define INPUTS_AT(name, pixel) LOAD_VALUES(name + (pixel) * BLOCK)
#else
#define INPUTS(name, x, n, o, c, C, pixels)                                                        \
    __global const VALUE *name[WIDTH];                                                             \
    _Pragma("unroll") for (int lane = 0; lane < WIDTH; lane++) {                                   \
        const int channel = min(((o) + lane) / OUTS * INS + (c), (C) - 1);                         \
        name[lane] = (x) +                                                                         \
                     (((size_t)(n) * (((C) + IN - 1) / IN) + channel / IN) * (pixels)) * IN +      \
                     channel % IN;                                                                 \
    }
inline WIDE inputs_at(__global const VALUE *const *from, const int pixel) {
    float values[WIDTH];
    _Pragma("unroll") for (int lane = 0; lane < WIDTH; lane++) values[lane] =
        LOAD_VALUE(from[lane] + pixel * IN);
    return PASTE(vload, WIDTH)(0, values);
}
#define INPUTS_AT(name, pixel) inputs_at(name, pixel)
#endif
