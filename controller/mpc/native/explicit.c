/* Intervals of explicit Runge-Kutta steps: generated code does all of it. */

static int linearize_interval(Rti *self, const Problem *p, int k) {
    const double *arg[STAGE_SZ_ARG] = {self->s[k], self->v[k], p->theta + k * NT};
    double *res[STAGE_SZ_RES] = {self->next[k], self->A};
    interval_jacobian(arg, res, self->integers, self->work, 0);
    return 1;
}

static void step_inside(Rti *self, int k) {
    (void)self;
    (void)k;
}

static void certify_interval(Rti *self, const Problem *p, int k, const double *pi, double *back_s,
                             double *back_v, Residual *out) {
    (void)out;
    const double *arg[STAGE_SZ_ARG] = {self->s[k], self->v[k], p->theta + k * NT, pi};
    double *res[STAGE_SZ_RES] = {self->next[k], back_s, back_v};
    interval_adjoint(arg, res, self->integers, self->work, 0);
}
