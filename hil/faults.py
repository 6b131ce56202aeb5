"""What breaks, where and when: sensor, network and PLC faults on a fixed schedule."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol

import numpy as np

from controller.errors import ScenarioError
from hil.plc_memory import unknown_name

Lane = Literal["sensor", "link", "device", "loop"]
_NO_ARGS: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a fault type acts on and which arguments it takes."""

    lane: Lane
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "freeze": _Kind("sensor"),
        "bias": _Kind("sensor", ("size",)),
        "drift": _Kind("sensor", ("rate_per_s",)),
        "spike": _Kind("sensor", ("size",), ("probability",)),
        "nan": _Kind("sensor"),
        "out_of_range": _Kind("sensor", ("value",)),
        "cable_cut": _Kind("link"),
        "reset": _Kind("link"),
        "delay": _Kind("link", ("delay_ms",), ("jitter_ms",)),
        "refuse": _Kind("link"),
        "stop": _Kind("device"),
        "heartbeat_freeze": _Kind("device"),
        "mode_flip": _Kind("loop"),
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `type` acts on `target` from `at_s` to `until_s`, seconds of scenario time.

    Targets are a measured tag (freeze, bias, drift, spike, nan, out_of_range), a device
    (cable_cut, reset, delay, refuse, stop, heartbeat_freeze) or a loop (mode_flip: the operator
    keeps it in LOCAL). Arguments: bias and spike `size`, drift `rate_per_s`, out_of_range `value`
    in the tag's unit; spike `probability` per scan; delay `delay_ms` and `jitter_ms`.
    """

    at_s: float
    until_s: float
    target: str
    type: str
    args: Mapping[str, float] = field(default_factory=lambda: _NO_ARGS)


class FaultyPlc(Protocol):
    """The PLC faults that a schedule can raise."""

    @property
    def devices(self) -> Collection[str]: ...

    @property
    def loop_names(self) -> Collection[str]: ...

    @property
    def measured_tags(self) -> Collection[str]: ...

    def stop(self, device: str) -> None: ...

    def restart(self, device: str) -> None: ...

    def freeze_heartbeat(self, device: str, frozen: bool) -> None: ...

    def keep_local(self, loop: str, local: bool) -> None: ...


class FaultyLink(Protocol):
    """A connection to a device that can be disturbed; the proxy is one."""

    def begin(self, fault: str, *, delay_ms: float = 0.0, jitter_ms: float = 0.0) -> None: ...

    def end(self, fault: str) -> None: ...


class SensorFaults:
    """Distorts what the PLC publishes for a tag; the PLC's own loop still sees the process."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._held: dict[tuple[str, str], float] = {}
        self.active: dict[str, dict[str, Mapping[str, float]]] = {}

    def begin(self, tag: str, fault: str, args: Mapping[str, float] = _NO_ARGS) -> None:
        self.active.setdefault(tag, {})[fault] = args

    def end(self, tag: str, fault: str) -> None:
        faults = self.active.get(tag, {})
        faults.pop(fault, None)
        self._held.pop((tag, fault), None)
        if not faults:
            self.active.pop(tag, None)

    def apply(self, tag: str, value: float, dt_s: float) -> float:
        """The published value of `tag`, one scan of dt_s seconds further, in the tag's unit."""
        for fault, args in self.active.get(tag, {}).items():
            key = (tag, fault)
            if fault == "freeze":
                value = self._held.setdefault(key, value)
            elif fault == "bias":
                value += args["size"]
            elif fault == "drift":
                self._held[key] = self._held.get(key, 0.0) + args["rate_per_s"] * dt_s
                value += self._held[key]
            elif fault == "spike":
                chance, sign = self._rng.random(2)
                if chance < args.get("probability", 1.0):
                    value += math.copysign(args["size"], sign - 0.5)
            elif fault == "nan":
                value = math.nan
            elif fault == "out_of_range":
                value = args["value"]
        return value


class FaultSchedule:
    """Raises and ends the faults of a scenario as its time goes on."""

    def __init__(
        self,
        faults: Iterable[Fault],
        plc: FaultyPlc,
        sensors: SensorFaults,
        links: Mapping[str, FaultyLink],
    ) -> None:
        """Every fault is checked before anything runs.

        Raises:
            ScenarioError: unknown type, target or argument (the nearest known one is named), or
                times out of order.
        """
        self._plc = plc
        self._sensors = sensors
        self._links = links
        self.faults = tuple(faults)
        targets: Mapping[Lane, Collection[str]] = {
            "sensor": plc.measured_tags,
            "link": links.keys(),
            "device": plc.devices,
            "loop": plc.loop_names,
        }
        events: list[tuple[float, int, int, Fault]] = []
        for number, fault in enumerate(self.faults):
            _check(fault, f"faults[{number}]", targets)
            # At equal times: old faults end, new ones begin, one-shot faults end.
            end_rank = 2 if fault.until_s == fault.at_s else 0
            events.append((fault.at_s, 1, number, fault))
            events.append((fault.until_s, end_rank, number, fault))
        self._events = sorted(events, key=lambda event: event[:3])
        self._next = 0
        self._active: dict[int, Fault] = {}

    @property
    def active(self) -> tuple[Fault, ...]:
        """Faults in force, in the order of the scenario."""
        return tuple(fault for _, fault in sorted(self._active.items()))

    def advance(self, time_s: float) -> tuple[Fault, ...]:
        """Bring the world to scenario time `time_s`; returns the faults that began."""
        begun: list[Fault] = []
        while self._next < len(self._events) and self._events[self._next][0] <= time_s:
            _, rank, number, fault = self._events[self._next]
            self._next += 1
            if rank == 1:
                self._active[number] = fault
                begun.append(fault)
                self._begin(fault)
            else:
                self._active.pop(number, None)
                self._end(fault)
        return tuple(begun)

    def _begin(self, fault: Fault) -> None:
        lane = KINDS[fault.type].lane
        if lane == "sensor":
            self._sensors.begin(fault.target, fault.type, fault.args)
        elif lane == "link":
            self._links[fault.target].begin(fault.type, **fault.args)
        elif fault.type == "stop":
            self._plc.stop(fault.target)
        elif fault.type == "heartbeat_freeze":
            self._plc.freeze_heartbeat(fault.target, True)
        else:
            self._plc.keep_local(fault.target, True)

    def _end(self, fault: Fault) -> None:
        lane = KINDS[fault.type].lane
        if lane == "sensor":
            self._sensors.end(fault.target, fault.type)
        elif lane == "link":
            self._links[fault.target].end(fault.type)
        elif fault.type == "stop":
            self._plc.restart(fault.target)
        elif fault.type == "heartbeat_freeze":
            self._plc.freeze_heartbeat(fault.target, False)
        else:
            self._plc.keep_local(fault.target, False)


def _check(fault: Fault, where: str, targets: Mapping[Lane, Collection[str]]) -> None:
    kind = KINDS.get(fault.type)
    if kind is None:
        raise unknown_name("fault type", fault.type, KINDS, where)
    if fault.target not in targets[kind.lane]:
        raise unknown_name(f"{kind.lane} for {fault.type}", fault.target, targets[kind.lane], where)
    known = kind.required + kind.optional
    for name in fault.args:
        if name not in known:
            raise unknown_name(f"argument of {fault.type}", name, known, where)
    missing = [name for name in kind.required if name not in fault.args]
    if missing:
        raise ScenarioError(
            f"{fault.type} needs the argument {', '.join(missing)}", where=where, mend="Add it"
        )
    if not 0.0 <= fault.at_s <= fault.until_s:
        raise ScenarioError(
            f"a fault cannot last from {fault.at_s} s until {fault.until_s} s",
            where=where,
            mend="Let it begin at 0 s or later, and end no sooner than it begins",
        )
