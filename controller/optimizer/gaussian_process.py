"""A small Gaussian process that learns plant − model from at most a few dozen steady points."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from plant_models.process import Vector

# Factors on the expected amplitude that the marginal likelihood may choose from.
_AMPLITUDES = tuple(3.0 ** (k / 2) for k in range(-3, 7))
# Curved part as a share of the linear one over one trust region.
_CURVATURES = (0.1, 0.3, 1.0)
# How far the data may pull the amplitude from the expected one: a factor 3 is one deviation.
# Four or five points say little about hyper-parameters, so the prior has to.
_LOG_AMPLITUDE_SD = math.log(3.0)


@dataclass(frozen=True, slots=True)
class Kernel:
    """k(a, b) = offset² + slope² aᵀb + curvature² exp(−‖a − b‖² / (2 length²)).

    Inputs are scaled so that one trust region is one unit. The linear part makes an affine
    mismatch, which is what modifiers correct, exactly representable; the rest is its bending.
    """

    offset: float
    slope: float
    curvature: float
    length: float

    def __call__(self, a: Vector, b: Vector) -> Vector:
        """Covariance of points a (n, m) and b (k, m); shape (n, k)."""
        squared = np.sum((a[:, None, :] - b[None, :, :]) ** 2, axis=2)
        bend = self.curvature**2 * np.exp(-squared / (2 * self.length**2))
        return self.offset**2 + self.slope**2 * (a @ b.T) + bend


@dataclass(frozen=True, slots=True, eq=False)
class GaussianProcess:
    """Posterior of a function given noisy values (Rasmussen & Williams 2006, algorithm 2.1).

    Attributes:
        points: (n, m), scaled inputs; `mean` is subtracted from the values beforehand.
        evidence: log marginal likelihood of the values.
    """

    kernel: Kernel
    points: Vector
    mean: float
    weights: Vector
    evidence: float
    _whitener: Vector

    def predict(self, at: Vector) -> tuple[Vector, Vector]:
        """Mean (k,) and covariance (k, k) of the noise-free function at points `at` (k, m)."""
        cross = self.kernel(at, self.points)
        white = cross @ self._whitener.T
        return self.mean + cross @ self.weights, self.kernel(at, at) - white @ white.T

    def predict_one(self, at: Vector) -> tuple[float, float]:
        """Mean and standard deviation of the noise-free function at one point (m,)."""
        kernel = self.kernel
        # The kernel written out for one point: the solver's innermost call, three times as fast.
        away = self.points - at
        bend = np.exp(np.einsum("ij,ij->i", away, away) * (-0.5 / kernel.length**2))
        cross = kernel.offset**2 + kernel.slope**2 * (self.points @ at) + kernel.curvature**2 * bend
        white = self._whitener @ cross
        own = kernel.offset**2 + kernel.curvature**2 + kernel.slope**2 * float(at @ at)
        variance = max(own - float(white @ white), 0.0)
        return self.mean + float(cross @ self.weights), math.sqrt(variance)


def fit(points: Vector, values: Vector, sigma: Vector, kernel: Kernel) -> GaussianProcess:
    """Condition on values (n,) at points (n, m) with noise of standard deviation sigma (n,)."""
    mean = float(np.mean(values))
    centred = values - mean
    covariance = kernel(points, points)
    # The jitter keeps repeated noise-free points factorisable; it is far below any noise.
    jitter = 1e-12 * float(np.trace(covariance)) / len(values)
    covariance = covariance + np.diag(sigma**2 + jitter)
    factor = np.linalg.cholesky(covariance)
    # The inverse of the factor turns the values into independent ones of variance 1.
    whitener = np.asarray(np.linalg.solve(factor, np.eye(len(values))), dtype=np.float64)
    white = whitener @ centred
    log_det = 2.0 * float(np.sum(np.log(np.diag(factor))))
    evidence = -0.5 * (float(white @ white) + log_det + len(values) * math.log(2 * math.pi))
    return GaussianProcess(kernel, points, mean, whitener.T @ white, evidence, whitener)


def learn(points: Vector, values: Vector, sigma: Vector, amplitude: float) -> GaussianProcess:
    """The most probable of a fixed set of kernels, given the data and the expected amplitude.

    Args:
        sigma: (n,), standard deviation of each value.
        amplitude: expected change of plant − model over one trust region, in the value's unit.
    """
    best: tuple[float, GaussianProcess] | None = None
    for factor, curvature in itertools.product(_AMPLITUDES, _CURVATURES):
        slope = amplitude * factor
        kernel = Kernel(10.0 * slope, slope, curvature * slope, 2.0)
        process = fit(points, values, sigma, kernel)
        score = process.evidence - 0.5 * (math.log(factor) / _LOG_AMPLITUDE_SD) ** 2
        if best is None or score > best[0]:
            best = (score, process)
    if best is None:
        raise AssertionError("the set of kernels is empty")
    return best[1]
