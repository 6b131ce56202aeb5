"""What can be wrong with the line to a PLC, decided by a seed, frame by frame, without sockets.

`LineFaults` holds the faults of one device, `Chance` throws the dice for one of its connections,
`FrameFaults` applies both to the frames of a real wire. The virtual tier asks the first two
directly, so that equal seeds give equal faults with and without sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hil.faults.kinds import (
    Driver,
    LinkFault,
    check_arguments,
    check_driver,
    completed,
)
from hil.link.answers import (
    BIT_AREAS,
    Query,
    ReadSpan,
    modbus_exception,
    payloads_in,
    query_in,
    s7_refusal,
    with_payloads,
)
from hil.names import unknown_name
from hil.plc_memory import Place

Direction = Literal["to_plc", "from_plc"]

_NS_PER_MS = 1_000_000
_IMAGES_MAX = 4096  # different read requests; a controller has a handful
_PENDING_MAX = 64  # requests without an answer on one connection; lost ones must not pile up


def link_fault(fault: str) -> LinkFault:
    """The fault of this name. Raises ScenarioError that proposes the nearest."""
    try:
        return LinkFault(fault)
    except ValueError:
        raise unknown_name("link fault", fault, LinkFault, "type") from None


def checked_link_fault(
    driver: Driver, fault: str, args: Mapping[str, float]
) -> tuple[LinkFault, Mapping[str, float]]:
    """The fault and all its arguments, as `hil.faults.kinds` knows them, defaults filled in.

    Raises:
        ScenarioError: no such fault or argument, one is missing or out of its range, or the
            protocol of the device does not know the fault.
    """
    kind = link_fault(fault)
    check_driver(kind, driver, "the device", _where)
    check_arguments(kind, args, _where)
    return kind, completed(kind, args)


def _where(*place: str) -> str:
    return ".".join(place)


class LineFaults:
    """The faults in force on the line to one device, and the images that a stale one repeats.

    Attributes:
        driver: protocol of the device.
        active: arguments of every fault in force.
    """

    def __init__(self, driver: Driver, seed: int, layout: Iterable[Place] = ()) -> None:
        """`layout` says where values lie, for byte_order and word_order.

        Without a layout an answer counts as a row of 32-bit values.
        """
        self.driver: Driver = driver
        self.active: dict[LinkFault, Mapping[str, float]] = {}
        self._seed = seed
        self._layout = _by_area(layout)
        self._images: dict[ReadSpan, bytes] = {}
        self._next_break_ns = 0

    def begin(self, fault: str, args: Mapping[str, float], now_ns: int) -> LinkFault:
        """Raise a fault; raises ScenarioError as `checked_link_fault`."""
        kind, full = checked_link_fault(self.driver, fault, args)
        self.active[kind] = full
        if kind is LinkFault.RECONNECT_STORM:
            self._next_break_ns = now_ns + self._period_ns
        return kind

    def end(self, fault: LinkFault) -> None:
        """End a fault, if it is in force."""
        self.active.pop(fault, None)

    def chance(self, connection: int) -> Chance:
        """The dice of the connection with this number, counted from 1."""
        return Chance(self, self._seed, connection)

    @property
    def next_break_ns(self) -> int | None:
        """When a reconnect storm resets all connections next, on the clock given to `begin`."""
        return self._next_break_ns if LinkFault.RECONNECT_STORM in self.active else None

    def breaks(self, now_ns: int) -> bool:
        """Whether a storm has struck since the last call: then every open connection is reset."""
        if LinkFault.RECONNECT_STORM not in self.active or now_ns < self._next_break_ns:
            return False
        period_ns = self._period_ns
        self._next_break_ns += ((now_ns - self._next_break_ns) // period_ns + 1) * period_ns
        return True

    @property
    def _period_ns(self) -> int:
        return round(self.active[LinkFault.RECONNECT_STORM]["period_ms"] * _NS_PER_MS)

    def seen(self, span: ReadSpan, data: bytes) -> bytes:
        """What the controller gets where the PLC answers `data`."""
        if LinkFault.STALE_IMAGE in self.active:
            # A request that was never made before is answered, and from then on repeated.
            image = self._images.setdefault(span, data)
            data = image if len(image) == len(data) else data
        else:
            self._images[span] = data
            if len(self._images) > _IMAGES_MAX:
                self._images.pop(next(iter(self._images)))
        if not self.active:
            return data
        swapping = self.active.keys() & (LinkFault.BYTE_ORDER, LinkFault.WORD_ORDER)
        if not swapping or span.bit is not None or span.area in BIT_AREAS:
            return data
        values = self._values(span, len(data))
        if LinkFault.BYTE_ORDER in swapping:
            data = bytes_swapped(data, values)
        if LinkFault.WORD_ORDER in swapping:
            data = words_reversed(data, values)
        return data

    def _values(self, span: ReadSpan, size: int) -> list[tuple[int, int]]:
        """Offset and size of every whole value in an answer."""
        if not self._layout:
            return [(start, min(4, size - start)) for start in range(0, size, 4)]
        last = span.byte + size
        return [
            (byte - span.byte, width)
            for byte, width in self._layout.get(span.area, ())
            if span.byte <= byte and byte + width <= last
        ]


class Chance:
    """The dice of one connection: a stream of its own for each direction."""

    __slots__ = ("_faults", "_streams")

    def __init__(self, faults: LineFaults, seed: int, connection: int) -> None:
        self._faults = faults
        self._streams: Mapping[Direction, np.random.Generator] = {
            "to_plc": np.random.default_rng([seed, connection, 0]),
            "from_plc": np.random.default_rng([seed, connection, 1]),
        }

    def loses(self, direction: Direction) -> bool:
        """Whether the next frame is lost."""
        args = self._faults.active.get(LinkFault.DROP)
        return args is not None and self._streams[direction].random() < args["probability"]

    def refusal(self) -> int | None:
        """The code with which the next read or write request is refused; None: it is not."""
        active = self._faults.active
        args = active.get(LinkFault.MODBUS_EXCEPTION) or active.get(LinkFault.S7_ERROR)
        if args is None or self._streams["to_plc"].random() >= args["probability"]:
            return None
        return int(args["code"])

    def delay_ns(self, direction: Direction) -> int:
        """How late the next frame arrives."""
        args = self._faults.active.get(LinkFault.DELAY)
        if args is None:
            return 0
        late_ms = args["delay_ms"] + args["jitter_ms"] * self._streams[direction].random()
        return round(late_ms * _NS_PER_MS)


@dataclass(frozen=True, slots=True)
class Passage:
    """A frame that goes on: which way (a refused request turns round), and how late."""

    direction: Direction
    frame: bytes
    delay_ns: int = 0


class FrameFaults:
    """Applies the faults of a line to the frames of one connection."""

    __slots__ = ("_chance", "_line", "_pending")

    def __init__(self, line: LineFaults, connection: int) -> None:
        self._line = line
        self._chance = line.chance(connection)
        self._pending: dict[int, tuple[ReadSpan, ...]] = {}

    def passage(self, direction: Direction, frame: bytes) -> Passage | None:
        """What becomes of one whole frame; None: it is lost."""
        if self._chance.loses(direction):
            return None
        if direction == "from_plc":
            frame = self._answer(frame)
        elif (query := query_in(self._line.driver, frame)) is not None:
            if (code := self._chance.refusal()) is not None:
                refuse = s7_refusal if self._line.driver == "s7" else modbus_exception
                direction, frame = "from_plc", refuse(frame, code)
            else:
                self._expect(query)
        return Passage(direction, frame, self._chance.delay_ns(direction))

    def _expect(self, query: Query) -> None:
        self._pending.pop(query.number, None)
        if query.spans:
            self._pending[query.number] = query.spans
            if len(self._pending) > _PENDING_MAX:
                self._pending.pop(next(iter(self._pending)))

    def _answer(self, frame: bytes) -> bytes:
        """The answer as the controller gets it: numbers and codes of its own, values of the line's.

        Refusals and answers to nothing that was asked pass as they are.
        """
        found = payloads_in(self._line.driver, frame)
        if found is None:
            return frame
        number, places = found
        spans = self._pending.pop(number, ())
        if len(spans) != len(places):
            return frame
        before = [frame[place] for place in places]
        seen = [self._line.seen(span, data) for span, data in zip(spans, before, strict=True)]
        return frame if seen == before else with_payloads(frame, places, seen)


def bytes_swapped(data: bytes, values: Iterable[tuple[int, int]]) -> bytes:
    """The two bytes of every 16-bit word exchanged, in values (offset, size) of whole words."""
    swapped = bytearray(data)
    for start, size in values:
        for low in range(start, start + size - 1, 2):
            swapped[low], swapped[low + 1] = data[low + 1], data[low]
    return bytes(swapped)


def words_reversed(data: bytes, values: Iterable[tuple[int, int]]) -> bytes:
    """The 16-bit words of every value (offset, size) in reverse; a single word stays."""
    reversed_ = bytearray(data)
    for start, size in values:
        words = [data[low : low + 2] for low in range(start, start + size - 1, 2)]
        reversed_[start : start + 2 * len(words)] = b"".join(reversed(words))
    return bytes(reversed_)


def _by_area(layout: Iterable[Place]) -> dict[str, tuple[tuple[int, int], ...]]:
    """First byte and size of the values wider than a byte, per area, none of them overlapping."""
    areas: dict[str, list[tuple[int, int]]] = {}
    for spot in sorted(layout, key=lambda spot: (spot.area, spot.byte, -spot.size)):
        values = areas.setdefault(spot.area, [])
        if spot.size > 1 and (not values or sum(values[-1]) <= spot.byte):
            values.append((spot.byte, spot.size))
    return {area: tuple(values) for area, values in areas.items()}
