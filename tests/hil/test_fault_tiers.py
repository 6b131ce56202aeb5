"""The same faults with and without sockets: cycle by cycle, the same history."""

from __future__ import annotations

from pathlib import Path

from hil.history import History
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.scenario.parts import Tier

LINKS = Path(__file__).parents[2] / "config" / "scenarios" / "links.yaml"
OF_REAL_TIME = {"cycle_ms", "solve_ms"}


def test_lost_requests_are_lost_in_the_virtual_tier_as_on_the_wire(tmp_path: Path) -> None:
    lossy = {"type": "drop", "args": {"probability": 0.15}}
    changes = {
        "duration": "6 min",
        "faults": [
            {"at": "60 s", "until": "150 s", "target": "cooling", **lossy},
            {"at": "150 s", "until": "220 s", "target": "feed", **lossy},
            {"at": "250 s", "until": "270 s", "target": "cooling", "type": "cable_cut"},
        ],
        "assertions": [{"kpi": "unsafe_writes", "high": 0}],
    }

    def history(tier: Tier) -> History:
        scenario = load_scenario(LINKS, changes)
        run = run_scenario(scenario, tmp_path / tier, tier=tier, check_replay=False)
        assert run.verdict.passed, run.verdict
        return run.history

    wire, virtual = history("wire"), history("virtual")
    assert wire.texts == virtual.texts
    assert len(set(wire.texts["mode"])) > 3, "the losses were felt"
    assert wire.columns.keys() == virtual.columns.keys()
    for name in wire.columns.keys() - OF_REAL_TIME:
        assert repr(wire.columns[name]) == repr(virtual.columns[name]), name
