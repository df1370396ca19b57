/* Batch normalisation on images in blocks of WIDTH channels, over the m = N * I values that a
   channel has, with a ReLU after it or not.
     mean = sum of x / m,   inverse = 1 / sqrt(sum of (x - mean)^2 / m + epsilon),
     y = weight * (x - mean) * inverse + bias
     dbias = sum of dy,   dweight = sum of dy * (x - mean) * inverse,
     dx = weight * inverse * (dy - dbias / m - (x - mean) * inverse * dweight / m)
   With `rectify`, y = max(that, 0) and dy counts where that was above 0, which x tells as well as
   y: y need not be kept. With CEILING, y is cut off there, too (ceiling.h). With RESIDUAL, a
   shortcut is added before the ReLU, and y is what tells. Each way is one reading for the sums (a
   work-item per block and share of the images) and one that writes the result (a work-item per
   plane). There each work-item adds up the shares by itself, in order, and that of the first image
   keeps what comes of it. */
#include "prelude.h"
#include "ceiling.h"
#include "batchnorm.h"

#define PLANE(n) (((size_t)(n) * blocks + block) * I * WIDTH)

/* partial[share][0] = sum of x - pivot, [1] = sum of its square, where the pivot, the channel's
   first value, keeps the difference of the two small. Sums are taken a plane at a time and then
   over the planes, which keeps float32 accurate. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void forward_sums(__global float *partial,
                                                                          __global const float *x,
                                                                          const int N,
                                                                          const int I) {
    const int block = get_global_id(0), share = get_global_id(1), blocks = get_global_size(0),
              shares = get_global_size(1);
    const WIDE pivot = LOAD(x + PLANE(0));
    WIDE sums = (WIDE)(0.0f), squares = (WIDE)(0.0f);
    for (int n = (long)N * share / shares; n < (int)((long)N * (share + 1) / shares); n++) {
        __global const float *from = x + PLANE(n);
        WIDE sum = (WIDE)(0.0f), square = (WIDE)(0.0f);
        for (int i = 0; i < I; i++) {
            const WIDE value = LOAD(from + i * WIDTH) - pivot;
            sum += value;
            square += value * value;
        }
        sums += sum;
        squares += square;
    }
    STORE(sums, partial + ((size_t)(2 * share) * blocks + block) * WIDTH);
    STORE(squares, partial + ((size_t)(2 * share + 1) * blocks + block) * WIDTH);
}

#define ADD_SHARES(first, second)                                                                  \
    WIDE first = (WIDE)(0.0f), second = (WIDE)(0.0f);                                              \
    for (int share = 0; share < shares; share++) {                                                 \
        first += LOAD(partial + ((size_t)(2 * share) * blocks + block) * WIDTH);                   \
        second += LOAD(partial + ((size_t)(2 * share + 1) * blocks + block) * WIDTH);              \
    }

#define PLANE_OF_MINE                                                                              \
    const int block = get_global_id(0), n = get_global_id(1), blocks = get_global_size(0),         \
              at = block * WIDTH, count = C - at;
#define NORMALISE(spread)                                                                          \
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify)),                                                \
               scale = load_some(weight + at, count) * (spread),                                   \
               shift = load_some(bias + at, count);                                                \
    __global const float *from = x + PLANE(n);                                                     \
    __global const float *added = shortcut + PLANE(n);                                             \
    __global float *to = y + PLANE(n);                                                             \
    for (int i = 0; i < I * WIDTH; i += WIDTH) {                                                   \
        WIDE value = (LOAD(from + i) - centre) * scale + shift;                                    \
        if (RESIDUAL) value += LOAD(added + i);                                                    \
        STORE(CUT(select(value, floor, value < floor)), to + i);                                   \
    }

/* y may be the shortcut's memory, not x's: every work-item reads the pivot. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void forward_apply(
    __global float *y, __global float *mean, __global float *inverse, __global float *running_mean,
    __global float *running_var, __global const float *partial, __global const float *x,
    __global const float *shortcut, __global const float *weight, __global const float *bias,
    const int shares, const int N, const int C, const int I, const int rectify,
    const float momentum, const float epsilon) {
    PLANE_OF_MINE
    ADD_SHARES(sum, square)
    const float m = (float)N * I;
    const WIDE moved = sum / m, centre = LOAD(x + PLANE(0)) + moved;
    const WIDE squares = max(square - moved * sum, (WIDE)(0.0f));
    const WIDE spread = 1.0f / sqrt(squares / m + epsilon);
    if (n == 0)
        keep_statistics(mean + at, inverse + at, running_mean + at, running_var + at, centre,
                        spread, squares, m, momentum, count);
    NORMALISE(spread)
}

/* The same by a mean and an inverse that are there, or, `running`, by the running mean and
   variance. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void apply(
    __global float *y, __global const float *x, __global const float *shortcut,
    __global const float *mean, __global const float *inverse, __global const float *weight,
    __global const float *bias, const int C, const int I, const int rectify, const int running,
    const float epsilon) {
    PLANE_OF_MINE
    const WIDE centre = load_some(mean + at, count), spread = load_some(inverse + at, count);
    NORMALISE(running ? 1.0f / sqrt(spread + epsilon) : spread)
}

#define GATED(x, dy) PASSED((dy), ((x) - centre) * scale + shift, floor)

/* partial[share][0] = sum of dy, [1] = sum of dy * (x - mean), dy being what passes the ReLU;
   with a shortcut, that is kept in `passed`. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void backward_sums(
    __global float *partial, __global float *passed, __global const float *dy,
    __global const float *x, __global const float *y, __global const float *mean,
    __global const float *inverse, __global const float *weight, __global const float *bias,
    const int N, const int C, const int I, const int rectify) {
    const int block = get_global_id(0), share = get_global_id(1), blocks = get_global_size(0),
              shares = get_global_size(1);
    const int at = block * WIDTH, count = C - at;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify)), centre = load_some(mean + at, count),
               shift = load_some(bias + at, count);
    const WIDE scale = load_some(weight + at, count) * load_some(inverse + at, count);
    WIDE sums = (WIDE)(0.0f), products = (WIDE)(0.0f);
    for (int n = (long)N * share / shares; n < (int)((long)N * (share + 1) / shares); n++) {
        const size_t start = PLANE(n);
        WIDE sum = (WIDE)(0.0f), product = (WIDE)(0.0f);
        for (int i = 0; i < I * WIDTH; i += WIDTH) {
            const WIDE value = LOAD(x + start + i);
#if RESIDUAL
            const WIDE gradient =
                select(LOAD(dy + start + i), (WIDE)(0.0f), LOAD(y + start + i) <= floor);
            STORE(gradient, passed + start + i);
#else
            const WIDE gradient = GATED(value, LOAD(dy + start + i));
#endif
            sum += gradient;
            product += gradient * (value - centre);
        }
        sums += sum;
        products += product;
    }
    STORE(sums, partial + ((size_t)(2 * share) * blocks + block) * WIDTH);
    STORE(products, partial + ((size_t)(2 * share + 1) * blocks + block) * WIDTH);
}

/* dx may be dy's memory. `wants_dx`: whether it is written at all. */
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void backward_apply(
    __global float *dx, __global float *dweight, __global float *dbias,
    __global const float *partial, __global const float *dy, __global const float *x,
    __global const float *mean, __global const float *inverse, __global const float *weight,
    __global const float *bias, const int shares, const int N, const int C, const int I,
    const int rectify, const int accumulate, const int wants_dx) {
    PLANE_OF_MINE
    ADD_SHARES(sum, product)
    const WIDE deviation = load_some(inverse + at, count);
    product *= deviation;
    if (n == 0) keep_gradients(dweight + at, dbias + at, product, sum, accumulate, count);
    if (!wants_dx) return;
    const float m = (float)N * I;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify)), centre = load_some(mean + at, count),
               shift = load_some(bias + at, count);
    const WIDE scale = load_some(weight + at, count) * deviation, level = sum / m,
               slope = deviation * product / m;
    const size_t start = PLANE(n);
    for (int i = 0; i < I * WIDTH; i += WIDTH) {
        const WIDE value = LOAD(x + start + i), gradient = GATED(value, LOAD(dy + start + i));
        STORE((gradient - level - (value - centre) * slope) * scale, dx + start + i);
    }
}
