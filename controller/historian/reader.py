"""Reads the journal of a data directory: beside a living controller, or after its sudden death."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from controller.historian.database import database_errors, open_read_only, select
from controller.historian.events import EVENTS_SCHEMA, events_path
from controller.historian.messages import decode_body
from controller.historian.samples import (
    SAMPLES_SCHEMA,
    Segment,
    read_segments,
    samples_path,
)

# Rows of one read. Short reads, because a long one keeps the write-ahead log of a living
# controller from being recycled, however slowly the rows are consumed.
_PAGE_ROWS = 256

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class CycleRow(NamedTuple):
    """One cycle as it is stored; `record` is None if the process died before it was decided."""

    cycle: int
    time_ns: int
    snapshot: bytes
    record: bytes | None


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the event log; `message_id` only for lab results, commands and proposals."""

    event_id: int
    time_ns: int
    kind: str
    message_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is stored."""

    segments: int
    cycles: int
    records: int
    events: int

    def __str__(self) -> str:
        return (
            f"{self.segments} segments, {self.cycles} cycles, {self.records} records, "
            f"{self.events} events"
        )


class JournalReader:
    """Read-only view of a data directory. It never makes the controller wait."""

    def __init__(self, path: str | Path) -> None:
        """Use `open_reader`."""
        self._samples_path = samples_path(path)
        self._events_path = events_path(path)
        self._samples = open_read_only(self._samples_path, SAMPLES_SCHEMA)
        try:
            self._events = open_read_only(self._events_path, EVENTS_SCHEMA)
        except BaseException:
            self._samples.close()
            raise

    def segments(self) -> tuple[Segment, ...]:
        """Every start of the controller, oldest first."""
        with database_errors(self._samples_path):
            return read_segments(self._samples)

    def cycles(
        self,
        segment: int,
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        from_cycle: int | None = None,
        to_cycle: int | None = None,
    ) -> Iterator[CycleRow]:
        """Cycles of one start in order, both ends included; ends at what is committed now.

        Raises:
            JournalError: while iterating, if the file is damaged.
        """
        low_ns = _INT64_MIN if from_ns is None else from_ns
        high_ns = _INT64_MAX if to_ns is None else to_ns
        with database_errors(self._samples_path):
            first, last = select(
                self._samples,
                "SELECT min(cycle), max(cycle) FROM cycle INDEXED BY cycle_time"
                " WHERE segment = ? AND time_ns BETWEEN ? AND ?",
                (segment, low_ns, high_ns),
            )[0]
        if first is None:
            return
        next_cycle = first if from_cycle is None else max(first, from_cycle)
        last_cycle = last if to_cycle is None else min(last, to_cycle)
        while next_cycle <= last_cycle:
            with database_errors(self._samples_path):
                # +time_ns: no index for the time, so that the rows come in order unsorted.
                rows = select(
                    self._samples,
                    "SELECT cycle, time_ns, snapshot, record FROM cycle"
                    " WHERE segment = ? AND cycle BETWEEN ? AND ? AND +time_ns BETWEEN ? AND ?"
                    " ORDER BY cycle LIMIT ?",
                    (segment, next_cycle, last_cycle, low_ns, high_ns, _PAGE_ROWS),
                )
            if not rows:
                return
            yield from map(CycleRow._make, rows)
            next_cycle = rows[-1][0] + 1

    def last_record(self, segment: int | None = None) -> CycleRow | None:
        """The newest cycle that was decided, of the newest start unless told otherwise."""
        with database_errors(self._samples_path):
            if segment is None:
                segment = select(self._samples, "SELECT max(id) FROM segment")[0][0]
            rows = select(
                self._samples,
                "SELECT cycle, time_ns, snapshot, record FROM cycle"
                " WHERE segment = ? AND record IS NOT NULL ORDER BY cycle DESC LIMIT 1",
                (segment,),
            )
        return CycleRow._make(rows[0]) if rows else None

    def events(
        self,
        *,
        from_id: int = 1,
        from_ns: int | None = None,
        to_ns: int | None = None,
        kinds: Sequence[str] = (),
    ) -> Iterator[Event]:
        """Events in order of arrival, both ends of the time included; no `kinds` means all.

        Raises:
            JournalError: while iterating, if the file is damaged.
        """
        low_ns = _INT64_MIN if from_ns is None else from_ns
        high_ns = _INT64_MAX if to_ns is None else to_ns
        wanted = frozenset(kinds)
        next_id = from_id
        while True:
            with database_errors(self._events_path):
                rows = select(
                    self._events,
                    "SELECT id, time_ns, kind, message_id, body FROM event"
                    " WHERE id >= ? ORDER BY id LIMIT ?",
                    (next_id, _PAGE_ROWS),
                )
            if not rows:
                return
            for event_id, time_ns, kind, message_id, body in rows:
                if low_ns <= time_ns <= high_ns and (not wanted or kind in wanted):
                    yield Event(event_id, time_ns, kind, message_id, decode_body(body))
            next_id = rows[-1][0] + 1

    def counts(self) -> Counts:
        """How many segments, cycles, records and events are committed."""
        with database_errors(self._samples_path):
            segments, cycles, undecided = select(
                self._samples,
                "SELECT (SELECT count(*) FROM segment), (SELECT count(*) FROM cycle),"
                " (SELECT count(*) FROM cycle WHERE record IS NULL)",
            )[0]
        with database_errors(self._events_path):
            events = select(self._events, "SELECT count(*) FROM event")[0][0]
        return Counts(segments, cycles, cycles - undecided, events)

    def close(self) -> None:
        """Release the files; closing twice does nothing."""
        self._samples.close()
        self._events.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_reader(path: str | Path) -> JournalReader:
    """Open a data directory for reading.

    Raises:
        JournalError: a file is missing, damaged, not ours or from a newer version.
    """
    return JournalReader(path)
