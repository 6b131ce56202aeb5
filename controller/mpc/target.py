"""Steady-state target: where the plant should rest, given today's disturbances and limits.

Solved every cycle with the current disturbance estimate, which is what removes offset (Muske &
Badgwell 2002). Zones and setpoints come first, resting values of the MVs second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from controller.estimation.augmented import AugmentedModel
from controller.mpc.problem import ControlledVariable, ManipulatedVariable, Situation, Target
from controller.mpc.verify import certify
from plant_models.process import Vector, nominal

# Without any wish, an MV rests where it is: just enough weight to make the answer unique.
INERTIA = 1e-4
# CV errors count this much more than resting values: limits first, economics second.
LIMITS_FIRST = 1e2


@dataclass(frozen=True, slots=True, eq=False)
class TargetCalculation:
    """min sum of weighted zone slack, setpoint error and distance to resting values
    over (x, u, slack), subject to f(x, u, d, w) = 0 and the limits."""

    augmented: AugmentedModel
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    solvers: tuple[ca.Function, ...]
    check: ca.Function
    read: ca.Function
    x_scale: Vector
    x_offset: Vector

    def __call__(self, situation: Situation) -> Target:
        """Target for this situation; `solved` is False (and it rests here) when none is found."""
        nx, n_mv, n_cv = self.augmented.nx, len(self.mvs), len(self.cvs)
        index = [mv.input for mv in self.mvs]
        low = np.array([mv.low for mv in self.mvs])
        span = np.array([mv.span for mv in self.mvs])
        now = situation.u_now[index]
        wish = np.where(np.isfinite(situation.resting), situation.resting, now)
        wish_weight = np.where(
            np.isfinite(situation.resting),
            np.array([mv.target_weight for mv in self.mvs]),
            INERTIA,
        )
        tracked = np.isfinite(situation.setpoint)
        p = np.concatenate(
            [
                situation.w,
                situation.d,
                situation.u_now,
                (wish - low) / span,
                wish_weight,
                np.where(tracked, situation.setpoint, 0.0),
                tracked,
            ]
        )
        free = situation.free > 0
        u_low = np.where(free, situation.mv_low, now)
        u_high = np.where(free, situation.mv_high, now)
        scale = np.array([cv.scale for cv in self.cvs])
        infinite_x, infinite_y = np.full(nx, np.inf), np.full(n_cv, np.inf)
        lbx = np.concatenate([-infinite_x, (u_low - low) / span, np.zeros(n_cv)])
        ubx = np.concatenate([infinite_x, (u_high - low) / span, infinite_y])
        lbg = np.concatenate([np.zeros(nx), situation.cv_low / scale, -infinite_y])
        ubg = np.concatenate([np.zeros(nx), infinite_y, situation.cv_high / scale])
        # Beginning at the last target saves nothing: without its multipliers the SQP stalls there.
        guess = np.concatenate(
            [(situation.x - self.x_offset) / self.x_scale, (now - low) / span, np.zeros(n_cv)]
        )
        fault = "no solver"
        v = guess
        for solve in self.solvers:
            try:
                result = solve(x0=guess, p=p, lbx=lbx, ubx=ubx, lbg=lbg, ubg=ubg)
            except RuntimeError as error:  # CasADi reports every plugin failure as this type.
                fault = f"broke: {error}"
                continue
            v = np.asarray(result["x"]).ravel()
            lam_x, lam_g = np.asarray(result["lam_x"]).ravel(), np.asarray(result["lam_g"]).ravel()
            g, gradient = (np.asarray(m).ravel() for m in self.check(v, p, lam_g, lam_x))
            fault = certify(
                np.concatenate([v, g]),
                gradient,
                np.concatenate([lbx, lbg]),
                np.concatenate([ubx, ubg]),
                np.concatenate([lam_x, lam_g]),
            ).fault
            if not fault:
                break
        if fault:
            return self._stay(situation, fault)
        u, y = (np.asarray(m).ravel() for m in self.read(v, p))
        x = v[:nx] * self.x_scale + self.x_offset
        return Target(u, x, y, v[nx + n_mv :] * scale, True)

    def _stay(self, situation: Situation, reason: str) -> Target:
        y = np.asarray(
            self.augmented.output(situation.x, situation.u_now, situation.d, situation.w)
        ).ravel()
        for cv, setpoint in zip(self.cvs, situation.setpoint, strict=True):
            if np.isfinite(setpoint):
                y[cv.output] = setpoint
        return Target(situation.u_now, situation.x, y, np.zeros(len(self.cvs)), False, reason)


def target_calculation(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    iterations: int = 15,
) -> TargetCalculation:
    """Build the target problem once, for all situations."""
    model = augmented.model
    nx, nu, n_mv, n_cv = len(model.x), len(model.u), len(mvs), len(cvs)
    x_scale, x_offset = np.array([v.span for v in model.x]), nominal(model.x)
    xs, us, slack = ca.SX.sym("x", nx), ca.SX.sym("u", n_mv), ca.SX.sym("slack", n_cv)
    w, d = ca.SX.sym("w", augmented.nw), ca.SX.sym("d", len(model.d))
    u_now = ca.SX.sym("u_now", nu)
    wish, wish_weight = ca.SX.sym("wish", n_mv), ca.SX.sym("wish_weight", n_mv)
    wanted, tracked = ca.SX.sym("wanted", n_cv), ca.SX.sym("tracked", n_cv)
    u = ca.SX(u_now)
    for i, mv in enumerate(mvs):
        u[mv.input] = us[i] * mv.span + mv.low
    x = xs * ca.DM(x_scale) + ca.DM(x_offset)
    y = augmented.output(x, u, d, w)
    rows, scale = [cv.output for cv in cvs], ca.DM([cv.scale for cv in cvs])
    weight = LIMITS_FIRST * ca.DM([cv.weight for cv in cvs])
    error = (y[rows] - wanted) / scale
    cost = (
        ca.dot(weight * tracked, error**2)
        + ca.dot(weight, slack + slack**2)
        + ca.dot(wish_weight, (us - wish) ** 2)
    )
    # Time is scaled by an hour so that balances and limits are of the same order.
    balance = augmented.derivative(x, u, d, w) / ca.DM(x_scale) * 3600.0
    v = ca.vertcat(xs, us, slack)
    g = ca.vertcat(balance, y[rows] / scale + slack, y[rows] / scale - slack)
    p = ca.vertcat(w, d, u_now, wish, wish_weight, wanted, tracked)
    lam_g, lam_x = ca.SX.sym("lam_g", g.numel()), ca.SX.sym("lam_x", v.numel())
    gradient = ca.gradient(cost, v) + ca.jtimes(g, v, lam_g, True) + lam_x
    nlp = {"x": v, "p": p, "f": cost, "g": g}
    quiet = {"print_time": False, "error_on_fail": False, "show_eval_warnings": False}
    lam_f = ca.SX.sym("lam_f")
    hessian = lam_f * ca.hessian(cost, v)[0]
    quick = ca.nlpsol(
        "target_sqp",
        "sqpmethod",
        nlp,
        {
            **quiet,
            "print_header": False,
            "print_iteration": False,
            "print_status": False,
            "max_iter": iterations,
            "tol_du": 1e-6,
            "tol_pr": 1e-8,
            "hess_lag": ca.Function("gauss_newton", [v, p, lam_f, lam_g], [hessian]),
            "qpsol": "qrqp",
            "qpsol_options": {
                "print_time": False,
                "error_on_fail": False,
                "print_iter": False,
                "print_header": False,
                "print_info": False,
            },
        },
    )
    sure = ca.nlpsol(
        "target_ipopt",
        "ipopt",
        nlp,
        {**quiet, "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 100, "tol": 1e-8}},
    )
    return TargetCalculation(
        augmented,
        tuple(mvs),
        tuple(cvs),
        (quick, sure),
        ca.Function("check", [v, p, lam_g, lam_x], [g, gradient]),
        ca.Function("read", [v, p], [u, y]),
        x_scale,
        x_offset,
    )
