"""What process engineers expect of the problem: trajectories, funnels, ramps, forecasts, blocks,
economics, a terminal cost; each against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import casadi as ca
import numpy as np
import pytest
from msgspec import structs
from scipy.linalg import solve_discrete_are

from controller.cycle.limits import ramp
from controller.errors import ModelError
from controller.estimation.augmented import augment
from controller.mpc.condensed import CondensedQp
from controller.mpc.instance import Instances
from controller.mpc.ladder import Ladder, PlannerState
from controller.mpc.problem import ControlledVariable, Horizon, Plan, Situation, Target
from controller.mpc.regulator import lqr_weight
from controller.mpc.solvers import Solver, make_solver
from controller.mpc.stage import Stage, make_stage
from controller.mpc.transcription import transcribe
from tests.unit.small_application import (
    CVS,
    CYCLE_S,
    GAIN,
    HORIZON,
    MVS,
    TIME_CONSTANTS_S,
    augmented,
    situation,
    small_application,
    target,
    two_tanks,
)

N = HORIZON.intervals
ENDS_S = HORIZON.step_s * np.arange(1, N + 1)


def cvs(**changes: object) -> tuple[ControlledVariable, ...]:
    return tuple(replace(cv, **changes) for cv in CVS)  # type: ignore[arg-type]


def stage(
    controlled: Sequence[ControlledVariable] = CVS, horizon: Horizon = HORIZON, **more: object
) -> Stage:
    return make_stage(augmented(), MVS, controlled, horizon, **more)  # type: ignore[arg-type]


def plan(
    problem: Stage, here: Situation, to: Target | None = None, solver: Solver | None = None,
    terminal: np.ndarray | None = None,
) -> Plan:  # fmt: skip
    rung = ("rung", solver or CondensedQp(problem))
    ladder = Ladder(problem, Instances(problem, terminal), (rung,), 3)
    _, made = ladder(PlannerState(), here, to or target()(here))
    assert made.rung == "rung", made.refused
    return made


def test_a_setpoint_is_approached_on_its_reference_trajectory() -> None:
    problem = stage(cvs(approach_s=120.0))
    here = situation(cv_now=np.array([50.0, 35.0]))
    made = Instances(problem)(here, target()(here))
    wanted = np.array([55.0, 40.0]) - 5.0 * np.exp(-ENDS_S / 120.0)[:, None]
    assert made.wanted * 10.0 == pytest.approx(wanted)
    slow, quick = plan(problem, here), plan(stage(), here)
    assert slow.prediction[2, 0] < quick.prediction[2, 0] - 1.0
    assert slow.prediction[-1, 0] == pytest.approx(wanted[-1, 0], abs=0.2)


def test_a_violated_zone_is_entered_along_its_funnel() -> None:
    problem = stage(cvs(approach_s=120.0, setpoint=None))
    here = situation(
        setpoint=np.full(2, np.nan), cv_high=np.array([45.0, 60.0]), cv_now=np.array([50.0, 35.0])
    )
    made = Instances(problem)(here, target()(here))
    decay = np.exp(-ENDS_S / 120.0)
    assert made.z_high[:, 0] * 10.0 == pytest.approx(45.0 + 5.0 * decay)
    assert made.z_high[:, 1] * 10.0 == pytest.approx(np.full(N, 60.0))
    assert np.all(made.z_low == 0.0)


def test_a_funnel_leaves_missing_limits_alone() -> None:
    here = situation(
        cv_low=np.full(2, -np.inf), cv_high=np.full(2, np.inf), cv_now=np.array([50.0, 35.0])
    )
    made = Instances(stage(cvs(approach_s=60.0)))(here, target()(here))
    assert np.all(made.z_low == -np.inf)
    assert np.all(made.z_high == np.inf)
    assert np.all(np.isfinite(made.wanted))


def test_limits_on_their_way_go_on_at_their_ramp_over_the_horizon() -> None:
    problem = stage(cvs(ramp_s=600.0))  # 10 degC in 600 s
    here = situation(
        cv_high=np.array([52.0, 45.0]),
        cv_high_now=np.array([60.0, 45.0]),
        cv_low_now=np.zeros(2),
    )
    made = Instances(problem)(here, target()(here))
    assert made.z_high[:, 0] * 10.0 == pytest.approx(np.maximum(60.0 - ENDS_S / 60.0, 52.0))
    assert made.z_high[:, 1] * 10.0 == pytest.approx(np.full(N, 45.0))


def test_a_changed_limit_moves_by_its_ramp_every_cycle() -> None:
    application = replace(small_application(), cvs=cvs(ramp_s=100.0))
    before, wide = ramp(application, {}, situation())
    assert wide is not None
    assert wide.cv_high_now is not None
    assert wide.cv_high_now.tolist() == [100.0, 100.0]  # the first cycle begins at what is wanted
    limits, tight = ramp(application, before, situation(cv_high=np.array([60.0, 99.5])))
    assert tight is not None
    assert tight.cv_high_now is not None
    assert tight.cv_high_now.tolist() == [99.0, 99.5]  # 10 degC * 10 s / 100 s
    assert tight.cv_high.tolist() == [60.0, 99.5]
    for _ in range(39):
        limits, tight = ramp(application, limits, situation(cv_high=np.array([60.0, 99.5])))
    assert tight is not None
    assert tight.cv_high_now is not None
    assert tight.cv_high_now.tolist() == [60.0, 99.5]
    _, lifted = ramp(application, limits, situation(cv_high=np.full(2, np.inf)))
    assert lifted is not None
    assert lifted.cv_high_now is not None
    assert lifted.cv_high_now.tolist() == [np.inf, np.inf]


def test_without_ramps_nothing_is_remembered() -> None:
    here = situation()
    assert ramp(small_application(), {}, here) == ({}, here)
    assert ramp(small_application(), {"T1": (0.0, 1.0)}, None) == ({}, None)


def test_a_limit_that_the_target_gave_up_is_not_fought_for() -> None:
    here = situation(cv_high=np.array([52.0, 45.0]), setpoint=np.full(2, np.nan))
    to = structs.replace(
        target()(here), y=np.array([53.0, 40.0, 46.5]), slack=np.array([1.0, 0.0]), solved=True
    )
    made = Instances(stage())(here, to)
    assert made.z_high[:, 0] * 10.0 == pytest.approx(np.full(N, 53.0))
    assert made.z_high[:, 1] * 10.0 == pytest.approx(np.full(N, 45.0))
    kept = Instances(stage())(here, structs.replace(to, solved=False))
    assert kept.z_high[:, 0] * 10.0 == pytest.approx(np.full(N, 52.0))


def test_a_forecast_is_acted_on_before_it_comes_true() -> None:
    here, problem = situation(setpoint=np.array([50.0, 35.0])), stage()
    forecast = np.where(np.arange(N) < 6, 1.0, 1.5)[:, None]
    calm, warned = plan(problem, here), plan(problem, structs.replace(here, forecast=forecast))
    assert np.max(np.abs(calm.moves - 50.0)) < 1e-6
    assert np.max(np.abs(warned.moves[5] - 50.0)) > 0.01
    assert np.max(np.abs(warned.moves[6:] - 50.0)) > 1.0
    without = structs.replace(here, forecast=np.ones((N, 1)))
    assert plan(problem, without).moves == pytest.approx(calm.moves)


@pytest.mark.parametrize("solver", ["condensed", "sqp", "ipopt"])
def test_moves_happen_at_the_beginning_of_blocks_only(solver: str) -> None:
    problem = stage(horizon=Horizon(HORIZON.step_s, N, CYCLE_S, blocks=(1, 2, 3)))
    rung = None if solver == "condensed" else make_solver(solver, transcribe(problem), 60)
    made = plan(problem, situation(), solver=rung)
    moved = np.any(np.abs(np.diff(np.vstack([[50.0, 50.0], made.moves]), axis=0)) > 1e-6, axis=1)
    assert moved[[0, 1, 3]].all()
    assert not np.any(np.delete(moved, [0, 1, 3]))
    same = plan(problem, situation())
    assert made.cost == pytest.approx(same.cost, rel=1e-5)


def test_economics_move_the_plan_where_they_pay() -> None:
    model = two_tanks()
    x, u, d, y = (
        ca.SX.sym(n, len(v))
        for n, v in (("x", model.x), ("u", model.u), ("d", model.d), ("y", model.y))
    )
    dear = ca.Function("dear", [x, u, d, y], [0.02 * u[0]])
    here = situation(setpoint=np.full(2, np.nan))
    to = structs.replace(target()(here), u=np.array([50.0, 50.0]))
    free, costly = stage(), stage(economic=dear)
    still, saving = plan(free, here, to), plan(costly, here, to)
    assert np.max(np.abs(still.moves - 50.0)) < 1e-6
    assert saving.moves[-1, 0] < 49.0
    assert np.max(np.abs(saving.moves[:, 1] - 50.0)) < 1e-6
    exact = plan(costly, here, to, make_solver("ipopt", transcribe(costly), 100))
    assert saving.moves == pytest.approx(exact.moves, abs=1e-3)
    assert saving.cost == pytest.approx(exact.cost, rel=1e-5)


def test_with_the_terminal_cost_unconstrained_mpc_is_the_lqr() -> None:
    quick = tuple(replace(mv, rate_per_s=1e3, move_suppression=2.0) for mv in MVS)
    bare = augment(two_tanks(), (), CYCLE_S, HORIZON.step_s)
    for intervals in (1, 2, 5, 30):
        horizon = Horizon(HORIZON.step_s, intervals, HORIZON.step_s)
        problem = make_stage(bare, quick, CVS, horizon)
        here = situation(
            x=np.array([50.2, 34.7]), w=np.zeros(0), cv_low=np.full(2, -np.inf),
            cv_high=np.full(2, np.inf), setpoint=np.array([50.0, 35.0]),
            u_now=np.array([50.5, 49.5]),
        )  # fmt: skip
        rest = Target(np.array([50.0, 50.0]), np.array([50.0, 35.0]), np.array([50.0, 35.0, 42.5]),
                      np.zeros(2), True)  # fmt: skip
        made = plan(problem, here, rest, terminal=lqr_weight(problem))
        assert made.moves[0] - here.u_now == pytest.approx(_lqr_move(here, rest), abs=1e-8 * 100)


def _lqr_move(here: Situation, rest: Target) -> np.ndarray:
    """The regulator for (x, u) with moves as inputs, written down without the package's code."""
    z = -HORIZON.step_s / np.array(TIME_CONSTANTS_S)
    step = 1.0 + z + z**2 / 2 + z**3 / 6 + z**4 / 24  # what one Runge-Kutta step makes of exp(z)
    gain = GAIN * (1.0 - step)[:, None]
    a = np.block([[np.diag(step), gain], [np.zeros((2, 2)), np.eye(2)]])
    b = np.vstack([gain, np.eye(2)])
    # Weights per degC and per percent: 10 / 10^2 on errors, 0.01 / 100^2 on rest, 2 / 100^2.
    q = np.diag([0.1, 0.1, 1e-6, 1e-6])
    r = np.eye(2) * 2e-4
    p = solve_discrete_are(a, b, a.T @ q @ a, r + b.T @ q @ b, s=a.T @ q @ b)
    k = np.linalg.solve(r + b.T @ (p + q) @ b, b.T @ (p + q) @ a)
    away = np.concatenate([here.x - rest.x, here.u_now - rest.u])
    return -k @ away


def test_no_terminal_cost_where_something_runs_away_that_no_mv_reaches() -> None:
    x, u, none = ca.SX.sym("x", 2), ca.SX.sym("u", 2), ca.SX.sym("none", 0)
    runaway = ca.Function("f", [x, u, none, none], [ca.vertcat((u[0] - x[0]) / 60, x[1] / 600)])
    outputs = ca.Function("h", [x, u, none, none], [x])
    model = replace(two_tanks(), d=(), y=two_tanks().y[:2], f=runaway, h=outputs)
    problem = make_stage(augment(model, (), CYCLE_S, HORIZON.step_s), MVS, CVS, HORIZON)
    with pytest.raises(ModelError, match="no LQR at the operating point"):
        lqr_weight(problem)
