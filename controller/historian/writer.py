"""The one thread that saves cycles, many in one commit, with a stated bound on what can be lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from controller.errors import JournalError
from controller.historian.database import journal_error, transaction
from controller.historian.messages import MessageKey
from controller.signal import NS_PER_S


@dataclass(frozen=True, slots=True)
class LossBound:
    """How much of the cycle log a sudden death may cost.

    Killed process: cycles wait at most `seconds` or `rows`, whichever comes first, then one
    commit saves them; what would become too old while the loop rests is saved when the rest
    begins. Never more than `capacity` are waiting or on their way, because the caller is held back
    instead. Power failure: in addition what was committed after the last synchronisation with the
    disk, at most `sync_s` ago. Snapshots that carry a lab result, a command or a proposal are on
    the disk before they are acted upon.

    Attributes:
        seconds: longest wait of a cycle for its commit, by the clock of the loop.
        rows: cycles in one commit; 100 spread the cost of a commit thin enough.
        capacity: cycles that may wait while the disk is slow; 4096 are 40 s at 10 ms.
        sync_s: longest time between two synchronisations with the disk, real time.
        stall_s: a disk that gives no answer for so long, real time, is reported as broken.
    """

    seconds: float = 1.0
    rows: int = 100
    capacity: int = 4096
    sync_s: float = 10.0
    stall_s: float = 10.0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and 0 < self.rows <= self.capacity):
            raise ValueError(f"a loss bound needs 0 < seconds and 0 < rows <= capacity: {self}")


@dataclass(slots=True)
class _Row:
    """A cycle on its way to the disk; without a snapshot, only its record is new."""

    cycle: int
    time_ns: int
    snapshot: bytes | None
    record: bytes | None
    messages: tuple[MessageKey, ...]


class SampleWriter:
    """Takes rows from the control thread and saves them in its own thread.

    Which cycles share a commit follows from the clock and the calls alone, not from the pace of
    the thread: the same run on a lock-step clock loses the same cycles when it is killed.

    After a fault nothing more is saved, and every call raises JournalError: a log with a hole
    could not be replayed. What was committed before the fault stays.

    Args:
        monotonic_ns: the clock of the loop; read by the thread, too.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        path: Path,
        segment: int,
        bound: LossBound,
        monotonic_ns: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._path = path
        self._segment = segment
        self._bound = bound
        self._bound_ns = round(bound.seconds * NS_PER_S)
        self._now_ns = monotonic_ns
        self._rows: list[_Row] = []
        self._due = 0  # So many of the rows, from the oldest, are to be saved now.
        self._oldest_ns = 0  # Of those that are not due yet.
        self._in_flight = 0
        self._flush_wanted = 0
        self._flush_done = 0
        self._closing = False
        self._failure: JournalError | None = None
        # Only the writer thread touches these two.
        self._unsynced = False
        self._synced_s = time.monotonic()
        lock = threading.Lock()
        self._work = threading.Condition(lock)
        self._progress = threading.Condition(lock)
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def put_snapshot(
        self, cycle: int, time_ns: int, snapshot: bytes, messages: tuple[MessageKey, ...]
    ) -> None:
        """Hand over one cycle; waits only while `capacity` cycles are on their way."""
        self._put(_Row(cycle, time_ns, snapshot, None, messages))

    def put_record(self, cycle: int, time_ns: int, record: bytes) -> None:
        """Hand over the record of the cycle that was handed over last."""
        with self._work:
            self._raise_failure()
            kept = bool(self._rows) and self._rows[-1].cycle == cycle
            if kept:
                self._rows[-1].record = record
        if not kept:
            # Its snapshot has gone to the disk already.
            self._put(_Row(cycle, time_ns, None, record, ()))
        with self._work:
            if len(self._rows) - self._due >= self._bound.rows:
                self._all_due()

    def rest(self, until_ns: int) -> None:
        """Nothing comes before `until_ns`: save at once what would be too old by then.

        Does not wait for it, and leaves it to the next call to report a fault.
        """
        with self._work:
            waiting = len(self._rows) > self._due
            if waiting and until_ns - self._oldest_ns >= self._bound_ns:
                self._all_due()

    def settle(self) -> None:
        """Return when nothing is due or on its way to the disk; faults are for the next call.

        Raises:
            JournalError: the disk gives no answer.
        """
        with self._work:
            if not self._progress.wait_for(
                lambda: not (self._due or self._in_flight) or self._failure is not None,
                self._bound.stall_s,
            ):
                raise self._stalled()

    def flush(self) -> None:
        """Return when everything handed over is on the disk, power failure included.

        Raises:
            JournalError: it could not be saved, or the disk gives no answer.
        """
        with self._work:
            self._raise_failure()
            self._flush_wanted += 1
            ticket = self._flush_wanted
            self._work.notify()
            in_time = self._progress.wait_for(
                lambda: self._flush_done >= ticket or self._failure is not None,
                self._bound.stall_s,
            )
            self._raise_failure()
            if not in_time:
                raise self._stalled()

    def close(self) -> None:
        """Save the rest and end the thread. Raises JournalError if the rest cannot be saved."""
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join(self._bound.stall_s)
        if self._thread.is_alive():
            raise self._stalled()
        with self._work:
            self._raise_failure()

    def _put(self, row: _Row) -> None:
        with self._work:
            self._raise_failure()
            if self._closing:
                raise JournalError("the journal is closed", where=str(self._path))
            if len(self._rows) + self._in_flight >= self._bound.capacity:
                self._wait_for_room()
            now_ns = self._now_ns()
            waiting = len(self._rows) - self._due
            if waiting and now_ns - self._oldest_ns >= self._bound_ns:
                # Before the new one joins them: it is not old, wherever the thread is just now.
                self._all_due()
                waiting = 0
            self._rows.append(row)
            if not waiting:
                self._oldest_ns = now_ns
                self._work.notify()

    def _all_due(self) -> None:
        self._due = len(self._rows)
        self._work.notify()

    def _wait_for_room(self) -> None:
        self._all_due()
        in_time = self._progress.wait_for(
            lambda: (
                len(self._rows) + self._in_flight < self._bound.capacity
                or self._failure is not None
            ),
            self._bound.stall_s,
        )
        self._raise_failure()
        if not in_time:
            raise self._stalled()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure = self._failure
            raise JournalError(failure.what, where=failure.where, mend=failure.mend) from failure

    def _stalled(self) -> JournalError:
        return JournalError(
            f"the disk has given no answer for {self._bound.stall_s:g} s",
            where=str(self._path),
            mend="Use a faster disk, or find out what keeps this one busy",
        )

    def _run(self) -> None:
        failure: JournalError | None = JournalError(
            "the journal's writer thread broke off", where=str(self._path)
        )
        try:
            self._save_until_closed()
            failure = None
        except apsw.Error as error:
            failure = journal_error(error, self._path)
        finally:
            with self._work:
                self._failure = failure
                self._in_flight = self._due = 0
                self._rows = []
                self._progress.notify_all()

    def _save_until_closed(self) -> None:
        while True:
            with self._work:
                while (count := self._count_due()) is None:
                    self._work.wait(self._patience_s())
                rows, self._rows = self._rows[:count], self._rows[count:]
                self._due, self._in_flight = 0, count
                ticket, closing = self._flush_wanted, self._closing
            self._save(rows, sync=closing or ticket > self._flush_done)
            with self._work:
                self._in_flight = 0
                self._flush_done = ticket
                self._progress.notify_all()
                if closing and not self._rows:
                    return

    def _count_due(self) -> int | None:
        """How many rows are to be saved now; None: nothing is to be done. Under the lock."""
        if self._closing or self._flush_wanted > self._flush_done:
            return len(self._rows)
        if self._due:
            return self._due
        if self._rows and self._now_ns() - self._oldest_ns >= self._bound_ns:
            return len(self._rows)  # The loop is in a cycle that does not end.
        return None

    def _patience_s(self) -> float | None:
        """Until the oldest row is due. A clock that stands still is asked again and again."""
        if not self._rows:
            return None
        return (self._oldest_ns + self._bound_ns - self._now_ns()) / NS_PER_S

    def _save(self, rows: Sequence[_Row], *, sync: bool) -> None:
        now_s = time.monotonic()
        sync = sync or now_s - self._synced_s >= self._bound.sync_s
        if rows:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
            with transaction(self._connection):
                self._insert(rows)
            self._unsynced = True
        elif sync and self._unsynced:
            # Nothing new to commit: a checkpoint is what brings earlier commits to the disk.
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if sync:
            self._unsynced = False
            self._synced_s = now_s

    def _insert(self, rows: Sequence[_Row]) -> None:
        self._connection.executemany(
            "INSERT INTO cycle (segment, cycle, time_ns, snapshot, record) VALUES (?, ?, ?, ?, ?)",
            [
                (self._segment, row.cycle, row.time_ns, row.snapshot, row.record)
                for row in rows
                if row.snapshot is not None
            ],
        )
        self._connection.executemany(
            "UPDATE cycle SET record = ? WHERE segment = ? AND cycle = ?",
            [(row.record, self._segment, row.cycle) for row in rows if row.snapshot is None],
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO delivered (kind, message_id, segment, cycle)"
            " VALUES (?, ?, ?, ?)",
            [
                (kind, message_id, self._segment, row.cycle)
                for row in rows
                for kind, message_id in row.messages
            ],
        )
