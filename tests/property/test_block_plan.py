"""The block plan: every tag exactly once, no value cut in two, no request too large."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.drivers.block_plan import (
    Block,
    Limits,
    modbus_limits,
    place,
    plan_reads,
    s7_limits,
)
from controller.drivers.write_plan import WritePlan, plan_write
from controller.errors import SettingsError, WriteRefused
from controller.signal import Tag

# Wall-clock deadlines would fail on a busy machine, not on a wrong program.
SHORT = settings(max_examples=50, deadline=None)
S7_PLACES = {"BYTE": ("B", 1), "INT": ("W", 2), "REAL": ("D", 4), "LREAL": ("B", 8)}
S7_NAMES = {"BYTE": "uint8", "INT": "int16", "REAL": "float32", "LREAL": "float64"}
REGISTERS = {"int16": 1, "float32": 2, "float64": 4}


@st.composite
def s7_tags(draw: st.DrawFn) -> list[Tag]:
    tags: list[Tag] = []
    for index in range(draw(st.integers(0, 40))):
        db = draw(st.integers(1, 2))
        byte = draw(st.integers(0, 3000))
        kind = draw(st.sampled_from(["BOOL", *S7_PLACES]))
        if kind == "BOOL":
            text, type_ = f"DB{db}.DBX{byte}.{draw(st.integers(0, 7))}:BOOL", "bool"
        else:
            text, type_ = f"DB{db}.DB{S7_PLACES[kind][0]}{byte}:{kind}", S7_NAMES[kind]
        tags.append(Tag(f"t{index}", "plc", text, type_))
    return tags


@st.composite
def modbus_tags(draw: st.DrawFn) -> list[Tag]:
    tags: list[Tag] = []
    for index in range(draw(st.integers(0, 40))):
        if draw(st.booleans()):
            tags.append(Tag(f"t{index}", "d", f"coil:{draw(st.integers(0, 5000))}", "bool"))
            continue
        area = draw(st.sampled_from(["holding", "input"]))
        type_ = draw(st.sampled_from(sorted(REGISTERS)))
        order = draw(st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
        text = f"{area}:{draw(st.integers(0, 900))}:{type_}"
        tags.append(Tag(f"t{index}", "d", text, type_, order))
    return tags


def check(blocks: tuple[Block, ...], tags: list[Tag], limits: Limits) -> None:
    names = [name for block in blocks for name in block.names]
    assert sorted(names) == sorted(tag.name for tag in tags)
    for block in blocks:
        request = block.request
        assert 1 <= request.count <= limits.largest_read(request.region)
        stop = request.start
        for item in block.items:
            assert item.region == request.region
            assert request.start <= item.start
            assert item.stop <= request.stop
            assert item.start - stop <= limits.gap
            stop = max(stop, item.stop)


@SHORT
@given(tags=s7_tags(), pdu=st.sampled_from([112, 240, 480, 960]))
def test_an_s7_plan_covers_every_tag_once_within_the_pdu(tags: list[Tag], pdu: int) -> None:
    limits = s7_limits(pdu)
    blocks = plan_reads((place("s7", tag) for tag in tags), limits)
    check(blocks, tags, limits)
    for block in blocks:
        assert block.request.count <= pdu - 18


@SHORT
@given(tags=modbus_tags(), gap=st.integers(0, 20), size=st.integers(4, 125))
def test_a_modbus_plan_covers_every_tag_once_within_its_limits(
    tags: list[Tag], gap: int, size: int
) -> None:
    limits = modbus_limits(max_gap=gap, max_read=size)
    check(plan_reads((place("modbus", tag) for tag in tags), limits), tags, limits)


@SHORT
@given(tags=modbus_tags(), first=st.integers(0, 900), width=st.integers(0, 9))
def test_no_request_touches_a_forbidden_register(tags: list[Tag], first: int, width: int) -> None:
    last = first + width
    items = [place("modbus", tag) for tag in tags]
    allowed = [
        item
        for item in items
        if item.region.unit_bytes == 1 or item.stop <= first or item.start > last
    ]
    limits = modbus_limits(max_gap=20, forbidden=((first, last),))
    for block in plan_reads(allowed, limits):
        request = block.request
        assert request.region.unit_bytes == 1 or request.stop <= first or request.start > last
    if len(allowed) < len(items):
        with pytest.raises(SettingsError, match="forbidden"):
            plan_reads(items, limits)


@SHORT
@given(tags=modbus_tags(), memory=st.binary(min_size=2048, max_size=2048))
def test_a_block_decodes_as_its_tags_do_one_by_one(tags: list[Tag], memory: bytes) -> None:
    limits = modbus_limits()
    for block in plan_reads((place("modbus", tag) for tag in tags), limits):
        data = bytes(memory[index % 2048] for index in range(block.request.size))
        unit = block.request.region.unit_bytes
        for item, value in zip(block.items, block.decode(data), strict=True):
            alone = item.codec.decode(data, (item.start - block.request.start) * unit)
            both_nan = value != value and alone != alone
            assert value == alone or both_nan


@SHORT
@given(tags=s7_tags())
def test_halving_a_block_keeps_every_tag(tags: list[Tag]) -> None:
    for block in plan_reads((place("s7", tag) for tag in tags), s7_limits(480)):
        halves = block.split()
        assert sorted(name for half in halves for name in half.names) == sorted(block.names)
        assert all(half.request.count <= block.request.count for half in halves)


def test_neighbours_are_read_at_once_and_strangers_apart() -> None:
    tags = [Tag(f"t{i}", "plc", f"DB1.DBD{4 * i}:REAL", "float32") for i in range(100)]
    far = Tag("far", "plc", "DB1.DBD413:REAL", "float32")
    blocks = plan_reads((place("s7", tag) for tag in (*tags, far)), s7_limits(480))
    assert [str(block.request) for block in blocks] == ["DB1 0–399", "DB1 413–416"]
    near = Tag("near", "plc", "DB1.DBD412:REAL", "float32")
    blocks = plan_reads((place("s7", tag) for tag in (*tags, near)), s7_limits(480))
    assert [str(block.request) for block in blocks] == ["DB1 0–415"]


def test_the_pdu_formula_gives_the_known_payloads() -> None:
    assert (s7_limits(480).read, s7_limits(480).write) == (462, 445)


def written(*tags: tuple[str, str, str], driver: str = "modbus") -> WritePlan | None:
    items = [place(driver, Tag(n, "d", a, t, access="write")) for n, a, t in tags]
    limits = modbus_limits(forbidden=((200, 210),)) if driver == "modbus" else s7_limits(960)
    return plan_write(items, limits)


def test_setpoint_heartbeat_and_sequence_go_in_one_request() -> None:
    plan = written(
        ("SP", "holding:102:float32", "float32"),
        ("HB", "holding:100:uint16", "uint16"),
        ("SEQ", "holding:101:uint16", "uint16"),
    )
    assert plan is not None
    assert str(plan.request) == "holding 100–103"
    frame = plan.encode({"HB": 1.0, "SEQ": 2.0, "SP": 3.5})
    assert frame == struct.pack(">HHf", 1, 2, 3.5)


@pytest.mark.parametrize(
    ("driver", "tags", "complaint"),
    [
        ("modbus", ["A=holding:1:uint16", "B=holding:3:uint16"], "A .* and B .* lies holding 2"),
        ("s7", ["A=DB1.DBW0:UINT", "B=DB1.DBD4:REAL"], "lies DB1 2–3"),
        ("s7", ["A=DB1.DBD0:REAL", "B=DB1.DBW2:UINT"], "A .* and B .* overlap"),
        ("s7", ["A=DB1.DBW0:UINT", "B=DB2.DBW2:UINT"], "cannot go in one request"),
        ("s7", ["A=DB1.DBX0.0:BOOL"], "overwrite its 7 neighbours"),
        ("modbus", ["A=holding:1.3:bool"], "overwrite its 15 neighbours"),
        ("modbus", ["A=input:1:uint16"], "cannot be written"),
        ("modbus", ["A=holding:205:uint16"], "forbidden"),
        ("modbus", ["A=holding:5:string[4]"], "text"),
        ("modbus", [f"T{i}=holding:{4 * i}:float64" for i in range(31)], "need 124 addresses"),
    ],
)
def test_an_unsafe_write_layout_is_a_settings_error(
    driver: str, tags: list[str], complaint: str
) -> None:
    from controller.drivers.address import describe_type

    triples = [
        (name, address, describe_type(driver, address))
        for name, address in (text.split("=") for text in tags)
    ]
    with pytest.raises(SettingsError, match=complaint) as caught:
        written(*triples, driver=driver)
    assert caught.value.mend


def test_bits_that_fill_their_byte_are_composed() -> None:
    plan = written(*((f"B{i}", f"DB1.DBX6.{i}:BOOL", "bool") for i in range(8)), driver="s7")
    assert plan is not None
    assert plan.encode({f"B{i}": float(i in (0, 5)) for i in range(8)}) == b"\x21"
    assert plan.differences(b"\x21", b"\x20") == ("B0: wrote True, reads back False",)


def test_coils_are_written_side_by_side() -> None:
    plan = written(("A", "coil:7", "bool"), ("B", "coil:8", "bool"))
    assert plan is not None
    assert plan.encode({"A": 0.0, "B": 1.0}) == b"\x00\x01"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"SP": 1.0}, "without a value: HB"),
        ({"SP": 1.0, "HB": 1.0, "X": 0.0}, "not a write tag: X"),
        ({"SP": math.nan, "HB": 1.0}, "finite"),
    ],
)
def test_a_frame_is_written_whole_or_not_at_all(values: dict[str, float], complaint: str) -> None:
    plan = written(("HB", "holding:1:uint16", "uint16"), ("SP", "holding:2:float32", "float32"))
    assert plan is not None
    with pytest.raises(WriteRefused, match=complaint):
        plan.encode(values)


def test_a_device_without_write_tags_has_no_write_plan() -> None:
    assert plan_write([], s7_limits(480)) is None
