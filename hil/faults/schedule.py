"""What breaks, where and when: every fault of a scenario on one schedule."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from controller.errors import ScenarioError
from hil.faults.kinds import (
    HOST,
    KINDS,
    TIERS_OF,
    Driver,
    Fault,
    Where,
    check_driver,
    check_fault,
    check_overlaps,
    check_tier,
    completed,
    where_of,
)
from hil.faults.plant import not_offered
from hil.names import unknown_name
from plant_models.variable import Variable

__all__ = [
    "HOST",
    "KINDS",
    "TIERS_OF",
    "Driver",
    "Fault",
    "FaultSchedule",
    "FaultyHost",
    "FaultyLab",
    "FaultyLink",
    "FaultyPlant",
    "FaultyPlc",
    "FaultySensors",
    "check_tier",
]


class FaultyPlant(Protocol):
    """The process behind a PLC, as far as it can change; `hil.faults.plant` is one."""

    @property
    def plant_name(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, float]: ...

    @property
    def inputs(self) -> Mapping[str, Variable]: ...

    @property
    def free_inputs(self) -> Collection[str]: ...

    def set_parameter(self, name: str, value: float) -> None: ...

    def begin(self, target: str, fault: str, args: Mapping[str, float]) -> None: ...

    def end(self, target: str, fault: str) -> None: ...


class FaultyPlc(Protocol):
    """The PLC faults that a schedule can raise; the virtual PLC is one."""

    @property
    def devices(self) -> Collection[str]: ...

    @property
    def loop_names(self) -> Collection[str]: ...

    @property
    def measured_tags(self) -> Collection[str]: ...

    @property
    def upsets(self) -> FaultyPlant: ...

    def stop(self, device: str) -> None: ...

    def restart(self, device: str) -> None: ...

    def freeze_heartbeat(self, device: str, frozen: bool) -> None: ...

    def setpoint_range(self, loop: str) -> tuple[float, float]: ...

    def begin_loop_fault(self, loop: str, fault: str, args: Mapping[str, float]) -> None: ...

    def end_loop_fault(self, loop: str, fault: str) -> None: ...


class FaultySensors(Protocol):
    """The transmitters; `hil.faults.sensors` is one."""

    def begin(self, tag: str, fault: str, args: Mapping[str, float]) -> None: ...

    def end(self, tag: str, fault: str) -> None: ...

    def objection(self, tag: str, value: float) -> str: ...


class _Faulty(Protocol):
    """One thing that can be disturbed."""

    def begin(self, fault: str, args: Mapping[str, float]) -> None: ...

    def end(self, fault: str) -> None: ...


class FaultyLink(_Faulty, Protocol):
    """A connection to a device that can be disturbed; the proxy is one."""


class FaultyLab(_Faulty, Protocol):
    """A laboratory that errs; the virtual one does."""


class FaultyHost(_Faulty, Protocol):
    """The process that runs the controller, and its machine."""


_NONE: Final[Mapping[str, FaultyLab]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Drift:
    """A parameter on its way from one value to another."""

    fault: Fault
    start: float

    def value(self, time_s: float) -> float:
        """Linear in time; at the end exactly factor times the start."""
        begin_s, end_s = self.fault.at_s, self.fault.until_s
        share = 1.0 if time_s >= end_s else (time_s - begin_s) / (end_s - begin_s)
        factor = self.fault.args["factor"]
        return self.start * factor if share >= 1.0 else self.start * (1.0 + (factor - 1.0) * share)


class FaultSchedule:
    """Raises and ends the faults of a scenario as its time goes on.

    Attributes:
        active: faults in force, in the order of the scenario.
    """

    def __init__(
        self,
        faults: Iterable[Fault],
        plc: FaultyPlc,
        sensors: FaultySensors,
        links: Mapping[str, FaultyLink],
        *,
        labs: Mapping[str, FaultyLab] = _NONE,
        host: FaultyHost | None = None,
        drivers: Mapping[str, Driver] | None = None,
    ) -> None:
        """Every fault is checked before anything runs.

        Args:
            links: by device.
            labs: by quality source.
            host: takes kill, pause, disk_full, clock_step and cpu_load; None refuses them.
            drivers: protocol by device, to refuse a fault that its protocol does not know.

        Raises:
            ScenarioError: an unknown type, target or argument (the nearest known one is named), a
                fault that its target cannot have, times out of order, or two faults of the same
                type on the same target at the same time.
        """
        self._plc, self._sensors, self._host = plc, sensors, host
        self._links, self._labs = links, labs
        self.faults = tuple(faults)
        check = _TargetCheck(plc, sensors, links, labs, host is not None, drivers or {})
        events: list[tuple[float, int, int, Fault]] = []
        for number, fault in enumerate(self.faults):
            check_fault(fault, where_of(number))
            check(fault, where_of(number))
            # At equal times: old faults end, new ones begin, one-shot faults end.
            end_rank = 2 if fault.until_s == fault.at_s else 0
            events.append((fault.at_s, 1, number, fault))
            events.append((fault.until_s, end_rank, number, fault))
        check_overlaps(self.faults)
        self._events = sorted(events, key=lambda event: event[:3])
        self._next = 0
        self._active: dict[int, Fault] = {}
        self.active: tuple[Fault, ...] = ()
        self._drifts: dict[str, _Drift] = {}

    @property
    def next_s(self) -> float:
        """When something changes next, in scenario time; 0 while a parameter drifts."""
        if self._drifts:
            return 0.0
        return self._events[self._next][0] if self._next < len(self._events) else math.inf

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
            self.active = tuple(self._active[key] for key in sorted(self._active))
        for name, drift in self._drifts.items():
            self._plc.upsets.set_parameter(name, drift.value(time_s))
        return tuple(begun)

    def _begin(self, fault: Fault) -> None:
        lane, target, args = fault.lane, fault.target, completed(fault.type, fault.args)
        if lane == "sensor":
            self._sensors.begin(target, fault.type, args)
        elif lane == "quality":
            self._labs[target].begin(fault.type, args)
        elif lane == "loop":
            self._plc.begin_loop_fault(target, fault.type, args)
        elif lane == "link":
            self._links[target].begin(fault.type, args)
        elif lane == "host" and self._host is not None:
            self._host.begin(fault.type, args)
        elif fault.type == "parameter_drift":
            self._drifts[target] = _Drift(fault, self._plc.upsets.parameters[target])
        elif lane == "plant":
            self._plc.upsets.begin(target, fault.type, args)
        elif fault.type == "stop":
            self._plc.stop(target)
        else:
            self._plc.freeze_heartbeat(target, True)

    def _end(self, fault: Fault) -> None:
        lane, target = fault.lane, fault.target
        if lane == "sensor":
            self._sensors.end(target, fault.type)
        elif lane == "quality":
            self._labs[target].end(fault.type)
        elif lane == "loop":
            self._plc.end_loop_fault(target, fault.type)
        elif lane == "link":
            self._links[target].end(fault.type)
        elif lane == "host" and self._host is not None:
            self._host.end(fault.type)
        elif fault.type == "parameter_drift":
            drift = self._drifts.pop(target)
            self._plc.upsets.set_parameter(target, drift.value(fault.until_s))
        elif lane == "plant":
            self._plc.upsets.end(target, fault.type)
        elif fault.type == "stop":
            self._plc.restart(target)
        else:
            self._plc.freeze_heartbeat(target, False)


@dataclass(frozen=True, slots=True)
class _TargetCheck:
    """Whether a fault can be raised on its target in this world."""

    plc: FaultyPlc
    sensors: FaultySensors
    links: Mapping[str, FaultyLink]
    labs: Mapping[str, FaultyLab]
    has_host: bool
    drivers: Mapping[str, Driver]

    def __call__(self, fault: Fault, where: Where) -> None:
        lane = fault.lane
        if lane == "plant":
            check_in_world(fault, self.plc, self.sensors, where)
            return
        known: Mapping[str, Collection[str]] = {
            "sensor": self.plc.measured_tags,
            "quality": self.labs,
            "loop": self.plc.loop_names,
            "device": self.plc.devices,
            "link": self.links,
            "host": (HOST,),
        }
        if fault.target not in known[lane]:
            what = f"{lane} for {fault.type}"
            raise unknown_name(what, fault.target, known[lane], where("target"))
        if lane == "host" and not self.has_host:
            raise ScenarioError(
                f"{fault.type} needs the wire or realtime tier",
                where=where("type"),
                mend="Run the scenario there, or leave the fault out",
            )
        check_in_world(fault, self.plc, self.sensors, where)
        if lane == "link" and (driver := self.drivers.get(fault.target)) is not None:
            check_driver(fault.type, driver, fault.target, where)


def check_in_world(fault: Fault, plc: FaultyPlc, sensors: FaultySensors, where: Where) -> None:
    """What only the plant, the loops and the transmitters know about a fault on one of them.

    Raises:
        ScenarioError: the plant has no such parameter or input, or a value that is shown, clamped
            or fed means nothing there.
    """
    if fault.lane == "plant":
        check_plant_fault(fault, plc.upsets, where)
    elif fault.type == "clamp_write":
        _check_clamp(fault, plc, where)
    elif fault.type in ("nan", "out_of_range"):
        _check_published(fault, sensors, where)


def _check_published(fault: Fault, sensors: FaultySensors, where: Where) -> None:
    value = fault.args.get("value", math.nan)
    if objection := sensors.objection(fault.target, value):
        raise ScenarioError(
            objection,
            where=where("target") if math.isnan(value) else where("args", "value"),
            mend="Take another tag, another value or another fault",
        )


def _check_clamp(fault: Fault, plc: FaultyPlc, where: Where) -> None:
    low, high = plc.setpoint_range(fault.target)
    inside = low <= fault.args["low"] and fault.args["high"] <= high
    if not inside or (fault.args["low"], fault.args["high"]) == (low, high):
        raise ScenarioError(
            f"[{fault.args['low']:g}, {fault.args['high']:g}] is no tighter clamp on "
            f"{fault.target} than the PLC's own",
            where=where("args"),
            mend=f"Take a part of [{low:g}, {high:g}]",
        )


def check_plant_fault(fault: Fault, plant: FaultyPlant, where: Where) -> None:
    """Raises ScenarioError where the plant has no such parameter or input, or cannot be so."""
    target, here = fault.target, where("target")
    if fault.type == "parameter_drift":
        if target not in plant.parameters:
            raise not_offered(
                plant.plant_name, "parameter", target, plant.parameters, where("target")
            )
        if plant.parameters[target] == 0.0:
            raise ScenarioError(
                f"{target} of {plant.plant_name} is 0, and no factor moves it",
                where=here,
                mend="Drift another parameter",
            )
        return
    if target not in plant.inputs:
        raise not_offered(plant.plant_name, "input", target, plant.inputs, here)
    if fault.type == "gain_flip":
        return
    if target not in plant.free_inputs:
        raise ScenarioError(
            f"the plant input {target} is the output of a loop, not a feed",
            where=here,
            mend=f"Change one of: {', '.join(plant.free_inputs) or 'there is none'}",
        )
    spec, to = plant.inputs[target], fault.args["to"]
    if not spec.low <= to <= spec.high:
        raise ScenarioError(
            f"{target} cannot change to {to:g} {spec.unit}",
            where=where("args", "to"),
            mend=f"It means something from {spec.low:g} to {spec.high:g} {spec.unit}",
        )
