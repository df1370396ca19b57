/* Winograd's transforms for 3x3 filters: OUT x OUT outputs from TILE x TILE = (OUT + 2)^2 inputs
   with TILE^2 products instead of 9 OUT^2.
     y = A' [ (G w G') . (B' x B) ] A        dw = G' [ sum of (A dy A') . (B' x B) ] G
   Source: Lavin and Gray, arXiv 1509.09308. The points are 0, 1, -1 and infinity for OUT = 2,
   and for OUT = 4 not their 0, 1, -1, 2, -2 but 0, 3/4, -3/4, 3/2, -3/2, whose powers stay
   closer to 1: the error is a third to a quarter (docs/decisions.md), at no more work. A *_LINE
   transforms WIDTH channels of one line of a tile: first its columns, then its rows. */
#define TILE (OUT + 2)
#define POINTS (TILE * TILE)

#if OUT == 4
#define A1 0.75f
#define A2 (A1 * A1)
#define A3 (A1 * A2)
#define B1 1.5f
#define B2 (B1 * B1)
#define B3 (B1 * B2)
#define OVER_0 (1.0f / (A2 * B2))
#define OVER_A (0.5f / (A2 * (A2 - B2)))
#define OVER_B (0.5f / (B2 * (B2 - A2)))

inline void input_line(WIDE *to, const int step, const WIDE d0, const WIDE d1, const WIDE d2,
                       const WIDE d3, const WIDE d4, const WIDE d5) {
    const WIDE even_a = d4 - B2 * d2, odd_a = A1 * d3 - (A1 * B2) * d1, even_b = d4 - A2 * d2,
               odd_b = B1 * d3 - (B1 * A2) * d1;
    to[0] = (A2 * B2) * d0 - (A2 + B2) * d2 + d4;
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
    to[5 * step] = (A2 * B2) * d1 - (A2 + B2) * d3 + d5;
}
#define INPUT_LINE(to, step, d, s)                                                                 \
    input_line(to, step, (d)[0], (d)[s], (d)[2 * (s)], (d)[3 * (s)], (d)[4 * (s)], (d)[5 * (s)])

inline void output_line(WIDE *to, const int step, const WIDE m0, const WIDE m1, const WIDE m2,
                        const WIDE m3, const WIDE m4, const WIDE m5) {
    const WIDE even_a = m1 + m2, odd_a = m1 - m2, even_b = m3 + m4, odd_b = m3 - m4;
    to[0] = m0 + even_a + even_b;
    to[step] = A1 * odd_a + B1 * odd_b;
    to[2 * step] = A2 * even_a + B2 * even_b;
    to[3 * step] = A3 * odd_a + B3 * odd_b + m5;
}
#define OUTPUT_LINE(to, step, m, s)                                                                \
    output_line(to, step, (m)[0], (m)[s], (m)[2 * (s)], (m)[3 * (s)], (m)[4 * (s)], (m)[5 * (s)])

inline void filter_line(WIDE *to, const int step, const WIDE g0, const WIDE g1, const WIDE g2) {
    const WIDE even_a = OVER_A * g0 + (A2 * OVER_A) * g2, odd_a = (A1 * OVER_A) * g1;
    const WIDE even_b = OVER_B * g0 + (B2 * OVER_B) * g2, odd_b = (B1 * OVER_B) * g1;
    to[0] = OVER_0 * g0;
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
    to[5 * step] = g2;
}

inline void gradient_line(WIDE *to, const int step, const WIDE y0, const WIDE y1, const WIDE y2,
                          const WIDE y3) {
    const WIDE even_a = y0 + A2 * y2, odd_a = A1 * y1 + A3 * y3, even_b = y0 + B2 * y2,
               odd_b = B1 * y1 + B3 * y3;
    to[0] = y0;
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
    to[5 * step] = y3;
}
#define GRADIENT_LINE(to, step, y, s)                                                              \
    gradient_line(to, step, (y)[0], (y)[s], (y)[2 * (s)], (y)[3 * (s)])

inline void taps_line(WIDE *to, const int step, const WIDE z0, const WIDE z1, const WIDE z2,
                      const WIDE z3, const WIDE z4, const WIDE z5) {
    const WIDE even_a = z1 + z2, even_b = z3 + z4;
    to[0] = OVER_0 * z0 + OVER_A * even_a + OVER_B * even_b;
    to[step] = (A1 * OVER_A) * (z1 - z2) + (B1 * OVER_B) * (z3 - z4);
    to[2 * step] = (A2 * OVER_A) * even_a + (B2 * OVER_B) * even_b + z5;
}
#define TAPS_LINE(to, step, z, s)                                                                  \
    taps_line(to, step, (z)[0], (z)[s], (z)[2 * (s)], (z)[3 * (s)], (z)[4 * (s)], (z)[5 * (s)])
#else
#define INPUT_LINE(to, step, d, s)                                                                 \
    {                                                                                              \
        (to)[0] = (d)[0] - (d)[2 * (s)];                                                           \
        (to)[step] = (d)[s] + (d)[2 * (s)];                                                        \
        (to)[2 * (step)] = (d)[2 * (s)] - (d)[s];                                                  \
        (to)[3 * (step)] = (d)[3 * (s)] - (d)[s];                                                  \
    }
#define OUTPUT_LINE(to, step, m, s)                                                                \
    {                                                                                              \
        (to)[0] = (m)[0] + (m)[s] + (m)[2 * (s)];                                                  \
        (to)[step] = (m)[s] - (m)[2 * (s)] + (m)[3 * (s)];                                         \
    }
inline void filter_line(WIDE *to, const int step, const WIDE g0, const WIDE g1, const WIDE g2) {
    to[0] = g0;
    to[step] = (g0 + g1 + g2) * 0.5f;
    to[2 * step] = (g0 - g1 + g2) * 0.5f;
    to[3 * step] = g2;
}
#define GRADIENT_LINE(to, step, y, s)                                                              \
    {                                                                                              \
        (to)[0] = (y)[0];                                                                          \
        (to)[step] = (y)[0] + (y)[s];                                                              \
        (to)[2 * (step)] = (y)[0] - (y)[s];                                                        \
        (to)[3 * (step)] = (y)[s];                                                                 \
    }
#define TAPS_LINE(to, step, z, s)                                                                  \
    {                                                                                              \
        (to)[0] = (z)[0] + ((z)[s] + (z)[2 * (s)]) * 0.5f;                                         \
        (to)[step] = ((z)[s] - (z)[2 * (s)]) * 0.5f;                                               \
        (to)[2 * (step)] = ((z)[s] + (z)[2 * (s)]) * 0.5f + (z)[3 * (s)];                          \
    }
#endif

/* One block's `tiles` input tiles from number t0 on (of all images in a row), transformed:
   to[point * points_step + t * WIDTH]. */
inline void transform_inputs(__global float *to, const size_t point_step, __global const float *x,
                             const int block, const int blocks, const int H, const int W,
                             const int tiles_h, const int tiles_w, const int pad_h, const int pad_w,
                             const int t0, const int tiles) {
    for (int t = 0; t < tiles; t++, to += WIDTH) {
        const int n = (t0 + t) / (tiles_h * tiles_w),
                  h = (t0 + t) / tiles_w % tiles_h * OUT - pad_h,
                  w = (t0 + t) % tiles_w * OUT - pad_w;
        __global const float *from = x + ((size_t)(n * blocks + block) * H * W + h * W + w) * WIDTH;
        WIDE half_way[POINTS];
        if (h >= 0 && w >= 0 && h + TILE <= H && w + TILE <= W) {
            _Pragma("unroll") for (int j = 0; j < TILE; j++) {
                WIDE d[TILE];
                _Pragma("unroll") for (int i = 0; i < TILE; i++) d[i] =
                    LOAD(from + (i * W + j) * WIDTH);
                INPUT_LINE(half_way + j, TILE, d, 1);
            }
        } else {
            _Pragma("unroll") for (int j = 0; j < TILE; j++) {
                WIDE d[TILE];
                _Pragma("unroll") for (int i = 0; i < TILE; i++) d[i] =
                    (uint)(h + i) < (uint)H && (uint)(w + j) < (uint)W
                        ? LOAD(from + (i * W + j) * WIDTH)
                        : (WIDE)(0.0f);
                INPUT_LINE(half_way + j, TILE, d, 1);
            }
        }
        _Pragma("unroll") for (int i = 0; i < TILE; i++) {
            WIDE line[TILE];
            INPUT_LINE(line, 1, half_way + i * TILE, 1);
            _Pragma("unroll") for (int j = 0; j < TILE; j++)
                STORE(line[j], to + (i * TILE + j) * point_step);
        }
    }
}
