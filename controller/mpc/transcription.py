"""The optimal control problem as a nonlinear program: multiple shooting, scaled, sparse.

Stage k holds the state (x_k, u_{k-1}) and the control (move_k, slack_k). All variables are scaled
by their spans. The order of variables and constraints is the one in which fatrop recognises the
stages (Vanroye et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass(slots=True, eq=False)
class _Program:
    """The program while it is being written down: symbols, scaling, and what has been collected."""

    augmented: AugmentedModel
    mvs: Sequence[ManipulatedVariable]
    cvs: Sequence[ControlledVariable]
    symbols: dict[str, ca.SX]
    place: ca.DM
    variables: list[ca.SX] = field(default_factory=lambda: list[ca.SX]())
    constraints: list[ca.SX] = field(default_factory=lambda: list[ca.SX]())
    equality: list[bool] = field(default_factory=lambda: list[bool]())
    moves: list[ca.SX] = field(default_factory=lambda: list[ca.SX]())
    prediction: list[ca.SX] = field(default_factory=lambda: list[ca.SX]())
    cost: ca.SX = field(default_factory=lambda: ca.SX(0))

    def state(self, scaled: ca.SX) -> ca.SX:
        model = self.augmented.model
        return scaled * ca.DM([v.span for v in model.x]) + ca.DM(nominal(model.x))

    def scaled_state(self, x: ca.SX) -> ca.SX:
        model = self.augmented.model
        return (x - ca.DM(nominal(model.x))) / ca.DM([v.span for v in model.x])

    def setpoints(self, scaled: ca.SX) -> ca.SX:
        return scaled * ca.DM([mv.span for mv in self.mvs]) + ca.DM([mv.low for mv in self.mvs])

    def scaled_setpoints(self, u: ca.SX) -> ca.SX:
        return (u - ca.DM([mv.low for mv in self.mvs])) / ca.DM([mv.span for mv in self.mvs])

    def inputs(self, scaled: ca.SX) -> ca.SX:
        """All inputs of the model; those that are no MV stay where they are."""
        now = self.symbols["u_now"]
        fixed = now - ca.mtimes(self.place, ca.mtimes(self.place.T, now))
        return fixed + ca.mtimes(self.place, self.setpoints(scaled))

    def outputs(self, x: ca.SX, u: ca.SX) -> ca.SX:
        d, w = self.symbols["d"], self.symbols["w"]
        return self.augmented.output(self.state(x), self.inputs(u), d, w)

    def controlled(self, x: ca.SX, u: ca.SX) -> ca.SX:
        """The CVs, each in its own scale."""
        y = self.outputs(x, u)
        return y[[cv.output for cv in self.cvs]] / ca.DM([cv.scale for cv in self.cvs])

    def constrain(self, expression: ca.SX, *, equal: bool) -> None:
        self.constraints.append(expression)
        self.equality.extend([equal] * int(expression.numel()))

    def charge_tracking(self, cv: ca.SX) -> None:
        weight = ca.DM([v.weight for v in self.cvs]) * self.symbols["tracked"]
        wanted = self.symbols["wanted"] / ca.DM([v.scale for v in self.cvs])
        self.cost += ca.dot(weight, (cv - wanted) ** 2)

    def charge_stage(self, move: ca.SX, slack: ca.SX, u: ca.SX) -> None:
        suppression = ca.DM([mv.move_suppression for mv in self.mvs])
        pull = ca.DM([mv.target_weight for mv in self.mvs])
        distance = u - self.scaled_setpoints(self.symbols["resting"])
        self.cost += ca.dot(suppression, move**2) + ca.dot(pull, distance**2)
        weight = ca.DM([cv.weight for cv in self.cvs])
        self.cost += ca.dot(weight, slack + SLACK_QUADRATIC * slack**2)


def _begin(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
) -> _Program:
    model, n_mv, n_cv = augmented.model, len(mvs), len(cvs)
    sizes = {
        "x0": len(model.x),
        "u_now": len(model.u),
        "w": augmented.nw,
        "d": len(model.d),
        "resting": n_mv,
        "wanted": n_cv,
        "tracked": n_cv,
        "free": n_mv,
    }
    place = ca.DM.zeros(len(model.u), n_mv)
    for column, mv in enumerate(mvs):
        place[mv.input, column] = 1.0
    symbols = {name: ca.SX.sym(name, size) for name, size in sizes.items()}
    return _Program(augmented, mvs, cvs, symbols, place)


def _write_stages(program: _Program, horizon: Horizon) -> None:
    """Variables, constraints and cost of all stages, in the order that fatrop recognises."""
    n_x, n_mv, n_cv = program.augmented.nx, len(program.mvs), len(program.cvs)
    symbols = program.symbols
    x, u = ca.SX.sym("x_0", n_x), ca.SX.sym("u_0", n_mv)
    program.variables += [x, u]
    for k in range(horizon.intervals):
        move, slack = ca.SX.sym(f"move_{k}", n_mv), ca.SX.sym(f"slack_{k}", n_cv)
        x_next, u_next = ca.SX.sym(f"x_{k + 1}", n_x), ca.SX.sym(f"u_{k + 1}", n_mv)
        program.variables += [move, slack, x_next, u_next]
        u_k = u + symbols["free"] * move
        flown = program.augmented.flow(
            program.state(x), program.inputs(u_k), symbols["d"], symbols["w"], horizon.step_s
        )
        program.constrain(x_next - program.scaled_state(flown), equal=True)
        program.constrain(u_next - u_k, equal=True)
        if k == 0:
            now = ca.mtimes(program.place.T, symbols["u_now"])
            program.constrain(x - program.scaled_state(symbols["x0"]), equal=True)
            program.constrain(u - program.scaled_setpoints(now), equal=True)
        program.constrain(u_k, equal=False)
        if k > 0 and n_cv:
            cv = program.controlled(x, u)
            program.constrain(cv + slack, equal=False)
            program.constrain(cv - slack, equal=False)
            program.charge_tracking(cv)
        program.charge_stage(move, slack, u_k)
        program.moves.append(program.setpoints(u_k))
        program.prediction.append(program.outputs(x_next, u_next))
        x, u = x_next, u_next
    if n_cv:
        program.charge_tracking(program.controlled(x, u))


def transcribe(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    horizon: Horizon,
) -> Transcription:
    """Build the nonlinear program of the controller once, for all situations."""
    program = _begin(augmented, mvs, cvs)
    _write_stages(program, horizon)
    p = ca.vertcat(*program.symbols.values())
    v, g = ca.vertcat(*program.variables), ca.vertcat(*program.constraints)
    lam_g, lam_x = ca.SX.sym("lam_g", g.numel()), ca.SX.sym("lam_x", v.numel())
    gradient = ca.gradient(program.cost, v) + ca.jtimes(g, v, lam_g, True) + lam_x
    moves, prediction = ca.horzcat(*program.moves).T, ca.horzcat(*program.prediction).T
    return Transcription(
        augmented,
        tuple(mvs),
        tuple(cvs),
        horizon,
        {"x": v, "p": p, "f": program.cost, "g": g},
        tuple(program.equality),
        ca.Function("read", [v, p], [moves, prediction]),
        ca.Function("check", [v, p, lam_g, lam_x], [program.cost, g, gradient]),
        np.array([variable.span for variable in augmented.model.x]),
        nominal(augmented.model.x),
        np.array([mv.span for mv in mvs]),
    )
