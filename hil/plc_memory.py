"""The data words of a PLC: one byte image per memory area, with a value for every tag.

Addresses and encodings are read here by their own code and not by the drivers' code: if both sides
shared one codec, a wrong byte order in it would cancel out and no test would ever see it.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Final

from controller.errors import ScenarioError
from controller.signal import ByteOrder, Tag
from hil.names import unknown_name

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

    __slots__ = ("_pick", "_struct", "is_float", "is_plain", "order", "place", "tag")

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self.place = place(tag.address, tag.type)
        self.is_plain = tag.scale == 1.0 and tag.offset == 0.0
        self.is_float = self.place.letter in "fd"
        letter = "B" if self.place.letter == "?" else self.place.letter
        self._struct = struct.Struct(f">{letter}")
        swapped = tag.byte_order != "ABCD" and self.place.size > 1
        straight = tuple(range(self.place.size))
        self.order = byte_permutation(self.place.size, tag.byte_order) if swapped else straight
        self._pick = None if self.order == straight else itemgetter(*self.order)

    def decode(self, image: bytes | bytearray, start: int) -> float:
        """The engineering value whose first byte is `image[start]`."""
        if self.place.letter == "?":
            return image[start] >> self.place.bit & 1
        if self._pick is None:
            (raw,) = self._struct.unpack_from(image, start)
        else:
            (raw,) = self._struct.unpack(bytes(self._pick(image[start : start + self.place.size])))
        return raw if self.is_plain else raw * self.tag.scale + self.tag.offset

    def encode(self, image: bytearray, start: int, value: float) -> None:
        """Put an engineering value where `image[start]` is its first byte.

        Raises:
            ScenarioError: the value does not fit the tag's type.
        """
        if self.place.letter == "?":
            mask = 1 << self.place.bit
            image[start] = image[start] | mask if value else image[start] & ~mask
            return
        raw = value if self.is_plain else (value - self.tag.offset) / self.tag.scale
        try:
            number = raw if self.is_float else round(raw)
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


class Block:
    """Values of several tags, read or stored together: one struct call per run of neighbours.

    A PLC publishes blocks, not tags, and ten values in one call cost little more than one.
    """

    __slots__ = ("_cells", "_images", "_rank", "_runs", "_scaled", "_sort", "_whole")

    def __init__(self, cells: Sequence[Cell], areas: Mapping[str, bytearray]) -> None:
        by_place = sorted(range(len(cells)), key=lambda i: _spot(cells[i]))
        rank = [by_place.index(i) for i in range(len(cells))]
        self._cells, self._images = tuple(cells), [areas[cell.place.area] for cell in cells]
        # Values come in the caller's order, runs are in the order of places.
        in_order = by_place == list(range(len(cells)))
        self._sort = None if in_order else itemgetter(*by_place)
        self._rank = None if in_order else itemgetter(*rank)
        self._whole = [i for i, cell in enumerate(cells) if cell.place.letter not in "fd?"]
        self._scaled = [
            (i, cell.tag.scale, cell.tag.offset)
            for i, cell in enumerate(cells)
            if not cell.is_plain
        ]
        self._runs: list[_Run] = []
        begin = 0
        for end in range(1, len(by_place) + 1):
            if end == len(by_place) or not _adjoin(cells[by_place[end - 1]], cells[by_place[end]]):
                run = [cells[i] for i in by_place[begin:end]]
                self._runs.append((begin, end, *_pair(run, areas[run[0].place.area])))
                begin = end

    def read(self) -> list[float]:
        """The engineering values, in the order of the tags; to be called with the lock held."""
        raw: list[float] = []
        for _, _, unpack, _ in self._runs:
            raw += unpack()
        values = raw if self._rank is None else [*self._rank(raw)]
        for i, scale, offset in self._scaled:
            values[i] = values[i] * scale + offset
        return values

    def write(self, values: Sequence[float]) -> None:
        """Store engineering values, in the order of the tags; to be called with the lock held.

        Raises:
            ScenarioError: a value does not fit the type of its tag.
        """
        try:
            self._store(self._raw(values) if self._scaled else values)
        except _UNFIT:
            self._store_rounded(values)

    def _store_rounded(self, values: Sequence[float]) -> None:
        """The same where a whole number was given as a float, or a value does not fit."""
        try:
            self._store(self._raw(values))
        except _UNFIT:
            # One by one, so that the error names the tag.
            for cell, image, value in zip(self._cells, self._images, values, strict=True):
                cell.encode(image, cell.place.byte, value)
            raise

    def _raw(self, values: Sequence[float]) -> list[float]:
        raw = [*values]
        for i, scale, offset in self._scaled:
            raw[i] = (raw[i] - offset) / scale
        for i in self._whole:
            raw[i] = round(raw[i])
        return raw

    def _store(self, raw: Sequence[float]) -> None:
        placed = raw if self._sort is None else self._sort(raw)
        for begin, end, _, pack in self._runs:
            pack(*placed[begin:end])


_UNFIT = (struct.error, OverflowError, ValueError)
_Run = tuple[int, int, Callable[[], Iterable[float]], Callable[..., None]]
"""Where a run of neighbours begins and ends, and how its raw values are unpacked and packed."""


def _spot(cell: Cell) -> tuple[str, int, int]:
    return cell.place.area, cell.place.byte, cell.place.bit


def _adjoin(left: Cell, right: Cell) -> bool:
    """Whether two values lie side by side; a bit shares its byte and stands alone."""
    a, b = left.place, right.place
    return a.area == b.area and a.end == b.byte and "?" not in (a.letter, b.letter)


def _pair(
    run: Sequence[Cell], image: bytearray
) -> tuple[Callable[[], Iterable[float]], Callable[..., None]]:
    """How raw values are taken out of a run of neighbours, and put there."""
    first = run[0].place
    if first.letter == "?":
        bit = run[0]
        return lambda: (bit.decode(image, first.byte),), partial(bit.encode, image, first.byte)
    layout: Any = struct.Struct(">" + "".join(cell.place.letter for cell in run))
    order = [cell.place.byte - first.byte + i for cell in run for i in cell.order]
    if order == list(range(layout.size)):
        # Bound to their place: they are called without a frame of Python in between.
        return (
            partial(layout.unpack_from, image, first.byte),
            partial(layout.pack_into, image, first.byte),
        )
    pick, span = itemgetter(*order), slice(first.byte, first.byte + layout.size)

    def pack(*raw: float) -> None:
        image[span] = bytes(pick(layout.pack(*raw)))

    return lambda: layout.unpack(bytes(pick(image[span]))), pack


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

    def block(self, tags: Sequence[str]) -> Block:
        """Several tags together; one that is always read or stored with the others."""
        return Block([self._cell(tag) for tag in tags], self.areas)

    def _cell(self, tag: str) -> Cell:
        if tag not in self.cells:
            raise unknown_name(f"tag of {self.device}", tag, self.cells, tag)
        return self.cells[tag]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {len(image)} B" for name, image in self.areas.items())
        return f"{self.device}: {len(self.cells)} tags in {sizes}"
