"""The data words of a PLC: one byte image per memory area, with a value for every tag.

Addresses and encodings are read here by their own code and not by the drivers' code: if both sides
shared one codec, a wrong byte order in it would cancel out and no test would ever see it.
"""

from __future__ import annotations

import difflib
import re
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from controller.errors import ScenarioError
from controller.signal import ByteOrder, Tag

# Type names of IEC 61131-3 and of our Modbus addresses, both to struct's letters.
_LETTER: Final[Mapping[str, str]] = {
    "BYTE": "B", "USINT": "B", "SINT": "b", "WORD": "H", "UINT": "H", "INT": "h",
    "DWORD": "I", "UDINT": "I", "DINT": "i", "LWORD": "Q", "ULINT": "Q", "LINT": "q",
    "REAL": "f", "LREAL": "d",
    "UINT8": "B", "INT8": "b", "UINT16": "H", "INT16": "h", "UINT32": "I", "INT32": "i",
    "UINT64": "Q", "INT64": "q", "FLOAT32": "f", "FLOAT64": "d",
}  # fmt: skip
_WIDTH_LETTER: Final[Mapping[str, str]] = {"B": "B", "W": "H", "D": "I", "L": "Q"}

_S7_DOT = re.compile(
    r"(?:DB(?P<db>\d+)\.DB|(?P<marker>M))(?P<width>[XBWDL]?)(?P<byte>\d+)"
    r"(?:\.(?P<bit>[0-7]))?(?::(?P<type>[A-Z]\w*))?$",
    re.IGNORECASE,
)
_S7_COMMA = re.compile(
    r"DB(?P<db>\d+),(?P<type>[A-Z]+)(?P<byte>\d+)(?:\.(?P<bit>[0-7]))?$", re.IGNORECASE
)
_MODBUS = re.compile(
    r"(?P<area>holding|input|coil|discrete):(?P<register>\d+)(?::(?P<type>\w+))?$", re.IGNORECASE
)
_MODICON = re.compile(r"(?P<area>[34])(?P<number>\d{4,5})(?::(?P<type>\w+))?$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lives: area (`DB20`, `M`, `holding`, `input`, `coil` …), first byte, type.

    Modbus register n is bytes 2n and 2n+1 of its area, coil n is byte n. `letter` is struct's
    code, `?` for one bit.
    """

    area: str
    byte: int
    letter: str
    bit: int = 0

    @property
    def size(self) -> int:
        """Bytes occupied."""
        return 1 if self.letter == "?" else struct.calcsize(f">{self.letter}")

    @property
    def end(self) -> int:
        return self.byte + self.size


def place(address: str, type_name: str = "") -> Place:
    """Read an S7 or Modbus address, e.g. `DB10.DBD4:REAL`, `holding:100:float32`, `400101`.

    `type_name` is used where the address itself names no type.

    Raises:
        ScenarioError: the address or its type is not one the virtual PLC knows.
    """
    text = address.strip()
    if found := _MODBUS.match(text) or _MODICON.match(text):
        parts = found.groupdict()
        if (area := parts["area"]) in ("3", "4"):
            area, register = ("input", "holding")[area == "4"], int(parts["number"]) - 1
        else:
            area, register = area.lower(), int(parts["register"])
        if area in ("coil", "discrete"):
            return Place(area, register, "?")
        letter = _letter(parts["type"] or type_name or "uint16", address)
        if letter in "?Bb":
            raise _unknown(address, "a register holds no value narrower than 16 bits")
        return Place(area, 2 * register, letter)
    if found := _S7_DOT.match(text) or _S7_COMMA.match(text):
        parts = found.groupdict()
        area = f"DB{int(parts['db'])}" if parts["db"] else "M"
        if parts["bit"] is not None:
            return Place(area, int(parts["byte"]), "?", int(parts["bit"]))
        width = (parts.get("width") or "").upper()
        if parts["type"] or type_name:
            return Place(area, int(parts["byte"]), _letter(parts["type"] or type_name, address))
        if width in _WIDTH_LETTER:
            return Place(area, int(parts["byte"]), _WIDTH_LETTER[width])
    raise _unknown(address, "write e.g. DB10.DBD4:REAL, DB10.DBX2.3:BOOL or holding:100:float32")


def _letter(type_name: str, address: str) -> str:
    letter = _LETTER.get(type_name.upper())
    if letter is None:
        raise _unknown(address, f"type {type_name} is not one of {', '.join(sorted(_LETTER))}")
    return letter


def _unknown(address: str, mend: str) -> ScenarioError:
    return ScenarioError(
        f"the virtual PLC cannot hold the address {address!r}", where=address, mend=mend
    )


def unknown_name(what: str, name: str, known: Iterable[str], where: str) -> ScenarioError:
    """The error for a name in a scenario that nothing answers to; it proposes the nearest."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    mend = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(choices) or 'none'}"
    return ScenarioError(f"there is no {what} called {name!r}", where=where, mend=mend)


def byte_permutation(size: int, order: ByteOrder) -> tuple[int, ...]:
    """Positions of the bytes of a big-endian value as they appear in registers, and back.

    CDAB reverses the words, BADC the bytes in each word, DCBA both; each is its own inverse.
    """
    words = [(i, i + 1) for i in range(0, size, 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [(high, low) for low, high in words]
    return tuple(position for word in words for position in word)


class Cell:
    """How the value of one tag is laid out in the bytes of its area."""

    __slots__ = ("_is_float", "_is_plain", "_pick", "_struct", "place", "tag")

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self.place = place(tag.address, tag.type)
        self._is_plain = tag.scale == 1.0 and tag.offset == 0.0
        self._is_float = self.place.letter in "fd"
        letter = "B" if self.place.letter == "?" else self.place.letter
        self._struct = struct.Struct(f">{letter}")
        swapped = tag.byte_order != "ABCD" and self.place.size > 1
        order = byte_permutation(self.place.size, tag.byte_order) if swapped else ()
        self._pick = None if order == tuple(range(len(order))) else itemgetter(*order)

    def decode(self, image: bytes | bytearray, start: int) -> float:
        """The engineering value whose first byte is `image[start]`."""
        if self.place.letter == "?":
            return image[start] >> self.place.bit & 1
        if self._pick is None:
            (raw,) = self._struct.unpack_from(image, start)
        else:
            (raw,) = self._struct.unpack(bytes(self._pick(image[start : start + self.place.size])))
        return raw if self._is_plain else raw * self.tag.scale + self.tag.offset

    def encode(self, image: bytearray, start: int, value: float) -> None:
        """Put an engineering value where `image[start]` is its first byte.

        Raises:
            ScenarioError: the value does not fit the tag's type.
        """
        if self.place.letter == "?":
            mask = 1 << self.place.bit
            image[start] = image[start] | mask if value else image[start] & ~mask
            return
        raw = value if self._is_plain else (value - self.tag.offset) / self.tag.scale
        try:
            number = raw if self._is_float else round(raw)
            if self._pick is None:
                self._struct.pack_into(image, start, number)
            else:
                packed = bytes(self._pick(self._struct.pack(number)))
                image[start : start + len(packed)] = packed
        except (struct.error, OverflowError, ValueError) as error:
            raise ScenarioError(
                f"{value!r} {self.tag.unit} does not fit the type of {self.tag.address}",
                where=self.tag.name,
                mend="Mend the range or the scale of the tag",
            ) from error


class DeviceMemory:
    """All words of one PLC, sized by its tags, shared by the scan and by the protocol server.

    Attributes:
        device: name of the device; tags of other devices are left out.
        areas: bytearray of each area by name, in place for ever (a server may hold on to them).
        spans: first byte and end of the part of each area that the tags cover.
        lock: held while a block is copied in or out, so that no scan and no request sees half a
            block.
    """

    def __init__(self, device: str, tags: Iterable[Tag]) -> None:
        self.device = device
        self.cells = {tag.name: Cell(tag) for tag in tags if tag.device == device}
        if not self.cells:
            raise ScenarioError(
                "the device has no tags", where=device, mend="Give it tags or leave it out"
            )
        self.spans: dict[str, tuple[int, int]] = {}
        for cell in self.cells.values():
            spot = cell.place
            first, end = self.spans.get(spot.area, (spot.byte, spot.end))
            self.spans[spot.area] = (min(first, spot.byte), max(end, spot.end))
        self.areas = {area: bytearray(end + end % 2) for area, (_, end) in self.spans.items()}
        self.lock = threading.Lock()

    def get(self, tag: str) -> float:
        """The engineering value of a tag.

        Raises:
            ScenarioError: this device has no such tag.
        """
        with self.lock:
            return self.reader(tag)()

    def set(self, tag: str, value: float) -> None:
        """Store an engineering value; raises ScenarioError where it does not fit the type."""
        with self.lock:
            self.writer(tag)(value)

    def reader(self, tag: str) -> Callable[[], float]:
        """A function that reads the tag; to be called with the lock held."""
        cell = self._cell(tag)
        image, start, decode = self.areas[cell.place.area], cell.place.byte, cell.decode
        return lambda: decode(image, start)

    def writer(self, tag: str) -> Callable[[float], None]:
        """A function that stores the tag; to be called with the lock held."""
        cell = self._cell(tag)
        image, start, encode = self.areas[cell.place.area], cell.place.byte, cell.encode
        return lambda value: encode(image, start, value)

    def _cell(self, tag: str) -> Cell:
        if tag not in self.cells:
            raise unknown_name(f"tag of {self.device}", tag, self.cells, tag)
        return self.cells[tag]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {len(image)} B" for name, image in self.areas.items())
        return f"{self.device}: {len(self.cells)} tags in {sizes}"
