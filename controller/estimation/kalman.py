"""Extended Kalman filter steps: predict over an interval, correct with what was measured.

Source: Jazwinski, Stochastic Processes and Filtering Theory, 1970. The correction is in Joseph
form, so that the covariance stays symmetric and positive over months.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.estimation.augmented import AugmentedModel
from plant_models.process import Vector

Matrix = NDArray[np.float64]

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """What is believed of the augmented state: mean z (nz,) and covariance (nz, nz)."""

    z: Vector
    covariance: Matrix


@dataclass(frozen=True, slots=True)
class Measurement:
    """Outputs measured at one moment: indices into y, values and sigmas in their units."""

    outputs: tuple[int, ...]
    values: tuple[float, ...]
    sigmas: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Innovation:
    """Measured minus predicted, its covariance, and the normalised square (chi-square)."""

    value: Vector
    covariance: Matrix
    chi_square: float


def predict(
    augmented: AugmentedModel,
    noise_per_hour: Matrix,
    belief: Belief,
    u: Vector,
    d: Vector,
    dt_s: float,
) -> Belief:
    """Belief after dt_s seconds with u (nu,) and d (nd,) held.

    `noise_per_hour` (nz, nz) is the covariance that the states gain in one hour.
    """
    z, a = (np.asarray(m) for m in augmented.advance(belief.z, u, d, dt_s))
    covariance = a @ belief.covariance @ a.T + noise_per_hour * (dt_s / SECONDS_PER_HOUR)
    return Belief(z.ravel(), covariance)


def innovation(
    augmented: AugmentedModel, belief: Belief, u: Vector, d: Vector, measured: Measurement
) -> Innovation:
    """What the measurement says beyond the belief, without correcting anything."""
    value, _, covariance = _residual(augmented, belief, u, d, measured)
    # A value so absurd that its square overflows is infinitely surprising, not an error.
    with np.errstate(over="ignore", invalid="ignore"):
        chi_square = float(value @ np.linalg.solve(covariance, value))
    return Innovation(value, covariance, chi_square)


def correct(
    augmented: AugmentedModel, belief: Belief, u: Vector, d: Vector, measured: Measurement
) -> Belief:
    """Belief after the measurement (Joseph form)."""
    if not measured.outputs:
        return belief
    value, c, covariance = _residual(augmented, belief, u, d, measured)
    gain = np.linalg.solve(covariance, c @ belief.covariance).T
    rest = np.eye(belief.z.size) - gain @ c
    noise = np.square(np.array(measured.sigmas))
    posterior = rest @ belief.covariance @ rest.T + (gain * noise) @ gain.T
    return Belief(belief.z + gain @ value, (posterior + posterior.T) / 2)


def _residual(
    augmented: AugmentedModel, belief: Belief, u: Vector, d: Vector, measured: Measurement
) -> tuple[Vector, Matrix, Matrix]:
    y, c_all = (np.asarray(m) for m in augmented.observe(belief.z, u, d))
    rows = list(measured.outputs)
    c = c_all[rows]
    value = np.array(measured.values) - y.ravel()[rows]
    covariance = c @ belief.covariance @ c.T + np.diag(np.square(np.array(measured.sigmas)))
    return value, c, covariance
