"""The bench of the harness: it measures real runs, and tells what it found."""

from __future__ import annotations

import json

import pytest

import controller.loop
from controller.errors import LoopwrightError, ScenarioError
from hil.bench import harness
from hil.bench.commands import CYCLES_LEAST, harness_order
from hil.bench.document import document, tables
from hil.bench.harness import HarnessRate
from hil.world import World

CYCLES = 60


def test_a_run_of_the_virtual_tier_is_timed_part_by_part() -> None:
    real = controller.loop.step, World.run_until
    begun: list[int] = []
    with harness._stopwatch() as taken:
        rate = harness._rate("virtual", CYCLES, lambda: begun.append(1))
    assert begun == [1]
    assert rate > 5.0
    parts = harness._medians(taken)
    assert set(parts) == {"read", "step", "write", "journal", "world", "checks"}
    assert all(0.0 < ms < 1e3 / 5.0 for ms in parts.values())
    # Measured from outside, and left as it was.
    assert (controller.loop.step, World.run_until) == real


def test_a_run_that_does_not_control_is_no_measurement() -> None:
    with pytest.raises(LoopwrightError, match="nothing to measure"):
        harness._rate("virtual", 3)


def test_the_document_of_the_harness() -> None:
    parts = {"read": 0.1, "step": 0.6}
    rates = [
        HarnessRate("virtual", 1, 2000, (800.0, 1000.0, 900.0), parts),
        HarnessRate("virtual", 2, 2000, (1500.0, 1700.0, 1600.0), {}),
    ]
    found = document([], None, [], [], None, rates)
    json.dumps(found)
    assert [rate["cycles_per_s"] for rate in found["harness"]] == [900.0, 1600.0]
    assert found["harness"][0]["rates"] == [800.0, 1000.0, 900.0]
    assert found["harness"][0]["parts_ms"] == parts
    tables(found)


def test_too_few_cycles_are_refused() -> None:
    assert harness_order(CYCLES_LEAST).harness == CYCLES_LEAST
    with pytest.raises(ScenarioError, match="too few"):
        harness_order(CYCLES_LEAST - 1)
