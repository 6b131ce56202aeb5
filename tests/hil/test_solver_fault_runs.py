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
