"""Stiff intervals: Radau IIA collocation where explicit Runge–Kutta would need too many steps.

One step of three stages, order 5, covers what a damped mode of any speed does within 6 % of its
transient, about what the step rule of the explicit method allows; its last stage lies at the end
of the step. The stage values are unknowns of the optimal control problem, so that they are solved
together with it (lifted collocation).

Source: Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.8; Quirynen,
Gros, Houska & Diehl (2017), Lifted collocation integrators for direct optimal control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from controller.estimation.augmented import substeps
from plant_models.process import (
    ProcessModel,
    Vector,
    is_linear,
    jacobian_x,
    nominal,
    steady_state,
)

STAGES = 3
POINTS: tuple[float, ...] = (0.4 - 0.06**0.5, 0.4 + 0.06**0.5, 1.0)

# One Radau step with its Jacobians and its dense LU took as long in C as 2 steps of RK4 with
# their sensitivities on 4 states, as 3 on 10 and as 8 on a sparse model of 21.
RK4_STEPS_MAX = 4
RK4_STEPS_PER_STATES = 1 / 50
"""More of them per square of the number of states: the LU takes its cube, RK4 does not."""
# The largest error of one step on a real stable mode is 6.3 % of its transient, at h lambda = -18.
MODE_ERROR = 0.065
STEPS_MAX = 8
NEWTON_STEPS = 40


def _differences() -> Vector:
    """Slopes at the points of the polynomial through the begin of a step and the points, (3, 4)."""
    nodes = np.array([0.0, *POINTS])
    powers = np.vander(nodes, increasing=True)
    slopes = np.zeros((STAGES, STAGES + 1))
    slopes[:, 1:] = powers[1:, :-1] * np.arange(1, STAGES + 1)
    return slopes @ np.linalg.inv(powers)


DIFFERENCES = _differences()


@dataclass(frozen=True, slots=True, eq=False)
class Collocation:
    """The collocation of one interval; stage values are scaled states, (steps * 3 * nx,).

    Attributes:
        steps: Radau steps per interval.
        rate: CasADi function (x, u, theta) -> change per interval (nx,) that scaled state x and
            setpoints u would cause if they lasted.
        equations: CasADi function (s, v, theta, inner) -> (residual (steps * 3 * nx,), s at the
            end of the interval (ns,)); the residual is in changes per step.
    """

    steps: int
    rate: ca.Function
    equations: ca.Function

    @property
    def size(self) -> int:
        """How many unknowns an interval has."""
        return int(self.equations.numel_in(3))

    def between(self, s: Vector) -> Vector:
        """Stage values on the straight lines between nodes s (N+1, ns), (N, size)."""
        nx = int(self.rate.numel_in(0))
        share = (np.arange(self.steps)[:, None] + np.array(POINTS)[None, :]).ravel() / self.steps
        begin, end = s[:-1, None, :nx], s[1:, None, :nx]
        return (begin + share[None, :, None] * (end - begin)).reshape(len(s) - 1, -1)


def radau_steps(model: ProcessModel, step_s: float) -> int:
    """Radau steps for an interval of this model; 0: explicit Runge–Kutta serves it better.

    Implicit are models with algebraic equations, and nonlinear ones that RK4 would need so many
    steps for that it takes longer.
    """
    if model.dt_s > 0.0 or not model.x:
        return 0
    few = max(RK4_STEPS_MAX, RK4_STEPS_PER_STATES * len(model.x) ** 2)
    if not model.z and (substeps(model, step_s) <= few or is_linear(model)):
        return 0
    modes = _modes(model) * step_s
    for steps in range(1, STEPS_MAX):
        z = modes / steps
        # The stability function, a Padé approximation of exp (Hairer & Wanner 1996, table IV.3.1).
        reached = (1 + 2 * z / 5 + z**2 / 20) / (1 - 3 * z / 5 + 3 * z**2 / 20 - z**3 / 60)
        exact = np.exp(z)
        if np.all(np.abs(reached - exact) <= MODE_ERROR * np.maximum(1.0, np.abs(exact))):
            return steps
    return STEPS_MAX


def _modes(model: ProcessModel) -> NDArray[np.complex128]:
    u, d = nominal(model.u), nominal(model.d)
    try:
        x = steady_state(model, u, d)
    except ArithmeticError:
        x = nominal(model.x)
    a = np.asarray(jacobian_x(model)(x, u, d, model.p_nominal), dtype=np.float64)
    modes = np.linalg.eigvals(a) if np.isfinite(a).all() else np.zeros(1)
    return modes.astype(np.complex128)


def collocate(rate: ca.Function, symbol: Any, steps: int, moves: int) -> Collocation:
    """The equations of an interval from its `rate`.

    Args:
        symbol: the kind of expression that `rate` takes.
        moves: number of MVs; the last of theta tell which of them may move.
    """
    nx, nt = int(rate.numel_in(0)), int(rate.numel_in(2))
    s, v = symbol.sym("s", nx + moves), symbol.sym("v", moves)
    theta, inner = symbol.sym("theta", nt), symbol.sym("inner", steps * STAGES * nx)
    moved = s[nx:] + theta[nt - moves :] * v
    at = [inner[i * nx : (i + 1) * nx] for i in range(steps * STAGES)]
    begin, residual = s[:nx], list[Any]()
    for step in range(steps):
        values = at[step * STAGES : (step + 1) * STAGES]
        for weights, value in zip(DIFFERENCES, values, strict=True):
            slope = sum(
                (w * x for w, x in zip(weights[1:], values, strict=True)), weights[0] * begin
            )
            residual.append(slope - rate(value, moved, theta) / steps)
        begin = values[-1]
    after = ca.vertcat(begin, moved)
    equations = ca.Function("equations", [s, v, theta, inner], [ca.vertcat(*residual), after])
    return Collocation(steps, rate, equations)


def solved_interval(collocation: Collocation) -> ca.Function:
    """CasADi function (s, v, theta) -> s at the end: the collocation equations solved by Newton's
    method from the state at the begin. NaN where they are not solved."""
    equations, nx = collocation.equations, int(collocation.rate.numel_in(0))
    s, v, theta = (ca.MX.sym(n, equations.numel_in(i)) for i, n in enumerate(("s", "v", "theta")))
    inner = ca.MX.sym("inner", collocation.size)
    system = ca.Function("system", [inner, s, v, theta], [equations(s, v, theta, inner)[0]])
    newton = ca.rootfinder(
        "newton",
        "fast_newton",
        system,
        {"max_iter": NEWTON_STEPS, "abstol": 1e-11, "error_on_fail": False},
    )
    found = newton(ca.repmat(s[:nx], collocation.size // nx, 1), s, v, theta)
    residual, after = equations(s, v, theta, found)
    nothing = ca.if_else(ca.norm_inf(residual) <= 1e-7, 0.0, float("nan"))
    return ca.Function("interval", [s, v, theta], [after + nothing], ["s", "v", "theta"], ["next"])
