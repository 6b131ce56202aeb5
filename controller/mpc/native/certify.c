/* Does an answer solve the problem? Karush-Kuhn-Tucker residuals (Nocedal & Wright 2006, theorem
 * 12.1), of the QP and of the nonlinear program, from the problem's own numbers: the solver's word
 * is not used. */

static double multiplier_scale(const Qp *qp) {
    double scale = 1.0;
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < NS; i++) scale = largest(scale, fabs(qp->pi[k][i]));
        for (int j = 0; j < HARD; j++)
            if (qp->hard_on[k][j]) scale = largest(scale, qp->hard_l[k][j]);
        for (int j = 0; j < SOFT; j++)
            if (qp->soft_on[k][j]) scale = largest(scale, qp->soft_l[k][j]);
    }
    return scale;
}

/* An inequality `room >= 0` with multiplier `price`, which must not be negative either. */
static void inequality(double room, double price, Residual *out) {
    out->primal = largest(out->primal, -room);
    out->stationarity = largest(out->stationarity, -price);
    if (room > 1e3) room = 1e3;
    if (room > 0.0) out->complementarity = largest(out->complementarity, fabs(price) * room);
}

/* Limits and zones of row k, with their slacks, given moves, setpoints and CVs relative to the
 * point of linearization; adds the multipliers to the gradients over moves and CVs. */
static void limits(const Qp *qp, int k, const double *v, const double *u, const double *z,
                   double *to_v, double *to_u, double *to_z, Residual *out) {
    for (int j = 0; j < HARD; j++) {
        if (!qp->hard_on[k][j]) continue;
        int i = (j % (2 * NV)) >> 1;
        double value = j < 2 * NV ? v[i] : u[i], price = qp->hard_l[k][j];
        inequality(sign_of(j & 1) * (value - qp->hard_at[k][j]), price, out);
        *(j < 2 * NV ? to_v + i : to_u + i) -= sign_of(j & 1) * price;
    }
    for (int j = 0; j < SOFT; j++) {
        if (!qp->soft_on[k][j]) continue;
        int i = j >> 1;
        double price = qp->soft_l[k][j], slack = qp->sigma[k][j];
        inequality(sign_of(j & 1) * (z[i] - qp->soft_at[k][j]) + slack, price, out);
        inequality(slack, qp->sigma_l[k][j], out);
        double dual = qp->price[k][i] + qp->curve[k][i] * slack - price - qp->sigma_l[k][j];
        out->stationarity = largest(out->stationarity, fabs(dual));
        to_z[i] -= sign_of(j & 1) * price;
    }
}

/* Residual of the QP at its answer. */
static Residual certify_qp(const Rti *self) {
    const Qp *qp = &self->qp;
    Residual out = {0.0, 0.0, 0.0};
    double later[NS]; /* what the interval after this node says: A'pi */
    memset(later, 0, sizeof later);
    for (int k = N - 1; k >= 0; k--) {
        double gs[NS], gv[NV], gz[ONE(NZ)], z[ONE(NZ)], moved[NS], next[NS];
        for (int i = 0; i < NS; i++) {
            gs[i] = qp->q[k][i] + later[i] - qp->pi[k][i];
            for (int c = 0; c < NS; c++) gs[i] += qp->Q[k][c][i] * qp->s[k][c];
            moved[i] = k ? qp->s[k - 1][i] : 0.0;
        }
        for (int i = 0; i < NV; i++) {
            gv[i] = qp->R[k][i] * qp->v[k][i] + qp->r[k][i];
            moved[NX + i] += qp->free[k][i] * qp->v[k][i];
        }
        for (int i = 0; i < NZ; i++) {
            z[i] = cv_value(qp, k, i, qp->s[k]);
            gz[i] = 0.0;
        }
        limits(qp, k, qp->v[k], qp->s[k] + NX, z, gv, gs + NX, gz, &out);
        for (int i = 0; i < NZ; i++) cv_back(qp, k, i, gz[i], gs);
        for (int i = 0; i < NX; i++) {
            next[i] = qp->b[k][i];
            for (int c = 0; c < NS; c++) next[i] += qp->A[k][c][i] * moved[c];
        }
        for (int i = NX; i < NS; i++) next[i] = qp->b[k][i] + moved[i];
        for (int c = 0; c < NS; c++) {
            later[c] = c < NX ? 0.0 : qp->pi[k][c];
            for (int i = 0; i < NX; i++) later[c] += qp->A[k][c][i] * qp->pi[k][i];
            out.primal = largest(out.primal, fabs(next[c] - qp->s[k][c]));
            out.stationarity = largest(out.stationarity, fabs(gs[c]));
        }
        for (int i = 0; moving[k] && i < NV; i++)
            out.stationarity =
                largest(out.stationarity, fabs(gv[i] + qp->free[k][i] * later[NX + i]));
    }
    return out;
}

/* Residual of the nonlinear program at the present point, with the multipliers of the last QP;
 * also its cost. Refreshes `next` and `z`. */
static Residual certify_nlp(Rti *self, const Problem *p, double *cost) {
    const Qp *qp = &self->qp;
    Residual out = {0.0, 0.0, 0.0};
    double later[NS];
    memset(later, 0, sizeof later);
    *cost = 0.0;
    for (int k = N - 1; k >= 0; k--) {
        const double *s = self->s[k + 1], *theta = p->theta + k * NT;
        double gv[NV], gu[NV], gz[ONE(NZ)], dv[NV], du[NV], dz[ONE(NZ)], gs[NS], back_v[NV], rate;
        double before[ONE(NZ)];
        memcpy(before, self->z[k], sizeof before);
        const double *node[STAGE_SZ_ARG] = {s, theta};
        double *value[STAGE_SZ_RES] = {self->z[k]};
        node_value(node, value, self->integers, self->work, 0);
        for (int i = 0; i < NV; i++) {
            double away = s[NX + i] - p->rest[i], v = self->v[k][i];
            dv[i] = qp->v[k][i];
            du[i] = qp->s[k][NX + i];
            gv[i] = 2.0 * p->move_weight[i] * v;
            gu[i] = 2.0 * p->rest_weight[i] * away;
            *cost += p->rest_weight[i] * away * away + p->move_weight[i] * v * v;
        }
        for (int i = 0; i < NZ; i++) {
            int at = k * NZ + i;
            double z = self->z[k][i], error = z - p->wanted[at];
            double slack = largest(0.0, largest(p->z_low[at] - z, z - p->z_high[at]));
            dz[i] = z - before[i];
            gz[i] = 2.0 * p->track[at] * error;
            *cost += p->track[at] * error * error + p->price[at] * slack +
                     p->curve[at] * slack * slack;
        }
        limits(qp, k, dv, du, dz, gv, gu, gz, &out);
        const double *adjoint[STAGE_SZ_ARG] = {s, theta, gz};
        double *adjoint_to[STAGE_SZ_RES] = {&rate, gs};
        node_adjoint(adjoint, adjoint_to, self->integers, self->work, 0);
        *cost += rate;
        for (int i = 0; i < NS; i++) gs[i] += later[i] - qp->pi[k][i];
        for (int i = 0; i < NV; i++) gs[NX + i] += gu[i];
        if (k == N - 1)
            for (int c = 0; c < NS; c++) {
                double here = s[c] - p->terminal_at[c];
                for (int i = 0; i < NS; i++) {
                    gs[i] += 2.0 * p->terminal[c * NS + i] * here;
                    *cost += p->terminal[c * NS + i] * here * (s[i] - p->terminal_at[i]);
                }
            }
        certify_interval(self, p, k, qp->pi[k], later, back_v, &out);
        for (int i = 0; i < NS; i++) {
            out.primal = largest(out.primal, fabs(self->next[k][i] - s[i]));
            out.stationarity = largest(out.stationarity, fabs(gs[i]));
        }
        for (int i = 0; moving[k] && i < NV; i++)
            out.stationarity = largest(out.stationarity, fabs(gv[i] + back_v[i]));
    }
    return out;
}
