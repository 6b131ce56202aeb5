/* Primal-dual interior-point method for the stage-structured QP of the real-time iteration.
 *
 * Mehrotra's predictor-corrector (Nocedal & Wright 2006, section 16.6); riccati.c solves its Newton
 * steps.
 *
 *   min  sum over nodes k = 1..N   s'Q s / 2 + q's + soft zones
 *      + sum over intervals k < N  v'R v / 2 + r'v                    (R diagonal)
 *   s_{k+1} = A_k s_k + B_k v_k + b_k,  B_k = A_k[:, u] free,  s_0 = 0
 *   low <= v <= high,  low <= u-part of s <= high,
 *   low - sigma <= C s <= high + sigma,  cost price sigma + curve sigma^2 / 2, sigma >= 0
 *
 * Q is symmetric, column-major with LD rows; C is stored by its nonzeros.
 */

#include "riccati.c"

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
