/* Many products of whole tiles on GPUs, for Winograd's points.   C[i] (M, N) = A[i] (M, D) B[i]
   (D, N)   (+ C[i]) B has rows of N. A has rows of D (LEFT_TURNED: it lies along the depth), or
   is A[i] (D, M) with rows of M. M, N and D are multiples of the tile's; the arrays of i follow
   each other. A group computes a tile, a work-item what tile.h says. Few tiles: the depth is cut
   into parts, and each has its own C[part][i]. A last turn of tiles that would leave most of the
   device idle is split instead, and a second kernel adds up what the splits found, in order. */
#include "prelude.h"
#define RIGHT_TURNED 0
#include "gpu/tile.h"

/* Group (g, part): tile g, columns first, then rows, then i; from tile `whole` on, `splits`
   groups have a tile, and write to `tail`. */
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void products(
    __global float *c, __global float *tail, __global const float4 *LOADED a,
    __global const float4 *LOADED b, const int M, const int N, const int D, const int accumulate,
    const int count, const int whole, const int splits) {
    const int me = get_local_id(0), x = me % 8, y = me / 8, tiles_n = N / TILE_N,
              tiles_m = M / TILE_M, part = get_group_id(1);
    const int late = max((int)get_group_id(0) - whole, 0),
              tile = min((int)get_group_id(0), whole + late / splits);
    const int i = tile / (tiles_n * tiles_m), n0 = tile % tiles_n * TILE_N,
              m0 = tile / tiles_n % tiles_m * TILE_M, steps = D / DEPTH;
    const int shares = tile < whole ? get_num_groups(1) : splits,
              share = tile < whole ? part : late % splits;
    const int first = (int)((long)steps * share / shares),
              last = (int)((long)steps * (share + 1) / shares);
    SIDE(left, TILE_M);
    SIDE(right, TILE_N);
#if LEFT_TURNED
    a += ((size_t)i * M + m0 + TURNED_COLUMN(me, 0)) * (D / 4) + first * (DEPTH / 4) +
         TURNED_QUAD(me);
#define A_LOAD(load) a[(size_t)((load) * (ITEMS / 4)) * (D / 4)]
#define A_STEP (DEPTH / 4)
#else
    a += ((size_t)i * D + first * DEPTH + STRAIGHT_ROW(me, 0, TILE_M)) * (M / 4) +
         (m0 + STRAIGHT_COLUMN(me, TILE_M)) / 4;
#define A_LOAD(load) a[(size_t)STRAIGHT_ROW(0, load, TILE_M) * (M / 4)]
#define A_STEP (size_t)DEPTH *(M / 4)
#endif
    b += ((size_t)i * D + first * DEPTH + STRAIGHT_ROW(me, 0, TILE_N)) * (N / 4) +
         (n0 + STRAIGHT_COLUMN(me, TILE_N)) / 4;
    c += ((size_t)(part * count + i) * M + m0 + 4 * y) * N + n0 + 4 * x;
    float4 brought_m[LOADS_M], brought_n[LOADS_N], sums[4 * UNITS_M][UNITS_N];
    tile_zero(sums);

#define FETCH                                                                                      \
    {                                                                                              \
        UNROLL for (int j = 0; j < LOADS_M; j++) brought_m[j] = A_LOAD(j);                         \
        UNROLL for (int j = 0; j < LOADS_N; j++) brought_n[j] =                                    \
            b[(size_t)STRAIGHT_ROW(0, j, TILE_N) * (N / 4)];                                       \
        a += A_STEP;                                                                               \
        b += (size_t)DEPTH * (N / 4);                                                              \
    }
    TILE_STEPS(x, y)

    if (tile >= whole) {
        tail += (size_t)late * TILE_M * TILE_N + 4 * y * TILE_N + 4 * x;
        UNROLL for (int j = 0; j < 4 * UNITS_M; j++) UNROLL for (int v = 0; v < UNITS_N; v++) *
            (__global float4 *)(tail + (j / 4 * 4 * TILE_Y + j % 4) * TILE_N + 32 * v) = sums[j][v];
        return;
    }
    UNROLL for (int j = 0; j < 4 * UNITS_M; j++) UNROLL for (int v = 0; v < UNITS_N; v++) {
        __global float4 *to =
            (__global float4 *)(c + (size_t)(j / 4 * 4 * TILE_Y + j % 4) * N + 32 * v);
        *to = accumulate ? *to + sums[j][v] : sums[j][v];
    }
}

/* The splits of the tiles from `whole` on, added up. One work-item per vector. */
IN_GROUPS __kernel void finish(__global float *c, __global const float *restrict tail, const int M,
                               const int N, const int accumulate, const int tiles, const int whole,
                               const int splits) {
    const int me = get_global_id(0), at = me % (TILE_M * TILE_N / 4) * 4,
              late = me / (TILE_M * TILE_N / 4);
    const int tiles_n = N / TILE_N, tiles_m = M / TILE_M, tile = whole + late,
              i = tile / (tiles_n * tiles_m);
    if (tile >= tiles) return;
    tail += (size_t)late * splits * TILE_M * TILE_N + at;
    __global float4 *to =
        (__global float4 *)(c +
                            ((size_t)i * M + tile / tiles_n % tiles_m * TILE_M + at / TILE_N) * N +
                            tile % tiles_n * TILE_N + at % TILE_N);
    float4 sum = accumulate ? *to : (float4)(0.0f);
    UNROLL_4 for (int split = 0; split < splits; split++) sum +=
        *(__global const float4 *)(tail + (size_t)split * TILE_M * TILE_N);
    *to = sum;
}
