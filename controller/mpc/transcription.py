"""The optimal control problem as a nonlinear program: multiple shooting, scaled, sparse.

Stage k holds the state (x_k, u_{k-1}) and the control (move_k, slack_k). All variables are scaled
by their spans. The order of variables and constraints is the one in which fatrop recognises the
stages (Vanroye et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from controller.estimation.augmented import AugmentedModel
from controller.mpc.problem import (
    ControlledVariable,
    Horizon,
    ManipulatedVariable,
    Situation,
    Target,
)
from plant_models.process import Vector, nominal

# A zone violation costs `weight` per scale, linear and quadratic: the linear part makes the
# penalty exact (no violation while one can be avoided), the quadratic part spreads what cannot.
SLACK_QUADRATIC = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Transcription:
    """The nonlinear program and the way from situations to its arguments.

    Attributes:
        nlp: dict with x, p, f, g for `casadi.nlpsol`.
        equality: per constraint, True for an equality.
        read: CasADi function (w, p) -> (moves (N, n_mv), prediction (N, ny)).
        check: CasADi function (w, p, lam_g, lam_x) -> (f, g, Lagrangian gradient).
    """

    augmented: AugmentedModel
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    horizon: Horizon
    nlp: dict[str, ca.SX]
    equality: tuple[bool, ...]
    read: ca.Function
    check: ca.Function
    x_scale: Vector
    x_offset: Vector
    u_scale: Vector

    @property
    def stage_state(self) -> int:
        return self.augmented.nx + len(self.mvs)

    @property
    def stage_control(self) -> int:
        return len(self.mvs) + len(self.cvs)

    def parameters(self, situation: Situation, target: Target) -> Vector:
        """The parameter vector p of the program."""
        wanted = [
            target.y[cv.output] if np.isfinite(sp) else 0.0
            for cv, sp in zip(self.cvs, situation.setpoint, strict=True)
        ]
        tracked = np.isfinite(situation.setpoint).astype(np.float64)
        resting = target.u[[mv.input for mv in self.mvs]]
        return np.concatenate(
            [
                situation.x,
                situation.u_now,
                situation.w,
                situation.d,
                resting,
                wanted,
                tracked,
                situation.free,
            ]
        )

    def bounds(self, situation: Situation) -> tuple[Vector, Vector, Vector, Vector]:
        """Bounds (lbx, ubx, lbg, ubg) of the program."""
        n, intervals = self.stage_state, self.horizon.intervals
        rate = np.array([mv.rate_per_s for mv in self.mvs]) / self.u_scale
        free_state = np.full(n, np.inf)
        slack_low, slack_high = np.zeros(len(self.cvs)), np.full(len(self.cvs), np.inf)
        low: list[Vector] = []
        high: list[Vector] = []
        for k in range(intervals):
            seconds = self.horizon.cycle_s if k == 0 else self.horizon.step_s
            move = rate * seconds
            low += [-free_state, -move * (1 - situation.blocked_down), slack_low]
            high += [free_state, move * (1 - situation.blocked_up), slack_high]
        low.append(-free_state)
        high.append(free_state)
        lbg, ubg = self._constraint_bounds(situation)
        return np.concatenate(low), np.concatenate(high), lbg, ubg

    def _constraint_bounds(self, situation: Situation) -> tuple[Vector, Vector]:
        u_mid = np.array([mv.low for mv in self.mvs])
        # An MV outside its limits may come back at its rate: the limit gives way to where it is.
        now = (situation.u_now[[mv.input for mv in self.mvs]] - u_mid) / self.u_scale
        u_low = np.minimum((situation.mv_low - u_mid) / self.u_scale, now)
        u_high = np.maximum((situation.mv_high - u_mid) / self.u_scale, now)
        scale = np.array([cv.scale for cv in self.cvs])
        cv_low, cv_high = situation.cv_low / scale, situation.cv_high / scale
        infinite = np.full(len(self.cvs), np.inf)
        low: list[Vector] = []
        high: list[Vector] = []
        for k in range(self.horizon.intervals):
            zero = np.zeros(self.stage_state)
            low.append(zero)
            high.append(zero)
            if k == 0:
                low.append(zero)
                high.append(zero)
            low.append(u_low)
            high.append(u_high)
            if k > 0:
                low += [cv_low, -infinite]
                high += [infinite, cv_high]
        return np.concatenate(low), np.concatenate(high)

    def guess(self, situation: Situation) -> Vector:
        """A first guess: stay where we are."""
        x = (situation.x - self.x_offset) / self.x_scale
        now = situation.u_now[[mv.input for mv in self.mvs]]
        u = (now - np.array([mv.low for mv in self.mvs])) / self.u_scale
        stage = np.concatenate([x, u, np.zeros(self.stage_control)])
        tail = np.concatenate([x, u])
        return np.concatenate([np.tile(stage, self.horizon.intervals), tail])

    def __str__(self) -> str:
        return (
            f"MPC: {len(self.mvs)} MVs, {len(self.cvs)} CVs, {self.horizon.intervals} intervals of "
            f"{self.horizon.step_s:g} s, {self.nlp['x'].numel()} variables, "
            f"{self.nlp['g'].numel()} constraints"
        )


def transcribe(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    horizon: Horizon,
) -> Transcription:
    """Build the nonlinear program of the controller once, for all situations."""
    model = augmented.model
    nx, nu, n_mv, n_cv = len(model.x), len(model.u), len(mvs), len(cvs)
    x_scale = np.array([v.span for v in model.x])
    x_offset = nominal(model.x)
    u_scale = np.array([mv.span for mv in mvs])
    u_offset = np.array([mv.low for mv in mvs])
    symbols = {
        "x0": ca.SX.sym("x0", nx),
        "u_now": ca.SX.sym("u_now", nu),
        "w": ca.SX.sym("w", augmented.nw),
        "d": ca.SX.sym("d", len(model.d)),
        "resting": ca.SX.sym("resting", n_mv),
        "wanted": ca.SX.sym("wanted", n_cv),
        "tracked": ca.SX.sym("tracked", n_cv),
        "free": ca.SX.sym("free", n_mv),
    }
    p = ca.vertcat(*symbols.values())
    place = ca.DM.zeros(nu, n_mv)
    for column, mv in enumerate(mvs):
        place[mv.input, column] = 1.0
    fixed = symbols["u_now"] - ca.mtimes(place, ca.mtimes(place.T, symbols["u_now"]))

    def inputs(u_scaled: ca.SX) -> ca.SX:
        return fixed + ca.mtimes(place, u_scaled * ca.DM(u_scale) + ca.DM(u_offset))

    def outputs(x_scaled: ca.SX, u_scaled: ca.SX) -> ca.SX:
        x = x_scaled * ca.DM(x_scale) + ca.DM(x_offset)
        return augmented.output(x, inputs(u_scaled), symbols["d"], symbols["w"])

    cv_rows = [cv.output for cv in cvs]
    cv_scale = ca.DM([cv.scale for cv in cvs])
    weight = ca.DM([cv.weight for cv in cvs])
    suppression = ca.DM([mv.move_suppression for mv in mvs])
    pull = ca.DM([mv.target_weight for mv in mvs])
    resting = (symbols["resting"] - ca.DM(u_offset)) / ca.DM(u_scale)

    variables: list[ca.SX] = []
    constraints: list[ca.SX] = []
    equality: list[bool] = []
    moves: list[ca.SX] = []
    prediction: list[ca.SX] = []
    cost = ca.SX(0)

    def constrain(expression: ca.SX, equal: bool) -> None:
        constraints.append(expression)
        equality.extend([equal] * int(expression.numel()))

    def tracking(y: ca.SX) -> ca.SX:
        error = (y[cv_rows] - symbols["wanted"]) / cv_scale
        return ca.dot(weight * symbols["tracked"], error**2)

    x, u = ca.SX.sym("x_0", nx), ca.SX.sym("u_0", n_mv)
    variables += [x, u]
    for k in range(horizon.intervals):
        move = ca.SX.sym(f"move_{k}", n_mv)
        slack = ca.SX.sym(f"slack_{k}", n_cv)
        x_next, u_next = ca.SX.sym(f"x_{k + 1}", nx), ca.SX.sym(f"u_{k + 1}", n_mv)
        variables += [move, slack, x_next, u_next]
        u_k = u + symbols["free"] * move
        x_real = x * ca.DM(x_scale) + ca.DM(x_offset)
        flown = augmented.flow(x_real, inputs(u_k), symbols["d"], symbols["w"], horizon.step_s)
        constrain(x_next - (flown - ca.DM(x_offset)) / ca.DM(x_scale), True)
        constrain(u_next - u_k, True)
        if k == 0:
            constrain(x - (symbols["x0"] - ca.DM(x_offset)) / ca.DM(x_scale), True)
            now = ca.mtimes(place.T, symbols["u_now"])
            constrain(u - (now - ca.DM(u_offset)) / ca.DM(u_scale), True)
        constrain(u_k, False)
        if k > 0 and n_cv:
            y = outputs(x, u)
            constrain(y[cv_rows] / cv_scale + slack, False)
            constrain(y[cv_rows] / cv_scale - slack, False)
            cost += tracking(y)
        cost += ca.dot(suppression, move**2) + ca.dot(pull, (u_k - resting) ** 2)
        cost += ca.dot(weight, slack + SLACK_QUADRATIC * slack**2)
        moves.append(u_k * ca.DM(u_scale) + ca.DM(u_offset))
        prediction.append(outputs(x_next, u_next))
        x, u = x_next, u_next
    cost += tracking(outputs(x, u))

    w_all, g_all = ca.vertcat(*variables), ca.vertcat(*constraints)
    lam_g, lam_x = ca.SX.sym("lam_g", g_all.numel()), ca.SX.sym("lam_x", w_all.numel())
    gradient = ca.gradient(cost, w_all) + ca.jtimes(g_all, w_all, lam_g, True) + lam_x
    return Transcription(
        augmented,
        tuple(mvs),
        tuple(cvs),
        horizon,
        {"x": w_all, "p": p, "f": cost, "g": g_all},
        tuple(equality),
        ca.Function("read", [w_all, p], [ca.horzcat(*moves).T, ca.horzcat(*prediction).T]),
        ca.Function("check", [w_all, p, lam_g, lam_x], [cost, g_all, gradient]),
        x_scale,
        x_offset,
        u_scale,
    )
