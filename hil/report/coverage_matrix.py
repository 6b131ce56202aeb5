"""Which fault was in force in which mode on which plant: what runs have tried, and what not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, get_args

import numpy as np
from rich.table import Table

from controller.cycle.mode import Mode
from hil.faults.kinds import KINDS
from hil.faults.solver import Rung, SolverFaultKind
from hil.history import History
from hil.report.page import Raw, page, paragraph, safe, section
from hil.scenario import Scenario

NO_FAULT = "none"
MODES = tuple(mode.value for mode in Mode)
_SOLVER = "solver "
_RUNGS: frozenset[str] = frozenset(get_args(Rung))
_SOLVER_KINDS: tuple[str, ...] = get_args(SolverFaultKind)

FAULT_TYPES = (NO_FAULT, *KINDS, *(f"{_SOLVER}{kind}" for kind in _SOLVER_KINDS))
"""Every fault type that there is, by what it acts on; the rows of a matrix."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Cycles by plant, fault type and mode; a cycle with two faults counts for both.

    Attributes:
        plants: in the order in which they were met.
        cycles: by (plant, fault type, mode); what is not there never happened.
        runs: how many histories were read.
    """

    plants: tuple[str, ...]
    cycles: Mapping[tuple[str, str, str], int]
    runs: int

    def count(self, plant: str, fault: str, mode: str) -> int:
        return self.cycles.get((plant, fault, mode), 0)

    @property
    def faults(self) -> tuple[str, ...]:
        """Rows of the matrix: every known type, then what only these runs know."""
        met = dict.fromkeys(fault for _, fault, _ in self.cycles)
        return tuple(dict.fromkeys((*FAULT_TYPES, *met)))

    @property
    def modes(self) -> tuple[str, ...]:
        """Columns of the matrix, per plant."""
        met = dict.fromkeys(mode for _, _, mode in self.cycles)
        return tuple(dict.fromkeys((*MODES, *met)))

    @property
    def missing(self) -> tuple[str, ...]:
        """Known fault types that no run has tried in any mode on any plant."""
        met = {fault for _, fault, _ in self.cycles}
        return tuple(fault for fault in FAULT_TYPES if fault not in met)

    def plain(self) -> dict[str, Any]:
        """For JSON: cycles by plant, fault type and mode, and what was never tried."""
        cycles: dict[str, dict[str, dict[str, int]]] = {}
        for (plant, fault, mode), n in self.cycles.items():
            cycles.setdefault(plant, {}).setdefault(fault, {})[mode] = n
        missing = [fault for fault in self.missing if fault != NO_FAULT]
        return {"runs": self.runs, "cycles": cycles, "never_tried": missing}

    def __str__(self) -> str:
        known = len(FAULT_TYPES) - 1
        tried = known - len(set(self.missing) - {NO_FAULT})
        words = [
            f"{count} {word}{'' if count == 1 else 's'}"
            for count, word in ((self.runs, "run"), (len(self.plants), "plant"))
        ]
        return f"{tried} of {known} fault types tried, in {' on '.join(words)}"


@dataclass(frozen=True, slots=True)
class Covered:
    """What one run has tried: cycles by (fault type, mode), on its plant."""

    plant: str
    cycles: Mapping[tuple[str, str], int]


def covered(scenario: Scenario, history: History) -> Covered:
    """What a run of this scenario has tried.

    A fault that came and went between two cycles (a reset, a kill) is in no row of the history; it
    counts for the first cycle that could feel it.
    """
    texts, time_s = history.texts, history.column("time_s")
    faults = list(texts["faults"])
    for fault in scenario.faults:
        words = f"{fault.type} {fault.target}"
        row = int(np.searchsorted(time_s, fault.at_s))
        short = not np.any((time_s >= fault.at_s) & (time_s < fault.until_s))
        if short and row < len(faults) and words not in faults[row].split("; "):
            faults[row] = "; ".join(filter(None, (faults[row], words)))
    return count_cycles(_plant_name(scenario.plant_ref), faults, texts["mode"])


def count_cycles(plant: str, faults: Sequence[str], modes: Sequence[str]) -> Covered:
    """Count the cycles of one run.

    Args:
        plant: its name.
        faults: per cycle, what was broken, as a history keeps it: `type target; type target`.
        modes: per cycle, the mode.

    Raises:
        ValueError: not as many faults as modes.
    """
    counted: Counter[tuple[str, str]] = Counter()
    types: dict[str, frozenset[str]] = {}
    for text, mode in zip(faults, modes, strict=True):
        if text not in types:
            types[text] = _types(text)
        counted.update((fault, mode) for fault in types[text])
    return Covered(plant, dict(counted))


def _types(text: str) -> frozenset[str]:
    """The types in a text; solver faults tell the rung as their target."""
    found: set[str] = set()
    for fault in filter(None, text.split("; ")):
        kind, _, target = fault.partition(" ")
        solver = kind in _SOLVER_KINDS and target in _RUNGS
        found.add(f"{_SOLVER}{kind}" if solver else kind)
    return frozenset(found or {NO_FAULT})


def coverage(runs: Iterable[Covered]) -> Coverage:
    """What these runs have tried together."""
    cycles: Counter[tuple[str, str, str]] = Counter()
    plants: dict[str, None] = {}
    count = 0
    for run in runs:
        count += 1
        plants[run.plant] = None
        for (fault, mode), n in run.cycles.items():
            cycles[(run.plant, fault, mode)] += n
    return Coverage(tuple(plants), dict(cycles), count)


def _plant_name(reference: str) -> str:
    """What people call the plant: `plant_models.williams_otto:plant`, or a file of that name, is
    williams_otto."""
    source = reference.rpartition(":")[0] or reference
    if source.endswith(".py"):
        return PurePath(source).stem
    return source.rpartition(".")[2]


def coverage_html(found: Coverage) -> str:
    """The matrix as a page of its own."""
    return page("Coverage – Loopwright", coverage_section(found))


def coverage_section(found: Coverage) -> Raw:
    """The matrix as a section of a page: a row per fault type, columns by plant and mode."""
    modes = found.modes
    head = "".join(
        f'<th colspan="{len(modes)}" scope="colgroup">{safe(plant)}</th>' for plant in found.plants
    )
    second = "".join(
        f'<th class="number" scope="col">{safe(mode)}</th>' for _ in found.plants for mode in modes
    )
    rows: list[str] = []
    for fault in found.faults:
        counts = [found.count(plant, fault, mode) for plant in found.plants for mode in modes]
        cells = "".join(
            f'<td class="number covered">{n}</td>' if n else '<td class="number none">–</td>'
            for n in counts
        )
        words = safe(fault if any(counts) else f"{fault} (never)")
        mark = "" if any(counts) else ' class="abnormal"'
        rows.append(f'<tr{mark}><th scope="row">{words}</th>{cells}</tr>')
    body = "\n".join(rows)
    matrix = Raw(
        '<div class="scroll"><table class="matrix narrow"><thead>'
        f'<tr><th rowspan="2">Fault in force</th>{head}</tr><tr>{second}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
    comment = "Cycles in which a fault was in force, by plant and mode; “–” was never tried."
    return section("Coverage", paragraph(f"{found}. {comment}", "muted"), matrix)


def coverage_table(found: Coverage) -> Table:
    """The matrix for a terminal: the fault types that were tried, and the others in one line."""
    modes = found.modes
    table = Table(title=f"coverage: {found}")
    table.add_column("plant")
    table.add_column("fault")
    for mode in modes:
        table.add_column(mode, justify="right")
    for plant in found.plants:
        for fault in found.faults:
            counts = [found.count(plant, fault, mode) for mode in modes]
            if any(counts):
                table.add_row(plant, fault, *(str(n) if n else "–" for n in counts))
        table.add_section()
    if found.missing:
        table.caption = f"never tried: {', '.join(found.missing)}"
    return table
