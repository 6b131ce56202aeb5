"""What counts as computing time of a cycle: neither sleep nor what the world does meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from hil.bench.harness import _rate  # pyright: ignore[reportPrivateUsage]
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.world import World

CONFIG = Path(__file__).parents[2] / "config" / "scenarios" / "cstr-setpoint.yaml"
SLOW_S = 0.1


@pytest.fixture(autouse=True)
def slow_world(monkeypatch: pytest.MonkeyPatch) -> None:
    real = World.run_until

    def slow(world: World, time_ns: int) -> None:
        time.sleep(SLOW_S)
        real(world, time_ns)

    monkeypatch.setattr(World, "run_until", slow)


def test_a_slow_world_is_no_computing_time(tmp_path: Path) -> None:
    scenario = load_scenario(CONFIG)
    run = run_scenario(scenario, tmp_path, tier="virtual", duration_s=60, check_replay=False)
    cycle_ms, solve_ms = run.history.column("cycle_ms"), run.history.column("solve_ms")
    assert np.median(cycle_ms) < 1e3 * SLOW_S
    assert np.all(cycle_ms > solve_ms)


def test_the_rate_of_the_harness_has_the_world_in_it() -> None:
    assert 1.0 < _rate("virtual", 16) < 1.0 / SLOW_S
