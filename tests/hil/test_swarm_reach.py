"""How far the swarm reaches: every application, every fault in every mode, what operators ask."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from controller.cycle.mode import Mode
from controller.signal import CommandKind
from hil.control.clocks import PipeClock, SleepRequest, TimeAnswer
from hil.faults.schedule import Fault
from hil.history import History
from hil.runner import run_scenario
from hil.scenario.parts import Profile
from hil.swarm.aims import KINDS_AT_ONCE, Turn, aim_of, aimed_faults, approach
from hil.swarm.commands import SCENARIOS
from hil.swarm.commands import swarm as verb
from hil.swarm.coverage import begun, swarm_coverage
from hil.swarm.draw import draw_fault, fault_choices
from hil.swarm.episode import Episode, draw_episode, staged
from hil.swarm.operators import draw_commands
from hil.swarm.recovery import unrecovered
from hil.swarm.run import Ground, Swarm, make_ground, run_episode
from hil.swarm.written import written
from plant_models import wood_berry
from plant_models.process import nominal

CONFIG = Path(__file__).parents[2] / "config"
FIRST = Turn(0, 0)


@pytest.fixture(scope="module")
def grounds() -> dict[str, Ground]:
    """One of each application that ships."""
    made = [make_ground(str(CONFIG / name), "virtual") for name in SCENARIOS]
    return {ground.scenario.id: ground for ground in made}


@pytest.fixture(scope="module")
def reactor(grounds: dict[str, Ground]) -> Ground:
    return grounds["cstr-setpoint"]


def _bare(ground: Ground, cycles: int, quiet: int) -> Episode:
    drawn = draw_episode(ground.scenario, ground.stage, 1, 1, FIRST, cycles, quiet)
    return replace(drawn, mismatch={}, noise=1.0, labs={}, commands=(), faults=(), solver_faults=())


# --- grounds -------------------------------------------------------------------------------------


def test_every_application_that_ships_has_its_turn_as_often_as_the_others() -> None:
    applications = {path.parent.name for path in CONFIG.glob("*/*.yaml")} & {
        "cstr",
        "wood_berry",
        "williams_otto",
    }
    assert len(SCENARIOS) == len(applications) == 3
    swarm = Swarm(SCENARIOS, 400 * 30, 8)
    turns = [swarm.turn(number) for number in range(30)]
    for lap in range(10):
        assert {turn.ground for turn in turns[3 * lap : 3 * lap + 3]} == {0, 1, 2}
    assert len(set(turns)) == 30
    other = Swarm(SCENARIOS, 400 * 30, 9)
    assert [other.turn(number) for number in range(30)] != turns


def test_a_column_that_rests_at_pure_products_is_measured_as_pure() -> None:
    plant = wood_berry.plant()
    plant.reset(0)
    u = nominal(plant.inputs) + np.array([0.5, 0.6, 0.0])
    pure = [plant.advance(u, 60.0) for _ in range(200)][-1]
    assert pure[1] == 0.0
    u[:2] = nominal(plant.inputs)[:2] + np.array([0.5, 0.0])
    assert [plant.advance(u, 60.0) for _ in range(200)][-1][0] == 100.0


def test_a_column_that_was_shed_over_pure_comes_back(
    grounds: dict[str, Ground], tmp_path: Path
) -> None:
    ground = grounds["wood-berry"]
    cycle_s = ground.stage.cycle_s
    upset = Profile("F", 20 * cycle_s, 1.9, cycle_s)  # too much steam for so little feed
    lost = Fault(8 * cycle_s, 80 * cycle_s, "XB.PV", "nan")
    bare = replace(_bare(ground, 300, 210), faults=(lost,))
    scenario = replace(staged(ground.scenario, bare), profiles=(upset,))
    run = run_scenario(
        scenario, tmp_path / "run", check_replay=False, application=ground.application
    )
    at_rest = run.history.texts["mode"].index("SHED")
    assert run.history.column("y.XB")[at_rest:85].min() == 0.0
    rearmed = round(bare.quiet_s / cycle_s)
    assert set(run.history.texts["mode"][rearmed + 10 : -1]) == {"ACTIVE"}
    assert unrecovered(run.history, scenario.settings, bare.quiet_s) == ""


# --- pairs of fault and mode ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cstr-setpoint", "laboratory"])
def test_every_pair_of_fault_and_mode_is_aimed_at_in_so_many_turns(
    grounds: dict[str, Ground], name: str
) -> None:
    stage = grounds[name].stage
    known = fault_choices(stage)
    turns = len(Mode) * -(-len(known) // KINDS_AT_ONCE)
    aims = [aim_of(stage, 7, Turn(0, time)) for time in range(turns)]
    assert {(a.mode, k) for a in aims for k in a.kinds} == {(m, k) for m in Mode for k in known}
    assert [aim_of(stage, 8, Turn(0, time)) for time in range(turns)] != aims
    assert [aim_of(stage, 7, Turn(1, time)) for time in range(turns)] != aims


@pytest.mark.parametrize("mode", list(Mode))
def test_what_an_episode_aims_at_begins_in_its_mode(
    grounds: dict[str, Ground], mode: Mode, tmp_path: Path
) -> None:
    ground = grounds["wood-berry"]
    chance = np.random.default_rng(3)
    bare = _bare(ground, 90, 20)
    way = approach(chance, ground.scenario, ground.stage, mode, 0.0, bare.quiet_s)
    assert way is not None
    aim = replace(aim_of(ground.stage, 1, FIRST), mode=mode, kinds=("bias", "stuck", "delay"))
    faults = aimed_faults(chance, ground.stage, aim, way, bare.quiet_s)
    story = replace(bare, commands=way.commands, faults=faults)
    outcome = run_episode(ground, story, tmp_path / "run")
    assert outcome.violations == ()
    assert {kind for kind, where in outcome.begun if where == mode} >= set(aim.kinds)


def test_an_approach_that_does_not_fit_is_none(reactor: Ground) -> None:
    chance = np.random.default_rng(3)
    assert approach(chance, reactor.scenario, reactor.stage, Mode.SHED, 0.0, 200.0) is None


def test_a_fault_counts_for_the_mode_before_it(reactor: Ground) -> None:
    history = History()
    for cycle, mode in enumerate(("INIT", "INIT", "ACTIVE", "SHED")):
        history.append({"time_s": 10.0 * cycle}, {"mode": mode})
    faults = (
        Fault(0.0, 5.0, "T.PV", "nan"),
        Fault(20.0, 25.0, "T.PV", "nan"),
        Fault(21.0, 25.0, "TK.PV", "nan"),
    )
    counts = begun(replace(reactor.scenario, faults=faults), history)
    assert counts == {("nan", "OFF"): 1, ("nan", "INIT"): 1, ("nan", "ACTIVE"): 1}
    found = swarm_coverage([("a", counts, ("nan", "stuck")), ("b", counts, ("nan",))])
    assert found.count("nan", "INIT") == 2
    assert found.plain()["begun"]["b"] == {"nan": {"OFF": 1, "INIT": 1, "ACTIVE": 1}}
    assert found.plain()["never"]["INIT"] == ["stuck"]
    assert found.plain()["never"]["SHED"] == ["nan", "stuck"]
    assert str(found) == "faults begun by mode: 3 of 12 pairs"


def test_the_swarm_says_what_began_in_which_mode(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    parser = ArgumentParser()
    verb.configure(parser)
    words = [str(CONFIG / SCENARIOS[0]), "--cycles", "120", "--seed", "4", "--out", str(tmp_path)]
    assert verb.execute(parser.parse_args([*words, "--json"])) == 0
    said = json.loads(capsys.readouterr().out)["coverage"]
    assert set(said["begun"]) == {"cstr-setpoint"}
    assert "kill" not in said["never"]["ACTIVE"]  # not on offer in this tier
    assert verb.execute(parser.parse_args(words)) == 0
    assert "faults begun by mode" in capsys.readouterr().out


# --- operators -----------------------------------------------------------------------------------


def test_setpoints_are_drawn_over_all_that_can_be_reached(grounds: dict[str, Ground]) -> None:
    ground = grounds["wood-berry"]
    low, high = ground.stage.reach["XD"]
    assert (low, high) == (80.0, 100.0)
    commands = [
        c
        for seed in range(300)
        for c in draw_commands(np.random.default_rng(seed), ground.scenario, ground.stage, 3000.0)
    ]
    asked = [c.value for c in commands if c.target == "XD" and c.value is not None]
    assert all(low <= value <= high for value in asked)
    assert min(asked) < 82.0
    assert max(asked) > 98.5
    assert {c.kind for c in commands} == set(CommandKind)
    assert all(0.0 <= c.at_s < 3000.0 for c in commands)
    mvs = {mv.name: mv for mv in ground.scenario.settings.manipulated}
    mistakes = [
        c
        for c in commands
        if c.target in mvs
        and c.value is not None
        and not mvs[c.target].low <= c.value <= mvs[c.target].high
    ]
    assert mistakes


def test_some_setpoints_are_ramped(reactor: Ground) -> None:
    for seed in range(100):
        chance = np.random.default_rng(seed)
        commands = draw_commands(chance, reactor.scenario, reactor.stage, 2000.0)
        values = [c.value for c in commands if c.target == "cB" and c.value is not None]
        if len(values) > 4 and len(set(np.sign(np.diff(values)))) == 1:
            return
    raise AssertionError("no ramp is drawn")


def test_in_the_quiet_everything_is_asked_for_as_it_was(reactor: Ground) -> None:
    asked = [
        command
        for seed in range(60)
        for command in draw_commands(
            np.random.default_rng(seed), reactor.scenario, reactor.stage, 990.0
        )
    ]
    story = replace(_bare(reactor, 200, 100), commands=tuple(asked))
    late = [c for c in staged(reactor.scenario, story).commands if c.at_s >= story.quiet_s]
    said = {(c.kind, c.target): c.value for c in late}
    assert {(c.kind, c.target) for c in asked} <= set(said)
    assert said[CommandKind.SETPOINT, "cB"] == 0.95
    assert said[CommandKind.SETPOINT, "F"] == 14.19
    assert said[CommandKind.LIMIT_HIGH, "T"] == 125.0
    assert said[CommandKind.FORECAST, "T0"] is None


# --- laboratories --------------------------------------------------------------------------------


def test_laboratories_err_more_and_the_written_story_says_so(grounds: dict[str, Ground]) -> None:
    ground = grounds["laboratory"]
    usual = ground.stage.labs["assay"]
    drawn = [
        draw_episode(ground.scenario, ground.stage, 2, number, FIRST, 100, 50).labs["assay"]
        for number in range(20)
    ]
    assert max(lab.drop for lab in drawn) > 0.2
    assert max(lab.outlier for lab in drawn) > 0.1
    assert (
        min(lab.delay_s[1] for lab in drawn)
        < usual.delay_s[1]
        < max(lab.delay_s[1] for lab in drawn)
    )
    story = draw_episode(ground.scenario, ground.stage, 2, 3, FIRST, 100, 50)
    expected = staged(ground.scenario, story)
    assert expected.labs == (story.labs["assay"],)
    assert written(ground.scenario, story, "swarm-1", "range").labs == expected.labs


# --- the control process -------------------------------------------------------------------------


def test_after_faults_of_the_control_process_the_history_is_the_same_again(
    reactor: Ground, tmp_path: Path
) -> None:
    stage = replace(reactor.stage, tier="wire")
    over_sockets = replace(reactor, scenario=replace(reactor.scenario, tier="wire"), stage=stage)
    bare = _bare(reactor, 40, 20)
    faults: list[Fault] = []
    for kind in ("clock_step", "pause"):
        draw_fault(np.random.default_rng(5), stage, kind, 105.0, bare.quiet_s, faults)
    story = replace(bare, faults=tuple(faults))
    runs = [run_episode(over_sockets, story, tmp_path / str(n)) for n in range(2)]
    assert [run.violations for run in runs] == [(), ()]
    assert runs[0].history_hash == runs[1].history_hash
    assert {fault for fault, _ in runs[0].begun} == {"clock_step", "pause"}


def test_the_harness_has_heard_of_a_cycle_before_the_next_one_that_is_due_at_once() -> None:
    ours, theirs = Pipe()
    clock = PipeClock(theirs, 1_000, 0)
    ours.send(TimeAnswer(1_000, 0, False))
    clock.sleep_until(900)
    assert ours.poll()
    assert ours.recv() == SleepRequest(900)
    assert clock.monotonic_ns() == 1_000
