"""Integrates a process model over time: fixed-step Runge–Kutta, and a plant made of a model.

Fixed steps, because the same inputs must give the same bits in every run; a variable-step code
would tie the answer to its tolerance and to the length of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, isfinite

import casadi as ca
import numpy as np

from plant_models.process import (
    NoSteadyStateError,
    ProcessModel,
    Vector,
    names,
    nominal,
    placed,
    rests_at_nominal,
    steady_state,
    symbols,
)
from plant_models.variable import Variable


def rk4(model: ProcessModel, dt_s: float, substeps: int = 1) -> ca.Function:
    """Explicit Runge–Kutta of order 4, inputs held over the step.

    Returns:
        CasADi function (x (nx,), u (nu,), d (nd,), p (np,)) -> x_next (nx,), `dt_s` seconds
        later, made of `substeps` equal steps.

    Raises:
        ValueError: the model is discrete, or the step is not positive.

    Source: Hairer, Nørsett & Wanner (1993), Solving Ordinary Differential Equations I, II.1.
    """
    if dt_s <= 0.0 or substeps < 1:
        raise ValueError(f"rk4 of {model.name}: {substeps} steps in {dt_s} s is not a step")
    step = _one_step(model)
    start, u, d, p = symbols(model)
    x = start
    for _ in range(substeps):
        x = step(x, u, d, p, dt_s / substeps)
    return ca.Function("rk4", [start, u, d, p], [x], ["x", "u", "d", "p"], ["x_next"])


class ModelPlant:
    """A plant whose inside is a process model: a `Plant` that is `Adjustable` and `Placeable`.

    Inputs are the model's manipulated inputs followed by its measured disturbances, outputs are
    the model's outputs; a shell that wants noise or unmeasured upsets adds them itself.

    A discrete model moves when one of its samples is over. It sees the mean of the inputs over
    that sample, so a caller may advance it in steps of any length.

    Args:
        model: continuous or discrete model.
        dt_max_s: longest integration step in seconds. It must be shorter than about twice the
            fastest time constant, the stability limit of RK4. Needed by continuous models only.
        x0: initial state (nx,); by default the steady state at the nominal inputs, or nominal x
            where an integrating model stands still there.
        parameters: values that differ from the model's nominal ones, by name.

    Raises:
        ValueError: dt_max_s is not positive, or x0 has the wrong length.
        KeyError: a parameter is not in the model.
        NoSteadyStateError: x0 is not given and the model has no steady state.
    """

    def __init__(
        self,
        model: ProcessModel,
        dt_max_s: float | None = None,
        x0: Vector | None = None,
        parameters: Mapping[str, float] | None = None,
    ) -> None:
        dt_max_s = model.dt_s if dt_max_s is None else dt_max_s
        if dt_max_s <= 0.0:
            raise ValueError(f"plant {model.name}: dt_max_s = {dt_max_s} is not positive")
        self.model = model.with_parameters(parameters or {})
        self._dt_max_s = dt_max_s
        self._u_nominal, self._d_nominal = nominal(model.u), nominal(model.d)
        if x0 is None:
            x0 = _rest(self.model)
        self._x0 = np.array(x0, dtype=np.float64)
        if self._x0.shape != (len(model.x),):
            raise ValueError(f"plant {model.name}: x0 must have shape ({len(model.x)},)")
        self._bind()
        self.reset(0)

    def _bind(self) -> None:
        """Tie CasADi to our arrays once: a call through the buffer costs 1 µs instead of 25."""
        self._x, self._x_next = self._x0.copy(), np.empty_like(self._x0)
        # One array, so that a step copies its inputs at once.
        self._held = np.concatenate([self._u_nominal, self._d_nominal])
        self._u, self._d = np.split(self._held, [len(self._u_nominal)])
        self._n_held, self._discrete = len(self._held), self.model.dt_s > 0.0
        self._p = self.model.p_nominal
        self._y = np.empty(len(self.model.y))
        self._h, self._dt_s, self._substeps = np.zeros(1), 0.0, 0
        arguments = (self._x, self._u, self._d, self._p, self._h)
        # Of the sample under way: how long it has lasted, and the inputs integrated over it.
        self._elapsed_s, self._gathered = 0.0, np.zeros(len(self._u) + len(self._d))
        # The buffers own the functions' work memory: they must live as long as the triggers.
        if self.model.dt_s > 0.0:
            self._step_buffer, self._step = _buffer(self.model.f, arguments[:4], self._x_next)
        else:
            self._step_buffer, self._step = _buffer(_one_step(self.model), arguments, self._x_next)
        self._measure_buffer, self._measure = _buffer(self.model.h, arguments[:4], self._y)

    @property
    def inputs(self) -> tuple[Variable, ...]:
        return self.model.u + self.model.d

    @property
    def outputs(self) -> tuple[Variable, ...]:
        return self.model.y

    @property
    def x(self) -> Vector:
        """The true state (nx,), which only a simulated plant can show; a copy."""
        return self._x.copy()

    @property
    def parameters(self) -> Mapping[str, float]:
        """Present parameter values by name; a reset leaves them as they are."""
        return dict(zip(names(self.model.p), self._p.tolist(), strict=True))

    def set_parameter(self, name: str, value: float) -> None:
        """Change one parameter from now on; KeyError where the model has no such parameter."""
        known = names(self.model.p)
        if name not in known:
            raise KeyError(
                f"plant {self.model.name} has no parameter {name}: {', '.join(known) or 'none'}"
            )
        self._p[known.index(name)] = value

    @property
    def states(self) -> Mapping[str, float]:
        """The true state by name."""
        return dict(zip(names(self.model.x), self._x.tolist(), strict=True))

    def place(self, states: Mapping[str, float]) -> Vector:
        """Move these states there, the others stay; outputs (ny,). See `Placeable`."""
        self._x[:] = placed(self._x, names(self.model.x), states, f"plant {self.model.name}")
        self._measure()
        return self._y.copy()

    def reset(self, seed: int) -> Vector:
        """Return to the initial state; outputs (ny,). The model is free of chance: no seed used."""
        self._x[:] = self._x0
        self._u[:], self._d[:] = self._u_nominal, self._d_nominal
        self._elapsed_s = 0.0
        self._gathered[:] = 0.0
        self._measure()
        return self._y.copy()

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold inputs u (nu + nd,) for dt_s seconds; outputs y (ny,) at the end.

        Raises:
            ValueError: u has the wrong length or dt_s is negative.
            ArithmeticError: the state left the finite numbers.
        """
        return np.array(self.advance_plain(np.asarray(u).tolist(), dt_s))

    def advance_plain(self, u: Sequence[float], dt_s: float) -> list[float]:
        """The same in plain numbers; see `Plain`."""
        if len(u) != self._n_held or dt_s < 0.0:
            raise ValueError(
                f"plant {self.model.name} takes {self._n_held} inputs and a time that does "
                f"not run backwards, got {len(u)} and {dt_s} s"
            )
        if self._discrete:
            self._sample(np.array(u, dtype=np.float64), dt_s)
            self._held[:] = u
        else:
            self._held[:] = u
            self._integrate(dt_s)
        self._measure()
        # A sum is finite only if every term is; numpy takes longer to begin looking.
        if not isfinite(sum(self._x.tolist())):
            raise ArithmeticError(
                f"plant {self.model.name} left the finite numbers at inputs {u}: "
                f"are the inputs inside their range, is dt_max_s = {self._dt_max_s} s short enough?"
            )
        y: list[float] = self._y.tolist()
        return y

    def _integrate(self, dt_s: float) -> None:
        if dt_s != self._dt_s:
            # The margin keeps 30 s / 0.1 s at 300 steps, whatever the last bit of the quotient
            # says.
            self._dt_s, self._substeps = dt_s, ceil(dt_s / self._dt_max_s - 1e-9)
            self._h[0] = dt_s / max(self._substeps, 1)
        for _ in range(self._substeps):
            self._step()
            self._x[:] = self._x_next

    def _sample(self, inputs: Vector, dt_s: float) -> None:
        """Let dt_s pass with inputs (nu + nd,) held; step at the end of each whole sample."""
        period, nu = self.model.dt_s, len(self._u)
        while self._elapsed_s + dt_s >= period * (1.0 - 1e-9):
            rest = period - self._elapsed_s
            mean = (self._gathered + inputs * rest) / period if self._elapsed_s > 0.0 else inputs
            self._u[:], self._d[:] = mean[:nu], mean[nu:]
            self._step()
            self._x[:] = self._x_next
            dt_s = max(dt_s - rest, 0.0)
            self._elapsed_s = 0.0
            self._gathered[:] = 0.0
        # Less than this is the rounding of a sum of many short steps.
        if dt_s > 1e-9 * period:
            self._elapsed_s += dt_s
            self._gathered += inputs * dt_s

    def __str__(self) -> str:
        if self.model.dt_s > 0.0:
            return f"plant of {self.model}"
        return f"plant of {self.model}, steps of at most {self._dt_max_s:g} s"


def _rest(model: ProcessModel) -> Vector:
    """The state at rest with nominal inputs; nominal x where an integrating model stands still."""
    try:
        return steady_state(model, nominal(model.u), nominal(model.d))
    except NoSteadyStateError:
        if rests_at_nominal(model):
            return nominal(model.x)
        raise


def _one_step(model: ProcessModel) -> ca.Function:
    """CasADi function (x, u, d, p, h) -> x after h seconds, one step of RK4."""
    if model.dt_s > 0.0:
        raise ValueError(f"model {model.name} is discrete: it cannot be integrated")
    x, u, d, p = symbols(model)
    h = model.symbol.sym("h")
    k1 = model.f(x, u, d, p)
    k2 = model.f(x + h / 2 * k1, u, d, p)
    k3 = model.f(x + h / 2 * k2, u, d, p)
    k4 = model.f(x + h * k3, u, d, p)
    return ca.Function("step", [x, u, d, p, h], [x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)])


def _buffer(
    function: ca.Function, arguments: tuple[Vector, ...], result: Vector
) -> tuple[object, Callable[[], None]]:
    """Bind a function to fixed arrays; returns the buffer and the trigger that evaluates it."""
    buffer, trigger = function.buffer()
    for i, argument in enumerate(arguments):
        buffer.set_arg(i, argument.data)  # pyright: ignore[reportCallIssue]
    buffer.set_res(0, result.data)  # pyright: ignore[reportCallIssue]
    return buffer, trigger
