"""Scenarios as tests: pytest collects `*.hil.yaml` files and runs every variant of each.

    pytest plant/ --hil-tier virtual --junit-xml out.xml

This module is loaded by every pytest run where Loopwright is installed, so it imports the rest of
Loopwright only once there is a scenario to collect.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hil.seeds import seed_of

if TYPE_CHECKING:
    from hil.judge.verdict import Check
    from hil.runner import Run
    from hil.scenario import Scenario

SUFFIXES = (".hil.yaml", ".hil.yml")
TIERS = ("virtual", "wire", "realtime")
MARKER = "hil"

_GOLDEN = "golden"
# What `pytest -m` can name, and what a line of the marker list can hold.
_MARKABLE = re.compile(r"[A-Za-z][\w.+/-]*")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("loopwright", "scenarios of Loopwright (*.hil.yaml)")
    group.addoption("--hil-tier", choices=TIERS, help="tier, instead of each scenario's own")
    group.addoption("--hil-seed", type=seed_of, help="seed, instead of each scenario's own")
    group.addoption(
        "--hil-update-golden", action="store_true", help="make these runs the golden ones"
    )
    group.addoption(
        "--hil-out",
        type=Path,
        help="keep the data of every run here (default: those of failed runs, in a temporary "
        "directory)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: a scenario run by Loopwright's harness")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name.endswith(SUFFIXES):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What became of golden runs; reports carry it, so that it also comes from xdist's workers."""
    reports = [r for group in ("passed", "failed") for r in terminalreporter.getreports(group)]
    told = [
        (report.nodeid, text)
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name == _GOLDEN and report.when == "call"
    ]
    if told:
        terminalreporter.section("golden runs")
        for node, text in told:
            terminalreporter.line(f"{node}\n{text}")


class ScenarioFile(pytest.File):
    """A scenario file: one test for each variant of its matrix."""

    def collect(self) -> Iterable[ScenarioItem]:
        """Read the file; what is wrong in it is told with its line."""
        from controller.errors import LoopwrightError
        from hil.scenario import in_tier

        seed: int | None = self.config.option.hil_seed
        changes = {} if seed is None else {"seed": seed}
        try:
            fit, left_out = in_tier(self.path, changes, self.config.option.hil_tier)
        except LoopwrightError as error:
            raise self.CollectError(str(error)) from error
        reasons = {id(one.scenario): one.reason for one in left_out}
        scenarios = [*fit, *(one.scenario for one in left_out)]
        several = Counter(scenario.name for scenario in scenarios)
        for scenario in scenarios:
            which = f"-seed{scenario.seed}" if several[scenario.name] > 1 else ""
            item = ScenarioItem.from_parent(self, name=scenario.name + which, scenario=scenario)
            if id(scenario) in reasons:
                item.add_marker(pytest.mark.skip(reason=reasons[id(scenario)]))
            yield item


class VerdictFailed(Exception):
    """The run was judged, and did not pass; the text is for people."""


class ScenarioItem(pytest.Item):
    """One variant of a scenario; passes if its verdict does."""

    def __init__(self, *, scenario: Scenario, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.scenario = scenario
        self.directory: Path | None = None
        facts = {
            "scenario": scenario.id,
            "title": scenario.title,
            "tier": scenario.tier,
            "seed": str(scenario.seed),
        }
        self.user_properties += list(facts.items())
        self.user_properties += [("requirement", name) for name in scenario.requirements]
        self.user_properties += [("tag", name) for name in scenario.tags]
        self.extra_keyword_matches.update(scenario.tags, scenario.requirements)
        for name in (MARKER, *_marking(scenario.tags, self.config)):
            self.add_marker(name)

    def runtest(self) -> None:
        """Run and judge.

        Raises:
            VerdictFailed: with every check in words, and where the data lie.
            LoopwrightError: the scenario cannot be run, or broke.
        """
        from hil.runner import run_scenario

        self.directory = _directory(self.config, self.name)
        renews = self.config.option.hil_update_golden
        # What the old golden run says is no matter where it is about to be replaced.
        asked = replace(self.scenario, golden=None) if renews else self.scenario
        run = run_scenario(asked, self.directory)
        for kpi, value in run.verdict.kpis.items():
            told = value if isfinite(value) else "not measured"
            self.user_properties.append((f"kpi.{kpi}", told))
        self.user_properties.append(("version", run.verdict.version))
        wrong = [check for check in run.verdict.checks if check.outcome != "passed"]
        if renews:
            if any(check.severity == "fail" for check in wrong):
                told = "not updated: this run is no example"
            else:
                from hil.judge.judgement import update_golden

                told = update_golden(self.scenario, run.history, run.verdict.kpis)
            if self.scenario.golden is not None:
                self.user_properties.append((_GOLDEN, told))
        warned = [str(check) for check in wrong if check.severity == "warn"]
        if warned:
            self.add_report_section("call", "warnings", "\n".join(warned))
        if any(check.severity == "fail" for check in wrong):
            raise VerdictFailed(self._failure(run, wrong))
        if self.config.option.hil_out is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _failure(self, run: Run, wrong: Sequence[Check]) -> str:
        scenario, checks = self.scenario, run.verdict.checks
        broken = [check for check in wrong if check.severity == "fail"]
        lines = [
            f"{scenario.name}: {scenario.title}",
            f"{len(broken)} of {len(checks)} checks did not pass "
            f"(tier {scenario.tier}, seed {scenario.seed}):",
            *(f"  {check}" for check in broken),
            *(f"  {check}, which is a warning only" for check in wrong if check not in broken),
            f"data:   {run.directory}",
            *_bundled(scenario, run.directory, broken),
        ]
        return "\n".join(lines)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Words for what a control engineer can mend, a traceback for the rest."""
        from controller.errors import LoopwrightError

        if isinstance(excinfo.value, VerdictFailed):
            return str(excinfo.value)
        if isinstance(excinfo.value, LoopwrightError):
            return f"{self.scenario.name} broke: {excinfo.value}\ndata:   {self.directory}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands; pytest wants a line, counted from 0."""
        return self.path, 0, f"scenario {self.name}"


def _bundled(scenario: Scenario, directory: Path, wrong: Sequence[Check]) -> list[str]:
    """Pack the failed run, and say with which command it runs again."""
    from controller.errors import LoopwrightError
    from hil.bundle import SUFFIX, write_bundle

    path = directory.with_name(directory.name + SUFFIX)
    try:
        bundle = write_bundle(path, scenario, directory, [str(check) for check in wrong])
    except LoopwrightError as error:
        return [f"bundle: not written, {error}"]
    return [f"bundle: {bundle}", f"again:  loopwright hil run {bundle}"]


def _directory(config: pytest.Config, name: str) -> Path:
    """A fresh directory that no other process has, also under xdist."""
    slug = re.sub(r"[^\w.=,+-]+", "-", name).strip("-")
    out: Path | None = config.option.hil_out
    if out is None:
        return Path(tempfile.mkdtemp(prefix=f"loopwright-{slug}-"))
    # Relative to where pytest was started, wherever a test has gone since.
    out = config.invocation_params.dir / out
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        directory = out / (slug if number == 1 else f"{slug}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            number += 1
        else:
            return directory


def _marking(tags: Iterable[str], config: pytest.Config) -> list[str]:
    """Tags that can be markers; each is registered, as --strict-markers wants it.

    A tag called like a marker that takes arguments (skip, timeout, parametrize) is a word only.
    """
    lines: list[str] = config.getini("markers")
    called = {line.split("(")[0].strip() for line in lines if "(" in line.split(":")[0]}
    known = {re.split(r"[:(]", line)[0].strip() for line in lines}
    chosen = [tag for tag in tags if _MARKABLE.fullmatch(tag) and tag not in called]
    for tag in chosen:
        if tag not in known:
            config.addinivalue_line("markers", f"{tag}: scenarios with this tag")
    return chosen
