/* Intervals by Radau IIA collocation (Hairer & Wanner 1996), lifted: the stage values are part of
 * the iterate, and every SQP iteration makes one Newton step on them (Quirynen, Gros, Houska &
 * Diehl 2017).
 *
 * Step m of an interval begins at b, the end of the step before, and has stage values x_i with
 *
 *   residual_i = W_i0 b + sum over j  W_ij x_j - rate(x_i, u) / STEPS = 0,   end = x_last
 *
 * W: COLLOCATION, slopes of the interpolating polynomial. A dense LU with partial pivoting of the
 * residuals' Jacobian gives the step of the x_i, the sensitivities of the end (implicit function
 * theorem) and, transposed, the multipliers of the equations.
 */

static const double weight[STAGES][STAGES + 1] = COLLOCATION;

/* In: the Jacobian, row by row, and behind it right-hand sides, one per column of s and one more.
 * Out: its factors, L with unit diagonal, and L^-1 times the right-hand sides. Returns 0 when the
 * Jacobian is singular. */
static int eliminate(double (*a)[ROW], int *pivot) {
    for (int p = 0; p < UNKNOWNS; p++) {
        int best = p;
        for (int i = p + 1; i < UNKNOWNS; i++)
            if (fabs(a[i][p]) > fabs(a[best][p])) best = i;
        pivot[p] = best;
        if (!(fabs(a[best][p]) > 0.0)) return 0;
        if (best != p)
            for (int c = 0; c < ROW; c++) {
                double kept = a[p][c];
                a[p][c] = a[best][c];
                a[best][c] = kept;
            }
        double inverse = 1.0 / a[p][p];
        for (int i = p + 1; i < UNKNOWNS; i++) {
            double factor = a[i][p] * inverse;
            if (factor == 0.0) continue; /* stages are coupled by their diagonals only */
            a[i][p] = factor;
            for (int c = p + 1; c < ROW; c++) a[i][c] -= factor * a[p][c];
        }
    }
    return 1;
}

/* b := J^-1 b */
static void solve(const Step *step, double *b) {
    for (int p = 0; p < UNKNOWNS; p++) {
        double kept = b[p];
        b[p] = b[step->pivot[p]];
        b[step->pivot[p]] = kept;
    }
    for (int i = 1; i < UNKNOWNS; i++)
        for (int j = 0; j < i; j++) b[i] -= step->lu[i][j] * b[j];
    for (int i = UNKNOWNS - 1; i >= 0; i--) {
        for (int j = i + 1; j < UNKNOWNS; j++) b[i] -= step->lu[i][j] * b[j];
        b[i] /= step->lu[i][i];
    }
}

/* b := J^-T b */
static void solve_transposed(const Step *step, double *b) {
    for (int i = 0; i < UNKNOWNS; i++) {
        b[i] /= step->lu[i][i];
        for (int j = i + 1; j < UNKNOWNS; j++) b[j] -= step->lu[i][j] * b[i];
    }
    for (int i = UNKNOWNS - 1; i > 0; i--)
        for (int j = 0; j < i; j++) b[j] -= step->lu[i][j] * b[i];
    for (int p = UNKNOWNS - 1; p >= 0; p--) {
        double kept = b[p];
        b[p] = b[step->pivot[p]];
        b[step->pivot[p]] = kept;
    }
}

static const double *begin_of(const Rti *self, int k, int m) {
    return m ? self->inner[k][m - 1].x[STAGES - 1] : self->s[k];
}

/* Setpoints in use during interval k. */
static void setpoints(const Rti *self, const double *theta, int k, double *u) {
    for (int i = 0; i < NV; i++)
        u[i] = self->s[k][NX + i] + theta[NT - NV + i] * self->v[k][i];
}

static double residual_of(const Step *step, const double *begin, int i, int r, double rate) {
    double sum = weight[i][0] * begin[r] - rate / STEPS;
    for (int j = 0; j < STAGES; j++) sum += weight[i][j + 1] * step->x[j][r];
    return sum;
}

/* Equations of one step around the present stage values; `through` (NS + 1 columns) tells how its
 * begin depends on s and, in the last column, where it is going to move. */
static void write_step(Rti *self, Step *step, const double *begin, const double *u,
                       const double *theta, const double (*through)[NX]) {
    double rate[NX], by_u[ONE(NV) * NX];
    memset(step->lu, 0, sizeof step->lu);
    for (int i = 0; i < STAGES; i++) {
        const double *arg[STAGE_SZ_ARG] = {step->x[i], u, theta};
        double *res[STAGE_SZ_RES] = {rate, self->A, by_u};
        rate_jacobian(arg, res, self->integers, self->work, 0);
        for (int r = 0; r < NX; r++) {
            int at = i * NX + r;
            double *row = step->lu[at], *behind = row + UNKNOWNS;
            for (int j = 0; j < STAGES; j++) row[j * NX + r] = weight[i][j + 1];
            for (int c = 0; c < NX; c++) row[i * NX + c] -= self->A[c * NX + r] / STEPS;
            for (int c = 0; c <= NS; c++) behind[c] = -weight[i][0] * through[c][r];
            for (int c = 0; c < NV; c++) {
                step->by_u[i][c][r] = by_u[c * NX + r] / STEPS;
                behind[NX + c] += step->by_u[i][c][r];
            }
            step->residual[at] = residual_of(step, begin, i, r, rate[r]);
            behind[NS] -= step->residual[at];
        }
    }
}

/* End of interval k and its derivatives, with the stage values where their Newton step leads. */
static int linearize_interval(Rti *self, const Problem *p, int k) {
    const double *theta = p->theta + k * NT;
    double u[ONE(NV)], through[NS + 1][NX];
    setpoints(self, theta, k, u);
    memset(through, 0, sizeof through);
    for (int i = 0; i < NX; i++) through[i][i] = 1.0;
    for (int m = 0; m < STEPS; m++) {
        Step *step = &self->inner[k][m];
        write_step(self, step, begin_of(self, k, m), u, theta, through);
        if (!eliminate(step->lu, step->pivot)) return 0;
        for (int i = UNKNOWNS - 1; i >= UNKNOWNS - NX; i--) {
            double *row = step->lu[i];
            double *behind = row + UNKNOWNS;
            for (int j = i + 1; j < UNKNOWNS; j++)
                for (int c = 0; c <= NS; c++) behind[c] -= row[j] * step->lu[j][UNKNOWNS + c];
            for (int c = 0; c <= NS; c++) {
                behind[c] /= row[i];
                through[c][i - UNKNOWNS + NX] = behind[c];
            }
        }
    }
    for (int c = 0; c < NS; c++) memcpy(self->A + c * NS, through[c], sizeof through[c]);
    const double *end = self->inner[k][STEPS - 1].x[STAGES - 1];
    for (int i = 0; i < NX; i++) self->next[k][i] = end[i] + through[NS][i];
    for (int i = 0; i < NV; i++) self->next[k][NX + i] = u[i];
    return 1;
}

/* Move the stage values of interval k with the step of the QP. */
static void step_inside(Rti *self, int k) {
    const Qp *qp = &self->qp;
    double begin[NX], u[ONE(NV)], moved[UNKNOWNS];
    for (int i = 0; i < NX; i++) begin[i] = k ? qp->s[k - 1][i] : 0.0;
    for (int i = 0; i < NV; i++) u[i] = qp->s[k][NX + i];
    for (int m = 0; m < STEPS; m++) {
        Step *step = &self->inner[k][m];
        for (int i = 0; i < STAGES; i++)
            for (int r = 0; r < NX; r++) {
                double *to = moved + i * NX + r;
                *to = -step->residual[i * NX + r] - weight[i][0] * begin[r];
                for (int c = 0; c < NV; c++) *to += step->by_u[i][c][r] * u[c];
            }
        solve(step, moved);
        for (int i = 0; i < STAGES; i++)
            for (int r = 0; r < NX; r++) step->x[i][r] += moved[i * NX + r];
        memcpy(begin, moved + UNKNOWNS - NX, sizeof begin);
    }
}

/* One step of interval k in the certificate: `pi` (NX) is the multiplier of its end, and of its
 * begin on return. What is left of its equations and of stationarity over its stage values counts
 * as the Newton step that it asks for: in spans, and in the units of multipliers. */
static void certify_step(Rti *self, const double *theta, int k, int m, const double *u, double *pi,
                         double *back_u, Residual *out) {
    Step *step = &self->inner[k][m];
    double left[UNKNOWNS], bent[UNKNOWNS], dual[UNKNOWNS], rate[NX], to_x[NX], to_u[ONE(NV)];
    memset(dual, 0, sizeof dual);
    for (int r = 0; r < NX; r++) dual[UNKNOWNS - NX + r] = -pi[r];
    solve_transposed(step, dual);
    for (int i = 0; i < STAGES; i++) {
        const double *arg[STAGE_SZ_ARG] = {step->x[i], u, theta, dual + i * NX};
        double *res[STAGE_SZ_RES] = {rate, to_x, to_u};
        rate_adjoint(arg, res, self->integers, self->work, 0);
        for (int r = 0; r < NX; r++) {
            left[i * NX + r] = residual_of(step, begin_of(self, k, m), i, r, rate[r]);
            double *to = bent + i * NX + r;
            *to = (i == STAGES - 1 ? pi[r] : 0.0) - to_x[r] / STEPS;
            for (int j = 0; j < STAGES; j++) *to += weight[j][i + 1] * dual[j * NX + r];
        }
        for (int c = 0; c < NV; c++) back_u[c] -= to_u[c] / STEPS;
    }
    for (int r = 0; r < NX; r++) {
        pi[r] = 0.0;
        for (int i = 0; i < STAGES; i++) pi[r] += weight[i][0] * dual[i * NX + r];
    }
    solve(step, left);
    solve_transposed(step, bent);
    for (int i = 0; i < UNKNOWNS; i++) {
        out->primal = largest(out->primal, fabs(left[i]));
        out->stationarity = largest(out->stationarity, fabs(bent[i]));
    }
}

static void certify_interval(Rti *self, const Problem *p, int k, const double *pi, double *back_s,
                             double *back_v, Residual *out) {
    const double *theta = p->theta + k * NT;
    double u[ONE(NV)], through[NX];
    setpoints(self, theta, k, u);
    memcpy(through, pi, sizeof through);
    for (int i = 0; i < NV; i++) back_s[NX + i] = pi[NX + i];
    for (int m = STEPS - 1; m >= 0; m--)
        certify_step(self, theta, k, m, u, through, back_s + NX, out);
    memcpy(back_s, through, sizeof through);
    for (int i = 0; i < NV; i++) {
        back_v[i] = theta[NT - NV + i] * back_s[NX + i];
        self->next[k][NX + i] = u[i];
    }
    memcpy(self->next[k], self->inner[k][STEPS - 1].x[STAGES - 1], NX * sizeof(double));
}
