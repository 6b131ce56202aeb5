"""Transmitters that lie: what the PLC publishes for a tag while its sensor is broken."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hil.faults.kinds import NO_ARGS


class SensorFaults:
    """Distorts what the PLC publishes for a tag; the PLC's own loop still sees the process."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
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
                if chance < args.get("probability", 1.0):
                    value += math.copysign(args["size"], sign - 0.5)
            elif fault == "nan":
                value = math.nan
            elif fault == "out_of_range":
                value = args["value"]
            elif math.isfinite(value):  # quantise: what is no number has no nearest step
                value = args["step"] * math.floor(value / args["step"] + 0.5)
        return value
