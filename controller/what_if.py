"""What another configuration would have decided in the cycles of a journal.

The comparison is open loop. Every cycle is decided from the kept snapshot, in which the plant
follows the moves that were really made; how it would have answered other moves no journal knows. So
a difference says what would have been done *standing there*, and differences do not add up.

Two kinds of memory meet. What the other configuration made up its mind about is its own and goes
from cycle to cycle: estimate, mode, wishes, limits on their way, target, plan and warm start. What
went out to the PLCs is a fact of the run: the words of the handshake and the setpoints sent last
are those of the kept frames, since the echoes and setpoints in use of the next snapshot answer
those. The guard's rate limit therefore begins where the plant was, not where it might have been,
and the same configuration decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as copy
from typing import Any

from msgspec.structs import replace

from controller.cycle.application import Application
from controller.cycle.record import Record, decode_record, decode_snapshot, decode_wishes
from controller.cycle.state import HandshakeState, LoopState
from controller.cycle.step import step
from controller.historian.reader import CycleRow, JournalReader
from controller.historian.samples import Segment
from controller.settings import Settings
from controller.settings.comparable import check_comparable

TOLERANCE = 1e-4
"""Share of an MV's range within which two moves are the same: what the cycle itself takes for the
same setpoint when it compares the one in use with the one sent."""

Row = dict[str, Any]
"""A decoded record."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a controller did in a cycle, and what it intended and expected from there on.

    Attributes:
        move: per MV, the setpoint that passed the guard; requested: whether control was asked for.
        step_s: length of an interval of the plan, in seconds.
        moves: per MV, setpoints from the start of each interval on; empty without a plan.
        expected: per CV, its value now and at the end of each interval; empty without a plan.
    """

    mode: str
    rung: str
    move: Mapping[str, float]
    requested: Mapping[str, bool]
    step_s: float
    moves: Mapping[str, Sequence[float]]
    expected: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One cycle with both outlooks; `distance` is the largest difference of a move, as a share of
    the MV's range."""

    segment: int
    cycle: int
    time_ns: int
    kept: Outlook
    would: Outlook
    distance: float
    differs: bool

    @property
    def without_plans(self) -> Compared:
        """The same without what was planned: of a long journal, plans fill the memory."""
        return copy(
            self,
            kept=copy(self.kept, moves={}, expected={}),
            would=copy(self.would, moves={}, expected={}),
        )


@dataclass(slots=True)
class MvChange:
    """How the moves of one MV differ, over all cycles in which both have one; in `unit`.

    Attributes:
        tolerance: a smaller difference is none.
        differing: cycles with another setpoint, or in which only one of the two asks for control.
        planned: cycles in which the first move of the plan differs, before the guard.
        mean: of all differences (would-have minus kept) in the differing cycles; mean_size: of
            their sizes; largest: the one of the greatest size, in cycle `largest_cycle`.
    """

    name: str
    unit: str
    tolerance: float
    compared: int = 0
    differing: int = 0
    planned: int = 0
    first_cycle: int | None = None
    first_ns: int | None = None
    largest: float = 0.0
    largest_cycle: int | None = None
    total: float = 0.0
    total_size: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.differing if self.differing else 0.0

    @property
    def mean_size(self) -> float:
        return self.total_size / self.differing if self.differing else 0.0

    def plain(self) -> dict[str, Any]:
        names = ("name", "unit", "tolerance", "compared", "differing", "planned", "first_cycle")
        more = ("first_ns", "mean", "mean_size", "largest", "largest_cycle")
        return {name: getattr(self, name) for name in (*names, *more)}


@dataclass(slots=True)
class StateChange:
    """A mode or rung of the ladder that became another one: in how many cycles, first when."""

    what: str
    kept: str
    would: str
    first_cycle: int
    first_ns: int
    cycles: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.kept or 'none'} → {self.would or 'none'}: {self.cycles} cycles"


@dataclass(slots=True)
class Outcome:
    """What a what-if found.

    Attributes:
        cycles: compared; differing: in which any move differs.
        undecided: snapshots whose record was lost with the process.
        overrides: settings that were changed for the kept run, addresses left out; the other
            configuration is taken as it stands, without them.
        first, most: the first and the most different cycles, in order.
    """

    cycles: int = 0
    differing: int = 0
    undecided: int = 0
    overrides: dict[str, object] = field(default_factory=lambda: dict[str, object]())
    mvs: dict[str, MvChange] = field(default_factory=lambda: dict[str, MvChange]())
    states: list[StateChange] = field(default_factory=lambda: list[StateChange]())
    first: list[Compared] = field(default_factory=lambda: list[Compared]())
    most: list[Compared] = field(default_factory=lambda: list[Compared]())

    @property
    def note(self) -> str:
        """What the kept run had changed of its configuration, in a sentence; empty: nothing."""
        if not self.overrides:
            return ""
        told = ", ".join(f"{name} = {value}" for name, value in self.overrides.items())
        return f"The kept run had changed {told}; the other configuration is taken as it stands."

    def __str__(self) -> str:
        return f"what if: {self.differing} of {self.cycles} cycles with another move"


class WhatIf:
    """A what-if over a finished journal; `outcome` grows while it advances.

    Args:
        settings_of: the settings kept with a segment.
        other, build: the other settings, and their application at the epoch of a segment.
        from_ns, to_ns: compare only cycles in this time, ns since epoch. Deciding begins at the
            start of each segment all the same, because state is remembered from there.
        keep: number of first and of most different cycles to list.
    """

    def __init__(
        self,
        reader: JournalReader,
        settings_of: Callable[[Segment], Settings],
        other: Settings,
        build: Callable[[Segment], Application],
        from_ns: int | None = None,
        to_ns: int | None = None,
        keep: int = 3,
    ) -> None:
        self._reader = reader
        self._settings_of = settings_of
        self._other = other
        self._build = build
        self._window = (from_ns, to_ns)
        self._keep = keep
        self._states: dict[tuple[str, str, str], StateChange] = {}
        self.outcome = Outcome()

    def advance(self) -> Iterator[Compared]:
        """Decide every cycle anew; yields each one that was compared.

        Raises:
            SettingsError: the other application does not fit the journal (`check_comparable`).
            JournalError: the journal is damaged.
        """
        begin, end = self._window
        for segment in self._reader.segments():
            kept_settings = self._settings_of(segment)
            check_comparable(kept_settings, self._other)
            self.outcome.overrides |= {
                name: value
                for name, value in kept_settings.overrides.items()
                if not name.startswith("devices.")
            }
            application = self._build(segment)
            state = LoopState(wishes=decode_wishes(segment.initial_state))
            for row in self._reader.cycles(segment.segment):
                if end is not None and row.time_ns > end:
                    break
                kept = None if row.record is None else decode_record(row.record)
                before = state.handshake
                state, would = step(application, state, decode_snapshot(row.snapshot))
                if kept is None:
                    self.outcome.undecided += 1
                    continue
                state = replace(
                    state, handshake=_as_sent(application, before, state.handshake, kept)
                )
                if begin is None or row.time_ns >= begin:
                    yield self._compare(segment, row, kept_settings, kept, would)

    def _compare(
        self, segment: Segment, row: CycleRow, settings: Settings, kept: Row, would: Record
    ) -> Compared:
        here = outlook(settings, kept)
        there = _outlook_of(self._other, would)
        distance, differs = 0.0, False
        for mv in self._other.manipulated:
            change = self.outcome.mvs.get(mv.name)
            if change is None:
                unit = self._other.tags[mv.setpoint].unit
                change = MvChange(mv.name, unit, TOLERANCE * (mv.high - mv.low))
                self.outcome.mvs[mv.name] = change
            size, other = _count(change, row, here, there)
            distance = max(distance, size / (mv.high - mv.low))
            differs = differs or other
        compared = Compared(segment.segment, row.cycle, row.time_ns, here, there, distance, differs)
        self._remember(compared)
        return compared

    def _remember(self, compared: Compared) -> None:
        outcome = self.outcome
        outcome.cycles += 1
        for what in ("mode", "rung"):
            kept, would = getattr(compared.kept, what), getattr(compared.would, what)
            if kept == would:
                continue
            key = (what, kept, would)
            if key not in self._states:
                change = StateChange(what, kept, would, compared.cycle, compared.time_ns)
                self._states[key] = change
                outcome.states.append(change)
            self._states[key].cycles += 1
        if not compared.differs:
            return
        outcome.differing += 1
        if len(outcome.first) < self._keep:
            outcome.first.append(compared)
        outcome.most.append(compared)
        outcome.most.sort(key=lambda c: -c.distance)
        del outcome.most[self._keep :]


def _as_sent(
    application: Application, before: HandshakeState, after: HandshakeState, kept: Row
) -> HandshakeState:
    """What is known of the slave loops, with the words and setpoints that really went out."""
    frames = kept["move"]["frames"]
    heartbeat, sequence = before.heartbeat, before.sequence
    for device in application.guarded_devices:
        words = frames.get(device.name, {})
        heartbeat = int(words.get(device.heartbeat, heartbeat))
        sequence = int(words.get(device.sequence, sequence))
    return replace(
        after,
        heartbeat=heartbeat,
        sequence=sequence,
        sent=kept["move"]["values"] if frames else {},
        sending=bool(frames),
    )


def _count(change: MvChange, row: CycleRow, kept: Outlook, would: Outlook) -> tuple[float, bool]:
    """Size of the difference in one MV, and whether its move is another one."""
    name = change.name
    if kept.moves and would.moves:
        apart = abs(would.moves[name][0] - kept.moves[name][0])
        change.planned += apart > change.tolerance
    if name not in kept.move or name not in would.move:
        return 0.0, False
    change.compared += 1
    difference = would.move[name] - kept.move[name]
    size = abs(difference)
    if size <= change.tolerance and kept.requested.get(name) == would.requested.get(name):
        return size, False
    change.differing += 1
    change.total += difference
    change.total_size += size
    if change.first_cycle is None:
        change.first_cycle, change.first_ns = row.cycle, row.time_ns
    if size > abs(change.largest) or change.largest_cycle is None:
        change.largest, change.largest_cycle = difference, row.cycle
    return size, True


def outlook(settings: Settings, record: Row) -> Outlook:
    """The outlook of a kept record, in the names of the settings that it was decided with."""
    plan, estimate = record["plan"], record["estimate"]
    return _outlook(
        settings,
        (record["mode"], plan["rung"] if plan else ""),
        (record["move"]["values"], record["move"]["allowed"]),
        plan["moves"] if plan else (),
        (estimate["y"], *plan["prediction"]) if plan and estimate else (),
    )


def _outlook_of(settings: Settings, record: Record) -> Outlook:
    plan, estimate = record.plan, record.estimate
    return _outlook(
        settings,
        (record.mode, plan.rung if plan else ""),
        (record.move.values, record.move.allowed),
        plan.moves.tolist() if plan else (),
        (estimate.y.tolist(), *plan.prediction.tolist()) if plan and estimate else (),
    )


def _outlook(
    settings: Settings,
    state: tuple[str, str],
    move: tuple[Mapping[str, float], Mapping[str, bool]],
    moves: Sequence[Sequence[float]],
    outputs: Sequence[Sequence[float]],
) -> Outlook:
    names = [variable.name for variable in settings.model.y]
    rows = {cv.output: names.index(cv.output) for cv in settings.controlled}
    planned = {mv.name: [m[i] for m in moves] for i, mv in enumerate(settings.manipulated)}
    expected = {name: [y[index] for y in outputs] for name, index in rows.items()}
    return Outlook(
        *state,
        *move,
        settings.mpc.step_s,
        planned if moves else {},
        expected if outputs else {},
    )
