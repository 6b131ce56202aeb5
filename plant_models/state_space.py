"""Linear models in state space, continuous or sampled, around a nominal point.

continuous:  dx/dt     = A dx + B du + Bd dd        dx = x - x nominal, and so on
discrete:    dx(k + 1) = A dx + B du + Bd dd
both:        dy        = C dx + D du + Dd dd
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray

from plant_models.dead_time import zero_order_hold
from plant_models.process import (
    ProcessModel,
    Vector,
    is_linear,
    names,
    nominal,
    symbols,
)
from plant_models.variable import Variable

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Matrices:
    """Matrices of a linear model, and the point (x, u, d, y) that its deviations count from.

    Shapes: a (nx, nx), b (nx, nu), bd (nx, nd), c (ny, nx), d (ny, nu), dd (ny, nd).
    """

    a: Matrix
    b: Matrix
    bd: Matrix
    c: Matrix
    d: Matrix
    dd: Matrix
    x_0: Vector
    u_0: Vector
    d_0: Vector
    y_0: Vector
    drift: Vector
    """f at that point, (nx,): zero for a model in deviation form."""


def state_space(
    name: str,
    *,
    states: Sequence[Variable],
    inputs: Sequence[Variable],
    outputs: Sequence[Variable],
    disturbances: Sequence[Variable] = (),
    a: ArrayLike,
    b: ArrayLike,
    c: ArrayLike,
    d: ArrayLike | None = None,
    bd: ArrayLike | None = None,
    dd: ArrayLike | None = None,
    dt_s: float = 0.0,
    source: str = "",
) -> ProcessModel:
    """A linear model; the nominal point is a steady state.

    Args:
        a, b, c: per second where dt_s is 0, else per sample; d, bd and dd are zero by default.
        dt_s: sample time in seconds, 0 for a continuous model.

    Raises:
        ValueError: a matrix does not fit the variables or is not finite, or a name is there twice.
    """
    nx, nu, nd, ny = len(states), len(inputs), len(disturbances), len(outputs)
    _check_names(name, inputs, disturbances)
    kinds = {
        "states": nx,
        "inputs": nu,
        "disturbances": nd,
        "outputs": ny,
    }
    given = (
        ("A", a, "states", "states"),
        ("B", b, "states", "inputs"),
        ("Bd", bd, "states", "disturbances"),
        ("C", c, "outputs", "states"),
        ("D", d, "outputs", "inputs"),
        ("Dd", dd, "outputs", "disturbances"),
    )
    a_, b_, bd_, c_, d_, dd_ = (
        _matrix(name, label, value, (rows, kinds[rows]), (columns, kinds[columns]))
        for label, value, rows, columns in given
    )
    x, u, e, p = (ca.SX.sym(n, k) for n, k in (("x", nx), ("u", nu), ("d", nd), ("p", 0)))
    x_0, u_0, d_0, y_0 = (nominal(v) for v in (states, inputs, disturbances, outputs))
    dx, du, de = x - ca.DM(x_0), u - ca.DM(u_0), e - ca.DM(d_0)
    moved = ca.mtimes(a_, dx) + ca.mtimes(b_, du) + ca.mtimes(bd_, de)
    seen = ca.mtimes(c_, dx) + ca.mtimes(d_, du) + ca.mtimes(dd_, de)
    return ProcessModel(
        name,
        tuple(states),
        tuple(inputs),
        tuple(disturbances),
        tuple(outputs),
        (),
        ca.Function("f", [x, u, e, p], [moved + (ca.DM(x_0) if dt_s > 0.0 else 0.0)]),
        ca.Function("h", [x, u, e, p], [seen + ca.DM(y_0)]),
        dt_s,
        source,
    )


def matrices(model: ProcessModel) -> Matrices:
    """The matrices of a linear model, or of any model linearised at its nominal point."""
    x, u, d, p = point = symbols(model)
    f, h = model.f(x, u, d, p), model.h(x, u, d, p)
    wanted = [ca.jacobian(part, v) for part in (f, h) for v in (x, u, d)]
    slopes = ca.Function("slopes", list(point), [*wanted, f, h])
    at = nominal(model.x), nominal(model.u), nominal(model.d), model.p_nominal
    a, b, bd, c, d_, dd, f_0, y_0 = (np.asarray(m, dtype=np.float64) for m in slopes(*at))
    drift = f_0.ravel() - (at[0] if model.dt_s > 0.0 else 0.0)
    return Matrices(a, b, bd, c, d_, dd, at[0], at[1], at[2], y_0.ravel(), drift)


def discretized(model: ProcessModel, dt_s: float) -> ProcessModel:
    """A continuous linear model sampled every dt_s seconds: exact while the inputs are held.

    Raises:
        ValueError: the model is discrete already, not linear, or not at rest at its nominal
            point, or dt_s is not positive.
    """
    if model.dt_s > 0.0 or not 0.0 < dt_s < float("inf"):
        raise ValueError(f"model {model.name} (sampled every {model.dt_s} s) with {dt_s} s")
    m = matrices(model)
    if not is_linear(model) or m.drift.any():
        raise ValueError(f"model {model.name} is not a linear one around its nominal point")
    a, both = zero_order_hold(m.a, np.hstack([m.b, m.bd]), dt_s)
    nu = len(model.u)
    return state_space(
        model.name,
        states=model.x,
        inputs=model.u,
        outputs=tuple(
            Variable(v.name, v.unit, v.low, v.high, float(y), v.description)
            for v, y in zip(model.y, m.y_0, strict=True)
        ),
        disturbances=model.d,
        a=a,
        b=both[:, :nu],
        c=m.c,
        d=m.d,
        bd=both[:, nu:],
        dd=m.dd,
        dt_s=dt_s,
        source=model.source,
    )


def _check_names(name: str, inputs: Sequence[Variable], disturbances: Sequence[Variable]) -> None:
    both = sorted(set(names(inputs)) & set(names(disturbances)))
    if both:
        raise ValueError(f"model {name}: {', '.join(both)} is an input and a disturbance")


def _matrix(
    model: str, label: str, value: ArrayLike | None, rows: tuple[str, int], columns: tuple[str, int]
) -> ca.DM:
    """The matrix with its zeros left out, so that long delay chains stay cheap."""
    shape = rows[1], columns[1]
    if value is None or 0 in shape:
        if value is not None and np.size(value):
            raise ValueError(f"model {model}: {label} is given, but there are no {columns[0]}")
        return ca.DM(*shape)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"model {model}: {label} is not a matrix of numbers") from None
    if array.shape != shape:
        found = " x ".join(str(n) for n in array.shape)
        raise ValueError(
            f"model {model}: {label} is {found or 'a number'}, but {rows[1]} {rows[0]} and "
            f"{columns[1]} {columns[0]} need {shape[0]} x {shape[1]}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"model {model}: {label} holds a number that is not finite")
    return ca.sparsify(ca.DM(array))
