"""The optimal control problem as a nonlinear program: multiple shooting, scaled, sparse.

The order of variables and constraints is the one in which HPIPM recognises the stages:
node k holds its state, then the move of its interval and the slacks of its zones.
Behind the last node stands one more without meaning, so that the last zones have their slacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import casadi as ca
import numpy as np

from controller.mpc.collocation import Collocation
from controller.mpc.instance import Instance
from controller.mpc.stage import Stage
from plant_models.process import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Transcription:
    """The nonlinear program and the way between instances and its arguments.

    Attributes:
        nlp: dict with x, p, f, g for `casadi.nlpsol`.
        read: CasADi function (x, p) -> (moves (N, n_mv), prediction (N, ny)) in units.
        check: CasADi function (x, p, lam_g, lam_x) -> (f, g, Lagrangian gradient).
        states, moves, inner: where nodes, intervals and the stage values of implicit intervals
            are among the variables.
    """

    stage: Stage
    nlp: dict[str, Any]
    read: ca.Function
    check: ca.Function
    states: tuple[slice, ...]
    moves: tuple[slice | None, ...]
    inner: tuple[slice, ...] = ()

    def parameters(self, instance: Instance) -> Vector:
        """The parameter vector p of the program."""
        return _parameters(instance)

    def bounds(self, instance: Instance) -> tuple[Vector, Vector, Vector, Vector]:
        """Bounds (lbx, ubx, lbg, ubg) of the program."""
        stage, n = self.stage, self.stage.horizon.intervals
        nx, ns, n_cv = stage.augmented.nx, stage.ns, len(stage.cvs)
        endless, none = np.full(nx, np.inf), np.zeros(0)
        wide, slack = np.full(n_cv, np.inf), np.zeros(n_cv)
        low, high = [np.full(ns, -np.inf)], [np.full(ns, np.inf)]
        low_g, high_g = [np.zeros(ns)], [np.zeros(ns)]
        collocation = stage.collocation
        unknown = np.zeros(collocation.size if collocation else 0)
        for k in range(n):
            moving = self.moves[k] is not None
            low.append(instance.v_low[k] if moving else none)
            high.append(instance.v_high[k] if moving else none)
            if k:
                low.append(slack)
                high.append(wide)
            low += [unknown - np.inf, -endless, instance.u_low[k]]
            high += [unknown + np.inf, endless, instance.u_high[k]]
            zones = k > 0
            low_g += [np.zeros(ns), unknown, *([instance.z_low[k - 1], -wide] if zones else [])]
            high_g += [np.zeros(ns), unknown, *([wide, instance.z_high[k - 1]] if zones else [])]
        low += [slack, np.full(1, -np.inf)]
        high += [wide, np.full(1, np.inf)]
        low_g += [np.zeros(1), instance.z_low[-1], -wide]
        high_g += [np.zeros(1), wide, instance.z_high[-1]]
        return tuple(np.concatenate(part) for part in (low, high, low_g, high_g))  # pyright: ignore[reportReturnType]

    def variables(self, s: Vector, v: Vector) -> Vector:
        """The variables at states s (N+1, ns) and moves v (N, n_mv), without slack; stage values
        of implicit intervals lie between the states."""
        x = np.zeros(int(self.nlp["x"].numel()))
        for k, part in enumerate(self.states):
            x[part] = s[k]
        for k, part in enumerate(self.moves):
            if part is not None:
                x[part] = v[k]
        if self.stage.collocation is not None:
            for part, values in zip(self.inner, self.stage.collocation.between(s), strict=True):
                x[part] = values
        x[-1] = s[-1][0]
        return x

    def trajectory(self, x: Vector) -> tuple[Vector, Vector]:
        """States (N+1, ns) and moves (N, n_mv) of the variables."""
        none = np.zeros(len(self.stage.mvs))
        s = np.array([x[part] for part in self.states])
        v = np.array([none if part is None else x[part] for part in self.moves])
        return s, v

    def __str__(self) -> str:
        return (
            f"{self.stage}, {self.nlp['x'].numel()} variables, {self.nlp['g'].numel()} constraints"
        )


def _parameters(instance: Instance) -> Vector:
    return np.concatenate(
        [
            np.ravel(part)
            for part in (
                instance.s0,
                instance.rest,
                instance.rest_weight,
                instance.move_weight,
                instance.terminal,
                instance.terminal_at,
                instance.theta,
                instance.wanted,
                instance.track,
                instance.price,
                instance.curve,
            )
        ]
    )


@dataclass(slots=True, eq=False)
class _Program:
    """The program while it is being written down."""

    stage: Stage
    variables: list[Any] = field(default_factory=lambda: list[Any]())
    constraints: list[Any] = field(default_factory=lambda: list[Any]())
    cost: Any = 0.0
    size: int = 0

    def variable(self, name: str, size: int) -> tuple[Any, slice]:
        symbol = ca.MX.sym(name, size)
        self.variables.append(symbol)
        place = slice(self.size, self.size + size)
        self.size += size
        return symbol, place

    def constrain(self, expression: Any) -> None:
        self.constraints.append(expression)


@dataclass(slots=True, eq=False)
class _Symbols:
    """The parameters of the program, by name as in `Instance`; rows over the horizon by number."""

    values: dict[str, Any]

    def __init__(self, stage: Stage) -> None:
        n, n_mv, n_cv = stage.horizon.intervals, len(stage.mvs), len(stage.cvs)
        sizes = {
            "s0": (stage.ns, 1),
            "rest": (n_mv, 1),
            "rest_weight": (n_mv, 1),
            "move_weight": (n_mv, 1),
            "terminal": (stage.ns, stage.ns),
            "terminal_at": (stage.ns, 1),
            "theta": (stage.nt, n),
            "wanted": (n_cv, n),
            "track": (n_cv, n),
            "price": (n_cv, n),
            "curve": (n_cv, n),
        }
        self.values = {name: ca.MX.sym(name, *size) for name, size in sizes.items()}

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def row(self, name: str, k: int) -> Any:
        return self.values[name][:, k]

    def stacked(self) -> Any:
        return ca.vertcat(*[ca.vec(value) for value in self.values.values()])


def transcribe(stage: Stage) -> Transcription:
    """Build the nonlinear program of the controller once, for all situations."""
    n, nx, n_mv, n_cv = stage.horizon.intervals, stage.augmented.nx, len(stage.mvs), len(stage.cvs)
    program, p = _Program(stage), _Symbols(stage)
    states: list[slice] = []
    moves: list[slice | None] = []
    inner: list[slice] = []
    read: list[tuple[Any, Any]] = []
    s, place = program.variable("s_0", stage.ns)
    states.append(place)
    for k in range(n):
        theta, v = p.row("theta", k), ca.MX.zeros(n_mv)
        moves.append(None)
        if stage.horizon.moving[k]:
            v, moves[k] = program.variable(f"v_{k}", n_mv)
            program.cost += ca.dot(p["move_weight"], v**2)
        slack = program.variable(f"slack_{k}", n_cv)[0] if k else None
        if stage.collocation is None:
            after, place = program.variable(f"s_{k + 1}", stage.ns)
            program.constrain(after - stage.interval(s, v, theta))
        else:
            after, place = _write_implicit(program, stage.collocation, k, (s, v, theta), inner)
        states.append(place)
        if k == 0:
            program.constrain(s - p["s0"])
        else:
            _write_zone(program, p, s, slack, k - 1)
        program.cost += ca.dot(p["rest_weight"], (after[nx:] - p["rest"]) ** 2)
        program.cost += stage.economic(after, theta)
        error = stage.controlled(after, theta) - p.row("wanted", k)
        program.cost += ca.dot(p.row("track", k), error**2)
        read.append(stage.outputs(after, theta))
        s = after
    away = s - p["terminal_at"]
    program.cost += ca.dot(away, ca.mtimes(p["terminal"], away))
    slack, _ = program.variable(f"slack_{n}", n_cv)
    behind, _ = program.variable("behind", 1)
    program.constrain(behind - s[0])
    _write_zone(program, p, s, slack, n - 1)
    return _finish(program, p, (tuple(states), tuple(moves), tuple(inner)), read)


def _write_implicit(
    program: _Program,
    collocation: Collocation,
    k: int,
    at: tuple[Any, Any, Any],
    inner: list[slice],
) -> tuple[Any, slice]:
    """Interval k by collocation: its stage values are variables, its equations constraints."""
    unknown, place = program.variable(f"inner_{k}", collocation.size)
    inner.append(place)
    after, place = program.variable(f"s_{k + 1}", program.stage.ns)
    residual, end = collocation.equations(*at, unknown)
    program.constrain(after - end)
    program.constrain(residual)
    return after, place


def _write_zone(program: _Program, p: _Symbols, s: Any, slack: Any, k: int) -> None:
    """Zones of the node in which interval k ends."""
    z = program.stage.controlled(s, p.row("theta", k))
    program.constrain(z + slack)
    program.constrain(z - slack)
    program.cost += ca.dot(p.row("price", k), slack) + ca.dot(p.row("curve", k), slack**2)


def _finish(
    program: _Program,
    symbols: _Symbols,
    places: tuple[tuple[slice, ...], tuple[slice | None, ...], tuple[slice, ...]],
    read: list[tuple[Any, Any]],
) -> Transcription:
    x, g, p = ca.vertcat(*program.variables), ca.vertcat(*program.constraints), symbols.stacked()
    symbol = ca.MX
    lam_g, lam_x = symbol.sym("lam_g", g.numel()), symbol.sym("lam_x", x.numel())
    gradient = ca.gradient(program.cost, x) + ca.jtimes(g, x, lam_g, True) + lam_x
    setpoints = ca.horzcat(*[m for m, _ in read]).T
    prediction = ca.horzcat(*[y for _, y in read]).T
    return Transcription(
        program.stage,
        {"x": x, "p": p, "f": program.cost, "g": g},
        ca.Function("read", [x, p], [setpoints, prediction]),
        ca.Function("check", [x, p, lam_g, lam_x], [program.cost, g, gradient]),
        *places,
    )
