"""Which faults are refused, and why; what a schedule hands on; and that every fault ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plc_bench import DEVICE, Bench

from controller.errors import ScenarioError
from hil.faults.kinds import KINDS, Lane, Span, Tier
from hil.faults.schedule import HOST, TIERS_OF, Fault, FaultSchedule, check_tier
from hil.faults.sensors import SensorFaults
from hil.link.faults import LINK_FAULTS, checked_link_fault
from hil.link.frames import Driver

LIKELY = {
    "size": 2.0, "rate_per_s": 0.5, "value": 99.0, "step": 0.25, "probability": 0.5,
    "delay_s": 60.0, "sigmas": 10.0, "band": 2.0, "low": 30.0, "high": 45.0, "delay_ms": 20.0,
    "jitter_ms": 5.0, "code": 4.0, "period_ms": 50.0, "factor": 1.5, "to": 1.2, "step_s": -5.0,
    "workers": 2.0,
}  # fmt: skip


class _Ear:
    """Hears what begins and ends on a link, a laboratory or a host."""

    def __init__(self) -> None:
        self.story: list[tuple[str, str, dict[str, float]]] = []

    def begin(self, fault: str, args: Mapping[str, float]) -> None:
        self.story.append(("begin", fault, dict(args)))

    def end(self, fault: str) -> None:
        self.story.append(("end", fault, {}))


def _schedule(
    *faults: Fault, host: _Ear | None = None, drivers: Mapping[str, Driver] | None = None
) -> FaultSchedule:
    bench = Bench()
    return FaultSchedule(
        faults, bench.plc, bench.plc.sensors, {DEVICE: _Ear(), "drives": _Ear()},
        labs={"assay": _Ear()}, host=host, drivers=drivers,
    )  # fmt: skip


TARGETS: Mapping[Lane, str] = {
    "sensor": "PV", "quality": "assay", "loop": "T", "device": DEVICE, "link": DEVICE,
    "plant": "feed", "host": HOST,
}  # fmt: skip
SCHEDULED = [name for name in KINDS if name != "parameter_drift"]


def test_the_table_has_every_lane_and_a_tier_for_every_type() -> None:
    assert {kind.lane for kind in KINDS.values()} == set(get_args(Lane))
    assert set(TIERS_OF) == set(KINDS)
    assert all(TIERS_OF.values())
    spans = {name for kind in KINDS.values() for name in (*kind.required, *kind.optional)}
    assert spans == set(LIKELY)


@pytest.mark.parametrize("name", SCHEDULED)
def test_every_type_begins_and_ends_on_its_target(name: str) -> None:
    kind = KINDS[name]
    args = {arg: LIKELY[arg] for arg in (*kind.required, *kind.optional)}
    host = _Ear()
    schedule = _schedule(Fault(1.0, 2.0, TARGETS[kind.lane], name, args), host=host)
    assert [fault.type for fault in schedule.advance(1.0)] == [name]
    assert [(fault.type, fault.lane) for fault in schedule.active] == [(name, kind.lane)]
    schedule.advance(2.0)
    assert schedule.active == ()
    if kind.lane == "host":
        assert host.story == [("begin", name, args), ("end", name, {})]


@pytest.mark.parametrize("name", KINDS)
def test_an_argument_that_is_missing_or_no_number_is_refused(name: str) -> None:
    kind = KINDS[name]
    args = {arg: LIKELY[arg] for arg in kind.required}
    for arg in kind.required:
        rest = {key: value for key, value in args.items() if key != arg}
        with pytest.raises(ScenarioError, match=f"{name} needs the argument {arg}"):
            _schedule(Fault(0, 1, TARGETS[kind.lane], name, rest))
    for arg in (*kind.required, *kind.optional):
        with pytest.raises(ScenarioError, match=f"the argument {arg} of {name} is nan"):
            _schedule(Fault(0, 1, TARGETS[kind.lane], name, {**args, arg: math.nan}))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(0, 1, "PV", "spike", {"size": 1.0, "probability": 0.0}), "above 0 up to 1"),
        (Fault(0, 1, "PV", "quantise", {"step": 0.0}), "a finite number above 0"),
        (Fault(0, 1, DEVICE, "modbus_exception", {"code": 3.0}), "one of 2, 4, 6"),
        (Fault(0, 1, DEVICE, "delay", {"delay_ms": -1.0}), "from 0"),
        (Fault(0, 1, HOST, "cpu_load", {"workers": 1.5}), "a whole number from 1 up to 64"),
        (Fault(0, 1, HOST, "clock_step", {"step_s": 0.0}), "clock step of 0 s"),
        (Fault(0, 1, "T", "saturation", {"low": 2.0, "high": 2.0}), r"\[2, 2\].*is empty"),
        (Fault(0, 1, "T", "clamp_write", {"low": 10.0, "high": 60.0}), r"part of \[20, 90\]"),
        (Fault(0, 1, "T", "clamp_write", {"low": 20.0, "high": 90.0}), "no tighter clamp"),
        (Fault(5, 5, "PV", "freeze"), "begins and ends at 5 s is never felt"),
        (Fault(-1, 5, "PV", "freeze"), "from -1 s until 5 s"),
        (Fault(0, 1, "asay", "late", {"delay_s": 60.0}), "quality for late.*mean assay"),
        (Fault(0, 1, "assay", "stiction", {"band": 1.0}), "no loop for stiction called 'assay'"),
        (Fault(0, 1, "controler", "kill"), "mean controller"),
        (Fault(0, 1, HOST, "kill"), "kill needs the wire or realtime tier"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_the_way_out(fault: Fault, text: str) -> None:
    with pytest.raises(ScenarioError, match=text) as raised:
        _schedule(Fault(0, 1, "DV", "freeze"), fault)
    assert raised.value.where == "faults[1]"


def test_a_protocols_own_error_is_refused_on_the_other_protocol() -> None:
    drivers: dict[str, Driver] = {DEVICE: "s7", "drives": "modbus"}
    exception = {"code": 4.0}
    _schedule(
        Fault(0, 1, DEVICE, "s7_error"),
        Fault(0, 1, "drives", "modbus_exception", exception),
        drivers=drivers,
    )
    with pytest.raises(ScenarioError, match=r"faults\[0\].*modbus_exception.*driver s7"):
        _schedule(Fault(0, 1, DEVICE, "modbus_exception", exception), drivers=drivers)
    with pytest.raises(ScenarioError, match=r"faults\[0\].*s7_error.*driver modbus"):
        _schedule(Fault(0, 1, "drives", "s7_error"), drivers=drivers)
    with pytest.raises(ScenarioError, match="code 255"):
        _schedule(Fault(0, 1, DEVICE, "s7_error", {"code": 255.0}), drivers=drivers)


@pytest.mark.parametrize("name", LINK_FAULTS)
def test_the_line_knows_the_link_faults_of_the_table_and_their_arguments(name: str) -> None:
    kind = KINDS[name]
    assert kind.lane == "link"
    drivers: frozenset[Driver] = frozenset(("s7", "modbus"))
    assert LINK_FAULTS[name] == (drivers if kind.driver is None else {kind.driver})
    for driver in LINK_FAULTS[name]:
        for names in (kind.required, (*kind.required, *kind.optional)):
            checked_link_fault(driver, name, {arg: LIKELY[arg] for arg in names})
    assert set(LINK_FAULTS) == {name for name, kind in KINDS.items() if kind.lane == "link"}


@pytest.mark.parametrize("second", [(2.0, 4.0), (0.5, 1.5), (1.0, 3.0), (0.0, 9.0)])
def test_two_faults_of_one_type_on_one_target_do_not_overlap(second: tuple[float, float]) -> None:
    first = Fault(1.0, 3.0, "PV", "freeze")
    with pytest.raises(ScenarioError, match=r"faults\[1\].*overlaps in time with faults\[0\]"):
        _schedule(first, Fault(*second, "PV", "freeze"))
    _schedule(first, Fault(*second, "DV", "freeze"), Fault(*second, "PV", "nan"))
    _schedule(first, Fault(3.0, 4.0, "PV", "freeze"), Fault(0.0, 1.0, "PV", "freeze"))


@pytest.mark.parametrize(
    ("kind", "tier", "text"),
    [
        ("kill", "virtual", "wire or realtime"),
        ("reconnect_storm", "virtual", ""),
        ("kill", "wire", ""),
        ("freeze", "virtual", ""),
    ],
)
def test_a_tier_refuses_what_means_nothing_in_it(kind: str, tier: Tier, text: str) -> None:
    faults = [Fault(0, 1, "any", kind)]
    if not text:
        check_tier(faults, tier)
        return
    with pytest.raises(ScenarioError, match=f"{kind} means nothing in the {tier} tier.*{text}"):
        check_tier(faults, tier)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_span_holds_what_is_not_finite_or_outside_it(value: float) -> None:
    span = Span(low=0.0, high=4.0, above_low=True, whole=True)
    assert span.holds(value) == (value in (1.0, 2.0, 3.0, 4.0))


SENSOR = [name for name, kind in KINDS.items() if kind.lane == "sensor"]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 9),
    story=st.lists(
        st.tuples(st.sampled_from(SENSOR), st.sampled_from(["PV", "DV"]), st.integers(1, 5)),
        max_size=6,
    ),
    value=st.floats(-1e6, 1e6),
)
def test_after_all_sensor_faults_the_sensor_is_what_it_was_and_chance_repeats(
    seed: int, story: list[tuple[str, str, int]], value: float
) -> None:
    def run() -> list[float]:
        sensors = SensorFaults(seed)
        seen: list[float] = []
        for name, tag, scans in story:
            args = {arg: LIKELY[arg] for arg in (*KINDS[name].required, *KINDS[name].optional)}
            sensors.begin(tag, name, args)
            seen += [sensors.apply(t, value, 1.0) for _ in range(scans) for t in ("PV", "DV")]
        for name, tag, _ in story:
            sensors.end(tag, name)
        assert not sensors.active
        assert sensors.apply("PV", value, 1.0) == sensors.apply("DV", value, 1.0) == value
        return seen

    first = run()
    assert repr(first) == repr(run())


def test_a_spiking_sensor_leaves_the_chance_of_another_as_it_was() -> None:
    alone, both = SensorFaults(3), SensorFaults(3)
    args = {"size": 1.0, "probability": 0.5}
    alone.begin("PV", "spike", args)
    both.begin("DV", "spike", args)
    both.begin("PV", "spike", args)
    one = [alone.apply("PV", 0.0, 1.0) for _ in range(50)]
    two = [(both.apply("DV", 0.0, 1.0), both.apply("PV", 0.0, 1.0)) for _ in range(50)]
    assert [pv for _, pv in two] == one
    assert [dv for dv, _ in two] != one


@pytest.mark.parametrize(
    ("value", "published"), [(50.3, 50.25), (50.4, 50.5), (-0.1, 0.0), (50.375, 50.5)]
)
def test_a_coarse_converter_publishes_the_nearest_step(value: float, published: float) -> None:
    sensors = SensorFaults(0)
    sensors.begin("PV", "quantise", {"step": 0.25})
    assert sensors.apply("PV", value, 1.0) == published
    assert math.isnan(sensors.apply("PV", math.nan, 1.0))
