/* The QP of qp.c as data, and its Newton step by a Riccati recursion (Rao, Wright & Rawlings 1998).
 *
 * Sizes are known when this is compiled, and the structure of moves is used: since
 * u_next = u + free * v and x_next depends on u + free * v only, the input matrix is the u-columns
 * of A times `free`, so that A'PA is all that is needed.
 */

typedef double v4 __attribute__((vector_size(32), aligned(32)));

#define PAD4(n) (((n) + 3) / 4 * 4)
#define LD PAD4(NS)       /* rows of the matrices over s, padded for vectors */
#define ONE(n) ((n) > 0 ? (n) : 1)
#define HARD (4 * NV)     /* per stage: v low, v high, u low, u high */
#define SOFT (2 * NZ)     /* per stage: z low, z high */

typedef struct {
    /* the problem; row k belongs to interval k and the node it ends in */
    double A[N][NX ? NS : 1][LD] __attribute__((aligned(32)));  /* column-major, x-rows only */
    double At[N][NX ? NX : 1][LD] __attribute__((aligned(32))); /* its transpose */
    double Q[N][NS][LD] __attribute__((aligned(32)));
    double q[N][NS], R[N][NV], r[N][NV], b[N][NS], free[N][NV];
    double C[N][ONE(NZ_NONZERO)];
    double hard_at[N][HARD]; /* bound; the constraint is +-(value - bound) >= 0 */
    double soft_at[N][ONE(SOFT)], price[N][ONE(NZ)], curve[N][ONE(NZ)];
    unsigned char hard_on[N][HARD], soft_on[N][ONE(SOFT)];
    /* the iterate */
    double s[N][NS], v[N][NV], pi[N][NS];
    double hard_t[N][HARD], hard_l[N][HARD];
    double soft_t[N][ONE(SOFT)], soft_l[N][ONE(SOFT)];  /* zone with slack: distance, multiplier */
    double sigma[N][ONE(SOFT)], sigma_l[N][ONE(SOFT)];  /* slack and the multiplier of sigma >= 0 */
    /* the step */
    double ds[N][NS], dv[N][NV], dpi[N][NS];
    double hard_dt[N][HARD], hard_dl[N][HARD];
    double soft_dt[N][ONE(SOFT)], soft_dl[N][ONE(SOFT)];
    double dsigma[N][ONE(SOFT)], dsigma_l[N][ONE(SOFT)];
    /* factors and right-hand sides */
    double P[N][NS][LD] __attribute__((aligned(32)));
    double PA[NS][LD] __attribute__((aligned(32)));
    double M[NS][LD] __attribute__((aligned(32)));
    double W[N][NV][LD] __attribute__((aligned(32))); /* L^-1 B'PA, row by row */
    double L[N][NV][NV];
    double cost_s[N][NS], cost_v[N][NV], gs[N][NS], gv[N][NV], gap[N][NS], Pgap[N][NS], ku[N][NV];
    double hard_m[N][HARD], soft_m[N][ONE(SOFT)], sigma_m[N][ONE(SOFT)];
    int count;
} Qp;

static inline double sign_of(int side) { return side ? -1.0 : 1.0; }

/* A block of a product: ROWS vectors by COLS columns of out = A B, kept in registers. A has LD
 * rows, the columns of B and out are LD apart. */
#define DEFINE_BLOCK(ROWS, COLS)                                                              \
    static inline void block_##ROWS##_##COLS(const double *A, const double *B, double *out) { \
        v4 acc[ROWS][COLS];                                                                   \
        for (int i = 0; i < ROWS; i++)                                                        \
            for (int j = 0; j < COLS; j++) acc[i][j] = (v4){0, 0, 0, 0};                      \
        for (int p = 0; p < NX; p++) {                                                        \
            v4 a[ROWS];                                                                       \
            for (int i = 0; i < ROWS; i++) a[i] = *(const v4 *)(A + p * LD + 4 * i);          \
            for (int j = 0; j < COLS; j++) {                                                  \
                double b = B[j * LD + p];                                                     \
                for (int i = 0; i < ROWS; i++) acc[i][j] += a[i] * (v4){b, b, b, b};          \
            }                                                                                 \
        }                                                                                     \
        for (int i = 0; i < ROWS; i++)                                                        \
            for (int j = 0; j < COLS; j++) *(v4 *)(out + j * LD + 4 * i) = acc[i][j];         \
    }

#define DEFINE_COLUMNS(COLS)                                                                  \
    DEFINE_BLOCK(3, COLS)                                                                     \
    DEFINE_BLOCK(2, COLS)                                                                     \
    DEFINE_BLOCK(1, COLS)                                                                     \
    static void columns_##COLS(int first, const double *A, const double *B, double *out) {    \
        int i = first;                                                                        \
        for (; i + 3 <= LD / 4; i += 3) block_3_##COLS(A + 4 * i, B, out + 4 * i);            \
        if (LD / 4 - i == 2) block_2_##COLS(A + 4 * i, B, out + 4 * i);                       \
        if (LD / 4 - i == 1) block_1_##COLS(A + 4 * i, B, out + 4 * i);                       \
    }

DEFINE_COLUMNS(4)
#if NS % 4 == 3
DEFINE_COLUMNS(3)
#define LAST_COLUMNS columns_3
#elif NS % 4 == 2
DEFINE_COLUMNS(2)
#define LAST_COLUMNS columns_2
#elif NS % 4 == 1
DEFINE_COLUMNS(1)
#define LAST_COLUMNS columns_1
#endif

/* out = A B over the NX inner rows; with `lower` only the vectors at and below the diagonal. */
static void multiply(int lower, const double *A, const double *B, double *out) {
    int j = 0;
    for (; j + 4 <= NS; j += 4) columns_4(lower ? j / 4 : 0, A, B + j * LD, out + j * LD);
#ifdef LAST_COLUMNS
    LAST_COLUMNS(lower ? j / 4 : 0, A, B + j * LD, out + j * LD);
#endif
}

/* out = the columns, each times its x, added up; out has LD rows. */
static inline void combine(const double (*columns)[LD], int count, const double *x, v4 *out) {
    for (int i = 0; i < LD / 4; i++) out[i] = (v4){0, 0, 0, 0};
    for (int c = 0; c < count; c++)
        for (int i = 0; i < LD / 4; i++)
            out[i] += *(const v4 *)(columns[c] + 4 * i) * (v4){x[c], x[c], x[c], x[c]};
}

/* y = A x of interval k, x and y over s. */
static void apply(const Qp *qp, int k, const double *x, double *y) {
    v4 all[LD / 4];
    combine(qp->A[k], NS, x, all);
    memcpy(y, all, NX * sizeof(double));
    for (int i = NX; i < NS; i++) y[i] = x[i];
}

/* y = A' x of interval k. */
static void apply_transposed(const Qp *qp, int k, const double *x, double *y) {
    v4 all[LD / 4];
    combine(qp->At[k], NX, x, all);
    double more[NV];
    memcpy(more, x + NX, sizeof more);
    memcpy(y, all, NS * sizeof(double));
    for (int i = 0; i < NV; i++) y[NX + i] += more[i];
}

/* y = P x for a symmetric P. */
static void symmetric(const double (*P)[LD], const double *x, double *y) {
    v4 all[LD / 4];
    combine(P, NS, x, all);
    memcpy(y, all, NS * sizeof(double));
}

/* Value of CV i at s, from the nonzeros of C. */
static inline double cv_value(const Qp *qp, int k, int i, const double *s) {
    double z = 0.0;
    for (int at = z_begin[i]; at < z_begin[i + 1]; at++) z += qp->C[k][at] * s[z_column[at]];
    return z;
}

static inline void cv_back(const Qp *qp, int k, int i, double weight, double *s) {
    for (int at = z_begin[i]; at < z_begin[i + 1]; at++)
        s[z_column[at]] += weight * qp->C[k][at];
}

/* Weight of a soft limit in the Newton matrix, with its slack eliminated. */
static inline double soft_weight(const Qp *qp, int k, int j) {
    double gamma = qp->soft_l[k][j] / qp->soft_t[k][j];
    double rest = qp->curve[k][j >> 1] + qp->sigma_l[k][j] / qp->sigma[k][j];
    return gamma * rest / (gamma + rest);
}

/* Riccati recursion: P, W, L of all stages. Returns 0 when a pivot is not positive. */
static int factorize(Qp *qp) {
    double(*PA)[LD] = qp->PA, (*M)[LD] = qp->M;
    for (int k = N - 1; k >= 0; k--) {
        double(*P)[LD] = qp->P[k];
        memcpy(P, qp->Q[k], sizeof qp->Q[k]);
        for (int i = 0; i < NV; i++)
            for (int side = 0; side < 2; side++) {
                int j = 2 * NV + 2 * i + side;
                if (qp->hard_on[k][j]) P[NX + i][NX + i] += qp->hard_l[k][j] / qp->hard_t[k][j];
            }
        for (int i = 0; i < NZ; i++) {
            double weight = 0.0;
            for (int side = 0; side < 2; side++)
                if (qp->soft_on[k][2 * i + side]) weight += soft_weight(qp, k, 2 * i + side);
            if (weight == 0.0) continue;
            for (int c = z_begin[i]; c < z_begin[i + 1]; c++)
                for (int r = z_begin[i]; r < z_begin[i + 1]; r++)
                    P[z_column[c]][z_column[r]] += weight * qp->C[k][c] * qp->C[k][r];
        }
        if (k == N - 1) continue;
        /* What the later stages add, through interval k + 1. */
        int after = k + 1;
        memcpy(M, qp->P[after], sizeof qp->M);
        multiply(0, M[0], qp->A[after][0], PA[0]);
        for (int c = NX; c < NS; c++)
            for (int i = 0; i < LD; i++) PA[c][i] += M[c][i];
        multiply(1, qp->At[after][0], PA[0], M[0]);
        for (int c = 0; c < NS; c++)
            for (int i = NX; i < NS; i++) M[c][i] += PA[c][i];
        for (int c = 0; c < NS; c++)
            for (int i = c + 1; i < NS; i++) M[i][c] = M[c][i];
        if (moving[after]) {
            double(*L)[NV] = qp->L[after];
            double(*W)[LD] = qp->W[after];
            const double *free = qp->free[after];
            for (int i = 0; i < NV; i++)
                for (int j = 0; j <= i; j++) L[i][j] = free[i] * free[j] * M[NX + j][NX + i];
            for (int i = 0; i < NV; i++) {
                L[i][i] += qp->R[after][i];
                for (int side = 0; side < 2; side++) {
                    int j = 2 * i + side;
                    if (qp->hard_on[after][j])
                        L[i][i] += qp->hard_l[after][j] / qp->hard_t[after][j];
                }
            }
            for (int i = 0; i < NV; i++) {
                for (int c = 0; c < LD; c++) W[i][c] = free[i] * M[NX + i][c];
                for (int j = 0; j <= i; j++) {
                    double sum = L[i][j];
                    for (int m = 0; m < j; m++) sum -= L[i][m] * L[j][m];
                    if (i == j) {
                        if (!(sum > 0.0)) return 0;
                        L[i][i] = sqrt(sum);
                    } else
                        L[i][j] = sum / L[j][j];
                }
                for (int j = 0; j < i; j++)
                    for (int c = 0; c < LD; c++) W[i][c] -= L[i][j] * W[j][c];
                double inverse = 1.0 / L[i][i];
                for (int c = 0; c < LD; c++) W[i][c] *= inverse;
            }
            for (int i = 0; i < NV; i++)
                for (int c = 0; c < NS; c++) {
                    double w = W[i][c];
                    for (int r = 0; r < LD; r++) M[c][r] -= w * W[i][r];
                }
        }
        for (int c = 0; c < NS; c++)
            for (int i = 0; i < LD; i++) P[c][i] += M[c][i];
    }
    /* The first interval begins where we are, so only its moves are left. */
    if (moving[0]) {
        double(*L)[NV] = qp->L[0];
        const double *free = qp->free[0];
        for (int i = 0; i < NV; i++) {
            double column[NS], back[NS], x[NS];
            for (int c = 0; c < NS; c++) x[c] = c == NX + i ? free[i] : 0.0;
            apply(qp, 0, x, column);
            symmetric(qp->P[0], column, back);
            apply_transposed(qp, 0, back, column);
            for (int j = 0; j <= i; j++) L[i][j] = free[j] * column[NX + j];
            L[i][i] += qp->R[0][i];
            for (int side = 0; side < 2; side++)
                if (qp->hard_on[0][2 * i + side])
                    L[i][i] += qp->hard_l[0][2 * i + side] / qp->hard_t[0][2 * i + side];
            for (int j = 0; j <= i; j++) {
                double sum = L[i][j];
                for (int m = 0; m < j; m++) sum -= L[i][m] * L[j][m];
                if (i == j) {
                    if (!(sum > 0.0)) return 0;
                    L[i][i] = sqrt(sum);
                } else
                    L[i][j] = sum / L[j][j];
            }
        }
    }
    for (int k = 0; k < N; k++) symmetric(qp->P[k], qp->gap[k], qp->Pgap[k]);
    return 1;
}

/* Newton step for the right-hand sides gs, gv, gap: ds, dv and, when `last`, dpi. */
static void substitute(Qp *qp, int last) {
    double p[NS], h[NS], back[NS];
    memcpy(p, qp->gs[N - 1], sizeof p);
    for (int k = N - 1; k >= 0; k--) {
        for (int i = 0; i < NS; i++) {
            qp->dpi[k][i] = p[i];
            h[i] = p[i] + qp->Pgap[k][i];
        }
        apply_transposed(qp, k, h, back);
        if (moving[k]) {
            double *u = qp->ku[k];
            for (int i = 0; i < NV; i++) {
                u[i] = qp->gv[k][i] + qp->free[k][i] * back[NX + i];
                for (int j = 0; j < i; j++) u[i] -= qp->L[k][i][j] * u[j];
                u[i] /= qp->L[k][i][i];
            }
        }
        if (!k) break;
        for (int i = 0; i < NS; i++) p[i] = qp->gs[k - 1][i] + back[i];
        if (moving[k])
            for (int j = 0; j < NV; j++)
                for (int i = 0; i < NS; i++) p[i] -= qp->W[k][j][i] * qp->ku[k][j];
    }
    double before[NS];
    memset(before, 0, sizeof before);
    for (int k = 0; k < N; k++) {
        double u[NV], moved[NS];
        memcpy(moved, before, sizeof moved);
        for (int i = 0; i < NV; i++) qp->dv[k][i] = 0.0;
        if (moving[k]) {
            for (int i = 0; i < NV; i++) {
                u[i] = -qp->ku[k][i];
                if (k)
                    for (int c = 0; c < NS; c++) u[i] -= qp->W[k][i][c] * before[c];
            }
            for (int i = NV - 1; i >= 0; i--) {
                for (int j = i + 1; j < NV; j++) u[i] -= qp->L[k][j][i] * qp->dv[k][j];
                qp->dv[k][i] = u[i] / qp->L[k][i][i];
            }
            for (int i = 0; i < NV; i++) moved[NX + i] += qp->free[k][i] * qp->dv[k][i];
        }
        apply(qp, k, moved, qp->ds[k]);
        for (int i = 0; i < NS; i++) qp->ds[k][i] += qp->gap[k][i];
        if (last) {
            double pi[NS];
            symmetric(qp->P[k], qp->ds[k], pi);
            for (int i = 0; i < NS; i++) qp->dpi[k][i] += pi[i];
        }
        memcpy(before, qp->ds[k], sizeof before);
    }
}
