"""Engineering values to and from the bytes of a PLC, in every byte order, never out of limits."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.drivers.address import (
    BITS,
    ModbusAddress,
    S7Address,
    parse_address,
    string_length,
)
from controller.errors import SettingsError, WriteRefused
from controller.signal import ByteOrder, Tag, Value

_CODES = {
    "bool": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
# Arithmetic of scale and offset may leave the limit by a few units in the last place of a
# double; anything beyond that is a real excess.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class TagCodec:
    """Translates one tag. Build it once with `codec_for`; it is immutable and thread-safe.

    Attributes:
        tag: whose scale, offset, unit and limits apply.
        address: parsed from the tag's address.
        code: `struct` code of the raw value, most significant byte first.
        gather: offset in the buffer of every byte of the raw value, most significant first.
        span: bytes of the buffer that the tag occupies; 1 for a coil or discrete input,
            which are kept as one byte (0 or 1) each.
        finish: raw value to engineering value; None where they are the same.
    """

    tag: Tag
    address: S7Address | ModbusAddress
    code: str
    gather: tuple[int, ...]
    span: int
    finish: Callable[[Any], Value] | None
    packer: struct.Struct

    def decode(self, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Value:
        """The engineering value whose bytes start at `offset`. NaN on the wire stays NaN."""
        raw = self.packer.unpack(bytes([buffer[offset + place] for place in self.gather]))[0]
        return raw if self.finish is None else self.finish(raw)

    def encode(self, value: Value) -> bytes:
        """The `span` bytes of an engineering value that is fit to leave this process.

        Raises:
            WriteRefused: not a number, NaN, infinite, outside the type or outside the limits.
        """
        buffer = bytearray(self.span)
        self.encode_into(buffer, 0, value)
        return bytes(buffer)

    def encode_into(self, buffer: bytearray, offset: int, value: Value) -> None:
        """Like `encode`, into a buffer whose other bytes and bits stay as they are."""
        tag = self.tag
        if isinstance(value, str) or value is None:
            raise self._refused(value, "is not a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refused(value, "is not a finite number")
        if value < tag.low:
            raise self._refused(value, f"is below the lowest permitted value {tag.low:g}")
        if value > tag.high:
            raise self._refused(value, f"is above the highest permitted value {tag.high:g}")
        self._store(buffer, offset, self._inside_limits(self._raw(value)))

    def pack_into(self, buffer: bytearray, offset: int, value: Value) -> None:
        """Store a value as a PLC holds it: within its type, but with no limits and NaN allowed.

        Raises:
            WriteRefused: the type cannot hold the value.
        """
        self._store(buffer, offset, self._raw(value))

    def _raw(self, value: Value) -> int | float | bytes:
        """Engineering value to the raw value of the type."""
        type_, tag = self.tag.type, self.tag
        if text := string_length(type_):
            return self._text(value, text)
        if isinstance(value, str) or value is None:
            raise self._refused(value, "is not a number")
        if type_ == "bool":
            if value not in (0, 1):
                raise self._refused(value, "is neither 0 nor 1")
            return int(value)
        scaled = tag.scale != 1.0 or tag.offset != 0.0
        try:
            # An unscaled integer stays one: a double would round the last digits of 64 bits.
            raw = (value - tag.offset) / tag.scale if scaled else value
            if type_.startswith("float"):
                return self.packer.unpack(self.packer.pack(float(raw)))[0]
        except OverflowError:
            raise self._refused(value, f"does not fit into {type_}") from None
        if isinstance(raw, float) and not math.isfinite(raw):
            raise self._refused(value, "is not a finite number")
        whole = round(raw)
        signed = not type_.startswith("u")
        bits = BITS[type_] - signed
        if not (-(1 << bits) if signed else 0) <= whole < 1 << bits:
            raise self._refused(value, f"does not fit into {type_}")
        return whole

    def _text(self, value: Value, length: int) -> bytes:
        if not isinstance(value, str):
            raise self._refused(value, "is not a text")
        try:
            text = value.encode("latin-1")
        except UnicodeEncodeError:
            raise self._refused(value, "has characters outside Latin-1") from None
        if len(text) > length:
            raise self._refused(value, f"is longer than {length} characters")
        if isinstance(self.address, S7Address):
            return bytes((length, len(text))) + text.ljust(length, b"\0")
        return text.ljust(len(self.gather), b"\0")

    def _inside_limits(self, raw: int | float | bytes) -> int | float | bytes:
        """Move a raw value by one step when rounding to the type carried it past a limit."""
        tag = self.tag
        if isinstance(raw, bytes) or tag.type == "bool":
            return raw
        excess = self._excess(raw)
        if excess == 0.0:
            return raw
        down = (excess > 0.0) == (tag.scale > 0.0)
        if isinstance(raw, int):
            stepped: int | float = raw - 1 if down else raw + 1
        else:
            kind = np.float32 if tag.type == "float32" else np.float64
            stepped = float(np.nextafter(kind(raw), kind(-math.inf if down else math.inf)))
        if self._excess(stepped) != 0.0:
            raise self._refused(raw, f"has no {tag.type} value between {tag.low} and {tag.high}")
        return stepped

    def _excess(self, raw: int | float) -> float:
        """How far the stored value lies above (positive) or below (negative) the limits."""
        tag = self.tag
        value = raw * tag.scale + tag.offset
        margin = _ROUNDING * max(abs(raw * tag.scale), abs(tag.offset))
        if value > tag.high + margin:
            return value - tag.high
        if value < tag.low - margin:
            return value - tag.low
        return 0.0

    def _store(self, buffer: bytearray, offset: int, raw: int | float | bytes) -> None:
        if self.tag.type == "bool":
            place = offset + self.gather[0]
            mask = 1 << bit_in_byte(self.address)
            buffer[place] = buffer[place] | mask if raw else buffer[place] & ~mask
            return
        if not isinstance(self.address, S7Address):
            # An 8-bit value owns its whole register: the other half is 0, not what was there.
            buffer[offset : offset + self.span] = bytes(self.span)
        for place, byte in zip(self.gather, self.packer.pack(raw), strict=True):
            buffer[offset + place] = byte

    def _refused(self, value: Value, why: str) -> WriteRefused:
        tag = self.tag
        unit = "" if tag.unit == "1" else f" {tag.unit}"
        return WriteRefused(
            f"{value!r}{unit} {why}", where=f"{tag.name} ({tag.device} {tag.address})"
        )


def codec_for(driver: str, tag: Tag) -> TagCodec:
    """The codec of one tag of a device with the given driver, `s7` or `modbus`.

    Raises:
        SettingsError: address, type, byte order or scale of the tag are not usable.
    """
    address = parse_address(driver, tag.address)
    if tag.type != address.type:
        raise SettingsError(
            f"the type is {tag.type!r}, but the address says {address.type!r}",
            where=f"{tag.name} ({tag.address})",
            mend="Leave the type out: the address decides",
        )
    if tag.scale == 0.0 or not math.isfinite(tag.scale) or not math.isfinite(tag.offset):
        raise SettingsError(
            f"scale {tag.scale} and offset {tag.offset} cannot be inverted",
            where=tag.name,
            mend="The scale must be finite and not 0, the offset finite",
        )
    if isinstance(address, S7Address):
        if tag.byte_order != "ABCD":
            raise SettingsError(
                f"byte order {tag.byte_order} on an S7 address",
                where=tag.name,
                mend="S7 is always ABCD: leave byte_order out",
            )
        gather = tuple(range(address.size))
        span = address.size
    elif address.is_bit_area:
        gather, span = (0,), 1
    else:
        gather = register_bytes(address, tag.byte_order)
        span = 2 * address.size
    code = f"{len(gather)}s" if string_length(address.type) else _CODES[address.type]
    return TagCodec(
        tag, address, code, gather, span, _finisher(tag, address), struct.Struct(f">{code}")
    )


def bit_in_byte(address: S7Address | ModbusAddress) -> int:
    """Where a bool lies in its byte, 0 the least significant."""
    return address.bit % 8


def register_bytes(address: ModbusAddress, order: ByteOrder) -> tuple[int, ...]:
    """Offset on the wire of every byte of the value, most significant first.

    The order is spelled for a 32-bit value ABCD, where A is the most significant byte: CDAB swaps
    the registers, BADC the bytes in each register, DCBA both. Longer values follow the same rule;
    a text keeps the order of its registers.
    """
    count = address.size
    text = string_length(address.type)
    registers = list(range(count))
    if order in ("CDAB", "DCBA") and not text:
        registers.reverse()
    high, low = (1, 0) if order in ("BADC", "DCBA") else (0, 1)
    places = [2 * register + half for register in registers for half in (high, low)]
    if address.type == "bool":
        return (places[0] if address.bit >= 8 else places[1],)
    if address.type in ("int8", "uint8"):
        return (places[1],)
    return tuple(places)


def _finisher(tag: Tag, address: S7Address | ModbusAddress) -> Callable[[Any], Value] | None:
    """What turns a raw value into an engineering value, or None when nothing has to be done."""
    if address.type == "bool":
        mask = 1 << bit_in_byte(address)
        return lambda raw: bool(raw & mask)
    if string_length(address.type):
        return _s7_text if isinstance(address, S7Address) else _modbus_text
    scale, offset = tag.scale, tag.offset
    if scale == 1.0 and offset == 0.0:
        return None
    return lambda raw: raw * scale + offset


def _s7_text(raw: bytes) -> str:
    return raw[2 : 2 + min(raw[1], len(raw) - 2)].decode("latin-1")


def _modbus_text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("latin-1")
