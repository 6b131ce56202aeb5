"""Valves that do not do what they are told: what a loop's output becomes on its way to the plant.

The PLC goes on publishing what it demands; the position is seen by the plant alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# From the demand to the stem: positioner, then travel stops, then gears, then packing.
_CHAIN: Final = ("rate_limit", "saturation", "deadband", "stiction", "stuck")


class FaultyActuator:
    """The actuator of one loop while at least one fault is on it; positions in output units.

    stiction: the stem stays until the demand is more than `band` from it, then slips all the way
    (the two-parameter model of He, Wang, Pottmann & Qin, Ind. Eng. Chem. Res. 46 (2007) 8342,
    with static friction `band` and no kinetic friction).
    deadband: play of `size` in the gears: after a reversal the stem rests until it is used up.
    saturation, rate_limit: the stem stays inside [`low`, `high`], moves at most `rate_per_s`.
    stuck: the stem stays where it was.
    """

    __slots__ = ("_faults", "_held")

    def __init__(self) -> None:
        self._faults: dict[str, Mapping[str, float]] = {}
        self._held: dict[str, float] = {}

    @property
    def is_sound(self) -> bool:
        return not self._faults

    def begin(self, fault: str, args: Mapping[str, float], position: float) -> None:
        """Break a part of it at the stem's present position."""
        self._faults[fault] = args
        self._faults = {name: self._faults[name] for name in _CHAIN if name in self._faults}
        self._held[fault] = position

    def end(self, fault: str) -> None:
        self._faults.pop(fault, None)
        self._held.pop(fault, None)

    def move(self, demand: float, dt_s: float) -> float:
        """Position after dt_s seconds of this demand."""
        for fault, args in self._faults.items():
            demand = self._held[fault] = _moved(fault, args, self._held[fault], demand, dt_s)
        return demand


def _moved(fault: str, args: Mapping[str, float], held: float, demand: float, dt_s: float) -> float:
    if fault == "rate_limit":
        step = args["rate_per_s"] * dt_s
        return held + min(max(demand - held, -step), step)
    if fault == "saturation":
        return min(max(demand, args["low"]), args["high"])
    if fault == "deadband":
        half = args["size"] / 2.0
        return min(max(held, demand - half), demand + half)
    if fault == "stiction":
        return demand if abs(demand - held) > args["band"] else held
    return held  # stuck
