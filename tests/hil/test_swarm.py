"""The swarm: its draw, its hash, its way back, its shrinking, and the bundle it leaves."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

import controller.cycle.step as step_module
from controller.cycle.guard import Move, guard
from controller.errors import ProcessLost
from hil.bundle import history_hash, open_bundle, reproduced
from hil.faults.schedule import KINDS, TIERS_OF, Fault
from hil.history import History
from hil.invariants.judge import Invariant
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.swarm import commands as swarm_commands
from hil.swarm import run as swarm_run
from hil.swarm.aims import Turn
from hil.swarm.commands import swarm as verb
from hil.swarm.draw import (
    ARGUMENTS,
    REPRODUCIBLE_HOST_FAULTS,
    draw_faults,
    draw_solver_faults,
    fault_choices,
)
from hil.swarm.episode import Episode, cut, draw_episode, staged
from hil.swarm.recovery import STEADY_CYCLES, spec, unrecovered
from hil.swarm.run import (
    Ground,
    Outcome,
    Swarm,
    drawn,
    make_ground,
    run_episode,
    swarm_hash,
    swarm_outcomes,
)
from hil.swarm.shrink import shrunk, size
from hil.swarm.written import written

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
CSTR = str(SCENARIOS / "cstr-setpoint.yaml")
FIRST = Turn(0, 0)
LAB = str(SCENARIOS / "reactor-faults.yaml")


@pytest.fixture(scope="module")
def ground() -> Ground:
    return make_ground(CSTR, "virtual")


@pytest.fixture(scope="module")
def grounds(ground: Ground) -> tuple[Ground, ...]:
    """One with a laboratory too, and one over sockets."""
    wire = replace(ground, stage=replace(ground.stage, tier="wire"))
    return ground, make_ground(LAB, "virtual"), wire


def _execute(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    return verb.execute(parser.parse_args(words))


# --- what is drawn -------------------------------------------------------------------------------


def test_every_fault_type_that_leaves_a_history_the_same_can_be_drawn(
    grounds: Sequence[Ground],
) -> None:
    own = {name for name, kind in KINDS.items() if kind.lane != "host"} | REPRODUCIBLE_HOST_FAULTS
    assert set(ARGUMENTS) == own
    reachable = {name for ground in grounds for name in fault_choices(ground.stage)}
    assert reachable == own


def test_only_what_the_tier_supports_is_drawn(ground: Ground) -> None:
    assert all("virtual" in TIERS_OF[name] for name in fault_choices(ground.stage))


@profile(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), which=st.integers(0, 2))
def test_every_drawn_schedule_is_one_that_a_scenario_accepts(
    grounds: Sequence[Ground], seed: int, which: int
) -> None:
    ground, until_s = grounds[which], 2000.0
    chance = np.random.default_rng(seed)
    faults = draw_faults(chance, ground.stage, 6, until_s)
    solver_faults = draw_solver_faults(chance, ground.stage, 2, until_s)
    assert all(0.0 <= f.at_s < f.until_s <= until_s for f in (*faults, *solver_faults))
    _accepted(faults)


def _accepted(faults: Sequence[Fault]) -> None:
    from hil.faults.kinds import check_fault, check_overlaps, where_of

    for number, fault in enumerate(faults):
        check_fault(fault, where_of(number))
    check_overlaps(faults)


def test_gentle_parameters_are_gentler_where_the_plant_is_touchier(ground: Ground) -> None:
    gentle = ground.stage.gentle
    assert gentle["E1"] < 0.01  # an activation energy stands in an exponent
    assert gentle["k30"] == 0.05


def test_an_episode_depends_on_seed_and_number_alone(ground: Ground) -> None:
    def draw(seed: int, number: int) -> Episode:
        return draw_episode(ground.scenario, ground.stage, seed, number, FIRST, 200, 100)

    assert draw(3, 5) == draw(3, 5)
    assert len({repr(draw(s, n)) for s in range(3) for n in range(3)}) == 9


def test_the_quiet_is_quiet_and_asks_for_control_again(ground: Ground) -> None:
    episode = draw_episode(ground.scenario, ground.stage, 1, 1, FIRST, 200, 100)
    scenario = staged(ground.scenario, episode)
    faults = (*scenario.faults, *scenario.solver_faults)
    assert faults
    assert all(fault.until_s <= 1000.0 for fault in faults)
    late = [command for command in scenario.commands if command.at_s >= 1000.0]
    assert {str(command.kind) for command in late} >= {"mode", "rearm", "setpoint", "limit_low"}
    assert scenario.duration_s == 2000.0


# --- runs ----------------------------------------------------------------------------------------


def _outcomes(swarm: Swarm, jobs: int = 1) -> list[Outcome]:
    return [one for one in swarm_outcomes(swarm, jobs) if isinstance(one, Outcome)]


def test_the_lengths_of_the_episodes_add_up() -> None:
    for cycles in (60, 400, 401, 799, 800, 20_000):
        lengths = Swarm((CSTR,), cycles, 1).lengths
        assert sum(lengths) == cycles
        assert max(lengths) < 800


def test_the_same_seed_has_the_same_history_on_one_process_or_two() -> None:
    wanted = Swarm((CSTR,), 120, 11, episode=60)
    here, there = _outcomes(wanted), _outcomes(wanted, jobs=2)
    assert [replace(o, elapsed_s=0.0) for o in here] == [replace(o, elapsed_s=0.0) for o in there]
    assert [o.number for o in here] == [0, 1]
    assert swarm_hash(here) == swarm_hash(there)
    assert swarm_hash(here) != swarm_hash(here[::-1])


def test_a_sound_swarm_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (CSTR, "--cycles", "300", "--seed", "2", "--json", "--out", str(out))
    assert _execute(*words) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["cycles"], said["seed"]) == (300, 2)
    assert (said["violations"], said["unrecovered"], len(said["history_hash"])) == ([], [], 64)
    assert said["interrupted"] is False
    assert not out.exists()


@pytest.mark.parametrize("later", ["", "cB is 0 at the end"])
def test_what_is_not_back_in_time_is_watched_on(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    episode = drawn(Swarm((CSTR,), 60, 11), 0, ground)
    sound = run_episode(ground, episode, tmp_path / "run")
    lengths: list[int] = []

    def run_once(_: Ground, episode: Episode, directory: Path, **words: bool) -> Outcome:
        lengths.append(episode.cycles)
        return replace(sound, unrecovered=later if len(lengths) > 1 else "SHED at the end")

    monkeypatch.setattr(swarm_run, "_run_once", run_once)
    found = run_episode(ground, episode, tmp_path / "again")
    assert lengths == [60, 120]  # a quiet of 30 cycles, and of 90
    assert (found.unrecovered, found.slow, found.failed) == (later, not later, bool(later))
    assert found.history_hash == sound.history_hash


def test_ctrl_c_tells_what_there_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = _outcomes(Swarm((CSTR,), 120, 11, episode=60))

    def stopped(_: Swarm, jobs: int) -> Iterator[Outcome]:
        yield replace(outcomes[0], violations=("something bad",))
        raise KeyboardInterrupt

    monkeypatch.setattr(swarm_commands, "swarm_outcomes", stopped)
    words = ("--cycles", "120", "--seed", "11", "--episode", "60", "--out", str(tmp_path / "out"))
    assert _execute(CSTR, *words, "--json") == 130
    told = capsys.readouterr()
    said = json.loads(told.out)
    assert said["interrupted"] is True
    assert (said["cycles"], said["episodes"], len(said["violations"])) == (60, 1, 1)
    assert "interrupted after 1 of 2 episodes" in told.err
    assert not (tmp_path / "out").exists()  # nobody waits for it to shrink anything


def test_an_episode_whose_process_was_killed_is_told_beside_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = _outcomes(Swarm((CSTR,), 60, 11, episode=60))

    def killed(_: Swarm, jobs: int) -> Iterator[Outcome | ProcessLost]:
        yield ProcessLost("killed", where="episode 0")
        yield from outcomes

    monkeypatch.setattr(swarm_commands, "swarm_outcomes", killed)
    words = ("--cycles", "120", "--seed", "11", "--episode", "60", "--out", str(tmp_path / "out"))
    assert _execute(CSTR, *words, "--json") == 3
    told = capsys.readouterr()
    said = json.loads(told.out)
    assert (said["episodes"], said["errors"]) == (1, ["episode 0: killed"])
    assert said["interrupted"] is False
    assert "error: episode 0: killed" in told.err


def test_a_controller_that_cannot_be_replayed_breaks_that_invariant_alone(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Move:
        move = guard(*arguments)
        # Not in the snapshot, and not known to the process that replays.
        return replace(move, reasons={**move.reasons, "F": "because"})

    monkeypatch.setattr(step_module, "guard", broken)
    episode = draw_episode(ground.scenario, ground.stage, 1, 1, FIRST, 60, 30)
    calm = replace(episode, faults=(), solver_faults=(), commands=())
    outcome = run_episode(ground, calm, tmp_path / "run", check_replay=True)
    assert outcome.kinds == {Invariant.REPLAY}
    assert outcome.first_cycle == 0


def test_a_controller_that_raises_is_a_finding_and_no_end_of_the_swarm(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Move:
        raise ZeroDivisionError("by a fault")

    monkeypatch.setattr(step_module, "guard", broken)
    episode = draw_episode(ground.scenario, ground.stage, 1, 1, FIRST, 60, 30)
    outcome = run_episode(ground, episode, tmp_path / "run")
    assert outcome.kinds == {Invariant.ALIVE}
    assert "ZeroDivisionError: by a fault" in outcome.violations[0]


# --- the way back --------------------------------------------------------------------------------


def _history(mode: str, c_b: float, temperature: float) -> History:
    history = History()
    for cycle in range(40):
        numbers = {"time_s": 10.0 * cycle, "y.cB": c_b, "y.T": temperature}
        history.append(numbers, {"mode": "OFF" if cycle == 39 else mode})
    return history


@pytest.mark.parametrize(
    ("mode", "c_b", "temperature", "why"),
    [
        ("ACTIVE", 0.95, 110.0, ""),
        ("SHED", 0.95, 110.0, "SHED at the end"),
        ("ACTIVE", 0.85, 110.0, "cB is 0.85"),
        ("ACTIVE", 0.95, 130.0, "T is 130"),
        ("ACTIVE", float("nan"), 110.0, "cB is nan"),
    ],
)
def test_recovered_is_active_and_within_spec(
    ground: Ground, mode: str, c_b: float, temperature: float, why: str
) -> None:
    said = unrecovered(_history(mode, c_b, temperature), ground.scenario.settings, 100.0)
    assert said.startswith(why)
    assert bool(said) == bool(why)


def test_too_short_a_quiet_is_no_recovery(ground: Ground) -> None:
    history = _history("ACTIVE", 0.95, 110.0)
    late_s = 10.0 * (39 - STEADY_CYCLES + 1)
    assert "too short" in unrecovered(history, ground.scenario.settings, late_s)


def test_the_spec_of_a_zone_and_of_a_setpoint(ground: Ground) -> None:
    settings = ground.scenario.settings
    limits = {cv.output: spec(cv, settings) for cv in settings.controlled}
    assert limits["cB"] == pytest.approx((0.92, 0.98))  # 6 × 0.005 mol/l around 0.95
    assert limits["T"] == pytest.approx((104.4, 125.6))  # 6 × 0.1 K beyond 105 … 125


# --- shrinking -----------------------------------------------------------------------------------


def _long_story(ground: Ground) -> Episode:
    for number in range(100):
        episode = draw_episode(ground.scenario, ground.stage, 5, number, FIRST, 200, 100)
        if len(episode.faults) >= 6 and episode.commands and episode.solver_faults:
            return episode
    raise AssertionError("no long story is drawn")


def test_a_failure_of_two_faults_shrinks_to_these_two_and_their_shortest(ground: Ground) -> None:
    story = _long_story(ground)
    one, other = story.faults[1], story.faults[4]

    def fails(episode: Episode) -> bool:
        begun = {(f.type, f.target, f.at_s): f.until_s - f.at_s for f in episode.faults}
        mine = [begun.get((f.type, f.target, f.at_s), 0.0) for f in (one, other)]
        return min(mine) > 0.0 and mine[0] >= (one.until_s - one.at_s) / 2

    assert fails(story)
    smallest, runs = shrunk(story, fails, 20.0)
    assert fails(smallest)
    assert [(f.type, f.at_s) for f in smallest.faults] == [(f.type, f.at_s) for f in (one, other)]
    assert size(smallest)[0] == 2
    assert size(smallest) < size(story)
    assert runs > 2


def test_what_broke_early_is_cut_short(ground: Ground) -> None:
    story = _long_story(ground)
    short = cut(story, 50, 10.0)
    assert (short.cycles, short.quiet_s, short.seed) == (54, 520.0, story.seed)
    kept = {(f.type, f.at_s) for f in short.faults}
    assert kept == {(f.type, f.at_s) for f in story.faults if f.at_s < 520.0}
    assert all(f.until_s <= 520.0 for f in short.faults)
    found = written(ground.scenario, short, "swarm-1", "rate")
    assert (found.bounds, found.temporal) == ((), ())
    assert cut(story, 150, 10.0) == replace(story, cycles=154)


def test_shrinking_stops_when_its_time_is_up(ground: Ground) -> None:
    story = _long_story(ground)
    smallest, runs = shrunk(story, lambda episode: episode == story, 0.0)
    assert (smallest, runs) == (story, 0)


def test_a_written_story_is_the_story(ground: Ground) -> None:
    story = _long_story(ground)
    expected, found = (
        staged(ground.scenario, story),
        written(ground.scenario, story, "swarm-1", "rate"),
    )
    for name in ("seed", "duration_s", "mismatch", "noise", "faults", "commands", "profiles"):
        assert getattr(found, name) == getattr(expected, name), name
    assert [(f.at_s, f.until_s, f.solver, f.kind, f.delay_s) for f in found.solver_faults] == [
        (f.at_s, f.until_s, f.solver, f.kind, f.delay_s) for f in expected.solver_faults
    ]
    assert [a.kpi for a in found.assertions] == ["unsafe_writes", "invariant_violations"]
    assert {bound.signal for bound in found.bounds} == {"y.cB", "y.T"}


# --- the whole way -------------------------------------------------------------------------------


def test_a_broken_controller_leaves_a_bundle_that_reproduces_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycles = 0

    def broken(mvs: Any, devices: Any, authority: Any, *rest: Any) -> Move:
        nonlocal cycles
        cycles += 1
        move = guard(mvs, devices, authority, *rest)
        frames = {device: dict(words) for device, words in move.frames.items()}
        if frames.get("feed", {}).get("F.REQ") and rest[3] % 20 == 0:  # the heartbeat
            frames["feed"]["F.SP"] = min(frames["feed"]["F.SP"] + 4.0, 30.0)
        return replace(move, frames=frames)

    monkeypatch.setattr(step_module, "guard", broken)
    out = tmp_path / "out"
    words = (CSTR, "--cycles", "60", "--seed", "3", "--shrink", "3s", "--json", "--out", str(out))
    assert _execute(*words) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["violations"]
    assert said["violations"][0]["what"].split(", ")[1].startswith("rate:")
    (kept,) = said["kept"]
    with open_bundle(Path(kept["bundle"])) as bundle:
        assert any("rate" in text for text in bundle.index.violations)
        scenario = load_scenario(bundle.scenario)
        # Nothing but quiet is left of the story: the controller needs no fault to break.
        assert (scenario.faults, scenario.solver_faults, scenario.mismatch) == ((), (), {})
        run = run_scenario(scenario, tmp_path / "again", check_replay=False)
        assert reproduced(bundle, run.directory).outcome == "passed"
        monkeypatch.undo()
        mended = run_scenario(scenario, tmp_path / "mended", check_replay=False)
        assert reproduced(bundle, mended.directory).outcome == "failed"
        assert mended.verdict.kpis["invariant_violations"] == 0
        assert history_hash(bundle.run) == bundle.index.history_hash
    assert Path(kept["scenario"]).read_text(encoding="utf-8").count("application: ../cstr") == 1


def test_an_episode_is_drawn_for_the_ground_whose_turn_it_is(grounds: Sequence[Ground]) -> None:
    both = Swarm((CSTR, LAB), 1600, 4)
    mine = [n for n in range(4) if both.turn(n).ground == 1]
    targets = {f.target for n in mine for f in drawn(both, n, grounds[1]).faults}
    known = {*grounds[1].stage.sensors, *grounds[1].stage.loops, *grounds[1].stage.drivers}
    assert targets & known
