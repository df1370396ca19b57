/* Pixels as a network wants them.   y[n][c][i] = x[n][c][i] * scale[c] + shift[c],   normal = (scale, shift) a channel.
   PIXEL is uchar or float. One work-item per plane (n, c) and run of `chunk` of its I pixels. */
#include "prelude.h"

__kernel void images(__global float *y, __global const PIXEL *x, __global const float *normal, const int C, const int I, const int chunk) {
    const int plane = get_global_id(1), from = get_global_id(0) * chunk, to = min(from + chunk, I);
    const float scale = normal[2 * (plane % C)], shift = normal[2 * (plane % C) + 1];
    __global float *into = y + (size_t)plane * I;
    __global const PIXEL *pixels = x + (size_t)plane * I;
    for (int i = from; i < to; i++) into[i] = (float)pixels[i] * scale + shift;
}
