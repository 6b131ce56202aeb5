"""Which requests fetch all tags of a device: few, large, and never cutting a value in two."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from controller.drivers.address import S7Address
from controller.drivers.codec import TagCodec, codec_for
from controller.errors import SettingsError
from controller.signal import Tag, Value

S7_GAP_BYTES = 12  # asking for 12 foreign bytes costs what one more request item would
MODBUS_GAP_REGISTERS = 10
MODBUS_READ_REGISTERS = 125
MODBUS_WRITE_REGISTERS = 123
MODBUS_READ_BITS = 2000
MODBUS_WRITE_BITS = 1968
# Of a PDU, headers and item descriptions take this much; at PDU 480 that leaves 462 and 445 bytes.
S7_READ_OVERHEAD = 18
S7_WRITE_OVERHEAD = 35


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of PLC memory with addresses of its own: a data block, the holding registers …

    Attributes:
        area: DB, M, I, Q, holding, input, coil or discrete.
        db: number of the data block, 0 elsewhere.
        unit_bytes: bytes in our buffers per address: 2 for registers, 1 for bytes and for bits.
    """

    area: str
    db: int
    unit_bytes: int

    def __str__(self) -> str:
        return f"DB{self.db}" if self.area == "DB" else self.area


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `count` addresses of a region from `start` on."""

    region: Region
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def size(self) -> int:
        """Bytes of data that go with it."""
        return self.count * self.region.unit_bytes

    def __str__(self) -> str:
        last = f"–{self.stop - 1}" if self.count > 1 else ""
        return f"{self.region} {self.start}{last}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may be and what it may bridge, in addresses of the region.

    Attributes:
        read, write: largest request for bytes or registers.
        read_bits, write_bits: largest request for coils and discrete inputs.
        gap: widest stretch of foreign addresses that a read may bridge.
        forbidden: ranges (first, last) that no request may touch, in every register area;
            many devices refuse a whole block for one reserved register.
    """

    read: int
    write: int
    read_bits: int = 0
    write_bits: int = 0
    gap: int = 0
    forbidden: tuple[tuple[int, int], ...] = ()

    def largest_read(self, region: Region) -> int:
        return self.read_bits if region.area in ("coil", "discrete") else self.read

    def largest_write(self, region: Region) -> int:
        return self.write_bits if region.area in ("coil", "discrete") else self.write


def s7_limits(pdu_bytes: int) -> Limits:
    """Limits of an S7 connection that negotiated a PDU of this many bytes."""
    return Limits(
        read=pdu_bytes - S7_READ_OVERHEAD,
        write=pdu_bytes - S7_WRITE_OVERHEAD,
        gap=S7_GAP_BYTES,
    )


def modbus_limits(
    *,
    max_gap: int = MODBUS_GAP_REGISTERS,
    forbidden: tuple[tuple[int, int], ...] = (),
    max_read: int = MODBUS_READ_REGISTERS,
    max_write: int = MODBUS_WRITE_REGISTERS,
) -> Limits:
    """Limits of a Modbus device; devices with small buffers need a smaller `max_read`."""
    if not 1 <= max_read <= MODBUS_READ_REGISTERS or not 1 <= max_write <= MODBUS_WRITE_REGISTERS:
        raise SettingsError(
            f"requests of {max_read} registers to read and {max_write} to write",
            mend=f"Modbus allows 1 to {MODBUS_READ_REGISTERS} and 1 to {MODBUS_WRITE_REGISTERS}",
        )
    return Limits(
        read=max_read,
        write=max_write,
        read_bits=MODBUS_READ_BITS,
        write_bits=MODBUS_WRITE_BITS,
        gap=max_gap,
        forbidden=forbidden,
    )


@dataclass(frozen=True, slots=True)
class Item:
    """One tag's place: a codec and the addresses that it occupies."""

    codec: TagCodec
    region: Region
    start: int
    count: int

    @property
    def name(self) -> str:
        return self.codec.tag.name

    @property
    def stop(self) -> int:
        return self.start + self.count


class Block:
    """One read request and the values in its answer, translated by one precompiled `struct`.

    The bytes of all values are gathered in one pass, most significant first and in the order of
    `items`, and unpacked at once; only bools, texts and scaled values need a step of their own.
    """

    __slots__ = ("_finish", "_gather", "_unpack", "items", "names", "request")

    def __init__(self, request: Request, items: Sequence[Item]) -> None:
        self.request = request
        self.items = tuple(items)
        self.names = tuple(item.name for item in items)
        places = [
            (item.start - request.start) * request.region.unit_bytes + place
            for item in items
            for place in item.codec.gather
        ]
        whole = places == list(range(request.size))
        self._gather: Callable[[bytes], tuple[int, ...]] | None = (
            None if whole else itemgetter(*places, places[0])
        )
        codes = "".join(item.codec.code for item in items)
        self._unpack = struct.Struct(f">{codes}" + ("" if whole else "x")).unpack
        self._finish = tuple(
            (index, item.codec.finish)
            for index, item in enumerate(items)
            if item.codec.finish is not None
        )

    def decode(self, data: bytes) -> Sequence[Value]:
        """Engineering values in the order of `names`, from exactly `request.size` bytes."""
        # A single index would give a bare number, so the gather always has one byte too many.
        raw: Sequence[Any] = self._unpack(
            data if self._gather is None else bytes(self._gather(data))
        )
        if not self._finish:
            return raw
        values = list(raw)
        for index, finish in self._finish:
            values[index] = finish(values[index])
        return values

    def split(self) -> tuple[Block, ...]:
        """Two blocks with half the tags each; this one alone when it has a single tag."""
        if len(self.items) == 1:
            return (self,)
        middle = len(self.items) // 2
        return (_block(self.items[:middle]), _block(self.items[middle:]))

    def __repr__(self) -> str:
        return f"Block({self.request}, {len(self.items)} tags)"


def place(driver: str, tag: Tag) -> Item:
    """Find a tag's place. Raises SettingsError."""
    codec = codec_for(driver, tag)
    address = codec.address
    if isinstance(address, S7Address):
        return Item(codec, Region(address.area, address.db, 1), address.byte, address.size)
    unit = 1 if address.is_bit_area else 2
    return Item(codec, Region(address.area, 0, unit), address.register, address.size)


def plan_reads(items: Iterable[Item], limits: Limits) -> tuple[Block, ...]:
    """Few requests that cover every item exactly once.

    Items are sorted by address and merged while the gap is bridgeable and the request stays
    within the limits, so a value is never cut. A value larger than a request gets one of its
    own, which the device will refuse.

    Raises:
        SettingsError: a tag lies in a forbidden range.
    """
    blocks: list[Block] = []
    run: list[Item] = []
    stop = 0
    for item in sorted(items, key=address_order):
        check_forbidden(item.region, item.start, item.stop, item.name, limits)
        if run and _joins(run[0], stop, item, limits):
            run.append(item)
            stop = max(stop, item.stop)
            continue
        if run:
            blocks.append(_block(run))
        run, stop = [item], item.stop
    if run:
        blocks.append(_block(run))
    return tuple(blocks)


def address_order(item: Item) -> tuple[str, int, int, int, int]:
    """Sorting key: by region, then by address."""
    bit = item.codec.address.bit
    return (item.region.area, item.region.db, item.start, item.stop, bit)


def _joins(first: Item, stop: int, item: Item, limits: Limits) -> bool:
    """Whether `item` may extend the request that runs from `first` to `stop`."""
    if item.region != first.region or item.start - stop > limits.gap:
        return False
    if max(stop, item.stop) - first.start > limits.largest_read(item.region):
        return False
    return not _forbidden(item.region, stop, item.start, limits)


def _forbidden(region: Region, start: int, stop: int, limits: Limits) -> tuple[int, int] | None:
    """The first forbidden range that the addresses from `start` to `stop` - 1 touch."""
    if region.unit_bytes == 1:
        return None
    return next(
        (
            (first, last)
            for first, last in limits.forbidden
            if max(start, first) < min(stop, last + 1)
        ),
        None,
    )


def check_forbidden(region: Region, start: int, stop: int, names: str, limits: Limits) -> None:
    """Raise SettingsError when the addresses touch a forbidden range."""
    if touched := _forbidden(region, start, stop, limits):
        raise SettingsError(
            f"{Request(region, start, stop - start)} touches the forbidden registers "
            f"{touched[0]}–{touched[1]}",
            where=names,
            mend="Move the tag or correct the forbidden range",
        )


def _block(items: Sequence[Item]) -> Block:
    start = min(item.start for item in items)
    stop = max(item.stop for item in items)
    return Block(Request(items[0].region, start, stop - start), items)
