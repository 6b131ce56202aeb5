"""Our side: the production ladder, called as the cycle calls it, with the state known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import casadi as ca
import numpy as np
from msgspec import structs

from controller.app import fast_rungs
from controller.estimation.augmented import augment
from controller.mpc.ladder import Ladder, PlannerState, make_ladder
from controller.mpc.problem import (
    ControlledVariable,
    Horizon,
    ManipulatedVariable,
    Situation,
    Target,
)
from controller.mpc.stage import Stage, make_stage
from hil.bench.case import BenchCase
from hil.bench.side import Solved
from plant_models.process import Vector

FALLBACK: tuple[tuple[str, int], ...] = (("sqp", 12),)
"""Below the fast rung. The interior-point rungs are left out: stiff or large problems take them
minutes to build, and in none of the cases are they reached."""
PLAN_AGE_MAX = 3


def manipulated(case: BenchCase) -> tuple[ManipulatedVariable, ...]:
    """The inputs of the case as MVs. Where it has no rate limit, a step may cross the span."""
    return tuple(
        ManipulatedVariable(
            name=variable.name,
            input=i,
            unit=variable.unit,
            low=given.low,
            high=given.high,
            rate_per_s=min(given.rate_per_s, given.span / case.step_s),
            move_suppression=given.move_weight,
            target_weight=given.rest_weight,
        )
        for i, (variable, given) in enumerate(zip(case.model.u, case.inputs, strict=True))
    )


def controlled(case: BenchCase) -> tuple[ControlledVariable, ...]:
    """Tracked outputs and zones of the case as CVs, in this order."""
    inf = float("inf")
    y = case.model.y
    tracked = [
        ControlledVariable(
            f"{y[t.output].name} at {t.reference:g}",
            t.output,
            y[t.output].unit,
            -inf,
            inf,
            t.reference,
            t.weight,
            t.scale,
        )
        for t in case.tracked
    ]
    zones = [
        ControlledVariable(
            f"{y[z.output].name} in zone",
            z.output,
            y[z.output].unit,
            z.low,
            z.high,
            None,
            z.weight,
            z.scale,
        )
        for z in case.zones
    ]
    return (*tracked, *zones)


def situation(case: BenchCase, x: Vector, u_now: Vector) -> Situation:
    """The case's limits and references, here and now."""
    cvs = controlled(case)
    return Situation(
        x=x,
        w=np.zeros(0),
        d=case.d,
        u_now=u_now,
        mv_low=np.array([v.low for v in case.inputs]),
        mv_high=np.array([v.high for v in case.inputs]),
        cv_low=np.array([cv.low for cv in cvs]),
        cv_high=np.array([cv.high for cv in cvs]),
        setpoint=np.array([np.nan if cv.setpoint is None else cv.setpoint for cv in cvs]),
        free=np.ones(len(case.inputs)),
        blocked_up=np.zeros(len(case.inputs)),
        blocked_down=np.zeros(len(case.inputs)),
        resting=np.array([v.rest for v in case.inputs]),
    )


def target(case: BenchCase) -> Target:
    """The case's references and resting values, which no target layer may change here."""
    y = np.zeros(len(case.model.y))
    for cv in case.tracked:
        y[cv.output] = cv.reference
    rest = np.array([v.rest for v in case.inputs])
    return Target(rest, case.x0, y, np.zeros(len(controlled(case))), True)


def build_ladder(
    case: BenchCase, fallback: Sequence[tuple[str, int]] = FALLBACK, *, fast: bool = True
) -> Ladder:
    """The production ladder for this case, disturbance estimation left out.

    Args:
        fast: with the condensed QP or the compiled real-time iteration on top.

    Raises:
        NoCompilerError: there is no C compiler, and the compiled rung was asked for.
    """
    stage = build_stage(case)
    first = fast_rungs(stage, "compiled") if fast else ()
    return make_ladder(stage, tuple(fallback), PLAN_AGE_MAX, first)


def build_stage(case: BenchCase) -> Stage:
    """One interval of the case as the production transcription sees it."""
    augmented = augment(case.model, (), case.step_s, case.step_s)
    horizon = Horizon(case.step_s, case.intervals, case.step_s)
    return make_stage(augmented, manipulated(case), controlled(case), horizon, _economics(case))


def _economics(case: BenchCase) -> ca.Function | None:
    if not case.prices:
        return None
    model = case.model
    x, u, d, y = (
        ca.SX.sym(name, len(part))
        for name, part in (("x", model.x), ("u", model.u), ("d", model.d), ("y", model.y))
    )
    only_prices = replace(case, tracked=())
    return ca.Function("economics", [x, u, d, y], [only_prices.node_cost(y)])


class LadderSide:
    """The production ladder in the closed loop; it remembers what LoopState would remember."""

    def __init__(
        self, case: BenchCase, fallback: Sequence[tuple[str, int]] = FALLBACK, *, fast: bool = True
    ) -> None:
        begun = perf_counter()
        self._ladder = build_ladder(case, fallback, fast=fast)
        self._built_s = perf_counter() - begun
        self._best = self._ladder.solvers[0][0]
        self._target = target(case)
        self._situation = situation(case, case.x0, case.u0)
        self._state = PlannerState()
        self._solved = Solved("", False, float("nan"))
        self.refused: tuple[str, ...] = ()

    @property
    def built_s(self) -> float:
        return self._built_s

    def move(self, x: Vector, u_before: Vector) -> Vector:
        here = structs.replace(self._situation, x=x, u_now=u_before)
        self._state, plan = self._ladder(self._state, here, self._target)
        self._solved = Solved(plan.rung, plan.rung == self._best, plan.cost)
        self.refused = plan.refused
        return plan.moves[0]

    def solved(self) -> Solved:
        return self._solved
