"""How many cycles a second the harness makes: a scenario with everything that a run of it does.

Plant and PLC scan by scan, the production loop, its journal, the wire watch and the invariants; in
the wire tier real S7 and Modbus connections through the fault proxy. What comes before the first
cycle (building models and solvers) and after the last (judging, replay) does not count.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

import controller.loop
from controller.errors import LoopwrightError
from controller.historian.journal import SqliteJournal
from controller.loop import Loop
from hil.bench.measure import WARM_UP, Progress
from hil.resources import shipped
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.scenario.parts import Scenario, Tier
from hil.witness import Moment, Witness
from hil.world import World

SCENARIO = "scenarios/cstr-setpoint.yaml"
REPEATS = 3
PROCESSES = 2
TIMEOUT_S = 600.0

# What a cycle is made of: where each part is entered. What a part calls of another counts there.
_PARTS: tuple[tuple[str, object, str], ...] = (
    ("read", Loop, "_read"),
    ("step", controller.loop, "step"),
    ("write", Loop, "_write"),
    ("journal", SqliteJournal, "append_snapshot"),
    ("journal", controller.loop, "encode_record"),
    ("journal", SqliteJournal, "append_record"),
    ("world", World, "run_until"),
    ("checks", Witness, "__call__"),
)


@dataclass(frozen=True, slots=True)
class HarnessRate:
    """Cycles per second of one tier.

    Attributes:
        cycles: of each run; rates: cycles per second of all processes together, one per repeat.
        parts_ms: median time per cycle of each part, of a further run; empty where not taken.
    """

    tier: Tier
    processes: int
    cycles: int
    rates: tuple[float, ...]
    parts_ms: Mapping[str, float]

    @property
    def median(self) -> float:
        return float(np.median(self.rates))


def measure_harness(cycles: int, told: Callable[[str], Progress]) -> list[HarnessRate]:
    """Both tiers in this process, then the virtual one in two processes at once.

    Args:
        cycles: of each run.
        told: gives, for a label, what is told of its progress.

    Raises:
        LoopwrightError: a process broke, or a run did not do what it should.
    """
    found: list[HarnessRate] = []
    tiers: tuple[Tier, ...] = ("virtual", "wire")
    for tier in tiers:
        show = told(f"{tier} tier")
        rates: list[float] = []
        for number in range(REPEATS):
            rates.append(_rate(tier, cycles))
            show(number + 1, REPEATS + 1, f"{rates[-1]:.0f}/s")
        with _stopwatch() as taken:
            _rate(tier, cycles)
        show(REPEATS + 1, REPEATS + 1, "")
        found.append(HarnessRate(tier, 1, cycles, tuple(rates), _medians(taken)))
    show = told(f"virtual tier, {PROCESSES} processes")
    rates = []
    for number in range(REPEATS):
        rates.append(sum(_side_by_side(cycles)))
        show(number + 1, REPEATS, f"{rates[-1]:.0f}/s")
    found.append(HarnessRate("virtual", PROCESSES, cycles, tuple(rates), {}))
    return found


def _rate(tier: Tier, cycles: int, begin: Callable[[], object] | None = None) -> float:
    """Cycles per second of one run; `begin` is waited for in its first cycle."""
    scenario = _scenario(cycles)
    ended_s: list[float] = []

    def heard(moment: Moment) -> None:
        ended_s.append(perf_counter())
        if moment.cycle == 1:
            # What was built stays: as in the service, the collector need not look at it again.
            gc.collect()
            gc.freeze()
            if begin is not None:
                begin()

    try:
        with TemporaryDirectory() as folder:
            run = run_scenario(
                scenario, Path(folder) / "run", tier=tier, check_replay=False, progress=heard
            )
    finally:
        gc.unfreeze()
    if len(run.history) != cycles or run.history.texts["mode"].count("ACTIVE") < cycles // 2:
        raise LoopwrightError(
            f"the {tier} tier has not controlled the reactor: nothing to measure",
            where="bench --hil",
            mend=f"Look at it with: loopwright hil run --tier {tier} config/{SCENARIO}",
        )
    # The whole of each cycle: the world and the checks, too.
    return (cycles - WARM_UP) / (ended_s[-1] - ended_s[WARM_UP - 1])


def _scenario(cycles: int) -> Scenario:
    scenario = load_scenario(shipped(SCENARIO))
    return replace(scenario, duration_s=cycles * scenario.settings.cycle_s)


@contextmanager
def _stopwatch() -> Generator[Mapping[str, list[float]]]:
    """Time per part, ms, one number a call, from outside: nothing that runs knows of it."""
    taken: dict[str, list[float]] = {part: [] for part, _, _ in _PARTS}
    before = [(owner, name, getattr(owner, name)) for _, owner, name in _PARTS]
    for (part, owner, name), (_, _, real) in zip(_PARTS, before, strict=True):
        setattr(owner, name, _timed(real, taken[part]))
    try:
        yield taken
    finally:
        for owner, name, real in before:
            setattr(owner, name, real)


def _timed(real: Callable[..., Any], taken: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        begun = perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            taken.append(1e3 * (perf_counter() - begun))

    return timed


def _medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    calls = {part: sum(p == part for p, _, _ in _PARTS) for part in taken}
    found: dict[str, float] = {}
    for part, times in taken.items():
        whole = len(times) // calls[part] * calls[part]
        per_cycle = np.reshape(times[:whole], (-1, calls[part])).sum(axis=1)
        found[part] = float(np.median(per_cycle[WARM_UP:]))
    return found


def _side_by_side(cycles: int) -> list[float]:
    """The rates of processes that run the virtual tier at the same time."""
    context = multiprocessing.get_context("spawn")
    begin, answers = context.Barrier(PROCESSES, timeout=TIMEOUT_S), context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(cycles, begin, answers), daemon=True)
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT_S)
    if any(worker.exitcode != 0 for worker in workers):
        for worker in workers:
            worker.kill()
        raise LoopwrightError(
            "a process that was to be measured broke",
            where="bench --hil",
            mend="What it said stands above",
        )
    return [answers.get() for _ in workers]


def _work(cycles: int, begin: Barrier, answers: Any) -> None:
    answers.put(_rate("virtual", cycles, begin.wait))
