"""What a request asks of a PLC, where the values lie in its answer, and how a PLC says no.

Sources: the S7 dissector's field layout as published with Wireshark, MODBUS Application Protocol
V1.1b3. Frames that are no such request or answer give None or nothing: they are not ours to touch.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from hil.faults.kinds import Driver
from hil.link.frames import S7_AREAS

_READ_AREAS: Final = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 23: "holding"}
BIT_AREAS: Final = frozenset({"coil", "discrete"})
_MODBUS_ERROR = 0x80
_S7_JOB, _S7_ACK_DATA = 1, 3
_S7_READ, _S7_WRITE = 0x04, 0x05
_S7_OK = 0xFF
_S7_ANY = (0x12, 0x0A, 0x10)
_S7_ITEM_BYTES = 12
_S7_BIT_ADDRESS = 0x01
_S7_DATA = 7  # COTP data header: the S7 PDU begins here
# Bytes per element of an S7-ANY address; what is not listed here is one byte wide.
_S7_WIDTHS: Final = {0x04: 2, 0x05: 2, 0x06: 4, 0x07: 4, 0x08: 4, 0x1C: 2, 0x1D: 2}
_S7_ANSWER_IN_BITS: Final = frozenset({0x03, 0x04, 0x05})


class ReadSpan(NamedTuple):
    """Bytes that a request reads: area and first byte as in `hil.plc_memory.Place`.

    `bit` is the position of a single S7 bit, None otherwise; a coil counts as one byte.
    """

    area: str
    byte: int
    size: int
    bit: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A read or write request: its number, and what it reads (nothing when it writes).

    `number` is the Modbus transaction identifier or the S7 PDU reference.
    """

    number: int
    spans: tuple[ReadSpan, ...]


def query_in(driver: Driver, frame: bytes) -> Query | None:
    """The read or write request in a frame to the PLC; None for anything else."""
    try:
        return _s7_query(frame) if driver == "s7" else _modbus_query(frame)
    except (IndexError, ValueError, struct.error):
        return None  # cut short: the PLC will say what it thinks of it


def payloads_in(driver: Driver, frame: bytes) -> tuple[int, tuple[slice, ...]] | None:
    """Number and places of the values of a good answer to a read; None for anything else."""
    try:
        return _s7_payloads(frame) if driver == "s7" else _modbus_payloads(frame)
    except (IndexError, ValueError, struct.error):
        return None


def with_payloads(frame: bytes, places: Sequence[slice], payloads: Sequence[bytes]) -> bytes:
    """The answer with other values of the same length."""
    changed = bytearray(frame)
    for place, payload in zip(places, payloads, strict=True):
        if len(payload) != place.stop - place.start:
            raise ValueError(f"{len(payload)} bytes for {place.stop - place.start}")
        changed[place] = payload
    return bytes(changed)


def modbus_exception(request: bytes, code: int) -> bytes:
    """The exception response to a Modbus TCP request."""
    return request[:4] + bytes((0, 3, request[6], request[7] | _MODBUS_ERROR, code))


def s7_refusal(request: bytes, code: int) -> bytes:
    """The answer with which a CPU refuses a read or write job.

    Args:
        request: the whole TPKT frame.
        code: up to 0xFF the return code of every item; above, error class and code of the header.
    """
    pdu = request[_S7_DATA:]
    function, items = pdu[10], pdu[11]
    if code > 0xFF:
        parameter, data, error = b"", b"", code
    else:
        parameter, error = bytes((function, items)), 0
        data = bytes((code, 0, 0, 0) if function == _S7_READ else (code,)) * items
    header = b"\x32" + bytes((_S7_ACK_DATA, 0, 0)) + pdu[4:6]
    answer = header + struct.pack(">HHH", len(parameter), len(data), error) + parameter + data
    return struct.pack(">BBH", 3, 0, _S7_DATA + len(answer)) + request[4:_S7_DATA] + answer


def _modbus_query(frame: bytes) -> Query | None:
    number, protocol, length = struct.unpack_from(">HHH", frame)
    function = frame[7]
    if protocol != 0 or len(frame) != 6 + length or function & _MODBUS_ERROR:
        return None
    area = _READ_AREAS.get(function)
    if area is None:
        return Query(number, ())
    address, count = struct.unpack_from(">HH", frame, 8)
    unit = 1 if area in BIT_AREAS else 2
    return Query(number, (ReadSpan(area, unit * address, unit * count),))


def _modbus_payloads(frame: bytes) -> tuple[int, tuple[slice, ...]] | None:
    number, protocol, length = struct.unpack_from(">HHH", frame)
    if protocol != 0 or frame[7] not in _READ_AREAS or 9 + frame[8] != 6 + length:
        return None
    return number, (slice(9, len(frame)),)


def _s7_pdu(frame: bytes, kind: int) -> bytes | None:
    """The S7 PDU of a whole, unfragmented data frame of the given message type."""
    if frame[0] != 3 or frame[4:_S7_DATA] != b"\x02\xf0\x80":
        return None
    pdu = frame[_S7_DATA:]
    return pdu if pdu[0] == 0x32 and pdu[1] == kind else None


def _s7_query(frame: bytes) -> Query | None:
    pdu = _s7_pdu(frame, _S7_JOB)
    if pdu is None or pdu[10] not in (_S7_READ, _S7_WRITE):
        return None
    number = pdu[4] << 8 | pdu[5]
    if pdu[10] == _S7_WRITE:
        return Query(number, ())
    starts = range(12, 12 + _S7_ITEM_BYTES * pdu[11], _S7_ITEM_BYTES)
    return Query(number, tuple(_s7_span(pdu[start : start + _S7_ITEM_BYTES]) for start in starts))


def _s7_span(item: bytes) -> ReadSpan:
    *kind, transport = item[:4]
    if tuple(kind) != _S7_ANY:
        raise ValueError(f"not an S7-ANY address: {item.hex(' ')}")
    count, db = struct.unpack_from(">HH", item, 4)
    area = S7_AREAS.get(item[8], f"area {item[8]:#04x}")
    bits = int.from_bytes(item[9:12], "big")
    return ReadSpan(
        f"DB{db}" if area == "DB" else area,
        bits >> 3,
        count * _S7_WIDTHS.get(transport, 1),
        bits & 7 if transport == _S7_BIT_ADDRESS else None,
    )


def _s7_payloads(frame: bytes) -> tuple[int, tuple[slice, ...]] | None:
    """Places of the values; None as soon as one item of the answer is a refusal."""
    pdu = _s7_pdu(frame, _S7_ACK_DATA)
    if pdu is None or pdu[10:12] != b"\0\0" or pdu[12] != _S7_READ:
        return None
    places: list[slice] = []
    start = _S7_DATA + 14
    for _ in range(pdu[13]):
        code, transport, size = struct.unpack_from(">BBH", frame, start)
        if code != _S7_OK:
            return None
        if transport in _S7_ANSWER_IN_BITS:
            size = (size + 7) // 8
        if start + 4 + size > len(frame):
            return None
        places.append(slice(start + 4, start + 4 + size))
        start += 4 + size + size % 2
    return pdu[4] << 8 | pdu[5], tuple(places)
