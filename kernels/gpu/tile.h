/* The heart of tiled products on GPUs.   sums += left' right, for DEPTH rows of `left` (TILE_M
   wide) and `right` (TILE_N) in local memory. A group is 8 x TILE_Y work-items; work-item (x, y)
   has rows m = 4 * TILE_Y * u + 4 * y + i and columns n = 32 * v + 4 * x + j of the tile, for u
   < UNITS_M, v < UNITS_N and i, j < 4: neighbours read neighbouring vectors, and 8 of them write
   the 128 bytes of a block of channels. A side that comes from memory along its depth is TURNED:
   it is stored a value at a time, with columns exchanged by row, so that neither that nor the
   reading of vectors meets a bank of local memory twice. */
#define DEPTH 16
#define TILE_M (4 * UNITS_M * TILE_Y)
#define TILE_N (32 * UNITS_N)
#define ITEMS (8 * TILE_Y)
#define UNROLL _Pragma("unroll")
#define UNROLL_4 _Pragma("unroll 4") /* several loads on their way at once */
/* Compilers leave functions of this size alone otherwise, with sums in memory. */
#define INLINED static inline __attribute__((always_inline))

/* Of the pointers that a step's loads go through. With `restrict` a compiler may move the loads
   behind most of the products, which leaves small tiles waiting for each; without, they stay
   before the barrier. Large tiles are 6 to 11 % faster with it (H200). */
#if UNITS_M * UNITS_N > 4
#define LOADED restrict
#else
#define LOADED
#endif

/* A side's two buffers in local memory: one is filled while the other is multiplied. */
#define SIDE(name, width) __local float name[2 * DEPTH * (width)] __attribute__((aligned(16)))

/* Where column `at` of rows 4 * quad .. 4 * quad + 3 lies. */
#define TURN(at, quad) ((at) ^ ((quad) * 8))

/* Vectors that a work-item brings for each side and step. */
#define LOADS_M (2 * UNITS_M)
#define LOADS_N (16 * UNITS_N / TILE_Y)

/* A side that lies along its depth: vector `load` of a work-item is four rows of one column. */
#define TURNED_QUAD(me) ((me) % 4)
#define TURNED_COLUMN(me, load) ((me) / 4 + (load) * (ITEMS / 4))
/* A side that lies along its columns: vector `load` is four columns of one row. */
#define STRAIGHT_COLUMN(me, width) (4 * ((me) % ((width) / 4)))
#define STRAIGHT_ROW(me, load, width) ((me) / ((width) / 4) + (load) * (ITEMS / ((width) / 4)))

INLINED void store_turned(__local float *side, const float4 value, const int width, const int quad,
                          const int column) {
    __local float *to = side + 4 * quad * width + TURN(column, quad);
    to[0] = value.x;
    to[width] = value.y;
    to[2 * width] = value.z;
    to[3 * width] = value.w;
}

INLINED void store_straight(__local float *side, const float4 value, const int width, const int row,
                            const int column) {
    *(__local float4 *)(side + row * width + column) = value;
}

/* Put what a work-item has brought of both sides into their buffers. */
#define KEEP_SIDE(side, brought, loads, width, turned)                                             \
    UNROLL for (int load = 0; load < (loads); load++) {                                            \
        if (turned)                                                                                \
            store_turned(side, brought[load], width, TURNED_QUAD(me), TURNED_COLUMN(me, load));    \
        else                                                                                       \
            store_straight(side, brought[load], width, STRAIGHT_ROW(me, load, width),              \
                           STRAIGHT_COLUMN(me, width));                                            \
    }
#define KEEP(buffer)                                                                               \
    KEEP_SIDE(left + (buffer) * DEPTH * TILE_M, brought_m, LOADS_M, TILE_M, LEFT_TURNED)           \
    KEEP_SIDE(right + (buffer) * DEPTH * TILE_N, brought_n, LOADS_N, TILE_N, RIGHT_TURNED)

INLINED void tile_zero(float4 sums[4 * UNITS_M][UNITS_N]) {
    UNROLL for (int m = 0; m < 4 * UNITS_M; m++) UNROLL for (int v = 0; v < UNITS_N; v++)
        sums[m][v] = (float4)(0.0f);
}

INLINED void tile_multiply(float4 sums[4 * UNITS_M][UNITS_N], __local const float *left,
                           __local const float *right, const int x, const int y) {
    UNROLL for (int d = 0; d < DEPTH; d++) {
        float4 l[UNITS_M], r[UNITS_N];
        const int left_x = LEFT_TURNED ? TURN(4 * y, d / 4) : 4 * y,
                  right_x = RIGHT_TURNED ? TURN(4 * x, d / 4) : 4 * x;
        UNROLL for (int u = 0; u < UNITS_M; u++) l[u] =
            *(__local const float4 *)(left + d * TILE_M + 4 * TILE_Y * u + left_x);
        UNROLL for (int v = 0; v < UNITS_N; v++) r[v] =
            *(__local const float4 *)(right + d * TILE_N + 32 * v + right_x);
        UNROLL for (int u = 0; u < UNITS_M; u++) UNROLL for (int v = 0; v < UNITS_N; v++) {
            sums[4 * u][v] = sums[4 * u][v] + l[u].x * r[v];
            sums[4 * u + 1][v] = sums[4 * u + 1][v] + l[u].y * r[v];
            sums[4 * u + 2][v] = sums[4 * u + 2][v] + l[u].z * r[v];
            sums[4 * u + 3][v] = sums[4 * u + 3][v] + l[u].w * r[v];
        }
    }
}

/* sums over the steps [first, last) for work-item (x, y). FETCH brings brought_m and brought_n of
   step `step`, which are on their way from memory while the step before is multiplied. */
#define MULTIPLY_BUFFER(x, y)                                                                      \
    tile_multiply(sums, left + buffer * DEPTH * TILE_M, right + buffer * DEPTH * TILE_N, x, y)
#define TILE_STEPS(x, y)                                                                           \
    int step = first, buffer = 0;                                                                  \
    if (step < last) {                                                                             \
        FETCH                                                                                      \
        KEEP(0)                                                                                    \
    }                                                                                              \
    for (step = first + 1; step < last; step++) {                                                  \
        FETCH                                                                                      \
        barrier(CLK_LOCAL_MEM_FENCE); /* after the loads, which the products are to hide */        \
        MULTIPLY_BUFFER(x, y);                                                                     \
        buffer ^= 1;                                                                               \
        KEEP(buffer)                                                                               \
    }                                                                                              \
    barrier(CLK_LOCAL_MEM_FENCE);                                                                  \
    if (first < last) MULTIPLY_BUFFER(x, y);
