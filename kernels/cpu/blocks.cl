/* Images between planes (N, C, I) and blocks of channels (N, C/WIDTH, I, WIDTH); channels beyond
   C are zeros. One work-item per block (dimension 0) of an image (dimension 1). `first`: where
   in the blocks the first image lies. */
#include "prelude.h"

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void from_blocks(
    __global float *planes, __global const float *blocks, const int C, const int I,
    const int first) {
    const int block = get_global_id(0), n = get_global_id(1),
              inside = min(WIDTH, C - block * WIDTH);
    __global float *to = planes + ((size_t)n * C + block * WIDTH) * I;
    __global const float *from =
        blocks + ((size_t)(first + n) * get_global_size(0) + block) * I * WIDTH;
    SINGLY for (int i = 0; i < I; i++) SINGLY for (int c = 0; c < inside; c++)
        to[(size_t)c * I + i] = from[i * WIDTH + c];
}

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void to_blocks(__global float *blocks,
                                                                       __global const float *planes,
                                                                       const int C, const int I,
                                                                       const int first) {
    const int block = get_global_id(0), n = get_global_id(1),
              inside = min(WIDTH, C - block * WIDTH);
    __global float *to = blocks + ((size_t)(first + n) * get_global_size(0) + block) * I * WIDTH;
    __global const float *from = planes + ((size_t)n * C + block * WIDTH) * I;
    SINGLY for (int i = 0; i < I; i++) SINGLY for (int c = 0; c < WIDTH; c++) to[i * WIDTH + c] =
        c < inside ? from[(size_t)c * I + i] : 0.0f;
}
