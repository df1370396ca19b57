/* Dropout.   y = scale * x where draw(key, place of the image, element) >= threshold, else 0.
   dx is the same of dy.
   draw is a hash, not a sequence: any work-item finds its own, forward and backward agree, and
   no mask is kept. One work-item per `chunk` consecutive values (dimension 0) of one image
   (dimension 1); y may be x. The element of a value in blocks of BLOCK channels (plane: values
   of a channel, 0 for plain rows) is its place in (C, H, W): draws do not depend on the device's
   layout. */
#include "prelude.h"
#include "values.h"

#if WIDTH == 16
#define COUNT (WIDE_UINT)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#elif WIDTH == 8
#define COUNT (WIDE_UINT)(0, 1, 2, 3, 4, 5, 6, 7)
#else
#define COUNT (WIDE_UINT)(0, 1, 2, 3)
#endif

/* Every bit of h then depends on all of them: "lowbias32" of Wellons' Hash Prospector, for uint
   and vectors of uint. */
#define MIX(h) h ^= h >> 16, h *= 0x7feb352du, h ^= h >> 15, h *= 0x846ca68bu, h ^= h >> 16

/* Two rounds with the image's key between them: one round would make the draws of two images
   permutations of each other. */
#define DRAW(h, key) MIX(h), h += (key), MIX(h)

IN_GROUPS __kernel void dropout(__global VALUE *y, __global const VALUE *x, const int size,
                                const int chunk, const uint first, const uint key0, const uint key1,
                                const uint threshold, const float scale, const int plane) {
    const int from = get_global_id(0) * chunk;
    const int image = get_global_id(1);
    const int to = min(from + chunk, size);
    const size_t start = (size_t)image * size;
    uint key = first + image + key0;
    DRAW(key, key1);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        WIDE_UINT h = plane ? (WIDE_UINT)((uint)((i / (plane * BLOCK) * BLOCK + i % BLOCK) * plane +
                                                 i / BLOCK % plane)) +
                                  COUNT * (uint)plane
                            : (WIDE_UINT)((uint)i) + COUNT;
        DRAW(h, (WIDE_UINT)(key));
        STORE_VALUES_ANYWHERE(select((WIDE)(0.0f), LOAD_VALUES_ANYWHERE(x + start + i) * scale,
                                     h >= (WIDE_UINT)(threshold)),
                              y + start + i);
    }
    for (; i < to; i++) {
        uint h = i;
        DRAW(h, key);
        STORE_VALUE(h >= threshold ? LOAD_VALUE(x + start + i) * scale : 0.0f, y + start + i);
    }
}
