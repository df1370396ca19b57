/* What kernels on images in blocks of BLOCK channels share on GPUs: a pixel's block is QUADS
   vectors of four, neighbouring work-items take neighbouring vectors, and so each has the same
   four channels all along. */
#define QUADS (BLOCK / WIDTH)
#define LANES (GROUP / QUADS)

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
