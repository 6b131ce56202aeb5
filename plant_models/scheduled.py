"""Gain scheduling: linear models at several operating points, and what lies between them.

Matrices and operating points are interpolated over the scheduling variable, so each model holds
exactly at its own point, the model between two of them is at rest at the interpolated operating
point, and beyond the first and the last one the end model holds.

Source: Rugh & Shamma (2000), Research on gain scheduling, Automatica 36.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import casadi as ca
import numpy as np

from plant_models.process import ProcessModel, Vector, is_linear, names, nominal
from plant_models.state_space import Matrices, matrices
from plant_models.variable import Variable


def scheduled(
    name: str,
    variable: str,
    points: Sequence[tuple[float, ProcessModel]],
    *,
    nominal_point: int = 0,
    source: str = "",
) -> ProcessModel:
    """One model out of linear ones, interpolated over a measured disturbance, input or output.

    Args:
        variable: the scheduling variable.
        points: (its value, the linear model there), values rising. The nominal values of each
            model are its operating point.
        nominal_point: index of the point whose operating point is the nominal one of the whole.

    Raises:
        ValueError: fewer than two points, values that do not rise, models that do not have the
            same variables and sample time, a model that is not linear, or an output as
            scheduling variable that is not the same sum of states and inputs in all of them.
    """
    where = f"scheduled model {name}"
    values = [float(value) for value, _ in points]
    models = [model for _, model in points]
    if len(points) < 2:
        raise ValueError(f"{where}: {len(points)} operating points, expected at least 2")
    if not np.isfinite(values).all() or not (np.diff(values) > 0.0).all():
        raise ValueError(f"{where}: the values {values} of {variable} do not rise")
    first = models[0]
    for value, model in points:
        _check_alike(where, first, model, f"{variable} = {value:g}")
    local = [matrices(model) for model in models]
    x, u, d, p = (
        ca.SX.sym(n, k)
        for n, k in (("x", len(first.x)), ("u", len(first.u)), ("d", len(first.d)), ("p", 0))
    )
    at = _scheduling(where, variable, first, local, x, u, d)
    m = _interpolated(at, values, local)
    dx, du, de = x - m["x_0"], u - m["u_0"], d - m["d_0"]
    moved = ca.mtimes(m["a"], dx) + ca.mtimes(m["b"], du) + ca.mtimes(m["bd"], de) + m["drift"]
    seen = ca.mtimes(m["c"], dx) + ca.mtimes(m["d"], du) + ca.mtimes(m["dd"], de) + m["y_0"]
    if first.dt_s > 0.0:
        moved += m["x_0"]
    parts = (
        _together([part(model) for model in models], nominal_point)
        for part in (_states, _inputs, _disturbances, _outputs)
    )
    x_all, u_all, d_all, y_all = parts
    return ProcessModel(
        name,
        x_all,
        u_all,
        d_all,
        y_all,
        (),
        ca.Function("f", [x, u, d, p], [moved]),
        ca.Function("h", [x, u, d, p], [seen]),
        first.dt_s,
        source,
    )


def _states(model: ProcessModel) -> tuple[Variable, ...]:
    return model.x


def _inputs(model: ProcessModel) -> tuple[Variable, ...]:
    return model.u


def _disturbances(model: ProcessModel) -> tuple[Variable, ...]:
    return model.d


def _outputs(model: ProcessModel) -> tuple[Variable, ...]:
    return model.y


def _check_alike(where: str, first: ProcessModel, model: ProcessModel, point: str) -> None:
    if not is_linear(model):
        raise ValueError(f"{where}: the model at {point} is not linear")
    if model.p:
        raise ValueError(
            f"{where}: the model at {point} has parameters, {', '.join(names(model.p))}"
        )
    if model.dt_s != first.dt_s:
        raise ValueError(
            f"{where}: sample times differ, {first.dt_s:g} s and {model.dt_s:g} s at {point}"
        )
    for kind, part in (
        ("states", _states),
        ("inputs", _inputs),
        ("disturbances", _disturbances),
        ("outputs", _outputs),
    ):
        ours, theirs = ([(v.name, v.unit) for v in part(m)] for m in (first, model))
        if ours != theirs:
            raise ValueError(
                f"{where}: the {kind} differ, {_told(ours)} and at {point} {_told(theirs)}"
            )


def _told(variables: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} [{unit}]" for name, unit in variables) or "none"


def _scheduling(
    where: str,
    variable: str,
    model: ProcessModel,
    local: list[Matrices],
    x: ca.SX,
    u: ca.SX,
    d: ca.SX,
) -> ca.SX:
    """The scheduling variable as a function of x, u and d."""
    if variable in names(model.d):
        return d[names(model.d).index(variable)]
    if variable in names(model.u):
        return u[names(model.u).index(variable)]
    if variable not in names(model.y):
        known = ", ".join((*names(model.d), *names(model.u), *names(model.y)))
        raise ValueError(f"{where}: no variable {variable} to schedule on; there are {known}")
    row = names(model.y).index(variable)
    rows = [np.concatenate([m.c[row], m.d[row], m.dd[row]]) for m in local]
    rests = [
        m.y_0[row] - line @ np.concatenate([m.x_0, m.u_0, m.d_0])
        for m, line in zip(local, rows, strict=True)
    ]
    if not np.allclose(rows, rows[0], rtol=1e-9, atol=0.0) or np.ptp(rests) > 1e-9 * (
        model.y[row].span
    ):
        raise ValueError(
            f"{where}: output {variable} depends on the states in another way at each point, so "
            "it cannot choose between them; schedule on an input or a measured disturbance, or "
            "write the states in absolute values"
        )
    return ca.dot(ca.DM(rows[0]), ca.vertcat(x, u, d)) + float(rests[0])


def _interpolated(at: ca.SX, values: list[float], local: list[Matrices]) -> dict[str, Any]:
    """Every matrix and vector of the local models at the value `at`, linear in between."""
    shares = [
        ca.fmin(ca.fmax((at - low) / (high - low), 0.0), 1.0) for low, high in pairwise(values)
    ]
    result: dict[str, Any] = {}
    for field in fields(Matrices):
        parts: list[Vector] = [getattr(m, field.name) for m in local]
        whole = ca.SX(_dm(parts[0]))
        for share, (low, high) in zip(shares, pairwise(parts), strict=True):
            whole += share * ca.SX(_dm(high - low))
        result[field.name] = whole
    return result


def _dm(array: Vector) -> ca.DM:
    rows, columns = (array.shape[0], array.shape[1] if array.ndim == 2 else 1)
    return ca.sparsify(ca.DM(array)) if array.size else ca.DM(rows, columns)


def _together(parts: list[tuple[Variable, ...]], point: int) -> tuple[Variable, ...]:
    """Variables whose ranges hold all points, at their nominal values of one."""
    centres = nominal(parts[point])
    return tuple(
        replace(
            parts[point][i],
            low=min(part[i].low for part in parts),
            high=max(part[i].high for part in parts),
            nominal=float(centre),
        )
        for i, centre in enumerate(centres)
    )
