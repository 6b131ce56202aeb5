"""All steady states near a point, to first order: what inputs and integrating states do to the CVs.

The balances f(x, u, d, w) = 0 are solved for x by one Newton step. Where the model integrates,
df/dx is singular: its null space is bordered (Griewank & Reddien 1984), the coordinate along it is
a free variable beside the MVs, and the rate that is left must be brought to zero by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import casadi as ca
import numpy as np

from controller.errors import ModelError
from controller.estimation.augmented import AugmentedModel, operating_point
from controller.mpc.problem import ControlledVariable, ManipulatedVariable
from plant_models.process import Vector, jacobian_x, nominal

S_PER_H = 3600.0
# Relative to the largest singular value of the scaled df/dx: below it, a mode integrates.
INTEGRATES = 1e-9
# Up to so many balances the solve is written out, number by number: calling a linear solver takes
# longer than its work.
STATES_MAX = 8
# Of the balances, smallest to largest pivot: below, nothing that is solved for has a digit left.
SINGULAR = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Sizes and scales of the target's variables.

    Variables v (n,): MVs over their spans, then integrating coordinates in spans of the states.
    Rows (m,): integrating rates in spans per hour, then CVs in their scales.
    """

    nx: int
    n_mv: int
    n_integrating: int
    n_cv: int
    ny: int

    @property
    def n(self) -> int:
        return self.n_mv + self.n_integrating

    @property
    def m(self) -> int:
        return self.n_integrating + self.n_cv


@dataclass(frozen=True, slots=True, eq=False)
class Linearization:
    """Steady states around a point (states, MVs), scaled: everything the ranked program needs.

    Attributes:
        rows: (m, n) derivative of the rows; position: (n + m,) of variables and rows, where the
            Newton step of the states is taken already.
        gradient: (n,) of the cost.
        step: (nx + n_mv,) Newton step; tangent: (nx + n_mv, n) derivative of the point.
        outputs: y (ny,) after the Newton step, in its units; outputs_tangent: (ny, n).
        figures: (2,) largest Newton step of a state, in spans; a sum that is finite when all is.
    """

    rows: Vector
    position: Vector
    gradient: Vector
    step: Vector
    tangent: Vector
    outputs: Vector
    outputs_tangent: Vector
    figures: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Linearizer:
    """Evaluates a linearization into arrays of its own: each call overwrites the last answer."""

    layout: Layout
    point: Vector
    parameters: Vector
    at: Linearization
    evaluate: Callable[[], None]
    failed: Callable[[], int] | None
    linear: bool
    right: Vector
    prices: Vector
    bend: Vector
    evaluate_bend: Callable[[], None]
    # CasADi writes through bare addresses: whoever holds these keeps them alive.
    alive: tuple[object, ...]

    def usable(self) -> bool:
        """Whether the last evaluation gave numbers."""
        if self.failed is not None and self.failed():
            return False  # what stands in the arrays is of an earlier one
        return isfinite(self.at.figures[1])

    def curvature(self, prices: Vector) -> Vector:
        """Second derivative (n, n) of prices' y along the steady states, made convex.

        Args:
            prices: (ny,), what stands before each output in the Lagrangian.
        """
        self.prices[:] = prices
        self.evaluate_bend()
        if not isfinite(self.bend.sum()):
            return np.zeros_like(self.bend)
        values, vectors = np.linalg.eigh((self.bend + self.bend.T) / 2.0)
        return (vectors * np.maximum(values, 0.0)) @ vectors.T


def null_space(augmented: AugmentedModel) -> tuple[Vector, Vector]:
    """Left and right null vectors (nx, k) of the scaled df/dx at the nominal point."""
    model = augmented.model
    x, u, d = operating_point(model)
    a = np.asarray(jacobian_x(model)(x, u, d, model.p_nominal), dtype=np.float64)
    scale = np.array([v.span for v in model.x])
    if not np.all(np.isfinite(a)):
        raise ModelError(
            f"model {model.name} has no finite derivative df/dx at its nominal point",
            mend="Correct the nominal values of its variables.",
        )
    left, values, right = np.linalg.svd(a * scale[None, :] / scale[:, None])
    null = values <= INTEGRATES * max(float(values[0]) if values.size else 0.0, 1e-12)
    return left[:, null], right.T[:, null]


def linearizer(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    cost_of: tuple[Vector, Vector],
) -> Linearizer:
    """Compile the linearization once.

    Args:
        cost_of: dimensionless cost per span of each MV (n_mv,) and per unit of each output (ny,).
    """
    model = augmented.model
    left, right = null_space(augmented)
    nx, nu, nd, nw = len(model.x), len(model.u), len(model.d), augmented.nw
    n_mv, k, ny = len(mvs), left.shape[1], len(model.y)
    layout = Layout(nx, n_mv, k, len(cvs), ny)
    span = ca.DM([v.span for v in model.x])
    functions = (augmented.derivative, augmented.output)
    small = nx + k <= STATES_MAX and all(f.is_a("SXFunction") for f in functions)
    symbol: Any = ca.SX if small else ca.MX
    point, p = symbol.sym("point", nx + n_mv), symbol.sym("p", nd + nw + nu + 2 * (n_mv + k))
    x, us = point[:nx] * span + ca.DM(nominal(model.x)), point[nx:]
    d, w, u_now, wish, weight = ca.vertsplit(
        p, [0, *np.cumsum([nd, nw, nu, n_mv + k, n_mv + k]).tolist()]
    )
    place, low = placement(mvs, nu)
    fixed = ca.DM.eye(nu) - ca.mtimes(place > 0, (place > 0).T)
    u = ca.mtimes(fixed, u_now) + ca.mtimes(place, us) + low
    balance, fx, fu = _first_order(augmented.derivative)(x, u, d, w)
    y, yx, yu = _first_order(augmented.output)(x, u, d, w)
    # Scaled: states by their spans, rates per hour, so that balances are of order one.
    hourly = ca.diag(S_PER_H / span)
    a = ca.mtimes(ca.mtimes(hourly, fx), ca.diag(span))
    b = ca.mtimes(hourly, ca.mtimes(fu, place))
    hourly_balance = ca.mtimes(hourly, balance)
    bordered = ca.blockcat([[a, ca.DM(left)], [ca.DM(right).T, ca.DM.zeros(k, k)]])
    sides = ca.blockcat(
        [
            [-hourly_balance, -b, ca.DM.zeros(nx, k)],
            [ca.DM.zeros(k, 1), ca.DM.zeros(k, n_mv), ca.DM.eye(k)],
        ]
    )
    solved = solution_of(bordered, sides) if nx else sides
    states, rates = solved[:nx, :], solved[nx:, :]
    yx = ca.mtimes(yx, ca.diag(span))
    by_v = ca.horzcat(ca.mtimes(yu, place), ca.DM.zeros(ny, k))
    y_after = y + ca.mtimes(yx, states[:, 0])
    y_tangent = ca.mtimes(yx, states[:, 1:]) + by_v
    index, scale = [cv.output for cv in cvs], ca.DM([cv.scale for cv in cvs])
    rows = ca.vertcat(rates[:, 1:], y_tangent[index, :] / ca.repmat(scale, 1, n_mv + k))
    coordinate = ca.mtimes(ca.DM(right).T, x / span)
    position = ca.vertcat(us, coordinate, rates[:, 0], y_after[index] / scale)
    price_u, price_y = ca.DM(cost_of[0]), ca.DM(cost_of[1])
    gradient = (
        weight * (ca.vertcat(us, coordinate) - wish)
        + ca.vertcat(price_u, ca.DM.zeros(k, 1))
        + ca.mtimes(y_tangent.T, price_y)
    )
    tangent = ca.vertcat(states[:, 1:], ca.DM(np.eye(n_mv, n_mv + k)))
    step = ca.vertcat(states[:, 0], ca.DM.zeros(n_mv, 1))
    imbalance = ca.norm_inf(states[:, 0]) if nx else ca.DM(0)
    every = ca.sum1(y_after) + ca.sum1(position) + ca.sum1(ca.sum2(solved))
    # Row-major arrays of ours are column-major ones of CasADi, transposed.
    results = (
        rows.T,
        position,
        gradient,
        step,
        tangent.T,
        y_after,
        y_tangent.T,
        ca.vertcat(imbalance, every),
    )
    function = ca.Function("target", [point, p], [ca.densify(r) for r in results])
    linear = not any(function.jac_sparsity(i, 0).nnz() for i in (0, 4, 6))
    second_order = _second_order(point, p, y, hourly_balance, bordered, tangent)
    along = right.T / np.array([v.span for v in model.x])
    return _bound(layout, function, linear, along, second_order)


def _first_order(function: ca.Function) -> ca.Function:
    """(x, u, d, w) -> value, derivative in x, derivative in u."""
    return function.factory(
        "first_order", [*function.name_in()], [f"{function.name_out(0)}"]
        + [f"jac:{function.name_out(0)}:{name}" for name in function.name_in()[:2]]
    )  # fmt: skip


def solution_of(matrix: Any, right: Any) -> Any:
    """matrix⁻¹ right, by QR; what is singular gives no numbers, or a failure.

    Written out, modified Gram–Schmidt takes the right sides as further columns, which makes it
    backward stable although its Q is not orthogonal (Björck 1967).
    """
    matrix, right = ca.densify(matrix), ca.densify(right)
    if isinstance(matrix, ca.MX):
        return ca.solve(matrix, right, "qr")
    n, k = right.shape
    below = ca.SX(k, n + k)  # as many rows as columns; they stay zero
    _, r = ca.qr(ca.densify(ca.vertcat(ca.horzcat(matrix, right), below)))
    left, answer = r[:n, :n], r[:n, n:]
    size = ca.fabs(ca.diag(left))
    regular = ca.mmin(size) > SINGULAR * ca.mmax(size)
    return ca.if_else(regular, ca.solve(left, answer), ca.SX.nan(n, k))


def _second_order(
    point: Any, p: Any, y: Any, balance: Any, bordered: Any, tangent: Any
) -> ca.Function:
    """(point, parameters, prices (ny,)) -> second derivative of prices' y(v) on the balances.

    By the adjoint of the balances: the Hessian of prices'y + multipliers'balance, projected on the
    tangent of the steady states.
    """
    nx, size = balance.numel(), bordered.size1()
    symbol: Any = type(point)
    prices, multipliers = symbol.sym("prices", y.numel()), symbol.sym("multipliers", nx)
    lagrangian = ca.dot(prices, y) + ca.dot(multipliers, balance)
    full = ca.Function("hessian", [point, p, prices, multipliers],
                       [ca.hessian(lagrangian, point)[0]])  # fmt: skip
    pull = ca.jtimes(y, point, prices, True)[:nx]
    right = ca.vertcat(-pull, ca.DM.zeros(size - nx, 1))
    adjoint = solution_of(bordered.T, right)[:nx] if nx else pull
    reduced = ca.mtimes([tangent.T, full(point, p, prices, adjoint), tangent])
    return ca.Function("second_order", [point, p, prices], [ca.densify(reduced)])


def placement(mvs: Sequence[ManipulatedVariable], nu: int) -> tuple[ca.DM, ca.DM]:
    """u = place · scaled MVs + low, (nu, n_mv) and (nu,)."""
    place, low = ca.DM.zeros(nu, len(mvs)), ca.DM.zeros(nu, 1)
    for column, mv in enumerate(mvs):
        place[mv.input, column], low[mv.input] = mv.span, mv.low
    return place, low


def _bound(
    layout: Layout, function: ca.Function, linear: bool, right: Vector, second_order: ca.Function
) -> Linearizer:
    """The functions with arrays for their arguments and results, called without allocation."""
    n, m, nx, n_mv, ny = layout.n, layout.m, layout.nx, layout.n_mv, layout.ny
    point, p = np.zeros(nx + n_mv), np.zeros(int(function.size1_in(1)))
    prices, bend = np.zeros(ny), np.zeros((n, n))
    at = Linearization(
        rows=np.zeros((m, n)),
        position=np.zeros(n + m),
        gradient=np.zeros(n),
        step=np.zeros(nx + n_mv),
        tangent=np.zeros((nx + n_mv, n)),
        outputs=np.zeros(ny),
        outputs_tangent=np.zeros((ny, n)),
        figures=np.zeros(2),
    )
    results = (at.rows, at.position, at.gradient, at.step, at.tangent, at.outputs,
               at.outputs_tangent, at.figures)  # fmt: skip
    evaluate, failed = _buffered(function, (point, p), results)
    evaluate_bend, bend_failed = _buffered(second_order, (point, p, prices), (bend,))
    alive = (function, second_order, failed, bend_failed)
    may_fail = None if function.is_a("SXFunction") else failed
    return Linearizer(
        layout, point, p, at, evaluate, may_fail, linear, right, prices, bend, evaluate_bend, alive
    )


def _buffered(
    function: ca.Function, arguments: Sequence[Vector], results: Sequence[Vector]
) -> tuple[Callable[[], None], Callable[[], int]]:
    bound: tuple[Any, Callable[[], None]] = function.buffer()
    memory, evaluate = bound
    for i, argument in enumerate(arguments):
        memory.set_arg(i, argument.data)
    for i, result in enumerate(results):
        memory.set_res(i, result.data)
    return evaluate, memory.ret
