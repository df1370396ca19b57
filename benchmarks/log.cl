/* y = log(x), the natural logarithm, value by value.
   One work-item per `chunk` consecutive values, in vectors of WIDTH. */
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define WIDE PASTE(float, WIDTH)

__attribute__((reqd_work_group_size(GROUP, 1, 1))) __kernel void logarithm(__global float *y,
                                                                           __global const float *x,
                                                                           const int n,
                                                                           const int chunk) {
    const int from = get_global_id(0) * chunk;
    const int to = min(from + chunk, n);
    int i = from;
    for (; i + WIDTH <= to; i += WIDTH) {
        *(__global WIDE *)(y + i) = log(*(__global const WIDE *)(x + i));
    }
    for (; i < to; i++) {
        y[i] = log(x[i]);
    }
}
