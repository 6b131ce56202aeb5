"""The shipped scenarios, run whole: in the virtual tier here, over sockets by `hil run`."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cycle.record import decode_record
from controller.historian.reader import open_reader
from hil.runner import Run, run_scenario
from hil.scenario import load_scenario

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
SMOKE = (
    "cstr-golden",
    "cstr-setpoint",
    "dropped-mv",
    "every-rung",
    "infeasible",
    "laboratory",
    "links",
    "lost-analyser",
    "reactor-faults",
    "upsets",
    "valves",
)


@pytest.fixture(scope="module", params=SMOKE)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    scenario = load_scenario(SCENARIOS / f"{request.param}.yaml")
    return run_scenario(scenario, tmp_path_factory.mktemp("run") / "data", tier="virtual")


def test_the_verdict_is_passed_and_every_check_was_tested(run: Run) -> None:
    assert [str(c) for c in run.verdict.checks if c.outcome != "passed"] == []
    assert run.verdict.checks


def test_replay_equals_the_run(run: Run) -> None:
    assert run.replayed is not None
    assert run.replayed.differences == ()
    assert run.replayed.identical == run.replayed.cycles == len(run.history)


def test_every_write_has_a_journalled_reason(run: Run) -> None:
    with open_reader(run.directory) as reader:
        decided = [decode_record(row.record) for row in reader.cycles(1) if row.record]
    frames = sum(len(record["move"]["frames"]) for record in decided)
    # A frame meets a cut cable now and then; nothing may be written that was not decided.
    assert 0.9 * frames < run.verdict.kpis["wire_writes"] <= frames
    assert all(r["mode"] in ("READY", "ACTIVE") or r["reason"] for r in decided)
    silent = [r for r in decided if r["mode"] in ("MANUAL", "INIT") and r["move"]["frames"]]
    assert all("READY → INIT" in " ".join(r["events"]) for r in silent)


def _digests(directory: Path) -> list[bytes]:
    with open_reader(directory) as reader:
        return [row.record or b"" for row in reader.cycles(1)]


def test_the_same_seed_gives_the_same_history_and_another_seed_another(tmp_path: Path) -> None:
    scenario = load_scenario(SCENARIOS / "reactor-faults.yaml")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run_scenario(
            scenario,
            tmp_path / name,
            tier="virtual",
            seed=seed,
            duration_s=1800.0,
            check_replay=False,
        )
    first, again, other = (_digests(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


def test_wire_and_virtual_tier_decide_the_same(tmp_path: Path) -> None:
    """Without link faults, sockets add nothing but time: setpoints are equal to the last bit."""
    scenario = load_scenario(SCENARIOS / "cstr-setpoint.yaml")
    runs = [
        run_scenario(scenario, tmp_path / tier, tier=tier, duration_s=600.0, check_replay=False)
        for tier in ("virtual", "wire")
    ]
    for name in ("sp.F", "sp.Q", "y.cB"):
        assert runs[0].history.columns[name] == runs[1].history.columns[name]
    assert runs[1].verdict.kpis["unsafe_writes"] == 0
    assert runs[1].verdict.kpis["wire_writes"] > 100
