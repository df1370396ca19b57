/* Channels of several values, one behind the other: y[n, offset + c, i] = x[n, c, i] for each x.
   Backward: dx[n, c, i] = dy[n, offset + c, i].
   x is (N, C/X_BLOCK, I, X_BLOCK), y is (N, Y_BLOCKS, I, Y_BLOCK); a work-item moves UNIT channels
   side by side, of all pixels on CPUs, of one on GPUs. UNIT divides C, the offset and both blocks,
   so a unit is of one block and all of it counts or none. Units behind the last channel are
   zeros. X_FLOAT: x is float32, whatever y is. */
#include "prelude.h"
#include "values.h"

#if UNIT == 1
#define WORD float
#define LOAD_Y LOAD_VALUE
#define STORE_Y STORE_VALUE
#else /* WIDTH is UNIT */
#define WORD WIDE
#define LOAD_Y LOAD_VALUES
#define STORE_Y STORE_VALUES
#endif
#if !X_FLOAT
#define X VALUE
#define LOAD_X LOAD_Y
#define STORE_X STORE_Y
#else
#define X float
#if UNIT == 1
#define LOAD_X(p) (*(p))
#define STORE_X(v, p) (*(p) = (v))
#else
#define LOAD_X LOAD_ALIGNED
#define STORE_X STORE_ALIGNED
#endif
#endif

/* Where channel c of pixel i lies in an image, and where its copy does. */
#define AT_X(c, i) (((c) / X_BLOCK * I + (i)) * X_BLOCK + (c) % X_BLOCK)
#define AT_Y(c, i) ((((c) + offset) / Y_BLOCK * I + (i)) * Y_BLOCK + ((c) + offset) % Y_BLOCK)

/* BODY for each unit from channel c on at pixel i of image n. */
#if GROUP == 1
#define EACH(BODY)                                                                                 \
    const int c = get_global_id(0) * UNIT, n = get_global_id(1);                                   \
    if (c >= to) return;                                                                           \
    for (int i = 0; i < I; i++) BODY
#else
#define EACH(BODY)                                                                                 \
    const int side = X_BLOCK / UNIT, j = get_global_id(0), n = get_global_id(1);                   \
    const int i = j / side % I, c = (j / side / I * side + j % side) * UNIT;                       \
    if (c >= to) return;                                                                           \
    BODY
#endif
#define IMAGE_OF_X ((size_t)n * ((C + X_BLOCK - 1) / X_BLOCK) * I * X_BLOCK)
#define IMAGE_OF_Y ((size_t)n * Y_BLOCKS * I * Y_BLOCK)

/* Channels of x up to C, and zeros up to `to`. */
IN_GROUPS __kernel void concat(__global VALUE *y, __global const X *x, const int C, const int to,
                               const int offset, const int I, const int Y_BLOCKS){EACH({
    const WORD v = c < C ? LOAD_X(x + IMAGE_OF_X + AT_X(c, i)) : (WORD)(0.0f);
    STORE_Y(v, y + IMAGE_OF_Y + AT_Y(c, i));
})}

IN_GROUPS __kernel
    void concat_backward(__global X *dx, __global const VALUE *dy, const int C, const int to,
                         const int offset, const int I, const int Y_BLOCKS) {
    EACH({
        const WORD v = c < C ? LOAD_Y(dy + IMAGE_OF_Y + AT_Y(c, i)) : (WORD)(0.0f);
        STORE_X(v, dx + IMAGE_OF_X + AT_X(c, i));
    })
}
