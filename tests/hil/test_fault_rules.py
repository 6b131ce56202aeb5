"""Which faults are refused, and why; what a schedule hands on; and that every fault ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plc_bench import DEVICE, Bench

from controller.errors import ScenarioError
from controller.signal import Tag
from hil.faults.kinds import KINDS, Driver, Lane, Span, Tier
from hil.faults.schedule import HOST, TIERS_OF, Fault, FaultSchedule, check_tier
from hil.faults.sensors import SensorFaults
from hil.plc_memory import DeviceMemory
from hil.scenario import load_scenario
from hil.scenario.file import ScenarioFile

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
    spans = {name for kind in KINDS.values() for name in kind.arguments}
    assert spans == set(LIKELY)


@pytest.mark.parametrize("name", SCHEDULED)
def test_every_type_begins_and_ends_on_its_target(name: str) -> None:
    kind = KINDS[name]
    args = {arg: LIKELY[arg] for arg in kind.arguments}
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
        with pytest.raises(ScenarioError, match=rf"\[0\]\.args: {name} needs the argument {arg}"):
            _schedule(Fault(0, 1, TARGETS[kind.lane], name, rest))
    for arg in kind.arguments:
        with pytest.raises(ScenarioError, match=f"the argument {arg} of {name} is nan"):
            _schedule(Fault(0, 1, TARGETS[kind.lane], name, {**args, arg: math.nan}))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(0, 1, "PV", "spike", {"size": 1.0, "probability": 0.0}), "above 0 up to 1"),
        (Fault(0, 1, "PV", "quantise", {"step": 0.0}), "a finite number above 0"),
        (Fault(0, 1, DEVICE, "modbus_exception", {"code": 3.0}), "one of 2, 4, 6"),
        (Fault(0, 1, DEVICE, "delay", {"delay_ms": -1.0}), "from 0"),
        (Fault(0, 1, DEVICE, "s7_error", {"code": 255.0}), "up to 65535, and not 255"),
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
    assert raised.value.where.startswith("faults[1].")


def test_a_protocols_own_error_is_refused_on_the_other_protocol() -> None:
    drivers: dict[str, Driver] = {DEVICE: "s7", "drives": "modbus"}
    exception = {"code": 4.0}
    _schedule(
        Fault(0, 1, DEVICE, "s7_error"),
        Fault(0, 1, "drives", "modbus_exception", exception),
        drivers=drivers,
    )
    with pytest.raises(ScenarioError, match=r"faults\[0\].target: reactor speaks s7"):
        _schedule(Fault(0, 1, DEVICE, "modbus_exception", exception), drivers=drivers)
    with pytest.raises(ScenarioError, match=r"faults\[0\].target.*knows no s7_error"):
        _schedule(Fault(0, 1, "drives", "s7_error"), drivers=drivers)


def test_what_is_left_out_is_handed_on_as_the_table_says() -> None:
    ear = _Ear()
    bench = Bench()
    fault = Fault(0.0, 1.0, DEVICE, "s7_error", {"probability": 0.5})
    schedule = FaultSchedule([fault], bench.plc, bench.plc.sensors, {DEVICE: ear})
    schedule.advance(0.0)
    assert ear.story == [("begin", "s7_error", {"code": 0x8104, "probability": 0.5})]


SCENARIO = Path(__file__).parents[2] / "config" / "scenarios" / "links.yaml"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("code: 4", "code: 3", r"faults\[8\]\.args\.code: the argument code.*one of 2, 4, 6"),
        ("code: 4", "cod: 4", r"faults\[8\]\.args\.cod: .*Did you mean code"),
        ("{probability: 0.1}", "{}", r"faults\[0\]\.args: drop needs the argument probability"),
    ],
)
def test_a_wrong_argument_is_told_where_it_stands(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = SCENARIO.read_text(encoding="utf-8")
    line = text[: text.index(old)].count("\n") + 1
    path = tmp_path / "wrong.yaml"
    text = text.replace(old, new, 1)
    path.write_text(text.replace("../", f"{SCENARIO.parents[1].as_posix()}/"), encoding="utf-8")
    with pytest.raises(ScenarioError, match=rf"wrong\.yaml:{line}:\d+ {said}"):
        load_scenario(path)


@pytest.mark.parametrize("name", KINDS)
def test_the_json_schema_holds_what_the_table_holds(name: str) -> None:
    kind, sections = KINDS[name], ScenarioFile.model_json_schema()["$defs"]
    schema = {"$defs": sections, "$ref": "#/$defs/FaultSection"}
    told = jsonschema.Draft202012Validator(schema)

    def fits(args: dict[str, float], fault: str = name) -> bool:
        return told.is_valid({"at": 0, "until": 1, "target": "any", "type": fault, "args": args})

    args = {arg: LIKELY[arg] for arg in kind.arguments}
    assert fits(args)
    assert not fits(args, name + "x")
    assert not fits({**args, "colour": 1.0})
    for arg, span in kind.arguments.items():
        assert fits({key: v for key, v in args.items() if key != arg}) == (arg not in kind.required)
        for value in (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 65.0, 255.0, 65536.0):
            assert fits({**args, arg: value}) == span.holds(value), (arg, value)


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
            args = {arg: LIKELY[arg] for arg in KINDS[name].arguments}
            sensors.begin(tag, name, args)
            seen += [sensors.apply(t, value, 1.0) for _ in range(scans) for t in ("PV", "DV")]
        for name, tag, _ in story:
            sensors.end(tag, name)
        assert not sensors.active
        assert sensors.apply("PV", value, 1.0) == sensors.apply("DV", value, 1.0) == value
        return seen

    first = run()
    assert repr(first) == repr(run())


WORDS = DeviceMemory(
    "plc",
    [
        Tag("raw", "plc", "DB1.DBW0:INT", "int16", scale=0.01, offset=-50.0),
        Tag("count", "plc", "DB1.DBW2:UINT", "uint16"),
        Tag("level", "plc", "DB1.DBD4:REAL", "float32"),
        Tag("down", "plc", "DB1.DBW8:INT", "int16", scale=-1.0),
    ],
)


@pytest.mark.parametrize(
    ("tag", "fault", "args", "published"),
    [
        ("raw", "bias", {"size": 1e4}, 277.67),
        ("raw", "drift", {"rate_per_s": -1e6}, -377.68),
        ("count", "out_of_range", {"value": 60_000.0}, 60_000.0),
        ("count", "bias", {"size": -100.0}, 0.0),
        ("down", "bias", {"size": 1e9}, 32768.0),
        ("level", "bias", {"size": 1e300}, 3.4028234663852886e38),
    ],
)
def test_a_word_of_the_plc_ends_at_its_largest_value(
    tag: str, fault: str, args: dict[str, float], published: float
) -> None:
    sensors = SensorFaults(0, [WORDS])
    sensors.begin(tag, fault, args)
    value = sensors.apply(tag, 50.0, 1.0)
    assert value == pytest.approx(published, rel=1e-12)
    WORDS.set(tag, value)
    assert WORDS.get(tag) == pytest.approx(published, rel=1e-6)


@pytest.mark.parametrize(
    ("tag", "fault", "args", "text"),
    [
        ("MODE", "nan", {}, r"target: the type of MODE in the PLC cannot be nan"),
        ("MODE", "out_of_range", {"value": -1.0}, r"args.value: the type of MODE .*cannot be -1"),
        ("PV", "out_of_range", {"value": 1e39}, r"args.value: the type of PV .*cannot be 1e\+39"),
    ],
)
def test_a_value_that_the_plc_cannot_show_is_refused_before_the_run(
    tag: str, fault: str, args: dict[str, float], text: str
) -> None:
    bench = Bench()
    plc = bench.plc
    plc.measured_tags = ("PV", "DV", "MODE")
    with pytest.raises(ScenarioError, match=text):
        FaultSchedule([Fault(0, 1, tag, fault, args)], plc, plc.sensors, {})
    FaultSchedule([Fault(0, 1, "PV", "nan")], plc, plc.sensors, {})


def test_what_lies_inside_the_range_of_a_tag_is_not_out_of_it() -> None:
    tags = [
        Tag("T", "plc", "DB1.DBD0:REAL", "float32", unit="degC", low=0.0, high=150.0),
        Tag("P", "plc", "DB1.DBD4:REAL", "float32", unit="bar", low=0.0),
        Tag("X", "plc", "DB1.DBD8:REAL", "float32"),
    ]
    sensors = SensorFaults(0, [DeviceMemory("plc", tags)])
    assert sensors.objection("T", 149.0) == "149 lies inside the range of T, [0, 150] degC"
    assert sensors.objection("P", 1e6) == "1e+06 lies inside the range of P, [0, inf] bar"
    free = [("T", 150.1), ("T", -0.1), ("P", -1.0), ("X", 5.0), ("elsewhere", 5.0), ("T", math.nan)]
    assert [sensors.objection(*spot) for spot in free] == [""] * len(free)


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
