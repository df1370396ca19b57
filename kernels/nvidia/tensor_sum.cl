/* dweight (K, C, TAPS) = the sum of sums (parts, K, TAPS, channels), plus what is there if `add`;
   channels is C rounded up to 64s. A group of ITEMS sums `fours` times four channels side by side,
   and `lanes` of its work-items share the parts of each: every lanes-th one, TOGETHER at a time,
   whose loads are all under way before the first is added. The order is always the same. */

inline float4 sum_of(__global const float4 *from, const int first, const int lanes, const int parts,
                     const size_t part_size) {
    float4 total = (float4)(0.0f);
    for (int part = first; part < parts; part += TOGETHER * lanes) {
        float4 some[TOGETHER];
        _Pragma("unroll") for (int j = 0; j < TOGETHER; j++) some[j] =
            part + j * lanes < parts ? from[(part + j * lanes) * part_size] : (float4)(0.0f);
        _Pragma("unroll") for (int j = 0; j < TOGETHER; j++) total += some[j];
    }
    return total;
}

#if TAPS == 1
/* Fours of all output channels, one behind the other, as they are written. */
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void sum_parts(
    __global float *dweight, __global const float4 *sums, const int parts, const int k, const int c,
    const int lanes, const int add) {
    __local float4 totals[ITEMS];
    const int item = get_local_id(0), fours = ITEMS / lanes, lane = item / fours;
    const int row = (c + 63) / 64 * 16, at = get_group_id(0) * fours + item - lane * fours;
    if (at < k * row) totals[item] = sum_of(sums + at, lane, lanes, parts, (size_t)k * row);
    barrier(CLK_LOCAL_MEM_FENCE);
    const int out = at / row, channel = (at - out * row) * 4;
    if (lane > 0 || out >= k) return;
    float4 total = totals[item];
    for (int i = 1; i < lanes; i++) total += totals[i * fours + item];
    __global float *to = dweight + (size_t)out * c + channel;
    const float values[4] = {total.x, total.y, total.z, total.w};
    for (int i = 0; i < min(4, c - channel); i++) to[i] = add ? to[i] + values[i] : values[i];
}
#else
/* 64 channels of one k: they are read along channels and written along taps. */
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void sum_parts(
    __global float *dweight, __global const float4 *sums, const int parts, const int k, const int c,
    const int lanes, const int add) {
    const int fours = TAPS * 16;
    __local float values[TAPS * 64 > ITEMS * 4 ? TAPS * 64 : ITEMS * 4];
    const int item = get_local_id(0), out = get_group_id(1), first = get_group_id(0) * 64;
    const int row = (c + 63) / 64 * 16;
    for (int i = item; i < lanes * fours; i += ITEMS) {
        const int lane = i / fours, four = i - lane * fours, tap = four / 16,
                  channel = four % 16 * 4;
        const float4 total = sum_of(sums + ((size_t)out * TAPS + tap) * row + (first + channel) / 4,
                                    lane, lanes, parts, (size_t)k * TAPS * row);
        __local float *to = values + lane * fours * 4 + channel * TAPS + tap;
        to[0] = total.x, to[TAPS] = total.y, to[2 * TAPS] = total.z, to[3 * TAPS] = total.w;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < TAPS * min(64, c - first); i += ITEMS) {
        __global float *to = dweight + ((size_t)out * c + first) * TAPS + i;
        float total = values[i];
        for (int lane = 1; lane < lanes; lane++) total += values[lane * fours * 4 + i];
        *to = add ? *to + total : total;
    }
}
#endif
