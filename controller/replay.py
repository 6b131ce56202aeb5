"""Decide every journalled cycle again and compare: bit for bit, timing left out.

Only one thing is ignored, and it is declared by where it is kept: `Timing` lies beside what was
decided, outside the bytes that are compared and outside their digest. Nothing else of a record is
left out, and there is no tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from controller.cycle.application import Application
from controller.cycle.record import (
    decode_entry,
    decode_record,
    decode_snapshot,
    decode_wishes,
    differences,
    digest,
    encode_decision,
    encode_record,
)
from controller.cycle.state import LoopState
from controller.cycle.step import step
from controller.historian.reader import CycleRow, JournalReader
from controller.historian.samples import Segment


@dataclass(frozen=True, slots=True)
class Difference:
    """A cycle whose replay differs, and in which fields."""

    segment: int
    cycle: int
    fields: tuple[str, ...]

    def __str__(self) -> str:
        fields = ", ".join(self.fields) or "no field differs, only the layout of the record"
        return f"cycle {self.cycle} of start {self.segment}: {fields}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """Outcome of a replay. `undecided` are snapshots whose record was lost with the process."""

    cycles: int = 0
    identical: int = 0
    undecided: int = 0
    differences: tuple[Difference, ...] = ()

    @property
    def passed(self) -> bool:
        return self.cycles > 0 and self.identical == self.cycles

    def __str__(self) -> str:
        return f"replay: {self.identical} of {self.cycles} cycles identical"


Builder = Callable[[Segment], Application]


class Replay:
    """A replay in progress; can follow a journal that is still being written.

    A window is a window on the comparison: state is remembered from the start of each segment, so
    that is where deciding begins.

    Args:
        build: the application of a segment, from the settings kept with it.
        from_ns, to_ns: compare only cycles in this time, ns since epoch.
        keep: at most that many differences are listed.
    """

    def __init__(
        self,
        reader: JournalReader,
        build: Builder,
        from_ns: int | None = None,
        to_ns: int | None = None,
        keep: int = 100,
    ) -> None:
        self._reader = reader
        self._build = build
        self._window = (from_ns, to_ns)
        self._keep = keep
        self._segment: Segment | None = None
        self._application: Application | None = None
        self._state = LoopState()
        self._next_cycle = 0
        self.outcome = Replayed()

    def advance(self, finished: bool = True) -> Iterator[Replayed]:
        """Replay what has been journalled since the last call; yields after each cycle compared.

        `finished` says that the writer is done: a snapshot without a record is then a lost one,
        otherwise it is one to come.
        """
        for segment in self._reader.segments():
            if self._segment is not None and segment.segment < self._segment.segment:
                continue
            if self._segment is None or segment.segment > self._segment.segment:
                self._segment, self._application = segment, self._build(segment)
                wishes = decode_wishes(segment.initial_state)
                self._state, self._next_cycle = LoopState(wishes=wishes), 0
            for row in self._reader.cycles(segment.segment, from_cycle=self._next_cycle):
                if row.record is None and not finished:
                    return
                if self._decide(segment, row):
                    yield self.outcome

    def _decide(self, segment: Segment, row: CycleRow) -> bool:
        """Decide one cycle again; whether it was compared."""
        if self._application is None:
            raise RuntimeError("a segment is built before its cycles are decided")
        self._state, record = step(self._application, self._state, decode_snapshot(row.snapshot))
        self._next_cycle = row.cycle + 1
        begin, end = self._window
        if (begin is not None and row.time_ns < begin) or (end is not None and row.time_ns > end):
            return False
        done = self.outcome
        if row.record is None:
            self.outcome = replace(done, undecided=done.undecided + 1)
            return False
        kept, decided = decode_entry(row.record), encode_decision(record)
        snapshot_digest = digest(row.snapshot)
        same = (kept.digest, kept.snapshot_digest) == (digest(decided), snapshot_digest) and (
            bytes(kept.decided) == decided
        )
        found = done.differences
        if not same and len(found) < self._keep:
            again = encode_record(record, snapshot_digest)
            fields = differences(decode_record(row.record), decode_record(again))
            found = (*found, Difference(segment.segment, row.cycle, fields))
        self.outcome = Replayed(done.cycles + 1, done.identical + same, done.undecided, found)
        return True


def replay(
    reader: JournalReader,
    build: Builder,
    from_ns: int | None = None,
    to_ns: int | None = None,
) -> Iterator[Replayed]:
    """Replay a finished journal; yields the running outcome after each cycle compared."""
    return Replay(reader, build, from_ns, to_ns).advance()
