"""The optimal control problem one interval at a time: the functions every solver is built from.

Node k holds the state s = (x, u), interval k the move v of the MVs; u is the setpoint in use after
the move. Everything is scaled: states by their spans around their nominal values, MVs by their
spans above their low limits, CVs by their own scales. theta (nt,) holds what an interval needs to
know of the present: estimated disturbances w, measured ones d, all inputs of the model as they are
now, and which MVs may move. Intervals are explicit Runge–Kutta steps, or, of stiff models and those
with algebraic equations, Radau collocation; every solver sees the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from controller.estimation.augmented import AugmentedModel
from controller.mpc.collocation import Collocation, collocate, radau_steps, solved_interval
from controller.mpc.problem import ControlledVariable, Horizon, ManipulatedVariable
from plant_models.process import Vector, nominal


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One interval and one node of the problem.

    Attributes:
        interval: CasADi function (s, v, theta) -> s at the end of the interval, (ns,).
        controlled: CasADi function (s, theta) -> CVs in their scales, (n_cv,).
        economic: CasADi function (s, theta) -> cost of one interval spent at s, a number.
        outputs: CasADi function (s, theta) -> (setpoints (n_mv,), outputs (ny,)), in units.
        x_scale, x_offset, u_scale, u_offset, cv_scale: of the scaling.
        collocation: the equations behind `interval` where it is implicit, else None.
    """

    augmented: AugmentedModel
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    horizon: Horizon
    interval: ca.Function
    controlled: ca.Function
    economic: ca.Function
    outputs: ca.Function
    x_scale: Vector
    x_offset: Vector
    u_scale: Vector
    u_offset: Vector
    cv_scale: Vector
    collocation: Collocation | None = None

    @property
    def ns(self) -> int:
        return self.augmented.nx + len(self.mvs)

    @property
    def nt(self) -> int:
        return int(self.interval.numel_in(2))

    @property
    def symbol(self) -> Any:
        """The kind of CasADi expression that all functions take: SX or MX."""
        return self.augmented.model.symbol if self.collocation is None else ca.MX

    def __str__(self) -> str:
        return (
            f"MPC: {len(self.mvs)} MVs, {len(self.cvs)} CVs, {self.augmented.nx} states, "
            f"{self.horizon.intervals} intervals of {self.horizon.step_s:g} s"
            + (f", {self.collocation.steps} Radau steps each" if self.collocation else "")
        )


def make_stage(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    horizon: Horizon,
    economic: ca.Function | None = None,
) -> Stage:
    """The functions of the problem.

    Args:
        economic: CasADi function (x, u, d, y) -> cost per interval, in the weights' currency;
            None: only targets, zones and moves cost.
    """
    model = augmented.model
    symbol = model.symbol
    nx, nu, nd, nw, n_mv = len(model.x), len(model.u), len(model.d), augmented.nw, len(mvs)
    s, v = symbol.sym("s", nx + n_mv), symbol.sym("v", n_mv)
    theta = symbol.sym("theta", nw + nd + nu + n_mv)
    w, d = theta[:nw], theta[nw : nw + nd]
    now, free = theta[nw + nd : nw + nd + nu], theta[nw + nd + nu :]
    x_scale, x_offset = np.array([i.span for i in model.x]), nominal(model.x)
    u_scale, u_offset = np.array([mv.span for mv in mvs]), np.array([mv.low for mv in mvs])
    cv_scale = np.array([cv.scale for cv in cvs])

    place = np.zeros((nu, n_mv))
    for column, mv in enumerate(mvs):
        place[mv.input, column] = 1.0
    others = np.eye(nu) - place @ place.T

    def inputs(scaled: Any) -> Any:
        """All inputs of the model; those that are no MV stay where they are."""
        setpoints = scaled * u_scale + u_offset
        return ca.mtimes(ca.DM(others), now) + ca.mtimes(ca.DM(place), setpoints)

    x, u = s[:nx] * x_scale + x_offset, s[nx:]
    moved = u + free * v
    steps = radau_steps(model, horizon.step_s)
    if steps:
        at, used = symbol.sym("x", nx), symbol.sym("u", n_mv)
        slope = augmented.derivative(at * x_scale + x_offset, inputs(used), d, w)
        rate = ca.Function("rate", [at, used, theta], [slope * (horizon.step_s / x_scale)])
        collocation = collocate(rate, symbol, steps, n_mv)
        interval = solved_interval(collocation)
    else:
        collocation = None
        flown = augmented.flow(x, inputs(moved), d, w, horizon.step_s)
        after = ca.vertcat((flown - x_offset) / x_scale, moved)
        interval = ca.Function("interval", [s, v, theta], [after], ["s", "v", "theta"], ["next"])
    y = augmented.output(x, inputs(u), d, w)
    rows = [cv.output for cv in cvs]
    z = y[rows] / cv_scale if rows else symbol(0, 1)
    cost = economic(x, inputs(u), d, y) if economic is not None else symbol(0)
    return Stage(
        augmented,
        tuple(mvs),
        tuple(cvs),
        horizon,
        interval,
        ca.Function("controlled", [s, theta], [z], ["s", "theta"], ["z"]),
        ca.Function("economic", [s, theta], [cost], ["s", "theta"], ["cost"]),
        ca.Function("outputs", [s, theta], [u * u_scale + u_offset, y]),
        x_scale,
        x_offset,
        u_scale,
        u_offset,
        cv_scale,
        collocation,
    )
