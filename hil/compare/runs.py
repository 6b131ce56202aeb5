"""Finds the runs of two directories and pairs them: same scenario, same tier, same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from controller.app import settings_of
from controller.errors import ReplayError, ScenarioError, SettingsError
from controller.historian.reader import open_reader
from controller.historian.samples import Segment, samples_path
from controller.settings import Settings
from hil.history import History
from hil.report.data import read_history, read_verdict
from hil.report.scenario import changes_of
from hil.runner import HISTORY_FILE, VERDICT_FILE


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A judged run and where it lies; `variant` is what it changed of its scenario, in words."""

    directory: Path
    scenario: str
    title: str
    tier: str
    seed: int
    variant: str
    passed: bool
    checks: tuple[Mapping[str, Any], ...]
    kpis: Mapping[str, float | None]

    def __str__(self) -> str:
        words = f"{self.scenario}, {self.tier}, seed {self.seed}"
        return f"{words}, {self.variant}" if self.variant else words

    def history(self) -> History | None:
        """The true history; None where there is none.

        Raises:
            ReplayError: the file is damaged.
        """
        return read_history(self.directory / HISTORY_FILE)

    def start(self) -> Segment | None:
        """The newest start in the journal; None without a journal.

        Raises:
            JournalError: the journal is damaged.
        """
        return newest_start(self.directory)

    def settings(self) -> Settings | None:
        """The settings kept in the journal; None without a journal, or where they need a model
        that is not here.

        Raises:
            JournalError: the journal is damaged.
        """
        start = self.start()
        try:
            return None if start is None else settings_of(start, self.directory)
        except SettingsError:
            return None


def newest_start(directory: Path) -> Segment | None:
    """The newest start in the journal of a directory; None without a journal.

    Raises:
        JournalError: the journal is damaged.
    """
    if not samples_path(directory).exists():
        return None
    with open_reader(directory) as reader:
        segments = reader.segments()
    return segments[-1] if segments else None


class Pair(NamedTuple):
    """The same scenario, tier, seed and variant, before (A) and after (B)."""

    a: FinishedRun
    b: FinishedRun


@dataclass(frozen=True, slots=True)
class Pairing:
    """Pairs by scenario and tier, and the runs that have no partner."""

    groups: Mapping[tuple[str, str], tuple[Pair, ...]]
    only_a: tuple[FinishedRun, ...]
    only_b: tuple[FinishedRun, ...]


def find_runs(directory: Path) -> tuple[FinishedRun, ...]:
    """The run in a directory, or all runs below it, in the order of their paths.

    Raises:
        ScenarioError: there is none.
        ReplayError: one is damaged.
    """
    files = sorted(directory.rglob(VERDICT_FILE))
    if (directory / VERDICT_FILE).exists():
        files = [directory / VERDICT_FILE]
    if not files:
        raise ScenarioError(
            f"there is no run: no {VERDICT_FILE} in it or below",
            where=str(directory),
            mend="Name a directory into which `loopwright hil run --out` wrote",
        )
    return tuple(_read(file) for file in files)


def _read(file: Path) -> FinishedRun:
    verdict = read_verdict(file)
    if verdict is None:
        raise ReplayError("the verdict is gone", where=str(file), mend="Run the scenario again")
    return FinishedRun(
        directory=file.parent,
        scenario=str(verdict["scenario"]),
        title=str(verdict.get("title") or verdict["scenario"]),
        tier=str(verdict["tier"]),
        seed=int(verdict["seed"]),
        variant=_variant(file.parent),
        passed=bool(verdict["passed"]),
        checks=tuple(verdict["checks"]),
        kpis=verdict["kpis"],
    )


def _variant(directory: Path) -> str:
    """The changes of a run in words; the seed is told apart already."""
    told = sorted((k, v) for k, v in changes_of(directory).items() if k != "seed")
    return ", ".join(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in told)


def pair_runs(a: Sequence[FinishedRun], b: Sequence[FinishedRun]) -> Pairing:
    """Pair runs by scenario, tier and seed.

    What a run changed of its scenario is often just what is compared, so it tells runs apart only
    where one side has several of the same scenario, tier and seed (a matrix).

    Raises:
        ScenarioError: a side has the same run twice, or no run has a partner.
    """
    counts = [Counter((r.scenario, r.tier, r.seed) for r in side) for side in (a, b)]
    several = {key for side in counts for key, count in side.items() if count > 1}

    def key_of(run: FinishedRun) -> tuple[str, str, int, str]:
        key = (run.scenario, run.tier, run.seed)
        return (*key, run.variant if key in several else "")

    ours, theirs = ({key_of(run): run for run in side} for side in (a, b))
    for side, found in ((a, ours), (b, theirs)):
        twice = next((run for run in side if found[key_of(run)] is not run), None)
        if twice is not None:
            raise ScenarioError(
                f"the same run is there twice: {twice}",
                where=f"{twice.directory} and {found[key_of(twice)].directory}",
                mend="Remove one of them, or name a directory that holds only one",
            )
    groups: dict[tuple[str, str], list[Pair]] = {}
    for key in sorted(set(ours) & set(theirs)):
        groups.setdefault(key[:2], []).append(Pair(ours[key], theirs[key]))
    if not groups:
        raise ScenarioError(
            f"no run of A has a partner in B; A holds {_some(a)}; B holds {_some(b)}",
            mend="Run the same scenarios with the same tier and seeds on both sides",
        )
    return Pairing(
        {key: tuple(pairs) for key, pairs in groups.items()},
        tuple(run for key, run in ours.items() if key not in theirs),
        tuple(run for key, run in theirs.items() if key not in ours),
    )


def _some(runs: Sequence[FinishedRun]) -> str:
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return "; ".join(map(str, runs[:3])) + more
