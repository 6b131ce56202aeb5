"""Autocovariance least squares: the covariances of known systems come back, or why they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from controller.errors import ModelError
from controller.estimation.autocovariance import (
    autocovariance_least_squares,
    covariances_from_data,
    fixed_gain_innovations,
    settling_cycles,
)

A = np.array([[0.9, 0.1], [0.0, 0.7]])
B = np.array([[0.0], [1.0]])
C = np.eye(2)
Q = np.array([[0.5, 0.1], [0.1, 0.2]])
R = np.diag([0.3, 0.8])
LAGS = 12
FIRST_GAIN = np.diag([0.4, 0.2])
"""The gain of a filter tuned by hand, far from the right one."""


def dare_gain(a: np.ndarray, c: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
    p = solve_discrete_are(a.T, c.T, q, r)
    return p @ c.T @ np.linalg.inv(c @ p @ c.T + r)


def record(samples: int, seed: int = 0, r: np.ndarray = R) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (T, 1) and outputs (T, 2) of the known system."""
    chance = np.random.default_rng(seed)
    w = chance.multivariate_normal(np.zeros(2), Q, samples)
    v = chance.multivariate_normal(np.zeros(2), r, samples)
    u = chance.standard_normal((samples, 1))
    x, y = np.array([5.0, -5.0]), np.empty((samples, 2))
    for k in range(samples):
        y[k] = C @ x + v[k]
        x = A @ x + B @ u[k] + w[k]
    return u, y


def test_exact_autocovariances_give_the_exact_covariances() -> None:
    """A sequence whose autocovariances are those of the theory: nothing is left to chance."""
    r = 0.8
    q, a, gain = 0.5, 0.9, 0.3
    closed = a * (1.0 - gain)
    p = (q + (a * gain) ** 2 * r) / (1.0 - closed**2)
    wanted = [p + r] + [closed ** (j - 1) * (closed * p - a * gain * r) for j in range(1, 6)]
    # A moving average through the spectrum: circular, so its sample autocovariance is exact.
    count = 600
    lags = np.concatenate([wanted, [wanted[-1] * closed**j for j in range(1, 295)]])
    both = np.concatenate([lags, [0.0], lags[:0:-1]])
    spectrum = np.maximum(np.fft.fft(both[:count]).real, 0.0)
    sequence = np.fft.ifft(np.sqrt(spectrum)).real * np.sqrt(count)
    repeated = np.tile(sequence, 400)[:, None]
    one = np.ones((1, 1))
    found = autocovariance_least_squares(a * one, one, gain * one, repeated, 6)
    assert found.q[0, 0] == pytest.approx(q, rel=5e-3)
    assert found.r[0, 0] == pytest.approx(r, rel=5e-3)
    assert found.unexplained < 5e-3


def test_the_gain_tends_to_the_dare_gain() -> None:
    """The error falls as 1/sqrt(T): over seeds 0.04 in the mean and 0.07 at worst with 2000
    samples, 0.008 and 0.010 with 50 000. The limits are about twice the worst."""
    right = dare_gain(A, C, Q, R)
    errors: list[float] = []
    for samples, tolerance in ((2_000, 0.12), (50_000, 0.02)):
        found = covariances_from_data(A, B, C, FIRST_GAIN, *record(samples), LAGS)
        errors.append(float(np.max(np.abs(found.gain - right))))
        assert errors[-1] < tolerance
        assert found.gain == pytest.approx(dare_gain(A, C, found.q, found.r), abs=1e-9)
    assert errors[1] < errors[0]
    assert found.q == pytest.approx(Q, abs=0.05)
    assert found.r == pytest.approx(R, abs=0.05)
    # Far better than what the filter ran with.
    assert errors[1] < 0.1 * np.max(np.abs(FIRST_GAIN - right))


def test_units_do_not_matter() -> None:
    u, y = record(5_000)
    scale = np.diag([1e-3, 1e4])
    plain = covariances_from_data(A, B, C, FIRST_GAIN, u, y, LAGS)
    gain = FIRST_GAIN @ np.linalg.inv(scale)
    other = covariances_from_data(A, B, scale @ C, gain, u, y @ scale, LAGS)
    assert other.q == pytest.approx(plain.q, abs=1e-4)
    assert np.linalg.inv(scale) @ other.r @ np.linalg.inv(scale) == pytest.approx(plain.r, abs=1e-4)


def test_answers_are_positive_semidefinite_even_from_little_data() -> None:
    for seed in range(4):
        u, y = record(300, seed, r=1e-6 * np.eye(2))
        u, y = u[:300], y[:300]
        found = covariances_from_data(A, B, C, FIRST_GAIN, u, y, 8)
        assert np.linalg.eigvalsh(found.q).min() >= 0.0
        assert np.linalg.eigvalsh(found.r).min() >= -1e-12


def test_noise_in_one_place_and_one_sensor() -> None:
    """An integrating disturbance behind one measurement, as the estimator has it."""
    a = np.array([[0.8, 0.2], [0.0, 1.0]])
    c = np.array([[1.0, 0.0]])
    enters = np.array([[0.0], [1.0]])
    chance = np.random.default_rng(2)
    x, y = np.zeros(2), np.empty((30_000, 1))
    for k in range(len(y)):
        y[k] = c @ x + chance.normal(0.0, 0.5)
        x = a @ x + enters @ [chance.normal(0.0, 0.1)]
    gain = np.array([[0.3], [0.1]])
    nothing = np.zeros((len(y), 1))
    found = covariances_from_data(
        a, np.zeros((2, 1)), c, gain, nothing, y, 20, noise_input=enters, structure="diagonal"
    )
    assert found.q[0, 0] == pytest.approx(0.01, rel=0.15)
    assert found.r[0, 0] == pytest.approx(0.25, rel=0.05)
    assert found.per_hour(10.0)[0, 0] == pytest.approx(360.0 * found.q[0, 0])
    right = dare_gain(a, c, enters @ enters.T * 0.01, np.array([[0.25]]))
    assert found.gain == pytest.approx(right, abs=0.02)


def test_innovations_of_a_perfect_filter_are_white() -> None:
    u, y = record(20_000)
    found = fixed_gain_innovations(A, B, C, dare_gain(A, C, Q, R), u, y)[100:]
    correlation = found[1:].T @ found[:-1] / len(found)
    assert np.max(np.abs(correlation)) < 4.0 / np.sqrt(len(found))  # 4 sigma; innovations near 1


def test_the_transient_is_left_out() -> None:
    closed = A - A @ FIRST_GAIN @ C
    cycles = settling_cycles(A, C, FIRST_GAIN)
    assert np.max(np.abs(np.linalg.matrix_power(closed, cycles))) < 3e-3
    assert np.max(np.abs(np.linalg.matrix_power(closed, cycles // 2))) > 1e-2


INNOVATIONS = np.random.default_rng(1).standard_normal((400, 2))
NAN = INNOVATIONS.copy()
NAN[17, 1] = np.nan
STILL = INNOVATIONS * [1.0, 0.0]

REFUSED = {
    "too little data": ({"innovations": INNOVATIONS[:50]}, "50 innovations are too few", "240"),
    "no lags": ({"lags": 0}, "0 lags", "settling time"),
    "not finite": ({"innovations": NAN}, "innovation 17 is not a finite", "stretch"),
    "a still sensor": ({"innovations": STILL}, "measurement 1 are all zero", "Leave out"),
    "unobservable": ({"c": np.array([[0.0, 1.0], [0.0, 2.0]])}, "1 of 2 states", "Measure more"),
    "unstable filter": ({"gain": -FIRST_GAIN}, "does not settle", "below"),
    "shape of the gain": ({"gain": np.ones((2, 1))}, r"gain has the shape", "one model"),
    "shape of the data": ({"innovations": INNOVATIONS[:, :1]}, "the data have", "one column"),
    "shape of the noise": ({"noise_input": np.ones((3, 1))}, "noise_input has", "one model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_with_a_remedy(case: str) -> None:
    changed, what, mend = REFUSED[case]
    given = {"a": A, "c": C, "gain": FIRST_GAIN, "innovations": INNOVATIONS, "lags": LAGS} | changed
    with pytest.raises(ModelError, match=what) as caught:
        autocovariance_least_squares(**given)  # type: ignore[arg-type]
    assert mend in caught.value.mend


def test_covariances_that_the_innovations_do_not_settle_are_refused() -> None:
    """Six entries of q behind one measurement; with a price on the trace there is an answer."""
    a = np.array([[0.9, 0.2, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 0.7]])
    c = np.array([[1.0, 0.0, 0.0]])
    gain = np.array([[0.4], [0.1], [0.0]])
    with pytest.raises(ModelError, match="settle 4 of the 7 entries") as caught:
        autocovariance_least_squares(a, c, gain, INNOVATIONS[:, :1], LAGS)
    assert "noise_input" in caught.value.mend
    found = autocovariance_least_squares(a, c, gain, INNOVATIONS[:, :1], LAGS, trace_weight=1e-3)
    assert np.linalg.eigvalsh(found.q).min() >= 0.0


def test_inputs_and_outputs_of_different_length_are_refused() -> None:
    u, y = record(600)
    with pytest.raises(ModelError, match="599 inputs and 600 outputs"):
        covariances_from_data(A, B, C, FIRST_GAIN, u[1:], y, LAGS)
