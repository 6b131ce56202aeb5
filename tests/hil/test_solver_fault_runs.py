"""A run with solver faults: the replay that knows of them agrees, one that does not tells where."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.app import application_of
from controller.historian.reader import open_reader
from controller.replay import Replay
from hil.runner import Run, run_scenario
from hil.scenario import load_scenario

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
# Of every-rung: the compiled rung fails from cycle 36 on, in four ways.
DURATION_S, FIRST_FAULTY = 480.0, 36


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    scenario = load_scenario(SCENARIOS / "every-rung.yaml")
    directory = tmp_path_factory.mktemp("run") / "data"
    return run_scenario(scenario, directory, tier="virtual", duration_s=DURATION_S)


def test_the_replay_of_the_verdict_raises_the_same_faults(run: Run) -> None:
    rungs = run.history.texts["rung"]
    assert run.verdict.kpis["rung_sqp"] == len(rungs) - 1 - FIRST_FAULTY
    assert {rungs[k] for k in range(FIRST_FAULTY, len(rungs) - 1)} == {"sqp"}
    assert run.history.texts["faults"][FIRST_FAULTY] == "infeasible rti"
    assert run.replayed is not None
    assert run.replayed.differences == ()
    assert run.replayed.identical == run.replayed.cycles == len(run.history)


def test_a_replay_without_them_differs_from_the_first_faulty_cycle_on(run: Run) -> None:
    with open_reader(run.directory) as reader:
        replay = Replay(reader, lambda segment: application_of(segment, run.directory))
        for _ in replay.advance():
            pass
        told = [event.body["text"] for event in reader.events(kinds=("scenario",))]
    outcome = replay.outcome
    assert not outcome.passed
    assert outcome.differences[0].cycle == FIRST_FAULTY
    assert "plan" in outcome.differences[0].fields
    assert outcome.identical >= FIRST_FAULTY
    assert len(told) == 1
    assert told[0].startswith("solver faults are injected into this run: rti infeasible 360 s")


def test_solver_faults_keep_the_true_time_while_the_clock_of_the_controller_is_wrong(
    tmp_path: Path,
) -> None:
    step = {"target": "controller", "type": "clock_step", "args": {"step_s": 100}}
    changes = {
        "duration": "4 min",
        "commands[1].at": "210 s",
        # The controller's own clock says 160 s where it is 60 s, and 190 s at 190 s and at 200 s.
        "faults": [
            {**step, "at": "45 s", "until": "105 s"},
            {**step, "at": "195 s", "until": "225 s", "args": {"step_s": -10}},
        ],
        "solver_faults": [
            {"at": "60 s", "until": "80 s", "solver": "rti", "kind": "exception"},
            {"at": "185 s", "until": "195 s", "solver": "rti", "kind": "exception"},
        ],
    }
    scenario = load_scenario(SCENARIOS / "lost-controller.yaml", changes)
    run = run_scenario(scenario, tmp_path / "data")
    times = run.history.columns["time_s"]
    below = [t for t, r in zip(times, run.history.texts["rung"], strict=True) if r == "sqp"]
    told = [t for t, f in zip(times, run.history.texts["faults"], strict=True) if "rti" in f]
    assert below == [60.0, 70.0, 190.0] == told
    assert run.replayed is not None
    assert run.replayed.passed, run.replayed.differences
    with open_reader(run.directory) as reader:
        bodies = [event.body for event in reader.events(kinds=("scenario",))]
    offsets_s = [body["offset_ns"] / 1e9 for body in bodies if "offset_ns" in body]
    assert offsets_s == [100.0, 0.0, -10.0, 0.0]
