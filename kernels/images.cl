/* Pixels as a network wants them, in blocks of BLOCK channels.
   y[n][c/BLOCK][i][c%BLOCK] = x[n][c][i] * scale[c] + shift[c], zero for
   c >= C;
   normal = (scale, shift) a channel. PIXEL is uchar or float. One work-item per block of an
       image and run of `chunk` of its I pixels. */
#include "prelude.h"
#include "values.h"

__kernel void images(__global VALUE *y, __global const PIXEL *x, __global const float *normal,
                     const int C, const int I, const int chunk) {
    const int blocks = (C + BLOCK - 1) / BLOCK, n = get_global_id(1) / blocks,
              block = get_global_id(1) % blocks;
    const int from = get_global_id(0) * chunk, to = min(from + chunk, I),
              inside = min(BLOCK, C - block * BLOCK);
    __global VALUE *into = y + (size_t)get_global_id(1) * I * BLOCK;
    __global const PIXEL *pixels = x + ((size_t)n * C + block * BLOCK) * I;
    normal += 2 * block * BLOCK;
    for (int i = from; i < to; i++)
        for (int c = 0; c < BLOCK; c++)
            STORE_VALUE(c < inside
                            ? (float)pixels[(size_t)c * I + i] * normal[2 * c] + normal[2 * c + 1]
                            : 0.0f,
                        into + i * BLOCK + c);
}
