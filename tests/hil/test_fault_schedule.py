"""Sensor and PLC faults: they bite where and when the scenario says, and wrong ones are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from plc_bench import DEVICE, Bench

from controller.errors import ScenarioError
from hil.faults.schedule import Fault, FaultSchedule
from hil.plc.virtual import PERMIT, REMOTE


def _faulty(*faults: Fault) -> tuple[Bench, FaultSchedule]:
    bench = Bench()
    return bench, FaultSchedule(faults, bench.plc, bench.plc.sensors, {})


def _run(bench: Bench, schedule: FaultSchedule, until_s: int) -> None:
    while bench.now_s < until_s:
        schedule.advance(bench.now_s + 1)
        bench.scan()


@pytest.mark.parametrize(
    ("kind", "args", "published"),
    [
        ("freeze", {}, 50.0),
        ("bias", {"size": 3.0}, 53.0),
        ("drift", {"rate_per_s": 0.5}, 54.5),
        ("out_of_range", {"value": 999.0}, 999.0),
        ("nan", {}, math.nan),
    ],
)
def test_sensor_faults_distort_what_is_published_and_nothing_else(
    kind: str, args: dict[str, float], published: float
) -> None:
    bench, schedule = _faulty(Fault(2.0, 11.0, "PV", kind, args))
    _run(bench, schedule, 10)
    assert [fault.type for fault in schedule.active] == [kind]
    assert bench.get("PV") == pytest.approx(published, nan_ok=True)
    assert bench.plc.outputs()["T"] == pytest.approx(50.0)
    _run(bench, schedule, 12)
    assert bench.get("PV") == pytest.approx(50.0)
    assert schedule.active == ()


def test_spikes_come_in_both_signs_and_freeze_ignores_the_process() -> None:
    bench, schedule = _faulty(
        Fault(1.0, 41.0, "PV", "spike", {"size": 5.0, "probability": 0.5}),
        Fault(1.0, 41.0, "DV", "freeze"),
    )
    seen: set[float] = set()
    bench.scan()
    bench.plc.set_input("feed", 1.2)
    frozen: set[float] = set()
    for _ in range(39):
        schedule.advance(bench.now_s + 1)
        bench.scan()
        seen.add(round(bench.get("PV") - bench.plc.outputs()["T"], 3))
        frozen.add(bench.get("DV"))
    assert seen == {-5.0, 0.0, 5.0}
    assert len(frozen) == 1


def test_plc_faults_reach_the_plc() -> None:
    bench, schedule = _faulty(
        Fault(5.0, 8.0, DEVICE, "heartbeat_freeze"),
        Fault(10.0, 12.0, "T", "mode_flip"),
        Fault(14.0, 16.0, DEVICE, "stop"),
    )
    echoes: list[float] = []
    modes: list[float] = []
    for _ in range(18):
        bench.command(55.0)
        schedule.advance(bench.now_s + 1)
        bench.scan()
        echoes.append(bench.get("HBE"))
        modes.append(bench.get("MODE"))
    assert echoes == [1, 2, 3, 4, 4, 4, 4, 8, 9, 10, 11, 12, 13, 13, 13, 16, 17, 18]
    assert modes[9:11] == [0, 0]
    assert modes[15] == PERMIT
    assert modes[16] == REMOTE | PERMIT


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(0, 1, "PV", "freze"), r"faults\[0\].*freze.*mean freeze"),
        (Fault(0, 1, "PW", "freeze"), "PW.*mean PV"),
        (Fault(0, 1, "reaktor", "stop"), "reaktor.*mean reactor"),
        (Fault(0, 1, "reactor", "cable_cut"), "link for cable_cut"),
        (Fault(0, 1, "PV", "bias"), "needs the argument size"),
        (Fault(0, 1, "PV", "bias", {"sise": 1.0}), "sise.*mean size"),
        (Fault(2, 1, "PV", "freeze"), "from 2 s until 1 s"),
    ],
)
def test_a_fault_that_cannot_be_raised_is_refused_at_once(fault: Fault, text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        _faulty(fault)


class _Cable:
    """A link that only remembers what was done to it."""

    def __init__(self) -> None:
        self.story: list[str] = []

    def begin(self, fault: str, args: Mapping[str, float]) -> None:
        self.story.append(" ".join(["begin", fault, *(f"{value:g}" for value in args.values())]))

    def end(self, fault: str) -> None:
        self.story.append(f"end {fault}")


def test_network_faults_reach_their_link_in_order() -> None:
    bench, cable = Bench(), _Cable()
    schedule = FaultSchedule(
        [
            Fault(20.0, 30.0, DEVICE, "delay", {"delay_ms": 50.0, "jitter_ms": 5.0}),
            Fault(10.0, 20.0, DEVICE, "cable_cut"),
            Fault(15.0, 15.0, DEVICE, "reset"),
            Fault(25.0, math.inf, DEVICE, "refuse"),
        ],
        bench.plc,
        bench.plc.sensors,
        {DEVICE: cable},
    )
    assert schedule.advance(9.9) == ()
    begun = [fault.type for second in range(10, 40) for fault in schedule.advance(second)]
    assert begun == ["cable_cut", "reset", "delay", "refuse"]
    assert cable.story == [
        "begin cable_cut",
        "begin reset",
        "end reset",
        "end cable_cut",
        "begin delay 50 5",
        "begin refuse",
        "end delay",
    ]
    assert [fault.type for fault in schedule.active] == ["refuse"]
