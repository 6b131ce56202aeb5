"""Faults of a line, frame by frame and without sockets: who is hit, with what, and how often."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from snap7.datatypes import S7Area, S7WordLen
from snap7.s7protocol import S7Protocol

from controller.errors import ScenarioError
from hil.faults.kinds import Driver, LinkFault
from hil.link.answers import (
    Query,
    ReadSpan,
    modbus_exception,
    payloads_in,
    query_in,
    s7_refusal,
    with_payloads,
)
from hil.link.faults import (
    FrameFaults,
    LineFaults,
    Passage,
    bytes_swapped,
    checked_link_fault,
    words_reversed,
)
from hil.plc_memory import Place

NONE: Mapping[str, float] = {}


def modbus_read(number: int, address: int, count: int, function: int = 3) -> bytes:
    return struct.pack(">HHHBBHH", number, 0, 6, 1, function, address, count)


def modbus_write(number: int, address: int, words: bytes) -> bytes:
    body = struct.pack(">BBHHB", 1, 16, address, len(words) // 2, len(words)) + words
    return struct.pack(">HHH", number, 0, len(body)) + body


def modbus_answer(number: int, data: bytes, function: int = 3) -> bytes:
    return struct.pack(">HHHBBB", number, 0, 3 + len(data), 1, function, len(data)) + data


def tpkt(pdu: bytes) -> bytes:
    return struct.pack(">BBH", 3, 0, 7 + len(pdu)) + b"\x02\xf0\x80" + pdu


def s7_item(db: int, byte: int, count: int, transport: int = 2, bit: int = 0) -> bytes:
    where = (byte << 3 | bit).to_bytes(3, "big")
    return struct.pack(">BBBBHHB", 0x12, 10, 0x10, transport, count, db, 0x84) + where


def s7_job(number: int, function: int, items: list[bytes], data: bytes = b"") -> bytes:
    parameter = bytes((function, len(items))) + b"".join(items)
    header = struct.pack(">BBHHHH", 0x32, 1, 0, number, len(parameter), len(data))
    return tpkt(header + parameter + data)


def s7_answer(number: int, values: list[bytes]) -> bytes:
    data = b""
    for value in values:
        data += b"\0" * (len(data) % 2) + struct.pack(">BBH", 0xFF, 4, 8 * len(value)) + value
    header = struct.pack(">BBHHHHBB", 0x32, 3, 0, number, 2, len(data), 0, 0)
    return tpkt(header + bytes((4, len(values))) + data)


READ: Mapping[Driver, bytes] = {
    "modbus": modbus_read(7, 10, 4),
    "s7": s7_job(7, 4, [s7_item(20, 20, 8)]),
}
SETUP = tpkt(struct.pack(">BBHHHH", 0x32, 1, 0, 1, 8, 0) + bytes((0xF0, 0, 0, 1, 0, 1, 3, 0xC0)))
HELLO = bytes.fromhex("03 00 00 16 11 e0 00 00 00 01 00 c0 01 0a c1 02 01 00 c2 02 01 02")
CODE: Mapping[Driver, tuple[str, Mapping[str, float]]] = {
    "modbus": ("modbus_exception", {"code": 6}),
    "s7": ("s7_error", NONE),
}


def answer(driver: Driver, number: int, data: bytes) -> bytes:
    return modbus_answer(number, data) if driver == "modbus" else s7_answer(number, [data])


def test_what_a_request_reads() -> None:
    assert query_in("modbus", modbus_read(9, 100, 3)) == Query(9, (ReadSpan("holding", 200, 6),))
    assert query_in("modbus", modbus_read(9, 5, 3, 4)) == Query(9, (ReadSpan("input", 10, 6),))
    assert query_in("modbus", modbus_read(9, 5, 3, 1)) == Query(9, (ReadSpan("coil", 5, 3),))
    assert query_in("modbus", modbus_write(9, 5, b"\0\1")) == Query(9, ())
    both = s7_job(4, 4, [s7_item(20, 8, 3, transport=8), s7_item(21, 2, 1, transport=1, bit=5)])
    assert query_in("s7", both) == Query(
        4, (ReadSpan("DB20", 8, 12), ReadSpan("DB21", 2, 1, bit=5))
    )
    assert query_in("s7", s7_job(4, 5, [s7_item(20, 8, 1)], b"\0\4\0\x08\1")) == Query(4, ())
    for frame in (HELLO, SETUP, b"", b"\3", READ["s7"][:20]):
        assert query_in("s7", frame) is None
    assert query_in("modbus", modbus_answer(1, b"\0\1")) is None


def test_the_values_of_several_items_are_found_behind_their_padding() -> None:
    frame = s7_answer(4, [b"abc", b"defg"])
    found = payloads_in("s7", frame)
    assert found is not None
    number, places = found
    assert (number, [frame[place] for place in places]) == (4, [b"abc", b"defg"])
    assert with_payloads(frame, places, [b"ABC", b"DEFG"]) == s7_answer(4, [b"ABC", b"DEFG"])
    with pytest.raises(ValueError, match="2 bytes for 3"):
        with_payloads(frame, places, [b"AB", b"DEFG"])


@pytest.mark.parametrize("code", [0x8104, 0x8701, 0x05])
def test_a_refusal_is_one_to_the_protocol_library(code: int) -> None:
    protocol = S7Protocol()
    pdu = protocol.build_read_request(S7Area.DB, 20, 0, S7WordLen.BYTE, 8)
    refused = s7_refusal(tpkt(pdu), code)
    assert struct.unpack_from(">H", refused, 2)[0] == len(refused)
    assert payloads_in("s7", refused) is None
    if code > 0xFF:
        with pytest.raises(Exception, match="S7 protocol error"):
            protocol.parse_response(refused[7:])
        return
    told = protocol.parse_response(refused[7:])
    protocol.validate_pdu_reference(told["sequence"])
    assert told["data"]["return_code"] == code


def test_an_exception_carries_the_number_of_its_request() -> None:
    assert modbus_exception(modbus_read(0x1234, 10, 4), 6) == bytes.fromhex(
        "1234 0000 0003 01 83 06"
    )


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_without_a_fault_every_frame_passes_as_it_is(driver: Driver) -> None:
    faults = FrameFaults(LineFaults(driver, 0), 1)
    frames = [HELLO, SETUP, READ[driver], b"no such protocol", b""]
    assert [faults.passage("to_plc", f) for f in frames] == [Passage("to_plc", f) for f in frames]
    told = answer(driver, 7, b"abcdefgh")
    assert faults.passage("from_plc", told) == Passage("from_plc", told)


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_a_refused_request_turns_round_and_set_up_passes(driver: Driver) -> None:
    line = LineFaults(driver, 0)
    faults = FrameFaults(line, 1)
    line.begin(*CODE[driver], now_ns=0)
    if driver == "s7":
        assert faults.passage("to_plc", SETUP) == Passage("to_plc", SETUP)
        assert faults.passage("to_plc", HELLO) == Passage("to_plc", HELLO)
    back = faults.passage("to_plc", READ[driver])
    assert back is not None
    assert back.direction == "from_plc"
    assert back.frame != READ[driver]


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_a_stale_answer_has_old_values_under_the_new_number(driver: Driver) -> None:
    line = LineFaults(driver, 0)
    faults = FrameFaults(line, 1)
    faults.passage("to_plc", READ[driver])
    faults.passage("from_plc", answer(driver, 7, b"old word"))
    line.begin("stale_image", NONE, now_ns=0)
    later = FrameFaults(line, 2)  # the image outlives the connection
    again = bytearray(READ[driver])
    again[12 if driver == "s7" else 1] = 8
    later.passage("to_plc", bytes(again))
    assert later.passage("from_plc", answer(driver, 8, b"new word")) == Passage(
        "from_plc", answer(driver, 8, b"old word")
    )
    line.end(LinkFault.STALE_IMAGE)
    later.passage("to_plc", bytes(again))
    told = answer(driver, 8, b"new word")
    assert later.passage("from_plc", told) == Passage("from_plc", told)


def test_a_stale_image_holds_what_it_sees_first() -> None:
    line = LineFaults("modbus", 0)
    line.begin("stale_image", NONE, now_ns=0)
    span = ReadSpan("holding", 0, 2)
    assert [line.seen(span, data) for data in (b"aa", b"bb", b"long")] == [b"aa", b"aa", b"long"]


LAYOUT = [
    Place("holding", 20, "H"),
    Place("holding", 22, "f"),
    Place("holding", 26, "d"),
    Place("holding", 34, "f"),  # the request ends in the middle of this one
]


@pytest.mark.parametrize(
    ("fault", "layout", "expected"),
    [
        ("byte_order", LAYOUT, b"1032547698;:=<>?"),
        ("word_order", LAYOUT, b"014523<=:;8967>?"),
        ("byte_order", (), b"1032547698;:=<?>"),
        ("word_order", (), b"23016745:;89>?<="),
    ],
)
def test_values_are_swapped_where_they_lie(
    fault: str, layout: list[Place], expected: bytes
) -> None:
    line = LineFaults("modbus", 0, layout)
    line.begin(fault, NONE, now_ns=0)
    plain = b"0123456789:;<=>?"
    assert line.seen(ReadSpan("holding", 20, 16), plain) == expected
    assert line.seen(ReadSpan("coil", 20, 16), plain) == plain, "bits have no order"
    assert line.seen(ReadSpan("DB1", 20, 16, bit=3), plain) == plain


def test_swapping_twice_changes_nothing() -> None:
    whole = [(0, 4), (4, 8), (12, 2)]
    data = bytes(range(15))
    assert bytes_swapped(bytes_swapped(data, whole), whole) == data
    assert words_reversed(words_reversed(data, whole), whole) == data
    assert words_reversed(data, [(0, 4)])[:5] == bytes((2, 3, 0, 1, 4))


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_dice_belong_to_one_connection_and_one_direction(driver: Driver) -> None:
    def losses(*, noise: bool, connection: int = 2, seed: int = 9) -> list[bool]:
        line = LineFaults(driver, seed)
        line.begin("drop", {"probability": 0.4}, now_ns=0)
        other, own = FrameFaults(line, 1), FrameFaults(line, connection)
        lost: list[bool] = []
        for number in range(60):
            if noise:
                other.passage("to_plc", READ[driver])
                own.passage("from_plc", answer(driver, number, b"abcdefgh"))
            lost.append(own.passage("to_plc", READ[driver]) is None)
        return lost

    assert losses(noise=False) == losses(noise=True)
    assert losses(noise=False) != losses(noise=False, connection=3)
    assert losses(noise=False) != losses(noise=False, seed=10)
    assert 10 < sum(losses(noise=False)) < 40


def test_delays_lie_between_their_bounds() -> None:
    line = LineFaults("modbus", 1)
    line.begin("delay", {"delay_ms": 30, "jitter_ms": 10}, now_ns=0)
    faults = FrameFaults(line, 1)
    passages = [faults.passage("to_plc", READ["modbus"]) for _ in range(50)]
    late = [passage.delay_ns for passage in passages if passage is not None]
    assert len(late) == 50
    assert 30e6 <= min(late) < 32e6
    assert 38e6 < max(late) < 40e6


def test_a_storm_breaks_once_per_period_whoever_asks_late() -> None:
    line = LineFaults("s7", 1)
    assert not line.breaks(10**12)
    line.begin("reconnect_storm", {"period_ms": 100}, now_ns=5)
    asked = [(5, False), (99_999_999, False), (100_000_005, True), (100_000_006, False)]
    asked += [(730_000_000, True), (730_000_001, False), (800_000_005, True)]
    assert [(now, line.breaks(now)) for now, _ in asked] == asked
    assert line.next_break_ns == 900_000_005
    line.end(LinkFault.RECONNECT_STORM)
    assert line.next_break_ns is None


def test_lost_answers_do_not_pile_up() -> None:
    faults = FrameFaults(LineFaults("modbus", 1), 1)
    for number in range(1000):
        faults.passage("to_plc", modbus_read(number, 0, 2))
    told = modbus_answer(3, b"abcd")
    assert faults.passage("from_plc", told) == Passage("from_plc", told)


@pytest.mark.parametrize(
    ("driver", "fault", "args", "match"),
    [
        ("s7", "cable_cutt", NONE, "Did you mean cable_cut"),
        ("s7", "freeze", NONE, "no link fault called 'freeze'"),
        ("s7", "modbus_exception", {"code": 2}, "speaks s7.*driver modbus"),
        ("modbus", "s7_error", NONE, "speaks modbus.*driver s7"),
        ("modbus", "modbus_exception", NONE, "needs the argument code.*one of 2, 4, 6"),
        ("modbus", "modbus_exception", {"code": 3}, "one of 2, 4, 6"),
        ("modbus", "drop", NONE, "needs the argument probability"),
        ("modbus", "drop", {"probability": 1.1}, "above 0 up to 1"),
        ("modbus", "drop", {"probability": 0.0}, "above 0 up to 1"),
        ("modbus", "drop", {"probability": float("nan")}, "above 0 up to 1"),
        ("modbus", "drop", {"probabilty": 1.0}, "Did you mean probability"),
        ("modbus", "delay", {"delay_ms": -1.0}, "from 0"),
        ("modbus", "reset", {"delay_ms": 1.0}, "argument of reset"),
        ("s7", "s7_error", {"code": 255}, "args.code.*code of s7_error is 255.*and not 255"),
        ("s7", "s7_error", {"code": 3.5}, "code of s7_error is 3.5"),
        ("s7", "reconnect_storm", {"period_ms": 0}, "period_ms of reconnect_storm is 0"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    driver: Driver, fault: str, args: Mapping[str, float], match: str
) -> None:
    with pytest.raises(ScenarioError, match=match):
        checked_link_fault(driver, fault, args)


def test_defaults_are_filled_in() -> None:
    assert checked_link_fault("s7", "s7_error", NONE) == (
        LinkFault.S7_ERROR,
        {"code": 0x8104, "probability": 1.0},
    )
    assert checked_link_fault("modbus", "delay", {"delay_ms": 3}) == (
        LinkFault.DELAY,
        {"delay_ms": 3.0, "jitter_ms": 0.0},
    )
