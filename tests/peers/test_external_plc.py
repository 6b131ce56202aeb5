"""A scenario whose PLC is not ours: a Statement List program behind an S7 server of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path

import pytest

from controller.errors import ScenarioError
from hil.runner import run_scenario
from hil.scenario import load_scenario
from tests.peers.awl_plc import AwlPlc, LoopSettings

pytestmark = pytest.mark.peer

SCENARIO = Path(__file__).parent / "awl" / "external.yaml"
SCAN_S = 0.1


@contextmanager
def _running_plc() -> Iterator[AwlPlc]:
    """It scans by the wall clock until the end, as a PLC does."""
    # Twelve scans of 100 ms are three cycles of 400 ms.
    with AwlPlc(LoopSettings(watchdog=12)) as plc:
        over = threading.Event()

        def scan() -> None:
            while not over.wait(SCAN_S):
                plc.scan()

        thread = threading.Thread(target=scan, name="awl-plc")
        thread.start()
        try:
            yield plc
        finally:
            over.set()
            thread.join()


def test_the_loop_and_the_fault_run_against_a_plc_of_somebody_else(tmp_path: Path) -> None:
    with _running_plc() as plc:
        scenario = load_scenario(SCENARIO, {"overrides.devices.reactor.port": plc.port})
        run = run_scenario(scenario, tmp_path / "data")
        assert not plc.remote  # handed back at the end
    kpis = run.verdict.kpis
    assert kpis["unsafe_writes"] == 0
    assert kpis["invariant_violations"] == 0
    assert kpis["wire_writes"] > 5
    assert run.replayed is not None
    assert run.replayed.passed
    outcomes = {check.name.split()[0]: check.outcome for check in run.verdict.checks}
    assert outcomes["modes"] == "passed"
    # What only that PLC knows is not measured, and so not passed.
    assert outcomes["watchdog_trips"] == "untested"
    assert isnan(kpis["watchdog_trips"])
    # The process value that the controller read stands for the truth.
    assert max(run.history.columns["y.T"]) > 80.0


@pytest.mark.parametrize(
    ("changes", "said_of_it"),
    [
        ({"tier": "wire"}, "keeps its own time"),
        ({"clock.speed": 2}, "keeps its own time"),
        ({"profiles": [{"input": "x", "at": 0, "to": 1}]}, "profiles means nothing"),
        (
            {"faults": [{"at": 1, "until": 2, "target": "PV", "type": "nan"}]},
            "no sensor for nan called 'PV'",
        ),
    ],
)
def test_what_is_out_of_reach_is_refused(changes: dict[str, object], said_of_it: str) -> None:
    with pytest.raises(ScenarioError, match=said_of_it):
        load_scenario(SCENARIO, changes)
