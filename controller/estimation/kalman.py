"""Extended Kalman filter steps: predict over an interval, correct with what was measured.

Source: Jazwinski, Stochastic Processes and Filtering Theory, 1970. The correction is in Joseph
form, so that the covariance stays symmetric and positive over months.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy import dot
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv  # pyright: ignore[reportAttributeAccessIssue]

from controller.estimation.evaluation import Evaluation, Matrix
from plant_models.process import Vector

SECONDS_PER_HOUR = 3600.0


class Belief(Struct, frozen=True, eq=False):
    """What is believed of the augmented state: mean z (nz,) and covariance (nz, nz)."""

    z: Vector
    covariance: Matrix


class Measurement(Struct, frozen=True):
    """Outputs measured at one moment: indices into y, values and sigmas in their units."""

    outputs: tuple[int, ...]
    values: tuple[float, ...]
    sigmas: tuple[float, ...]


class Innovation(Struct, frozen=True, eq=False):
    """Measured minus predicted, its covariance, and the normalised square (chi-square)."""

    value: Vector
    covariance: Matrix
    chi_square: float


class Transition(Struct, frozen=True, eq=False):
    """Where z goes over an interval: z_next (nz,), its derivative a (nz, nz), noise (nz, nz)."""

    z: Vector
    a: Matrix
    noise: Matrix


def transition(
    evaluation: Evaluation,
    noise_per_hour: Matrix,
    z: Vector,
    u: Vector,
    d: Vector,
    elapsed_s: float,
    cycle_s: float,
) -> Transition:
    """Over elapsed_s seconds with u (nu,) and d (nd,) held, in steps of about one cycle.

    `noise_per_hour` (nz, nz) is the covariance that the states gain in one hour.
    """
    steps = max(1, round(elapsed_s / cycle_s))
    step_s = elapsed_s / steps
    gained = noise_per_hour * (step_s / SECONDS_PER_HOUR)
    z, a = evaluation.advance(z, u, d, step_s)
    noise = gained
    for _ in range(steps - 1):
        z, one = evaluation.advance(z, u, d, step_s)
        a = one @ a
        noise = one @ noise @ one.T + gained
    return Transition(z, a, noise)


def predict(
    evaluation: Evaluation,
    noise_per_hour: Matrix,
    belief: Belief,
    u: Vector,
    d: Vector,
    elapsed_s: float,
    cycle_s: float,
) -> Belief:
    """Belief after elapsed_s seconds with u (nu,) and d (nd,) held."""
    moved = transition(evaluation, noise_per_hour, belief.z, u, d, elapsed_s, cycle_s)
    return Belief(moved.z, dot(dot(moved.a, belief.covariance), moved.a.T) + moved.noise)


def surprise(
    evaluation: Evaluation, belief: Belief, u: Vector, d: Vector, measured: Measurement
) -> Vector:
    """Measured minus predicted, (m,), in the units of the outputs."""
    y, _ = evaluation.observe(belief.z, u, d)
    return unexpected(y, measured)


def unexpected(y: Vector, measured: Measurement) -> Vector:
    """Measured minus expected y (ny,), (m,)."""
    return np.array(measured.values) - y.take(sensors_of(measured.outputs, measured.sigmas).rows)


def innovation(
    evaluation: Evaluation, belief: Belief, u: Vector, d: Vector, measured: Measurement
) -> Innovation:
    """What the measurement says beyond the belief, without correcting anything."""
    sensors = sensors_of(measured.outputs, measured.sigmas)
    y, c = evaluation.observe(belief.z, u, d)
    c = c.take(sensors.rows, 0)
    value = np.array(measured.values) - y.take(sensors.rows)
    covariance = c @ belief.covariance @ c.T + sensors.noise
    # A value so absurd that its square overflows is infinitely surprising, not an error.
    with np.errstate(over="ignore", invalid="ignore"):
        chi_square = float(value @ _solve(covariance, value))
    return Innovation(value, covariance, chi_square)


def correct(
    evaluation: Evaluation,
    belief: Belief,
    u: Vector,
    d: Vector,
    measured: Measurement,
    about: Vector | None = None,
) -> Belief:
    """Belief after the measurement (Joseph form); NaN where the covariance is not positive.

    The outputs are linearised `about` a state (nz,); by default at what is believed.
    """
    if not measured.outputs:
        return belief
    sensors = sensors_of(measured.outputs, measured.sigmas)
    y, c = evaluation.observe(belief.z if about is None else about, u, d)
    # dot, because @ takes twice as long to start, which is all that counts at this size.
    c = c.take(sensors.rows, 0)
    seen = dot(c, belief.covariance)
    gain = _solve(dot(seen, c.T) + sensors.noise, seen).T
    rest = _identity(belief.z.size) - dot(gain, c)
    scaled = gain * sensors.sigmas
    posterior = dot(dot(rest, belief.covariance), rest.T)
    posterior += dot(scaled, scaled.T)
    posterior += posterior.T.copy()
    posterior *= 0.5
    value = np.array(measured.values) - y.take(sensors.rows)
    if about is not None:
        value -= dot(c, belief.z - about)
    return Belief(belief.z + dot(gain, value), posterior)


@dataclass(frozen=True, slots=True, eq=False)
class Sensors:
    """Which outputs are measured, (m,), with which sigmas, (m,), and noise covariance, (m, m)."""

    rows: NDArray[np.intp]
    sigmas: Vector
    noise: Matrix


@lru_cache(maxsize=1024)
def sensors_of(outputs: tuple[int, ...], sigmas: tuple[float, ...]) -> Sensors:
    """The arrays of a measurement; the same few come every cycle."""
    spread = np.array(sigmas, dtype=np.float64)
    with np.errstate(over="ignore"):  # a sensor may know nothing at all
        variance = spread * spread
    return Sensors(np.array(outputs, dtype=np.intp), spread, np.diag(variance))


@lru_cache(maxsize=64)
def _identity(size: int) -> Matrix:
    return np.eye(size)


def _solve(covariance: Matrix, right: Matrix) -> Matrix:
    """covariance⁻¹ right by Cholesky; NaN where the covariance is not positive definite."""
    # Straight to LAPACK: for four measurements numpy's own solve spends its time on checks.
    _, solution, failed = dposv(covariance, right)
    return np.full_like(right, np.nan) if failed else solution
