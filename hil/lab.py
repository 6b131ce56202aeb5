"""The laboratory: draws samples on a schedule and sends the results much later."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.errors import ScenarioError
from controller.signal import NS_PER_S, QualityResult


@dataclass(frozen=True, slots=True)
class LabSettings:
    """How the laboratory works.

    Attributes:
        source: name of the quality source in the controller's settings.
        every_s: time between samples, seconds; the first is drawn `first_s` after the start.
        delay_s: shortest and longest time until the result arrives, seconds.
        sigma: per measured output, standard deviation of its analysis, in its unit.
        drop: probability that a result never arrives.
        outlier: probability that a result is off by `outlier_sigmas` standard deviations.
    """

    source: str
    every_s: float
    delay_s: tuple[float, float]
    sigma: Mapping[str, float]
    first_s: float = 0.0
    drop: float = 0.0
    outlier: float = 0.0
    outlier_sigmas: float = 20.0

    def __post_init__(self) -> None:
        fits = (
            self.every_s > 0.0
            and 0.0 <= self.delay_s[0] <= self.delay_s[1]
            and 0.0 <= self.drop <= 1.0
            and 0.0 <= self.outlier <= 1.0
            and bool(self.sigma)
            and all(value >= 0.0 for value in self.sigma.values())
        )
        if not fits:
            raise ScenarioError(
                f"the laboratory {self.source} cannot work as described: {self}",
                where=f"lab.{self.source}",
                mend="Take every > 0, 0 ≤ shortest ≤ longest delay, chances in 0–1, sigma ≥ 0",
            )


class VirtualLab:
    """Samples the plant's true outputs, adds the analysis error, and delivers when due.

    Faults act on the samples drawn while they last: late, missing, lab_outlier, and swapped. Two
    bottles that were swapped exchange their labels, two by two: each analysis arrives when it
    would have, under the other's number and time. A bottle that no other follows in time waits
    for the next one, or for the end of the fault, and then keeps its label.
    """

    def __init__(self, settings: LabSettings, start_ns: int, seed: int) -> None:
        """`start_ns`: ns since epoch, the start of the scenario."""
        self.settings = settings
        self._rng = np.random.default_rng(seed)
        # Faults have a chance of their own: they shift no number of a sound laboratory.
        self._fault_rng = np.random.default_rng([seed, 1])
        self._faults: dict[str, Mapping[str, float]] = {}
        self._waiting: _Bottle | None = None
        self._start_ns = start_ns
        self._count = 0
        self._due: list[tuple[int, int, QualityResult]] = []

    def begin(self, fault: str, args: Mapping[str, float]) -> None:
        """Raise a fault of the quality lane (see `hil.faults.kinds`)."""
        self._faults[fault] = args

    def end(self, fault: str) -> None:
        self._faults.pop(fault, None)

    @property
    def next_sample_ns(self) -> int:
        """When the next sample is to be drawn, ns since epoch."""
        elapsed_s = self.settings.first_s + self._count * self.settings.every_s
        return self._start_ns + round(elapsed_s * NS_PER_S)

    @property
    def due_ns(self) -> int:
        """When `advance` has something to do next, ns since epoch."""
        if self._waiting is not None and "swapped" not in self._faults:
            return 0
        return min(self.next_sample_ns, self._due[0][0]) if self._due else self.next_sample_ns

    def advance(self, now_ns: int, outputs: Mapping[str, float]) -> tuple[QualityResult, ...]:
        """Draw the samples due by `now_ns` from `outputs`; returns the results that arrived.

        A result carries the time it was drawn (the call that drew it) and the time it was due to
        arrive. `outputs` are the plant's true values by name, in their units.
        """
        if self._waiting is not None and "swapped" not in self._faults:
            self._send(self._waiting, self._waiting, now_ns)
            self._waiting = None
        while self.next_sample_ns <= now_ns:
            self._sample(now_ns, outputs)
        arrived: list[QualityResult] = []
        while self._due and self._due[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._due)[2])
        return tuple(arrived)

    def _sample(self, now_ns: int, outputs: Mapping[str, float]) -> None:
        settings = self.settings
        # All chances of a sample are drawn every time: switching an option on does not shift
        # the random numbers of the later samples.
        errors = self._rng.standard_normal(len(settings.sigma))
        low, high = settings.delay_s
        delay_s = low + (high - low) * self._rng.random()
        lost, wrong, sign = self._rng.random(3)
        faults, (missed, side) = self._faults, self._fault_rng.random(2)
        jump = settings.outlier_sigmas if wrong < settings.outlier else 0.0
        jump = jump if sign < 0.5 else -jump
        if "lab_outlier" in faults:
            jump += math.copysign(faults["lab_outlier"]["sigmas"], side - 0.5)
        if "late" in faults:
            delay_s += faults["late"]["delay_s"]
        values = {
            name: float(outputs[name] + sigma * (error + jump))
            for (name, sigma), error in zip(settings.sigma.items(), errors, strict=True)
        }
        number, self._count = self._count, self._count + 1
        if lost < settings.drop:
            return
        if "missing" in faults and missed < faults["missing"].get("probability", 1.0):
            return
        bottle = _Bottle(number, now_ns, now_ns + round(delay_s * NS_PER_S), values)
        if "swapped" not in faults:
            self._send(bottle, bottle, now_ns)
        elif self._waiting is None:
            self._waiting = bottle
        else:
            self._send(self._waiting, bottle, now_ns)
            self._send(bottle, self._waiting, now_ns)
            self._waiting = None

    def _send(self, content: _Bottle, label: _Bottle, now_ns: int) -> None:
        """Report what is in one bottle under the label of another, `now_ns` at the earliest."""
        received_ns = max(content.received_ns, now_ns)
        result = QualityResult(
            result_id=f"{self.settings.source}-{label.number:05d}",
            source=self.settings.source,
            time_ns=label.drawn_ns,
            received_ns=received_ns,
            values=content.values,
            sigma=dict(self.settings.sigma),
        )
        heapq.heappush(self._due, (received_ns, label.number, result))


@dataclass(frozen=True, slots=True)
class _Bottle:
    """A sample on its way through the laboratory; times in ns since epoch."""

    number: int
    drawn_ns: int
    received_ns: int
    values: Mapping[str, float]
