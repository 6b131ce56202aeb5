"""What an argument of a fault may be: its range, and the unit that it is written in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Measure = Literal[
    "",
    "s",
    "ms",
    "tag",
    "tag difference",
    "tag per s",
    "setpoint",
    "output",
    "output per s",
    "plant input",
]
"""What an argument is counted in; of those that are no unit themselves, whose unit it is."""

WITH_UNIT: Final = frozenset(("s", "ms", "tag", "tag difference", "tag per s", "setpoint"))
"""What may be written with its unit, because the files say which one it is to become."""


@dataclass(frozen=True, slots=True)
class Span:
    """Values that an argument may take, all finite; `choices` leaves nothing between them.

    Attributes:
        measure: what they are counted in.
        but: the one value in between that means something else.
        default: of an argument that may be left out; None where the fault itself finds one.
    """

    measure: Measure = ""
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    whole: bool = False
    choices: tuple[float, ...] = ()
    but: float | None = None
    default: float | None = None

    def holds(self, value: float) -> bool:
        if not math.isfinite(value) or (self.choices and value not in self.choices):
            return False
        if value == self.but or (self.whole and value != round(value)):
            return False
        return self.low <= value <= self.high and not (self.above_low and value == self.low)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(f'{choice:g}' for choice in self.choices)}"
        text = "a whole number" if self.whole else "a finite number"
        if self.low > -math.inf:
            text += f" {'above' if self.above_low else 'from'} {self.low:g}"
        text += f" up to {self.high:g}" if self.high < math.inf else ""
        return text + ("" if self.but is None else f", and not {self.but:g}")
