"""The steady-state target: setpoints and zones first, resting values second, limits always."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.mpc.problem import Target
from controller.mpc.target import target_calculation
from tests.unit.small_application import CVS, GAIN, MVS, augmented, situation, target

ZONES = np.full(2, np.nan)


def residual(found: Target, w: np.ndarray, feed: float = 1.0) -> float:
    rate = np.asarray(augmented().derivative(found.x, found.u, [feed], w))
    return float(np.max(np.abs(rate)))


def test_a_reachable_setpoint_is_the_target() -> None:
    found = target()(situation())
    assert found.solved
    assert found.y[:2] == pytest.approx([55.0, 40.0], abs=1e-4)
    assert found.u == pytest.approx(np.linalg.solve(GAIN, [55.0, 40.0]), abs=1e-3)
    assert residual(found, np.zeros(2)) < 1e-9
    assert found.slack == pytest.approx([0.0, 0.0], abs=1e-6)


def test_disturbances_move_the_target_and_not_the_setpoint() -> None:
    w, d = np.array([7.0, -4.0]), np.array([1.4])
    found = target()(situation(w=w, d=d))
    assert found.y[:2] == pytest.approx([55.0, 40.0], abs=1e-4)
    expected = np.linalg.solve(GAIN, np.array([55.0, 40.0]) + 2.0) - w
    assert found.u == pytest.approx(expected, abs=1e-3)


def test_an_unreachable_setpoint_is_approached_up_to_the_limit() -> None:
    found = target()(situation(setpoint=np.array([95.0, np.nan]), mv_high=np.array([80.0, 60.0])))
    assert found.solved
    assert found.u == pytest.approx([80.0, 60.0], abs=1e-3)
    assert found.y[0] == pytest.approx(GAIN[0] @ [80.0, 60.0], abs=1e-3)


def test_an_unreachable_zone_needs_slack() -> None:
    found = target()(situation(setpoint=ZONES, cv_low=np.array([85.0, 0.0]),
                               mv_high=np.array([80.0, 60.0])))  # fmt: skip
    assert found.solved
    best = GAIN[0] @ [80.0, 60.0]
    assert found.y[0] == pytest.approx(best, abs=1e-3)
    assert found.slack == pytest.approx([85.0 - best, 0.0], abs=1e-3)


def test_of_two_zones_in_conflict_the_heavier_one_wins() -> None:
    cvs = (replace(CVS[0], weight=100.0), replace(CVS[1], weight=1.0))
    conflict = situation(
        setpoint=ZONES,
        cv_high=np.array([15.0, 100.0]),
        cv_low=np.array([0.0, 60.0]),
        mv_low=np.zeros(2),
    )
    found = target_calculation(augmented(), MVS, cvs)(conflict)
    assert found.solved
    assert found.y[0] == pytest.approx(15.0, abs=1e-3)
    assert found.slack[0] == pytest.approx(0.0, abs=1e-4)
    assert found.slack[1] > 1.0


def test_an_mv_that_is_not_free_stays() -> None:
    found = target()(situation(free=np.array([1.0, 0.0]), setpoint=np.array([55.0, np.nan])))
    assert found.solved
    assert found.u[1] == pytest.approx(50.0, abs=1e-6)
    assert found.y[0] == pytest.approx(55.0, abs=1e-3)


def test_an_mv_that_is_not_free_stays_even_outside_its_limits() -> None:
    found = target()(situation(free=np.array([1.0, 0.0]), mv_high=np.array([100.0, 40.0]),
                               setpoint=np.array([55.0, np.nan])))  # fmt: skip
    assert found.solved
    assert found.u[1] == pytest.approx(50.0, abs=1e-6)


@pytest.mark.parametrize(("low", "high", "expected"), [(60.0, 100.0, 60.0), (0.0, 40.0, 40.0)])
def test_limits_moved_past_an_mv_are_where_it_goes(
    low: float, high: float, expected: float
) -> None:
    found = target()(
        situation(setpoint=ZONES, mv_low=np.array([low, 0.0]), mv_high=np.array([high, 100.0]))
    )
    assert found.solved
    assert found.u[0] == pytest.approx(expected, abs=1e-3)


def test_resting_values_are_reached_when_nothing_conflicts() -> None:
    found = target()(situation(setpoint=ZONES, resting=np.array([30.0, 70.0])))
    assert found.solved
    assert found.u == pytest.approx([30.0, 70.0], abs=1e-3)


def test_without_a_wish_an_mv_rests_where_it_is() -> None:
    found = target()(situation(setpoint=ZONES))
    assert found.u == pytest.approx([50.0, 50.0], abs=1e-3)


def test_zones_come_before_resting_values() -> None:
    found = target()(situation(setpoint=ZONES, cv_high=np.array([40.0, 100.0]),
                               resting=np.array([70.0, 50.0])))  # fmt: skip
    assert found.y[0] == pytest.approx(40.0, abs=1e-2)
    assert found.slack[0] < 1e-2


def lying(**arguments: np.ndarray) -> dict[str, np.ndarray]:
    """A solver that finds the target, and then returns another point."""
    right = target().solvers[0](**arguments)
    return {**right, "x": np.asarray(right["x"]) + 0.01}


def test_a_solver_that_lies_is_caught_and_the_next_one_asked() -> None:
    found = replace(target(), solvers=(lying, *target().solvers))(situation())
    assert found.solved
    assert found.y[:2] == pytest.approx([55.0, 40.0], abs=1e-4)


def test_an_unsolvable_target_says_so_and_rests_here() -> None:
    found = replace(target(), solvers=(lying,))(situation())
    assert not found.solved
    assert found.reason
    assert found.u == pytest.approx([50.0, 50.0])
    # The setpoint stays wanted: the plan still has something to go for.
    assert found.y[:2] == pytest.approx([55.0, 40.0])


def test_the_same_situation_gives_the_same_bits() -> None:
    first = target()(situation())
    target()(situation(setpoint=np.array([10.0, 90.0]), w=np.array([9.0, 9.0])))
    again = target()(situation())
    assert [first.u.tobytes(), first.x.tobytes(), first.y.tobytes()] == [
        again.u.tobytes(), again.x.tobytes(), again.y.tobytes()
    ]  # fmt: skip
