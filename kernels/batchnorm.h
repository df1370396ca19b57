/* What both forms of batchnorm_blocks.cl keep of WIDTH channels, of which there are `count`; m is
   the values that a channel has. */

inline void keep_statistics(__global float *mean, __global float *inverse,
                            __global float *running_mean, __global float *running_var,
                            const WIDE centre, const WIDE spread, const WIDE squares, const float m,
                            const float momentum, const int count) {
    const WIDE old_mean = load_some(running_mean, count), old_var = load_some(running_var, count);
    store_some(centre, mean, count);
    store_some(spread, inverse, count);
    store_some(old_mean + momentum * (centre - old_mean), running_mean, count);
    store_some(old_var + momentum * (squares / max(m - 1.0f, 1.0f) - old_var), running_var, count);
}

inline void keep_gradients(__global float *dweight, __global float *dbias, const WIDE product,
                           const WIDE sum, const int accumulate, const int count) {
    store_some(accumulate ? load_some(dbias, count) + sum : sum, dbias, count);
    store_some(accumulate ? load_some(dweight, count) + product : product, dweight, count);
}
