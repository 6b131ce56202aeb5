"""Moving-horizon estimation: the Kalman filter where nothing binds, and better where it does."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import casadi as ca
import cvxpy as cp
import numpy as np
import pytest

from controller.estimation.augmented import AugmentedModel, Disturbance, augment, operating_point
from controller.estimation.delayed import (
    REJECTIONS_BEFORE_TRUST,
    DelayedFilter,
    DelayedFilterState,
    LateResult,
    Verdict,
    noise_covariance,
)
from controller.estimation.estimator import Estimator
from controller.estimation.kalman import Measurement
from controller.estimation.moving_horizon import MovingHorizonEstimator, bounds
from controller.estimation.window import square_root
from controller.signal import NS_PER_S
from plant_models import van_de_vusse
from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable
from tests.unit.small_application import CYCLE_S, augmented

NOISE = np.diag([4.0, 4.0, 400.0, 400.0])
START = np.array([50.0, 35.0, 0.0, 0.0])
REST = np.full(2, 50.0)
FEED = np.ones(1)


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def tanks(window: int = 6, noise: np.ndarray = NOISE, model: AugmentedModel | None = None):
    shared = (augmented() if model is None else model, noise, CYCLE_S, 400.0)
    return DelayedFilter(*shared), MovingHorizonEstimator(*shared, window=window)


def drive(estimator: Estimator, times_s: list[float], seed: int = 1) -> DelayedFilterState:
    """Noisy probes, a late laboratory now and then."""
    chance = np.random.default_rng(seed)
    state = estimator.start(0, START, 3.0 * np.eye(4), REST, FEED)
    for number, time_s in enumerate(times_s):
        u = REST + 5.0 * chance.standard_normal(2)
        values = np.array([50.0, 35.0]) + 0.3 * chance.standard_normal(2)
        # Now and then a probe fails, or both.
        seen = [(0, 1), (0, 1), (1,), (0, 1), ()][number % 5]
        probe = Measurement(seen, tuple(values[list(seen)].tolist()), (0.3,) * len(seen))
        state = estimator.advance(state, ns(time_s), u, FEED, probe)
        if number % 7 == 6:
            lab = Measurement((2,), (42.5 + chance.standard_normal(),), (0.2,))
            drawn = ns(times_s[max(0, number - number % 20)])
            state, fusion = estimator.fuse(state, LateResult(f"r{number}", "lab", drawn, lab, 1.0))
            assert fusion.verdict is Verdict.FUSED
    return state


REGULAR = [CYCLE_S * k for k in range(1, 61)]
WITH_GAPS = [
    10.0,
    20.0,
    30.02,
    40.0,
    75.0,
    85.0,
    96.0,
    150.0,
    *[150.0 + 10 * k for k in range(1, 30)],
]


@pytest.mark.parametrize("window", [1, 6, 25])
@pytest.mark.parametrize("times_s", [REGULAR, WITH_GAPS], ids=["regular", "with gaps"])
def test_on_a_linear_model_it_is_the_kalman_filter(window: int, times_s: list[float]) -> None:
    kalman, horizon = (drive(e, times_s).moments[-1] for e in tanks(window))
    assert horizon.outcome == "solved"
    assert horizon.posterior.z == pytest.approx(kalman.posterior.z, abs=1e-8)
    assert horizon.posterior.covariance == pytest.approx(kalman.posterior.covariance, abs=1e-8)
    assert horizon.prior.z == pytest.approx(kalman.prior.z, abs=1e-8)


def test_a_state_without_process_noise_and_a_known_start() -> None:
    """Covariances of less than full rank are no trouble."""
    noise = np.diag([0.0, 4.0, 0.0, 400.0])
    found: list[np.ndarray] = []
    for estimator in tanks(noise=noise):
        state = estimator.start(0, START, np.diag([1.0, 0.0, 4.0, 0.0]), REST, FEED)
        for cycle in range(1, 20):
            probe = Measurement((0, 1), (51.0, 35.5), (0.3, 0.3))
            state = estimator.advance(state, ns(cycle * CYCLE_S), REST, FEED, probe)
        found.append(state.moments[-1].posterior.z)
    assert found[1] == pytest.approx(found[0], abs=1e-8)


def test_without_any_measurement_it_predicts() -> None:
    filter_, horizon = tanks()
    nothing = Measurement((), (), ())
    states = [e.start(0, START, np.eye(4), REST, FEED) for e in (filter_, horizon)]
    for cycle in range(1, 15):
        states = [
            e.advance(s, ns(cycle * CYCLE_S), REST, FEED, nothing)
            for e, s in zip((filter_, horizon), states, strict=True)
        ]
    a, b = (s.moments[-1].posterior for s in states)
    assert b.z == pytest.approx(a.z, abs=1e-9)
    assert b.covariance == pytest.approx(a.covariance, abs=1e-8)


@lru_cache(maxsize=1)
def reactor() -> AugmentedModel:
    disturbances = tuple(
        Disturbance(on, "output", walk) for on, walk in (("cB", 0.2), ("T", 5.0), ("TK", 5.0))
    )
    return augment(van_de_vusse.model(), disturbances, 10.0, 40.0)


def reactor_run(late: bool) -> tuple[DelayedFilterState, Vector]:
    """The nonlinear reactor away from its steady state; one analysis in time, or 12 cycles late."""
    model = reactor()
    noise = noise_covariance(model, {}, model.disturbances)
    estimator = MovingHorizonEstimator(model, noise, 10.0, 600.0, window=6)
    x, u, d = operating_point(model.model)
    chance = np.random.default_rng(5)
    truth = np.concatenate([1.05 * x, np.zeros(3)])
    state = estimator.start(0, np.concatenate([x, np.zeros(3)]), 24.0 * noise, u, d)
    sigmas = (0.1, 0.1)
    assert [v.name for v in model.model.y][1:3] == ["cB", "T"]
    analysis = Measurement((1,), (float(truth[1]),), (0.01,))
    for cycle in range(1, 31):
        moved = u * (1.0 + 0.1 * np.sin(cycle / 3.0))
        truth = np.asarray(model.advance(truth, moved, d, 10.0)[0]).ravel()
        y = np.asarray(model.observe(truth, moved, d)[0]).ravel()
        values = y[2:4] + 0.1 * chance.standard_normal(2)
        probe = Measurement((2, 3), tuple(values.tolist()), sigmas)
        state = estimator.advance(state, ns(10.0 * cycle), moved, d, probe)
        if cycle == 15:
            analysis = Measurement((1,), (float(y[1]),), (0.01,))
        if cycle == (27 if late else 15):
            result = LateResult("r", "lab", ns(150.0), analysis, 1.0)
            state, fusion = estimator.fuse(state, result)
            assert fusion.verdict is Verdict.FUSED
    return state, truth


def test_late_equals_in_time_on_a_nonlinear_model() -> None:
    in_time, truth = reactor_run(late=False)
    late, _ = reactor_run(late=True)
    assert in_time.moments[-1].outcome == "solved"
    for a, b in zip(in_time.moments[-12:], late.moments[-12:], strict=True):
        scale = 1.0 + np.abs(a.posterior.z)
        assert np.max(np.abs(a.posterior.z - b.posterior.z) / scale) < 1e-7
        assert np.max(np.abs(a.prior.z - b.prior.z) / scale) < 1e-7
    error = (in_time.moments[-1].posterior.z - truth)[2:4]
    assert np.max(np.abs(error)) < 1.0  # both temperatures, in K


def concentrations(window: int) -> np.ndarray:
    """Estimates (25, 2) of both concentrations, started far off, from the temperatures alone."""
    model = reactor()
    noise = noise_covariance(model, {}, model.disturbances)
    estimator = MovingHorizonEstimator(model, noise, 10.0, 600.0, window, iterations=20)
    x, u, d = operating_point(model.model)
    chance = np.random.default_rng(5)
    truth = np.concatenate([x * np.array([2.0, 0.5, 1.0, 1.0]), np.zeros(3)])
    doubt = np.diag([4.0, 1.0, 100.0, 100.0, 1e-4, 1.0, 1.0])
    state = estimator.start(0, np.concatenate([x, np.zeros(3)]), doubt, u, d)
    found: list[Vector] = []
    for cycle in range(1, 31):
        truth = np.asarray(model.advance(truth, u, d, 10.0)[0]).ravel()
        values = np.asarray(model.observe(truth, u, d)[0]).ravel()[2:4]
        values = values + 0.1 * chance.standard_normal(2)
        probe = Measurement((2, 3), tuple(values.tolist()), (0.1, 0.1))
        state = estimator.advance(state, ns(10.0 * cycle), u, d, probe)
        found.append(state.moments[-1].posterior.z[:2])
    return np.array(found)[5:]


def test_the_smoothed_arrival_stands_for_all_that_lies_before_the_window() -> None:
    """Three cycles and the arrival say what the whole history says, to 0.0006 mol/l here. An
    arrival linearised at what was believed at the time is off by 0.08."""
    assert concentrations(window=3) == pytest.approx(concentrations(window=40), abs=0.005)


@lru_cache(maxsize=1)
def decay() -> AugmentedModel:
    """A vessel with two parts; the level of neither can be negative."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 1), ("d", 0), ("p", 0)))
    level = [Variable(n, "m", 0.0, 10.0, 1.0) for n in ("upper", "lower")]
    model = ProcessModel(
        "vessel",
        tuple(level),
        (Variable("u", "m/s", -1.0, 1.0, 0.0),),
        (),
        (Variable("difference", "m", -10.0, 10.0, 0.0),),
        (),
        ca.Function("f", [x, u, d, p], [ca.vertcat(-0.02 * x[0], 0.02 * x[0] - 0.01 * x[1] + u)]),
        ca.Function("h", [x, u, d, p], [x[0] - x[1]]),
    )
    return augment(model, (), CYCLE_S, CYCLE_S)


VESSEL_NOISE = np.diag([30.0, 30.0])
LEVELS = (0.4, -2.5, 0.2, -3.5, -2.8, 0.9, -3.2)


def vessel(window: int) -> tuple[MovingHorizonEstimator, DelayedFilterState]:
    estimator = MovingHorizonEstimator(decay(), VESSEL_NOISE, CYCLE_S, 600.0, window=window)
    state = estimator.start(0, np.array([0.3, 0.2]), 0.5 * np.eye(2), np.zeros(1), np.zeros(0))
    for cycle, value in enumerate(LEVELS, start=1):
        probe = Measurement((0,), (value,), (0.4,))
        state = estimator.advance(state, ns(cycle * CYCLE_S), np.zeros(1), np.zeros(0), probe)
    return estimator, state


def test_with_bounds_it_is_the_constrained_least_squares_problem() -> None:
    """The same problem written down again, in the states, for another solver."""
    estimator, state = vessel(window=len(LEVELS))
    found = estimator.trajectory(state)
    z = cp.Variable((len(LEVELS) + 1, 2))
    step = np.asarray(decay().advance(np.zeros(2), np.zeros(1), np.zeros(0), CYCLE_S)[1])
    root = np.sqrt(np.diag(VESSEL_NOISE) * CYCLE_S / 3600.0)
    cost = cp.sum_squares(z[0] - np.array([0.3, 0.2])) / 0.5
    for k, value in enumerate(LEVELS):
        cost += cp.sum_squares(cp.multiply(z[k + 1] - step @ z[k], 1.0 / root))
        cost += cp.square((value - (z[k + 1, 0] - z[k + 1, 1])) / 0.4)
    problem = cp.Problem(cp.Minimize(cost), [z >= 0.0, z <= 10.0])
    problem.solve(solver=cp.CLARABEL)
    assert found.outcome == "solved"
    assert np.sum(found.z < 1e-6) >= 2  # several bounds are active
    assert found.z == pytest.approx(z.value, abs=1e-5)
    assert state.moments[-1].posterior.z == pytest.approx(found.z[-1], abs=1e-12)


def test_no_estimate_leaves_the_bounds() -> None:
    _, state = vessel(window=3)
    filter_ = DelayedFilter(decay(), VESSEL_NOISE, CYCLE_S, 600.0)
    free = filter_.start(0, np.array([0.3, 0.2]), 0.5 * np.eye(2), np.zeros(1), np.zeros(0))
    for cycle, value in enumerate(LEVELS, start=1):
        probe = Measurement((0,), (value,), (0.4,))
        free = filter_.advance(free, ns(cycle * CYCLE_S), np.zeros(1), np.zeros(0), probe)
    assert min(m.posterior.z.min() for m in free.moments) < -0.01  # so the bounds matter here
    assert min(m.posterior.z.min() for m in state.moments) > -1e-6
    assert all(m.outcome == "solved" for m in state.moments[1:])


def test_bounds_that_nothing_can_keep_are_named() -> None:
    """Without noise and initial doubt the model goes where it goes."""
    estimator = MovingHorizonEstimator(decay(), np.zeros((2, 2)), CYCLE_S, 600.0, window=4)
    start = np.array([0.3, 0.2])
    state = estimator.start(0, start, np.zeros((2, 2)), np.zeros(1), np.zeros(0))
    down = np.array([-0.5])
    for cycle in range(1, 4):
        probe = Measurement((0,), (0.0,), (0.4,))
        state = estimator.advance(state, ns(cycle * CYCLE_S), down, np.zeros(0), probe)
    newest = state.moments[-1]
    assert newest.outcome == "bounds cannot be kept"
    assert np.isfinite(newest.posterior.z).all()
    assert newest.posterior.z[1] < 0.0


def test_disturbances_are_bounded_by_the_range_they_add_to() -> None:
    low, high = bounds(augmented())
    assert low.tolist() == [0.0, 0.0, -100.0, -100.0]
    assert high.tolist() == [100.0, 100.0, 100.0, 100.0]


def test_a_model_that_leaves_the_numbers_is_named_and_does_not_raise() -> None:
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    state_ = Variable("x", "1", -10.0, 10.0, 1.0)
    model = ProcessModel(
        "runaway", (state_,), (Variable("u", "1", -1.0, 1.0, 0.0),), (), (state_,), (),
        ca.Function("f", [x, u, d, p], [-ca.sqrt(x)]),
        ca.Function("h", [x, u, d, p], [x]),
    )  # fmt: skip
    steady = augment(
        replace(model, f=ca.Function("f", [x, u, d, p], [-0.01 * x])), (), CYCLE_S, CYCLE_S
    )
    wild = replace(steady, advance=augment(model, (), 0.01, 0.01).advance)
    estimator = MovingHorizonEstimator(wild, np.eye(1), CYCLE_S, 100.0, window=3)
    state = estimator.start(0, np.array([-5.0]), np.eye(1), np.zeros(1), np.zeros(0))
    with np.errstate(all="ignore"):
        state = estimator.advance(
            state, ns(CYCLE_S), np.zeros(1), np.zeros(0), Measurement((0,), (1.0,), (0.1,))
        )
    assert state.moments[-1].outcome == "not finite"


def test_a_step_that_overshoots_is_shortened() -> None:
    """Newton's method on atan runs away from a start beyond 1.39."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    state_ = Variable("x", "1", -100.0, 100.0, 1.0)
    angle = Variable("angle", "rad", -2.0, 2.0, 0.0)
    model = ProcessModel(
        "lighthouse", (state_,), (Variable("u", "1", -1.0, 1.0, 0.0),), (), (angle,), (),
        ca.Function("f", [x, u, d, p], [0.0 * u]),
        ca.Function("h", [x, u, d, p], [ca.atan(x)]),
    )  # fmt: skip
    seen = augment(model, (), CYCLE_S, CYCLE_S)
    estimator = MovingHorizonEstimator(seen, np.zeros((1, 1)), CYCLE_S, 100.0, 3, iterations=20)
    state = estimator.start(0, np.array([3.0]), 100.0 * np.eye(1), np.zeros(1), np.zeros(0))
    probe = Measurement((0,), (0.0,), (0.001,))
    state = estimator.advance(state, ns(CYCLE_S), np.zeros(1), np.zeros(0), probe)
    newest = state.moments[-1]
    assert newest.outcome == "solved"
    assert newest.posterior.z[0] == pytest.approx(0.0, abs=1e-3)


def test_the_budget_is_kept_and_named() -> None:
    model = reactor()
    noise = noise_covariance(model, {}, model.disturbances)
    x, u, d = operating_point(model.model)
    outcomes: list[str] = []
    for iterations in (1, 20):
        estimator = MovingHorizonEstimator(model, noise, 10.0, 600.0, 4, iterations)
        state = estimator.start(0, np.concatenate([0.7 * x, np.zeros(3)]), 100.0 * noise, u, d)
        probe = Measurement((1, 2), (float(x[1]), float(x[2])), (0.001, 0.01))
        for cycle in range(1, 4):
            state = estimator.advance(state, ns(10.0 * cycle), u, d, probe)
        outcomes.append(state.moments[1].outcome)
    assert outcomes == ["budget spent", "solved"]


def test_the_memory_reaches_a_window_further_back_than_results_may() -> None:
    horizon = MovingHorizonEstimator(augmented(), NOISE, CYCLE_S, 100.0, window=5)
    state = horizon.start(0, START, np.eye(4), REST, FEED)
    probe = Measurement((0, 1), (50.0, 35.0), (0.3, 0.3))
    for cycle in range(1, 41):
        state = horizon.advance(state, ns(cycle * CYCLE_S), REST, FEED, probe)
    assert len(state.moments) == 10 + 1 + 5
    measured = Measurement((2,), (42.5,), (0.2,))
    old = LateResult("a", "lab", ns(29 * CYCLE_S), measured, 1.0)
    assert horizon.fuse(state, old)[1].verdict is Verdict.TOO_OLD
    assert horizon.fuse(state, replace(old, time_ns=ns(30 * CYCLE_S)))[1].verdict is Verdict.FUSED


@pytest.mark.parametrize(
    ("cycles", "drawn_s"), [(60, 560.0), (60, 400.0), (4, 0.0)], ids=["in", "before", "start"]
)
def test_a_trusted_outlier_moves_it_as_far_as_the_filter(cycles: int, drawn_s: float) -> None:
    """Drawn inside the newest window, before it, and where everything started."""
    states: list[DelayedFilterState] = []
    for estimator in tanks():
        state = drive(estimator, REGULAR[:cycles])
        for number in range(REJECTIONS_BEFORE_TRUST + 1):
            measured = Measurement((2,), (60.0,), (0.2,))
            late = LateResult(f"x{number}", "lab", ns(drawn_s), measured, 0.999)
            state, fusion = estimator.fuse(state, late)
        assert fusion.verdict is Verdict.FUSED
        assert abs(fusion.moved[2]) > 1e-4
        states.append(state)
    kalman, horizon = (s.moments[-1].posterior for s in states)
    assert horizon.z == pytest.approx(kalman.z, abs=1e-8)


def test_the_same_question_has_the_same_answer() -> None:
    _, horizon = tanks()
    first, second = drive(horizon, REGULAR), drive(horizon, REGULAR)
    assert np.array_equal(first.moments[-1].posterior.z, second.moments[-1].posterior.z)


def test_square_root_of_a_covariance() -> None:
    full = np.array([[4e8, 1.0], [1.0, 1e-8]])
    root = square_root(full)
    assert root @ root.T == pytest.approx(full, rel=1e-12)
    alike = np.array([[1.0, 0.99999], [0.99999, 1.0]])
    assert square_root(alike) @ square_root(alike).T == pytest.approx(alike, abs=1e-12)
    assert square_root(np.diag([0.0, 9.0])).shape == (2, 1)
    assert square_root(np.zeros((2, 2))).shape == (2, 0)
