"""Scenario files as tests of pytest: collection, verdict in words, properties, markers, xdist."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

from controller.app import build_application
from controller.cycle.application import Application
from hil import runner
from hil.scenario import Scenario

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
_run_scenario = runner.run_scenario

SCENARIO = """
scenario: 1
id: {id}
title: {title}
tags: [{tags}]
requirements: [REQ-12]
application: {application}
tier: {tier}
duration: {duration}
seed: 3
plant: {{ref: "{plant}"}}
plc:
  scan: 1 s
  loops:
    F: {{measures: F, drives: F_demand, pv: F.PV, output: F.OUT, gain: 0.5, reset: 6 s, output_range: [0, 40], setpoint_range: [5 1/h, 35 1/h], setpoint_rate: 20 1/h/min, start: 14.19 1/h}}
    Q: {{measures: Q, drives: Q_demand, pv: Q.PV, output: Q.OUT, gain: 0.5, reset: 15 s, output_range: [-9000, 0], setpoint_range: [-9000 kJ/h, 0 kJ/h], setpoint_rate: 6000 kJ/h/min, start: -1113.5 kJ/h}}
  indicators: {{T.PV: T, TK.PV: TK, CB.PV: cB}}
commands: [{{at: 0 s, kind: mode, text: auto}}]
assertions:
  - {{kpi: active_share, low: {active_low}}}
  - {{kpi: sheds, high: 0}}
  - {{kpi: active_share, high: 0.01, severity: warn}}
{more}
"""  # noqa: E501


def scenario(folder: Path, name: str, **changes: str) -> Path:
    """A reactor for two minutes, in a file of its own."""
    values = {
        "id": name,
        "title": "A reactor for two minutes",
        "tags": "smoke",
        "application": str(ROOT / "config" / "cstr" / "cstr.yaml"),
        "tier": "virtual",
        "duration": "2 min",
        "plant": "plant_models.van_de_vusse:actuated_plant",
        "active_low": "0.1",
        "more": "",
        **changes,
    }
    path = folder / f"{name}.hil.yaml"
    path.write_text(SCENARIO.format(**values), encoding="utf-8")
    return path


@pytest.fixture(name="plugin")
def _plugin() -> list[str]:
    """How a run comes by the plugin: by its entry point, where that is installed."""
    installed = {point.value for point in entry_points(group="pytest11")}
    return [] if "hil.pytest_plugin" in installed else ["-p", "hil.pytest_plugin"]


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture(scope="module", name="built")
def _built() -> dict[str, Application]:
    return {}


@pytest.fixture(name="quick")
def _quick(monkeypatch: pytest.MonkeyPatch, built: dict[str, Application]) -> None:
    """The reactor's controller is built once and its runs are not replayed, to save the time."""

    def run(scenario: Scenario, directory: Path) -> runner.Run:
        if not built:
            built["reactor"] = build_application(scenario.settings, 1)
        return _run_scenario(scenario, directory, check_replay=False, application=built["reactor"])

    monkeypatch.setattr(runner, "run_scenario", run)


def properties(junit: Path, name: str) -> list[tuple[str, str]]:
    (case,) = (c for c in ElementTree.parse(junit).iter("testcase") if c.get("name") == name)
    return [(p.attrib["name"], p.attrib["value"]) for p in case.iter("property")]


@pytest.mark.usefixtures("quick")
def test_passing_failing_and_broken_scenarios(
    pytester: pytest.Pytester, plugin: list[str], tmp_path: Path
) -> None:
    folder = pytester.path
    scenario(folder, "good", tags="smoke, skip, timeout, odd (tag)", more="matrix: {seed: [1, 2]}")
    scenario(folder, "bad", active_low="0.99")
    no_rung = "{at: 0 s, until: 1 min, solver: condensed, kind: cap}"
    scenario(folder, "broken", more=f"solver_faults: [{no_rung}]")
    (folder / "plain.yaml").write_text("not: a scenario\n")
    result = pytester.runpytest_inprocess(*plugin, "--strict-markers", "--junit-xml", "out.xml")
    result.assert_outcomes(passed=2, failed=2)
    text = result.stdout.str()
    # The verdict in words, without a traceback.
    assert re.search(r"active_share = 0\.\d+, wanted ≥ 0\.99: failed", text)
    assert re.search(r"active_share = 0\.\d+, wanted ≤ 0\.01: failed, which is a warning", text)
    assert re.search(r"1 of \d checks did not pass \(tier virtual, seed 3\)", text)
    assert "broken broke: " in text
    assert "no rung condensed" in text
    assert "Traceback" not in text
    assert "pytest_plugin.py" not in text
    # Only what failed is kept, with a bundle that runs again. Where CI is set, pytest's summary
    # repeats each failure whole.
    (data,) = {Path(found) for found in re.findall(r"data: +(\S+-bad-\S+)", text)}
    assert (data / "verdict.json").is_file()
    (bundle,) = {Path(found) for found in re.findall(r"again: +loopwright hil run (\S+)", text)}
    assert bundle.is_file()
    assert {p.name for p in (tmp_path / "temporary").iterdir()} >= {data.name, bundle.name}
    assert not [p for p in (tmp_path / "temporary").iterdir() if "-good-" in p.name]
    told = properties(folder / "out.xml", "good-seed2")
    facts = dict(told)
    assert facts["seed"] == "2"
    assert facts["tier"] == "virtual"
    assert facts["requirement"] == "REQ-12"
    assert float(facts["kpi.active_share"]) > 0.1
    assert facts["kpi.unsafe_writes"] == "0.0"
    assert [value for name, value in told if name == "tag"] == [
        "smoke", "skip", "timeout", "odd (tag)",
    ]  # fmt: skip
    assert "kpi.active_share" in dict(properties(folder / "out.xml", "bad"))


@pytest.mark.parametrize("seed", ["-1", str(10**30), "one"])
def test_a_seed_that_is_none_is_refused(
    pytester: pytest.Pytester, plugin: list[str], seed: str
) -> None:
    scenario(pytester.path, "good")
    result = pytester.runpytest_inprocess(*plugin, f"--hil-seed={seed}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "whole numbers from 0 to 2147483647" in result.stderr.str()


@pytest.mark.usefixtures("quick")
def test_tier_and_seed_are_taken_from_the_command_line(
    pytester: pytest.Pytester, plugin: list[str]
) -> None:
    scenario(pytester.path, "good", tier="wire", more="matrix: {seed: [1, 2]}")
    options = ("--hil-seed", "9", "--hil-tier", "virtual", "--hil-out", "kept")
    result = pytester.runpytest_inprocess(*plugin, *options, "--junit-xml=o.xml")
    result.assert_outcomes(passed=1)  # the matrix over seeds has nothing left to vary
    facts = dict(properties(pytester.path / "o.xml", "good"))
    assert (facts["seed"], facts["tier"]) == ("9", "virtual")
    assert (pytester.path / "kept" / "good" / "verdict.json").is_file()


@pytest.mark.usefixtures("quick")
def test_what_the_tier_that_is_asked_for_cannot_run_is_skipped(
    pytester: pytest.Pytester, plugin: list[str]
) -> None:
    scenario(pytester.path, "good")
    kill = "faults: [{at: 60 s, until: 90 s, target: controller, type: kill}]"
    scenario(pytester.path, "host", tier="wire", more=kill)
    result = pytester.runpytest_inprocess(*plugin, "--hil-tier", "virtual", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*host.hil.yaml*kill means nothing in the virtual tier*"])


def test_selection_by_marker_and_word(pytester: pytest.Pytester, plugin: list[str]) -> None:
    folder = pytester.path
    scenario(folder, "one", tags="smoke")
    scenario(folder, "two", tags="nightly")
    pytester.makepyfile("def test_other(): pass")
    listing = ("--collect-only", "-q", "--strict-markers")
    for words, found in (
        (("-m", "smoke"), {"one"}),
        (("-m", "not hil"), {"test_other"}),
        (("-k", "nightly or (REQ-12 and one)"), {"one", "two"}),
    ):
        result = pytester.runpytest_inprocess(*plugin, *listing, *words)
        nodes = [line for line in result.outlines if "::" in line]
        assert {node.split("::")[-1] for node in nodes} == found, words


def test_a_wrong_file_is_told_with_its_line(pytester: pytest.Pytester, plugin: list[str]) -> None:
    path = scenario(pytester.path, "odd", more="tempo: 3")
    line = path.read_text().splitlines().index("tempo: 3") + 1
    result = pytester.runpytest_inprocess(*plugin)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*odd.hil.yaml:{line}:1 tempo: unknown key*"])
    assert "Traceback" not in result.stdout.str()


GOLDEN = """
golden:
  file: golden/good.json
  signals: {y.cB: {abs: 0.001}}
"""


@pytest.mark.usefixtures("quick")
def test_a_golden_run_is_made_held_against_and_made_anew(
    pytester: pytest.Pytester, plugin: list[str]
) -> None:
    folder = pytester.path
    golden = folder / "golden" / "good.json"
    scenario(folder, "good", more=GOLDEN)
    result = pytester.runpytest_inprocess(*plugin)
    result.assert_outcomes(failed=1)  # there is none to be held against
    result = pytester.runpytest_inprocess(*plugin, "--hil-update-golden")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*golden runs*", "good.hil.yaml::good"])
    kept = golden.read_text()
    pytester.runpytest_inprocess(*plugin).assert_outcomes(passed=1)
    assert golden.read_text() == kept
    # A plant that reacts otherwise is noticed, and not made golden while the run itself fails.
    path = folder / "good.hil.yaml"
    slower = path.read_text().replace('_plant"}', '_plant", arguments: {k10: 1.1e+12}}')
    path.write_text(slower)
    result = pytester.runpytest_inprocess(*plugin)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*golden y.cB*failed*"])
    path.write_text(slower.replace("low: 0.1", "low: 0.99"))
    result = pytester.runpytest_inprocess(*plugin, "--hil-update-golden")
    result.assert_outcomes(failed=1)
    assert golden.read_text() == kept


STAND_IN = """
import sys
from types import ModuleType, SimpleNamespace as Made

def in_tier(path, changes, tier):
    rest = {"id": "good", "name": "good", "title": "", "tier": "virtual", "golden": None}
    made = [Made(seed=n, tags=("smoke",), requirements=("REQ-12",), **rest) for n in (1, 2)]
    return made, []

def run_scenario(scenario, directory):
    (directory / "verdict.json").write_text("{}")
    kpis = {"iae.cB": 1.5, "seen": float("nan")}
    return Made(verdict=Made(checks=(), kpis=kpis, version="0"), directory=directory)

for name, function in (("hil.scenario", in_tier), ("hil.runner", run_scenario)):
    sys.modules[name] = ModuleType(name)
    setattr(sys.modules[name], function.__name__, function)
"""
"""Scenarios and runs that take no time: how work is shared does not depend on what it is."""


def test_workers_of_xdist_share_the_work_and_no_directory(
    pytester: pytest.Pytester, plugin: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(STAND_IN)
    (pytester.path / "good.hil.yaml").touch()
    result = pytester.runpytest_subprocess(
        *plugin, "-n", "2", "--hil-out", "kept", "--junit-xml=o.xml"
    )
    result.assert_outcomes(passed=2)
    kept = sorted(p.name for p in (pytester.path / "kept").iterdir())
    assert kept == ["good-seed1", "good-seed2"]
    facts = dict(properties(pytester.path / "o.xml", "good-seed1"))
    assert (facts["seed"], facts["kpi.iae.cB"]) == ("1", "1.5")
    assert facts["kpi.seen"] == "not measured"


def test_the_plugin_costs_other_projects_nothing() -> None:
    """Every pytest run in the environment imports it: none of Loopwright may come along."""
    code = (
        "import hil.pytest_plugin, sys\n"
        "heavy = {'numpy', 'casadi', 'pydantic', 'controller', 'plant_models', 'hil.scenario'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
