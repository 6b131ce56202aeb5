"""C source of the stage functions and the sizes that the real-time iteration is compiled with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import casadi as ca

from controller.mpc.collocation import DIFFERENCES, STAGES
from controller.mpc.stage import Stage

# Keeps the QP strictly convex where no weight does; far below any weight that is meant.
REGULARIZATION = 1e-8
QP_ITERATIONS = 40
# The QP is solved that much better than its certificate asks.
QP_SHARE = 0.01
RESULT_SIZE = 11
"""Leading numbers of a result: verdict, SQP iterations, QP iterations, whether the QP solver gave
up, cost, residuals of the QP (3), residuals of the nonlinear program (3)."""
VERDICTS = {"RTI_CONVERGED": 0, "RTI_NOT_CONVERGED": 1, "RTI_QP_REFUSED": 2, "RTI_NOT_FINITE": 3}
# Of the interior-point method, for scaled variables: where the barrier parameter begins, how far
# from each limit the first point stays, how much of the longest step is taken, and what step is
# too short to go on.
BARRIER_BEGIN = 0.1
ROOM_MIN = 0.01
STEP_SHARE = 0.995
STEP_MIN = 1e-8


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one library, by name: stage.c and rti.c, and what they include."""

    files: dict[str, str]


def generate(stage: Stage) -> Source:
    """C source of the real-time iteration of this problem."""
    text = stage_functions(stage)
    sizes = _sizes(stage)
    folder = files("controller.mpc.native")
    own = {
        name: folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("rti.c", "qp.c", "riccati.c", "certify.c", "explicit.c", "implicit.c")
    }
    return Source({**own, "stage.c": text[0], "stage.h": text[1], "sizes.h": sizes + text[2]})


def stage_functions(stage: Stage) -> tuple[str, str, str]:
    """The generated code, its header, and the sizes of its work vectors as definitions."""
    functions = (*_interval_functions(stage), *_node_functions(stage))
    generator = ca.CodeGenerator("stage.c", {"casadi_int": "int", "with_header": True})
    for function in functions:
        generator.add(function)
    with TemporaryDirectory() as folder:
        generator.generate(folder + "/")
        text = (Path(folder) / "stage.c").read_text(encoding="utf-8")
        header = (Path(folder) / "stage.h").read_text(encoding="utf-8")
    sizes = {
        "W": max(int(function.sz_w()) for function in functions),
        "IW": max(int(function.sz_iw()) for function in functions),
        # Functions that call others lay out their arguments behind their own.
        "ARG": max(int(function.sz_arg()) for function in functions),
        "RES": max(int(function.sz_res()) for function in functions),
    }
    lines = (f"#define STAGE_SZ_{name} {max(size, 1)}\n" for name, size in sizes.items())
    return text, header, "".join(lines)


def _interval_functions(stage: Stage) -> tuple[ca.Function, ...]:
    """Of explicit intervals their ends, of implicit ones the rates of change inside them; both
    with derivatives, forward and backward."""
    if stage.collocation is None:
        s, v, theta = _symbols(stage, s=stage.ns, v=len(stage.mvs), theta=stage.nt)
        (pi,) = _symbols(stage, pi=stage.ns)
        name, point, by, outcome = "interval", [s, v, theta], (s,), stage.interval(s, v, theta)
        backward = (s, v)
    else:
        x, u, theta = _symbols(stage, x=stage.augmented.nx, u=len(stage.mvs), theta=stage.nt)
        (pi,) = _symbols(stage, pi=stage.augmented.nx)
        name, point, by = "rate", [x, u, theta], (x, u)
        outcome, backward = stage.collocation.rate(x, u, theta), by
    forward = [ca.densify(ca.jacobian(outcome, part)) for part in by]
    adjoint = [ca.densify(ca.jtimes(outcome, part, pi, True)) for part in backward]
    return (
        ca.Function(f"{name}_jacobian", point, [ca.densify(outcome), *forward]),
        ca.Function(f"{name}_adjoint", [*point, pi], [ca.densify(outcome), *adjoint]),
    )


def _node_functions(stage: Stage) -> tuple[ca.Function, ...]:
    s, theta, mu = _symbols(stage, s=stage.ns, theta=stage.nt, mu=len(stage.cvs))
    z, rate = stage.controlled(s, theta), stage.economic(s, theta)
    moves, y = stage.outputs(s, theta)
    gradient = ca.densify(ca.gradient(rate, s))
    back = ca.densify(gradient + ca.jtimes(z, s, mu, True))
    return (
        ca.Function("node_jacobian", [s, theta], [z, ca.jacobian(z, s).T, gradient]),
        ca.Function("node_value", [s, theta], [z]),
        ca.Function("node_adjoint", [s, theta, mu], [rate, back]),
        ca.Function("node_outputs", [s, theta], [moves, y]),
    )


def _symbols(stage: Stage, **sizes: int) -> tuple[Any, ...]:
    kind = stage.augmented.model.symbol
    return tuple(kind.sym(name, size) for name, size in sizes.items())


def _sizes(stage: Stage) -> str:
    pattern = _cv_pattern(stage)
    moving = ", ".join(str(int(m)) for m in stage.horizon.moving)
    values = {
        "N": stage.horizon.intervals,
        "NX": stage.augmented.nx,
        "NV": len(stage.mvs),
        "NS": stage.ns,
        "NZ": len(stage.cvs),
        "NT": stage.nt,
        "NY": len(stage.augmented.model.y),
        "MOVING": "{" + moving + "}",
        "REGULARIZATION": repr(REGULARIZATION),
        "QP_ITERATIONS": QP_ITERATIONS,
        "QP_SHARE": repr(QP_SHARE),
        "NZ_NONZERO": len(pattern[1]),
        "Z_BEGIN": _braces(pattern[0]),
        "Z_COLUMN": _braces(pattern[1] or [0]),
        "BARRIER_BEGIN": repr(BARRIER_BEGIN),
        "ROOM_MIN": repr(ROOM_MIN),
        "STEP_SHARE": repr(STEP_SHARE),
        "STEP_MIN": repr(STEP_MIN),
        "RESULT_SIZE": RESULT_SIZE,
        "STEPS": stage.collocation.steps if stage.collocation else 0,
        "STAGES": STAGES,
        "COLLOCATION": _braces([_braces(row) for row in DIFFERENCES.tolist()]),
        **VERDICTS,
    }
    return "".join(f"#define {name} {value}\n" for name, value in values.items())


def _cv_pattern(stage: Stage) -> tuple[list[int], list[int]]:
    """Nonzeros of dz/ds by CV: where each one begins, and the states they belong to."""
    s, theta = _symbols(stage, s=stage.ns, theta=stage.nt)
    turned = ca.jacobian(stage.controlled(s, theta), s).T.sparsity()
    return list(turned.colind()), list(turned.row())


def _braces(values: Sequence[object]) -> str:
    return "{" + ", ".join(str(value) for value in values) + "}"
