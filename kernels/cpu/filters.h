/* Rows of filters on their way between (K, C, R, S) and groups of TILE_COLUMNS output channels, by way of `row`, which fits the first
   cache: row[s][i][o] for S taps, WIDTH inputs and TILE_COLUMNS outputs. Steps of a power of two between filters would throw each
   other out of the cache, so memory is walked in its own order, whichever of outputs and inputs lies closer. */
#define FILTER_ROW (S * WIDTH * TILE_COLUMNS)

inline void read_filters(float *row, __global const float *weight, const int outputs, const int inputs, const int out_step, const int in_step,
                         const int step_s) {
    if (outputs < TILE_COLUMNS)
        for (int i = 0; i < FILTER_ROW; i++) row[i] = 0.0f;
    if (out_step > in_step) {
        for (int o = 0; o < outputs; o++)
            ONE_BY_ONE for (int i = 0; i < inputs; i++)
                ONE_BY_ONE for (int s = 0; s < S; s++) row[(s * WIDTH + i) * TILE_COLUMNS + o] = weight[(size_t)o * out_step + (size_t)i * in_step + s * step_s];
    } else {
        for (int i = 0; i < inputs; i++)
            ONE_BY_ONE for (int o = 0; o < outputs; o++)
                ONE_BY_ONE for (int s = 0; s < S; s++) row[(s * WIDTH + i) * TILE_COLUMNS + o] = weight[(size_t)o * out_step + (size_t)i * in_step + s * step_s];
    }
}
