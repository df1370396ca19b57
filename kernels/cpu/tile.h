/* A tile of products in registers: acc[i][v] += sum over j of a[i * STEP + j] * b[j][v], i <
   ROWS, v < VECTORS. a: scalars, j side by side and rows STEP floats apart. b: VECTORS vectors
   for each j, packed one after the other. ROWS * VECTORS accumulators, VECTORS of b and one
   scalar have to fit the registers: 32 with AVX-512, 16 with AVX2. The loops over i and v are
   unrolled whole, so that every acc[i][v] is a register. */
#define TILE_COLUMNS (VECTORS * WIDTH)
#define EACH_ROW _Pragma("unroll") for (int i = 0; i < ROWS; i++)
#define EACH_VECTOR _Pragma("unroll") for (int v = 0; v < VECTORS; v++)

inline void tile_zero(WIDE acc[ROWS][VECTORS]) { EACH_ROW EACH_VECTOR acc[i][v] = (WIDE)(0.0f); }

inline void tile_multiply(WIDE acc[ROWS][VECTORS], __global const float *a, __global const float *b,
                          const int count) {
    for (int j = 0; j < count; j++, b += TILE_COLUMNS) {
        WIDE right[VECTORS];
        EACH_VECTOR right[v] = LOAD(b + v * WIDTH);
        EACH_ROW {
            const WIDE left = (WIDE)(a[i * STEP + j]);
            EACH_VECTOR acc[i][v] = acc[i][v] + left * right[v];
        }
    }
}

/* acc[i][v] += sum over pixels of a[i] * b[v]: scalars side by side, a_step from one pixel to
   the next; vectors b_vector apart. `next` is asked for on the way: what the tile after this one
   will read in a's place. */
inline void tile_outer(WIDE acc[ROWS][VECTORS], __global const float *a, const int a_step,
                       __global const float *b, const int b_step, const int b_vector,
                       const int pixels, __global const float *next) {
    for (int j = 0; j < pixels; j++, a += a_step, b += b_step, next += a_step) {
        WIDE right[VECTORS];
        PREFETCH(next);
        EACH_VECTOR right[v] = LOAD(b + v * b_vector);
        EACH_ROW {
            const WIDE left = (WIDE)(a[i]);
            EACH_VECTOR acc[i][v] = acc[i][v] + left * right[v];
        }
    }
}

/* A tile kept in memory: row i, vector v at tile[i * TILE_COLUMNS + v * WIDTH]. */
inline void tile_load(WIDE acc[ROWS][VECTORS], __global const float *tile) {
    EACH_ROW EACH_VECTOR acc[i][v] = LOAD(tile + i * TILE_COLUMNS + v * WIDTH);
}
inline void tile_store(WIDE acc[ROWS][VECTORS], __global float *tile) {
    EACH_ROW EACH_VECTOR STORE(acc[i][v], tile + i * TILE_COLUMNS + v * WIDTH);
}
