"""Closed loops side by side: step i of the peer, step i of ours, step i of the reference, i + 1.

Every side drives a plant of its own, so each pays for its own decisions; taking turns in time lets
the noise of the machine fall on all of them alike. Wall time is measured around `move` alone, with
garbage collected before each, on one core.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

import numpy as np

from hil.bench.case import BenchCase
from hil.bench.plant import BenchPlant
from hil.bench.side import Side
from plant_models.process import Vector

WARM_UP = 5
"""Steps at the start whose times are left out: first solves from a cold guess, caches, pages."""

Progress = Callable[[int, int, str], None]
"""Told (done, total, numbers) after every step."""


@dataclass(slots=True)
class ClosedLoop:
    """One side on its plant, with what it took and what it cost."""

    side: Side
    plant: BenchPlant
    case: BenchCase
    u: Vector
    times_ms: list[float] = field(default_factory=lambda: list[float]())
    cost: float = 0.0
    rungs: Counter[str] = field(default_factory=lambda: Counter[str]())
    refusals: int = 0

    def step(self) -> None:
        x, before = self.plant.x.copy(), self.u
        gc.collect(0)
        begun = perf_counter_ns()
        u = self.side.move(x, before)
        ended = perf_counter_ns()
        self.times_ms.append((ended - begun) / 1e6)
        y = self.plant.advance(u)
        self.cost += self.case.stage_cost(y, u, before)
        solved = self.side.solved()
        self.rungs[solved.rung] += 1
        self.refusals += not solved.accepted
        self.u = u


@dataclass(frozen=True, slots=True)
class Times:
    """Wall time per step, warm-up left out, in ms."""

    median_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class SideResult:
    """What one side needed for one case.

    Attributes:
        cost: of its closed loop; rungs: which solver answered how often.
        refusals: steps in which its best solver had no answer that was accepted.
    """

    times: Times
    built_s: float
    cost: float
    rungs: Mapping[str, int]
    refusals: int


@dataclass(frozen=True, slots=True)
class CaseResult:
    """All sides of one case; `peer` is None where none was asked for."""

    case: BenchCase
    steps: int
    ours: SideResult
    reference: SideResult
    peer: SideResult | None

    @property
    def ratio(self) -> float | None:
        """How many times faster we are, by medians."""
        return None if self.peer is None else self.peer.times.median_ms / self.ours.times.median_ms

    def cost_ratio(self, side: SideResult) -> float:
        """Closed-loop cost over the reference's; 1 + relative excess where costs are negative."""
        return 1.0 + (side.cost - self.reference.cost) / abs(self.reference.cost)


def times_of(times_ms: Sequence[float], warm_up: int = WARM_UP) -> Times:
    """Median, 99th percentile and maximum without the first `warm_up` steps."""
    counted = np.array(times_ms[warm_up:], dtype=np.float64)
    return Times(
        float(np.median(counted)), float(np.percentile(counted, 99.0)), float(np.max(counted))
    )


def run_case(
    case: BenchCase,
    build: Mapping[str, Callable[[BenchCase], Side]],
    steps: int,
    progress: Progress | None = None,
) -> CaseResult:
    """Run `steps` steps with warm-up before; sides are built and called in the given order.

    Args:
        build: makers of the sides by name; `ours` and `reference` must be there, `peer` may.
    """
    total = steps + WARM_UP
    loops = {
        name: ClosedLoop(make(case), BenchPlant(case, case.seed), case, case.u0)
        for name, make in build.items()
    }
    # What has been built stays; the collector need not walk over it between the steps.
    gc.collect()
    gc.freeze()
    try:
        for i in range(total):
            for loop in loops.values():
                loop.step()
            if progress is not None:
                progress(i + 1, total, _numbers(loops))
    finally:
        gc.unfreeze()
    found = {name: _result(loop) for name, loop in loops.items()}
    return CaseResult(case, steps, found["ours"], found["reference"], found.get("peer"))


def _numbers(loops: Mapping[str, ClosedLoop]) -> str:
    return "  ".join(f"{name} {np.median(loop.times_ms):.3g} ms" for name, loop in loops.items())


def _result(loop: ClosedLoop) -> SideResult:
    return SideResult(
        times_of(loop.times_ms), loop.side.built_s, loop.cost, dict(loop.rungs), loop.refusals
    )


def pin_to_one_core() -> int | None:
    """Keep this process on its last core; which one, or None where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))
