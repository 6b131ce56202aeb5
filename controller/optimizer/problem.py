"""What the optimizer may move, what it must keep, and what the model believes about both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import casadi as ca
import numpy as np

from controller.errors import ModelError
from controller.optimizer.expression import Expression, compile_expression
from plant_models.process import (
    ProcessModel,
    Vector,
    names,
    nominal,
    rate_of_change,
    symbols,
)

# (u (nu,), d (nd,)) -> (objective, constraints (nc,)); NaN where the model has no steady state.
Prior = Callable[[Vector, Vector], tuple[float, Vector]]


@dataclass(frozen=True, slots=True)
class Decision:
    """A target that the optimizer moves; all values in `unit`.

    `radius` is half the width of the first trust region, `probe` the size of a probing move.
    """

    name: str
    unit: str
    low: float
    high: float
    radius: float
    probe: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A measured disturbance; `scale` is a change that matters, in `unit`."""

    name: str
    unit: str
    scale: float


@dataclass(frozen=True, slots=True)
class Limit:
    """low + backoff ≤ output ≤ high − backoff at steady state; sigma of one lab value."""

    output: str
    high: float | None = None
    low: float | None = None
    backoff: float = 0.0
    sigma: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerProblem:
    """Maximise objective(u, d) subject to constraints(u, d) ≤ 0 and bounds on u.

    Attributes:
        constraints: names, e.g. "xA ≤ 0.12", in the order of the prior's second result.
        prior: the model's belief; the Gaussian processes learn plant − prior.
        sigma_objective, sigma_constraints: standard deviation of one measured value.
        points: the Gaussian processes remember this many visits.
        beta: standard deviations kept between the predicted constraint and its limit.
        places: distinct places to have visited before gradients are believed.
        mismatch: expected slope error of the model, as a share of the model's own slope.
        radius_min, radius_max: bounds of the trust region, in units of the first one.
        gate: a visit further than this many standard deviations from its prediction is suspect.
    """

    decisions: tuple[Decision, ...]
    disturbances: tuple[Disturbance, ...]
    constraints: tuple[str, ...]
    prior: Prior
    sigma_objective: float
    sigma_constraints: tuple[float, ...]
    points: int = 25
    beta: float = 2.0
    places: int = 4
    mismatch: float = 0.3
    radius_min: float = 0.2
    radius_max: float = 2.0
    grow: float = 1.5
    shrink: float = 0.6
    gate: float = 6.0
    unit: str = ""

    def __post_init__(self) -> None:
        for decision in self.decisions:
            if not decision.low < decision.high or decision.radius <= 0 or decision.probe <= 0:
                raise ModelError(
                    "a decision needs low < high, radius > 0 and probe > 0",
                    where=f"optimizer, {decision.name}",
                    mend="Correct range, trust_region and probe",
                )
        if len(self.sigma_constraints) != len(self.constraints):
            raise ModelError("one sigma per constraint is needed", where="optimizer")
        if min((self.sigma_objective, *self.sigma_constraints)) < 0:
            raise ModelError("a sigma is negative", where="optimizer", mend="Make it 0 or more")

    @property
    def low(self) -> Vector:
        return np.array([v.low for v in self.decisions])

    @property
    def high(self) -> Vector:
        return np.array([v.high for v in self.decisions])

    @property
    def radius(self) -> Vector:
        return np.array([v.radius for v in self.decisions])

    @property
    def sigma(self) -> Vector:
        """(1 + nc,): of the objective, then of each constraint."""
        return np.array([self.sigma_objective, *self.sigma_constraints])

    @property
    def scale(self) -> Vector:
        """(nu + nd,): one unit of each input of the Gaussian processes."""
        return np.concatenate([self.radius, np.array([v.scale for v in self.disturbances])])

    def believed(self, u: Vector, d: Vector) -> Vector:
        """The prior as one vector (1 + nc,): objective, then constraints."""
        objective, constraints = self.prior(u, d)
        return np.concatenate([[objective], constraints])

    def __str__(self) -> str:
        return (
            f"maximise over {', '.join(v.name for v in self.decisions)} subject to "
            f"{', '.join(self.constraints) or 'bounds only'}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Economics:
    """Objective and constraints of measured outputs: what turns a lab result into a visit."""

    objective: Expression
    limits: tuple[Limit, ...]

    @property
    def constraint_names(self) -> tuple[str, ...]:
        upper = [f"{v.output} ≤ {v.high:g}" for v in self.limits if v.high is not None]
        lower = [f"{v.output} ≥ {v.low:g}" for v in self.limits if v.low is not None]
        return (*upper, *lower)

    @property
    def sigma_constraints(self) -> tuple[float, ...]:
        upper = [v.sigma for v in self.limits if v.high is not None]
        return (*upper, *(v.sigma for v in self.limits if v.low is not None))

    def constraints(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """g ≤ 0 at the given outputs (numbers or symbols), upper limits first."""
        upper = [values[v.output] - v.high + v.backoff for v in self.limits if v.high is not None]
        lower = [v.low + v.backoff - values[v.output] for v in self.limits if v.low is not None]
        return (*upper, *lower)


def build_problem(
    model: ProcessModel,
    objective: str,
    decisions: Mapping[str, Decision],
    limits: Sequence[Limit] = (),
    disturbance_scales: Mapping[str, float] | None = None,
    *,
    sigma_objective: float,
    beta: float = 2.0,
    points: int = 25,
    unit: str = "",
) -> tuple[OptimizerProblem, Economics]:
    """An optimizer problem whose prior is the steady state of `model`.

    Args:
        objective: text over the model's outputs, disturbances, inputs and decision names.
        decisions: by the name of the model input that each one moves, e.g.
            {"F_B_sp": Decision("F_B", "kg/s", 3, 6, 0.3, 0.2)}; other inputs stay nominal.
        disturbance_scales: a change that matters, per disturbance; default a tenth of its range.

    Raises:
        ModelError: a name that the model does not know, or an objective that is not arithmetic.
    """
    economics = Economics(compile_expression(objective), tuple(limits))
    inputs = names(model.u)
    for given, known, what in (
        (tuple(decisions), inputs, "input"),
        (tuple(v.output for v in limits), names(model.y), "output"),
        (tuple(disturbance_scales or {}), names(model.d), "disturbance"),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ModelError(
                f"model {model.name} has no {what} {', '.join(unknown)}",
                where="optimizer",
                mend=f"Use one of: {', '.join(known)}",
            )
    scales = disturbance_scales or {}
    problem = OptimizerProblem(
        decisions=tuple(decisions.values()),
        disturbances=tuple(
            Disturbance(v.name, v.unit, scales.get(v.name, 0.1 * v.span)) for v in model.d
        ),
        constraints=economics.constraint_names,
        prior=_steady_prior(model, economics, decisions),
        sigma_objective=sigma_objective,
        sigma_constraints=economics.sigma_constraints,
        beta=beta,
        points=points,
        unit=unit,
    )
    return problem, economics


def _steady_prior(
    model: ProcessModel, economics: Economics, decisions: Mapping[str, Decision]
) -> Prior:
    """Newton's method on compiled CasADi code from the nominal state: about 0.2 ms a point.

    Every call starts at the same state, so the answer depends on (u, d) alone.
    """
    x, u, d, _ = symbols(model)
    p = ca.DM(model.p_nominal)
    rate = rate_of_change(model)(x, u, d, p)
    y = model.h(x, u, d, p)
    scope = dict(zip(names(model.y), ca.vertsplit(y), strict=True))
    for variables, parts in ((model.u, u), (model.d, d)):
        scope |= {v.name: parts[i] for i, v in enumerate(variables)}
    inputs = names(model.u)
    # The plant's measured value of a moved variable is an output; failing that, its target.
    scope = {v.name: u[inputs.index(n)] for n, v in decisions.items()} | scope
    values = ca.vertcat(economics.objective.symbolic(scope), *economics.constraints(scope))
    slope = ca.densify(ca.jacobian(rate, x))
    newton = _Buffered(ca.Function("newton", [x, u, d], [ca.densify(rate), slope]))
    result = _Buffered(ca.Function("values", [x, u, d], [ca.densify(values)]))
    start, scale = nominal(model.x), np.array([max(v.span, 1e-12) for v in model.x])
    rest = nominal(model.u)
    moved = [inputs.index(name) for name in decisions]

    @lru_cache(maxsize=4096)
    def at(u_key: tuple[float, ...], d_key: tuple[float, ...]) -> tuple[float, ...]:
        full = rest.copy()
        full[moved] = u_key
        state = _newton(newton, start, scale, full, np.array(d_key))
        if state is None:
            return (float("nan"),) * (1 + len(economics.constraint_names))
        return tuple(map(float, result(state, full, np.array(d_key))[0][:, 0]))

    def prior(u: Vector, d: Vector) -> tuple[float, Vector]:
        found = at(tuple(map(float, u)), tuple(map(float, d)))
        return found[0], np.array(found[1:])

    return prior


class _Buffered:
    """A CasADi function of three vectors whose arguments and results stay in place."""

    def __init__(self, function: ca.Function) -> None:
        self._buffer, self._call = function.buffer()
        self._arguments = [np.zeros(int(function.size1_in(i))) for i in range(3)]
        # CasADi stores dense matrices by column, so each result is read transposed.
        self._results = [
            np.zeros((int(function.size2_out(i)), int(function.size1_out(i))))
            for i in range(int(function.n_out()))
        ]
        # The wheel's type stub asks for a size that the function does not take.
        for i, array in enumerate(self._arguments):
            self._buffer.set_arg(i, array.data)  # pyright: ignore[reportCallIssue]
        for i, array in enumerate(self._results):
            self._buffer.set_res(i, array.data)  # pyright: ignore[reportCallIssue]

    def __call__(self, *arguments: Vector) -> list[Vector]:
        for place, value in zip(self._arguments, arguments, strict=True):
            place[:] = value
        self._call()
        return [result.T.copy() for result in self._results]


def _newton(newton: _Buffered, start: Vector, scale: Vector, u: Vector, d: Vector) -> Vector | None:
    """Damped Newton to df/dx = 0; None when it does not arrive."""
    x = start
    for _ in range(60):
        rate, slope = newton(x, u, d)
        try:
            step = np.linalg.solve(slope, -rate[:, 0])
        except np.linalg.LinAlgError:
            return None
        size = float(np.max(np.abs(step) / scale))
        if not np.isfinite(size):
            return None
        x = x + min(1.0, 0.3 / max(size, 1e-300)) * step
        if size < 1e-10:
            return x
    return None
