"""Late results in any order of arrival: the estimate of the filter that had them in time."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.estimation.delayed import LateResult, Verdict
from controller.estimation.estimator import EstimatorKind, make_estimator
from controller.estimation.kalman import Measurement
from controller.signal import NS_PER_S
from tests.unit.random_walk import Walk, at, result
from tests.unit.small_application import CYCLE_S, GAIN, TIME_CONSTANTS_S, augmented

CYCLES = 20
SIGMA_PROBE, SIGMA_LAB = 0.3, 0.2
NOISE = np.diag([4.0, 4.0, 400.0, 400.0])
C = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0.5, 0.5, 0, 0]])
START = np.array([50.0, 35.0, 0.0, 0.0])

LAB = st.tuples(
    st.integers(1, CYCLES),  # drawn in this cycle
    st.integers(0, 12),  # that many cycles late
    st.floats(35.0, 50.0),
)


def taylor(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Discrete (A, B) of z = (T1, T2, w1, w2): the series of exp to the fourth power, as RK4."""
    a = np.zeros((4, 4))
    a[:2, :2] = -np.diag(1 / np.array(TIME_CONSTANTS_S))
    a[:2, 2:] = GAIN / np.array(TIME_CONSTANTS_S)[:, None]
    b = np.vstack([GAIN / np.array(TIME_CONSTANTS_S)[:, None], np.zeros((2, 2))])
    powers = [np.linalg.matrix_power(a * seconds, k) for k in range(5)]
    transition = sum((p / math.factorial(k) for k, p in enumerate(powers)), np.zeros((4, 4)))
    held = sum((p / math.factorial(k + 1) for k, p in enumerate(powers[:4])), np.zeros((4, 4)))
    return transition, held @ b * seconds


def in_order(
    inputs: np.ndarray, probes: np.ndarray, labs: list[tuple[int, int, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """The textbook filter with every result in its own cycle, all of a cycle in one update."""
    a, b = taylor(CYCLE_S)
    z, p = START.copy(), np.eye(4)
    for cycle in range(1, CYCLES + 1):
        z = a @ z + b @ inputs[cycle]
        p = a @ p @ a.T + NOISE * CYCLE_S / 3600.0
        own = [value for drawn, _, value in labs if drawn == cycle]
        rows = [0, 1] + [2] * len(own)
        y = np.array([*probes[cycle], *own])
        r = np.diag([SIGMA_PROBE**2] * 2 + [SIGMA_LAB**2] * len(own))
        c = C[rows]
        gain = p @ c.T @ np.linalg.inv(c @ p @ c.T + r)
        z = z + gain @ (y - c @ z)
        p = p - gain @ c @ p
    return z, p


# Matrices of the augmented tanks are constant, so one estimator serves all examples.
ESTIMATORS = {
    kind: make_estimator(kind, augmented(), NOISE, CYCLE_S, CYCLES * CYCLE_S, 5, 6)
    for kind in get_args(EstimatorKind)
}
ACCURACY = {"kalman": 1e-10, "ekf": 1e-10, "moving_horizon": 1e-8}


@pytest.mark.parametrize("kind", ESTIMATORS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    labs=st.lists(LAB, max_size=8),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_equals_the_filter_in_order(
    kind: EstimatorKind, seed: int, labs: list[tuple[int, int, float]], shuffle: object
) -> None:
    chance = np.random.default_rng(seed)
    inputs = 50.0 + 10.0 * chance.standard_normal((CYCLES + 1, 2))
    probes = np.array([50.0, 35.0]) + chance.standard_normal((CYCLES + 1, 2))
    filter_ = ESTIMATORS[kind]
    feed = np.ones(1)
    state = filter_.start(0, START, np.eye(4), inputs[0], feed)
    arrivals = list(enumerate(labs))
    shuffle.shuffle(arrivals)  # type: ignore[attr-defined]
    for cycle in range(1, CYCLES + 1):
        probe = Measurement((0, 1), tuple(probes[cycle]), (SIGMA_PROBE, SIGMA_PROBE))
        now_ns = round(cycle * CYCLE_S * NS_PER_S)
        state = filter_.advance(state, now_ns, inputs[cycle], feed, probe)
        for number, (drawn, late, value) in arrivals:
            if min(drawn + late, CYCLES) == cycle:
                measured = Measurement((2,), (value,), (SIGMA_LAB,))
                drawn_ns = round(drawn * CYCLE_S * NS_PER_S)
                lab = LateResult(f"r{number}", "lab", drawn_ns, measured, 1.0)
                state, fusion = filter_.fuse(state, lab)
                assert fusion.verdict is Verdict.FUSED
    z, p = in_order(inputs, probes, labs)
    assert state.moments[-1].posterior.z == pytest.approx(z, abs=ACCURACY[kind])
    assert state.moments[-1].posterior.covariance == pytest.approx(p, abs=ACCURACY[kind])


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(8)), st.lists(st.floats(-3.0, 3.0), min_size=8, max_size=8))
def test_the_random_walk_does_not_care_about_the_order(
    order: list[int], values: list[float]
) -> None:
    forward, shuffled = Walk(), Walk()
    for _ in range(10):
        forward.advance(0.0)
        shuffled.advance(0.0)
    for number in range(8):
        forward.state, _ = forward.filter.fuse(
            forward.state, result(f"r{number}", number + 1, values[number])
        )
    for number in order:
        shuffled.state, _ = shuffled.filter.fuse(
            shuffled.state, result(f"r{number}", number + 1, values[number])
        )
    assert shuffled.mean == pytest.approx(forward.mean, abs=1e-10)
    assert shuffled.variance == pytest.approx(forward.variance, abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.floats(-5.0, 15.0),
            st.floats() | st.floats(-3.0, 3.0),
            st.floats() | st.just(1.0),
        ),
        max_size=10,
    )
)
def test_whatever_the_laboratory_sends_the_estimate_stays_finite(
    results: list[tuple[str, float, float, float]],
) -> None:
    run = Walk()
    for _ in range(10):
        run.advance(0.0)
    for name, cycle, value, sigma in results:
        measured = Measurement((0,), (value,), (sigma,))
        before = run.state
        with np.errstate(all="ignore"):
            run.state, fusion = run.filter.fuse(
                before, LateResult(name, "lab", at(cycle), measured, 0.999)
            )
        moved = run.state.moments is not before.moments
        assert moved == (fusion.verdict is Verdict.FUSED)
        assert np.isfinite(run.mean)
        assert np.isfinite(run.variance)
        assert run.variance > 0.0
