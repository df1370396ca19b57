/* Batch normalisation on images in blocks of BLOCK channels, over the m = N * I values that a
   channel has, with a ReLU after it or not.
     mean = sum of x / m,   inverse = 1 / sqrt(sum of (x - mean)^2 / m + epsilon),   y = weight *
     (x - mean) * inverse + bias
     dbias = sum of dy,   dweight = sum of dy * (x - mean) * inverse,
     dx = weight * inverse * (dy - dbias / m - (x - mean) * inverse * dweight / m)
   With `rectify`, y = max(that, 0) and dy counts where that was above 0, which x tells as well as
   y: y need not be kept. With CEILING, y is cut off there, too (ceiling.h). With RESIDUAL, a
   shortcut is added before the ReLU, and y is what tells. Each way is one reading for the sums (a
   group per block and share of the pixels; a work-item sums WIDTH channels of every LANES-th
   pixel) and one that writes the result (a work-item per VECTORS vectors of a plane). There each
   group adds up the shares by itself, in order, while its vectors are on their way, and the first
   one of a block keeps what comes of it; where all of them together would read too much, a small
   kernel, add_shares, has added them up before. */
#include "prelude.h"
#include "values.h"
#include "ceiling.h"
#include "batchnorm.h"
#include "gpu/quads.h"

/* partial[share][0] = sum of x - pivot, [1] = sum of its square, where the pivot, the channel's
   first value, keeps the difference of the two small. */
IN_GROUPS __kernel void forward_sums(__global float *partial, __global const VALUE *restrict x,
                                     const int N, const int I) {
    const int me = get_local_id(0), quad = me % QUADS * WIDTH;
    const int block = get_group_id(0), share = get_group_id(1), blocks = get_num_groups(0),
              shares = get_num_groups(1);
    PIXELS_OF_SHARE
    __local WIDE scratch[2 * GROUP];
    const WIDE pivot = LOAD_VALUES(x + (size_t)block * I * BLOCK + quad);
    WIDE sums = (WIDE)(0.0f), squares = (WIDE)(0.0f);
    while (j < last) {
        PACKED loaded[AHEAD];
        bool there[AHEAD];
        _Pragma("unroll") for (int k = 0; k < AHEAD; k++) {
            there[k] = j < last;
            if (there[k]) loaded[k] = LOAD_PACKED(x + at);
            NEXT_PIXEL
        }
        _Pragma("unroll") for (int k = 0; k < AHEAD; k++) if (there[k]) {
            const WIDE value = UNPACKED(loaded[k]) - pivot;
            sums += value;
            squares += value * value;
        }
    }
    add_both_lanes(&sums, &squares, scratch, me);
    if (me < QUADS) {
        STORE_ALIGNED(sums, partial + ((size_t)(2 * share) * blocks + block) * BLOCK + quad);
        STORE_ALIGNED(squares, partial + ((size_t)(2 * share + 1) * blocks + block) * BLOCK + quad);
    }
}

/* `together`: how many shares a work-item asks for at once, which takes registers. */
#define ADD_SHARES(first, second, together)                                                        \
    WIDE first = (WIDE)(0.0f), second = (WIDE)(0.0f);                                              \
    _Pragma(together) for (int share = me / QUADS; share < shares; share += LANES) {               \
        first += LOAD_ALIGNED(partial + ((size_t)(2 * share) * blocks + block) * BLOCK + quad);    \
        second +=                                                                                  \
            LOAD_ALIGNED(partial + ((size_t)(2 * share + 1) * blocks + block) * BLOCK + quad);     \
    }                                                                                              \
    add_both_lanes(&first, &second, scratch, me);

/* One share of all of them. */
IN_GROUPS __kernel void add_shares(__global float *total, __global const float *partial,
                                   const int shares) {
    const int me = get_local_id(0), quad = me % QUADS * WIDTH, block = get_group_id(0),
              blocks = get_num_groups(0);
    __local WIDE scratch[2 * GROUP];
    ADD_SHARES(first, second, "unroll 8")
    if (me < QUADS) {
        STORE_ALIGNED(first, total + block * BLOCK + quad);
        STORE_ALIGNED(second, total + (blocks + block) * BLOCK + quad);
    }
}

/* The vectors of this work-item: where the plane begins, and the place in it. */
#define PLANE_OF_MINE                                                                              \
    const int me = get_local_id(0), quad = me % QUADS * WIDTH;                                     \
    const int block = get_group_id(1), n = get_group_id(2), blocks = get_num_groups(1);            \
    const int at = block * BLOCK + quad, count = C - at,                                           \
              from = (get_group_id(0) * VECTORS * GROUP + me) * WIDTH;                             \
    const size_t start = ((size_t)n * blocks + block) * I * BLOCK;
/* Whether this work-item keeps what its group has of a block's channels. */
#define KEEPS (n == 0 && get_group_id(0) == 0 && me < QUADS)
#define EACH_VECTOR                                                                                \
    _Pragma("unroll") for (int v = 0; v < VECTORS;                                                 \
                           v++) if (from + v * GROUP * WIDTH < I * BLOCK) {                        \
        const size_t i = start + from + v * GROUP * WIDTH;
/* All are asked for before the first is used. */
#define LOAD_VECTORS(name, p)                                                                      \
    PACKED name[VECTORS];                                                                          \
    EACH_VECTOR                                                                                    \
    name[v] = LOAD_PACKED((p) + i);                                                                \
    }

#if RESIDUAL
#define LOAD_OPERANDS LOAD_VECTORS(values, x) LOAD_VECTORS(added, shortcut)
#define WITH_SHORTCUT(value, v) ((value) + UNPACKED(added[v]))
#else
#define LOAD_OPERANDS LOAD_VECTORS(values, x)
#define WITH_SHORTCUT(value, v) (value)
#endif
#define NORMALISE(spread)                                                                          \
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify));                                                \
    const WIDE scale = load_some(weight + at, count) * (spread),                                   \
               shift = load_some(bias + at, count);                                                \
    EACH_VECTOR                                                                                    \
    const WIDE normal = (UNPACKED(values[v]) - centre) * scale + shift;                            \
    const WIDE value = WITH_SHORTCUT(normal, v);                                                   \
    STORE_VALUES(CUT(select(value, floor, value < floor)), y + i);                                 \
    }

/* y may be the shortcut's memory, not x's: every group reads the pivot. */
IN_GROUPS __kernel void forward_apply(__global VALUE *y, __global float *mean,
                                      __global float *inverse, __global float *running_mean,
                                      __global float *running_var, __global const float *partial,
                                      __global const VALUE *x, __global const VALUE *shortcut,
                                      __global const float *weight, __global const float *bias,
                                      const int shares, const int N, const int C, const int I,
                                      const int rectify, const float momentum,
                                      const float epsilon) {
    PLANE_OF_MINE
    __local WIDE scratch[2 * GROUP];
    LOAD_OPERANDS
    const WIDE pivot = LOAD_VALUES(x + (size_t)block * I * BLOCK + quad);
    ADD_SHARES(sum, square, "unroll 2")
    const float m = (float)N * I;
    const WIDE moved = sum / m, centre = pivot + moved;
    const WIDE squares = max(square - moved * sum, (WIDE)(0.0f));
    const WIDE spread = 1.0f / sqrt(squares / m + epsilon);
    if (KEEPS)
        keep_statistics(mean + at, inverse + at, running_mean + at, running_var + at, centre,
                        spread, squares, m, momentum, count);
    NORMALISE(spread)
}

/* The same by a mean and an inverse that are there, or, `running`, by the running mean and
   variance. */
IN_GROUPS __kernel void apply(__global VALUE *y, __global const VALUE *x,
                              __global const VALUE *shortcut, __global const float *mean,
                              __global const float *inverse, __global const float *weight,
                              __global const float *bias, const int C, const int I,
                              const int rectify, const int running, const float epsilon) {
    PLANE_OF_MINE
    LOAD_OPERANDS
    const WIDE centre = load_some(mean + at, count), spread = load_some(inverse + at, count);
    NORMALISE(running ? 1.0f / sqrt(spread + epsilon) : spread)
}

#define GATED(x, dy) PASSED((dy), ((x) - centre) * scale + shift, floor)

/* partial[share][0] = sum of dy, [1] = sum of dy * (x - mean), dy being what passes the ReLU;
   with a shortcut, that is kept in `passed`, which may be dy's memory. */
IN_GROUPS __kernel void backward_sums(__global float *partial, __global VALUE *passed,
                                      __global const VALUE *dy, __global const VALUE *x,
                                      __global const VALUE *y, __global const float *mean,
                                      __global const float *inverse, __global const float *weight,
                                      __global const float *bias, const int N, const int C,
                                      const int I, const int rectify) {
    const int me = get_local_id(0), quad = me % QUADS * WIDTH;
    const int block = get_group_id(0), share = get_group_id(1), blocks = get_num_groups(0),
              shares = get_num_groups(1);
    const int channel = block * BLOCK + quad, count = C - channel;
    PIXELS_OF_SHARE
    __local WIDE scratch[2 * GROUP];
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify)), centre = load_some(mean + channel, count),
               shift = load_some(bias + channel, count);
    const WIDE scale = load_some(weight + channel, count) * load_some(inverse + channel, count);
    WIDE sums = (WIDE)(0.0f), products = (WIDE)(0.0f);
    while (j < last) {
        PACKED values[AHEAD], gradients[AHEAD], kept[AHEAD];
        size_t places[AHEAD];
        bool there[AHEAD];
        _Pragma("unroll") for (int k = 0; k < AHEAD; k++) {
            places[k] = at, there[k] = j < last;
            if (there[k]) {
                values[k] = LOAD_PACKED(x + at);
                gradients[k] = LOAD_PACKED(dy + at);
                if (RESIDUAL) kept[k] = LOAD_PACKED(y + at);
            }
            NEXT_PIXEL
        }
        _Pragma("unroll") for (int k = 0; k < AHEAD; k++) if (there[k]) {
            const WIDE value = UNPACKED(values[k]);
            WIDE gradient = UNPACKED(gradients[k]);
            if (RESIDUAL) {
                gradient = select(gradient, (WIDE)(0.0f), UNPACKED(kept[k]) <= floor);
                STORE_VALUES(gradient, passed + places[k]);
            } else {
                gradient = GATED(value, gradient);
            }
            sums += gradient;
            products += gradient * (value - centre);
        }
    }
    add_both_lanes(&sums, &products, scratch, me);
    if (me < QUADS) {
        STORE_ALIGNED(sums, partial + ((size_t)(2 * share) * blocks + block) * BLOCK + quad);
        STORE_ALIGNED(products,
                      partial + ((size_t)(2 * share + 1) * blocks + block) * BLOCK + quad);
    }
}

/* dx may be dy's memory. `wants_dx`: whether it is written at all. */
IN_GROUPS __kernel void backward_apply(__global VALUE *dx, __global float *dweight,
                                       __global float *dbias, __global const float *partial,
                                       __global const VALUE *dy, __global const VALUE *x,
                                       __global const float *mean, __global const float *inverse,
                                       __global const float *weight, __global const float *bias,
                                       const int shares, const int N, const int C, const int I,
                                       const int rectify, const int accumulate,
                                       const int wants_dx) {
    PLANE_OF_MINE
    __local WIDE scratch[2 * GROUP];
    LOAD_VECTORS(values, x)
    LOAD_VECTORS(gradients, dy)
    ADD_SHARES(sum, product, "unroll 2")
    const WIDE deviation = load_some(inverse + at, count);
    product *= deviation;
    if (KEEPS) keep_gradients(dweight + at, dbias + at, product, sum, accumulate, count);
    if (!wants_dx) return;
    const float m = (float)N * I;
    const WIDE floor = (WIDE)(RELU_FLOOR(rectify)), centre = load_some(mean + at, count),
               shift = load_some(bias + at, count);
    const WIDE scale = load_some(weight + at, count) * deviation, level = sum / m,
               slope = deviation * product / m;
    EACH_VECTOR
    const WIDE value = UNPACKED(values[v]), gradient = GATED(value, UNPACKED(gradients[v]));
    STORE_VALUES((gradient - level - (value - centre) * slope) * scale, dx + i);
}
}
