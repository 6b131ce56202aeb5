"""One optimal control problem, stated once, from which every side of the comparison is built.

min  sum over nodes k = 1..N of   weight ((y_k - reference) / scale)^2     tracked outputs
                                + weight (s_k + s_k^2)                      zones, s in scales
                                + price step / 1 h y_k                      economics
   + sum over intervals 0..N-1 of move_weight (du / span)^2
                                + rest_weight ((u - rest) / span)^2
s.t. x_k+1 = flow of the model over one step from x_k with u_k held,
     low <= u <= high, |du| <= rate step,  low - s scale <= y <= high + s scale,  s >= 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plant_models.process import ProcessModel, Vector

S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class Input:
    """A manipulated input, in the order of the model's u.

    Attributes:
        low, high: hard limits, in the input's unit; their difference is the span.
        rate_per_s: fastest change; infinite where there is none.
        move_weight, rest_weight: on squared moves and squared distance to `rest`, in spans.
    """

    low: float
    high: float
    move_weight: float
    rate_per_s: float = float("inf")
    rest: float = 0.0
    rest_weight: float = 0.0

    @property
    def span(self) -> float:
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Tracked:
    """An output that is wanted at a reference."""

    output: int
    reference: float
    weight: float
    scale: float


@dataclass(frozen=True, slots=True)
class Zone:
    """An output that is wanted between two soft limits; infinite where there is none."""

    output: int
    low: float
    high: float
    weight: float
    scale: float


@dataclass(frozen=True, slots=True)
class Price:
    """An output that costs `per_hour` for every unit and hour; negative: it earns."""

    output: int
    per_hour: float


@dataclass(frozen=True, slots=True)
class Upset:
    """From step `step` on, measured disturbance `index` of the *plant* has this value.

    Nobody tells the controllers.
    """

    step: int
    index: int
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class BenchCase:
    """A control problem and the plant that it is run on.

    Attributes:
        d: measured disturbances as the controllers believe them, (nd,).
        x0, u0: where the run starts, (nx,), (nu,).
        steps: length of the closed loop that is shown by default.
        plant_parameters: what differs in the plant from the controllers' model.
        kick: standard deviation of what is added to the plant's state every step, (nx,).
        linear: the model is linear; the peer then gets the exact discrete one.
    """

    name: str
    title: str
    model: ProcessModel
    step_s: float
    intervals: int
    d: Vector
    x0: Vector
    u0: Vector
    inputs: tuple[Input, ...]
    tracked: tuple[Tracked, ...] = ()
    zones: tuple[Zone, ...] = ()
    prices: tuple[Price, ...] = ()
    upsets: tuple[Upset, ...] = ()
    plant_parameters: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    kick: Vector | None = None
    steps: int = 100
    seed: int = 1
    linear: bool = False

    def node_cost(self, y: Any) -> Any:
        """Tracking and economics of one node, of numbers or of CasADi symbols."""
        cost: Any = 0.0
        for cv in self.tracked:
            cost = cost + cv.weight * ((y[cv.output] - cv.reference) / cv.scale) ** 2
        for price in self.prices:
            cost = cost + price.per_hour * self.step_s / S_PER_H * y[price.output]
        return cost

    def rest_cost(self, u: Any) -> Any:
        """Pull towards the resting values, of numbers or of CasADi symbols."""
        return sum(
            v.rest_weight * ((u[i] - v.rest) / v.span) ** 2 for i, v in enumerate(self.inputs)
        )

    def move_cost(self, move: Any) -> Any:
        """Move suppression, of numbers or of CasADi symbols."""
        return sum(v.move_weight * (move[i] / v.span) ** 2 for i, v in enumerate(self.inputs))

    def zone_cost(self, y: Vector) -> float:
        """What leaving the zones costs at these outputs, (ny,)."""
        cost = 0.0
        for zone in self.zones:
            slack = max(zone.low - y[zone.output], y[zone.output] - zone.high, 0.0) / zone.scale
            cost += zone.weight * (slack + slack**2)
        return float(cost)

    def stage_cost(self, y: Vector, u: Vector, u_before: Vector) -> float:
        """What one step of the closed loop cost: the move, and the outputs y that it led to."""
        return float(
            self.node_cost(y)
            + self.zone_cost(y)
            + self.rest_cost(u)
            + self.move_cost(np.asarray(u) - np.asarray(u_before))
        )

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.model.x)} states, {len(self.inputs)} inputs, "
            f"{self.intervals} intervals of {self.step_s:g} s"
        )
