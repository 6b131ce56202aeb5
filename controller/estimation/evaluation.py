"""The augmented model in numbers, fast: compiled with its derivatives, or as constant matrices.

A plain call of a CasADi function with arrays takes 25 µs and more in conversions alone, longer
than the computation. Here arguments and results pass through preallocated memory instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Protocol

import casadi as ca
import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from controller.errors import ModelError
from controller.estimation.augmented import AugmentedModel, operating_point
from plant_models.process import Vector, names

Matrix = NDArray[np.float64]

# Rounding in the sum of a few hundred scaled terms stays below 1e-12; a curvature that changes
# an entry by less than a millionth over the whole range would not be seen in any plant.
LINEAR_TOLERANCE = 1e-6
PROBES = 32
# The loop sleeps until absolute deadlines, so lateness does not add up: within a hundredth of
# the cycle the constant matrices stand for the interval as well as any measured time does.
SAME_STEP = 0.01


class Evaluation(Protocol):
    """One step of the augmented state z (nz,) and the outputs it shows, with derivatives.

    Same arguments, same answer. One evaluation serves one thread.
    """

    def advance(self, z: Vector, u: Vector, d: Vector, dt_s: float) -> tuple[Vector, Matrix]:
        """z after dt_s seconds, (nz,), and its derivative to z, (nz, nz)."""
        ...

    def observe(self, z: Vector, u: Vector, d: Vector) -> tuple[Vector, Matrix]:
        """All outputs y (ny,) and their derivative to z, (ny, nz)."""
        ...


class CompiledEvaluation:
    """The functions of an augmented model behind preallocated memory."""

    __slots__ = ("_advance", "_cuts", "_observe")

    def __init__(self, augmented: AugmentedModel) -> None:
        self._advance = _Buffered(augmented.advance)
        self._observe = _Buffered(augmented.observe)
        nu, nd = len(augmented.model.u), len(augmented.model.d)
        self._cuts = (augmented.nz, augmented.nz + nu, augmented.nz + nu + nd)

    def advance(self, z: Vector, u: Vector, d: Vector, dt_s: float) -> tuple[Vector, Matrix]:
        given, (i, j, k) = self._advance.given, self._cuts
        given[:i], given[i:j], given[j:k], given[k] = z, u, d, dt_s
        return self._advance()

    def observe(self, z: Vector, u: Vector, d: Vector) -> tuple[Vector, Matrix]:
        given, (i, j, _) = self._observe.given, self._cuts
        given[:i], given[i:j], given[j:] = z, u, d
        return self._observe()


class _Buffered:
    """A function to (vector, its derivative): one packed argument `given`, one packed result."""

    __slots__ = ("_evaluate", "_failed", "_may_fail", "_result", "_rows", "_shape", "given")

    def __init__(self, function: ca.Function) -> None:
        sizes = [int(function.size1_in(i)) for i in range(int(function.n_in()))]
        ends = list(accumulate(sizes, initial=0))
        symbol: Any = ca.SX if function.is_a("SXFunction") else ca.MX
        packed = symbol.sym("arguments", ends[-1])
        parts = [packed[start:end] for start, end in pairwise(ends)]
        value, slope = function.call(parts)
        # Densified, because a buffer carries the structural nonzeros alone.
        dense = ca.vertcat(ca.densify(value), ca.vec(ca.densify(ca.transpose(slope))))
        self._rows, self._shape = int(function.size1_out(0)), tuple(map(int, slope.shape))
        self.given = np.zeros(ends[-1])
        self._result = np.zeros(int(dense.numel()))
        memory: Any
        memory, self._evaluate = ca.Function("flat", [packed], [dense]).buffer()
        memory.set_arg(0, self.given.data)
        memory.set_res(0, self._result.data)
        self._may_fail, self._failed = symbol is ca.MX, memory.ret

    def __call__(self) -> tuple[Vector, Matrix]:
        self._evaluate()
        if self._may_fail and self._failed():
            self._result.fill(np.nan)  # An implicit equation without a solution.
        # Two copies: beliefs are remembered for hours, and must not keep a derivative alive.
        value = self._result[: self._rows].copy()
        return value, self._result[self._rows :].copy().reshape(self._shape)


@lru_cache(maxsize=64)
def compiled(augmented: AugmentedModel) -> CompiledEvaluation:
    """The evaluation of an augmented model, made once."""
    return CompiledEvaluation(augmented)


@dataclass(frozen=True, slots=True, eq=False)
class LinearEvaluation:
    """z+ = A z + Bu u + Bd d + b and y = C z + Du u + Dd d + c with constant matrices.

    Attributes:
        dt_s: interval of the matrices; one that differs by more than a hundredth (a cycle came
            late, or was left out) is computed from `exact`.
    """

    a: Matrix
    bu: Matrix
    bd: Matrix
    b: Vector
    c: Matrix
    du: Matrix
    dd: Matrix
    y0: Vector
    dt_s: float
    exact: CompiledEvaluation

    def advance(self, z: Vector, u: Vector, d: Vector, dt_s: float) -> tuple[Vector, Matrix]:
        if abs(dt_s - self.dt_s) > SAME_STEP * self.dt_s:
            return self.exact.advance(z, u, d, dt_s)
        return self.a @ z + self.bu @ u + self.bd @ d + self.b, self.a

    def observe(self, z: Vector, u: Vector, d: Vector) -> tuple[Vector, Matrix]:
        return self.c @ z + self.du @ u + self.dd @ d + self.y0, self.c


def linear(augmented: AugmentedModel, dt_s: float) -> LinearEvaluation:
    """The constant matrices of a linear model for cycles of dt_s seconds.

    Raises:
        ModelError: the model is not linear; names what changes with the operating point.
    """
    model, exact = augmented.model, compiled(augmented)
    slopes = _slopes(augmented, dt_s)
    x0, u0, d0 = operating_point(model)
    z0 = np.concatenate([x0, np.zeros(augmented.nw)])
    steps, views = (np.asarray(m, dtype=np.float64) for m in slopes(np.concatenate([z0, u0, d0])))
    _require_linear(augmented, slopes, (steps, views))
    cuts = [augmented.nz, augmented.nz + len(model.u)]
    a, bu, bd = np.hsplit(steps, cuts)
    c, du, dd = np.hsplit(views, cuts)
    b = exact.advance(z0, u0, d0, dt_s)[0] - (a @ z0 + bu @ u0 + bd @ d0)
    y0 = exact.observe(z0, u0, d0)[0] - (c @ z0 + du @ u0 + dd @ d0)
    a, c = np.ascontiguousarray(a), np.ascontiguousarray(c)
    return LinearEvaluation(a, bu, bd, b, c, du, dd, y0, dt_s, exact)


def _slopes(augmented: AugmentedModel, dt_s: float) -> ca.Function:
    """CasADi function (z, u, d) -> derivatives of z_next and of y to (z, u, d)."""
    model = augmented.model
    sizes = (augmented.nz, len(model.u), len(model.d))
    ends = list(accumulate(sizes, initial=0))
    packed = ca.MX.sym("arguments", ends[-1])
    z, u, d = (packed[start:end] for start, end in pairwise(ends))
    z_next = augmented.advance(z, u, d, dt_s)[0]
    y = augmented.observe(z, u, d)[0]
    both = [ca.jacobian(z_next, packed), ca.jacobian(y, packed)]
    return ca.Function("slopes", [packed], [ca.densify(m) for m in both])


def _require_linear(
    augmented: AugmentedModel, slopes: ca.Function, expected: tuple[Matrix, Matrix]
) -> None:
    """Compare the slopes at points spread evenly over the whole range of the model."""
    model, nw = augmented.model, augmented.nw
    low = np.array([*(v.low for v in model.x), *[0.0] * nw, *(v.low for v in (*model.u, *model.d))])
    high = np.array(
        [*(v.high for v in model.x), *[0.0] * nw, *(v.high for v in (*model.u, *model.d))]
    )
    span_w = augmented_spans(augmented)[augmented.nx :]
    low[augmented.nx : augmented.nz] = -0.1 * span_w
    high[augmented.nx : augmented.nz] = 0.1 * span_w
    span = np.maximum(high - low, 1e-300)
    rows = (
        (augmented_spans(augmented), (*names(model.x), *(q.on for q in augmented.disturbances))),
        (np.array([v.span for v in model.y]), names(model.y)),
    )
    columns = (
        *names(model.x),
        *(f"the disturbance on {q.on}" for q in augmented.disturbances),
        *names((*model.u, *model.d)),
    )
    for share in qmc.Halton(low.size, scramble=False).random(PROBES):
        found = slopes(low + share * span)
        for matrix, reference, (scale, labels) in zip(found, expected, rows, strict=True):
            change = np.abs(np.asarray(matrix) - reference) * span / scale[:, None]
            if not np.all(change <= LINEAR_TOLERANCE):
                row, column = np.unravel_index(int(np.argmax(change)), change.shape)
                raise ModelError(
                    f"model {model.name} is not linear: the effect of {columns[column]} on "
                    f"{labels[row]} changes with the operating point",
                    mend="Choose estimator kind ekf or moving_horizon, or linearise the model.",
                )


def augmented_spans(augmented: AugmentedModel) -> Vector:
    """What counts as far for each augmented state, (nz,): the width of its variable's range."""
    model = augmented.model
    by_kind = {"output": model.y, "state": model.x}
    spans = [v.span for v in model.x]
    for disturbance in augmented.disturbances:
        variables = by_kind.get(disturbance.kind, (*model.u, *model.d))
        spans.append(next(v.span for v in variables if v.name == disturbance.on))
    return np.maximum(np.array(spans, dtype=np.float64), 1e-300)
