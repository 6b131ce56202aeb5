"""Constrained least squares over a window of moments: the problem a moving horizon solves.

Unknown are the deviation of the state at the start of the window from its arrival, and the
process noise of every interval, all in units of their standard deviation: v. Minimised is

    |v|² + sum over the measurements of |(y - h(z)) / sigma|²,   low <= z <= high,

by Gauss–Newton steps. In v the problem stays well conditioned whatever the units, and a state
without process noise or without initial doubt just has no unknown. Without bounds and with a
linear model one step gives the Kalman filter.

Source: Rao, Rawlings & Mayne 2003; the bounds through their dual by non-negative least
squares, Lawson & Hanson 1974, chapter 23.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy import dot
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrs  # pyright: ignore[reportAttributeAccessIssue]
from scipy.optimize import nnls

from controller.estimation.delayed import Moment
from controller.estimation.evaluation import Evaluation, Matrix
from controller.estimation.kalman import (
    SECONDS_PER_HOUR,
    Belief,
    Sensors,
    Transition,
    sensors_of,
    transition,
)
from controller.signal import NS_PER_S
from plant_models.process import Vector

# In standard deviations: far below what any measurement could tell, far above rounding.
STEP_TOLERANCE = 1e-4
# In spans: a bound is kept that well, or it is not kept.
BOUND_TOLERANCE = 1e-7
HALVINGS = 4
# Each round adds every bound that the last answer broke; more than a few never happened.
ROUNDS = 20

Outcome = Literal["solved", "budget spent", "bounds cannot be kept", "not finite"]


@dataclass(frozen=True, slots=True, eq=False)
class WindowSetting:
    """What stays the same from window to window.

    Attributes:
        noise_per_hour, noise_root: covariance gained per hour, (nz, nz), and its square root.
        low, high: bounds on z, (nz,).
        span: what counts as one unit of violation, (nz,).
        iterations: Gauss–Newton steps at most.
    """

    evaluation: Evaluation
    noise_per_hour: Matrix
    noise_root: Matrix
    cycle_s: float
    low: Vector
    high: Vector
    span: Vector
    iterations: int


@dataclass(frozen=True, slots=True, eq=False)
class WindowEstimate:
    """States over the window z (n, nz), covariance of the last one (nz, nz), and how it ended.

    The covariance leaves the bounds out: with one active, the truth is known better than it says.
    """

    z: Matrix
    covariance: Matrix
    outcome: Outcome
    iterations: int


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """One moment of the window, and the interval that ends there with the root of its noise."""

    moment: Moment
    before: Moment
    elapsed_s: float
    steps: int
    noise_root: Matrix
    seen: tuple[tuple[Sensors, Vector], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """The window at one v (nv,): states (n, nz), their derivatives to v (n, nz, nv), residuals
    in sigmas (m,) and what they lose per v (m, nv)."""

    v: Vector
    z: Matrix
    slope: Matrix
    residual: Vector
    loss: Matrix
    violation: float

    @property
    def cost(self) -> float:
        return float(self.v @ self.v + self.residual @ self.residual)


def estimate_window(
    setting: WindowSetting, arrival: Belief, moments: Sequence[Moment]
) -> WindowEstimate:
    """The most likely states at the moments, given what was known before the first one."""
    stages = _stages(setting, arrival, moments)
    start = np.zeros(sum(stage.noise_root.shape[1] for stage in stages))
    course = _course(setting, arrival, stages, start)
    for iteration in range(1, setting.iterations + 1):
        step, kept = _step(setting, course)
        if not np.isfinite(step).all():
            return _ended(course, "not finite", iteration)
        before = course
        course = _trial(setting, arrival, stages, before, step)
        settled = float(np.abs(step).max(initial=0.0)) <= STEP_TOLERANCE
        if settled or _as_predicted(before, course, step):
            break
    else:
        return _ended(course, "budget spent", setting.iterations)
    return _ended(course, "solved" if kept else "bounds cannot be kept", iteration)


def _ended(course: _Course, outcome: Outcome, iterations: int) -> WindowEstimate:
    covariance = _final_covariance(course)
    if not (np.isfinite(course.z).all() and np.isfinite(covariance).all()):
        outcome = "not finite"
    return WindowEstimate(course.z, covariance, outcome, iterations)


def between(setting: WindowSetting, start: Moment, end: Moment, z: Vector) -> Transition:
    """From z (nz,) at one moment to the next."""
    elapsed_s = (end.time_ns - start.time_ns) / NS_PER_S
    return transition(
        setting.evaluation, setting.noise_per_hour, z, end.u, start.d, elapsed_s, setting.cycle_s
    )


def _stages(
    setting: WindowSetting, arrival: Belief, moments: Sequence[Moment]
) -> tuple[_Stage, ...]:
    """What does not change from step to step; the first stage is the arrival."""
    first = moments[0]
    stages = [_Stage(first, first, 0.0, 0, square_root(arrival.covariance), _seen(first))]
    for start, end in pairwise(moments):
        elapsed_s = (end.time_ns - start.time_ns) / NS_PER_S
        steps = max(1, round(elapsed_s / setting.cycle_s))
        if end.doubt is None and steps == 1:
            root = setting.noise_root * math.sqrt(elapsed_s / SECONDS_PER_HOUR)
        else:
            noise = between(setting, start, end, start.posterior.z).noise
            root = square_root(noise if end.doubt is None else noise + end.doubt)
        stages.append(_Stage(end, start, elapsed_s, steps, root, _seen(end)))
    return tuple(stages)


def _seen(moment: Moment) -> tuple[tuple[Sensors, Vector], ...]:
    return tuple(
        (sensors_of(one.outputs, one.sigmas), np.array(one.values))
        for one in moment.measured
        if one.outputs
    )


def square_root(covariance: Matrix) -> Matrix:
    """F (n, k) with F Fᵀ = covariance (n, n), where k is its rank."""
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale = np.where(spread > 0.0, spread, 1.0)
    if not np.isfinite(scale).all():
        return np.full_like(covariance, np.nan)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = values > 1e-15 * max(float(values[-1]), 1.0)
    return scale[:, None] * vectors[:, kept] * np.sqrt(values[kept])


def _course(
    setting: WindowSetting, arrival: Belief, stages: Sequence[_Stage], v: Vector
) -> _Course:
    """Run through the window with the deviations and noises of v."""
    evaluation, nz = setting.evaluation, arrival.z.size
    z = np.empty((len(stages), nz))
    slope = np.zeros((len(stages), nz, v.size))
    residual = np.empty(sum(values.size for stage in stages for _, values in stage.seen))
    loss = np.zeros((residual.size, v.size))
    here, used, row = arrival.z, 0, 0
    for k, stage in enumerate(stages):
        moment = stage.moment
        if stage.steps == 1:
            here, a = evaluation.advance(here, moment.u, stage.before.d, stage.elapsed_s)
            slope[k, :, :used] = dot(a, slope[k - 1, :, :used])
        elif stage.steps > 1:
            moved = between(setting, stage.before, moment, here)
            here = moved.z
            slope[k, :, :used] = moved.a @ slope[k - 1, :, :used]
        after = used + stage.noise_root.shape[1]
        here = here + dot(stage.noise_root, v[used:after])
        slope[k, :, used:after] = stage.noise_root
        z[k], used = here, after
        for sensors, values in stage.seen:
            y, c = evaluation.observe(here, moment.u, moment.d)
            rows = slice(row, row + values.size)
            residual[rows] = (values - y.take(sensors.rows)) / sensors.sigmas
            shown = c.take(sensors.rows, 0) / sensors.sigmas[:, None]
            loss[rows, :used] = dot(shown, slope[k, :, :used])
            row = rows.stop
    outside = np.maximum(setting.low - z, z - setting.high) / setting.span
    return _Course(v, z, slope, residual, loss, float(outside.max(initial=0.0)))


def _step(setting: WindowSetting, course: _Course) -> tuple[Vector, bool]:
    """The Gauss–Newton step from v, and whether its linearised states keep the bounds."""
    loss = course.loss
    try:
        factor = _information(loss)
    except np.linalg.LinAlgError:
        return np.full_like(course.v, np.nan), False
    free = loss.T @ _solve(factor, course.residual + loss @ course.v) - course.v
    if not _outside(setting, course.z + course.slope @ free).any():
        return free, True
    return _bounded_step(setting, course, factor, free)


def _information(loss: Matrix) -> Matrix:
    """Cholesky factor of I + loss lossᵀ, (m, m): by the matrix inversion lemma the Hessian
    I + lossᵀ loss (nv, nv) need not be factored."""
    matrix = loss @ loss.T
    matrix.flat[:: loss.shape[0] + 1] += 1.0
    return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)


def _solve(factor: Matrix, right: Matrix) -> Matrix:
    """(factor factorᵀ)⁻¹ right; nothing where nothing is measured."""
    return dpotrs(factor, right, lower=1)[0] if right.size else right


def _outside(setting: WindowSetting, z: Matrix) -> NDArray[np.bool_]:
    tolerance = BOUND_TOLERANCE * setting.span
    return (z < setting.low - tolerance) | (z > setting.high + tolerance)


def _bounded_step(
    setting: WindowSetting, course: _Course, factor: Matrix, free: Vector
) -> tuple[Vector, bool]:
    """The step nearest to the free one, in the metric of the cost, that keeps the bounds.

    Bounds are taken in when an answer breaks them, so that the problems stay small.
    """
    taken: dict[tuple[int, int, int], None] = {}
    step = free
    for _ in range(ROUNDS):
        reached = course.z + course.slope @ step
        broken = np.argwhere(_outside(setting, reached))
        new = [(int(k), int(i), 1 if reached[k, i] > setting.high[i] else -1) for k, i in broken]
        if not new:
            return step, True
        if all(bound in taken for bound in new):
            return free, False
        taken.update(dict.fromkeys(new))
        rows = np.array([sign * course.slope[k, i] for k, i, sign in taken])
        room = np.array(
            [
                sign * ((setting.high if sign > 0 else setting.low)[i] - course.z[k, i])
                for k, i, sign in taken
            ]
        )
        push = rows - _solve(factor, course.loss @ rows.T).T @ course.loss
        weights = _multipliers(push @ rows.T, rows @ free - room)
        if weights is None:
            return free, False
        step = free - weights @ push
    return free, False


def _multipliers(metric: Matrix, excess: Vector) -> Vector | None:
    """Multipliers w >= 0 (k,) that minimise w metric w / 2 - excess w: the dual of the bounds.

    None where no multipliers are found: the bounds contradict each other, or nothing moves them.
    """
    spread = np.sqrt(np.maximum(np.diag(metric), 0.0))
    if not np.all(spread > 0.0):
        return None
    scaled = metric / np.outer(spread, spread)
    scaled.flat[:: spread.size + 1] += 1e-12  # the same bound twice, seen through the dynamics
    try:
        root = np.linalg.cholesky(scaled)
        weights, _ = nnls(root.T, np.linalg.solve(root, excess / spread))
    except (np.linalg.LinAlgError, RuntimeError):  # the budget of nnls: 3 rounds per bound
        return None
    return np.asarray(weights / spread, dtype=np.float64)


def _trial(
    setting: WindowSetting,
    arrival: Belief,
    stages: Sequence[_Stage],
    course: _Course,
    step: Vector,
) -> _Course:
    """Along the step, halved while it makes both the fit and the violation of bounds worse."""
    length = 1.0
    trial = _course(setting, arrival, stages, course.v + step)
    for _ in range(HALVINGS):
        better = trial.cost <= course.cost * (1.0 + 1e-12) + 1e-12
        if better or trial.violation < course.violation:
            break
        length *= 0.5
        trial = _course(setting, arrival, stages, course.v + length * step)
    return trial


def _as_predicted(before: _Course, after: _Course, step: Vector) -> bool:
    """The model was linear along the whole step, so no further step would change anything."""
    if not np.array_equal(after.v, before.v + step):
        return False
    predicted = before.residual - before.loss @ step
    return bool(np.abs(after.residual - predicted).max(initial=0.0) <= STEP_TOLERANCE)


def _final_covariance(course: _Course) -> Matrix:
    slope, loss = course.slope[-1], course.loss
    seen = loss @ slope.T
    try:
        covariance = slope @ slope.T - seen.T @ _solve(_information(loss), seen)
    except np.linalg.LinAlgError:
        return np.full((slope.shape[0],) * 2, np.nan)
    return (covariance + covariance.T) / 2
