"""Which fault types began in which mode over a swarm, and which pairs were never tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from controller.cycle.mode import Mode
from hil.history import History
from hil.scenario import Scenario

Begun = Mapping[tuple[str, str], int]
MODES = tuple(mode.value for mode in Mode)


def begun(scenario: Scenario, history: History) -> Begun:
    """How often each fault type began in each mode: the last that was decided before it began.

    Before the first cycle a controller is OFF. Faults of solvers are called `solver <kind>`.
    """
    time_s, modes = history.column("time_s"), history.texts["mode"]
    begins = [(fault.type, fault.at_s) for fault in scenario.faults]
    begins += [(f"solver {fault.kind}", fault.at_s) for fault in scenario.solver_faults]
    found: Counter[tuple[str, str]] = Counter()
    for kind, at_s in begins:
        row = int(np.searchsorted(time_s, at_s)) - 1
        found[kind, modes[row] if row >= 0 else Mode.OFF.value] += 1
    return dict(found)


@dataclass(frozen=True, slots=True)
class SwarmCoverage:
    """What a swarm has tried, over all its episodes.

    Attributes:
        begun: how often, by (scenario, fault type, mode).
        offered: fault types that some ground of the swarm has; solver faults are not among them.
    """

    begun: Mapping[tuple[str, str, str], int]
    offered: tuple[str, ...]

    def count(self, kind: str, mode: str) -> int:
        """On all grounds together."""
        return sum(n for (_, k, m), n in self.begun.items() if (k, m) == (kind, mode))

    @property
    def never(self) -> Mapping[str, tuple[str, ...]]:
        """Per mode, the fault types on offer that never began in it on any ground."""
        met = {(kind, mode) for _, kind, mode in self.begun}
        return {mode: tuple(k for k in self.offered if (k, mode) not in met) for mode in MODES}

    def plain(self) -> dict[str, Any]:
        """For JSON: counts by scenario, fault type and mode, and what was never tried by mode."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for (scenario, kind, mode), n in sorted(self.begun.items()):
            counts.setdefault(scenario, {}).setdefault(kind, {})[mode] = n
        return {
            "begun": counts,
            "never": {mode: list(kinds) for mode, kinds in self.never.items() if kinds},
        }

    def table(self) -> Table:
        """For a terminal: how often each type began in each mode."""
        kinds = sorted({*self.offered, *(kind for _, kind, _ in self.begun)})
        table = Table(title=str(self))
        table.add_column("fault")
        for mode in MODES:
            table.add_column(mode, justify="right")
        for kind in kinds:
            table.add_row(kind, *(str(self.count(kind, mode) or "–") for mode in MODES))
        return table

    def __str__(self) -> str:
        pairs = len(self.offered) * len(MODES)
        missing = sum(map(len, self.never.values()))
        return f"faults begun by mode: {pairs - missing} of {pairs} pairs"


def swarm_coverage(
    episodes: Iterable[tuple[str, Begun, Iterable[str]]],
) -> SwarmCoverage:
    """Add up episodes: scenario, what began in it, and the fault types that its ground offers."""
    total: Counter[tuple[str, str, str]] = Counter()
    offered: set[str] = set()
    for scenario, counts, kinds in episodes:
        offered.update(kinds)
        for (kind, mode), n in counts.items():
            total[scenario, kind, mode] += n
    return SwarmCoverage(dict(total), tuple(sorted(offered)))
