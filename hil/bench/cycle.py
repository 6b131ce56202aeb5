"""The whole cycle, validate to guard, on the CSTR application: how long it takes, what it keeps.

The production loop on the virtual tier: the same PLC memory as behind the sockets, no sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import cast

import numpy as np

from controller.app import build_application
from controller.cycle.record import Record, decode_entry
from controller.historian.events import EventStore
from controller.loop import Loop
from controller.ports import Messages
from controller.signal import Command, CommandKind, QualityResult, Snapshot
from controller.wiring import typed_tags
from hil.bench.measure import WARM_UP, Times, times_of
from hil.faults.schedule import FaultSchedule
from hil.link.virtual_transport import MemoryTransport
from hil.plc_memory import DeviceMemory
from hil.resources import shipped
from hil.scenario import ScheduledCommand, load_scenario
from hil.world import START_NS, LockstepClock, World, make_plc

SCENARIO = "scenarios/cstr-setpoint.yaml"
SETPOINTS = (0.90, 0.95)
SETTLED = 1000
"""Cycles before memory counts: until then caches and histories of bounded length fill."""
KEPT = 20_000
"""Times of that many last cycles are kept; keeping all would itself be growth."""


@dataclass(frozen=True, slots=True)
class CycleResult:
    """Times of the pure cycle, its share of plans by rung, and the memory of the process.

    Attributes:
        rss_start_mb: after `SETTLED` cycles, or half of them if there are fewer.
        rss_end_mb: after the last one.
    """

    cycles: int
    times: Times
    rungs: Mapping[str, int]
    rss_start_mb: float
    rss_end_mb: float


class WorkClock(LockstepClock):
    """Stands still while the controller thinks, but for the time that the thinking really takes."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        super().__init__(advance)
        self._since_ns = perf_counter_ns()

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + perf_counter_ns() - self._since_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        super().sleep_until(monotonic_ns)
        self._since_ns = perf_counter_ns()


class _Mailbox:
    """An inbox in memory, for the world to post into and the loop to read."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._results: list[QualityResult] = []

    def add_command(self, command: Command) -> None:
        self._commands.append(command)

    def add_quality_result(self, result: QualityResult) -> None:
        self._results.append(result)

    def poll(self, time_ns: int) -> Messages:
        messages = Messages(tuple(self._results), tuple(self._commands))
        self._commands.clear()
        self._results.clear()
        return messages


class _Tally:
    """A journal that keeps no more than times, rungs and memory, in bounded space.

    The loop writes down how long its decisions took; writing that down is not part of them.
    """

    def __init__(self, cycles: int, told: Callable[[int, int], None] | None) -> None:
        self.times_ms = np.zeros(min(cycles, KEPT))
        self.rungs: dict[str, int] = {}
        self.rss_start_mb = 0.0
        self._cycles, self._told, self._done = cycles, told, 0

    def append_snapshot(self, snapshot: Snapshot) -> str:
        return ""

    def append_record(self, cycle: int, time_ns: int, record: bytes) -> None:
        self.times_ms[self._done % len(self.times_ms)] = decode_entry(record).timing["step_ms"]

    def append_event(self, time_ns: int, kind: str, body: Mapping[str, object]) -> None: ...

    def rest(self, until_ns: int) -> None: ...

    def close(self) -> None: ...

    def observe(self, snapshot: Snapshot, record: Record) -> None:
        if record.plan is not None:
            self.rungs[record.plan.rung] = self.rungs.get(record.plan.rung, 0) + 1
        self._done += 1
        if self._done == min(SETTLED, max(self._cycles // 2, 1)):
            self.rss_start_mb = resident_mb()
        if self._told is not None and self._done % 50 == 0:
            self._told(self._done, self._cycles)


def measure_cycle(cycles: int, told: Callable[[int, int], None] | None = None) -> CycleResult:
    """Run the CSTR application for `cycles` cycles of 10 s, its setpoint moving every hour."""
    scenario = load_scenario(shipped(SCENARIO))
    hours = int(cycles * scenario.settings.cycle_s / 3600.0)
    moves = tuple(
        ScheduledCommand(3600.0 * hour, CommandKind.SETPOINT, "cB", SETPOINTS[hour % 2], "")
        for hour in range(1, hours + 1)
    )
    first = tuple(c for c in scenario.commands if c.kind is CommandKind.MODE)
    scenario = replace(scenario, commands=(*first, *moves))
    tags = typed_tags(scenario.settings)
    memory = {name: DeviceMemory(name, tags.values()) for name in scenario.settings.devices}
    plc, mail = make_plc(scenario, memory), _Mailbox()
    schedule = FaultSchedule((), plc, plc.sensors, {})
    world = World(scenario, plc, schedule, (), cast("EventStore", mail), START_NS)
    clock = WorkClock(world.run_until)
    devices = [
        MemoryTransport(area, [t for t in tags.values() if t.device == name], clock, _unseen)
        for name, area in memory.items()
    ]
    tally = _Tally(cycles, told)
    application = build_application(scenario.settings, epoch=1)
    Loop(application, devices, tally, mail, clock, observers=(tally.observe,)).run(cycles)
    kept = tally.times_ms.tolist()
    return CycleResult(
        cycles,
        times_of(kept, WARM_UP if cycles <= KEPT else 0),
        tally.rungs,
        tally.rss_start_mb,
        resident_mb(),
    )


def _unseen(device: str, writes: object) -> None:
    """No witness: what the wire watch would check is checked by the scenarios."""


def resident_mb() -> float:
    """Resident memory of this process in MB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024.0
    return float("nan")
