"""The laboratory: draws samples on a schedule and sends the results much later."""

from __future__ import annotations

import heapq
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
    """Samples the plant's true outputs, adds the analysis error, and delivers when due."""

    def __init__(self, settings: LabSettings, start_ns: int, seed: int) -> None:
        """`start_ns`: ns since epoch, the start of the scenario."""
        self.settings = settings
        self._rng = np.random.default_rng(seed)
        self._start_ns = start_ns
        self._count = 0
        self._due: list[tuple[int, int, QualityResult]] = []

    @property
    def next_sample_ns(self) -> int:
        """When the next sample is to be drawn, ns since epoch."""
        elapsed_s = self.settings.first_s + self._count * self.settings.every_s
        return self._start_ns + round(elapsed_s * NS_PER_S)

    def advance(self, now_ns: int, outputs: Mapping[str, float]) -> tuple[QualityResult, ...]:
        """Draw the samples due by `now_ns` from `outputs`; returns the results that arrived.

        A result carries the time it was drawn (the call that drew it) and the time it was due to
        arrive. `outputs` are the plant's true values by name, in their units.
        """
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
        jump = settings.outlier_sigmas if wrong < settings.outlier else 0.0
        jump = jump if sign < 0.5 else -jump
        values = {
            name: float(outputs[name] + sigma * (error + jump))
            for (name, sigma), error in zip(settings.sigma.items(), errors, strict=True)
        }
        number, self._count = self._count, self._count + 1
        if lost < settings.drop:
            return
        received_ns = now_ns + round(delay_s * NS_PER_S)
        result = QualityResult(
            result_id=f"{settings.source}-{number:05d}",
            source=settings.source,
            time_ns=now_ns,
            received_ns=received_ns,
            values=values,
            sigma=dict(settings.sigma),
        )
        heapq.heappush(self._due, (received_ns, number, result))
