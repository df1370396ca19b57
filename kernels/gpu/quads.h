/* What kernels on images in blocks of BLOCK channels share on GPUs: a pixel's block is QUADS
   vectors of WIDTH, neighbouring work-items take neighbouring vectors, and so each has the same
   channels all along. */
#define QUADS (BLOCK / WIDTH)
#define LANES (GROUP / QUADS)

/* A group walks over its share of the N * I pixels, every work-item over each LANES-th one, AHEAD
   of them at a time: their loads are all under way before the first is used. `at` is where the
   work-item's channels of the pixel lie. */
#define AHEAD 4
#define PIXELS_OF_SHARE                                                                            \
    const int last = (int)((long)N * I * (share + 1) / shares);                                    \
    int j = (int)((long)N * I * share / shares) + me / QUADS, i = j % I;                           \
    size_t at = (((size_t)(j / I) * blocks + block) * I + i) * BLOCK + quad;
#define NEXT_PIXEL                                                                                 \
    j += LANES, i += LANES, at += LANES * BLOCK;                                                   \
    while (i >= I) i -= I, at += (size_t)(blocks - 1) * I * BLOCK;

/* The sum of the LANES values that a group has of each vector of channels, in a fixed order. All
   of the group must call it. */
inline WIDE add_lanes(const WIDE value, __local WIDE *scratch, const int me) {
    barrier(CLK_LOCAL_MEM_FENCE);
    scratch[me] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_size = LANES / 2; half_size > 0; half_size /= 2) {
        if (me < half_size * QUADS) scratch[me] += scratch[me + half_size * QUADS];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return scratch[me % QUADS];
}

/* The same for two values at once. */
inline void add_both_lanes(WIDE *a, WIDE *b, __local WIDE *scratch, const int me) {
    barrier(CLK_LOCAL_MEM_FENCE);
    scratch[me] = *a;
    scratch[GROUP + me] = *b;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_size = LANES / 2; half_size > 0; half_size /= 2) {
        if (me < half_size * QUADS) {
            scratch[me] += scratch[me + half_size * QUADS];
            scratch[GROUP + me] += scratch[GROUP + me + half_size * QUADS];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    *a = scratch[me % QUADS];
    *b = scratch[GROUP + me % QUADS];
}
