/* Batch normalisation of a channel, over the m = images * plane values that it has (plane = H *
   W).
   mean = sum of x / m,   inverse = 1 / sqrt(sum of (x - mean)^2 / m + epsilon),
   y = weight * (x - mean) * inverse + bias.
   dbias = sum of dy,   dweight = sum of dy * (x - mean) * inverse,
   dx = weight * inverse * (dy - dbias / m - (x - mean) * inverse * dweight / m).
   One group per channel. Sums are taken a plane at a time and then over the planes, which keeps
   float32 accurate for many images. */
#include "prelude.h"

/* sum += VALUE over the channel, where VALUE is in terms of the position `i` in the array and
   READ, which loads a vector or a value. Needs images, plane, stride (from one image to the
   next), start (of the channel) and me. */
#define OVER_CHANNEL(sum, VALUE)                                                                   \
    for (int image = 0; image < images; image++) {                                                 \
        const size_t first = (size_t)image * stride + start;                                       \
        WIDE wide = 0.0f;                                                                          \
        for (int j = me * WIDTH; j < whole; j += GROUP * WIDTH) {                                  \
            const size_t i = first + j;                                                            \
            wide += VALUE(LOAD);                                                                   \
        }                                                                                          \
        float part = SUM(wide);                                                                    \
        for (int j = whole + me; j < plane; j += GROUP) {                                          \
            const size_t i = first + j;                                                            \
            part += VALUE(ONE);                                                                    \
        }                                                                                          \
        sum += part;                                                                               \
    }

/* to[i] = VALUE over the channel. */
#define FILL_CHANNEL(to, VALUE)                                                                    \
    for (int image = 0; image < images; image++) {                                                 \
        const size_t first = (size_t)image * stride + start;                                       \
        for (int j = me * WIDTH; j < whole; j += GROUP * WIDTH) {                                  \
            const size_t i = first + j;                                                            \
            STORE(VALUE(LOAD), to + i);                                                            \
        }                                                                                          \
        for (int j = whole + me; j < plane; j += GROUP) {                                          \
            const size_t i = first + j;                                                            \
            to[i] = VALUE(ONE);                                                                    \
        }                                                                                          \
    }

#define ONE(p) (*(p))
#define X(READ) READ(x + i)
#define DY(READ) READ(dy + i)
#define CENTRED(READ) (READ(x + i) - centre)
#define SQUARE(READ) (CENTRED(READ) * CENTRED(READ))
#define PRODUCT(READ) (READ(dy + i) * CENTRED(READ))
#define NORMALISED(READ) (CENTRED(READ) * scale + shift)
#define GRADIENT(READ) ((READ(dy + i) - level - CENTRED(READ) * slope) * scale)

IN_GROUPS __kernel void batchnorm_forward(__global float *y, __global float *mean,
                                          __global float *inverse, __global float *running_mean,
                                          __global float *running_var, __global const float *x,
                                          __global const float *weight, __global const float *bias,
                                          const int images, const int channels, const int plane,
                                          const float momentum, const float epsilon) {
    GROUP_SCRATCH(scratch);
    const int channel = get_group_id(0);
    const int me = get_local_id(0);
    const int start = channel * plane, stride = channels * plane, whole = plane / WIDTH * WIDTH;
    const float m = (float)images * plane;

    float sum = 0.0f;
    OVER_CHANNEL(sum, X)
    const float centre = GROUP_SUM(sum, scratch) / m;
    float squares = 0.0f;
    OVER_CHANNEL(squares, SQUARE)
    squares = GROUP_SUM(squares, scratch);
    const float deviation = 1.0f / sqrt(squares / m + epsilon);

    const float scale = weight[channel] * deviation, shift = bias[channel];
    FILL_CHANNEL(y, NORMALISED)
    if (me == 0) {
        mean[channel] = centre;
        inverse[channel] = deviation;
        running_mean[channel] += momentum * (centre - running_mean[channel]);
        running_var[channel] += momentum * (squares / max(m - 1.0f, 1.0f) - running_var[channel]);
    }
}

/* The same with the running mean and variance in place of the batch's. */
IN_GROUPS __kernel void batchnorm_evaluate(__global float *y, __global const float *x,
                                           __global const float *weight, __global const float *bias,
                                           __global const float *running_mean,
                                           __global const float *running_var, const int images,
                                           const int channels, const int plane,
                                           const float epsilon) {
    const int channel = get_group_id(0);
    const int me = get_local_id(0);
    const int start = channel * plane, stride = channels * plane, whole = plane / WIDTH * WIDTH;
    const float centre = running_mean[channel];
    const float scale = weight[channel] / sqrt(running_var[channel] + epsilon),
                shift = bias[channel];
    FILL_CHANNEL(y, NORMALISED)
}

IN_GROUPS __kernel void batchnorm_backward(__global float *dx, __global float *dweight,
                                           __global float *dbias, __global const float *dy,
                                           __global const float *x, __global const float *weight,
                                           __global const float *mean,
                                           __global const float *inverse, const int images,
                                           const int channels, const int plane,
                                           const int accumulate, const int wants_dx) {
    GROUP_SCRATCH(scratch);
    const int channel = get_group_id(0);
    const int me = get_local_id(0);
    const int start = channel * plane, stride = channels * plane, whole = plane / WIDTH * WIDTH;
    const float m = (float)images * plane;
    const float centre = mean[channel], deviation = inverse[channel];

    float sum = 0.0f;
    OVER_CHANNEL(sum, DY)
    sum = GROUP_SUM(sum, scratch);
    float product = 0.0f;
    OVER_CHANNEL(product, PRODUCT)
    product = GROUP_SUM(product, scratch) * deviation;

    if (me == 0) {
        dbias[channel] = accumulate ? dbias[channel] + sum : sum;
        dweight[channel] = accumulate ? dweight[channel] + product : product;
    }
    if (!wants_dx) return;
    const float scale = weight[channel] * deviation, level = sum / m,
                slope = deviation * product / m;
    FILL_CHANNEL(dx, GRADIENT)
}
