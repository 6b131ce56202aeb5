"""One cycle of the extended Kalman filter in one evaluation: predict, correct, and what it shows.

The same filter as `kalman.predict` and `kalman.correct`, which stay the reference and take over
where this does not apply. For a handful of states most of their time goes into starting two dozen
small array operations; here they are one compiled expression.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from controller.estimation.augmented import AugmentedModel
from controller.estimation.evaluation import SAME_STEP, LinearEvaluation, Matrix
from controller.estimation.kalman import SECONDS_PER_HOUR, Belief, Measurement, sensors_of
from plant_models.process import Vector

# The expression grows with the cube of the states; from here on matrix products are faster.
STATES_MAX = 16


class Fused(NamedTuple):
    """Beliefs before and after the correction, and what they show.

    `expected` are the outputs before the correction, `y` after it, with `variance`: (ny,) each.
    """

    prior: Belief
    posterior: Belief
    expected: Vector
    y: Vector
    variance: Vector


class FusedStep:
    """The compiled expression behind preallocated memory. Same arguments, same answer.

    Measurements are taken one after the other, which with independent sensors is the same as all
    at once (Jazwinski 1970, section 7.3): no matrix is inverted. All are linearised at the prior.
    """

    __slots__ = ("_ends", "_evaluate", "_given", "_held", "_nz", "_result", "_shows")

    def __init__(
        self, augmented: AugmentedModel, constant: LinearEvaluation | None, noise_per_hour: Matrix
    ) -> None:
        """`constant`: matrices of a linear model; `noise_per_hour`: (nz, nz)."""
        model, nz = augmented.model, augmented.nz
        nu, nd, ny = len(model.u), len(model.d), len(model.y)
        sizes = (nz, nz * nz, nu, nd, nd, 1, ny, ny, ny)
        self._ends = tuple(accumulate(sizes))
        given = ca.SX.sym("given", self._ends[-1])
        parts = [given[start:end] for start, end in pairwise((0, *self._ends))]
        shown = _expression(augmented, constant, noise_per_hour, parts)
        self._nz = nz
        self._shows = tuple(pairwise(accumulate((2 * nz * (nz + 1), ny, ny, ny))))
        self._given = np.zeros(self._ends[-1])
        self._result = np.zeros(self._shows[-1][1])
        # The buffer owns the function's work memory: it must live as long as what evaluates it.
        self._held, self._evaluate = ca.Function("fused", [given], [shown]).buffer()
        self._held.set_arg(0, self._given.data)  # pyright: ignore[reportCallIssue]
        self._held.set_res(0, self._result.data)  # pyright: ignore[reportCallIssue]

    def __call__(
        self, last: Belief, u: Vector, before: Vector, d: Vector, dt_s: float, measured: Measurement
    ) -> Fused:
        """dt_s seconds further with u (nu,) and `before` (nd,) held, d (nd,) at the end."""
        given = self._given
        of_z, of_p, of_u, of_before, of_d, of_dt, of_values, _, _ = self._ends
        given[:of_z] = last.z
        given[of_z:of_p] = last.covariance.ravel()
        given[of_p:of_u] = u
        given[of_u:of_before] = before
        given[of_before:of_d] = d
        given[of_d] = dt_s
        rows, pattern = _pattern(of_values - of_dt, measured.outputs, measured.sigmas)
        given[of_dt:] = pattern
        given[of_dt:of_values][rows] = measured.values
        self._evaluate()
        found, nz = self._result.copy(), self._nz
        half = nz * (nz + 1)
        prior = Belief(found[:nz], found[nz:half].reshape(nz, nz))
        posterior = Belief(found[half : half + nz], found[half + nz : 2 * half].reshape(nz, nz))
        return Fused(prior, posterior, *(found[start:end] for start, end in self._shows))


def fused_step(
    augmented: AugmentedModel, constant: LinearEvaluation | None, noise_per_hour: Matrix
) -> FusedStep | None:
    """The fused step of a filter; None where the model is too large, or implicit."""
    small = augmented.nz <= STATES_MAX
    explicit = augmented.advance.is_a("SXFunction") and augmented.observe.is_a("SXFunction")
    return FusedStep(augmented, constant, noise_per_hour) if small and explicit else None


def applies(
    constant: LinearEvaluation | None, measured: Measurement, elapsed_s: float, cycle_s: float
) -> bool:
    """Whether this is about one cycle, with no output measured twice."""
    if len(set(measured.outputs)) < len(measured.outputs):
        return False
    if constant is not None:
        return abs(elapsed_s - constant.dt_s) <= SAME_STEP * constant.dt_s
    return round(elapsed_s / cycle_s) <= 1


@lru_cache(maxsize=1024)
def _pattern(
    ny: int, outputs: tuple[int, ...], sigmas: tuple[float, ...]
) -> tuple[NDArray[np.intp], Vector]:
    """Rows that are measured, and for all: no value yet, its variance, whether it counts."""
    sensors = sensors_of(outputs, sigmas)
    pattern = np.concatenate([np.zeros(ny), np.ones(ny), np.zeros(ny)])
    variance = sensors.noise.diagonal()
    told = ~np.isinf(variance)  # a sensor that knows nothing is none
    pattern[ny + sensors.rows] = np.where(told, variance, 1.0)
    pattern[2 * ny + sensors.rows] = told
    return sensors.rows, pattern


def _expression(
    augmented: AugmentedModel,
    constant: LinearEvaluation | None,
    noise_per_hour: Matrix,
    parts: list[Any],
) -> Any:
    """Prior, posterior, expected outputs, outputs and variances, one after the other."""
    z, covariance, u, before, d, dt, values, variance, counts = parts
    nz = augmented.nz
    # Of a symmetric matrix the upper triangle is enough, and so it stays symmetric for months.
    covariance = _symmetric(ca.reshape(covariance, nz, nz))
    advanced, a = _advanced(augmented, constant, z, u, before, dt)
    moved = ca.mtimes([a, covariance, a.T]) + ca.DM(noise_per_hour) * (dt / SECONDS_PER_HOUR)
    prior = _symmetric(moved)
    expected, c = _observed(augmented, constant, advanced, u, d)
    mean, left = advanced, prior
    for row in range(int(expected.numel())):
        # Nobody looks at what is not measured: there it may be no number, as a root of nothing.
        counted = counts[row] > 0.0
        of_row = ca.if_else(counted, c[row, :], ca.SX.zeros(1, nz))
        seen = ca.mtimes(left, of_row.T)
        spread = ca.mtimes(of_row, seen) + variance[row]
        gain = ca.if_else(spread > 0.0, seen / spread, ca.SX.nan(nz, 1))
        unexpected = ca.if_else(counted, values[row] - expected[row], 0.0)
        surprise = unexpected - ca.mtimes(of_row, mean - advanced)
        mean = mean + gain * surprise
        rest = left - ca.mtimes(gain, seen.T)
        joseph = rest - ca.mtimes(ca.mtimes(rest, of_row.T), gain.T)
        left = _symmetric(joseph + ca.mtimes(gain, gain.T) * variance[row])
    y, slope = _observed(augmented, constant, mean, u, d)
    spreads = ca.sum2(ca.mtimes(slope, left) * slope)
    parts = [advanced, ca.vec(prior), mean, ca.vec(left), expected, y, spreads]
    return ca.densify(ca.vertcat(*parts))


def _advanced(
    augmented: AugmentedModel, constant: LinearEvaluation | None, z: Any, u: Any, d: Any, dt: Any
) -> tuple[Any, Any]:
    if constant is None:
        return augmented.advance(z, u, d, dt)
    a, bu, bd = (ca.sparsify(ca.DM(m)) for m in (constant.a, constant.bu, constant.bd))
    return ca.mtimes(a, z) + ca.mtimes(bu, u) + ca.mtimes(bd, d) + constant.b, ca.SX(a)


def _observed(
    augmented: AugmentedModel, constant: LinearEvaluation | None, z: Any, u: Any, d: Any
) -> tuple[Any, Any]:
    if constant is None:
        return augmented.observe(z, u, d)
    c, du, dd = (ca.sparsify(ca.DM(m)) for m in (constant.c, constant.du, constant.dd))
    return ca.mtimes(c, z) + ca.mtimes(du, u) + ca.mtimes(dd, d) + constant.y0, ca.SX(c)


def _symmetric(matrix: Any) -> Any:
    return ca.triu2symm(ca.triu(matrix))
