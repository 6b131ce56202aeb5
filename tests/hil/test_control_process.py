"""The controller in a process of its own: killed, stopped, starved; and by the wall clock."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from controller.errors import ScenarioError
from controller.historian.reader import open_reader
from hil.bundle import open_bundle, reproduced, write_bundle
from hil.runner import VERDICT_FILE, Run, run_scenario
from hil.scenario import load_scenario
from hil.scenario.parts import Scenario

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"

KILL = {"at": "100 s", "until": "160 s", "target": "controller", "type": "kill"}
TWICE = [{**KILL, "until": "100.3 s"}, {**KILL, "at": "100.6 s"}]
PAUSE = {"at": "260 s", "until": "340 s", "target": "controller", "type": "pause"}
DISK = {"at": "100 s", "until": "160 s", "target": "controller", "type": "disk_full"}
CLOCK = {
    "at": "260 s",
    "until": "300 s",
    "target": "controller",
    "type": "clock_step",
    "args": {"step_s": 900},
}


def _scenario(*faults: object) -> Scenario:
    commands = [
        {"at": "0 s", "kind": "mode", "text": "auto"},
        {"at": "100 s", "kind": "setpoint", "target": "cB", "value": 1.05},
        {"at": "6 min", "kind": "rearm"},
    ]
    changes = {"duration": "7 min", "faults": list(faults), "commands": commands}
    return load_scenario(SCENARIOS / "lost-controller.yaml", changes)


def _decided(run: Run) -> list[int]:
    """How many records of each start are in the journal."""
    with open_reader(run.directory) as reader:
        return [
            sum(row.record is not None for row in reader.cycles(segment.segment))
            for segment in reader.segments()
        ]


def _assert_repeated(run: Run, scenario: Scenario, folder: Path) -> None:
    """Its bundle, run elsewhere, decides the same from the first cycle to the last."""
    packed = write_bundle(folder / "x.loopwright.zip", scenario, run.directory, ["wanted"])
    with open_bundle(packed) as bundle:
        twin = run_scenario(load_scenario(bundle.scenario), folder / "twin", check_replay=False)
        assert reproduced(bundle, twin.directory).outcome == "passed"
    assert twin.history.texts == run.history.texts


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_scenario(_scenario(*TWICE, PAUSE), tmp_path_factory.mktemp("killed") / "data")


def _always_good(run: Run) -> None:
    kpis = run.verdict.kpis
    assert kpis["unsafe_writes"] == 0
    assert kpis["invariant_violations"] == 0
    assert run.replayed is not None
    assert run.replayed.passed
    assert run.history.texts["mode"][-1] == "ACTIVE"


def test_a_killed_controller_comes_back_and_takes_over_anew(killed: Run) -> None:
    _always_good(killed)
    assert killed.verdict.kpis["control_starts"] == 2
    times = killed.history.columns["time_s"]
    assert not [t for t in times if 100 < t < 160]  # dead men decide nothing
    after = [m for t, m in zip(times, killed.history.texts["mode"], strict=True) if t >= 160]
    assert after[:5] == ["INIT", "INIT", "INIT", "READY", "ACTIVE"]
    verdict = json.loads((killed.directory / VERDICT_FILE).read_text(encoding="utf-8"))
    assert verdict["control_endings"] == ["100 s: it was killed"]
    # 0 … 90 s, all of them though it could not say goodbye; then everything that was told, and the
    # hand-back at the end.
    assert _decided(killed) == [10, len(after) + 1]


def test_a_bundle_with_a_kill_and_a_pause_repeats_them(killed: Run, tmp_path: Path) -> None:
    _assert_repeated(killed, _scenario(*TWICE, PAUSE), tmp_path)
    assert not list(killed.directory.glob("scratch-*"))


def test_the_plc_takes_its_loops_back_from_a_controller_that_stands_still(killed: Run) -> None:
    # Two PLCs, two silences of more than three cycles.
    assert killed.verdict.kpis["watchdog_trips"] == 4
    times = killed.history.columns["time_s"]
    assert not [t for t in times if 270 < t < 340]
    skipped = killed.history.columns["skipped"]
    assert max(skipped) == pytest.approx(7, abs=1)
    assert killed.verdict.kpis["late_writes"] >= 1  # what was decided too late is not written


def test_a_full_disk_hands_back_and_the_service_starts_again(tmp_path: Path) -> None:
    scenario = _scenario(DISK, CLOCK)
    run = run_scenario(scenario, tmp_path / "data")
    _always_good(run)
    assert run.verdict.kpis["control_starts"] == 2
    # It gave up with the word of an error, and by itself, before anybody restarted it.
    assert run.verdict.kpis["control_endings"] == 1
    assert run.verdict.kpis["watchdog_trips"] == 0
    # The wall clock jumps by 15 min and back; the history keeps the true time.
    assert max(run.history.columns["time_s"]) < 420
    with open_reader(run.directory) as reader:
        last = reader.segments()[-1].segment
        stamps = [row.time_ns for row in reader.cycles(last)]
        doubts = [row for row in reader.cycles(last) if b"the clock moved" in (row.record or b"")]
    assert max(b - a for a, b in pairwise(stamps)) == 910 * 10**9
    assert len(doubts) == 2
    # The snapshot at 100 s holds a command, so it had to be kept before anything was done, and
    # could not; the command waited for the next start.
    assert _decided(run)[0] == 10
    times, wanted = run.history.columns["time_s"], run.history.columns["wanted.cB"]
    assert not [t for t in times if 90 < t < 160]
    assert wanted[times.index(200)] == pytest.approx(1.05)
    _assert_repeated(run, scenario, tmp_path)


def test_by_the_wall_clock_everything_holds_too(tmp_path: Path) -> None:
    changes = {
        "duration": "200 s",
        "clock.speed": 20,
        "faults": [{"at": "100 s", "until": "110 s", "target": "controller", "type": "pause"}],
    }
    scenario = load_scenario(SCENARIOS / "realtime.yaml", changes)
    run = run_scenario(scenario, tmp_path / "data")
    _always_good(run)
    assert run.verdict.kpis["control_starts"] == 1
    assert 15 <= len(run.history) <= 21
    assert run.verdict.kpis["active_share"] > 0.5
    # Lateness is that of a real machine: there is some, and it is told.
    assert all(late >= 0 for late in run.history.columns["lateness_ms"])
    assert any(late > 0 for late in run.history.columns["lateness_ms"])


def test_an_end_that_no_fault_explains_is_an_error(tmp_path: Path) -> None:
    changes = {
        "faults": [KILL],
        "solver_faults": [{"at": "0 s", "until": "1 min", "solver": "tree", "kind": "wrong"}],
    }
    scenario = load_scenario(SCENARIOS / "lost-controller.yaml", changes)
    with pytest.raises(ScenarioError, match=r"did not start.*no rung tree"):
        run_scenario(scenario, tmp_path / "data")


def test_host_faults_are_refused_where_there_is_no_process(tmp_path: Path) -> None:
    scenario = load_scenario(SCENARIOS / "lost-controller.yaml", {"faults": [KILL]})
    with pytest.raises(ScenarioError, match=r"kill.*virtual"):
        run_scenario(scenario, tmp_path / "data", tier="virtual")
