"""The journal of a running controller: every cycle and every event, and nobody else's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import apsw

from controller.cycle.record import digest, encode_snapshot
from controller.errors import JournalError
from controller.historian.database import database_errors, open_database, transaction
from controller.historian.events import EventStore
from controller.historian.inbox import SqliteInbox
from controller.historian.lock import ControlLock
from controller.historian.messages import message_keys
from controller.historian.samples import (
    EPOCH_MAX,
    SAMPLES_FILE,
    SAMPLES_SCHEMA,
    Segment,
    delivered_ids,
    insert_segment,
    running_versions,
)
from controller.historian.writer import LossBound, SampleWriter
from controller.signal import NS_PER_S, Snapshot

_NO_OVERRIDES: Mapping[str, object] = {}


class SqliteJournal:
    """Implements `controller.ports.Journal` on `samples.db` and `events.db`.

    One thread appends. Cycles are saved by a thread of their own within the `LossBound`; events
    are on the disk when `append_event` returns.
    """

    def __init__(
        self,
        directory: Path,
        lock: ControlLock,
        events: EventStore,
        samples: apsw.Connection,
        segment: Segment,
        bound: LossBound,
        monotonic_ns: Callable[[], int],
    ) -> None:
        """Use `open_journal`, which takes the lock and writes the segment's header."""
        self._directory = directory
        self._lock = lock
        self._events = events
        self._samples = samples
        self._segment = segment
        self._last_cycle: int | None = None
        self._writer = SampleWriter(
            samples, directory / SAMPLES_FILE, segment.segment, bound, monotonic_ns
        )

    @property
    def epoch(self) -> int:
        """Number of this start, 1 … 65535, for the handshake with the PLC."""
        return self._segment.epoch

    @property
    def segment(self) -> Segment:
        """The header of this start."""
        return self._segment

    @property
    def events(self) -> EventStore:
        """The event log, for use by the same thread."""
        return self._events

    def inbox(self) -> SqliteInbox:
        """An inbox with everything that no stored snapshot contains yet."""
        return SqliteInbox(self._events, delivered=delivered_ids(self._directory))

    def append_snapshot(self, snapshot: Snapshot) -> str:
        """Encode now, save soon; a snapshot with messages is on the disk when this returns.

        Returns:
            The digest of the encoded snapshot, for its record.

        Raises:
            JournalError: cycles do not rise; the disk is full, broken or gives no answer.
        """
        cycle = snapshot.cycle
        if self._last_cycle is not None and cycle <= self._last_cycle:
            raise JournalError(
                f"cycle {cycle} comes after cycle {self._last_cycle}",
                where=str(self._directory),
                mend="Cycle numbers must rise within one start",
            )
        messages = message_keys(snapshot)
        data = encode_snapshot(snapshot)
        self._writer.put_snapshot(cycle, snapshot.time_ns, data, messages)
        self._last_cycle = cycle
        if messages:
            self._writer.flush()
        return digest(data)

    def append_record(self, cycle: int, time_ns: int, record: bytes) -> None:
        """Save the encoded Record of the cycle whose snapshot was appended last.

        Raises:
            JournalError: another cycle's record; the disk is full, broken or gives no answer.
        """
        if cycle != self._last_cycle:
            raise JournalError(
                f"record of cycle {cycle}, but the last snapshot is of cycle {self._last_cycle}",
                where=str(self._directory),
                mend="Append the snapshot of a cycle, then its record",
            )
        self._writer.put_record(cycle, time_ns, record)

    def append_event(self, time_ns: int, kind: str, body: Mapping[str, object]) -> None:
        """On the disk when it returns. Raises JournalError when it cannot be kept."""
        self._events.append(time_ns, kind, body)

    def rest(self, until_ns: int) -> None:
        """No cycle comes before `until_ns`, monotonic: what would be too old by then is saved."""
        self._writer.rest(until_ns)

    def settle(self) -> None:
        """Return when what is to be saved by now is saved, or has failed: the next call says so.

        For a clock that does not run by itself: before it lets time go on, it waits for all that
        a real disk would have done meanwhile.

        Raises:
            JournalError: the disk gives no answer.
        """
        self._writer.settle()

    def flush(self) -> None:
        """Return when every cycle appended so far is on the disk; raises JournalError if not."""
        self._writer.flush()

    def close(self) -> None:
        """Save the rest, release files and lock. Raises JournalError if the rest is lost."""
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self._events.close)
            stack.callback(self._samples.close)
            self._writer.close()

    def __enter__(self) -> SqliteJournal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# Another process may hold the event log for a commit, not for longer: the loop has a plant to run.
LOOP_BUSY_S = 1.0


def open_journal(
    path: str | Path,
    *,
    start_ns: int,
    settings_text: str,
    settings_path: str | Path,
    overrides: Mapping[str, object] = _NO_OVERRIDES,
    versions: Mapping[str, str] | None = None,
    seed: int = 0,
    initial_state: bytes | Callable[[int], bytes] = b"",
    loss_bound: LossBound | None = None,
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
) -> SqliteJournal:
    """Open the journal of a data directory for one start of a controller.

    Args:
        path: the data directory; made if missing.
        start_ns: time of the start, ns since epoch, from the injected clock.
        settings_path: the configuration file, from which its relative paths start.
        overrides: settings changed for this start; must fit into JSON.
        versions: default: those of this process.
        initial_state: the encoded LoopState, or a function of the epoch that gives it.
        loss_bound: default: 1 s or 100 cycles.
        monotonic_ns: of the loop's clock, by which the loss bound is counted.

    Raises:
        JournalError: another control process is alive there; a file is damaged, not ours or
            from a newer version; the disk is full.
    """
    directory = Path(path)
    lock = ControlLock(directory)
    events: EventStore | None = None
    samples: apsw.Connection | None = None
    try:
        events = EventStore(directory, busy_timeout_s=LOOP_BUSY_S)
        samples_file = directory / SAMPLES_FILE
        # FULL for the header: an epoch must not come twice, not even after a power failure.
        samples = open_database(samples_file, SAMPLES_SCHEMA, synchronous="FULL")
        with database_errors(samples_file), transaction(samples):
            number, epoch = _next_start(samples, start_ns)
            segment = Segment(
                segment=number,
                epoch=epoch,
                start_ns=start_ns,
                settings_path=str(Path(settings_path).resolve()),
                settings_text=settings_text,
                overrides=dict(overrides),
                versions=running_versions() if versions is None else dict(versions),
                seed=seed,
                initial_state=initial_state(epoch) if callable(initial_state) else initial_state,
            )
            insert_segment(samples, segment)
        bound = loss_bound or LossBound()
        return SqliteJournal(directory, lock, events, samples, segment, bound, monotonic_ns)
    except BaseException:
        if samples is not None:
            samples.close()
        if events is not None:
            events.close()
        lock.release()
        raise


def _next_start(samples: apsw.Connection, start_ns: int) -> tuple[int, int]:
    """Segment and epoch of a start. The first epoch comes from the clock: a data directory that
    was lost must not bring back an epoch whose sequence numbers the PLC still remembers."""
    last = samples.execute("SELECT id, epoch FROM segment ORDER BY id DESC LIMIT 1").fetchone()
    if last is None:
        return 1, start_ns // (60 * NS_PER_S) % EPOCH_MAX + 1
    number, epoch = last
    return number + 1, epoch % EPOCH_MAX + 1
