/* What every kernel may use: the device's vector type and how to load and store it anywhere.
   WIDTH is the number of floats in a register (16 AVX-512, 8 AVX2, 4 GPUs), GROUP the work-items
   that share one reduction. */
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define WIDE PASTE(float, WIDTH)
#define WIDE_INT PASTE(int, WIDTH)
#define WIDE_UINT PASTE(uint, WIDTH)
/* A vector that may start at any float. PoCL 3.0 makes vload and vstore of it into single
   floats; this it makes into one instruction. */
typedef WIDE ANYWHERE __attribute__((aligned(4)));
#define LOAD(p) (*(__global const ANYWHERE *)(p))
#define STORE(v, p) (*(__global ANYWHERE *)(p) = (v))
/* The same where p is a whole number of vectors into an array: GPUs load single values
   otherwise. */
#if GROUP == 1
#define LOAD_ALIGNED(p) LOAD(p)
#define STORE_ALIGNED(v, p) STORE(v, p)
#else
#define LOAD_ALIGNED(p) (*(__global const WIDE *)(p))
#define STORE_ALIGNED(v, p) (*(__global WIDE *)(p) = (v))
#endif

/* Before a loop of single values with steps: left alone, Intel's compiler makes gathers and
   scatters of it, slower on AMD's cores. */
#define SINGLY _Pragma("clang loop vectorize(disable)")

/* Ask for a line of memory that will be read soon. OpenCL's own prefetch() is a slow loop on
   Intel's runtime. */
#if defined(__has_builtin) && __has_builtin(__builtin_prefetch)
#define PREFETCH(p) __builtin_prefetch((__global const void *)(p))
#else
#define PREFETCH(p)
#endif

/* The lower limit that a ReLU sets: 0, or -INFINITY if `rectify` is 0 and there is no ReLU. Values
   below it are replaced by it; a NaN compares as not below and is kept. PoCL would make a masked
   load of `rectify ? 0.0f : -INFINITY`, which costs an AMD core 70 to 150 ns where nothing is
   loaded (it seems that nothing ever brings the constant's page into memory). */
#define RELU_FLOOR(rectify) as_float(((rectify) - 1) & 0xff800000)

/* The sum of a vector's elements, always in the same order. */
inline float sum2(float2 v) { return v.s0 + v.s1; }
inline float sum4(float4 v) { return sum2(v.lo + v.hi); }
inline float sum8(float8 v) { return sum4(v.lo + v.hi); }
#if WIDTH == 16
inline float sum16(float16 v) { return sum8(v.lo + v.hi); }
#endif
#define SUM PASTE(sum, WIDTH)

/* The first `count` of WIDTH floats, zeros after them. */
inline WIDE load_some(__global const float *p, const int count) {
    if (count >= WIDTH) return LOAD(p);
    float values[WIDTH];
    for (int i = 0; i < WIDTH; i++) values[i] = i < count ? p[i] : 0.0f;
    return PASTE(vload, WIDTH)(0, values);
}

/* Store the first `count` of WIDTH floats. */
inline void store_some(const WIDE value, __global float *p, const int count) {
    if (count >= WIDTH) {
        STORE(value, p);
        return;
    }
    float values[WIDTH];
    PASTE(vstore, WIDTH)(value, 0, values);
    for (int i = 0; i < count; i++) p[i] = values[i];
}

/* Add up one value of each work-item of a group of GROUP; every work-item gets the total. All of
   them must call it. */
#if GROUP == 1
#define GROUP_SUM(total, scratch) (total)
#define GROUP_MAX(best, scratch) (best)
#define GROUP_SCRATCH(name)
#else
#define GROUP_SCRATCH(name) __local float name[GROUP]
inline float group_sum(float value, __local float *scratch) {
    const int me = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    scratch[me] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_size = GROUP / 2; half_size > 0; half_size /= 2) {
        if (me < half_size) scratch[me] += scratch[me + half_size];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return scratch[0];
}
#define GROUP_SUM(total, scratch) group_sum((total), (scratch))
/* The same for the largest value; NaNs lose. */
inline float group_max(float value, __local float *scratch) {
    const int me = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    scratch[me] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int half_size = GROUP / 2; half_size > 0; half_size /= 2) {
        if (me < half_size) scratch[me] = fmax(scratch[me], scratch[me + half_size]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return scratch[0];
}
#define GROUP_MAX(best, scratch) group_max((best), (scratch))
#endif

/* Before a kernel that is launched with group=device.group: the compiler need not guess, nor
   vectorise over work-items. */
#define IN_GROUPS __attribute__((reqd_work_group_size(GROUP, 1, 1)))
