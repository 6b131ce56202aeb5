"""Which runs a suite has: every variant of every scenario that is named, and where each writes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from controller.errors import ScenarioError
from hil.bundle import SUFFIX, Bundle, open_bundle
from hil.judge.judgement import check_golden
from hil.scenario import LeftOut, Scenario, Tier, in_tier


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for.

    Attributes:
        paths: scenario files, directories of them, or one bundle.
        tier, seeds: instead of the scenarios' own; None and () leave them.
        tag: only scenarios that have it; "" takes all.
        html: directory for the pages; None writes none.
    """

    paths: tuple[Path, ...]
    out: Path
    tier: Tier | None = None
    seeds: tuple[int, ...] = ()
    tag: str = ""
    html: Path | None = None
    update_golden: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One run, as it can be told to another process."""

    path: str
    changes: Mapping[str, object]
    variant: str
    directory: str
    html: str
    update_golden: bool
    bundle: Bundle | None

    @property
    def name(self) -> str:
        return Path(self.directory).name


@dataclass(frozen=True, slots=True)
class Suite:
    """Every run that is asked for, and what the tier that is asked for cannot run."""

    jobs: Sequence[Job]
    left_out: Sequence[LeftOut]


def suite_of(asked: Asked, stack: ExitStack) -> Suite:
    """Every run that is asked for, its directory made.

    Args:
        stack: keeps the files of a bundle until it is closed.

    Raises:
        ScenarioError: there is nothing to run, or two could not be told apart; a file is wrong; a
            directory cannot be made.
        SettingsError: an application's file is wrong.
    """
    scenarios, left_out, bundle = _chosen(asked, stack)
    if asked.update_golden:
        _check_golden_files(scenarios)
    else:
        for scenario in scenarios:
            check_golden(scenario)
    html = ""
    if asked.html is not None:
        make_directory(asked.html)
        html = str(asked.html)
    jobs: list[Job] = []
    for scenario, name in zip(scenarios, _names(scenarios), strict=True):
        directory = _fresh(asked.out / name)
        make_directory(directory)
        jobs.append(
            Job(
                str(scenario.path),
                dict(scenario.changes),
                scenario.variant,
                str(directory),
                html,
                asked.update_golden,
                bundle,
            )
        )
    return Suite(jobs, left_out)


def _chosen(asked: Asked, stack: ExitStack) -> tuple[list[Scenario], list[LeftOut], Bundle | None]:
    """Every variant of every scenario that is meant, and those that the tier leaves out; the
    bundle, where one is to be run again."""
    paths = list(asked.paths)
    bundle: Bundle | None = None
    changes: dict[str, object] = {}
    if any(path.name.endswith(SUFFIX) for path in paths):
        if len(paths) > 1:
            raise ScenarioError(
                "a bundle is run by itself",
                where=", ".join(map(str, paths)),
                mend="Name the bundle only",
            )
        bundle = stack.enter_context(open_bundle(paths[0]))
        paths = [bundle.scenario]
        changes = {"tier": bundle.index.tier, "seed": bundle.index.seed}
    fit: list[Scenario] = []
    left_out: list[LeftOut] = []
    for path in _files(paths):
        for seed in asked.seeds or (None,):
            own = changes if seed is None else {**changes, "seed": seed}
            some, others = in_tier(path, own, asked.tier)
            fit += some
            left_out += others
    found = [*fit, *(one.scenario for one in left_out)]
    _check_apart(found)

    def tagged(scenario: Scenario) -> bool:
        return not asked.tag or asked.tag in scenario.tags

    if not any(map(tagged, found)):
        tags = ", ".join(sorted({tag for s in found for tag in s.tags}))
        what = f"no scenario has the tag {asked.tag}" if found else "no scenario to run"
        raise ScenarioError(
            what,
            where=", ".join(map(str, asked.paths)),
            mend=f"The tags there are: {tags or 'none'}"
            if found
            else "Name scenario files, or a directory that holds some",
        )
    runs = [s for s in fit if tagged(s)]
    left_out = [one for one in left_out if tagged(one.scenario)]
    if not runs:
        raise ScenarioError(
            "there is nothing left to run",
            where=f"--tier {asked.tier}",
            mend="\n".join(one.reason for one in left_out),
        )
    return runs, left_out, bundle


def _check_apart(scenarios: Sequence[Scenario]) -> None:
    count = Counter((s.name, s.seed, s.tier) for s in scenarios)
    twice = sorted({s.name for s in scenarios if count[s.name, s.seed, s.tier] > 1})
    if not twice:
        return
    files = sorted({str(s.path) for s in scenarios if s.name in twice})
    alone = len(files) == 1
    raise ScenarioError(
        f"{', '.join(twice)} would run twice"
        if alone
        else f"several scenarios have the id {', '.join(twice)}",
        where=", ".join(files),
        mend="Name the file once" if alone else "Give each an id of its own",
    )


def _files(named: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        else:
            found.append(path)
    return found


def _check_golden_files(scenarios: Sequence[Scenario]) -> None:
    """Of several runs only one can be the golden one."""
    count = Counter(s.golden.file for s in scenarios if s.golden is not None)
    for file, runs in count.items():
        if runs > 1:
            raise ScenarioError(
                f"{runs} runs would be written to the same golden file",
                where=str(file),
                mend="Update it with one seed, one tier and one variant of the matrix",
            )


def _names(scenarios: Sequence[Scenario]) -> list[str]:
    """A name for the directory of each; seed and tier are told where they tell runs apart."""
    several = Counter(s.name for s in scenarios)
    tiers = Counter((s.name, s.seed) for s in scenarios)
    names: list[str] = []
    for s in scenarios:
        name = s.name
        if several[s.name] > 1:
            name += f"-seed{s.seed}"
        if tiers[s.name, s.seed] > 1:
            name += f"-{s.tier}"
        names.append(re.sub(r"[^\w.=,+-]+", "-", name).strip("-"))
    return names


def make_directory(directory: Path) -> None:
    """Make a directory and those above it.

    Raises:
        ScenarioError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(
            f"the directory cannot be made: {error.strerror}",
            where=str(directory),
            mend="Name a place that can be written",
        ) from error


def _fresh(directory: Path) -> Path:
    """The directory, or the first numbered one beside it that does not exist: nothing is lost."""
    candidate, number = directory, 1
    while candidate.exists():
        number += 1
        candidate = directory.with_name(f"{directory.name}-{number}")
    return candidate
