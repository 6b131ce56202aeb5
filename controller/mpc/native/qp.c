/* Primal-dual interior-point method for the stage-structured QP of the real-time iteration.
 *
 * Mehrotra's predictor-corrector (Nocedal & Wright 2006, section 16.6); the Newton step is solved
 * by a Riccati recursion (Rao, Wright & Rawlings 1998). Sizes are known when this is compiled, and
 * the structure of moves is used: since u_next = u + free * v and x_next depends on u + free * v
 * only, the input matrix is the u-columns of A times `free`, so that A'PA is all that is needed.
 *
 *   min  sum over nodes k = 1..N   s'Q s / 2 + q's + soft zones
 *      + sum over intervals k < N  v'R v / 2 + r'v                    (R diagonal)
 *   s_{k+1} = A_k s_k + B_k v_k + b_k,  B_k = A_k[:, u] free,  s_0 = 0
 *   low <= v <= high,  low <= u-part of s <= high,
 *   low - sigma <= C s <= high + sigma,  cost price sigma + curve sigma^2 / 2, sigma >= 0
 *
 * Q is symmetric, column-major with LD rows; C is stored by its nonzeros.
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

/* y = A x of interval k, x and y over s. */
static void apply(const Qp *qp, int k, const double *x, double *y) {
    v4 acc[LD / 4];
    for (int i = 0; i < LD / 4; i++) acc[i] = (v4){0, 0, 0, 0};
    for (int c = 0; c < NS; c++)
        for (int i = 0; i < LD / 4; i++)
            acc[i] += *(const v4 *)(qp->A[k][c] + 4 * i) * (v4){x[c], x[c], x[c], x[c]};
    double all[LD] __attribute__((aligned(32)));
    for (int i = 0; i < LD / 4; i++) *(v4 *)(all + 4 * i) = acc[i];
    for (int i = 0; i < NX; i++) y[i] = all[i];
    for (int i = NX; i < NS; i++) y[i] = x[i];
}

/* y = A' x of interval k. */
static void apply_transposed(const Qp *qp, int k, const double *x, double *y) {
    v4 acc[LD / 4];
    for (int i = 0; i < LD / 4; i++) acc[i] = (v4){0, 0, 0, 0};
    for (int c = 0; c < NX; c++)
        for (int i = 0; i < LD / 4; i++)
            acc[i] += *(const v4 *)(qp->At[k][c] + 4 * i) * (v4){x[c], x[c], x[c], x[c]};
    double all[LD] __attribute__((aligned(32)));
    for (int i = 0; i < LD / 4; i++) *(v4 *)(all + 4 * i) = acc[i];
    for (int i = 0; i < NX; i++) y[i] = all[i];
    for (int i = NX; i < NS; i++) y[i] = all[i] + x[i];
}

static void symmetric(const double (*P)[LD], const double *x, double *y) {
    v4 acc[LD / 4];
    for (int i = 0; i < LD / 4; i++) acc[i] = (v4){0, 0, 0, 0};
    for (int c = 0; c < NS; c++)
        for (int i = 0; i < LD / 4; i++)
            acc[i] += *(const v4 *)(P[c] + 4 * i) * (v4){x[c], x[c], x[c], x[c]};
    double all[LD] __attribute__((aligned(32)));
    for (int i = 0; i < LD / 4; i++) *(v4 *)(all + 4 * i) = acc[i];
    for (int i = 0; i < NS; i++) y[i] = all[i];
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

/* Distances from the limits at the present point, without slack. */
static double hard_room(const Qp *qp, int k, int j, const double (*s)[NS], const double (*v)[NV]) {
    int i = (j % (2 * NV)) >> 1;
    double value = j < 2 * NV ? v[k][i] : s[k][NX + i];
    return sign_of(j & 1) * (value - qp->hard_at[k][j]);
}

static double soft_room(const Qp *qp, int k, int j, const double (*s)[NS]) {
    return sign_of(j & 1) * (cv_value(qp, k, j >> 1, s[k]) - qp->soft_at[k][j]);
}

/* A point inside all inequalities, near the central path of barrier parameter mu. */
static void begin(Qp *qp, double mu) {
    memset(qp->s, 0, sizeof qp->s);
    memset(qp->v, 0, sizeof qp->v);
    memset(qp->pi, 0, sizeof qp->pi);
    qp->count = 0;
    for (int k = 0; k < N; k++) {
        for (int j = 0; j < HARD; j++) {
            if (!qp->hard_on[k][j]) continue;
            double room = hard_room(qp, k, j, qp->s, qp->v);
            qp->hard_t[k][j] = room > ROOM_MIN ? room : ROOM_MIN;
            qp->hard_l[k][j] = mu / qp->hard_t[k][j];
            qp->count++;
        }
        for (int j = 0; j < SOFT; j++) {
            if (!qp->soft_on[k][j]) continue;
            double room = soft_room(qp, k, j, qp->s), price = qp->price[k][j >> 1];
            double slack = room < 0.0 ? -room : 0.0;
            double t = room > ROOM_MIN ? room : ROOM_MIN;
            double l = mu / t < 0.5 * price ? mu / t : 0.5 * price;
            qp->soft_t[k][j] = t;
            qp->soft_l[k][j] = l;
            qp->sigma_l[k][j] = price - l;
            qp->sigma[k][j] = mu / (price - l) > slack ? mu / (price - l) : slack;
            qp->count += 2;
        }
    }
}

/* What the Newton step's right-hand sides have in common: gradient of the cost and gap of the
 * dynamics at the present point. */
static void residuals(Qp *qp) {
    double moved[NS];
    memset(moved, 0, sizeof moved);
    for (int k = 0; k < N; k++) {
        symmetric(qp->Q[k], qp->s[k], qp->cost_s[k]);
        for (int i = 0; i < NS; i++) qp->cost_s[k][i] += qp->q[k][i];
        for (int i = 0; i < NV; i++) {
            qp->cost_v[k][i] = qp->R[k][i] * qp->v[k][i] + qp->r[k][i];
            if (moving[k]) moved[NX + i] += qp->free[k][i] * qp->v[k][i];
        }
        apply(qp, k, moved, qp->gap[k]);
        for (int i = 0; i < NS; i++) {
            qp->gap[k][i] += qp->b[k][i] - qp->s[k][i];
            moved[i] = qp->s[k][i];
        }
    }
}

/* Right-hand sides of the Newton step towards barrier parameter `mu`, corrected by the products of
 * the last step when `correct`. */
static void right_hand_side(Qp *qp, double mu, int correct) {
    for (int k = 0; k < N; k++) {
        double *gs = qp->gs[k], *gv = qp->gv[k];
        memcpy(gs, qp->cost_s[k], sizeof qp->gs[k]);
        memcpy(gv, qp->cost_v[k], sizeof qp->gv[k]);
        for (int j = 0; j < HARD; j++) {
            if (!qp->hard_on[k][j]) continue;
            double t = qp->hard_t[k][j], l = qp->hard_l[k][j];
            double gap = hard_room(qp, k, j, qp->s, qp->v) - t;
            double m = (mu - (correct ? qp->hard_dt[k][j] * qp->hard_dl[k][j] : 0.0)) / t - l;
            qp->hard_m[k][j] = m;
            double *to = j < 2 * NV ? gv + (j >> 1) : gs + NX + ((j - 2 * NV) >> 1);
            *to -= sign_of(j & 1) * (l + m - l / t * gap);
        }
        for (int j = 0; j < SOFT; j++) {
            if (!qp->soft_on[k][j]) continue;
            int i = j >> 1;
            double t = qp->soft_t[k][j], l = qp->soft_l[k][j];
            double sg = qp->sigma[k][j], sl = qp->sigma_l[k][j];
            double gap = soft_room(qp, k, j, qp->s) + sg - t;
            double m = (mu - (correct ? qp->soft_dt[k][j] * qp->soft_dl[k][j] : 0.0)) / t - l;
            double n = (mu - (correct ? qp->dsigma[k][j] * qp->dsigma_l[k][j] : 0.0)) / sg - sl;
            double dual = qp->price[k][i] + qp->curve[k][i] * sg - l - sl;
            double gamma = l / t, whole = qp->curve[k][i] + gamma + sl / sg;
            double e = -dual + m + n - gamma * gap;
            qp->soft_m[k][j] = m;
            qp->sigma_m[k][j] = n;
            cv_back(qp, k, i, -sign_of(j & 1) * (l + m - gamma * gap - gamma * e / whole), gs);
        }
    }
}

/* Steps of distances, multipliers and slacks that belong to ds and dv. */
static void complete_step(Qp *qp) {
    for (int k = 0; k < N; k++) {
        for (int j = 0; j < HARD; j++) {
            if (!qp->hard_on[k][j]) continue;
            int i = (j % (2 * NV)) >> 1;
            double t = qp->hard_t[k][j], l = qp->hard_l[k][j];
            double step = sign_of(j & 1) * (j < 2 * NV ? qp->dv[k][i] : qp->ds[k][NX + i]);
            double dt = step + hard_room(qp, k, j, qp->s, qp->v) - t;
            qp->hard_dt[k][j] = dt;
            qp->hard_dl[k][j] = qp->hard_m[k][j] - l / t * dt;
        }
        for (int j = 0; j < SOFT; j++) {
            if (!qp->soft_on[k][j]) continue;
            int i = j >> 1;
            double t = qp->soft_t[k][j], l = qp->soft_l[k][j];
            double sg = qp->sigma[k][j], sl = qp->sigma_l[k][j];
            double gap = soft_room(qp, k, j, qp->s) + sg - t;
            double dual = qp->price[k][i] + qp->curve[k][i] * sg - l - sl;
            double gamma = l / t, whole = qp->curve[k][i] + gamma + sl / sg;
            double step = sign_of(j & 1) * cv_value(qp, k, i, qp->ds[k]);
            double e = -dual + qp->soft_m[k][j] + qp->sigma_m[k][j] - gamma * gap;
            double dsigma = (e - gamma * step) / whole;
            qp->dsigma[k][j] = dsigma;
            qp->soft_dt[k][j] = step + dsigma + gap;
            qp->soft_dl[k][j] = qp->soft_m[k][j] - gamma * qp->soft_dt[k][j];
            qp->dsigma_l[k][j] = qp->sigma_m[k][j] - sl / sg * dsigma;
        }
    }
}

static inline void shorten(double value, double step, double *length) {
    if (step < 0.0 && value < -*length * step) *length = -value / step;
}

/* Longest step, at most 1, that keeps distances, slacks and multipliers positive. */
static double longest(const Qp *qp) {
    double length = 1.0;
    for (int k = 0; k < N; k++) {
        for (int j = 0; j < HARD; j++) {
            if (!qp->hard_on[k][j]) continue;
            shorten(qp->hard_t[k][j], qp->hard_dt[k][j], &length);
            shorten(qp->hard_l[k][j], qp->hard_dl[k][j], &length);
        }
        for (int j = 0; j < SOFT; j++) {
            if (!qp->soft_on[k][j]) continue;
            shorten(qp->soft_t[k][j], qp->soft_dt[k][j], &length);
            shorten(qp->soft_l[k][j], qp->soft_dl[k][j], &length);
            shorten(qp->sigma[k][j], qp->dsigma[k][j], &length);
            shorten(qp->sigma_l[k][j], qp->dsigma_l[k][j], &length);
        }
    }
    return length;
}

/* Mean complementarity product after a step of `length` (0: at the present point). */
static double complementarity(const Qp *qp, double length) {
    double sum = 0.0;
    for (int k = 0; k < N; k++) {
        for (int j = 0; j < HARD; j++)
            if (qp->hard_on[k][j])
                sum += (qp->hard_t[k][j] + length * qp->hard_dt[k][j]) *
                       (qp->hard_l[k][j] + length * qp->hard_dl[k][j]);
        for (int j = 0; j < SOFT; j++)
            if (qp->soft_on[k][j])
                sum += (qp->soft_t[k][j] + length * qp->soft_dt[k][j]) *
                           (qp->soft_l[k][j] + length * qp->soft_dl[k][j]) +
                       (qp->sigma[k][j] + length * qp->dsigma[k][j]) *
                           (qp->sigma_l[k][j] + length * qp->dsigma_l[k][j]);
    }
    return qp->count ? sum / qp->count : 0.0;
}

static void take(Qp *qp, double length) {
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < NS; i++) {
            qp->s[k][i] += length * qp->ds[k][i];
            qp->pi[k][i] += length * (qp->dpi[k][i] - qp->pi[k][i]);
        }
        for (int i = 0; i < NV; i++) qp->v[k][i] += length * qp->dv[k][i];
        for (int j = 0; j < HARD; j++) {
            if (!qp->hard_on[k][j]) continue;
            qp->hard_t[k][j] += length * qp->hard_dt[k][j];
            qp->hard_l[k][j] += length * qp->hard_dl[k][j];
        }
        for (int j = 0; j < SOFT; j++) {
            if (!qp->soft_on[k][j]) continue;
            qp->soft_t[k][j] += length * qp->soft_dt[k][j];
            qp->soft_l[k][j] += length * qp->soft_dl[k][j];
            qp->sigma[k][j] += length * qp->dsigma[k][j];
            qp->sigma_l[k][j] += length * qp->dsigma_l[k][j];
        }
    }
}

/* How large the linear residuals are at the beginning, at most: gradients, gaps and prices. */
static double first_residual(const Qp *qp) {
    double most = 1.0;
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < NS; i++)
            most = fmax(most, fmax(fabs(qp->q[k][i]), fabs(qp->b[k][i])));
        for (int i = 0; i < NV; i++) most = fmax(most, fabs(qp->r[k][i]));
        for (int j = 0; j < SOFT; j++)
            if (qp->soft_on[k][j])
                most = fmax(most, qp->price[k][j >> 1] + qp->curve[k][j >> 1] * qp->sigma[k][j]);
    }
    return most;
}

/* Solve. Returns the number of iterations, negative when it could not go on. */
static int solve_qp(Qp *qp, int budget, double tolerance) {
    memset(qp->hard_dt, 0, sizeof qp->hard_dt);
    begin(qp, BARRIER_BEGIN);
    double linear = first_residual(qp); /* every step takes its length's share of it away */
    for (int iteration = 0; iteration < budget; iteration++) {
        double mu = complementarity(qp, 0.0);
        if (linear <= tolerance && mu <= tolerance) return iteration;
        residuals(qp);
        if (!factorize(qp)) return -iteration - 1;
        right_hand_side(qp, 0.0, 0);
        substitute(qp, !qp->count);
        complete_step(qp);
        if (qp->count) {
            double length = longest(qp);
            double reached = complementarity(qp, length) / mu;
            right_hand_side(qp, reached * reached * reached * mu, 1);
            substitute(qp, 1);
            complete_step(qp);
        }
        double length = longest(qp);
        if (length < 1.0) length *= STEP_SHARE;
        if (!isfinite(length) || length < STEP_MIN) return -iteration - 1;
        take(qp, length);
        linear *= 1.0 - length;
    }
    return -budget - 1;
}
