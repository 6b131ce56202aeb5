"""Decide every journalled cycle again and compare: bit for bit, timing left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.cycle.application import Application
from controller.cycle.record import decode_record, decode_snapshot, differences, encode_record
from controller.cycle.state import LoopState
from controller.cycle.step import step
from controller.historian.reader import JournalReader
from controller.historian.samples import Segment


@dataclass(frozen=True, slots=True)
class Difference:
    """A cycle whose replay differs, and in which fields."""

    segment: int
    cycle: int
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return f"cycle {self.cycle} of start {self.segment}: {', '.join(self.fields)}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """Outcome of a replay. `undecided` are snapshots whose record was lost with the process."""

    cycles: int
    identical: int
    undecided: int
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        return self.cycles > 0 and self.identical == self.cycles

    def __str__(self) -> str:
        return f"replay: {self.identical} of {self.cycles} cycles identical"


Builder = Callable[[Segment], Application]


def replay(
    reader: JournalReader,
    build: Builder,
    from_ns: int | None = None,
    to_ns: int | None = None,
    keep: int = 100,
) -> Iterator[Replayed]:
    """Replay every start of the journal in order; yields the running outcome after each cycle.

    A window is a window on the comparison: state is remembered from the start of each segment, so
    that is where deciding begins.

    Args:
        build: the application of a segment, from the settings kept with it.
        from_ns, to_ns: compare only cycles in this time, ns since epoch.
        keep: at most that many differences are listed.
    """
    cycles = identical = undecided = 0
    found: list[Difference] = []
    for segment in reader.segments():
        application = build(segment)
        state = LoopState()
        for row in reader.cycles(segment.segment):
            state, record = step(application, state, decode_snapshot(row.snapshot))
            outside = (from_ns is not None and row.time_ns < from_ns) or (
                to_ns is not None and row.time_ns > to_ns
            )
            if outside:
                continue
            if row.record is None:
                undecided += 1
                continue
            cycles += 1
            recorded = decode_record(row.record)
            if recorded["digest"] == record.digest:
                identical += 1
            elif len(found) < keep:
                again = decode_record(encode_record(record))
                found.append(Difference(segment.segment, row.cycle, differences(recorded, again)))
            yield Replayed(cycles, identical, undecided, tuple(found))
