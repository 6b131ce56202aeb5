"""S7 and Modbus TCP frames as they are on the wire: where one ends, and what it writes.

This decoder shares nothing with the drivers: it is the second pair of eyes on what they send.
Sources: RFC 1006 (TPKT), ISO 8073 (COTP), the S7 dissector's field layout as published with
Wireshark, MODBUS Application Protocol V1.1b3 and Modbus Messaging on TCP/IP V1.0b.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from hil.faults.kinds import Driver

_S7_JOB, _S7_USERDATA = 1, 7
_S7_READ, _S7_WRITE, _S7_SETUP = 0x04, 0x05, 0xF0
S7_AREAS: Final = {0x81: "I", 0x82: "Q", 0x83: "M", 0x84: "DB"}
_S7_LENGTH_IN_BITS: Final = frozenset({0x04, 0x05})
_S7_BIT_ADDRESS = 0x01
# Block list (3) and SZL (4) only look; 7 would set the clock.
_S7_HARMLESS_USERDATA: Final = frozenset({3, 4})
_MODBUS_READS: Final = frozenset({1, 2, 3, 4, 7, 8, 17, 43})


class WireWrite(NamedTuple):
    """Bytes that a request stores: area and first byte as in `hil.plc_memory.Place`.

    `bit` is the position of a single S7 bit, None otherwise; a coil is one byte, 0 or 1.
    """

    area: str
    byte: int
    data: bytes
    bit: int | None = None


class UndecodableFrame(ValueError):
    """A frame that asks the PLC for something other than reading or a plain write."""


class Framer:
    """Cuts a byte stream into frames; a stream that is no such protocol passes as it came."""

    def __init__(self, driver: Driver) -> None:
        self._length = _tpkt_length if driver == "s7" else _mbap_length
        self._rest = b""

    def frames(self, chunk: bytes) -> list[bytes]:
        """The frames that `chunk` completes, in order."""
        data = self._rest + chunk if self._rest else chunk
        length = self._length(data)
        if length == len(data):  # nearly always: one request or answer in one chunk
            self._rest = b""
            return [data]
        whole: list[bytes] = []
        while 0 < length <= len(data):
            whole.append(data[:length])
            data = data[length:]
            length = self._length(data)
        if length < 0:
            whole.append(data)
            data = b""
        self._rest = data
        return whole


def _tpkt_length(data: bytes) -> int:
    """Length of the first frame; 0 not known yet, −1 not a frame."""
    if len(data) < 4:
        return 0 if data[:1] in (b"", b"\x03") else -1
    length = data[2] << 8 | data[3]
    return length if data[0] == 3 and length >= 7 else -1


def _mbap_length(data: bytes) -> int:
    """Length of the first frame; 0 not known yet, −1 not a frame."""
    if len(data) < 6:
        return 0
    length = data[4] << 8 | data[5]
    return 6 + length if data[2] == 0 and data[3] == 0 and 2 <= length <= 254 else -1


def writes_in(driver: Driver, frame: bytes) -> tuple[WireWrite, ...]:
    """What one request to the PLC writes; empty for reads and connection set-up.

    Raises:
        UndecodableFrame: broken, fragmented, or a function that a controller has no use for.
    """
    try:
        return _s7_writes(frame) if driver == "s7" else _modbus_writes(frame)
    except UndecodableFrame:
        raise
    except (IndexError, ValueError, struct.error) as error:
        raise UndecodableFrame(f"cut short: {frame.hex(' ')}") from error


def _s7_writes(frame: bytes) -> tuple[WireWrite, ...]:
    if frame[0] != 3 or len(frame) != frame[2] << 8 | frame[3]:
        raise UndecodableFrame(f"not a TPKT frame: {frame.hex(' ')}")
    cotp_length, cotp_type = frame[4], frame[5] & 0xF0
    if cotp_type in (0xE0, 0x80):  # connect, disconnect
        return ()
    if cotp_type != 0xF0 or not frame[6] & 0x80:
        raise UndecodableFrame(f"COTP type {frame[5]:#04x} or a fragment: {frame.hex(' ')}")
    pdu = frame[5 + cotp_length :]
    if pdu[0] != 0x32:
        raise UndecodableFrame(f"S7 protocol id {pdu[0]:#04x}, not 0x32")
    kind = pdu[1]
    parameter_length, data_length = struct.unpack_from(">HH", pdu, 6)
    parameter = pdu[10 : 10 + parameter_length]
    data = pdu[10 + parameter_length :]
    if kind == _S7_USERDATA and parameter[5] & 0x0F in _S7_HARMLESS_USERDATA:
        return ()
    if kind != _S7_JOB or len(data) != data_length:
        raise UndecodableFrame(f"S7 message type {kind} or wrong length: {frame.hex(' ')}")
    function = parameter[0]
    if function in (_S7_READ, _S7_SETUP):
        return ()
    if function != _S7_WRITE:
        raise UndecodableFrame(f"S7 function {function:#04x}")
    return _s7_items(parameter, data)


def _s7_items(parameter: bytes, data: bytes) -> tuple[WireWrite, ...]:
    """Pair each item's address with its bytes; all items but the last are padded to even."""
    writes: list[WireWrite] = []
    item, value = 2, 0
    for _ in range(parameter[1]):
        kind, length, syntax, transport = parameter[item : item + 4]
        if (kind, length, syntax) != (0x12, 0x0A, 0x10):
            raise UndecodableFrame(f"S7 item is not an S7-ANY address: {parameter.hex(' ')}")
        db = parameter[item + 6] << 8 | parameter[item + 7]
        area = S7_AREAS.get(parameter[item + 8], f"area {parameter[item + 8]:#04x}")
        bits = int.from_bytes(parameter[item + 9 : item + 12], "big")
        size = data[value + 2] << 8 | data[value + 3]
        if data[value + 1] in _S7_LENGTH_IN_BITS:
            size = (size + 7) // 8
        payload = data[value + 4 : value + 4 + size]
        if len(payload) != size or len(parameter) < item + 12:
            raise UndecodableFrame(f"S7 item promises {size} bytes, has {len(payload)}")
        writes.append(
            WireWrite(
                f"DB{db}" if area == "DB" else area,
                bits >> 3,
                payload,
                bits & 7 if transport == _S7_BIT_ADDRESS else None,
            )
        )
        item += 12
        value += 4 + size + size % 2
    return tuple(writes)


def _modbus_writes(frame: bytes) -> tuple[WireWrite, ...]:
    protocol, length = struct.unpack_from(">HH", frame, 2)
    if protocol != 0 or len(frame) != 6 + length:
        raise UndecodableFrame(f"not a Modbus TCP frame: {frame.hex(' ')}")
    function = frame[7]
    if function in _MODBUS_READS:
        return ()
    if function in (5, 6):
        address, word = struct.unpack_from(">HH", frame, 8)
        if function == 6:
            return (WireWrite("holding", 2 * address, frame[10:12]),)
        if word not in (0, 0xFF00):
            raise UndecodableFrame(f"coil value {word:#06x} is neither on nor off")
        return (WireWrite("coil", address, bytes([word == 0xFF00])),)
    if function not in (15, 16, 23):
        raise UndecodableFrame(f"Modbus function {function}")
    start = 12 if function == 23 else 8  # 23 begins with the range that it reads
    address, count, size = struct.unpack_from(">HHB", frame, start)
    payload = frame[start + 5 :]
    wanted = (count + 7) // 8 if function == 15 else 2 * count
    if len(payload) != size or size != wanted:
        raise UndecodableFrame(f"{count} values in {len(payload)} bytes: {frame.hex(' ')}")
    if function == 15:
        coils = bytes(payload[n // 8] >> n % 8 & 1 for n in range(count))
        return (WireWrite("coil", address, coils),)
    return (WireWrite("holding", 2 * address, payload),)
