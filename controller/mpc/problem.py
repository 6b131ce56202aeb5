"""What the model-predictive controller is asked: variables, limits, weights, horizon."""

from __future__ import annotations

from dataclasses import dataclass

from plant_models.process import Vector


@dataclass(frozen=True, slots=True)
class ManipulatedVariable:
    """An MV: an input of the model that is moved through the setpoint of a PLC loop.

    Attributes:
        input: index into the model's u.
        low, high: engineering limits, in `unit`; hard.
        rate_per_s: fastest change, `unit` per second; hard.
        move_suppression: weight on the squared move, relative to the span.
        target_weight: weight on the squared distance to the target, relative to the span.
    """

    name: str
    input: int
    unit: str
    low: float
    high: float
    rate_per_s: float
    move_suppression: float
    target_weight: float

    @property
    def span(self) -> float:
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class ControlledVariable:
    """A CV: an output of the model, kept inside a zone or at a setpoint; soft.

    Attributes:
        output: index into the model's y.
        low, high: zone, in `unit`; infinite where there is no limit.
        setpoint: wanted value, or None for a zone.
        weight: importance; a larger one gives way later.
        scale: what counts as one unit of error, in `unit`.
    """

    name: str
    output: int
    unit: str
    low: float
    high: float
    setpoint: float | None
    weight: float
    scale: float


@dataclass(frozen=True, slots=True)
class Horizon:
    """N intervals of step_s seconds; a new plan is made every cycle_s seconds."""

    step_s: float
    intervals: int
    cycle_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Situation:
    """What is true now: the arguments of one solve.

    Attributes:
        x: estimated model state (nx,); w: estimated disturbances (nw,); d: measured ones (nd,).
        u_now: setpoints in use, by model input (nu,).
        mv_low, mv_high: active limits per MV; cv_low, cv_high, setpoint: per CV (NaN: zone only).
        free: per MV, 1.0 where it may move, 0.0 where it stays.
        blocked_up, blocked_down: per MV, the slave loop's output is saturated that way.
        resting: per MV, the wanted resting value; NaN where there is none.
    """

    x: Vector
    w: Vector
    d: Vector
    u_now: Vector
    mv_low: Vector
    mv_high: Vector
    cv_low: Vector
    cv_high: Vector
    setpoint: Vector
    free: Vector
    blocked_up: Vector
    blocked_down: Vector
    resting: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where to rest: steady inputs u (nu,), states x (nx,), outputs y (ny,) for the present
    disturbances, and the slack per CV that even the best steady state needs (n_cv,)."""

    u: Vector
    x: Vector
    y: Vector
    slack: Vector
    solved: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A sequence of moves and what the model expects of them.

    Attributes:
        moves: setpoints over the horizon, (N, n_mv), first row to be applied now.
        prediction: outputs at the end of each interval, (N, ny).
        status: what the solver said.
        rung: which rung of the ladder made it: fatrop, ipopt, shifted, hold.
        refused: why each rung above was refused, in order.
        cost, iterations, kkt_residual: of the accepted solve.
        age: cycles since it was solved.
    """

    moves: Vector
    prediction: Vector
    status: str
    rung: str
    refused: tuple[str, ...]
    cost: float
    iterations: int
    kkt_residual: float
    age: int = 0
