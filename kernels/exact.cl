/* Sums of float32 that do not depend on the order: in whole multiples of 2^-36, 64 bits wide.
   A value that is not finite, or as large as 2^14, makes its sum STUCK, and so does a sum as large
   as 2^14. Sums of fewer than 100 ranks stay recognisable. One work-item per `chunk` values. */
#include "prelude.h"

#define UNIT 0x1p-36f
#define LARGEST (1L << 50)
#define STUCK (1L << 56)

/* total = x, or total = total + x. */
__kernel void add_exact(__global long *total, __global const float *x, const int n, const int chunk,
                        const int first) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    for (int i = from; i < to; i++) {
        const bool small = fabs(x[i]) < (float)LARGEST * UNIT;
        const long value = small ? convert_long_rte(x[i] * (1 / UNIT)) : STUCK;
        const long sum = first ? value : total[i] + value;
        total[i] = sum < LARGEST && sum > -LARGEST ? sum : STUCK;
    }
}

/* x = total as float32; NaN where a rank's sum is stuck. */
__kernel void take_exact(__global float *x, __global const long *total, const int n,
                         const int chunk) {
    const int from = get_global_id(0) * chunk, to = min(from + chunk, n);
    for (int i = from; i < to; i++)
        x[i] = total[i] < STUCK / 2 ? convert_float_rte(total[i]) * UNIT : NAN;
}
