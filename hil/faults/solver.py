"""Solver faults: which rung of the ladder fails, how and when, in a run and in its replay.

No solver fault is in a Snapshot, so nobody can decide such a cycle again who does not know of it.
The replay that belongs to the verdict therefore raises the same faults in the same cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from controller.cycle.application import Application
from controller.errors import ScenarioError
from controller.mpc.instance import Instance
from controller.mpc.regulator import Regulator
from controller.mpc.solvers import Answer, Solver, Trajectory
from controller.mpc.stage import Stage
from controller.ports import Clock, Inbox, Messages
from controller.signal import NS_PER_S
from hil.faults.faulty_solvers import failing, failing_regulator
from plant_models.process import Vector

Rung = Literal["tree", "rti", "condensed", "sqp", "ipopt", "lqr", "all"]
SolverFaultKind = Literal["infeasible", "cap", "wrong", "exception", "nan", "slow"]


@dataclass(frozen=True, slots=True)
class SolverFault:
    """A rung (or all) fails from `at_s` until `until_s`, seconds of scenario time.

    Attributes:
        solver: all means all solvers, and not lqr, which is none.
        kind: as in `faulty_solvers.failing`; slow: the answer comes delay_s later.
        where: place in the scenario's file.
    """

    at_s: float
    until_s: float
    solver: Rung
    kind: SolverFaultKind
    delay_s: float = 0.0
    where: str = "solver_faults"

    def __str__(self) -> str:
        return f"{self.kind} {self.solver}"


class SolverFaults:
    """Raises the solver faults of a scenario in the cycles they are meant for.

    Where several are in force for a rung, all delays are waited for, and of the others the first
    one in the scenario acts.
    """

    def __init__(
        self, faults: Iterable[SolverFault], start_ns: int, clock: Clock | None = None
    ) -> None:
        """`clock` is what a slow solver spends; None: a replay, where time does not pass."""
        self._faults = tuple(faults)
        self._start_ns = start_ns
        self._clock = clock
        self._active: tuple[SolverFault, ...] = ()
        for fault in self._faults:
            _check(fault)

    @property
    def active(self) -> tuple[SolverFault, ...]:
        """Faults in force in this cycle, in the order of the scenario."""
        return self._active

    def begin_cycle(self, time_ns: int) -> None:
        """Say the true time of the cycle that is decided next, ns since epoch."""
        elapsed_s = (time_ns - self._start_ns) / NS_PER_S
        self._active = tuple(f for f in self._faults if f.at_s <= elapsed_s < f.until_s)

    def inside(self, application: Application) -> Application:
        """The application with the faults below its solvers; the same where there are none.

        Raises:
            ScenarioError: the application has no such rung.
        """
        if not self._faults:
            return application
        ladder = application.ladder
        rungs = [name for name, _ in ladder.solvers]
        if isinstance(ladder.regulator, Regulator):
            rungs.append("lqr")
        for fault in self._faults:
            if fault.solver not in (*rungs, "all"):
                raise ScenarioError(
                    f"the ladder of {application.name} has no rung {fault.solver}",
                    where=fault.where,
                    mend=f"It has {', '.join(rungs)}; rti needs a C compiler, condensed a linear "
                    "model",
                )
        solvers = tuple(
            (name, self._faulty(name, solver, ladder.stage)) for name, solver in ladder.solvers
        )
        regulator = self._faulty_regulator(ladder.regulator)
        return replace(application, ladder=replace(ladder, solvers=solvers, regulator=regulator))

    def acting(self, *names: str) -> SolverFaultKind | None:
        """Waits for what is slow among the faults of these rungs in this cycle; what else acts."""
        mine = [fault for fault in self._active if fault.solver in names]
        self._spend(sum(fault.delay_s for fault in mine))
        return next((fault.kind for fault in mine if fault.kind != "slow"), None)

    def _faulty(self, name: str, solver: Solver, stage: Stage) -> Solver:
        failures = {
            fault.kind: failing(name, solver, stage, fault.kind, fault.where)
            for fault in self._faults
            if fault.solver in (name, "all") and fault.kind != "slow"
        }

        def with_faults(instance: Instance, begin: Trajectory) -> Answer:
            kind = self.acting(name, "all")
            return (solver if kind is None else failures[kind])(instance, begin)

        return with_faults

    def _faulty_regulator(self, regulator: Regulator | str) -> Regulator | str:
        """The regulator is no solver: `all` spares it."""
        mine = [fault for fault in self._faults if fault.solver == "lqr"]
        if isinstance(regulator, str) or not mine:
            return regulator
        failures: dict[SolverFaultKind, Regulator] = {
            fault.kind: failing_regulator(regulator, fault.kind, fault.where)
            for fault in mine
            if fault.kind != "slow"
        }
        return _FaultyRegulator(regulator.stage, regulator.gain, self, failures)

    def _spend(self, delay_s: float) -> None:
        if delay_s > 0 and self._clock is not None:
            self._clock.sleep_until(self._clock.monotonic_ns() + round(delay_s * NS_PER_S))


@dataclass(frozen=True, slots=True, eq=False)
class _FaultyRegulator(Regulator):
    """The regulator, and what stands in for it while a fault is in force."""

    faults: SolverFaults
    failures: Mapping[SolverFaultKind, Regulator]

    def __call__(self, instance: Instance) -> tuple[Vector, Vector] | str:
        kind = self.faults.acting("lqr")
        if kind is None:
            return Regulator.__call__(self, instance)
        return self.failures[kind](instance)


class SteppedClock(Protocol):
    """A wall clock that may be wrong; `offset_ns` says by how much."""

    @property
    def offset_ns(self) -> int: ...


@dataclass(slots=True)
class AnnouncingInbox:
    """The inbox, which the loop asks once a cycle: its time is that of the snapshot.

    Faults come at the true time of the scenario, whatever the wall clock of the controller says.

    Attributes:
        note: told the time of the snapshot and the offset of the clock, ns, whenever the offset
            is another than in the cycle before.
    """

    inbox: Inbox
    faults: SolverFaults
    clock: SteppedClock
    note: Callable[[int, int], None]
    _offset_ns: int = 0

    def poll(self, time_ns: int) -> Messages:
        if (offset_ns := self.clock.offset_ns) != self._offset_ns:
            self._offset_ns = offset_ns
            self.note(time_ns, offset_ns)
        self.faults.begin_cycle(time_ns - offset_ns)
        return self.inbox.poll(time_ns)


class ClockOffsets:
    """By how much the wall clock was off in each cycle, from the event log of the run."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int]] = []

    @staticmethod
    def told(segment: int, cycle: int, offset_ns: int) -> Mapping[str, object]:
        """The body of the event: from this cycle of this start on, the clock is off by that."""
        text = f"the wall clock is off by {offset_ns / NS_PER_S:g} s"
        return {"text": text, "segment": segment, "cycle": cycle, "offset_ns": offset_ns}

    def hear(self, body: Mapping[str, Any]) -> None:
        """The body of an event; others than those of `told` say nothing."""
        if "offset_ns" in body:
            self._steps.append((body["segment"], body["cycle"], body["offset_ns"]))

    def at(self, segment: int, cycle: int) -> int:
        """The offset in a cycle that has been journalled, ns."""
        found = [off for start, since, off in self._steps if start == segment and since <= cycle]
        return found[-1] if found else 0


def told(faults: Sequence[SolverFault]) -> str:
    """For the event log: why `loopwright replay`, which knows no faults, will find differences."""
    parts = (f"{f.solver} {f.kind} {f.at_s:g} s to {f.until_s:g} s" for f in faults)
    return "solver faults are injected into this run: " + "; ".join(parts)


def _check(fault: SolverFault) -> None:
    if not 0.0 <= fault.at_s <= fault.until_s:
        raise ScenarioError(
            f"a fault cannot last from {fault.at_s} s until {fault.until_s} s",
            where=fault.where,
            mend="Let it begin at 0 s or later, and end no sooner than it begins",
        )
    if (fault.kind == "slow") != (fault.delay_s > 0.0):
        raise ScenarioError(
            f"{fault.kind} with a delay of {fault.delay_s:g} s",
            where=fault.where,
            mend="Give slow a delay, such as 12 s; no other kind takes one",
        )
