"""The world behind the sockets in lock-step: plant, PLCs, laboratory, faults, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controller.signal import NS_PER_S, Command, QualityResult
from hil.faults.schedule import Fault, FaultSchedule, FaultyPlc, FaultySensors
from hil.lab import VirtualLab
from hil.plc.virtual import PlcStatistics, VirtualPlc
from hil.plc_memory import DeviceMemory
from hil.scenario.parts import Profile, Scenario
from hil.scenario.plant import make_plant, plc_around

__all__ = [
    "START_NS",
    "LockstepClock",
    "Mail",
    "PlcSide",
    "World",
    "make_plant",
    "make_plc",
]

START_NS = 1_767_225_600 * NS_PER_S
"""Scenario time zero: 2026-01-01T00:00:00Z, so that the same seed gives the same stamps."""


class PlcSide(FaultyPlc, Protocol):
    """The PLCs and the plant behind them, as far as a run needs to know."""

    @property
    def sensors(self) -> FaultySensors: ...

    @property
    def statistics(self) -> PlcStatistics: ...

    def scan(self, now_ns: int, dt_s: float) -> None: ...

    def scan_unseen(self, now_ns: int, dt_s: float, scans: int) -> None: ...

    def outputs(self) -> dict[str, float]: ...

    def inputs(self) -> dict[str, float]: ...

    def commanded_inputs(self) -> dict[str, float]: ...

    def set_input(self, name: str, value: float) -> None: ...

    def setpoint_in_use(self, setpoint_tag: str) -> float: ...


class Mail(Protocol):
    """Takes what the laboratory and the operators tell the controller."""

    def add_quality_result(self, result: QualityResult, /) -> object: ...

    def add_command(self, command: Command, /) -> object: ...


@dataclass(slots=True)
class World:
    """Everything outside the controller; advances only when the clock is asked to.

    Attributes:
        mail: the durable inbox that lab results and operator commands go to; None drops them.
    """

    scenario: Scenario
    plc: PlcSide
    schedule: FaultSchedule
    labs: tuple[VirtualLab, ...]
    mail: Mail | None = None
    time_ns: int = START_NS
    _begun: list[Fault] = field(default_factory=lambda: list[Fault]())
    _commands_sent: int = 0
    _happened_ns: int = -1
    _profile_start: dict[int, float] = field(default_factory=lambda: dict[int, float]())

    @property
    def elapsed_s(self) -> float:
        return (self.time_ns - START_NS) / NS_PER_S

    def take_faults(self) -> tuple[Fault, ...]:
        """Faults that have been in force since the last call, however short."""
        active = self.schedule.active
        over = tuple(fault for fault in self._begun if fault not in active)
        self._begun.clear()
        return (*active, *over)

    def run_until(self, time_ns: int) -> None:
        """Scan the PLCs up to `time_ns`, with everything that happens on the way."""
        scan_ns = round(self.scenario.scan_s * NS_PER_S)
        if self._happened_ns != self.time_ns:
            self._happen()
        while self.time_ns < time_ns:
            step_ns = min(scan_ns, time_ns - self.time_ns)
            scans = 1 if step_ns < scan_ns else self._scans_until(time_ns, scan_ns)
            self.time_ns += scans * step_ns
            if scans > 1:
                self.plc.scan_unseen(self.time_ns, step_ns / NS_PER_S, scans)
            else:
                self.plc.scan(self.time_ns, step_ns / NS_PER_S)
            self._happen()

    def _scans_until(self, time_ns: int, scan_ns: int) -> int:
        """How many whole scans fit before `time_ns`, or before something else is to happen.

        The controller sleeps until `time_ns`, so nobody sees what is published in between.
        """
        elapsed_s = self.elapsed_s
        due_s = min(self.schedule.next_s, (time_ns - START_NS) / NS_PER_S)
        for profile in self.scenario.profiles:
            if elapsed_s < profile.at_s:
                due_s = min(due_s, profile.at_s)
            elif self._share(profile, elapsed_s) < self._last_share(profile):
                return 1
        if self._commands_sent < len(self.scenario.commands):
            due_s = min(due_s, self.scenario.commands[self._commands_sent].at_s)
        for lab in self.labs:
            due_s = min(due_s, (lab.due_ns - START_NS) / NS_PER_S)
        ahead_ns = round((due_s - elapsed_s) * NS_PER_S)
        return max(1, min(-(-ahead_ns // scan_ns), (time_ns - self.time_ns) // scan_ns))

    def _share(self, profile: Profile, elapsed_s: float) -> float:
        return 1.0 if profile.over_s <= 0 else (elapsed_s - profile.at_s) / profile.over_s

    def _last_share(self, profile: Profile) -> float:
        return 1.0 + self.scenario.scan_s / max(profile.over_s, self.scenario.scan_s)

    def _happen(self) -> None:
        self._happened_ns, elapsed_s = self.time_ns, self.elapsed_s
        self._begun += self.schedule.advance(elapsed_s)
        for index, profile in enumerate(self.scenario.profiles):
            self._drive(index, profile, elapsed_s)
        for lab in self.labs:
            if lab.due_ns > self.time_ns:
                continue
            for result in lab.advance(self.time_ns, self.plc.outputs()):
                if self.mail is not None:
                    self.mail.add_quality_result(result)
        commands = self.scenario.commands
        while self._commands_sent < len(commands) and (
            commands[self._commands_sent].at_s <= elapsed_s
        ):
            wanted = commands[self._commands_sent]
            command = Command(
                command_id=f"{self.scenario.id}-{self._commands_sent}",
                kind=wanted.kind,
                time_ns=self.time_ns,
                target=wanted.target,
                value=wanted.value,
                text=wanted.text,
                who="scenario",
                why=self.scenario.title,
            )
            self._commands_sent += 1
            if self.mail is not None:
                self.mail.add_command(command)

    def _drive(self, index: int, profile: Profile, elapsed_s: float) -> None:
        if elapsed_s < profile.at_s:
            return
        if index not in self._profile_start:
            self._profile_start[index] = self.plc.commanded_inputs()[profile.input]
        start = self._profile_start[index]
        share = self._share(profile, elapsed_s)
        if share < self._last_share(profile):
            self.plc.set_input(profile.input, start + min(share, 1.0) * (profile.to - start))


class LockstepClock:
    """A clock that stands still while the controller thinks, and runs the world while it sleeps."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        """`advance` brings the world to a time, ns since epoch."""
        self._advance = advance
        self._now_ns = START_NS
        self.lateness_ms = 0.0
        self.offset_ns = 0

    def time_ns(self) -> int:
        return self._now_ns

    def monotonic_ns(self) -> int:
        return self._now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        if monotonic_ns > self._now_ns:
            self._advance(monotonic_ns)
            self._now_ns = monotonic_ns


def make_plc(scenario: Scenario, memory: Mapping[str, DeviceMemory]) -> VirtualPlc:
    """The virtual PLCs of a scenario around a fresh plant.

    Raises:
        ScenarioError: the plant cannot be made, or does not fit the loops.
    """
    return plc_around(make_plant(scenario), scenario, memory)
