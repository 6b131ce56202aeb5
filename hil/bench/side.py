"""What every side of the comparison offers: the next move from the present state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from plant_models.process import Vector


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solve told about itself, beside the move.

    Attributes:
        rung: which solver answered; accepted: the side itself calls its answer good.
        cost: optimal cost as the side states it; NaN where it does not.
    """

    rung: str
    accepted: bool
    cost: float


class Side(Protocol):
    """A controller under test. Only `move` is timed."""

    @property
    def built_s(self) -> float:
        """How long it took to build, compilation included."""
        ...

    def move(self, x: Vector, u_before: Vector) -> Vector:
        """The inputs (nu,) to hold next, from the state x (nx,) and the inputs now (nu,)."""
        ...

    def solved(self) -> Solved:
        """What the last solve told about itself."""
        ...
