"""Decides whether a lab sample was drawn at steady state, and makes it a visit of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.errors import ModelError
from controller.optimizer.modifier_adaptation import Visit
from controller.optimizer.problem import Economics, OptimizerProblem
from controller.signal import NS_PER_S, QualityResult
from plant_models.process import Vector

# Means over this many parts of the window are compared, so that noise does not look like motion.
_BLOCKS = 5
# Parts of the window, counted from its end, whose mean counts as the point that was held.
_HELD = 2
# Movement allowed while steady, as a share of a probing move and of a disturbance's scale.
_TOLERANCE = 0.2
# The history may begin this much of the window late: cycles do not fall on its edge.
_EDGE = 0.05


@dataclass(frozen=True, slots=True)
class CycleRow:
    """One cycle of history: decisions as applied and disturbances as measured, problem's order.

    `active` is False where the controller did not hold the plant; such times are not steady.
    """

    time_ns: int
    u: tuple[float, ...]
    d: tuple[float, ...]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a lab result did not become a visit."""

    result_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class HeldPoint:
    """Where the plant was held, (nu,) and (nd,)."""

    u: tuple[float, ...]
    d: tuple[float, ...]


def tolerances(problem: OptimizerProblem) -> Vector:
    """Movement (nu + nd,) that still counts as steady, in the variables' units."""
    probes = [v.probe for v in problem.decisions]
    scales = [v.scale for v in problem.disturbances]
    return _TOLERANCE * np.array([*probes, *scales])


def held_point(
    problem: OptimizerProblem, rows: Sequence[CycleRow], time_ns: int, settle_s: float
) -> HeldPoint | str:
    """The point held during the `settle_s` before `time_ns`, or in words why there is none."""
    begin = time_ns - round(settle_s * NS_PER_S)
    window = [row for row in rows if begin <= row.time_ns <= time_ns]
    edge = round(_EDGE * settle_s * NS_PER_S)
    if len(window) < _BLOCKS:
        return "too little history before the sample"
    if window[0].time_ns > begin + edge or window[-1].time_ns < time_ns - edge:
        return "the history does not reach over the settling time"
    if not all(row.active for row in window):
        return "the controller was not active all the time"
    values = np.array([(*row.u, *row.d) for row in window])
    if not np.all(np.isfinite(values)):
        return "a value is missing in the settling time"
    means = np.array([np.mean(block, axis=0) for block in np.array_split(values, _BLOCKS)])
    moved = np.max(means, axis=0) - np.min(means, axis=0) > tolerances(problem)
    if bool(np.any(moved)):
        names = [v.name for v in (*problem.decisions, *problem.disturbances)]
        moving = [name for name, is_moving in zip(names, moved, strict=True) if is_moving]
        return f"{' and '.join(moving)} moved during the settling time"
    held = np.mean(means[-_HELD:], axis=0)
    nu = len(problem.decisions)
    return HeldPoint(tuple(map(float, held[:nu])), tuple(map(float, held[nu:])))


def visit_from(
    problem: OptimizerProblem,
    economics: Economics,
    rows: Sequence[CycleRow],
    result: QualityResult,
    settle_s: float,
) -> Visit | Refusal:
    """Pair a lab result with the point that was held when its sample was drawn."""
    if not result.valid:
        return Refusal(result.result_id, "the lab marked it invalid")
    held = held_point(problem, rows, result.time_ns, settle_s)
    if isinstance(held, str):
        return Refusal(result.result_id, held)
    values = {
        **dict(zip((v.name for v in problem.decisions), held.u, strict=True)),
        **dict(zip((v.name for v in problem.disturbances), held.d, strict=True)),
        **result.values,
    }
    missing = [v.output for v in economics.limits if v.output not in values]
    if missing:
        return Refusal(result.result_id, f"it does not contain {', '.join(missing)}")
    try:
        objective = economics.objective(values)
    except ModelError as problem_found:
        return Refusal(result.result_id, problem_found.what)
    visit = Visit(
        result.time_ns, held.u, held.d, objective, tuple(map(float, economics.constraints(values)))
    )
    return visit if visit.is_finite else Refusal(result.result_id, "a value is not finite")
