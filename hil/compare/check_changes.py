"""Assertions whose outcome a change has turned: each told once, with the seeds that show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any

from hil.compare.runs import FinishedRun, Pair


@dataclass(frozen=True, slots=True)
class Turned:
    """One pair of runs in which a check came out differently.

    Attributes:
        run: that of B; before, after: the outcomes; a, b: what was measured.
        outside: by how much the worse side is outside the limits, inf where no number says it.
    """

    run: FinishedRun
    before: str
    after: str
    a: float | None
    b: float | None
    outside: float

    @property
    def outcome(self) -> str:
        return f"{self.before} → {self.after}"

    @property
    def values(self) -> str:
        """Both values; nothing where neither side has one, as of a formula about words."""
        if self.a is None and self.b is None:
            return ""
        return f"{shown(self.a)} → {shown(self.b)}"


@dataclass(frozen=True, slots=True)
class CheckChange:
    """An assertion of a scenario whose outcome changed, over all pairs of the scenario in a tier.

    Attributes:
        worse: it does not pass in B, and a verdict depends on it.
        turned: the pairs that show it, the worst first.
        pairs: the pairs there are.
        apart_by: what tells the pairs apart, seeds or, where a matrix repeats those, runs.
    """

    scenario: str
    tier: str
    check: str
    severity: str
    worse: bool
    turned: tuple[Turned, ...]
    pairs: int
    apart_by: str

    @property
    def place(self) -> str:
        return f"{self.scenario}, {self.tier}"

    @property
    def outcomes(self) -> str:
        """`passed → failed`; with their numbers where there are several."""
        counts = Counter(each.outcome for each in self.turned)
        if len(counts) == 1:
            return next(iter(counts))
        return " and ".join(f"{outcome} ({count})" for outcome, count in counts.most_common())

    @property
    def share(self) -> str:
        return f"{len(self.turned)} of {self.pairs} {self.apart_by}"

    @property
    def worst(self) -> str:
        """Which pair to look at first."""
        run = self.turned[0].run
        variant = f", {run.variant}" if self.apart_by == "runs" and run.variant else ""
        return f"seed {run.seed}{variant}"

    def __str__(self) -> str:
        rank = "" if len(self.turned) == 1 else "worst in " if self.worse else "as in "
        values = f": {self.turned[0].values}" if self.turned[0].values else ""
        note = "" if self.severity == "fail" else ", a warning only"
        return (
            f"{self.place}: {self.check} {self.outcomes} in {self.share}{note}, "
            f"{rank}{self.worst}{values}"
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "scenario": self.scenario,
            "tier": self.tier,
            "check": self.check,
            "severity": self.severity,
            "worse": self.worse,
            "pairs": self.pairs,
            "turned": [
                {
                    "seed": each.run.seed,
                    "variant": each.run.variant,
                    "before": each.before,
                    "after": each.after,
                    "a": each.a,
                    "b": each.b,
                }
                for each in self.turned
            ],
            "text": str(self),
        }


def check_changes(pairs: Sequence[Pair]) -> list[CheckChange]:
    """What turned in the pairs of one scenario in one tier; what became worse first."""
    found: dict[tuple[bool, str, str], list[Turned]] = {}
    for pair in pairs:
        before, after = _numbered(pair.a.checks), _numbered(pair.b.checks)
        for name in dict.fromkeys((*before, *after)):
            a, b = before.get(name), after.get(name)
            one = _turned(pair.b, a, b)
            if one is not None:
                severity = str((b or a or {})["severity"])
                worse = one.after != "passed" and severity == "fail"
                found.setdefault((not worse, name, severity), []).append(one)
    apart_by = "seeds" if len({pair.b.seed for pair in pairs}) == len(pairs) else "runs"
    return [
        CheckChange(
            scenario=pairs[0].b.scenario,
            tier=pairs[0].b.tier,
            check=name,
            severity=severity,
            worse=not better,
            turned=tuple(sorted(turned, key=lambda one: (one.after != "failed", -one.outside))),
            pairs=len(pairs),
            apart_by=apart_by,
        )
        for (better, name, severity), turned in sorted(found.items(), key=lambda item: item[0][0])
    ]


def _turned(
    run: FinishedRun, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None
) -> Turned | None:
    before, after = ("absent" if check is None else str(check["outcome"]) for check in (a, b))
    if before == after:
        return None
    return Turned(
        run=run,
        before=before,
        after=after,
        a=a["value"] if a else None,
        b=b["value"] if b else None,
        outside=max(_outside(check) for check in (a, b)),
    )


def _outside(check: Mapping[str, Any] | None) -> float:
    """By how much a failed check misses its limits; 0 where it did not fail."""
    if check is None or check["outcome"] != "failed":
        return 0.0
    value, low, high = check["value"], check["low"], check["high"]
    if value is None or (low is None and high is None):
        return inf
    below = 0.0 if low is None else low - value
    above = 0.0 if high is None else value - high
    return max(below, above)


def _numbered(checks: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Checks by name; a further one of the same name gets a number."""
    found: dict[str, Mapping[str, Any]] = {}
    for check in checks:
        name, number = str(check["name"]), 2
        while name in found:
            name, number = f"{check['name']} ({number})", number + 1
        found[name] = check
    return found


def shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def told_together(runs: Iterable[FinishedRun]) -> list[str]:
    """Runs in words, those of a scenario and tier as one."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(f"{run.scenario}, {run.tier}", []).append(run)
    return [
        str(group[0])
        if len(group) == 1
        else f"{place}, {len(group)} runs, seeds {seeds_told(run.seed for run in group)}"
        for place, group in groups.items()
    ]


def seeds_told(seeds: Iterable[int]) -> str:
    """`1-5, 9` of 1, 2, 3, 4, 5 and 9."""
    ordered = sorted(set(seeds))
    parts: list[str] = []
    for _, run in groupby(enumerate(ordered), key=lambda item: item[1] - item[0]):
        row = [seed for _, seed in run]
        parts += [f"{row[0]}-{row[-1]}"] if len(row) > 2 else map(str, row)
    return ", ".join(parts)
