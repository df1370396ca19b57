/* x = x a + b, many times, on registers alone: the most multiplications and additions a second that a device gives.
   12 chains hide the latency of two units that each take 4 or 5 cycles, and fit into 16 registers. One work-item per set of chains. */
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define WIDE PASTE(float, WIDTH)
#define CHAINS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define DECLARE(i) WIDE x##i = (WIDE)(i);
#define ADVANCE(i) x##i = x##i * a + b;
#define ADD(i) + x##i

__attribute__((reqd_work_group_size(GROUP, 1, 1)))
__kernel void peak(__global float *y, const float one_a, const float one_b, const int steps) {
    const int me = get_global_id(0);
    const WIDE a = (WIDE)(one_a), b = (WIDE)(one_b);
    CHAINS(DECLARE)
    for (int step = 0; step < steps; step++) {
        CHAINS(ADVANCE)
    }
    const WIDE sum = 0.0f CHAINS(ADD);
    y[me] = sum.s0 + sum.s1 + sum.s2 + sum.s3;
#if WIDTH >= 8
    y[me] += sum.s4 + sum.s5 + sum.s6 + sum.s7;
#endif
#if WIDTH == 16
    y[me] += sum.s8 + sum.s9 + sum.sa + sum.sb + sum.sc + sum.sd + sum.se + sum.sf;
#endif
}
