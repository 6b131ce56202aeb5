"""The process model with integrating disturbances added, as the estimator and the MPC see it.

An *input* disturbance adds to a manipulated input or a measured disturbance, an *output*
disturbance to an output, a *state* disturbance to a state's rate of change, per hour; all integrate
white noise. With as many disturbances as outputs under
control, and the rank condition below, the estimate absorbs any constant mismatch and control has
no offset (Muske & Badgwell 2002; Pannocchia & Rawlings 2003; Morari & Maeder 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import casadi as ca
import numpy as np
from scipy.linalg import schur, solve_sylvester

from controller.errors import ModelError
from plant_models.process import (
    NoSteadyStateError,
    ProcessModel,
    Vector,
    jacobian_x,
    names,
    nominal,
    rate_of_change,
    steady_state,
)

# RK4 is stable up to |lambda| h = 2.78; at 1.5 one step leaves an error of 5 % of the fastest
# transient, and nothing of the slower ones that matter.
STEP_TIMES_FASTEST_MODE = 1.5
# Nothing physical is that many spans away from its design point. Numbers beyond it overflow in
# derivatives, and solvers spend their whole budget of iterations on them for nothing.
PLAUSIBLE_SPANS = 1e3


@dataclass(frozen=True, slots=True)
class Disturbance:
    """An unmeasured integrating disturbance.

    Attributes:
        on: the input, measured disturbance or output it adds to, or the state it drives.
        kind: where it adds.
        walk: standard deviation it gains per square root of an hour, in the unit of `on`; of a
            state disturbance in that unit per hour.
    """

    on: str
    kind: Literal["input", "output", "state"]
    walk: float


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedModel:
    """States z = (x, w): model states x (nx,) and disturbances w (nw,).

    Attributes:
        advance: CasADi function (z, u, d, dt_s) -> (z_next, dz_next/dz). A discrete model takes
            the whole samples of one cycle, whatever the clock says of its exact length.
        observe: CasADi function (z, u, d) -> (y, dy/dz), all outputs of the model.
        flow: CasADi function (x, u, d, w, dt_s) -> x_next, for the transcription of the MPC. A
            discrete model takes the whole samples of one interval.
        output: CasADi function (x, u, d, w) -> y, for the transcription of the MPC.
        derivative: CasADi function (x, u, d, w) -> dx/dt, for steady-state targets; of a discrete
            model the mean over one sample, (x_next - x) / dt_s.
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
    """x with u and d (nominal ones by default): steady, but for what integrates.

    An integrating model has no steady state of its own. There the integrating modes stay at
    nominal x, and all others come to rest.
    """
    u = nominal(model.u) if u is None else u
    d = nominal(model.d) if d is None else d
    try:
        return steady_state(model, u, d), u, d
    except NoSteadyStateError:
        return _rest_beside_integrators(model, u, d), u, d


# A mode this much slower than the fastest one integrates: 1e-6 of a minute is two years.
INTEGRATING = 1e-6


def _rest_beside_integrators(model: ProcessModel, u: Vector, d: Vector) -> Vector:
    """The point nearest to nominal x where all but the integrating modes are at rest.

    One Newton step by the Drazin inverse of df/dx, in spans of the states; exact for linear
    models. A nonlinear model that is further from rest after it stays at nominal x.

    Source: Campbell & Meyer (1979), Generalized Inverses of Linear Transformations.
    """
    x, p = nominal(model.x), model.p_nominal
    span = np.array([v.span for v in model.x])
    rate = rate_of_change(model)
    a = np.asarray(jacobian_x(model)(x, u, d, p), dtype=np.float64) * span / span[:, None]
    drift = np.asarray(rate(x, u, d, p), dtype=np.float64).ravel() / span
    if not (np.isfinite(a).all() and np.isfinite(drift).all() and drift.any()):
        return x
    bound = INTEGRATING * max(float(np.abs(a).max()), 1e-300)
    form: Any = schur(a, output="complex", sort=partial(_moves, bound))
    triangle, basis, moving = form
    fast, slow = triangle[:moving, :moving], triangle[moving:, moving:]
    # fast X - X slow = -coupling splits the modes at rest from what drives the integrators.
    coupling = solve_sylvester(fast, -slow, -triangle[:moving, moving:])
    split = basis.conj().T[:moving] - coupling @ basis.conj().T[moving:]
    step = -basis[:, :moving] @ np.linalg.solve(fast, split @ drift)
    free = basis[:, :moving] @ coupling + basis[:, moving:]
    step -= free @ np.linalg.lstsq(free, step, rcond=None)[0]
    rest = x + step.real * span
    after = np.asarray(rate(rest, u, d, p), dtype=np.float64).ravel() / span
    calmer = np.linalg.norm(split @ after) <= np.linalg.norm(split @ drift)
    return rest if np.isfinite(rest).all() and calmer else x


def _moves(bound: float, eigenvalue: complex) -> bool:
    return abs(eigenvalue) > bound


def fastest_rate(model: ProcessModel) -> float:
    """Largest |eigenvalue| of df/dx at the nominal point, per second.

    Of a discrete model 1 / dt_s: nothing that it shows is faster than its sample.
    """
    if model.dt_s > 0.0:
        return 1.0 / model.dt_s
    x, u, d = operating_point(model)
    a = np.asarray(jacobian_x(model)(x, u, d, model.p_nominal), dtype=np.float64)
    return float(np.max(np.abs(np.linalg.eigvals(a)))) if len(model.x) else 0.0


def substeps(model: ProcessModel, dt_s: float, what: str = "a step") -> int:
    """How many RK4 steps cover dt_s without losing the fastest mode, or how many samples.

    Raises:
        ModelError: the model is discrete and dt_s is not a whole number of its samples.
    """
    if model.dt_s == 0.0:
        return max(1, math.ceil(dt_s * fastest_rate(model) / STEP_TIMES_FASTEST_MODE))
    count = round(dt_s / model.dt_s)
    if count < 1 or abs(count * model.dt_s - dt_s) > 1e-9 * dt_s:
        raise ModelError(
            f"{what} of {dt_s:g} s is no whole multiple of the sample time of {model.dt_s:g} s of "
            f"model {model.name}",
            mend="Make it a multiple, or give the model another sample time.",
        )
    return count


def augment(
    model: ProcessModel, disturbances: tuple[Disturbance, ...], dt_s: float, flow_dt_s: float
) -> AugmentedModel:
    """Build the augmented model for cycles of dt_s and MPC intervals of flow_dt_s seconds.

    Raises:
        ModelError: a disturbance acts on something the model does not have, or the model is
            discrete and a cycle or an interval is not a whole number of its samples.
    """
    symbol, hour_s = model.symbol, 3600.0
    nx, nu, nd, nw = len(model.x), len(model.u), len(model.d), len(disturbances)
    x, u, d = symbol.sym("x", nx), symbol.sym("u", nu), symbol.sym("d", nd)
    w, dt = symbol.sym("w", nw), symbol.sym("dt")
    on_u, on_d, on_y, on_x = (ca.sparsify(ca.DM(m)) for m in _placement(model, disturbances))
    p = ca.DM(model.p_nominal)
    u_real, d_real = u + ca.mtimes(on_u, w), d + ca.mtimes(on_d, w)
    drift = ca.mtimes(on_x, w) / hour_s
    rate = rate_of_change(model)(x, u_real, d_real, p) + drift
    derivative = ca.Function("derivative", [x, u, d, w], [rate])
    y = model.h(x, u_real, d_real, p) + ca.mtimes(on_y, w)
    output = ca.Function("output", [x, u, d, w], [y])
    counts = substeps(model, dt_s, "a cycle"), substeps(model, flow_dt_s, "an MPC step")
    if model.dt_s > 0.0:
        after = model.f(x, u_real, d_real, p) + drift * model.dt_s
        sample = ca.Function("sample", [x, u, d, w], [after])
        short, long = (_repeat(sample, x, u, d, w, count) for count in counts)
    else:
        short, long = (_runge_kutta(derivative, x, u, d, w, dt, count) for count in counts)
    # Slices of one vector: an MX function takes no concatenation as its argument.
    z = symbol.sym("z", nx + nw)
    xs, ws = ca.vertsplit(z, [0, nx, nx + nw])
    move = ca.Function("move", [x, u, d, w, dt], [short])
    z_next = ca.vertcat(move(xs, u, d, ws, dt), ws)
    advance = ca.Function("advance", [z, u, d, dt], [z_next, ca.jacobian(z_next, z)])
    y_of_z = output(xs, u, d, ws)
    observe = ca.Function("observe", [z, u, d], [y_of_z, ca.jacobian(y_of_z, z)])
    flow = ca.Function("flow", [x, u, d, w, dt], [long])
    return AugmentedModel(model, disturbances, advance, observe, flow, output, derivative)


def _repeat(sample: ca.Function, x: Any, u: Any, d: Any, w: Any, count: int) -> Any:
    for _ in range(count):
        x = sample(x, u, d, w)
    return x


def _placement(
    model: ProcessModel, disturbances: tuple[Disturbance, ...]
) -> tuple[np.ndarray, ...]:
    """Where each disturbance adds: (nu, nw), (nd, nw), (ny, nw) and (nx, nw) of zeros and ones."""
    parts = (model.u, model.d, model.y, model.x)
    places = tuple(np.zeros((len(v), len(disturbances))) for v in parts)
    choice = {"input": slice(0, 2), "output": slice(2, 3), "state": slice(3, 4)}
    for column, disturbance in enumerate(disturbances):
        allowed, searched = places[choice[disturbance.kind]], parts[choice[disturbance.kind]]
        for matrix, variables in zip(allowed, searched, strict=True):
            if disturbance.on in names(variables):
                matrix[names(variables).index(disturbance.on), column] = 1.0
                break
        else:
            known = ", ".join(name for variables in searched for name in names(variables))
            raise ModelError(
                f"an {disturbance.kind} disturbance is put on {disturbance.on}, but model "
                f"{model.name} has the {disturbance.kind}s {known}",
                mend="Name one of them.",
            )
    return places


def _runge_kutta(
    derivative: ca.Function, x: Any, u: Any, d: Any, w: Any, dt: Any, steps: int
) -> Any:
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
    w = np.zeros(augmented.nw)
    by_state, by_disturbance = _slopes(augmented)
    top = np.hstack([np.asarray(m) for m in (by_state(x, u, d, w), by_disturbance(x, u, d, w))])
    _, c = (np.asarray(m) for m in augmented.observe(np.concatenate([x, w]), u, d))
    rows = [names(model.y).index(name) for name in measured]
    scale_z = np.array(
        [v.span for v in model.x] + [_span(model, dist) for dist in augmented.disturbances]
    )
    scale_y = np.array([model.y[i].span for i in rows])
    rate = fastest_rate(model) or 1.0
    top = top * scale_z / scale_z[: augmented.nx, None]
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
        states = set(culprits) & set(names(model.x))
        integrates = bool(states) and any("output disturbance" in label for label in culprits)
        raise ModelError(
            f"the measured outputs {', '.join(measured)} cannot tell apart: {', '.join(culprits)} "
            f"(rank {rank} of {augmented.nz})",
            mend="Put the disturbance of an integrating output on an input (kind: input), or "
            "measure one more output."
            if integrates
            else "Measure one more output, or remove one of these disturbances.",
        )


def _slopes(augmented: AugmentedModel) -> tuple[ca.Function, ca.Function]:
    """Derivatives of dx/dt by x and by w: CasADi functions of (x, u, d, w)."""
    model = augmented.model
    sizes = {"x": augmented.nx, "u": len(model.u), "d": len(model.d), "w": augmented.nw}
    x, u, d, w = point = [model.symbol.sym(name, size) for name, size in sizes.items()]
    rate = augmented.derivative(x, u, d, w)
    return (
        ca.Function("by_state", point, [ca.jacobian(rate, x)]),
        ca.Function("by_disturbance", point, [ca.jacobian(rate, w)]),
    )


def _span(model: ProcessModel, disturbance: Disturbance) -> float:
    variables = {"output": model.y, "state": model.x}.get(disturbance.kind, (*model.u, *model.d))
    return next(v.span for v in variables if v.name == disturbance.on)
