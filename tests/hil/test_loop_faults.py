"""Faults of a loop: valves that stick, PLCs that refuse; each bites by exact numbers and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plc_bench import DEVICE, LOOP, Bench

from hil.faults.actuators import FaultyActuator
from hil.faults.schedule import Fault, FaultSchedule
from hil.plc.virtual import AT_HIGH, PERMIT, REMOTE

DEMANDS = [30.0, 31.0, 33.0, 34.0, 33.5, 31.0, 30.0, 36.0]


@pytest.mark.parametrize(
    ("fault", "args", "positions"),
    [
        # Slips all the way once the demand is more than 2 from the stem.
        ("stiction", {"band": 2.0}, [30.0, 30.0, 33.0, 33.0, 33.0, 33.0, 30.0, 36.0]),
        # Half of the play is lost after every reversal.
        ("deadband", {"size": 2.0}, [30.0, 30.0, 32.0, 33.0, 33.0, 32.0, 31.0, 35.0]),
        (
            "saturation",
            {"low": 30.5, "high": 33.0},
            [30.5, 31.0, 33.0, 33.0, 33.0, 31.0, 30.5, 33.0],
        ),
        ("rate_limit", {"rate_per_s": 0.5}, [30.0, 31.0, 32.0, 33.0, 33.5, 32.5, 31.5, 32.5]),
        ("stuck", {}, [30.0] * 8),
    ],
)
def test_a_faulty_valve_answers_its_demand_as_its_model_says(
    fault: str, args: dict[str, float], positions: list[float]
) -> None:
    valve = FaultyActuator()
    valve.begin(fault, args, 30.0)
    assert [valve.move(demand, 2.0) for demand in DEMANDS] == positions
    assert not valve.is_sound
    valve.end(fault)
    assert valve.is_sound
    assert [valve.move(demand, 2.0) for demand in DEMANDS] == DEMANDS


def test_faults_of_one_valve_act_from_the_positioner_to_the_stem() -> None:
    valve = FaultyActuator()
    valve.begin("stiction", {"band": 1.0}, 30.0)
    valve.begin("rate_limit", {"rate_per_s": 0.5}, 30.0)
    # The positioner creeps by 1 per move, so the stem slips by 2 every second move.
    assert [valve.move(40.0, 2.0) for _ in range(4)] == [30.0, 32.0, 32.0, 34.0]
    valve.end("rate_limit")
    assert valve.move(40.0, 2.0) == 40.0


def _faulty(*faults: Fault) -> tuple[Bench, FaultSchedule]:
    bench = Bench(replace(LOOP, setpoint_rate_per_s=10.0))
    return bench, FaultSchedule(faults, bench.plc, bench.plc.sensors, {})


def _run(bench: Bench, schedule: FaultSchedule, until_s: int, setpoint: float = 60.0) -> None:
    while bench.now_s < until_s:
        bench.command(setpoint)
        schedule.advance(bench.now_s + 1)
        bench.scan()


@pytest.mark.parametrize(
    ("fault", "args"),
    [
        ("stiction", {"band": 30.0}),
        ("deadband", {"size": 8.0}),
        ("saturation", {"low": 0.0, "high": 35.0}),
        ("rate_limit", {"rate_per_s": 0.1}),
        ("stuck", {}),
    ],
)
def test_the_plc_shows_its_demand_while_the_plant_gets_the_valves_position(
    fault: str, args: dict[str, float]
) -> None:
    bench, schedule = _faulty(Fault(3.0, 20.0, "T", fault, args))
    bench.to_remote(50.0)
    _run(bench, schedule, 19)
    position = bench.plc.inputs()["heat"]
    assert abs(bench.get("OUT") - position) > 1.0
    _run(bench, schedule, 20)
    assert bench.plc.inputs()["heat"] == pytest.approx(bench.get("OUT"))
    _run(bench, schedule, 30)
    assert bench.plc.inputs()["heat"] == pytest.approx(bench.get("OUT"))


def test_the_saturation_words_are_those_of_the_pid_and_not_of_the_valve() -> None:
    bench, schedule = _faulty(Fault(3.0, 400.0, "T", "saturation", {"low": 20.0, "high": 31.0}))
    _run(bench, schedule, 10)
    assert bench.plc.inputs()["heat"] == 31.0
    assert bench.get("SAT") == 0
    _run(bench, schedule, 399, 90.0)
    assert bench.get("SAT") == AT_HIGH
    assert bench.plc.inputs()["heat"] == 31.0


def test_a_valve_freed_while_the_plc_stands_still_goes_where_the_output_held() -> None:
    bench, schedule = _faulty(Fault(3.0, 20.0, "T", "stuck"), Fault(15.0, 30.0, DEVICE, "stop"))
    bench.to_remote(50.0)
    _run(bench, schedule, 16)
    demand = bench.get("OUT")
    assert bench.plc.inputs()["heat"] < demand - 1.0
    _run(bench, schedule, 25)
    assert bench.plc.inputs()["heat"] == pytest.approx(demand)


def test_a_refused_write_changes_neither_setpoint_nor_mode_until_it_ends() -> None:
    bench, schedule = _faulty(Fault(10.0, 20.0, "T", "refuse_write"))
    bench.to_remote(60.0)
    _run(bench, schedule, 9)
    assert bench.get("SPU") == 60.0
    while bench.now_s < 19:
        bench.command(70.0, request=0)
        schedule.advance(bench.now_s + 1)
        bench.scan()
        assert (bench.get("SPU"), bench.get("MODE")) == (60.0, REMOTE | PERMIT)
    bench.command(70.0, request=0)
    schedule.advance(20.0)
    bench.scan()
    assert bench.get("MODE") == PERMIT
    bench.now_s = 20
    _run(bench, schedule, 25, 70.0)
    assert (bench.get("SPU"), bench.get("MODE")) == (70.0, REMOTE | PERMIT)


def test_a_clamped_write_is_followed_as_far_as_the_tighter_range_goes() -> None:
    bench, schedule = _faulty(Fault(10.0, 20.0, "T", "clamp_write", {"low": 40.0, "high": 55.0}))
    bench.to_remote(60.0)
    _run(bench, schedule, 9)
    assert bench.get("SPU") == 60.0
    _run(bench, schedule, 19)
    assert bench.get("SPU") == 55.0
    bench.plc.set_local_setpoint("T", 80.0)
    assert bench.plc.setpoint_in_use("SP") == 55.0, "the operator's own setpoint is not clamped"
    _run(bench, schedule, 25)
    assert bench.get("SPU") == 60.0


def test_the_operators_selector_is_where_it_was_after_a_mode_flip() -> None:
    bench = Bench(replace(LOOP, local_selector=True))
    schedule = FaultSchedule([Fault(3.0, 6.0, "T", "mode_flip")], bench.plc, bench.plc.sensors, {})
    _run(bench, schedule, 10)
    assert bench.get("MODE") == 0
