"""Two temperatures of a rig that we did not write, held at changing setpoints without offset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hil.runner import Run, run_scenario
from hil.scenario import load_scenario
from plant_models.process import steady_state
from tests.peers.tclab_plant import controller_model

pytestmark = pytest.mark.peer

SCENARIO = Path(__file__).parent / "tclab" / "setpoints.yaml"
PERIOD_S = 2400.0
JUDGED_S = 600.0
OFFSET_K = 0.3  # one step of the rig's A/D converter
SETPOINTS = ((45.0, 35.0), (55.0, 38.0), (48.0, 40.0))


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_scenario(load_scenario(SCENARIO), tmp_path_factory.mktemp("tclab"))


def test_the_scenario_passes_its_own_verdict(run: Run) -> None:
    failed = [check for check in run.verdict.checks if check.outcome != "passed"]
    assert not failed
    assert run.verdict.passed


@pytest.mark.parametrize("period", range(len(SETPOINTS)))
def test_each_setpoint_is_reached_without_offset(run: Run, period: int) -> None:
    end_s = (period + 1) * PERIOD_S
    seconds = run.history.column("time_s")
    last = (seconds >= end_s - JUDGED_S) & (seconds < end_s)
    assert np.sum(last) == JUDGED_S / 10.0
    for name, setpoint in zip(("T1", "T2"), SETPOINTS[period], strict=True):
        # What the controller was told is part of the claim: a command that got lost would show.
        assert set(run.history.column(f"wanted.{name}")[last]) == {setpoint}
        error = run.history.column(f"y.{name}")[last] - setpoint
        assert abs(np.mean(error)) <= OFFSET_K, f"{name} at {setpoint} degC"
        assert np.std(error) <= OFFSET_K, f"{name} swings around {setpoint} degC"


@pytest.mark.parametrize("period", range(len(SETPOINTS)))
def test_the_model_alone_would_have_missed(run: Run, period: int) -> None:
    """Guards the test above: with a model that happens to fit, no offset proves nothing."""
    end_s = (period + 1) * PERIOD_S
    seconds = run.history.column("time_s")
    last = (seconds >= end_s - JUDGED_S) & (seconds < end_s)
    power = np.array([float(np.mean(run.history.column(f"sp.Q{i}")[last])) for i in (1, 2)])
    predicted = steady_state(controller_model(), power)[2:]
    assert np.max(np.abs(predicted - SETPOINTS[period])) > 3.0


def test_the_power_loops_followed_within_their_range(run: Run) -> None:
    for loop in ("Q1", "Q2"):
        moves = np.diff(run.history.column(f"sp.{loop}"))
        assert np.max(np.abs(moves)) <= 20.0 + 1e-3  # 120 percent/min over a cycle of 10 s
        assert np.max(np.abs(moves)) > 5.0  # the setpoints did ask for something
