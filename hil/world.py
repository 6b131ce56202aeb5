"""The world behind the sockets in lock-step: plant, PLCs, laboratory, faults, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from controller.errors import ScenarioError
from controller.historian.events import EventStore
from controller.settings.plant_reference import call_factory, find_factory
from controller.signal import NS_PER_S, Command
from hil.faults import Fault, FaultSchedule
from hil.lab import VirtualLab
from hil.plc_memory import DeviceMemory
from hil.scenario import Profile, Scenario
from hil.virtual_plc import VirtualPlc
from plant_models.process import Plant

START_NS = 1_767_225_600 * NS_PER_S
"""Scenario time zero: 2026-01-01T00:00:00Z, so that the same seed gives the same stamps."""


@dataclass(slots=True)
class World:
    """Everything outside the controller; advances only when the clock is asked to.

    Attributes:
        mail: the durable inbox that lab results and operator commands go to; None drops them.
        lab_truth: per result id, the true plant outputs when its sample was drawn.
    """

    scenario: Scenario
    plc: VirtualPlc
    schedule: FaultSchedule
    labs: tuple[VirtualLab, ...]
    mail: EventStore | None = None
    time_ns: int = START_NS
    active_faults: tuple[Fault, ...] = ()
    _commands_sent: int = 0
    _profile_start: dict[int, float] = field(default_factory=lambda: dict[int, float]())

    @property
    def elapsed_s(self) -> float:
        return (self.time_ns - START_NS) / NS_PER_S

    def run_until(self, time_ns: int) -> None:
        """Scan the PLCs up to `time_ns`, with everything that happens on the way."""
        scan_ns = round(self.scenario.scan_s * NS_PER_S)
        self._happen()
        while self.time_ns < time_ns:
            step_ns = min(scan_ns, time_ns - self.time_ns)
            self.time_ns += step_ns
            self.plc.scan(self.time_ns, step_ns / NS_PER_S)
            self._happen()

    def _happen(self) -> None:
        elapsed_s = self.elapsed_s
        self.schedule.advance(elapsed_s)
        self.active_faults = self.schedule.active
        for index, profile in enumerate(self.scenario.profiles):
            self._drive(index, profile, elapsed_s)
        outputs = self.plc.outputs()
        for lab in self.labs:
            for result in lab.advance(self.time_ns, outputs):
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
        start = self._profile_start.setdefault(index, self.plc.inputs()[profile.input])
        share = 1.0 if profile.over_s <= 0 else (elapsed_s - profile.at_s) / profile.over_s
        if share < 1.0 + self.scenario.scan_s / max(profile.over_s, self.scenario.scan_s):
            self.plc.set_input(profile.input, start + min(share, 1.0) * (profile.to - start))


class LockstepClock:
    """A clock that stands still while the controller thinks, and runs the world while it sleeps."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        """`advance` brings the world to a time, ns since epoch."""
        self._advance = advance
        self._now_ns = START_NS

    def time_ns(self) -> int:
        return self._now_ns

    def monotonic_ns(self) -> int:
        return self._now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        if monotonic_ns > self._now_ns:
            self._advance(monotonic_ns)
            self._now_ns = monotonic_ns


def make_plant(scenario: Scenario) -> Plant:
    """The plant that the scenario names.

    Raises:
        ScenarioError: there is no such factory, or it refuses its arguments.
    """
    try:
        factory = find_factory(scenario.plant_ref, scenario.path.parent)
        plant = call_factory(factory, scenario.plant_ref, scenario.plant_arguments)
    except Exception as error:
        raise ScenarioError(
            f"the plant {scenario.plant_ref} cannot be made: {error}",
            where=f"{scenario.path} plant",
            mend="Name package.module:factory or path/file.py:factory and its arguments",
        ) from error
    if not (hasattr(plant, "advance") and hasattr(plant, "reset") and hasattr(plant, "outputs")):
        raise ScenarioError(
            f"{scenario.plant_ref} made a {type(plant).__name__}, which is no plant",
            where=f"{scenario.path} plant.ref",
            mend="A plant has inputs, outputs, reset(seed) and advance(u, dt_s)",
        )
    return cast("Plant", plant)


def make_plc(scenario: Scenario, memory: dict[str, DeviceMemory]) -> VirtualPlc:
    settings = scenario.settings
    handshakes = {
        device.name: device.handshake
        for device in settings.devices.values()
        if device.handshake is not None
    }
    return VirtualPlc(
        make_plant(scenario),
        scenario.loops,
        scenario.indicators,
        memory,
        handshakes,
        cycle_s=settings.cycle_s,
        watchdog_cycles=settings.guard.watchdog_cycles,
        seed=scenario.seed,
        noise=scenario.noise,
    )
