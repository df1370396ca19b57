/* Copies of some rows of an image for a convolution in groups, with the zeros that a filter sees
   around it: lane l of a copy is the input channel number c of the group that output channel
   block * WIDTH + l is in. With groups of one channel (SINGLE) that is the block as it lies. */
#include "cpu/rows.h"

/* Rows [h, h + rows), columns [w, w + width) of one image x of C channels, into `to` (row, column,
   lane). */
inline void copy_lanes(__global float *to, __global const float *x, const int block, const int c,
                       const int C, const int H, const int W, const int h, const int rows,
                       const int w, const int width) {
#if SINGLE
    copy_blocks(to, x + (size_t)block * H * W * WIDTH, 1, H, W, h, rows, w, width);
#else
    int from[WIDTH];
    for (int lane = 0; lane < WIDTH; lane++) {
        const int channel = min((block * WIDTH + lane) / OUTS * INS + c, C - 1);
        from[lane] = channel / WIDTH * H * W * WIDTH + channel % WIDTH;
    }
    for (int row = h; row < h + rows; row++)
        for (int column = w; column < w + width; column++, to += WIDTH) {
            const int inside = (uint)row < (uint)H && (uint)column < (uint)W,
                      at = (row * W + column) * WIDTH;
#if OUTS % WIDTH == 0
            const WIDE value = (WIDE)(inside ? x[from[0] + at] : 0.0f);
            STORE(value, to);
#else
            SINGLY for (int lane = 0; lane < WIDTH; lane++) to[lane] =
                inside ? x[from[lane] + at] : 0.0f;
#endif
        }
#endif
}
