/* Images between planes (N, C, I) and blocks of channels (N, C/BLOCK, I, BLOCK); channels beyond
   C are zeros. A group of 32 x 8 work-items moves a block of 32 pixels of an image through local
   memory, so that both sides are read and written in runs of neighbours. `first`: where in the
   blocks the first image lies. */
#include "prelude.h"
#include "values.h"
#define PIXELS 32
#define LINES 8

#define PLACE                                                                                      \
    const int x = get_local_id(0), y = get_local_id(1), me = y * PIXELS + x,                       \
              i0 = get_group_id(0) * PIXELS;                                                       \
    const int block = get_group_id(1), n = get_group_id(2), pixels = min(PIXELS, I - i0);          \
    __local float tile[BLOCK][PIXELS + 1];                                                         \
    planes += ((size_t)n * C + block * BLOCK) * I + i0;                                            \
    blocks += (((size_t)(first + n) * get_num_groups(1) + block) * I + i0) * BLOCK;

__attribute__((reqd_work_group_size(PIXELS, LINES, 1))) __kernel void from_blocks(
    __global float *planes, __global const VALUE *blocks, const int C, const int I,
    const int first) {
    PLACE
    for (int j = me; j < pixels * BLOCK; j += PIXELS * LINES)
        tile[j % BLOCK][j / BLOCK] = LOAD_VALUE(blocks + j);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int c = y; c < min(BLOCK, C - block * BLOCK); c += LINES)
        if (x < pixels) planes[(size_t)c * I + x] = tile[c][x];
}

__attribute__((reqd_work_group_size(PIXELS, LINES, 1))) __kernel void to_blocks(
    __global VALUE *blocks, __global const float *planes, const int C, const int I,
    const int first) {
    PLACE
    for (int c = y; c < BLOCK; c += LINES)
        if (x < pixels) tile[c][x] = c < C - block * BLOCK ? planes[(size_t)c * I + x] : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < pixels * BLOCK; j += PIXELS * LINES)
        STORE_VALUE(tile[j % BLOCK][j / BLOCK], blocks + j);
}
