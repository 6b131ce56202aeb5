"""The witness on the wire: frames made by hand, and every rule bites."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.settings import load
from controller.signal import Tag
from hil.link.frames import Framer, UndecodableFrame, WireWrite, writes_in
from hil.link.watch import Permit, Role, Rule, WireWatch, permits_of

S7_TAGS = {
    "R.HB": Tag("R.HB", "reactor", "DB20.DBW0:UINT", "uint16"),
    "R.SEQ": Tag("R.SEQ", "reactor", "DB20.DBW2:UINT", "uint16"),
    "R.EPOCH": Tag("R.EPOCH", "reactor", "DB20.DBW4:UINT", "uint16"),
    "TR.REQ": Tag("TR.REQ", "reactor", "DB20.DBW6:UINT", "uint16"),
    "TR.SP": Tag("TR.SP", "reactor", "DB20.DBD8:REAL", "float32", low=70, high=100, unit="degC"),
}
FB_SP = Tag(
    "FB.SP", "skid", "holding:104:float32", "float32", byte_order="CDAB", low=3, high=6, unit="kg/s"
)
FB_REQ = Tag("FB.REQ", "skid", "holding:103:uint16", "uint16")
FB_BIT = Tag("FB.BIT", "skid", "coil:3", "bool")
PERMITS = (
    Permit(S7_TAGS["R.HB"], Role.HEARTBEAT),
    Permit(S7_TAGS["R.SEQ"], Role.SEQUENCE),
    Permit(S7_TAGS["R.EPOCH"], Role.EPOCH),
    Permit(S7_TAGS["TR.REQ"], Role.REQUEST),
    Permit(S7_TAGS["TR.SP"], Role.SETPOINT, 0.25, "TR.REQ", 0.01),
    Permit(FB_REQ, Role.REQUEST),
    Permit(FB_SP, Role.SETPOINT, 0.05, "FB.REQ", 0.001),
    Permit(FB_BIT, Role.REQUEST),
)
IN_USE = {"TR.SP": 80.0, "FB.SP": 4.5}


def _watch() -> WireWatch:
    return WireWatch(
        {"reactor": "s7", "skid": "modbus"}, PERMITS, now_ns=lambda: 42, in_use=IN_USE.__getitem__
    )


def _s7(*items: tuple[bytes, bytes]) -> bytes:
    """A write-var job; each item is its 12-byte address and its data section."""
    parameter = bytes([5, len(items)]) + b"".join(address for address, _ in items)
    data = b""
    for number, (_, value) in enumerate(items):
        data += value + b"\0" * (len(value) % 2 if number < len(items) - 1 else 0)
    header = struct.pack(">BBHHHH", 0x32, 1, 0, 7, len(parameter), len(data))
    payload = b"\x02\xf0\x80" + header + parameter + data
    return struct.pack(">BBH", 3, 0, 4 + len(payload)) + payload


def _bytes_item(db: int, byte: int, value: bytes) -> tuple[bytes, bytes]:
    address = struct.pack(">BBBBHHB", 0x12, 0x0A, 0x10, 2, len(value), db, 0x84)
    return (
        address + (byte * 8).to_bytes(3, "big"),
        struct.pack(">BBH", 0, 4, 8 * len(value)) + value,
    )


def _block(
    heartbeat: int, setpoint: float = 80.0, request: int = 1, epoch: int = 9, sequence: int = 1
) -> bytes:
    words = struct.pack(">4Hf", heartbeat, sequence, epoch, request, setpoint)
    return _s7(_bytes_item(20, 0, words))


def _modbus(pdu: bytes) -> bytes:
    return struct.pack(">HHHB", 1, 0, 1 + len(pdu), 1) + pdu


def _registers(first: int, values: bytes) -> bytes:
    count = len(values) // 2
    return _modbus(struct.pack(">BHHB", 16, first, count, len(values)) + values)


def _cdab(value: float) -> bytes:
    raw = struct.pack(">f", value)
    return raw[2:] + raw[:2]


def _skid(request: int, setpoint: float) -> bytes:
    return _registers(103, struct.pack(">H", request) + _cdab(setpoint))


def _rules(device: str, *frames: bytes) -> list[Rule]:
    watch = _watch()
    for frame in frames:
        watch.listener(device)("to_plc", frame)
    return [violation.rule for violation in watch.violations]


def test_a_well_behaved_controller_is_left_alone() -> None:
    watch = _watch()
    hear = watch.listener("reactor")
    hear("to_plc", bytes.fromhex("0300001611e00000000100c0010ac1020100c2020101"))  # COTP connect
    setpoints = [80.0, 80.2, 80.4, 80.2]
    for heartbeat, setpoint in enumerate(setpoints, start=65534):
        hear("to_plc", _block(heartbeat % 65536, setpoint))
    hear("from_plc", b"an answer is not judged")
    hear_skid = watch.listener("skid")
    for setpoint in (4.5, 4.55, 4.6):
        hear_skid("to_plc", _skid(1, setpoint))
    hear_skid("to_plc", _modbus(struct.pack(">BHH", 3, 120, 14)))
    assert watch.violations == ()
    assert watch.writes == 7


def test_reads_and_their_kin_write_nothing() -> None:
    read = b"\x04\x01" + _bytes_item(20, 20, b"\0" * 22)[0]
    header = struct.pack(">BBHHHH", 0x32, 1, 0, 7, len(read), 0)
    payload = b"\x02\xf0\x80" + header + read
    assert writes_in("s7", struct.pack(">BBH", 3, 0, 4 + len(payload)) + payload) == ()


@pytest.mark.parametrize(
    ("pdu", "write"),
    [
        (b"\x05\x00\x03\xff\x00", WireWrite("coil", 3, b"\1")),
        (b"\x05\x00\x03\x00\x00", WireWrite("coil", 3, b"\0")),
        (b"\x06\x00\x67\x00\x01", WireWrite("holding", 206, b"\0\1")),
        (b"\x0f\x00\x02\x00\x03\x01\x05", WireWrite("coil", 2, b"\1\0\1")),
        (b"\x10\x00\x67\x00\x01\x02\x00\x01", WireWrite("holding", 206, b"\0\1")),
        (b"\x17\x00\x00\x00\x01\x00\x67\x00\x01\x02\x00\x01", WireWrite("holding", 206, b"\0\1")),
    ],
)
def test_modbus_write_functions_are_decoded(pdu: bytes, write: WireWrite) -> None:
    assert writes_in("modbus", _modbus(pdu)) == (write,)


def test_s7_items_are_decoded_with_padding_and_single_bits() -> None:
    bit = (
        struct.pack(">BBBBHHB", 0x12, 0x0A, 0x10, 1, 1, 20, 0x84) + (8 * 7 + 3).to_bytes(3, "big"),
        b"\0\x03\0\x01\x01",
    )
    frame = _s7(bit, _bytes_item(21, 2, b"\x2a"), _bytes_item(20, 8, b"\1\2\3\4"))
    assert writes_in("s7", frame) == (
        WireWrite("DB20", 7, b"\1", 3),
        WireWrite("DB21", 2, b"\x2a"),
        WireWrite("DB20", 8, b"\1\2\3\4"),
    )


def test_address_outside_the_allow_list() -> None:
    assert _rules("reactor", _s7(_bytes_item(20, 12, b"\0\0"))) == [Rule.ALLOW_LIST]
    assert _rules("reactor", _s7(_bytes_item(21, 0, b"\0\0"))) == [Rule.ALLOW_LIST]
    too_long = struct.pack(">4HfH", 1, 1, 9, 0, 80.0, 0)
    assert _rules("reactor", _s7(_bytes_item(20, 0, too_long))) == [Rule.ALLOW_LIST]
    assert _rules("skid", _modbus(b"\x06\x00\x78\x00\x01")) == [Rule.ALLOW_LIST]
    assert _rules("skid", _modbus(b"\x05\x00\x04\xff\x00")) == [Rule.ALLOW_LIST]
    assert _rules("skid", _modbus(b"\x05\x00\x03\xff\x00")) == []


def test_a_part_of_a_value_is_torn() -> None:
    assert _rules("reactor", _s7(_bytes_item(20, 8, b"\x42\xa0"))) == [Rule.TORN]
    assert _rules("skid", _modbus(b"\x06\x00\x68\x00\x00")) == [Rule.TORN]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_setpoint_that_is_no_number(value: float) -> None:
    assert _rules("reactor", _block(1, value, request=0)) == [Rule.NOT_FINITE]
    assert _rules("skid", _skid(0, value)) == [Rule.NOT_FINITE]


def test_a_setpoint_out_of_range() -> None:
    assert _rules("reactor", _block(1, 69.9, request=0)) == [Rule.RANGE]
    assert _rules("skid", _skid(0, 6.01)) == [Rule.RANGE]


def test_a_wrong_word_order_is_seen() -> None:
    wrong = struct.pack(">H", 1) + struct.pack(">f", 4.5)
    assert Rule.RANGE in _rules("skid", _registers(103, wrong))


def test_a_step_larger_than_the_rate_allows() -> None:
    assert _rules("reactor", _block(1), _block(2, 80.25), _block(3, 80.5)) == []
    assert _rules("reactor", _block(1), _block(2, 80.26)) == [Rule.STEP]
    assert _rules("skid", _skid(1, 4.5), _skid(1, 4.4)) == [Rule.STEP]


def test_going_back_to_the_setpoint_in_use_is_no_step() -> None:
    frames = [_block(1), _block(2, 80.25), _block(3, 80.5), _block(4, 80.0)]
    assert _rules("reactor", *frames) == []


def test_the_first_setpoint_must_be_the_one_in_use() -> None:
    assert _rules("reactor", _block(1, 80.2)) == [Rule.BUMP]
    assert _rules("reactor", _block(1, 75.0, request=0), _block(2, 80.005)) == []
    after_release = [_block(1), _block(2, 80.25), _block(3, 80.25, request=0), _block(4, 80.25)]
    assert _rules("reactor", *after_release) == [Rule.BUMP]


def test_a_request_without_setpoint_or_with_a_strange_value() -> None:
    assert _rules("skid", _registers(103, b"\0\1")) == [Rule.REQUEST]
    assert _rules("skid", _skid(2, 4.5)) == [Rule.REQUEST]


def test_the_heartbeat_must_rise() -> None:
    assert _rules("reactor", _block(65535, request=0), _block(3, request=0)) == []
    assert _rules("reactor", _block(5, request=0), _block(5, request=0)) == [Rule.HEARTBEAT]
    assert _rules("reactor", _block(5, request=0), _block(4, request=0)) == [Rule.HEARTBEAT]
    restarted = [_block(5, request=0, epoch=1), _block(1, request=0, epoch=2)]
    assert _rules("reactor", *restarted) == []


@pytest.mark.parametrize(
    ("device", "frame"),
    [
        ("reactor", b"garbage"),
        ("reactor", _block(1)[:-1]),
        ("reactor", _block(1)[:19] + b"\x00" + _block(1)[20:]),
        ("reactor", bytes.fromhex("0300001902f0803201000000070008000028000000000000fd")),
        ("skid", b"short"),
        ("skid", _modbus(b"\x16\x00\x67\xff\xff\x00\x00")),
        ("skid", _modbus(b"\x05\x00\x03\x12\x34")),
        ("skid", _modbus(b"\x10\x00\x67\x00\x02\x02\x00\x01")),
    ],
)
def test_what_cannot_be_understood_is_a_violation(device: str, frame: bytes) -> None:
    assert _rules(device, frame) == [Rule.UNDECODABLE]


def test_a_violation_says_when_where_and_what() -> None:
    watch = _watch()
    watch.listener("skid")("to_plc", _skid(0, 9.0))
    assert str(watch.violations[0]) == "42 ns skid FB.SP range: 9.0 outside [3, 6] kg/s"


@given(st.binary(max_size=120))
def test_no_bytes_can_upset_the_decoder(noise: bytes) -> None:
    whole = _block(1)
    for driver, frame in (
        ("s7", noise),
        ("s7", whole[:17] + noise),
        ("s7", struct.pack(">BBH", 3, 0, 7 + len(noise)) + b"\x02\xf0\x80" + noise),
        ("modbus", struct.pack(">HHHB", 1, 0, 1 + len(noise), 1) + noise),
    ):
        try:
            writes = writes_in(driver, frame)
        except UndecodableFrame:
            continue
        assert all(write.data or write.area for write in writes)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_framing_survives_any_cut_of_the_stream(cuts: list[int]) -> None:
    for driver, frames in (
        ("s7", [_block(n) for n in range(3)]),
        ("modbus", [_skid(1, 4.5), _modbus(b"\x03\0\0\0\1"), _skid(0, 5.0)]),
    ):
        stream = b"".join(frames)
        framer = Framer(driver)
        got: list[bytes] = []
        position = 0
        for size in [*cuts, len(stream)]:
            chunk = stream[position : position + size]
            position += size
            if chunk:
                got += framer.frames(chunk)
        assert got == frames


def test_a_stream_of_another_protocol_passes_whole() -> None:
    assert Framer("s7").frames(b"GET / HTTP/1.1") == [b"GET / HTTP/1.1"]
    assert Framer("modbus").frames(b"GET / HTTP/1.1") == [b"GET / HTTP/1.1"]


def test_the_permits_of_an_application_are_its_writable_tags() -> None:
    settings = load(Path(__file__).parents[2] / "config/williams_otto/williams-otto.yaml")
    permits = {permit.tag.name: permit for permit in permits_of(settings)}
    writable = {tag.name for tag in settings.tags.values() if tag.access == "write"}
    assert set(permits) == writable
    feed = permits["FB.SP"]
    assert (feed.role, feed.request, feed.tolerance) == (Role.SETPOINT, "FB.REQ", 0.001)
    assert feed.step_max == pytest.approx(0.05)
