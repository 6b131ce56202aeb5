"""The process that measures: one thread, one core, started by the verb with a plain order.

It must be a process of its own, because numerical libraries read the number of their threads from
the environment when they are loaded.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from rich.progress import Progress, TaskID

from controller.errors import LoopwrightError
from controller.terminal import print_error, print_json, progress_bar
from hil.bench.case import BenchCase
from hil.bench.cases import CASES
from hil.bench.cycle import CycleResult, measure_cycle
from hil.bench.document import document
from hil.bench.growth import HORIZONS, STATES, Growth, measure_growth
from hil.bench.harness import HarnessRate, measure_harness
from hil.bench.ladder_side import LadderSide
from hil.bench.measure import CaseResult, pin_to_one_core, run_case
from hil.bench.reference import ConvergedSide
from hil.bench.rungs import RungTimes, measure_rungs
from hil.bench.side import Side

SINGLE_THREADED = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1"
)


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure.

    Attributes:
        cases: names of `CASES`; steps: of each closed loop, None for the case's own number.
        peer: beside do-mpc; cycles: of the whole cycle, 0 to leave it out; growth: over sizes;
            rungs: every solver of the ladder on its own.
        harness: cycles of each run of the harness; 0: leave it out. It takes all cores.
    """

    cases: tuple[str, ...]
    steps: int | None
    peer: bool
    cycles: int
    growth: bool
    rungs: bool = False
    harness: int = 0


def run(order: Order) -> dict[str, object]:
    """Measure what was ordered; the document."""
    core = None if order.harness else pin_to_one_core()
    with progress_bar() as bar:
        cases = [_case(bar, CASES[name](), order) for name in order.cases]
        growths = _growths(bar) if order.growth else []
        rungs = _rungs(bar, order.cases) if order.rungs else []
        cycle = _cycle(bar, order.cycles) if order.cycles else None
        harness = _harness(bar, order.harness) if order.harness else []
    return document(cases, cycle, growths, rungs, core, harness)


def _case(bar: Progress, case: BenchCase, order: Order) -> CaseResult:
    steps = order.steps or case.steps
    show = _shown(bar, case.name)
    show(0, steps, "building")
    return run_case(case, sides(peer=order.peer), steps, show)


def sides(*, peer: bool) -> dict[str, Callable[[BenchCase], Side]]:
    """Makers of the sides, in the order in which they take their turns."""
    makers: dict[str, Callable[[BenchCase], Side]] = {}
    if peer:
        from hil.bench.peer_side import DoMpcSide

        makers["peer"] = DoMpcSide
    return makers | {"ours": LadderSide, "reference": ConvergedSide}


def _growths(bar: Progress) -> list[Growth]:
    found: list[Growth] = []
    for over, sizes in (("horizon", HORIZONS), ("states", STATES)):
        show = _shown(bar, f"growth over {over}")
        show(0, len(sizes))
        found.append(measure_growth(LadderSide, over, sizes, show))
    return found


def _rungs(bar: Progress, names: tuple[str, ...]) -> list[RungTimes]:
    found: list[RungTimes] = []
    for name in names:
        show = _shown(bar, f"rungs on {name}")
        show(0, 1, "building")
        found += measure_rungs(CASES[name](), show)
    return found


def _cycle(bar: Progress, cycles: int) -> CycleResult:
    show = _shown(bar, "whole cycle")
    show(0, cycles, "building")
    return measure_cycle(cycles, show)


def _harness(bar: Progress, cycles: int) -> list[HarnessRate]:
    def told(label: str) -> Callable[[int, int, str], None]:
        show = _shown(bar, label)
        show(0, 1, "building")
        return show

    return measure_harness(cycles, told)


class _shown:
    """A task of the progress bar, made when it first has something to tell."""

    def __init__(self, bar: Progress, label: str) -> None:
        self._bar, self._label = bar, label
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int, numbers: str = "") -> None:
        if self._task is None:
            self._task = self._bar.add_task(self._label, total=total, numbers=numbers)
        self._bar.update(self._task, completed=done, total=total, numbers=numbers)


def main() -> int:
    """Read an order from the command line, print the document; returns the exit code."""
    # The peer uses what its own libraries call outdated; that is not for our users to read.
    warnings.simplefilter("ignore")
    order = msgspec.json.decode(sys.argv[1].encode(), type=Order)
    try:
        print_json(run(order))
    except LoopwrightError as error:
        print_error(error, as_json=False)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
