/* Winograd's transforms for 3x3 convolutions with stride 1 on GPUs, on images in blocks of BLOCK
   channels; winograd.h has the equations.
     forward (and the gradient by x)   M[point] (tiles, K) = V[point] (tiles, C) U[point] (C, K)
     gradient by the weights           Z[point] (K, C) = sum over tiles of D[point] (tiles, K)'
     V[point] (tiles, C)
   V are transformed tiles of x, U transformed filters, D transformed tiles of dy; y's tiles are
   M's, dweight is Z, transformed back. The products between are products.cl's. Here a work-item
   transforms WIDTH channels of one tile: neighbours take neighbouring channels of a block, then
   tiles. */
#include "prelude.h"
#include "winograd.h"
#define QUADS (BLOCK / WIDTH)
#define UNROLL _Pragma("unroll")

/* Which channels (vector `quad` of block `block`), which tile of the piece (`t`), and where that
   tile of all images lies. */
#define PLACE                                                                                      \
    const int quad = get_global_id(0) % QUADS * WIDTH, t = get_global_id(0) / QUADS,               \
              block = get_global_id(1);                                                            \
    const int tiles_h = (P + OUT - 1) / OUT, tiles_w = (Q + OUT - 1) / OUT,                        \
              line = (t0 + t) / tiles_w;                                                           \
    const int n = line / tiles_h, p = (line - n * tiles_h) * OUT,                                  \
              q = (t0 + t - line * tiles_w) * OUT;

/* V[point][t][c] for t < rows, zero from `tiles` on; t0: the number of the first tile; `width`:
   of a row. */
IN_GROUPS __kernel void inputs(__global float *V, __global const float *restrict x, const int H,
                               const int W, const int P, const int Q, const int pad_h,
                               const int pad_w, const int t0, const int tiles, const int rows,
                               const int width) {
    PLACE
    if (t >= rows) return;
    const int h = p - pad_h, w = q - pad_w, blocks = get_global_size(1);
    __global const float *from =
        x + ((long)(n * blocks + block) * H * W + h * W + w) * BLOCK + quad;
    WIDE half_way[POINTS];
    UNROLL for (int j = 0; j < TILE; j++) {
        WIDE d[TILE];
        UNROLL for (int i = 0; i < TILE; i++) d[i] =
            t < tiles && (uint)(h + i) < (uint)H && (uint)(w + j) < (uint)W
                ? LOAD_ALIGNED(from + (i * W + j) * BLOCK)
                : (WIDE)(0.0f);
        INPUT_LINE(half_way + j, TILE, d, 1);
    }
    __global float *to = V + (size_t)t * width + block * BLOCK + quad;
    UNROLL for (int i = 0; i < TILE; i++) {
        WIDE transformed[TILE];
        INPUT_LINE(transformed, 1, half_way + i * TILE, 1);
        UNROLL for (int j = 0; j < TILE; j++)
            STORE_ALIGNED(transformed[j], to + (size_t)(i * TILE + j) * rows * width);
    }
}

/* D[point][t][k] for t < rows, zero from `tiles` on. */
IN_GROUPS __kernel void gradients(__global float *D, __global const float *restrict dy, const int P,
                                  const int Q, const int t0, const int tiles, const int rows,
                                  const int width) {
    PLACE
    if (t >= rows) return;
    __global const float *from =
        dy + ((size_t)(n * get_global_size(1) + block) * P * Q + p * Q + q) * BLOCK + quad;
    WIDE half_way[TILE * OUT];
    UNROLL for (int j = 0; j < OUT; j++) {
        WIDE d[OUT];
        UNROLL for (int i = 0; i < OUT; i++) d[i] = t < tiles && p + i < P && q + j < Q
                                                        ? LOAD_ALIGNED(from + (i * Q + j) * BLOCK)
                                                        : (WIDE)(0.0f);
        GRADIENT_LINE(half_way + j, OUT, d, 1);
    }
    __global float *to = D + (size_t)t * width + block * BLOCK + quad;
    UNROLL for (int i = 0; i < TILE; i++) {
        WIDE transformed[TILE];
        GRADIENT_LINE(transformed, 1, half_way + i * OUT, 1);
        UNROLL for (int j = 0; j < TILE; j++)
            STORE_ALIGNED(transformed[j], to + (size_t)(i * TILE + j) * rows * width);
    }
}

/* U[point][c][k], zero outside; strides as in tiles.cl. One work-item per vector of k (dimension
   0) and c (dimension 1) of `depth`. */
IN_GROUPS __kernel void filters(__global float *U, __global const float *weight, const int K,
                                const int C, const int out_step, const int in_step,
                                const int first_r, const int first_s, const int step_r,
                                const int step_s, const int tap_row, const int width) {
    const int k = get_global_id(0) * WIDTH, c = get_global_id(1), depth = get_global_size(1);
    if (k >= width) return;
    WIDE g[9], half_way[3 * TILE];
    UNROLL for (int tap = 0; tap < 9; tap++) {
        __global const float *from = weight + (size_t)k * out_step + (size_t)c * in_step +
                                     (first_r + tap / 3 * step_r) * tap_row + first_s +
                                     tap % 3 * step_s;
        float values[WIDTH];
        UNROLL for (int i = 0; i < WIDTH; i++) values[i] =
            k + i < K && c < C ? from[(size_t)i * out_step] : 0.0f;
        g[tap] = PASTE(vload, WIDTH)(0, values);
    }
    UNROLL for (int s = 0; s < 3; s++) filter_line(half_way + s, 3, g[s], g[3 + s], g[6 + s]);
    __global float *to = U + (size_t)c * width + k;
    UNROLL for (int r = 0; r < TILE; r++) {
        WIDE transformed[TILE];
        filter_line(transformed, 1, half_way[r * 3], half_way[r * 3 + 1], half_way[r * 3 + 2]);
        UNROLL for (int s = 0; s < TILE; s++)
            STORE_ALIGNED(transformed[s], to + (size_t)(r * TILE + s) * depth * width);
    }
}

/* y = M transformed back, + bias, and max(that, 0) if `rectify`. */
IN_GROUPS __kernel void outputs(__global float *y, __global const float *restrict M,
                                __global const float *restrict bias, const int K, const int P,
                                const int Q, const int t0, const int tiles, const int rows,
                                const int width, const int has_bias, const int rectify) {
    PLACE
    if (t >= tiles) return;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify));
    const int k = block * BLOCK + quad;
    WIDE start = (WIDE)(0.0f);
    if (has_bias) start = load_some(bias + k, K - k);
    __global const float *from = M + (size_t)t * width + k;
    __global float *to =
        y + ((size_t)(n * get_global_size(1) + block) * P * Q + p * Q + q) * BLOCK + quad;
    WIDE half_way[OUT * TILE];
    UNROLL for (int j = 0; j < TILE; j++) {
        WIDE m[TILE];
        UNROLL for (int i = 0; i < TILE; i++) m[i] =
            LOAD_ALIGNED(from + (size_t)(i * TILE + j) * rows * width);
        OUTPUT_LINE(half_way + j, TILE, m, 1);
    }
    UNROLL for (int i = 0; i < OUT; i++) {
        WIDE transformed[OUT];
        OUTPUT_LINE(transformed, 1, half_way + i * TILE, 1);
        UNROLL for (int j = 0; j < OUT; j++) {
            const WIDE value = transformed[j] + start;
            if (p + i < P && q + j < Q)
                STORE_ALIGNED(select(value, floor, value < floor), to + (i * Q + j) * BLOCK);
        }
    }
}

/* dweight[k][c] = the sum of Z[part][point][k][c] over the parts, in order, transformed back (+
   what is there). One work-item per vector of c (dimension 0) and k (dimension 1). */
IN_GROUPS __kernel void finish(__global float *dweight, __global const float *restrict Z,
                               const int C, const int height, const int width, const int parts,
                               const int accumulate) {
    const int c = get_global_id(0) * WIDTH, k = get_global_id(1);
    if (c >= C) return;
    const size_t step = (size_t)height * width;
    __global const float *from = Z + (size_t)k * width + c;
    WIDE half_way[3 * TILE];
    UNROLL for (int s = 0; s < TILE; s++) {
        WIDE z[TILE];
        UNROLL for (int r = 0; r < TILE; r++) z[r] = LOAD_ALIGNED(from + (r * TILE + s) * step);
        _Pragma("unroll 2") for (int part = 1; part < parts; part++)
            UNROLL for (int r = 0; r < TILE; r++) z[r] +=
            LOAD_ALIGNED(from + (part * POINTS + r * TILE + s) * step);
        TAPS_LINE(half_way + s, TILE, z, 1);
    }
    UNROLL for (int r = 0; r < 3; r++) {
        WIDE dw[3];
        TAPS_LINE(dw, 1, half_way + r * TILE, 1);
        UNROLL for (int s = 0; s < 3; s++) {
            float values[WIDTH];
            PASTE(vstore, WIDTH)(dw[s], 0, values);
            UNROLL for (int i = 0; i < WIDTH; i++) {
                __global float *to = dweight + ((size_t)k * C + c + i) * 9 + r * 3 + s;
                if (c + i < C) *to = values[i] + (accumulate ? *to : 0.0f);
            }
        }
    }
}
