/* Winograd's transforms for 3x3 filters: OUT x OUT outputs from TILE x TILE = (OUT + 2)^2 inputs with TILE^2 products instead of 9 OUT^2.
     y = A' [ (G w G') . (B' x B) ] A        dw = G' [ sum of (A dy A') . (B' x B) ] G
   Points 0, 1, -1 (OUT = 2) and 2, -2 besides (OUT = 4), and infinity. Source: Lavin and Gray, arXiv 1509.09308.
   Each works on WIDTH channels at once; `apply` runs one of them down the columns and then along the rows of a tile. */
#define TILE (OUT + 2)
#define POINTS (TILE * TILE)

#if OUT == 4
inline void input_line(WIDE *to, const int step, const WIDE d0, const WIDE d1, const WIDE d2, const WIDE d3, const WIDE d4, const WIDE d5) {
    const WIDE even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, near = d4 - d2, far = 2.0f * (d3 - d1);
    to[0] = 4.0f * d0 - 5.0f * d2 + d4;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = near + far;
    to[4 * step] = near - far;
    to[5 * step] = 4.0f * d1 - 5.0f * d3 + d5;
}
#define INPUT_LINE(to, step, d, s) input_line(to, step, (d)[0], (d)[s], (d)[2 * (s)], (d)[3 * (s)], (d)[4 * (s)], (d)[5 * (s)])

inline void output_line(WIDE *to, const int step, const WIDE m0, const WIDE m1, const WIDE m2, const WIDE m3, const WIDE m4, const WIDE m5) {
    const WIDE near = m1 + m2, near_odd = m1 - m2, far = m3 + m4, far_odd = m3 - m4;
    to[0] = m0 + near + far;
    to[step] = near_odd + 2.0f * far_odd;
    to[2 * step] = near + 4.0f * far;
    to[3 * step] = near_odd + 8.0f * far_odd + m5;
}
#define OUTPUT_LINE(to, step, m, s) output_line(to, step, (m)[0], (m)[s], (m)[2 * (s)], (m)[3 * (s)], (m)[4 * (s)], (m)[5 * (s)])

inline void filter_line(WIDE *to, const int step, const WIDE g0, const WIDE g1, const WIDE g2) {
    const WIDE near = (g0 + g2) * (-1.0f / 6), far = g0 * (1.0f / 24) + g2 * (1.0f / 6);
    to[0] = g0 * 0.25f;
    to[step] = near - g1 * (1.0f / 6);
    to[2 * step] = near + g1 * (1.0f / 6);
    to[3 * step] = far + g1 * (1.0f / 12);
    to[4 * step] = far - g1 * (1.0f / 12);
    to[5 * step] = g2;
}

/* A and G', for the gradient by the weights. */
inline void gradient_line(WIDE *to, const int step, const WIDE y0, const WIDE y1, const WIDE y2, const WIDE y3) {
    const WIDE even = y0 + y2, odd = y1 + y3, far = y0 + 4.0f * y2, far_odd = 2.0f * y1 + 8.0f * y3;
    to[0] = y0;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = far + far_odd;
    to[4 * step] = far - far_odd;
    to[5 * step] = y3;
}
#define GRADIENT_LINE(to, step, y, s) gradient_line(to, step, (y)[0], (y)[s], (y)[2 * (s)], (y)[3 * (s)])

inline void taps_line(WIDE *to, const int step, const WIDE z0, const WIDE z1, const WIDE z2, const WIDE z3, const WIDE z4, const WIDE z5) {
    const WIDE near = (z1 + z2) * (-1.0f / 6), far = z3 + z4;
    to[0] = z0 * 0.25f + near + far * (1.0f / 24);
    to[step] = (z2 - z1) * (1.0f / 6) + (z3 - z4) * (1.0f / 12);
    to[2 * step] = near + far * (1.0f / 6) + z5;
}
#define TAPS_LINE(to, step, z, s) taps_line(to, step, (z)[0], (z)[s], (z)[2 * (s)], (z)[3 * (s)], (z)[4 * (s)], (z)[5 * (s)])
#else
#define INPUT_LINE(to, step, d, s)               \
    {                                            \
        (to)[0] = (d)[0] - (d)[2 * (s)];         \
        (to)[step] = (d)[s] + (d)[2 * (s)];      \
        (to)[2 * (step)] = (d)[2 * (s)] - (d)[s]; \
        (to)[3 * (step)] = (d)[3 * (s)] - (d)[s]; \
    }
#define OUTPUT_LINE(to, step, m, s)                         \
    {                                                       \
        (to)[0] = (m)[0] + (m)[s] + (m)[2 * (s)];           \
        (to)[step] = (m)[s] - (m)[2 * (s)] + (m)[3 * (s)];  \
    }
inline void filter_line(WIDE *to, const int step, const WIDE g0, const WIDE g1, const WIDE g2) {
    to[0] = g0;
    to[step] = (g0 + g1 + g2) * 0.5f;
    to[2 * step] = (g0 - g1 + g2) * 0.5f;
    to[3 * step] = g2;
}
#define GRADIENT_LINE(to, step, y, s)        \
    {                                        \
        (to)[0] = (y)[0];                    \
        (to)[step] = (y)[0] + (y)[s];        \
        (to)[2 * (step)] = (y)[0] - (y)[s];  \
        (to)[3 * (step)] = (y)[s];           \
    }
#define TAPS_LINE(to, step, z, s)                                        \
    {                                                                    \
        (to)[0] = (z)[0] + ((z)[s] + (z)[2 * (s)]) * 0.5f;               \
        (to)[step] = ((z)[s] - (z)[2 * (s)]) * 0.5f;                     \
        (to)[2 * (step)] = ((z)[s] + (z)[2 * (s)]) * 0.5f + (z)[3 * (s)]; \
    }
#endif

/* One block's `tiles` input tiles from number t0 on (of all images in a row), transformed: to[point * points_step + t * WIDTH]. */
inline void transform_inputs(__global float *to, const size_t point_step, __global const float *x, const int block, const int blocks, const int H,
                             const int W, const int tiles_h, const int tiles_w, const int pad_h, const int pad_w, const int t0, const int tiles) {
    for (int t = 0; t < tiles; t++, to += WIDTH) {
        const int n = (t0 + t) / (tiles_h * tiles_w), h = (t0 + t) / tiles_w % tiles_h * OUT - pad_h, w = (t0 + t) % tiles_w * OUT - pad_w;
        __global const float *from = x + ((size_t)(n * blocks + block) * H * W + h * W + w) * WIDTH;
        WIDE half_way[POINTS];
        if (h >= 0 && w >= 0 && h + TILE <= H && w + TILE <= W) {
            _Pragma("unroll") for (int j = 0; j < TILE; j++) {
                WIDE d[TILE];
                _Pragma("unroll") for (int i = 0; i < TILE; i++) d[i] = LOAD(from + (i * W + j) * WIDTH);
                INPUT_LINE(half_way + j, TILE, d, 1);
            }
        } else {
            _Pragma("unroll") for (int j = 0; j < TILE; j++) {
                WIDE d[TILE];
                _Pragma("unroll") for (int i = 0; i < TILE; i++)
                    d[i] = (uint)(h + i) < (uint)H && (uint)(w + j) < (uint)W ? LOAD(from + (i * W + j) * WIDTH) : (WIDE)(0.0f);
                INPUT_LINE(half_way + j, TILE, d, 1);
            }
        }
        _Pragma("unroll") for (int i = 0; i < TILE; i++) {
            WIDE line[TILE];
            INPUT_LINE(line, 1, half_way + i * TILE, 1);
            _Pragma("unroll") for (int j = 0; j < TILE; j++) STORE(line[j], to + (i * TILE + j) * point_step);
        }
    }
}
