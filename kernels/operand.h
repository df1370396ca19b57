/* The right-hand matrix B (K x N) of a product, wherever its values really lie. OPERAND says
   where:
   0 MATRIX   B[k][j] = b[k * stride_k + j * stride_j]
   1 IMAGES   im2col of x (., H, W) for y (., P, Q):           k = (c, r, s), j = (n, p, q)
              B[k][j] = x[n][c][p * U + r - pad_h][q * V + s - pad_w], zero outside
   2 FILTER   the transpose of that, for the weights' gradient: k = (n, p, q), j = (c, r, s)
   3 DATA     dy gathered for dx:                               k = (m, r, s), j = (n, h, w)
              B[k][j] = dy[n][m][(h + pad_h - r) / U][(w + pad_w - s) / V] where both divide and
                  lie inside, zero elsewhere
   H W are the input's size, R S the filter's, P Q the output's, U V the strides; `b_image`
   values lie between images. */
#define MATRIX 0
#define IMAGES 1
#define FILTER 2
#define DATA 3

#if OPERAND == MATRIX
#define OPERAND_PARAMETERS const int stride_k, const int stride_j
#define OPERAND_ARGUMENTS stride_k, stride_j
#else
#define OPERAND_PARAMETERS                                                                         \
    const int H, const int W, const int R, const int S, const int P, const int Q, const int U,     \
        const int V, const int pad_h, const int pad_w, const int b_image
#define OPERAND_ARGUMENTS H, W, R, S, P, Q, U, V, pad_h, pad_w, b_image
#endif
