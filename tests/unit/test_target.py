"""The steady-state target: setpoints and zones first, resting values second, limits always."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from controller.errors import ModelError
from controller.mpc import ranked
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


def test_what_does_not_converge_goes_to_the_interior_point() -> None:
    found = replace(target(), iterations=0)(situation())
    assert found.solved
    assert found.y[:2] == pytest.approx([55.0, 40.0], abs=1e-3)
    assert found.u == pytest.approx(np.linalg.solve(GAIN, [55.0, 40.0]), abs=1e-2)


def test_both_ways_agree_on_what_must_be_given_up() -> None:
    conflict = situation(setpoint=ZONES, cv_high=np.array([15.0, 100.0]),
                         cv_low=np.array([0.0, 55.0]))  # fmt: skip
    cvs = (replace(CVS[0], rank=2), replace(CVS[1], rank=1))
    calculation = target_calculation(augmented(), MVS, cvs)
    quick, sure = calculation(conflict), replace(calculation, iterations=0)(conflict)
    assert sure.solved
    assert quick.slack == pytest.approx(sure.slack, abs=2e-2)
    assert [c.name for c in quick.constraints] == [c.name for c in sure.constraints]


def lying(**arguments: np.ndarray) -> dict[str, np.ndarray]:
    """A solver that finds the target, and then returns another point."""
    right = target().nonlinear.solve(**arguments)
    return {**right, "x": np.asarray(right["x"]) + 0.01}


def breaking(**_: np.ndarray) -> dict[str, np.ndarray]:
    raise RuntimeError("the plugin fell over")


@pytest.mark.parametrize(
    ("solve", "why"), [(lying, "constraints are violated"), (breaking, "the plugin fell over")]
)
def test_an_unsolvable_target_says_so_and_rests_here(solve: object, why: str) -> None:
    helpless = replace(target(), iterations=0, nonlinear=replace(target().nonlinear, solve=solve))
    found = helpless(situation())
    assert not found.solved
    assert why in found.reason
    assert found.u == pytest.approx([50.0, 50.0])
    # The setpoint stays wanted: the plan still has something to go for.
    assert found.y[:2] == pytest.approx([55.0, 40.0])


@pytest.mark.parametrize("consistent", [False, True])
def test_a_lying_quadratic_solver_is_caught(
    monkeypatch: pytest.MonkeyPatch, consistent: bool
) -> None:
    """It returns another point; with duals to match, only the limits of the plant tell."""
    solve = ranked.daqp.solve

    def shifted(hessian: np.ndarray, *arguments: object, **settings: object) -> tuple[object, ...]:
        v, cost, flag, info = solve(hessian, *arguments, **settings)
        if consistent:
            info["lam"][: v.size] -= hessian @ np.full(v.size, 0.01)
        return v + 0.01, cost, flag, info

    monkeypatch.setattr(ranked.daqp, "solve", shifted)
    calculation = target()
    asked = calculation.scales.asked(situation())
    with pytest.raises(ranked.UnsolvedError, match="converge" if consistent else "is not"):
        calculation._successive(situation(), asked, None)
    found = calculation(situation())
    assert found.solved
    assert found.y[:2] == pytest.approx([55.0, 40.0], abs=1e-3)


def test_a_state_that_is_no_number_is_survived() -> None:
    found = target()(situation(d=np.array([np.nan])))
    assert not found.solved
    assert "linearized" in found.reason


@pytest.mark.parametrize("limit", ["mv_low", "mv_high", "cv_low", "cv_high"])
def test_a_limit_that_is_no_number_gives_no_target(limit: str) -> None:
    for limits in ([50.0, np.nan], [np.nan, 50.0]):
        asked = situation(setpoint=ZONES, **{limit: np.array(limits)})
        assert not target()(asked).solved


def test_a_first_guess_changes_nothing() -> None:
    cold = target()(situation())
    warm = target()(situation(), cold)
    assert warm.u == pytest.approx(cold.u, abs=1e-9)
    assert warm.x == pytest.approx(cold.x, abs=1e-9)


@pytest.mark.parametrize(
    ("way", "limit"), [("blocked_up", "at most"), ("blocked_down", "at least")]
)
def test_a_blocked_mv_does_not_move_further_that_way(way: str, limit: str) -> None:
    wanted = 70.0 if way == "blocked_up" else 20.0
    blocked = situation(
        setpoint=ZONES, resting=np.array([wanted, 50.0]), **{way: np.array([1.0, 0])}
    )
    found = target()(blocked)
    assert found.u == pytest.approx([50.0, 50.0], abs=1e-9), limit
    free = target()(structs.replace(blocked, resting=np.array([90.0 - wanted, 50.0])))
    assert free.u[0] == pytest.approx(90.0 - wanted, abs=0.1)


def test_a_blocked_mv_outside_its_limits_stays() -> None:
    found = target()(situation(setpoint=ZONES, mv_low=np.array([60.0, 0.0]),
                               blocked_up=np.array([1.0, 0.0])))  # fmt: skip
    assert found.solved
    assert found.u[0] == pytest.approx(50.0, abs=1e-9)


def test_a_dropped_cv_is_not_controlled() -> None:
    dropped = situation(watched=np.array([0.0, 1.0]), setpoint=np.array([95.0, 40.0]))
    found = target()(dropped)
    assert found.y[1] == pytest.approx(40.0, abs=1e-4)
    assert found.slack[0] == 0.0
    assert found.constraints == ()
    without = replace(CVS[0], setpoint=None, low=-np.inf, high=np.inf)
    alone = target_calculation(augmented(), MVS, (without, CVS[1]))(
        structs.replace(dropped, watched=None, setpoint=np.array([np.nan, 40.0]),
                cv_low=np.array([-np.inf, 0.0]), cv_high=np.array([np.inf, 100.0]))
    )  # fmt: skip
    assert found.u == pytest.approx(alone.u, abs=1e-6)


def test_limits_of_a_cv_that_cross_are_met_half_way_and_named() -> None:
    found = target()(situation(setpoint=ZONES, cv_low=np.array([60.0, 0.0]),
                               cv_high=np.array([40.0, 100.0])))  # fmt: skip
    assert found.solved
    assert found.y[0] == pytest.approx(50.0, abs=1e-2)
    assert found.slack[0] == pytest.approx(10.0, abs=1e-2)
    assert "its limits cross: low 60 is above high 40" in found.constraints[0].sentence


def test_between_limits_of_an_mv_that_cross_it_stays() -> None:
    crossed = situation(
        setpoint=ZONES, mv_low=np.array([60.0, 0.0]), mv_high=np.array([40.0, 100.0])
    )
    assert target()(crossed).u[0] == pytest.approx(50.0, abs=1e-9)
    above = target()(structs.replace(crossed, u_now=np.array([75.0, 50.0])))
    assert above.u[0] == pytest.approx(60.0, abs=1e-9)


@pytest.mark.parametrize(
    ("mv", "cv", "named"),
    [
        ({}, {"rank": 0}, "CV T1: there is no rank 0"),
        ({}, {"low": 60.0, "high": 40.0}, "CV T1: its limits cross: low 60 degC is above high 40"),
        ({}, {"setpoint": 120.0}, "CV T1: setpoint 120 degC is outside its limits 0 … 100 degC"),
        ({}, {"weight": 0.0}, "CV T1: weight 0 and scale 10 degC must be positive"),
        ({}, {"scale": np.inf}, "CV T1: weight 10 and scale inf degC must be positive"),
        ({}, {"price": np.nan}, "CV T1: price nan is no price"),
        ({"low": 60.0, "high": 40.0}, {}, "MV Q1: its limits cross or leave no room: low 60"),
        ({"price": np.inf}, {}, "MV Q1: price inf"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_runs(
    mv: dict[str, float], cv: dict[str, float], named: str
) -> None:
    mvs, cvs = (replace(MVS[0], **mv), MVS[1]), (replace(CVS[0], **cv), CVS[1])
    with pytest.raises(ModelError, match=named):
        target_calculation(augmented(), mvs, cvs)


def test_the_same_situation_gives_the_same_bits() -> None:
    first = target()(situation())
    target()(situation(setpoint=np.array([10.0, 90.0]), w=np.array([9.0, 9.0])))
    again = target()(situation())
    assert [first.u.tobytes(), first.x.tobytes(), first.y.tobytes()] == [
        again.u.tobytes(), again.x.tobytes(), again.y.tobytes()
    ]  # fmt: skip


def test_without_cvs_the_mvs_go_to_their_resting_values() -> None:
    none = np.zeros(0)
    found = target_calculation(augmented(), MVS, ())(
        situation(cv_low=none, cv_high=none, setpoint=none, resting=np.array([30.0, np.nan]))
    )
    assert found.solved
    assert found.u == pytest.approx([30.0, 50.0], abs=1e-6)
    assert found.slack.size == 0
