"""What the model-predictive controller is asked: variables, limits, weights, horizon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

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
        price: what one `unit` costs per hour, in the application's currency; negative: it earns.
    """

    name: str
    input: int
    unit: str
    low: float
    high: float
    rate_per_s: float
    move_suppression: float
    target_weight: float
    price: float = 0.0

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
        weight: importance within its rank; a larger one gives way later.
        scale: what counts as one unit of error, in `unit`.
        rank: 1 is kept first; no rank is made worse for the sake of one with a larger number.
        price: what one `unit` costs per hour, in the application's currency; negative: it earns.
        approach_s: time constant of the reference trajectory on which a setpoint is approached,
            and of the funnel in which a violated zone is entered again; 0: at once.
        ramp_s: time over which the limits move by one scale when they are changed; 0: at once.
    """

    name: str
    output: int
    unit: str
    low: float
    high: float
    setpoint: float | None
    weight: float
    scale: float
    rank: int = 1
    price: float = 0.0
    approach_s: float = 0.0
    ramp_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Horizon:
    """N intervals of step_s seconds; a new plan is made every cycle_s seconds.

    Attributes:
        blocks: lengths, in intervals, of the blocks over which the MVs stay put; after the last
            one they do not move any more. Empty: they may move in every interval. Their number
            is the control horizon, `intervals` the prediction horizon.
    """

    step_s: float
    intervals: int
    cycle_s: float
    blocks: tuple[int, ...] = ()

    @property
    def moving(self) -> tuple[bool, ...]:
        """Per interval, whether the MVs may move at its start, (N,)."""
        if not self.blocks:
            return (True,) * self.intervals
        starts = {sum(self.blocks[:i]) for i in range(len(self.blocks))}
        return tuple(k in starts for k in range(self.intervals))


class Situation(Struct, frozen=True, eq=False):
    """What is true now: the arguments of one solve.

    Attributes:
        x: estimated model state (nx,); w: estimated disturbances (nw,); d: measured ones (nd,).
        u_now: setpoints in use, by model input (nu,).
        mv_low, mv_high: active limits per MV; cv_low, cv_high, setpoint: per CV (NaN: zone only).
        free: per MV, 1.0 where it may move, 0.0 where it stays.
        blocked_up, blocked_down: per MV, the slave loop's output is saturated that way.
        resting: per MV, the wanted resting value; NaN where there is none.
        cv_now: per CV, its estimated value; None: nothing is approached in time.
        cv_low_now, cv_high_now: limits in force, on their way to cv_low and cv_high; None: they
            are there.
        watched: per CV, 1.0 where it is controlled, 0.0 where it was dropped; None: all are.
        forecast: measured disturbances expected in each interval, (N, nd); None: as now.
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
    cv_now: Vector | None = None
    cv_low_now: Vector | None = None
    cv_high_now: Vector | None = None
    watched: Vector | None = None
    forecast: Vector | None = None


class Constraint(Struct, frozen=True):
    """One limit that shapes the steady state, and what it costs.

    Attributes:
        name: the CV or MV; bound: which of its limits, or its setpoint.
        slack: by how much a CV's limit is given up, in its unit; 0 where it is kept.
        shadow_price: what relaxing it by one unit is worth per hour, in the currency of the prices.
        sentence: the same for a person, with the limits of higher rank that force it.
    """

    name: str
    bound: Literal["low", "high", "setpoint"]
    slack: float
    shadow_price: float
    sentence: str


class Target(Struct, frozen=True, eq=False):
    """Where to rest: steady inputs u (nu,), states x (nx,), outputs y (ny,) for the present
    disturbances, the slack per CV that even the best steady state needs (n_cv,), and the
    limits that shape it."""

    u: Vector
    x: Vector
    y: Vector
    slack: Vector
    solved: bool
    reason: str = ""
    constraints: tuple[Constraint, ...] = ()


class Plan(Struct, frozen=True, eq=False):
    """A sequence of moves and what the model expects of them.

    Attributes:
        moves: setpoints over the horizon, (N, n_mv), first row to be applied now.
        prediction: outputs at the end of each interval, (N, ny).
        status: what the solver said.
        rung: which rung of the ladder made it.
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
