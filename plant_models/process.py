"""The one process model that plant, estimator, controller and optimizer share.

dx/dt = f(x, u, d, p)      x (nx,), u (nu,), d (nd,), p (np,)
y     = h(x, u, d, p)      y (ny,)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """A continuous-time process model, immutable and shared by every layer.

    Attributes:
        name: what the model describes.
        x, u, d, y, p: states, manipulated inputs, measured disturbances, outputs, parameters.
        f: CasADi function (x, u, d, p) -> dx/dt, per second.
        h: CasADi function (x, u, d, p) -> y.
        dt_s: sample time of a discrete model in seconds; 0 for a continuous one.
        source: paper or standard the equations come from.
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

    def __post_init__(self) -> None:
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
        return ProcessModel(
            self.name, self.x, self.u, self.d, self.y, p, self.f, self.h, self.dt_s, self.source
        )

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.x)} states, {len(self.u)} inputs, {len(self.d)} measured "
            f"disturbances, {len(self.y)} outputs, {len(self.p)} parameters"
        )


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


def steady_state(
    model: ProcessModel,
    u: Vector,
    d: Vector | None = None,
    guess: Vector | None = None,
    p: Vector | None = None,
) -> Vector:
    """State x (nx,) with f(x, u, d, p) = 0, by Newton's method from `guess`.

    Raises:
        NoSteadyStateError: the iteration does not converge, leaves the finite numbers, or the
            Jacobian is singular (an integrating model has no isolated steady state).
    """
    x = (nominal(model.x) if guess is None else np.asarray(guess, dtype=np.float64)).copy()
    d = nominal(model.d) if d is None else d
    p = model.p_nominal if p is None else p
    jacobian = jacobian_x(model)
    scale = np.maximum(np.array([v.span for v in model.x]), 1e-12)
    for _ in range(60):
        residual = np.asarray(model.f(x, u, d, p), dtype=np.float64).ravel()
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


def jacobian_x(model: ProcessModel) -> ca.Function:
    """CasADi function (x, u, d, p) -> df/dx, shape (nx, nx)."""
    x = ca.SX.sym("x", len(model.x))
    u = ca.SX.sym("u", len(model.u))
    d = ca.SX.sym("d", len(model.d))
    p = ca.SX.sym("p", len(model.p))
    return ca.Function("dfdx", [x, u, d, p], [ca.jacobian(model.f(x, u, d, p), x)])
