"""Scans while nobody looks: the same plant, the same loops and the same memory as one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.signal import NS_PER_S
from hil.plc.noise import SCANS_AT_ONCE, GaussianNoise
from tests.hil.plc_bench import Bench

SENSOR_FAULTS = {
    "freeze": {},
    "drift": {"rate_per_s": 0.1},
    "spike": {"size": 5.0, "probability": 0.5},
    "nan": {},
}


def unseen(bench: Bench, count: int, dt_s: int) -> None:
    bench.now_s += count * dt_s
    bench.plc.scan_unseen(bench.now_s * NS_PER_S, dt_s, count)


def shown(bench: Bench) -> tuple[dict[str, bytes], dict[str, float], dict[str, float], object]:
    plc = bench.plc
    areas = {name: bytes(image) for name, image in bench.memory.areas.items()}
    return areas, plc.outputs(), plc.inputs(), (plc.statistics, plc.time_ns)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    dt_s=st.integers(1, 3),
    fault=st.sampled_from(["", *SENSOR_FAULTS]),
    setpoint=st.floats(10.0, 100.0),
    alive=st.booleans(),
    stopped=st.booleans(),
)
def test_many_unseen_scans_are_as_many_scans(
    groups: list[int], dt_s: int, fault: str, setpoint: float, alive: bool, stopped: bool
) -> None:
    """Whatever is broken, with a controller that goes on or falls silent (watchdog)."""
    one_by_one, together = (Bench(noise={"PV": 0.3, "DV": 0.01}) for _ in range(2))
    for bench in (one_by_one, together):
        bench.to_remote()
        if fault:
            bench.plc.sensors.begin("PV", fault, SENSOR_FAULTS[fault])
        if stopped:
            bench.plc.stop("reactor")
    for number, count in enumerate(groups):
        for bench in (one_by_one, together):
            if alive:
                bench.command(setpoint)
            if number == 2:
                bench.plc.restart("reactor")
        one_by_one.scan(count, dt_s)
        unseen(together, count, dt_s)
        assert shown(together) == shown(one_by_one)


def test_a_silent_controller_is_noticed_between_two_looks() -> None:
    bench = Bench()
    bench.to_remote()
    unseen(bench, 40, 1)
    assert bench.plc.statistics.watchdog_trips == {"reactor": 1}
    assert not bench.plc.is_remote("T")


def test_what_does_not_fit_is_named_at_once() -> None:
    bench = Bench()
    bench.plc.set_input("feed", 1e39)
    with pytest.raises(Exception, match="does not fit the type"):
        unseen(bench, 3, 1)


def test_noise_drawn_in_advance_is_the_stream_of_single_draws() -> None:
    noise = GaussianNoise(("A", "B", "C"), {"A": 0.5, "C": 2.0}, seed=11)
    rng, sigma = np.random.default_rng(11), np.array([0.5, 0.0, 2.0])
    for _ in range(2 * SCANS_AT_ONCE + 3):
        assert noise.draw() == (sigma * rng.standard_normal(3)).tolist()
    assert not any(math.isnan(value) for value in noise.draw())
