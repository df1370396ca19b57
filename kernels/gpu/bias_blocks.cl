/* Gradient of a bias, and on its way that of a ReLU after it, on images in blocks of BLOCK
   channels.
     dy = dy where y > 0, else 0 (if `rectified`),   dbias[k] = sum over n, i of dy[n][k][i] (+
     dbias[k])
   First kernel: a group per block and share of the N * I pixels, a work-item per four channels
   of every LANES-th pixel; partial[share][k]. Second: a group per block adds the shares in a
   fixed order. */
#include "prelude.h"
#include "values.h"
#include "gpu/quads.h"

IN_GROUPS __kernel void partial_sums(__global float *partial, __global VALUE *dy,
                                     __global const VALUE *y, const int N, const int I,
                                     const int rectified) {
    const int me = get_local_id(0), quad = me % QUADS * WIDTH;
    const int block = get_group_id(0), share = get_group_id(1), blocks = get_num_groups(0),
              shares = get_num_groups(1);
    PIXELS_OF_SHARE
    __local WIDE scratch[GROUP];
    WIDE total = (WIDE)(0.0f);
    while (j < last) {
        PACKED value[AHEAD], kept[AHEAD];
        size_t places[AHEAD];
        bool there[AHEAD];
        _Pragma("unroll") for (int k = 0; k < AHEAD; k++) {
            places[k] = at, there[k] = j < last;
            if (there[k]) {
                value[k] = LOAD_PACKED(dy + at);
                if (rectified) kept[k] = LOAD_PACKED(y + at);
            }
            NEXT_PIXEL
        }
        _Pragma("unroll") for (int k = 0; k < AHEAD; k++) if (there[k]) {
            WIDE gradient = UNPACKED(value[k]);
            if (rectified) {
                gradient = select(gradient, (WIDE)(0.0f), UNPACKED(kept[k]) <= (WIDE)(0.0f));
                STORE_VALUES(gradient, dy + places[k]);
            }
            total += gradient;
        }
    }
    total = add_lanes(total, scratch, me);
    if (me < QUADS) STORE_ALIGNED(total, partial + ((size_t)share * blocks + block) * BLOCK + quad);
}

IN_GROUPS __kernel void finish(__global float *dbias, __global const float *partial, const int K,
                               const int shares, const int accumulate) {
    const int me = get_local_id(0), quad = me % QUADS * WIDTH, block = get_group_id(0),
              blocks = get_num_groups(0);
    const int at = block * BLOCK + quad;
    __local WIDE scratch[GROUP];
    WIDE total = (WIDE)(0.0f);
    _Pragma("unroll 8") for (int share = me / QUADS; share < shares; share += LANES) total +=
        LOAD_ALIGNED(partial + ((size_t)share * blocks + block) * BLOCK + quad);
    total = add_lanes(total, scratch, me);
    if (me < QUADS)
        store_some(accumulate ? load_some(dbias + at, K - at) + total : total, dbias + at, K - at);
}
