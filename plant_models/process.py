"""The one process model that plant, estimator, controller and optimizer share.

continuous (dt_s = 0):  dx/dt = f(x, u, d, p)      x (nx,), u (nu,), d (nd,), p (np,)
discrete (dt_s > 0):    x(t + dt_s) = f(x, u, d, p), inputs held over the sample
both:                   y = h(x, u, d, p)          y (ny,)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from plant_models.variable import Variable

Vector = NDArray[np.float64]


class NoSteadyStateError(ArithmeticError):
    """The model has no steady state where one was asked for."""


def nominal(variables: Sequence[Variable]) -> Vector:
    """Nominal values, shape (len(variables),), each in its variable's unit."""
    return np.array([v.nominal for v in variables], dtype=np.float64)


def names(variables: Sequence[Variable]) -> tuple[str, ...]:
    return tuple(v.name for v in variables)


@dataclass(frozen=True, slots=True, eq=False)
class ProcessModel:
    """A process model, continuous or discrete in time, immutable and shared by every layer.

    Attributes:
        name: what the model describes.
        x, u, d, y, p: states, manipulated inputs, measured disturbances, outputs, parameters.
        f: CasADi function (x, u, d, p) -> dx/dt per second, or, of a discrete model, -> the
            state dt_s seconds later.
        h: CasADi function (x, u, d, p) -> y.
        dt_s: sample time of a discrete model in seconds; 0 for a continuous one.
        source: paper or standard the equations come from.
        z: algebraic variables that f and h solve for inside (see `plant_models.dae`).

    Raises:
        ValueError: the functions and the variables do not fit together, two variables of one
            part share a name, or the sample time is negative.
    """

    name: str
    x: tuple[Variable, ...]
    u: tuple[Variable, ...]
    d: tuple[Variable, ...]
    y: tuple[Variable, ...]
    p: tuple[Variable, ...]
    f: ca.Function
    h: ca.Function
    dt_s: float = 0.0
    source: str = ""
    z: tuple[Variable, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.dt_s < float("inf"):
            raise ValueError(f"model {self.name}: a sample time of {self.dt_s} s is not a time")
        for part in (self.x, self.u, self.d, self.y, self.p, self.z):
            twice = sorted({v.name for v in part if names(part).count(v.name) > 1})
            if twice:
                raise ValueError(f"model {self.name}: {', '.join(twice)} is there twice")
        wanted = (len(self.x), len(self.u), len(self.d), len(self.p))
        for label, function, rows in (("f", self.f, len(self.x)), ("h", self.h, len(self.y))):
            got = tuple(int(function.size1_in(i)) for i in range(int(function.n_in())))
            if got != wanted or int(function.size1_out(0)) != rows:
                raise ValueError(
                    f"model {self.name}: {label} takes {got} and returns "
                    f"{int(function.size1_out(0))}, but the variables say {wanted} and {rows}"
                )

    @property
    def p_nominal(self) -> Vector:
        return nominal(self.p)

    @property
    def symbol(self) -> type[Any]:
        """ca.SX, or ca.MX where f or h holds what SX cannot: a root finder, an interpolation."""
        scalar = all(bool(function.is_a("SXFunction")) for function in (self.f, self.h))
        return ca.SX if scalar else ca.MX

    def with_parameters(self, values: Mapping[str, float]) -> ProcessModel:
        """The same model with other nominal parameters.

        Raises:
            KeyError: a name is not a parameter of this model.
        """
        unknown = sorted(set(values) - set(names(self.p)))
        if unknown:
            raise KeyError(f"model {self.name} has no parameter {', '.join(unknown)}")
        p = tuple(
            Variable(
                v.name,
                v.unit,
                min(v.low, values.get(v.name, v.nominal)),
                max(v.high, values.get(v.name, v.nominal)),
                values.get(v.name, v.nominal),
                v.description,
            )
            for v in self.p
        )
        return replace(self, p=p)

    def __str__(self) -> str:
        text = (
            f"{self.name}: {len(self.x)} states, {len(self.u)} inputs, {len(self.d)} measured "
            f"disturbances, {len(self.y)} outputs, {len(self.p)} parameters"
        )
        text += f", {len(self.z)} algebraic variables" if self.z else ""
        return text + (f", sampled every {self.dt_s:g} s" if self.dt_s > 0.0 else "")


class Plant(Protocol):
    """What a plant must offer to stand behind the virtual PLC, whatever is inside it."""

    @property
    def inputs(self) -> tuple[Variable, ...]: ...

    @property
    def outputs(self) -> tuple[Variable, ...]: ...

    def reset(self, seed: int) -> Vector:
        """Return to the initial point; outputs y0, shape (ny,)."""
        ...

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold inputs u (nu,) for dt_s seconds; outputs y (ny,) at the end."""
        ...


@runtime_checkable
class Plain(Protocol):
    """A plant that can be advanced in plain numbers: a few pass faster so than in arrays."""

    def advance_plain(self, u: Sequence[float], dt_s: float) -> list[float]:
        """The same as `advance`, bit for bit."""
        ...


@runtime_checkable
class Adjustable(Protocol):
    """A plant whose parameters can change while it runs: drift, fouling, a new catalyst."""

    @property
    def parameters(self) -> Mapping[str, float]:
        """Present values by name, each in its unit."""
        ...

    def set_parameter(self, name: str, value: float) -> None:
        """Change one parameter from now on; raises KeyError where there is no such parameter."""
        ...


@runtime_checkable
class Placeable(Protocol):
    """A plant whose states can be put somewhere: another initial point than its own."""

    @property
    def states(self) -> Mapping[str, float]:
        """Present values by name, each in its unit."""
        ...

    def place(self, states: Mapping[str, float]) -> Vector:
        """Move these states there, the others stay; outputs y (ny,).

        Raises KeyError where there is no such state, ValueError where a value is not finite.
        """
        ...


def placed(x: Vector, known: Sequence[str], states: Mapping[str, float], plant: str) -> Vector:
    """x (nx,), whose entries are called `known`, with some of them moved; `plant` for messages.

    Raises:
        KeyError: no state has that name.
        ValueError: a value is not finite.
    """
    moved = x.copy()
    for name, value in states.items():
        if name not in known:
            raise KeyError(f"{plant} has no state {name}: {', '.join(known)}")
        if not np.isfinite(value):
            raise ValueError(f"{plant}: the state {name} cannot be placed at {value}")
        moved[known.index(name)] = value
    return moved


def steady_state(
    model: ProcessModel,
    u: Vector,
    d: Vector | None = None,
    guess: Vector | None = None,
    p: Vector | None = None,
) -> Vector:
    """State x (nx,) that stays where it is, by Newton's method from `guess`.

    Raises:
        NoSteadyStateError: the iteration does not converge, leaves the finite numbers, or the
            Jacobian is singular (an integrating model has no isolated steady state).
    """
    x = (nominal(model.x) if guess is None else np.asarray(guess, dtype=np.float64)).copy()
    d = nominal(model.d) if d is None else d
    p = model.p_nominal if p is None else p
    rate, jacobian = rate_of_change(model), jacobian_x(model)
    scale = np.maximum(np.array([v.span for v in model.x]), 1e-12)
    for _ in range(60):
        residual = np.asarray(rate(x, u, d, p), dtype=np.float64).ravel()
        a = np.asarray(jacobian(x, u, d, p), dtype=np.float64)
        if not np.all(np.isfinite(residual)) or not np.all(np.isfinite(a)):
            break
        if np.linalg.cond(a * scale[None, :] / scale[:, None]) > 1e13:
            raise NoSteadyStateError(
                f"model {model.name} has no isolated steady state at u = {u}: it integrates "
                "(the Jacobian df/dx is singular)"
            )
        step = np.linalg.solve(a, -residual)
        length = min(1.0, 0.3 / max(float(np.max(np.abs(step) / scale)), 1e-300))
        x = x + length * step
        if np.max(np.abs(step) / scale) < 1e-12:
            return x
    raise NoSteadyStateError(f"model {model.name} has no steady state near {x} at u = {u}")


def symbols(model: ProcessModel) -> tuple[Any, Any, Any, Any]:
    """Fresh symbols x (nx,), u (nu,), d (nd,), p (np,) of the kind that the model needs."""
    parts = (("x", model.x), ("u", model.u), ("d", model.d), ("p", model.p))
    x, u, d, p = (model.symbol.sym(name, len(variables)) for name, variables in parts)
    return x, u, d, p


def rate_of_change(model: ProcessModel) -> ca.Function:
    """CasADi function (x, u, d, p) -> dx/dt (nx,) per second; (f(x) - x) / dt_s of a discrete
    model. Its roots are the steady states."""
    if model.dt_s == 0.0:
        return model.f
    x, u, d, p = symbols(model)
    return ca.Function("rate", [x, u, d, p], [(model.f(x, u, d, p) - x) / model.dt_s])


def rests_at_nominal(model: ProcessModel) -> bool:
    """Whether nominal x, u and d are a steady state, as good as their numbers are written: in an
    hour no state leaves by more than a millionth of its range."""
    point = nominal(model.x), nominal(model.u), nominal(model.d), model.p_nominal
    drift = np.asarray(rate_of_change(model)(*point), dtype=np.float64).ravel()
    span = np.array([v.span for v in model.x])
    return bool(np.all(np.abs(drift) * 3600.0 <= 1e-6 * span))


def jacobian_x(model: ProcessModel) -> ca.Function:
    """CasADi function (x, u, d, p) -> derivative of `rate_of_change` by x, shape (nx, nx)."""
    x, u, d, p = symbols(model)
    rate = rate_of_change(model)(x, u, d, p)
    return ca.Function("dfdx", [x, u, d, p], [ca.jacobian(rate, x)])


def is_linear(model: ProcessModel) -> bool:
    """Whether f and h are affine in x, u and d with constant coefficients, read from the graph.

    Never true of a nonlinear model; a model whose graph hides its linearity (a root finder) may
    be called nonlinear.
    """
    nx, nu, nd = len(model.x), len(model.u), len(model.d)
    # Dependence is read from one vector, so the parts of the point must be slices of it.
    v, p = model.symbol.sym("v", nx + nu + nd), model.symbol.sym("p", len(model.p))
    x, u, d = ca.vertsplit(v, [0, nx, nx + nu, nx + nu + nd])
    outcome = ca.vertcat(model.f(x, u, d, p), model.h(x, u, d, p))
    return not any(ca.which_depends(outcome, v, 2, True))
