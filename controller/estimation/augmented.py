"""The process model with integrating disturbances added, as the estimator and the MPC see it.

An *input* disturbance adds to a manipulated input, an *output* disturbance to an output; both
integrate white noise. With as many disturbances as outputs under control, and the rank condition
below, the estimate absorbs any constant mismatch and control has no offset (Muske & Badgwell
2002; Pannocchia & Rawlings 2003; Morari & Maeder 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import casadi as ca
import numpy as np

from controller.errors import ModelError
from plant_models.process import (
    NoSteadyStateError,
    ProcessModel,
    Vector,
    jacobian_x,
    names,
    nominal,
    steady_state,
)

# RK4 is stable up to |lambda| h = 2.78; at 1.5 one step leaves an error of 5 % of the fastest
# transient, and nothing of the slower ones that matter.
STEP_TIMES_FASTEST_MODE = 1.5
# Nothing physical is that many spans away from its design point. Numbers beyond it overflow in
# derivatives, and on those fatrop does not come back within its budget of iterations.
PLAUSIBLE_SPANS = 1e3


@dataclass(frozen=True, slots=True)
class Disturbance:
    """An unmeasured integrating disturbance.

    Attributes:
        on: the input or output it adds to.
        kind: where it adds.
        walk: standard deviation it gains per square root of an hour, in the unit of `on`.
    """

    on: str
    kind: Literal["input", "output"]
    walk: float


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedModel:
    """States z = (x, w): model states x (nx,) and disturbances w (nw,).

    Attributes:
        advance: CasADi function (z, u, d, dt_s) -> (z_next, dz_next/dz).
        observe: CasADi function (z, u, d) -> (y, dy/dz), all outputs of the model.
        flow: CasADi function (x, u, d, w, dt_s) -> x_next, for the transcription of the MPC.
        output: CasADi function (x, u, d, w) -> y, for the transcription of the MPC.
        derivative: CasADi function (x, u, d, w) -> dx/dt, for steady-state targets.
    """

    model: ProcessModel
    disturbances: tuple[Disturbance, ...]
    advance: ca.Function
    observe: ca.Function
    flow: ca.Function
    output: ca.Function
    derivative: ca.Function

    @property
    def nx(self) -> int:
        return len(self.model.x)

    @property
    def nw(self) -> int:
        return len(self.disturbances)

    @property
    def nz(self) -> int:
        return self.nx + self.nw

    def implausible(self, x: Vector, w: Vector, u: Vector, d: Vector) -> str:
        """Which of x (nx,), w (nw,), u (nu,), d (nd,) no solver should be given; empty: none."""
        model = self.model
        variables = (*model.x, *model.u, *model.d)
        for variable, value in zip(variables, (*x, *u, *d), strict=True):
            if not abs(value - variable.nominal) <= PLAUSIBLE_SPANS * variable.span:
                return f"{variable.name} = {value:g} {variable.unit} is not plausible"
        for disturbance, value in zip(self.disturbances, w, strict=True):
            if not abs(value) <= PLAUSIBLE_SPANS * _span(model, disturbance):
                return f"a disturbance of {value:g} on {disturbance.on} is not plausible"
        return ""

    def __str__(self) -> str:
        return f"{self.model}, {self.nw} integrating disturbances"


def operating_point(
    model: ProcessModel, u: Vector | None = None, d: Vector | None = None
) -> tuple[Vector, Vector, Vector]:
    """Steady x with u and d (nominal ones by default); nominal x where the model integrates."""
    u = nominal(model.u) if u is None else u
    d = nominal(model.d) if d is None else d
    try:
        return steady_state(model, u, d), u, d
    except NoSteadyStateError:
        return nominal(model.x), u, d


def fastest_rate(model: ProcessModel) -> float:
    """Largest |eigenvalue| of df/dx at the nominal point, per second."""
    x, u, d = operating_point(model)
    a = np.asarray(jacobian_x(model)(x, u, d, model.p_nominal), dtype=np.float64)
    return float(np.max(np.abs(np.linalg.eigvals(a)))) if len(model.x) else 0.0


def substeps(model: ProcessModel, dt_s: float) -> int:
    """How many RK4 steps cover dt_s without losing the fastest mode of the model."""
    return max(1, math.ceil(dt_s * fastest_rate(model) / STEP_TIMES_FASTEST_MODE))


def augment(
    model: ProcessModel, disturbances: tuple[Disturbance, ...], dt_s: float, flow_dt_s: float
) -> AugmentedModel:
    """Build the augmented model for cycles of dt_s and MPC intervals of flow_dt_s seconds.

    Raises:
        ModelError: a disturbance acts on something the model does not have.
    """
    nx, nu, nd, nw = len(model.x), len(model.u), len(model.d), len(disturbances)
    x, u = ca.SX.sym("x", nx), ca.SX.sym("u", nu)
    d, w = ca.SX.sym("d", nd), ca.SX.sym("w", nw)
    dt = ca.SX.sym("dt")
    on_input, on_output = _placement(model, disturbances)
    p = ca.DM(model.p_nominal)
    u_real = u + ca.mtimes(ca.DM(on_input), w)

    def f(state: ca.SX) -> ca.SX:
        return model.f(state, u_real, d, p)

    derivative = ca.Function("derivative", [x, u, d, w], [f(x)])
    y = model.h(x, u_real, d, p) + ca.mtimes(ca.DM(on_output), w)
    output = ca.Function("output", [x, u, d, w], [y])
    short = _runge_kutta(derivative, x, u, d, w, dt, substeps(model, dt_s))
    long = _runge_kutta(derivative, x, u, d, w, dt, substeps(model, flow_dt_s))

    z = ca.vertcat(x, w)
    z_next = ca.vertcat(short, w)
    zs = ca.SX.sym("z", nx + nw)
    split = [zs[:nx], zs[nx:]]
    advance = ca.Function("advance", [z, u, d, dt], [z_next, ca.jacobian(z_next, z)])
    y_of_z = output(split[0], u, d, split[1])
    observe = ca.Function("observe", [zs, u, d], [y_of_z, ca.jacobian(y_of_z, zs)])
    flow = ca.Function("flow", [x, u, d, w, dt], [long])
    return AugmentedModel(model, disturbances, advance, observe, flow, output, derivative)


def _placement(
    model: ProcessModel, disturbances: tuple[Disturbance, ...]
) -> tuple[np.ndarray, np.ndarray]:
    on_input = np.zeros((len(model.u), len(disturbances)))
    on_output = np.zeros((len(model.y), len(disturbances)))
    for column, disturbance in enumerate(disturbances):
        matrix, known = (
            (on_input, names(model.u))
            if disturbance.kind == "input"
            else (on_output, names(model.y))
        )
        if disturbance.on not in known:
            raise ModelError(
                f"an {disturbance.kind} disturbance is put on {disturbance.on}, but model "
                f"{model.name} has the {disturbance.kind}s {', '.join(known)}",
                mend="Name one of them.",
            )
        matrix[known.index(disturbance.on), column] = 1.0
    return on_input, on_output


def _runge_kutta(
    derivative: ca.Function, x: ca.SX, u: ca.SX, d: ca.SX, w: ca.SX, dt: ca.SX, steps: int
) -> ca.SX:
    """Classical fourth-order Runge–Kutta over dt in `steps` equal steps."""
    h = dt / steps
    for _ in range(steps):
        k1 = derivative(x, u, d, w)
        k2 = derivative(x + h / 2 * k1, u, d, w)
        k3 = derivative(x + h / 2 * k2, u, d, w)
        k4 = derivative(x + h * k3, u, d, w)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def require_detectable(augmented: AugmentedModel, measured: tuple[str, ...]) -> None:
    """Check rank [[I - A, -Bd], [C, Cd]] = nx + nw at the nominal point.

    Args:
        measured: outputs that some tag or quality source measures.

    Raises:
        ModelError: the measured outputs cannot tell the disturbances apart; names them.
    """
    model = augmented.model
    x, u, d = operating_point(model)
    z = np.concatenate([x, np.zeros(augmented.nw)])
    _, a = (np.asarray(m) for m in augmented.advance(z, u, d, 1.0))
    _, c = (np.asarray(m) for m in augmented.observe(z, u, d))
    rows = [names(model.y).index(name) for name in measured]
    scale_z = np.array(
        [v.span for v in model.x] + [_span(model, dist) for dist in augmented.disturbances]
    )
    scale_y = np.array([model.y[i].span for i in rows])
    rate = fastest_rate(model) or 1.0
    top = (np.eye(augmented.nz) - a)[: augmented.nx] * scale_z / scale_z[: augmented.nx, None]
    bottom = c[rows] * scale_z / scale_y[:, None]
    pencil = np.vstack([top / rate, bottom])
    _, singular, right = np.linalg.svd(pencil)
    rank = int(np.sum(singular > 1e-8 * singular[0]))
    if rank < augmented.nz:
        blind = np.abs(right[rank:]).max(axis=0)
        labels = [
            *names(model.x),
            *(f"{q.kind} disturbance on {q.on}" for q in augmented.disturbances),
        ]
        culprits = [label for label, share in zip(labels, blind, strict=True) if share > 0.3]
        raise ModelError(
            f"the measured outputs {', '.join(measured)} cannot tell apart: {', '.join(culprits)} "
            f"(rank {rank} of {augmented.nz})",
            mend="Measure one more output, or remove one of these disturbances.",
        )


def _span(model: ProcessModel, disturbance: Disturbance) -> float:
    variables = model.u if disturbance.kind == "input" else model.y
    return next(v.span for v in variables if v.name == disturbance.on)
