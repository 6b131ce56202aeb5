/* Real-time iteration (Diehl, Bock & Schlöder 2005) for the optimal control problem of stage.py.
 *
 * Compiled once per application beside the generated stage functions (stage.c), with the sizes
 * (sizes.h). All memory is taken in rti_create; rti_solve allocates nothing, keeps nothing
 * between calls and bounds its work by iterations.
 *
 * Node k = 1..N has state s_k = (x, u), interval k = 0..N-1 has move v_k. All numbers are scaled
 * as in stage.py. Vectors over the horizon are row-major, row k belongs to interval k and to the
 * node it ends in.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "sizes.h"
#include "stage.h"

static const unsigned char moving[N] = MOVING;
static const int z_begin[] = Z_BEGIN;   /* nonzeros of CV i in C: z_begin[i] .. z_begin[i + 1] */
static const int z_column[] = Z_COLUMN; /* and the states they belong to */

#include "qp.c"

#if STEPS > 0
#define UNKNOWNS (STAGES * NX)
#define ROW PAD4(UNKNOWNS + NS + 1)

/* One collocation step, see implicit.c. */
typedef struct {
    double x[STAGES][NX];         /* stage values */
    double lu[UNKNOWNS][ROW] __attribute__((aligned(32)));
    double by_u[STAGES][ONE(NV)][NX];
    double residual[UNKNOWNS];
    int pivot[UNKNOWNS];
} Step;
#define INNER (STEPS * UNKNOWNS) /* what an interval adds to the iterate */
#else
#define INNER 0
#endif

#define NO_LIMIT 1e20 /* beyond it a limit does not exist */

/* What one solve is asked: pointers into the caller's flat argument, in the order of the
 * attributes of instance.Instance. */
typedef struct {
    const double *s0, *rest, *rest_weight, *move_weight, *terminal, *terminal_at, *theta, *wanted,
        *track, *price, *curve, *v_low, *v_high, *u_low, *u_high, *z_low, *z_high;
} Problem;

typedef struct {
    double s[N + 1][NS], v[N][NV];           /* the point */
    double next[N][NS];                      /* where each interval ends */
    double A[NS * NS] __attribute__((aligned(64))); /* of one interval, column-major */
    double z[N][ONE(NZ)], rate_gradient[NS]; /* CVs at the nodes; gradient of the economic cost */
    double work[STAGE_SZ_W];
    int integers[STAGE_SZ_IW];
#if STEPS > 0
    Step inner[N][STEPS];
#endif
    Qp qp;
} Rti;

typedef struct {
    double primal, stationarity, complementarity;
} Residual;

static double largest(double a, double b) { return a > b ? a : b; }

#if STEPS > 0
#include "implicit.c"
#else
#include "explicit.c"
#endif
#include "certify.c"

size_t rti_argument_size(void) {
    return NS + 3 * NV + NS * NS + NS + N * (NT + 6 * NZ + 4 * NV);
}
size_t rti_iterate_size(void) { return (N + 1) * NS + N * (NV + INNER); }
size_t rti_result_size(void) { return RESULT_SIZE + N * NV + N * NY; }

Rti *rti_create(void) {
    size_t size = (sizeof(Rti) + 63) / 64 * 64;
    Rti *self = aligned_alloc(64, size);
    if (self) memset(self, 0, size);
    return self;
}

void rti_destroy(Rti *self) { free(self); }

static const double *take_rows(const double **from, size_t count) {
    const double *rows = *from;
    *from += count;
    return rows;
}

static Problem unpack(const double *a) {
    Problem p;
    p.s0 = take_rows(&a, NS);
    p.rest = take_rows(&a, NV);
    p.rest_weight = take_rows(&a, NV);
    p.move_weight = take_rows(&a, NV);
    p.terminal = take_rows(&a, NS * NS);
    p.terminal_at = take_rows(&a, NS);
    p.theta = take_rows(&a, N * NT);
    p.wanted = take_rows(&a, N * NZ);
    p.track = take_rows(&a, N * NZ);
    p.price = take_rows(&a, N * NZ);
    p.curve = take_rows(&a, N * NZ);
    p.v_low = take_rows(&a, N * NV);
    p.v_high = take_rows(&a, N * NV);
    p.u_low = take_rows(&a, N * NV);
    p.u_high = take_rows(&a, N * NV);
    p.z_low = take_rows(&a, N * NZ);
    p.z_high = take_rows(&a, N * NZ);
    return p;
}

static int finite_all(const double *a, size_t n) {
    double sum = 0.0; /* 0 * x is 0 for finite x only */
    for (size_t i = 0; i < n; i++) sum += 0.0 * a[i];
    return sum == 0.0;
}

/* Whether there is a number everywhere; limits may be infinite, but a NaN would mean no limit. */
static int known_all(const double *a, size_t n) {
    int unknown = 0;
    for (size_t i = 0; i < n; i++) unknown |= a[i] != a[i];
    return !unknown;
}

/* Dynamics of interval k around the present point; 0 when there are none. */
static int write_interval(Rti *self, const Problem *p, int k) {
    Qp *qp = &self->qp;
    if (!linearize_interval(self, p, k)) return 0;
    for (int c = 0; c < NS; c++) {
        for (int i = 0; i < NX; i++) {
            qp->A[k][c][i] = self->A[c * NS + i];
            qp->At[k][i][c] = self->A[c * NS + i];
        }
        qp->b[k][c] = self->next[k][c] - self->s[k + 1][c];
    }
    for (int i = 0; i < NV; i++) {
        double v = self->v[k][i];
        qp->free[k][i] = p->theta[k * NT + NT - NV + i];
        qp->R[k][i] = 2.0 * p->move_weight[i] + REGULARIZATION;
        qp->r[k][i] = 2.0 * p->move_weight[i] * v;
        qp->hard_at[k][2 * i] = p->v_low[k * NV + i] - v;
        qp->hard_at[k][2 * i + 1] = p->v_high[k * NV + i] - v;
        qp->hard_on[k][2 * i] = moving[k] && p->v_low[k * NV + i] > -NO_LIMIT;
        qp->hard_on[k][2 * i + 1] = moving[k] && p->v_high[k * NV + i] < NO_LIMIT;
    }
    return 1;
}

/* Cost and limits of the node in which interval k ends. */
static void write_node(Rti *self, const Problem *p, int k) {
    Qp *qp = &self->qp;
    const double *s = self->s[k + 1];
    const double *arg[STAGE_SZ_ARG] = {s, p->theta + k * NT};
    double *res[STAGE_SZ_RES] = {self->z[k], qp->C[k], self->rate_gradient};
    node_jacobian(arg, res, self->integers, self->work, 0);
    double(*Q)[LD] = qp->Q[k], *q = qp->q[k];
    memset(Q, 0, sizeof qp->Q[k]);
    for (int i = 0; i < NS; i++) {
        Q[i][i] = REGULARIZATION;
        q[i] = self->rate_gradient[i];
    }
    for (int i = 0; i < NZ; i++) {
        double track = 2.0 * p->track[k * NZ + i];
        if (track != 0.0) {
            cv_back(qp, k, i, track * (self->z[k][i] - p->wanted[k * NZ + i]), q);
            for (int c = z_begin[i]; c < z_begin[i + 1]; c++)
                for (int r = z_begin[i]; r < z_begin[i + 1]; r++)
                    Q[z_column[c]][z_column[r]] += track * qp->C[k][c] * qp->C[k][r];
        }
        double low = p->z_low[k * NZ + i], high = p->z_high[k * NZ + i];
        qp->price[k][i] = p->price[k * NZ + i];
        qp->curve[k][i] = 2.0 * p->curve[k * NZ + i];
        qp->soft_on[k][2 * i] = low > -NO_LIMIT;
        qp->soft_on[k][2 * i + 1] = high < NO_LIMIT;
        qp->soft_at[k][2 * i] = low - self->z[k][i];
        qp->soft_at[k][2 * i + 1] = high - self->z[k][i];
    }
    for (int i = 0; i < NV; i++) {
        int at = NX + i, j = 2 * NV + 2 * i;
        Q[at][at] += 2.0 * p->rest_weight[i];
        q[at] += 2.0 * p->rest_weight[i] * (s[at] - p->rest[i]);
        qp->hard_at[k][j] = p->u_low[k * NV + i] - s[at];
        qp->hard_at[k][j + 1] = p->u_high[k * NV + i] - s[at];
        qp->hard_on[k][j] = qp->hard_on[k][j + 1] = 1;
    }
    if (k < N - 1) return;
    for (int c = 0; c < NS; c++)
        for (int i = 0; i < NS; i++) {
            double weight = 2.0 * p->terminal[c * NS + i];
            Q[c][i] += weight;
            q[i] += weight * (s[c] - p->terminal_at[c]);
        }
}

static int linearize(Rti *self, const Problem *p) {
    const Qp *qp = &self->qp;
    for (int k = 0; k < N; k++) {
        if (!write_interval(self, p, k)) return 0;
        write_node(self, p, k);
    }
    return finite_all(self->next[0], N * NS) && finite_all(qp->A[0][0], sizeof qp->A / 8) &&
           finite_all(self->z[0], N * NZ) && finite_all(qp->C[0], sizeof qp->C / 8) &&
           finite_all(qp->q[0], N * NS);
}

/* The guess and the iterate: states, moves, stage values of implicit intervals. */
static void read_guess(Rti *self, const Problem *p, const double *guess) {
    memcpy(self->s, guess, sizeof self->s);
    memcpy(self->v, guess + (N + 1) * NS, sizeof self->v);
    memcpy(self->s, p->s0, NS * sizeof(double));
    for (int k = 0; k < N; k++)
        if (!moving[k]) memset(self->v[k], 0, sizeof self->v[k]);
#if STEPS > 0
    const double *values = guess + (N + 1) * NS + N * NV;
    for (int k = 0; k < N; k++)
        for (int m = 0; m < STEPS; m++, values += UNKNOWNS)
            memcpy(self->inner[k][m].x, values, UNKNOWNS * sizeof(double));
#endif
}

static void write_iterate(const Rti *self, double *iterate) {
    memcpy(iterate, self->s, sizeof self->s);
    memcpy(iterate + (N + 1) * NS, self->v, sizeof self->v);
#if STEPS > 0
    double *values = iterate + (N + 1) * NS + N * NV;
    for (int k = 0; k < N; k++)
        for (int m = 0; m < STEPS; m++, values += UNKNOWNS)
            memcpy(values, self->inner[k][m].x, UNKNOWNS * sizeof(double));
#endif
}

static void write_result(Rti *self, const Problem *p, double *iterate, double *result) {
    write_iterate(self, iterate);
    double *moves = result + RESULT_SIZE, *outputs = moves + N * NV;
    for (int k = 0; k < N; k++) {
        const double *arg[STAGE_SZ_ARG] = {self->s[k + 1], p->theta + k * NT};
        double *res[STAGE_SZ_RES] = {moves + k * NV, outputs + k * NY};
        node_outputs(arg, res, self->integers, self->work, 0);
    }
}

/* One SQP iteration; the verdict on where it led. */
static int iterate_once(Rti *self, const Problem *p, const double *tolerance, double *result) {
    Qp *qp = &self->qp;
    result[1] += 1;
    if (!linearize(self, p)) return RTI_NOT_FINITE;
    int iterations = solve_qp(qp, QP_ITERATIONS, QP_SHARE * fmin(tolerance[1], tolerance[2]));
    result[2] += abs(iterations);
    result[3] = iterations < 0;
    if (!finite_all(qp->s[0], N * NS) || !finite_all(qp->v[0], N * NV) ||
        !finite_all(qp->pi[0], N * NS))
        return RTI_NOT_FINITE;
    double scale = multiplier_scale(qp), cost = 0.0;
    Residual of_qp = certify_qp(self);
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < NS; i++) self->s[k + 1][i] += qp->s[k][i];
        for (int i = 0; i < NV; i++) self->v[k][i] += qp->v[k][i];
        step_inside(self, k);
    }
    Residual of_nlp = certify_nlp(self, p, &cost);
    result[4] = cost;
    result[5] = of_qp.primal;
    result[6] = of_qp.stationarity / scale;
    result[7] = of_qp.complementarity / scale;
    result[8] = of_nlp.primal;
    result[9] = of_nlp.stationarity / scale;
    result[10] = of_nlp.complementarity / scale;
    if (!finite_all(result, RESULT_SIZE)) return RTI_NOT_FINITE;
    for (int i = 0; i < 3; i++)
        if (result[5 + i] > tolerance[i]) return RTI_QP_REFUSED;
    for (int i = 3; i < 6; i++)
        if (result[5 + i] > tolerance[i]) return RTI_NOT_CONVERGED;
    return RTI_CONVERGED;
}

/* Solve, in at most `budget` SQP iterations, beginning at `guess`; stops at the first point whose
 * certificate meets the six tolerances (QP: primal, stationarity, complementarity; the same of
 * the nonlinear program). `result` holds the numbers named in library.py, the setpoints (N, NV)
 * and the outputs (N, NY). Returns the verdict. */
int rti_solve(Rti *self, const double *argument, const double *guess, int budget,
              const double *tolerance, double *iterate, double *result) {
#if defined(__SSE__)
    /* Numbers below 1e-308 mean nothing here and cost a hundred times as much. */
    unsigned int control = _mm_getcsr();
    _mm_setcsr(control | 0x8040);
#endif
    Problem p = unpack(argument);
    int verdict = known_all(argument, rti_argument_size()) ? RTI_NOT_CONVERGED : RTI_NOT_FINITE;
    memset(result, 0, rti_result_size() * sizeof(double));
    read_guess(self, &p, guess);
    for (int i = 0; i < budget && verdict == RTI_NOT_CONVERGED; i++)
        verdict = iterate_once(self, &p, tolerance, result);
    write_result(self, &p, iterate, result);
    result[0] = verdict;
    /* What ran away may stand in the padding of the factors, where nothing would overwrite it. */
    if (verdict != RTI_CONVERGED) memset(self, 0, sizeof *self);
#if defined(__SSE__)
    _mm_setcsr(control);
#endif
    return verdict;
}
