"""Transmitters that lie: what the PLC publishes for a tag while its sensor is broken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from hil.faults.kinds import NO_ARGS
from hil.plc_memory import Cell, DeviceMemory

_REAL_MAX: Final = float(np.finfo(np.float32).max)


class SensorFaults:
    """Distorts what the PLC publishes for a tag; the PLC's own loop still sees the process.

    What does not fit the type of the tag ends at its largest or smallest value, as the words of an
    analogue input module do.
    """

    def __init__(self, seed: int, memory: Iterable[DeviceMemory] = ()) -> None:
        """`memory`: of the devices that publish the tags, for their types."""
        self._seed = seed
        self._cells = {name: cell for device in memory for name, cell in device.cells.items()}
        self._chance: dict[str, np.random.Generator] = {}
        self._held: dict[tuple[str, str], float] = {}
        self.active: dict[str, dict[str, Mapping[str, float]]] = {}

    def begin(self, tag: str, fault: str, args: Mapping[str, float] = NO_ARGS) -> None:
        self.active.setdefault(tag, {})[fault] = args
        if tag not in self._chance:
            # A generator per tag: a fault on one tag leaves the chance of every other as it was.
            self._chance[tag] = np.random.default_rng([self._seed, *tag.encode()])

    def end(self, tag: str, fault: str) -> None:
        faults = self.active.get(tag, {})
        faults.pop(fault, None)
        self._held.pop((tag, fault), None)
        if not faults:
            self.active.pop(tag, None)

    def objection(self, tag: str, value: float) -> str:
        """Why the PLC cannot show this value, in the tag's unit, as one out of range; "" if it can.

        NaN needs a real number. A tag without limits has no range, so nothing lies inside it.
        """
        cell = self._cells.get(tag)
        if cell is None:
            return ""
        low, high = cell.tag.low, cell.tag.high
        if not _fits(cell, value):
            return f"the type of {tag} in the PLC cannot be {value:g}"
        if low <= value <= high and (low, high) != (-math.inf, math.inf):
            return f"{value:g} lies inside the range of {tag}, [{low:g}, {high:g}] {cell.tag.unit}"
        return ""

    def apply(self, tag: str, value: float, dt_s: float) -> float:
        """The published value of `tag`, one scan of dt_s seconds further, in the tag's unit.

        Several faults on one tag act in the order in which they began.
        """
        for fault, args in self.active.get(tag, {}).items():
            key = (tag, fault)
            if fault == "freeze":
                value = self._held.setdefault(key, value)
            elif fault == "bias":
                value += args["size"]
            elif fault == "drift":
                self._held[key] = self._held.get(key, 0.0) + args["rate_per_s"] * dt_s
                value += self._held[key]
            elif fault == "spike":
                chance, sign = self._chance[tag].random(2)
                if chance < args["probability"]:
                    value += math.copysign(args["size"], sign - 0.5)
            elif fault == "nan":
                value = math.nan
            elif fault == "out_of_range":
                value = args["value"]
            elif math.isfinite(value):  # quantise: what is no number has no nearest step
                value = args["step"] * math.floor(value / args["step"] + 0.5)
        cell = self._cells.get(tag)
        return value if cell is None or _fits(cell, value) else _nearest(cell, value)


def _fits(cell: Cell, value: float) -> bool:
    if math.isnan(value):
        return cell.is_float
    low, high = _range(cell)
    return low <= value <= high


def _nearest(cell: Cell, value: float) -> float:
    low, high = _range(cell)
    return min(max(value, low), high)


def _range(cell: Cell) -> tuple[float, float]:
    """Smallest and largest value of a tag, in its unit."""
    letter, bits = cell.place.letter, 8 * cell.place.size
    if letter == "?":
        raw = (0.0, 1.0)
    elif letter in "fd":
        largest = _REAL_MAX if letter == "f" else math.inf
        raw = (-largest, largest)
    elif letter.isupper():
        raw = (0.0, 2.0**bits - 1.0)
    else:
        raw = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1.0)
    ends = sorted(end * cell.tag.scale + cell.tag.offset for end in raw)
    return ends[0], ends[1]
