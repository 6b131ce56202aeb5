"""Models with algebraic equations: balances that settle at once, equilibria, valve networks.

dx/dt = f(x, z, u, d, p)
0     = g(x, z, u, d, p)      as many equations as algebraic variables z, index 1
y     = h(x, z, u, d, p)

Index 1: at every point the equations determine z, dg/dz is not singular.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from plant_models.process import ProcessModel, names, nominal
from plant_models.variable import Variable

NEWTON_STEPS = 50
SOLVED = 1e-8
"""Residual of an equation beside what its variables move it by over their ranges."""
SINGULAR = 1e-11
"""Smallest over largest singular value of the scaled dg/dz below which z is not determined."""


def dae_model(
    name: str,
    *,
    x: Sequence[Variable],
    z: Sequence[Variable],
    u: Sequence[Variable],
    d: Sequence[Variable] = (),
    y: Sequence[Variable],
    p: Sequence[Variable] = (),
    f: ca.Function,
    g: ca.Function,
    h: ca.Function,
    source: str = "",
) -> ProcessModel:
    """A continuous model that solves g = 0 for z inside f and h, by Newton's method from nominal z.

    Where g = 0 has no solution, f and h are NaN: no wrong number is ever handed on. Derivatives
    come from the implicit function theorem, and C code can be generated.

    Args:
        f, g, h: CasADi functions of (x, z, u, d, p).

    Raises:
        ValueError: shapes do not fit, dg/dz is singular at the nominal point (names the variables
            that the equations leave open), or no z solves them there.
    """
    parts = {"x": x, "z": z, "u": u, "d": d, "p": p}
    _check_shapes(name, parts, {"f": (f, len(x)), "g": (g, len(z)), "h": (h, len(y))})
    symbols = {label: ca.MX.sym(label, len(variables)) for label, variables in parts.items()}
    solve = _algebra(name, parts, g)
    outer = [symbols[label] for label in ("x", "u", "d", "p")]
    found = solve(*outer)
    inner = [symbols["x"], found, *outer[1:]]
    model = ProcessModel(
        name,
        tuple(x),
        tuple(u),
        tuple(d),
        tuple(y),
        tuple(p),
        ca.Function("f", outer, [f(*inner)]),
        ca.Function("h", outer, [h(*inner)]),
        source=source,
        z=tuple(z),
    )
    at = [nominal(parts[label]) for label in ("x", "u", "d", "p")]
    settled = np.asarray(solve(*at), dtype=np.float64).ravel()
    if not np.isfinite(settled).all():
        raise ValueError(
            f"model {name}: the algebraic equations have no solution for {', '.join(names(z))} "
            "near the nominal point; correct the nominal values or the equations"
        )
    _check_index(name, parts, g, settled)
    return model


def _algebra(name: str, parts: dict[str, Sequence[Variable]], g: ca.Function) -> ca.Function:
    """CasADi function (x, u, d, p) -> z (nz,), NaN where Newton's method finds no solution."""
    _check_index(name, parts, g, nominal(parts["z"]))
    span, start = ca.DM([v.span for v in parts["z"]]), ca.DM(nominal(parts["z"]))
    rows = ca.DM(np.abs(_slope(parts, g, nominal(parts["z"]))).max(axis=1))
    s: Any = ca.SX if bool(g.is_a("SXFunction")) else ca.MX
    v = s.sym("v", len(parts["z"]))
    x, u, d, p = (s.sym(label, len(parts[label])) for label in ("x", "u", "d", "p"))
    # Newton's method sees numbers around one, whatever the units are.
    residual = g(x, start + span * v, u, d, p) / rows
    scaled = ca.Function("algebra", [v, x, u, d, p], [residual])
    options = {
        "max_iter": NEWTON_STEPS,
        "abstol": 1e-13,
        "abstolStep": 1e-13,
        "error_on_fail": False,
        "show_eval_warnings": False,
    }
    newton = ca.rootfinder("newton", "fast_newton", scaled, options)
    outer = [ca.MX.sym(label, len(parts[label])) for label in ("x", "u", "d", "p")]
    root = newton(ca.DM.zeros(len(parts["z"])), *outer)
    left = ca.norm_inf(scaled(root, *outer))
    # A comparison with NaN is false, so a broken iteration is no solution either.
    nothing = ca.if_else(left <= SOLVED, 0.0, float("nan"))
    return ca.Function("solve", outer, [start + span * root + nothing])


def _slope(
    parts: dict[str, Sequence[Variable]], g: ca.Function, at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """dg/dz (nz, nz) at nominal x, u, d, p, per range of each z."""
    labels = ("x", "z", "u", "d", "p")
    symbols = [ca.MX.sym(label, len(parts[label])) for label in labels]
    slope = ca.Function("slope", symbols, [ca.jacobian(g(*symbols), symbols[1])])
    point = [at if label == "z" else nominal(parts[label]) for label in labels]
    return np.asarray(slope(*point), dtype=np.float64) * np.array([v.span for v in parts["z"]])


def _check_index(
    name: str, parts: dict[str, Sequence[Variable]], g: ca.Function, at: NDArray[np.float64]
) -> None:
    slope = _slope(parts, g, at)
    rows = np.abs(slope).max(axis=1)
    if not np.isfinite(slope).all():
        raise ValueError(f"model {name}: dg/dz is not finite at the nominal point")
    if not rows.all():
        raise ValueError(
            f"model {name}: algebraic equation {int(np.argmin(rows)) + 1} of {rows.size} holds "
            "none of the algebraic variables: the index is above 1; differentiate the equation, "
            "or make one of its states an algebraic variable"
        )
    _, sigma, right = np.linalg.svd(slope / rows[:, None])
    if sigma[-1] <= SINGULAR * sigma[0]:
        # Who moves most where no equation answers.
        loose = np.abs(right[sigma <= SINGULAR * sigma[0]]).max(axis=0)
        named = [v.name for v, share in zip(parts["z"], loose, strict=True) if share > 0.3]
        raise ValueError(
            f"model {name}: the algebraic equations do not determine {', '.join(named)} (dg/dz is "
            "singular at the nominal point: the index is above 1); add the missing equation, or "
            "differentiate a constraint between states"
        )


def _check_shapes(
    name: str,
    parts: dict[str, Sequence[Variable]],
    functions: dict[str, tuple[ca.Function, int]],
) -> None:
    wanted = tuple(len(variables) for variables in parts.values())
    if not parts["z"]:
        raise ValueError(f"model {name}: no algebraic variables; make it a ProcessModel")
    for label, (function, rows) in functions.items():
        got = tuple(int(function.size1_in(i)) for i in range(int(function.n_in())))
        if got != wanted or int(function.size1_out(0)) != rows:
            raise ValueError(
                f"model {name}: {label} takes {got} and returns {int(function.size1_out(0))} for "
                f"(x, z, u, d, p), but the variables say {wanted} and {rows}"
            )
