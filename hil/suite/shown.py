"""What a person at the terminal sees of a suite: progress, a table of verdicts, what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

import rich.progress
from rich.table import Table
from rich.text import Text

from controller.terminal import results
from hil.bundle import REPRODUCED
from hil.report.coverage_matrix import Coverage, coverage_table
from hil.scenario import LeftOut
from hil.suite.outcome import Finished
from hil.witness import Moment, Progress


def bar_of(bar: rich.progress.Progress, title: str) -> Progress:
    """Shows the moments of a run on a progress bar."""
    tasks: dict[str, rich.progress.TaskID] = {}

    def show(moment: Moment) -> None:
        if moment.phase not in tasks:
            label = title if moment.phase == "run" else moment.phase
            tasks[moment.phase] = bar.add_task(label, total=moment.cycles, numbers="")
        if moment.cycle % 10 == 0 or moment.cycle == moment.cycles:
            numbers = moment.numbers()
            bar.update(tasks[moment.phase], completed=moment.cycle, numbers=numbers)

    return show


def print_results(
    finished: Sequence[Finished], left_out: Sequence[LeftOut], seen: Coverage, *, table: bool
) -> None:
    """Verdicts, every check that did not pass, and what the faults covered.

    Args:
        left_out: what the tier cannot run.
        table: the whole coverage table instead of one line.
    """
    results().print(verdict_table(finished, left_out))
    for reason in dict.fromkeys(f"{o.scenario.name}: left out, {o.reason}" for o in left_out):
        results().print(reason, markup=False, soft_wrap=True)
    for one in finished:
        verdict = one.verdict
        place = verdict.scenario
        if sum(other.verdict.scenario == place for other in finished) > 1:
            place = f"{place}, {verdict.tier}, seed {verdict.seed}"
        again = [check for check in verdict.checks if check.name == REPRODUCED]
        wrong = [c for c in verdict.checks if c.outcome != "passed" and c not in again]
        lines = [f"{place}: {check}" for check in wrong]
        lines += [f"{place}, run again: {check.detail}" for check in again]
        if one.golden:
            lines.append(one.golden)
        if one.bundle:
            lines.append(f"{place}: reproduce it with loopwright hil run {one.bundle}")
        for line in lines:
            results().print(line, markup=False, soft_wrap=True)
    if seen.faults and table:
        results().print(coverage_table(seen))
    elif seen.faults:
        results().print(f"coverage: {seen}; --coverage tells which in which mode", markup=False)


def verdict_table(finished: Sequence[Finished], left_out: Sequence[LeftOut] = ()) -> Table:
    table = Table(title="HIL verdicts")
    for column in ("scenario", "tier", "seed", "verdict", "checks", "cycles", "time"):
        table.add_column(column, justify="left" if column == "scenario" else "right")
    for one in finished:
        verdict = one.verdict
        good = sum(c.outcome == "passed" for c in verdict.checks)
        table.add_row(
            Text(verdict.scenario),
            verdict.tier,
            str(verdict.seed),
            verdict.word,
            f"{good}/{len(verdict.checks)}",
            f"{verdict.kpis.get('cycles', 0):.0f}",
            f"{one.elapsed_s:.1f} s",
        )
    for other in left_out:
        scenario = other.scenario
        table.add_row(Text(scenario.name), scenario.tier, str(scenario.seed), "left out")
    return table
