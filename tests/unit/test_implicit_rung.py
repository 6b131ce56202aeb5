"""The compiled rung with implicit intervals: same answers, and unsolved equations are seen."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import casadi as ca
import numpy as np
import pytest
from msgspec import structs

from controller.mpc import collocation as module
from controller.mpc.instance import Instance, Instances
from controller.mpc.native.library import RealTimeIteration
from controller.mpc.solvers import Answer, Solver, Trajectory, make_solver
from controller.mpc.stage import Stage
from controller.mpc.target import target_calculation
from controller.mpc.transcription import transcribe
from controller.toolchain import compiled_rung
from tests.unit.implicit_problems import drained_tank, jacketed, resting, swinging

TIGHT = (1e-7, 1e-7, 1e-6, 1e-7, 1e-7, 1e-6)
SQP_STEPS = 20
NEAR = 5e-4
"""Share of a span by which an interior-point method may stay away from the optimum."""


@lru_cache(maxsize=8)
def rung(stage: Stage, budget: int = SQP_STEPS) -> RealTimeIteration:
    made = compiled_rung(stage, budget)
    return RealTimeIteration(made._library, stage, budget, TIGHT)  # pyright: ignore[reportPrivateUsage]


@lru_cache(maxsize=8)
def solver(stage: Stage, name: str) -> Solver:
    return make_solver(name, transcribe(stage), 80)


def posed(stage: Stage, **changes: object) -> tuple[Instance, Trajectory]:
    situation = structs.replace(resting(stage), **changes)  # type: ignore[arg-type]
    target = target_calculation(stage.augmented, stage.mvs, stage.cvs)(situation)
    instance = Instances(stage)(situation, target)
    n = stage.horizon.intervals
    return instance, Trajectory(np.tile(instance.s0, (n + 1, 1)), np.zeros((n, len(stage.mvs))))


JACKETED: dict[str, dict[str, object]] = {
    "setpoint": {},
    "a far setpoint": {"setpoint": np.array([0.75, np.nan])},
    "a zone": {"cv_high": np.array([1.0, 347.0]), "setpoint": np.array([0.4, np.nan])},
    "an MV dropped out": {"free": np.array([1.0, 0.0])},
    "blocked upwards": {"blocked_up": np.ones(2)},
}
SWINGING: dict[str, dict[str, object]] = {
    "setpoint": {},
    "away": {"x": np.array([0.7, 0.3])},
    "a zone": {"setpoint": np.array([np.nan]), "cv_low": np.array([0.2])},
}
TANK: dict[str, dict[str, object]] = {
    "setpoint": {},
    "emptied": {"x": np.array([1.0]), "setpoint": np.array([2.0, np.nan])},
    "disturbed": {"w": np.array([0.5])},
}
PROBLEMS: list[Any] = [
    *(pytest.param(jacketed, case, id=f"stiff, {name}") for name, case in JACKETED.items()),
    *(pytest.param(swinging, case, id=f"swing, {name}") for name, case in SWINGING.items()),
    *(pytest.param(drained_tank, case, id=f"DAE, {name}") for name, case in TANK.items()),
]


@pytest.mark.parametrize(("made", "case"), PROBLEMS)
@pytest.mark.parametrize("name", ["sqp", "ipopt"])
def test_all_solvers_solve_the_same_intervals(made: Any, case: dict[str, Any], name: str) -> None:
    stage: Stage = made()
    instance, begin = posed(stage, **case)
    answer, other = rung(stage)(instance, begin), solver(stage, name)(instance, begin)
    assert answer.certificate.fault == "" == other.certificate.fault
    assert answer.cost == pytest.approx(other.cost, rel=1e-5, abs=1e-4)
    span = np.array([mv.span for mv in stage.mvs])
    assert np.abs((answer.moves - other.moves) / span).max() < NEAR
    width = np.array([v.span for v in stage.augmented.model.y])
    assert np.abs((answer.prediction - other.prediction) / width).max() < NEAR


@pytest.mark.parametrize(("made", "case"), PROBLEMS)
def test_the_answer_solves_the_equations_of_every_interval(made: Any, case: Any) -> None:
    stage: Stage = made()
    instance, begin = posed(stage, **case)
    answer = rung(stage)(instance, begin)
    defect, residual = _defects(stage, instance, answer.trajectory)
    assert defect < 1e-7
    # In changes per step, which a fast mode multiplies by its speed.
    assert residual < 1e-5
    for k, v in enumerate(answer.trajectory.v):
        reached = stage.interval(answer.trajectory.s[k], v, instance.theta[k])
        assert np.abs(_flat(reached) - answer.trajectory.s[k + 1]).max() < 1e-6


def _flat(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64).ravel()


def _defects(stage: Stage, instance: Instance, at: Trajectory) -> tuple[float, float]:
    """Largest gap between intervals, and largest residual inside them."""
    assert stage.collocation is not None
    assert at.inner is not None
    gaps: list[float] = []
    residuals: list[float] = []
    for k, inner in enumerate(at.inner):
        residual, after = stage.collocation.equations(at.s[k], at.v[k], instance.theta[k], inner)
        residuals.append(float(np.abs(_flat(residual)).max()))
        gaps.append(float(np.abs(_flat(after) - at.s[k + 1]).max()))
    return max(gaps), max(residuals)


def test_equations_that_are_not_solved_yet_are_seen() -> None:
    """One SQP iteration from far away closes the gaps between intervals by construction; what it
    leaves inside them must count."""
    stage = jacketed()
    instance, begin = posed(stage, **JACKETED["a far setpoint"])
    answer = rung(stage, 1)(instance, begin)
    gap, residual = _defects(stage, instance, answer.trajectory)
    assert gap < 1e-9
    assert residual > 1e-3
    assert answer.certificate.primal > 1e-4
    assert answer.certificate.fault.startswith("not converged: defect")


def test_wrong_stage_values_in_a_warm_start_are_seen_and_mended() -> None:
    stage = jacketed()
    instance, begin = posed(stage)
    right = rung(stage)(instance, begin)
    assert right.trajectory.inner is not None
    wrong = structs.replace(right.trajectory, inner=right.trajectory.inner + 0.01)
    assert "not converged" in rung(stage, 1)(instance, wrong).certificate.fault
    mended = rung(stage)(instance, wrong)
    assert mended.certificate.fault == ""
    assert mended.moves == pytest.approx(right.moves, rel=1e-5)


def test_a_warm_start_with_its_stage_values_is_solved_at_once() -> None:
    stage = jacketed()
    instance, begin = posed(stage)
    right = rung(stage)(instance, begin)
    assert right.iterations > 2
    assert rung(stage)(instance, right.trajectory).iterations == 1
    # Without them they lie on straight lines, which is not far away.
    without = structs.replace(right.trajectory, inner=None)
    assert 1 < rung(stage)(instance, without).iterations <= right.iterations


def test_what_a_warm_start_says_of_an_mv_that_dropped_out_does_not_count() -> None:
    stage = jacketed()
    instance, begin = posed(stage, **JACKETED["an MV dropped out"])
    right = rung(stage)(instance, begin)
    moved = structs.replace(begin, v=begin.v + np.array([0.0, 0.05]))
    answer = rung(stage)(instance, moved)
    assert answer.certificate.fault == ""
    assert answer.moves == pytest.approx(right.moves, rel=1e-5)
    assert _defects(stage, instance, answer.trajectory)[1] < 1e-5


def test_answers_do_not_depend_on_what_was_solved_before() -> None:
    stage = jacketed()
    used, fresh = rung(stage), rung.__wrapped__(stage)
    posing = [posed(stage, **case) for case in JACKETED.values()]
    first = [used(*problem) for problem in posing]
    broken, begin = posed(stage)
    broken.theta[:] = np.nan
    assert used(broken, begin).certificate.fault == "the answer is not finite"
    for problem, before in reversed(list(zip(posing, first, strict=True))):
        for again in (used(*problem), fresh(*problem)):
            assert _bytes(again) == _bytes(before)


def _bytes(answer: Answer) -> bytes:
    at = answer.trajectory
    assert at.inner is not None
    return at.s.tobytes() + at.v.tobytes() + at.inner.tobytes()


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300, -1e300])
def test_strange_numbers_are_refused(number: float) -> None:
    for stage in (jacketed(), drained_tank()):
        instance, begin = posed(stage)
        instance.s0[0] = number
        assert rung(stage)(instance, begin).certificate.fault
        instance, begin = posed(stage)
        assert stage.collocation is not None
        inner = np.full((stage.horizon.intervals, stage.collocation.size), number)
        assert rung(stage, 1)(instance, structs.replace(begin, inner=inner)).certificate.fault


@pytest.mark.parametrize("slope", ["the pole", "infinite"])
def test_a_singular_jacobian_is_refused(slope: str) -> None:
    stage = drained_tank()
    x, u, theta = (ca.MX.sym(name, n) for name, n in (("x", 1), ("u", 1), ("theta", stage.nt)))
    eigenvalues = np.linalg.eigvals(module.DIFFERENCES[:, 1:])
    pole = float(eigenvalues[np.argmin(np.abs(eigenvalues.imag))].real)
    change = pole * x + u if slope == "the pole" else ca.sqrt(x) + u
    rate = ca.Function("rate", [x, u, theta], [change])
    stage = replace(stage, collocation=module.collocate(rate, ca.MX, 1, 1))
    instance, begin = posed(stage)
    assert rung(stage)(instance, begin).certificate.fault
