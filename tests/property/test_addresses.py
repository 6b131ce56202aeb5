"""Addresses parse to one meaning, and values survive the way to the wire and back."""

from __future__ import annotations

import math
import struct
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.drivers.address import (
    BITS,
    S7_TYPES,
    describe_type,
    parse_modbus,
    parse_s7,
)
from controller.drivers.codec import TagCodec, codec_for
from controller.errors import SettingsError, WriteRefused
from controller.signal import ByteOrder, Tag

# Wall-clock deadlines would fail on a busy machine, not on a wrong program.
SHORT = settings(max_examples=40, deadline=None)
ORDERS: tuple[ByteOrder, ...] = ("ABCD", "CDAB", "BADC", "DCBA")
LETTER = {1: "B", 2: "W", 4: "D", 8: "B"}
NUMBERS = sorted(set(BITS) - {"bool"})


def s7_text(keyword: str, db: int, byte: int, bit: int) -> str:
    if keyword == "BOOL":
        return f"DB{db}.DBX{byte}.{bit}:BOOL"
    return f"DB{db}.DB{LETTER[BITS[S7_TYPES[keyword]] // 8]}{byte}:{keyword}"


def codec(
    type_: str,
    order: ByteOrder = "ABCD",
    *,
    driver: str = "modbus",
    scale: float = 1.0,
    offset: float = 0.0,
    low: float = -math.inf,
    high: float = math.inf,
) -> TagCodec:
    if driver == "s7":
        keyword = next(word for word, name in S7_TYPES.items() if name == type_)
        address = s7_text(keyword, 1, 0, 0)
    else:
        address = f"holding:100{'.11' if type_ == 'bool' else ''}:{type_}"
    tag = Tag("T", "plc", address, type_, order, scale=scale, offset=offset, low=low, high=high)
    return codec_for(driver, tag)


def raw_numbers(type_: str) -> st.SearchStrategy[float]:
    if type_.startswith("float"):
        return st.floats(width=32 if type_ == "float32" else 64, allow_infinity=False)
    bits, signed = BITS[type_], not type_.startswith("u")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high)


@SHORT
@given(
    keyword=st.sampled_from(sorted(S7_TYPES)),
    db=st.integers(1, 65535),
    byte=st.integers(0, 65000),
    bit=st.integers(0, 7),
)
def test_an_s7_address_has_one_canonical_form(keyword: str, db: int, byte: int, bit: int) -> None:
    address = parse_s7(s7_text(keyword, db, byte, bit))
    assert (address.area, address.db, address.byte) == ("DB", db, byte)
    assert address.bit == (bit if keyword == "BOOL" else 0)
    assert parse_s7(address.canonical) == address
    comma = f"db{db},{keyword.lower()}{byte}" + (f".{bit}" if keyword == "BOOL" else "")
    assert parse_s7(comma) == address


@SHORT
@given(
    area=st.sampled_from(["holding", "input"]),
    register=st.integers(0, 65000),
    type_=st.sampled_from([*NUMBERS, "string[7]"]),
)
def test_a_modbus_address_has_one_canonical_form(area: str, register: int, type_: str) -> None:
    address = parse_modbus(f"{area}:{register}:{type_}")
    assert (address.area, address.register, address.type) == (area, register, type_)
    assert parse_modbus(address.canonical) == address
    numbered = f"{'4' if area == 'holding' else '3'}{register + 1:05d}:{type_}"
    assert parse_modbus(numbered) == address


@pytest.mark.parametrize(
    ("driver", "text", "type_"),
    [
        ("s7", "DB10.DBD4:REAL", "float32"),
        ("s7", "DB10.DBX2.3:BOOL", "bool"),
        ("s7", "DB10.DBX2.3", "bool"),
        ("s7", "DB10,REAL4", "float32"),
        ("s7", "MW20:INT", "int16"),
        ("s7", "EW64:WORD", "uint16"),
        ("s7", "QB3:BYTE", "uint8"),
        ("s7", "DB1.DBB8:LREAL", "float64"),
        ("s7", "DB1.DBX8.0:LINT", "int64"),
        ("s7", "DB1.DBB4:STRING[20]", "string[20]"),
        ("modbus", "holding:100:float32", "float32"),
        ("modbus", "40001", "uint16"),
        ("modbus", "465536:int16", "int16"),
        ("modbus", "40001.15:bool", "bool"),
        ("modbus", "00003", "bool"),
        ("modbus", "discrete:12", "bool"),
    ],
)
def test_the_address_decides_the_type(driver: str, text: str, type_: str) -> None:
    assert describe_type(driver, text) == type_


@pytest.mark.parametrize(
    ("driver", "text", "complaint"),
    [
        ("s7", "DB0.DBW2:INT", "DB numbers"),
        ("s7", "DB1.DBD4", "does not say the type"),
        ("s7", "DB1.DBW4:REAL", "needs 4 bytes"),
        ("s7", "DB1.DBX4:BOOL", "a bit from 0 to 7"),
        ("s7", "DB1.DBX4.8", "a bit from 0 to 7"),
        ("s7", "DB1.DBX4.1:INT", "starts at bit 0"),
        ("s7", "DB1.DBX4.0:INT", "X names a bit"),
        ("s7", "M2:INT", "does not say B, W or D"),
        ("s7", "DB1.DBD4:FLOAT", "not a known S7 type"),
        ("s7", "DB1.DBW65535:INT", "ends behind"),
        ("s7", "DB1,STRING[255]0", "1 to 254 characters"),
        ("s7", "holding:1", "not an S7 address"),
        ("modbus", "40000", "count from 1"),
        ("modbus", "465537", "ends behind"),
        ("modbus", "20001", "not a Modbus address"),
        ("modbus", "holding:1:bool", "needs its bit"),
        ("modbus", "holding:1.16", "needs its bit"),
        ("modbus", "holding:1.2:int16", "only a bool has one"),
        ("modbus", "coil:2:int16", "a single bool"),
        ("modbus", "holding:2:real", "not a known type"),
        ("modbus", "holding:2:string[300]", "1 to 246 characters"),
        ("opcua", "ns=2;s=X", "no driver"),
    ],
)
def test_a_wrong_address_is_named_with_the_way_to_mend_it(
    driver: str, text: str, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        describe_type(driver, text)
    assert caught.value.mend


@SHORT
@given(text=st.text(max_size=30), driver=st.sampled_from(["s7", "modbus"]))
def test_no_text_breaks_the_parser(text: str, driver: str) -> None:
    try:
        type_ = describe_type(driver, text)
    except SettingsError as error:
        mend = error.mend
    else:
        mend = type_
    assert mend


@pytest.mark.parametrize(("type_", "order"), list(product(NUMBERS, ORDERS)))
@SHORT
@given(data=st.data())
def test_every_type_survives_every_byte_order(
    type_: str, order: ByteOrder, data: st.DataObject
) -> None:
    raw = data.draw(raw_numbers(type_))
    one = codec(type_, order)
    buffer = bytearray(b"\xa5" * (one.span + 6))
    one.pack_into(buffer, 4, raw)
    back = one.decode(buffer, 4)
    assert back == raw or (math.isnan(raw) and isinstance(back, float) and math.isnan(back))
    assert buffer[:4] == b"\xa5" * 4
    assert buffer[4 + one.span :] == b"\xa5" * 2


@pytest.mark.parametrize(
    ("order", "wire"),
    [
        ("ABCD", "01020304"),
        ("CDAB", "03040102"),
        ("BADC", "02010403"),
        ("DCBA", "04030201"),
    ],
)
def test_byte_orders_mean_what_their_letters_say(order: ByteOrder, wire: str) -> None:
    assert codec("uint32", order).encode(0x01020304).hex() == wire


@SHORT
@given(
    raw=st.integers(-32768, 32767),
    scale=st.sampled_from([0.1, -0.5, 0.01, 2.0, 1e-3]),
    offset=st.sampled_from([0.0, -40.0, 273.15]),
    driver=st.sampled_from(["s7", "modbus"]),
)
def test_scaled_integers_come_back_as_the_same_count(
    raw: int, scale: float, offset: float, driver: str
) -> None:
    one = codec("int16", driver=driver, scale=scale, offset=offset)
    wire = struct.pack(">h", raw)
    value = one.decode(wire)
    assert isinstance(value, float)
    assert value == pytest.approx(raw * scale + offset)
    assert one.encode(value) == wire


@SHORT
@given(
    value=st.floats(-1e6, 1e6),
    scale=st.sampled_from([1.0, 0.1, -3.0, 100.0]),
    offset=st.sampled_from([0.0, 32.0]),
    order=st.sampled_from(ORDERS),
)
def test_scaled_floats_come_back_within_their_resolution(
    value: float, scale: float, offset: float, order: ByteOrder
) -> None:
    one = codec("float32", order, scale=scale, offset=offset)
    back = one.decode(one.encode(value))
    assert back == pytest.approx(value, rel=1e-6, abs=1e-5)


@SHORT
@given(
    low=st.floats(-1e4, 1e4),
    width=st.floats(1.0, 1e4),
    place=st.floats(0.0, 1.0),
    scale=st.sampled_from([1.0, 0.1, -0.1]),
    type_=st.sampled_from(["float32", "float64", "int32"]),
)
def test_what_is_written_is_never_outside_the_limits(
    low: float, width: float, place: float, scale: float, type_: str
) -> None:
    high = low + width
    one = codec(type_, scale=scale, low=low, high=high)
    value = min(max(low + place * width, low), high)
    try:
        stored = one.decode(one.encode(value))
    except WriteRefused:
        assert type_ == "int32"
        return
    assert isinstance(stored, (int, float))
    margin = 1e-12 * abs(stored)
    assert low - margin <= stored <= high + margin


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 5.1, -0.1, 1e39, "5", None])
@pytest.mark.parametrize("type_", ["float32", "float64", "uint16"])
def test_what_must_not_be_written_is_refused(value: float, type_: str) -> None:
    with pytest.raises(WriteRefused, match="T "):
        codec(type_, low=0.0, high=5.0).encode(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("uint16", 65536),
        ("uint16", -1),
        ("int8", 128),
        ("uint64", 2**64),
        ("int64", -(2**63) - 1),
        ("float32", 3.5e38),
        ("float64", 10**309),
        ("bool", 2),
    ],
)
def test_what_the_type_cannot_hold_is_refused(type_: str, value: float) -> None:
    with pytest.raises(WriteRefused):
        codec(type_).encode(value)


@SHORT
@given(value=st.booleans(), rest=st.integers(0, 0xFFFF), order=st.sampled_from(ORDERS))
def test_a_bit_leaves_its_neighbours_alone(value: bool, rest: int, order: ByteOrder) -> None:
    one = codec("bool", order)
    buffer = bytearray(struct.pack(">H", rest))
    one.pack_into(buffer, 0, value)
    assert one.decode(buffer) is value
    swapped = order in ("BADC", "DCBA")
    mask = 1 << (3 if swapped else 11)
    assert struct.unpack(">H", buffer)[0] & ~mask == rest & ~mask


@SHORT
@given(text=st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=9))
def test_texts_survive(text: str) -> None:
    s7 = codec_for("s7", Tag("T", "plc", "DB1,STRING[9]0", "string[9]"))
    buffer = bytearray(s7.span)
    s7.pack_into(buffer, 0, text)
    assert (buffer[0], buffer[1]) == (9, len(text))
    assert s7.decode(buffer) == text
    for order in ORDERS:
        skid = codec_for("modbus", Tag("T", "skid", "holding:1:string[9]", "string[9]", order))
        buffer = bytearray(skid.span)
        skid.pack_into(buffer, 0, text)
        assert skid.decode(buffer) == text.rstrip("\0")


@pytest.mark.parametrize(
    ("tag", "driver", "complaint"),
    [
        (Tag("T", "d", "DB1.DBD0:REAL", "int32"), "s7", "address says 'float32'"),
        (Tag("T", "d", "DB1.DBD0:REAL", "float32", "CDAB"), "s7", "byte order CDAB"),
        (Tag("T", "d", "40001", "uint16", scale=0.0), "modbus", "cannot be inverted"),
        (Tag("T", "d", "40001", "uint16", offset=math.nan), "modbus", "cannot be inverted"),
    ],
)
def test_a_tag_that_contradicts_itself_is_a_settings_error(
    tag: Tag, driver: str, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        codec_for(driver, tag)
