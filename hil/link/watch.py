"""A witness on the wire: checks every value that reaches the PLC against a table of permits.

It decodes frames on its own (`hil.link.frames`), so that a mistake in a driver or in the guard
shows here as a violation and not as a test that agrees with itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from controller.settings.application import Settings
from controller.signal import Tag
from hil.faults.kinds import Driver
from hil.link.frames import UndecodableFrame, WireWrite, writes_in
from hil.plc_memory import Cell

_STEP_MARGIN = 1.001  # a float32 on the wire is not exactly the planned move
_FLOAT32 = 2.0**-22  # twice the spacing of float32 values, relative
_WORD = 0x1_0000
_OLDER_HALF = 0x8000


class Role(StrEnum):
    """What a writable tag is for."""

    HEARTBEAT = "heartbeat"
    SEQUENCE = "sequence"
    EPOCH = "epoch"
    REQUEST = "request"
    SETPOINT = "setpoint"


_REQUEST = Role.REQUEST  # looked at for every value, and a member takes its time to find


class Rule(StrEnum):
    """What a write can violate."""

    UNDECODABLE = "undecodable"  # not a plain read or write request
    ALLOW_LIST = "allow_list"  # bytes that no permit covers
    TORN = "torn"  # a part of a value
    NOT_FINITE = "not_finite"
    RANGE = "range"
    STEP = "step"  # setpoint moved faster than its rate
    BUMP = "bump"  # REMOTE requested with a setpoint other than the one in use
    REQUEST = "request"  # neither 0 nor 1, or no setpoint behind it
    HEARTBEAT = "heartbeat"  # did not advance


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to write one tag; `tag` gives address, type, byte order, low, high and unit.

    Attributes:
        role: which rules apply.
        step_max: largest change of a setpoint from one frame to the next, in its unit.
        request: tag of the request bit that makes a setpoint count.
        tolerance: how near the first setpoint must be to the one in use, in its unit.
    """

    tag: Tag
    role: Role
    step_max: float = math.inf
    request: str = ""
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Violation:
    """One forbidden write: when (ns since epoch), which device and tag, which rule, in words."""

    time_ns: int
    device: str
    tag: str
    rule: Rule
    what: str

    def __str__(self) -> str:
        return f"{self.time_ns} ns {self.device} {self.tag or '-'} {self.rule}: {self.what}"


def permits_of(settings: Settings) -> tuple[Permit, ...]:
    """The permits of an application: the handshakes of its devices and its MVs, nothing else."""
    permits: list[Permit] = []
    for device in settings.devices.values():
        if (handshake := device.handshake) is None:
            continue
        words = (
            (handshake.heartbeat, Role.HEARTBEAT),
            (handshake.sequence, Role.SEQUENCE),
            (handshake.epoch, Role.EPOCH),
        )
        permits += [Permit(settings.tags[name], role) for name, role in words if name]
    for mv in settings.manipulated:
        tag = settings.tags[mv.setpoint]
        permits.append(Permit(settings.tags[mv.request], Role.REQUEST))
        step_max = mv.rate_per_s * settings.cycle_s
        permits.append(Permit(tag, Role.SETPOINT, step_max, mv.request, tag.write_tolerance))
    return tuple(permits)


class WireWatch:
    """Watches the connections of all devices; hand `listener(device)` to each one's proxy."""

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        permits: Iterable[Permit],
        *,
        now_ns: Callable[[], int],
        in_use: Callable[[str], float],
    ) -> None:
        """`drivers` per device; `in_use` gives the PLC's setpoint in use by setpoint tag."""
        table = tuple(permits)
        self._witnesses = {
            device: _Witness(
                device, driver, [p for p in table if p.tag.device == device], now_ns, in_use
            )
            for device, driver in drivers.items()
        }

    @property
    def writes(self) -> int:
        """Write requests seen."""
        return sum(witness.writes for witness in self._witnesses.values())

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every violation so far, in order of time."""
        found = [v for witness in self._witnesses.values() for v in witness.violations]
        return tuple(sorted(found, key=lambda violation: violation.time_ns))

    def listener(self, device: str) -> Callable[[str, bytes], None]:
        """A frame listener (direction, frame) for the connection to `device`."""
        return self._witnesses[device].hear

    def check(self, device: str, writes: Sequence[WireWrite]) -> None:
        """Check one request that was decoded elsewhere (a transport without a wire)."""
        self._witnesses[device].check(writes)


_Shape = tuple[str, int, int, int | None]
"""Of a write: its area, first byte, number of bytes, and bit."""


class _Cover(NamedTuple):
    """What writes of one shape hold: the permits that they cover whole, with cell and offset, and
    what there is to object to."""

    whole: tuple[tuple[Permit, Cell, int], ...]
    objections: tuple[tuple[str, Rule, str], ...]


class _Witness:
    """The state of one device's connection."""

    def __init__(
        self,
        device: str,
        driver: Driver,
        permits: Sequence[Permit],
        now_ns: Callable[[], int],
        in_use: Callable[[str], float],
    ) -> None:
        self.writes = 0
        self.violations: list[Violation] = []
        self._device = device
        self._driver: Driver = driver
        self._now_ns = now_ns
        self._in_use = in_use
        self._cells = [(permit, Cell(permit.tag)) for permit in permits]
        self._covers: dict[_Shape, _Cover] = {}
        self._setpoints = [permit for permit in permits if permit.role is Role.SETPOINT]
        # A device has one handshake.
        words = {permit.role: permit.tag.name for permit in permits}
        self._heartbeat, self._epoch = words.get(Role.HEARTBEAT, ""), words.get(Role.EPOCH, "")
        self._values: dict[str, float] = {}
        self._followed: dict[str, float] = {}

    def hear(self, direction: str, frame: bytes) -> None:
        if direction != "to_plc":
            return
        try:
            writes = writes_in(self._driver, frame)
        except UndecodableFrame as error:
            self._object("", Rule.UNDECODABLE, str(error))
            return
        if writes:
            self.check(writes)

    def check(self, writes: Sequence[WireWrite]) -> None:
        self.writes += 1
        fresh: dict[str, float] = {}
        for write in writes:
            for permit, value in self._decode(write):
                fresh[permit.tag.name] = value
                self._check_value(permit, value)
        if self._heartbeat in fresh:
            self._check_heartbeat(fresh)
        self._values.update(fresh)
        for permit in self._setpoints:
            if permit.tag.name in fresh or permit.request in fresh:
                self._check_move(permit)

    def _decode(self, write: WireWrite) -> list[tuple[Permit, float]]:
        """The permitted values in one write; objects to every byte that is none of theirs."""
        data = write.data
        shape = write.area, write.byte, len(data), write.bit
        cover = self._covers.get(shape)
        if cover is None:
            # A controller writes the same few shapes for ever.
            cover = self._covers[shape] = self._covering(*shape)
        for tag, rule, what in cover.objections:
            self._object(tag, rule, what)
        if write.bit is not None:
            return [(permit, float(data[0] & 1)) for permit, _, _ in cover.whole]
        return [(permit, cell.decode(data, start)) for permit, cell, start in cover.whole]

    def _covering(self, area: str, byte: int, size: int, bit: int | None) -> _Cover:
        """What a write of this shape holds, whatever its values are."""
        end = byte + size
        covered = bytearray(size)
        whole: list[tuple[Permit, Cell, int]] = []
        objections: list[tuple[str, Rule, str]] = []
        for permit, cell in self._cells:
            place = cell.place
            first, last = max(place.byte, byte), min(place.end, end)
            if place.area != area or first >= last:
                continue
            if bit is not None and (place.letter != "?" or place.bit != bit):
                continue
            covered[first - byte : last - byte] = b"\1" * (last - first)
            if last - first < place.size:
                what = f"{last - first} of {place.size} bytes"
                objections.append((permit.tag.name, Rule.TORN, what))
            else:
                whole.append((permit, cell, place.byte - byte))
        if not all(covered):
            stray = f"{area} byte {byte + covered.index(0)}"
            stray += "" if bit is None else f" bit {bit}"
            what = f"{stray} is not on the list ({size} bytes from byte {byte})"
            objections.append(("", Rule.ALLOW_LIST, what))
        return _Cover(tuple(whole), tuple(objections))

    def _check_value(self, permit: Permit, value: float) -> None:
        tag = permit.tag
        if not math.isfinite(value):
            self._object(tag.name, Rule.NOT_FINITE, f"{value}")
        elif not tag.low <= value <= tag.high:
            self._object(
                tag.name, Rule.RANGE, f"{value} outside [{tag.low:g}, {tag.high:g}] {tag.unit}"
            )
        elif permit.role is _REQUEST and value not in (0.0, 1.0):
            self._object(tag.name, Rule.REQUEST, f"{value} is neither 0 nor 1")

    def _check_heartbeat(self, fresh: Mapping[str, float]) -> None:
        """It advances from frame to frame; gaps are lost frames, a new epoch starts afresh."""
        name, epoch = self._heartbeat, self._epoch
        restarted = epoch in self._values and fresh.get(epoch) not in (None, self._values[epoch])
        if name not in self._values or restarted:
            return
        advance = int(fresh[name] - self._values[name]) % _WORD
        if not 0 < advance < _OLDER_HALF:
            self._object(
                name, Rule.HEARTBEAT, f"{fresh[name]:g} after {self._values[name]:g} does not rise"
            )

    def _check_move(self, permit: Permit) -> None:
        """While REMOTE is requested the setpoint starts at the one in use and keeps its rate.

        Going back to the setpoint in use is no step: it moves nothing.
        """
        name, unit = permit.tag.name, permit.tag.unit
        if self._values.get(permit.request) != 1.0:
            self._followed.pop(name, None)
            return
        value = self._values.get(name)
        if value is None:
            self._object(permit.request, Rule.REQUEST, f"no {name} has been written yet")
            return
        if not math.isfinite(value):
            return  # already objected to; the next number is judged by the last one
        before = self._followed.get(name)
        self._followed[name] = value
        in_use = self._in_use(name)
        rounding = _FLOAT32 * max(abs(value), abs(in_use))
        if abs(value - in_use) <= permit.tolerance + rounding:
            return
        if before is None:
            what = f"first setpoint {value:g}, in use {in_use:g} {unit}"
            self._object(name, Rule.BUMP, what)
        elif abs(value - before) > permit.step_max * _STEP_MARGIN + rounding:
            what = f"{before:g} to {value:g} {unit} in one frame, at most {permit.step_max:g}"
            self._object(name, Rule.STEP, what)

    def _object(self, tag: str, rule: Rule, what: str) -> None:
        self.violations.append(Violation(self._now_ns(), self._device, tag, rule, what))
