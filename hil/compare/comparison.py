"""What a change did to the loop: KPIs of two sets of runs, pair by pair, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

import numpy as np

from hil.compare.check_changes import CheckChange, check_changes, shown, told_together
from hil.compare.directions import Better, better, of_the_machine
from hil.compare.paired_test import (
    LEVEL,
    PAIRS_MIN,
    Interval,
    bootstrap_interval,
    differences,
    holm,
    pairs_needed,
    signed_rank,
)
from hil.compare.runs import FinishedRun, Pair, Pairing

Finding = Literal[
    "same", "better", "worse", "changed", "not significant", "too few pairs", "machine", "unpaired"
]


@dataclass(frozen=True, slots=True)
class KpiRow:
    """One KPI over the pairs of a group.

    Attributes:
        n: pairs in which both sides have measured it; lost: pairs in which only A has.
        a, b: means; difference: mean of B minus A; percent: of the size of A, None where A is 0.
        interval: 95 % bootstrap interval of the mean difference.
        p: of the signed-rank test; p_holm: adjusted for all tests of the comparison.
        finding: same, in every pair; better or worse, significantly; changed, significantly, where
            neither way is better; not significant; too few pairs to tell; machine: a computing
            time, which is not tested; unpaired: never measured on both sides.
    """

    name: str
    better: Better
    n: int
    lost: int
    a: float | None
    b: float | None
    difference: float | None
    percent: float | None
    interval: Interval | None
    p: float | None
    p_holm: float | None
    finding: Finding


@dataclass(frozen=True, slots=True)
class Group:
    """The pairs of one scenario in one tier, and their KPIs."""

    scenario: str
    tier: str
    pairs: tuple[Pair, ...]
    kpis: tuple[KpiRow, ...]

    @property
    def title(self) -> str:
        return self.pairs[-1].b.title


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that a comparison found; `tests` is the number of tests that share the level."""

    groups: tuple[Group, ...]
    changes: tuple[CheckChange, ...]
    only_a: tuple[FinishedRun, ...]
    only_b: tuple[FinishedRun, ...]
    tests: int

    @property
    def pairs(self) -> int:
        return sum(len(group.pairs) for group in self.groups)

    @property
    def regressions(self) -> tuple[str, ...]:
        """Why a careful team would not merge this, one sentence each."""
        found = [f"check: {change}" for change in self.changes if change.worse]
        found += [f"missing in B: {runs}" for runs in told_together(self.only_a)]
        for group in self.groups:
            place = f"{group.scenario}, {group.tier}"
            for row in group.kpis:
                if row.finding == "worse":
                    found.append(
                        f"KPI: {place}: {row.name} {shown(row.a)} → {shown(row.b)}, "
                        f"p {row.p_holm:.3g} after correction, n {row.n}"
                    )
                if row.lost:
                    found.append(f"no longer measured: {place}: {row.name}, in {row.lost} runs")
        return tuple(found)

    @property
    def power(self) -> str:
        """What so many pairs can show at all, in a sentence."""
        largest = max((len(group.pairs) for group in self.groups), default=0)
        if largest < PAIRS_MIN:
            return (
                f"n is too small for any significance: {largest} pairs of a scenario at most, "
                f"{PAIRS_MIN} are the least. Differences hold for the seeds shown, no further."
            )
        needed = pairs_needed(self.tests)
        words = f"{self.tests} KPIs are tested together (Holm), at {100 * LEVEL:g} %"
        if self.tests and largest < needed:
            return (
                f"n is too small: {words}; that takes {needed} pairs for the clearest of changes "
                f"to be significant, and there are {largest} at most."
            )
        return f"{words}."

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pairs": self.pairs,
            "tests": self.tests,
            "power": self.power,
            "regressions": list(self.regressions),
            "changes": [change.plain() for change in self.changes],
            "only_a": [str(run) for run in self.only_a],
            "only_b": [str(run) for run in self.only_b],
            "groups": [
                {
                    "scenario": group.scenario,
                    "tier": group.tier,
                    "seeds": [pair.a.seed for pair in group.pairs],
                    "kpis": [_plain(row) for row in group.kpis],
                }
                for group in self.groups
            ],
        }


def _plain(row: KpiRow) -> dict[str, Any]:
    names = ("name", "better", "n", "lost", "a", "b", "difference", "percent", "p", "p_holm")
    interval = None if row.interval is None else list(row.interval)
    return {
        **{name: getattr(row, name) for name in names},
        "interval": interval,
        "finding": row.finding,
    }


def compare(pairing: Pairing) -> Comparison:
    """Compare every group of pairs, and correct for all tests together."""
    groups = [
        Group(scenario, tier, pairs, _kpi_rows(pairs))
        for (scenario, tier), pairs in pairing.groups.items()
    ]
    tested = [row.p for group in groups for row in group.kpis if row.p is not None]
    adjusted = iter(holm(tested))
    judged = [
        replace(
            group,
            kpis=tuple(
                row if row.p is None else _judged(row, next(adjusted), len(tested))
                for row in group.kpis
            ),
        )
        for group in groups
    ]
    changes = [change for group in groups for change in check_changes(group.pairs)]
    changes.sort(key=lambda change: not change.worse)
    return Comparison(tuple(judged), tuple(changes), pairing.only_a, pairing.only_b, len(tested))


def _kpi_rows(pairs: Sequence[Pair]) -> tuple[KpiRow, ...]:
    names = dict.fromkeys(name for pair in pairs for run in pair for name in run.kpis)
    return tuple(_kpi_row(name, pairs) for name in names)


def _kpi_row(name: str, pairs: Sequence[Pair]) -> KpiRow:
    """A KPI before the correction for many tests."""
    values = [(_measured(pair.a, name), _measured(pair.b, name)) for pair in pairs]
    both = [(a, b) for a, b in values if a is not None and b is not None]
    lost = sum(a is not None and b is None for a, b in values)
    direction = better(name)
    if not both:
        a, b = (_mean([v for v in side if v is not None]) for side in zip(*values, strict=True))
        return KpiRow(name, direction, 0, lost, a, b, None, None, None, None, None, "unpaired")
    before, after = [a for a, _ in both], [b for _, b in both]
    change = differences(before, after)
    a, difference = float(np.mean(before)), float(np.mean(change))
    finding: Finding = "too few pairs"
    p: float | None = None
    interval: Interval | None = None
    if not change.any():
        finding = "same"
    elif of_the_machine(name):
        finding = "machine"
    else:
        p, interval = signed_rank(change), bootstrap_interval(change)
    return KpiRow(
        name=name,
        better=direction,
        n=len(both),
        lost=lost,
        a=a,
        b=float(np.mean(after)),
        difference=difference,
        percent=100.0 * difference / abs(a) if a else None,
        interval=interval,
        p=p,
        p_holm=None,
        finding=finding,
    )


def _judged(row: KpiRow, p_holm: float, tests: int) -> KpiRow:
    """The finding of a tested KPI."""
    finding: Finding = "not significant"
    if p_holm <= LEVEL:
        finding = "changed"
        if row.better != "neither" and row.difference:
            finding = "better" if (row.difference < 0) == (row.better == "lower") else "worse"
    elif row.n < pairs_needed(tests):
        finding = "too few pairs"
    return replace(row, p_holm=p_holm, finding=finding)


def _measured(run: FinishedRun, name: str) -> float | None:
    """A KPI; a mode or rung that a run does not mention did not occur in it."""
    absent = 0.0 if name.startswith(("share_", "rung_")) and "cycles" in run.kpis else None
    value = run.kpis.get(name, absent)
    return value if value is not None and isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
