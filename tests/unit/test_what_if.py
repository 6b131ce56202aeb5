"""What-if: which moves another configuration would make in the cycles of a kept journal."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from controller.cli import main
from controller.errors import ReplayError, SettingsError
from controller.replay_verb import course, document, what_if
from controller.signal import NS_PER_S
from controller.what_if import Compared, Outcome
from hil.compare.what_if_page import write_what_if
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.world import START_NS
from tests.unit.html_page import HtmlPage

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config/cstr/cstr.yaml"
CYCLES = 60
CYCLE_S = 10.0
RATE_PER_CYCLE = {"F": 6.0 / 60 * CYCLE_S, "Q": 2000.0 / 60 * CYCLE_S}
SPAN = {"F": 25.0, "Q": 8500.0}

Changed = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of the reactor on its way to the setpoint."""
    directory = tmp_path_factory.mktemp("what-if") / "run"
    scenario = load_scenario(ROOT / "config/scenarios/cstr-setpoint.yaml")
    run_scenario(
        scenario, directory, tier="virtual", duration_s=CYCLES * CYCLE_S, check_replay=False
    )
    return directory


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    """Makes a copy of the application with some text replaced."""

    def make(*replacements: tuple[str, str]) -> Path:
        text = CONFIG.read_text(encoding="utf-8")
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path_factory.mktemp("config") / "cstr.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


SLUGGISH = ("move_suppression: 2.0", "move_suppression: 30.0")


@pytest.fixture(scope="module")
def sluggish(run: Path, changed: Changed) -> tuple[Outcome, list[Compared]]:
    each: list[Compared] = []
    other = changed(SLUGGISH, ("horizon: 20", "horizon: 25"))
    return what_if(run, other, tell=each.append), each


def test_the_same_configuration_decides_the_same(run: Path) -> None:
    each: list[Compared] = []
    outcome = what_if(run, CONFIG, tell=each.append)
    assert outcome.cycles == len(each) == CYCLES
    assert outcome.differing == 0
    assert outcome.states == []
    assert outcome.first == outcome.most == []
    assert all(one.kept == one.would for one in each)
    for change in outcome.mvs.values():
        assert (change.compared, change.differing, change.planned) == (CYCLES, 0, 0)
        assert change.first_cycle is None


def test_the_counts_are_those_of_the_cycles(sluggish: tuple[Outcome, list[Compared]]) -> None:
    outcome, each = sluggish
    assert 0 < outcome.differing < CYCLES
    for name, change in outcome.mvs.items():
        apart = np.array([e.would.move[name] - e.kept.move[name] for e in each])
        differs = np.abs(apart) > 1e-4 * SPAN[name]
        assert change.tolerance == pytest.approx(1e-4 * SPAN[name])
        assert change.differing == differs.sum() > 0
        assert change.mean == pytest.approx(apart[differs].mean())
        assert change.mean_size == pytest.approx(np.abs(apart[differs]).mean())
        first, largest = int(np.argmax(differs)), int(np.argmax(np.abs(apart)))
        assert (change.first_cycle, change.first_ns) == (each[first].cycle, each[first].time_ns)
        assert change.largest == pytest.approx(apart[largest])
        assert change.largest_cycle == each[largest].cycle
    units = {change.name: change.unit for change in outcome.mvs.values()}
    assert units == {"F": "1/h", "Q": "kJ/h"}


def test_the_first_and_the_most_different_cycles_are_listed(
    sluggish: tuple[Outcome, list[Compared]],
) -> None:
    outcome, each = sluggish
    differing = [one for one in each if one.differs]
    assert outcome.first == differing[:3]
    by_size = sorted(differing, key=lambda one: -one.distance)
    assert [one.cycle for one in outcome.most] == [one.cycle for one in by_size[:3]]
    worst = outcome.most[0]
    shares = [abs(worst.would.move[n] - worst.kept.move[n]) / SPAN[n] for n in SPAN]
    assert worst.distance == pytest.approx(max(shares))


def test_both_plans_are_told_over_their_own_horizons(
    sluggish: tuple[Outcome, list[Compared]],
) -> None:
    worst = sluggish[0].most[0]
    assert worst.kept.step_s == worst.would.step_s == 40.0
    assert {len(moves) for moves in worst.kept.moves.values()} == {20}
    assert {len(moves) for moves in worst.would.moves.values()} == {25}
    # Now, and at the end of every interval.
    assert {len(values) for values in worst.would.expected.values()} == {26}
    assert set(worst.would.expected) == {"cB", "T"}
    # Told to move less, it plans to move less.
    travel = [np.abs(np.diff(o.moves["F"])).max() for o in (worst.kept, worst.would)]
    assert travel[1] < travel[0]


def test_each_decision_begins_where_the_plant_was(
    sluggish: tuple[Outcome, list[Compared]],
) -> None:
    """Would-have moves must not run away: the guard's rate counts from the kept setpoint."""
    _, each = sluggish
    for before, now in pairwise(each):
        if before.kept.mode == now.would.mode == "ACTIVE":
            for name, most in RATE_PER_CYCLE.items():
                step = abs(now.would.move[name] - before.kept.move[name])
                # The setpoint in use is a float32 in the PLC.
                assert step <= most * (1 + 1e-5)


def test_another_mode_is_told_and_the_link_still_holds(run: Path, changed: Changed) -> None:
    """Heartbeats are those of the kept run: its echoes must not look like a dead PLC."""
    each: list[Compared] = []
    outcome = what_if(run, changed(("ready_cycles: 4", "ready_cycles: 9")), tell=each.append)
    (state,) = [s for s in outcome.states if s.kept == "ACTIVE" and s.would == "INIT"]
    assert state.what == "mode"
    assert state.cycles == sum(e.kept.mode == "ACTIVE" and e.would.mode == "INIT" for e in each)
    # The last cycle hands back.
    assert {e.would.mode for e in each[20:-1]} == {"ACTIVE"}
    late = next(e for e in each if e.kept.mode == "ACTIVE" and e.would.mode != "ACTIVE")
    assert late.differs
    assert late.kept.requested["F"]
    assert not late.would.requested["F"]


def test_tighter_limits_change_what_is_asked_for(run: Path, changed: Changed) -> None:
    each: list[Compared] = []
    outcome = what_if(
        run, changed(("range: [5 1/h, 30 1/h]", "range: [5 1/h, 17 1/h]")), tell=each.append
    )
    assert outcome.mvs["F"].differing > 0
    assert max(e.would.move["F"] for e in each) <= 17.0
    # The plant went on to where this configuration would never have taken over.
    far = [e for e in each if e.kept.move["F"] > 18.5]
    assert far
    assert not any(e.would.requested["F"] for e in far)


def test_what_the_kept_run_had_changed_is_told(tmp_path: Path) -> None:
    """The other file is taken as it stands: here the kept run kept on without its analyser."""
    scenario = load_scenario(ROOT / "config/scenarios/lost-analyser.yaml")
    assert scenario.settings.overrides
    run_scenario(scenario, tmp_path / "run", tier="virtual", duration_s=60, check_replay=False)
    note = what_if(tmp_path / "run", CONFIG).note
    for name in scenario.settings.overrides:
        assert name in note
    assert "devices." not in note


def test_only_the_window_is_compared(run: Path, sluggish: tuple[Outcome, list[Compared]]) -> None:
    begin, end = (START_NS + round(s * NS_PER_S) for s in (200, 300))
    each: list[Compared] = []
    outcome = what_if(run, CONFIG, begin, end, each.append)
    assert [e.cycle for e in each] == list(range(20, 31))
    assert outcome.cycles == 11
    with pytest.raises(ReplayError, match="no decided cycle"):
        what_if(run, CONFIG, end + 10**15)


@pytest.mark.parametrize(
    ("replacements", "told"),
    [
        ([("cycle: 10 s", "cycle: 20 s")], ["a cycle of 20 s; the journal has 10 s"]),
        (
            [("name: F\n", "name: Feed\n")],
            ["the journal has an MV F, this file has none", "the journal has no MV Feed"],
        ),
        ([("T.PV", "T2.PV")], ["tag T2.PV is not read in the journal"]),
        (
            [('DB30.DBD40:REAL"', 'DB30.DBD40:REAL", scale: 2')],
            ["tag T.PV has scale 2.0, in the journal 1.0"],
        ),
        (
            [("heartbeat_echo: C.HBE, sequence_echo: C.SEQE", "heartbeat_echo: C.SEQE")],
            ["device cooling has another handshake"],
        ),
    ],
)
def test_what_cannot_be_compared_is_named(
    run: Path, changed: Changed, replacements: list[tuple[str, str]], told: list[str]
) -> None:
    other = changed(*replacements)
    with pytest.raises(SettingsError) as caught:
        what_if(run, other)
    text = "\n".join(str(problem) for problem in caught.value.problems)
    for words in told:
        assert words in text
    assert re.search(r"cstr\.yaml:\d+:\d+", text)


def test_the_verb_answers_with_one_document_and_exit_code_0(
    run: Path, changed: Changed, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed(SLUGGISH)
    assert main(["replay", str(run), "--config", str(other), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["cycles"] == CYCLES
    assert 0 < answer["differing"] <= CYCLES
    assert {mv["name"]: mv["unit"] for mv in answer["mvs"]} == {"F": "1/h", "Q": "kJ/h"}
    most = answer["most"][0]
    assert len(most["kept"]["plan"]["mv"]["F"]) == 20
    assert len(most["would"]["plan"]["cv"]["cB"]) == 21
    assert "Open loop" in answer["open_loop"]
    assert main(["replay", str(run), "--config", str(other)]) == 0
    text = capsys.readouterr().out
    assert f"{answer['differing']} of {CYCLES} cycles with another move" in text
    assert "cycles that differ most" in text


def test_a_forged_record_fails_the_check_with_exit_code_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = Path(shutil.copytree(run, tmp_path / "forged"))
    assert main(["replay", str(forged), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["identical"] == CYCLES
    with sqlite3.connect(forged / "samples.db") as database:
        database.execute(
            "UPDATE cycle SET record = (SELECT record FROM cycle WHERE cycle = 31) WHERE cycle = 30"
        )
    database.close()
    assert main(["replay", str(forged), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["identical"] == CYCLES - 1
    assert [d["cycle"] for d in answer["differences"]] == [30]


def test_the_page_needs_nothing_but_itself(
    run: Path, changed: Changed, tmp_path: Path, sluggish: tuple[Outcome, list[Compared]]
) -> None:
    other = changed(SLUGGISH, ("horizon: 20", "horizon: 25"))
    outcome, each = sluggish
    each = [one.without_plans for one in each]
    assert not any(one.kept.moves or one.would.expected for one in each)
    out = write_what_if(outcome, each, run, other, tmp_path / "deep" / "page.html")
    read = HtmlPage(out.read_text(encoding="utf-8"))
    assert f"{outcome.differing} of {CYCLES} cycles with another move" in read.text
    rows = {row[0]: row for row in read.rows}
    change = outcome.mvs["F"]
    assert rows["F"][1:3] == [f"{change.differing} of {CYCLES}", str(change.planned)]
    assert "chart-mv0" in read.ids
    assert "chart-most2-cv1" in read.ids
    assert "- horizon: 20" in read.text
    assert "+ horizon: 25" in read.text
    assert document(outcome, other)["differing"] == outcome.differing


def test_a_course_keeps_its_ends() -> None:
    assert course([]) == "–"
    assert course([1.0]) == "1"
    assert course([float(k) for k in range(9)]) == "0 → 2 → 4 → 6 → 8"
