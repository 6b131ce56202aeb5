"""The control side of a run: the production journal, application and loop, on a given clock.

The same function runs in the harness's own process (virtual and wire tier) and in a process of its
own (realtime tier, and wherever that process is to be killed, stopped or starved).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, Protocol

from controller.advice import Advice
from controller.app import build_advice, build_application
from controller.cycle.application import Application
from controller.cycle.record import Record, encode_wishes
from controller.cycle.state import LoopState
from controller.historian.journal import SqliteJournal, open_journal
from controller.historian.writer import LossBound
from controller.loop import Loop
from controller.mpc.instance import Instance
from controller.mpc.solvers import Answer, Solver, Trajectory
from controller.ports import Clock, Transport
from controller.service import SlowLayer, kept_wishes
from controller.settings import Settings
from controller.signal import Command, CommandKind, Snapshot
from hil.faults.solver import AnnouncingInbox, ClockOffsets, SolverFault, SolverFaults, told
from hil.world import START_NS


class RunClock(Clock, Protocol):
    """The clock of a run.

    Attributes:
        lateness_ms: by how much the last sleep was overslept.
        offset_ns: by how much the wall clock is wrong.
    """

    @property
    def lateness_ms(self) -> float: ...

    @property
    def offset_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a control side is told; can be sent to another process.

    Attributes:
        overrides: of the application, as they are journalled.
        addresses: further ones, not journalled: where the harness listens.
        mode: asked for at the start, as an operating system's service would; "" asks for nothing.
        own_optimizer: the optimizer runs in a process of its own, as in production; otherwise
            beside the loop, so that its proposals come in the same cycle in every run.
    """

    directory: Path
    settings_text: str
    settings_path: Path
    overrides: Mapping[str, object]
    addresses: Mapping[str, object]
    seed: int
    solver_faults: tuple[SolverFault, ...] = ()
    mode: str = ""
    own_optimizer: bool = False


class Account(NamedTuple):
    """What the control side tells of a cycle: when it really was, and times in ms of real time.

    Attributes:
        cycle_ms: from waking up at the deadline until all is read, decided, written and handed to
            the journal; neither the sleep nor what a lock-step world does in it is part of it.
        solve_ms: of that, in the solvers.
        lateness_ms: by how much the sleep before the cycle was overslept.
    """

    snapshot: Snapshot
    record: Record
    time_ns: int
    cycle_ms: float
    solve_ms: float
    lateness_ms: float


Tell = Callable[[Account], None]
Started = Callable[[Loop, SqliteJournal], None]


class _Stopwatch:
    """Times the solvers from outside: the pure part must not know the time."""

    def __init__(self) -> None:
        self._elapsed_ms = 0.0

    def around(self, solver: Solver) -> Solver:
        def timed(instance: Instance, begin: Trajectory) -> Answer:
            begun = perf_counter()
            try:
                return solver(instance, begin)
            finally:
                self._elapsed_ms += 1e3 * (perf_counter() - begun)

        return timed

    def inside(self, application: Application) -> Application:
        solvers = tuple((name, self.around(s)) for name, s in application.ladder.solvers)
        return replace(application, ladder=replace(application.ladder, solvers=solvers))

    def take(self) -> float:
        elapsed, self._elapsed_ms = self._elapsed_ms, 0.0
        return elapsed


class _Alarm:
    """The clock of the loop, which sleeps once before each cycle; knows when it woke up.

    Solver faults spend their time on the clock itself: that is computing, and no sleep.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.time_ns = clock.time_ns
        self.monotonic_ns = clock.monotonic_ns
        self._woken_s = perf_counter()

    def sleep_until(self, monotonic_ns: int) -> None:
        self._clock.sleep_until(monotonic_ns)
        self.wake()

    def wake(self) -> None:
        self._woken_s = perf_counter()

    @property
    def awake_ms(self) -> float:
        return 1e3 * (perf_counter() - self._woken_s)


class _Teller:
    """An observer that accounts for each cycle, and lets the optimizer consider it."""

    def __init__(
        self,
        tell: Tell,
        stopwatch: _Stopwatch,
        clock: RunClock,
        alarm: _Alarm,
        advice: Advice | None,
        journal: SqliteJournal,
    ) -> None:
        self._tell = tell
        self._stopwatch = stopwatch
        self._clock = clock
        self._advice = advice
        self._journal = journal
        self._alarm = alarm

    def __call__(self, snapshot: Snapshot, record: Record) -> None:
        cycle_ms = self._alarm.awake_ms
        self._tell(
            Account(
                snapshot,
                record,
                snapshot.time_ns - self._clock.offset_ns,
                cycle_ms,
                self._stopwatch.take(),
                self._clock.lateness_ms,
            )
        )
        if self._advice is not None:
            proposal = self._advice.consider(snapshot, record.mode, record.readings)
            if proposal is not None:
                self._journal.events.add_proposal(proposal)


def control(
    assignment: Assignment,
    settings: Settings,
    devices: Sequence[Transport],
    clock: RunClock,
    tell: Tell,
    *,
    application: Application | None = None,
    cycles: int | None = None,
    started: Started | None = None,
    loss_bound: LossBound | None = None,
) -> None:
    """Run the loop until it is stopped, or for a number of cycles, and hand back.

    Args:
        settings: of the assignment, with its addresses.
        application: built for the same settings before, to save the time.
        started: called once everything is ready, before the first cycle.
        loss_bound: of the journal; default: as in production.

    Raises:
        JournalError: the directory cannot be written, or could not be on the way.
        SettingsError, ScenarioError: the application cannot be built, or lacks a rung that is to
            fail.
    """
    wishes = kept_wishes(assignment.directory)
    with open_journal(
        assignment.directory,
        start_ns=clock.time_ns(),
        settings_text=assignment.settings_text,
        settings_path=assignment.settings_path,
        overrides=dict(assignment.overrides),
        seed=assignment.seed,
        initial_state=encode_wishes(wishes),
        loss_bound=loss_bound,
        monotonic_ns=clock.monotonic_ns,
    ) as journal:
        faults = SolverFaults(assignment.solver_faults, START_NS, clock)
        if assignment.solver_faults:
            body = {"text": told(assignment.solver_faults)}
            journal.append_event(clock.time_ns(), "scenario", body)
        if assignment.mode:
            _ask_for(assignment.mode, journal, clock)
        built = application or build_application(settings, journal.epoch)
        stopwatch, alarm = _Stopwatch(), _Alarm(clock)
        built = stopwatch.inside(faults.inside(replace(built, epoch=journal.epoch)))
        advice = None if assignment.own_optimizer else build_advice(settings)
        slow = SlowLayer(settings, assignment.directory) if assignment.own_optimizer else None

        def note_offset(time_ns: int, offset_ns: int) -> None:
            cycle = loop.counters.cycles + loop.counters.skipped
            body = ClockOffsets.told(journal.segment.segment, cycle, offset_ns)
            journal.append_event(time_ns, "scenario", body)

        loop = Loop(
            built,
            devices,
            journal,
            AnnouncingInbox(journal.inbox(), faults, clock, note_offset),
            alarm,
            state=LoopState(wishes=wishes),
            observers=(_Teller(tell, stopwatch, clock, alarm, advice, journal),),
        )
        if started is not None:
            started(loop, journal)
        if slow is not None:
            slow.start()
        try:
            # What was built so far stays: the collector need not look at it in the cycles.
            gc.collect()
            gc.freeze()
            alarm.wake()
            loop.run(cycles)
        finally:
            gc.unfreeze()
            if slow is not None:
                slow.stop()
        journal.flush()


def _ask_for(mode: str, journal: SqliteJournal, clock: Clock) -> None:
    command = Command(
        command_id=f"restart-{journal.epoch}",
        kind=CommandKind.MODE,
        time_ns=clock.time_ns(),
        text=mode,
        who="scenario",
        why="the mode that the service is configured to start in",
    )
    journal.events.add_command(command)
