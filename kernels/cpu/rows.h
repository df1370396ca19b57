/* Copies of some rows of an image, with the zeros that a filter sees around it. COPY says which
   form a kernel reads. */
#define COPY_NONE 0
#define COPY_BLOCKS 1
#define COPY_COMPACT 2

/* Rows [h, h + rows) of one image, from column w on, into `to` (block, row, column < width,
   channel): zero outside the image. */
inline void copy_blocks(__global float *to, __global const float *x, const int blocks, const int H,
                        const int W, const int h, const int rows, const int w, const int width) {
    for (int block = 0; block < blocks; block++)
        for (int row = h; row < h + rows; row++) {
            __global const float *from = x + ((size_t)block * H + row) * W * WIDTH;
            const int inside = (uint)row < (uint)H;
            for (int column = w; column < w + width; column++, to += WIDTH) {
                const WIDE value =
                    inside && (uint)column < (uint)W ? LOAD(from + column * WIDTH) : (WIDE)(0.0f);
                STORE(value, to);
            }
        }
}

/* The same for the C < WIDTH channels of a single block, side by side: `to` (row, column <
   width, channel < C). */
inline void copy_compact(__global float *to, __global const float *x, const int C, const int H,
                         const int W, const int h, const int rows, const int w, const int width) {
    for (int row = h; row < h + rows; row++) {
        __global const float *from = x + (size_t)row * W * WIDTH;
        const int inside = (uint)row < (uint)H;
        for (int column = w; column < w + width; column++, to += C)
            for (int c = 0; c < C; c++)
                to[c] = inside && (uint)column < (uint)W ? from[column * WIDTH + c] : 0.0f;
    }
}
