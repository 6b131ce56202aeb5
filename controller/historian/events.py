"""The event log: what people, the lab and the optimizer said, in an audit chain nobody can bend."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import apsw

from controller.errors import JournalError
from controller.historian.database import (
    BUSY_TIMEOUT_S,
    Schema,
    database_errors,
    open_database,
    open_read_only,
    select,
    transaction,
)
from controller.historian.messages import (
    COMMAND,
    MESSAGE_KINDS,
    PROPOSAL,
    QUALITY_CORRECTION,
    QUALITY_RESULT,
    Correction,
    decode_result,
    encode_body,
)
from controller.signal import Command, Proposal, QualityResult

EVENTS_FILE = "events.db"

EVENTS_SCHEMA = Schema(
    name="event log",
    application_id=0x4C574556,  # "LWEV"
    version=1,
    tables="""
        CREATE TABLE event (
            id            INTEGER PRIMARY KEY,
            time_ns       INTEGER NOT NULL,
            kind          TEXT NOT NULL,
            message_id    TEXT NOT NULL,
            body          BLOB NOT NULL,
            previous_hash BLOB NOT NULL,
            hash          BLOB NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX event_message ON event (kind, message_id)
            WHERE kind IN ('quality_result', 'command', 'proposal');
        CREATE INDEX event_correction ON event (message_id)
            WHERE kind = 'quality_correction';
        CREATE TRIGGER event_no_update BEFORE UPDATE ON event
            BEGIN SELECT raise(ABORT, 'the event log is append-only'); END;
        CREATE TRIGGER event_no_delete BEFORE DELETE ON event
            BEGIN SELECT raise(ABORT, 'the event log is append-only'); END;
    """,
)

FIRST_HASH = bytes(32)
"""Previous hash of the first event."""

_VERIFY_ROWS = 512


def events_path(path: str | Path) -> Path:
    """The event log of a data directory; the path of the file itself is accepted, too."""
    path = Path(path)
    return path if path.name == EVENTS_FILE else path / EVENTS_FILE


def chain_hash(
    previous_hash: bytes, time_ns: int, kind: str, message_id: str, body: bytes
) -> bytes:
    """SHA-256 over the previous hash, the time (8 bytes, big-endian) and the length-led parts."""
    digest = hashlib.sha256(previous_hash)
    digest.update(time_ns.to_bytes(8, "big", signed=True))
    for part in (kind.encode(), message_id.encode(), body):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


class EventStore:
    """Appends to the event log; durable when a method returns.

    Any number of processes may hold one at the same time, each thread its own. SQLite lets one
    of them write at a time; the others wait up to `busy_timeout_s`. Readers never wait.
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open or make the event log of the data directory `path`.

        Raises:
            JournalError: damaged, not a database, not ours, or from a newer version.
        """
        self._path = events_path(path)
        self._connection = open_database(
            self._path, EVENTS_SCHEMA, synchronous="FULL", busy_timeout_s=busy_timeout_s
        )

    @property
    def path(self) -> Path:
        """The file `events.db`."""
        return self._path

    def append(self, time_ns: int, kind: str, body: Mapping[str, object]) -> int:
        """Append one event (mode change, shed, limit, alarm) and return its id.

        Raises:
            JournalError: disk full, locked, damaged; or `kind` has an `add_…` method of its own.
        """
        if kind in MESSAGE_KINDS:
            raise JournalError(
                f"events of kind {kind} are messages with an id",
                where=str(self._path),
                mend=f"Use add_{kind} or correct_quality_result",
            )
        with database_errors(self._path):
            data = encode_body(body)
            with transaction(self._connection):
                return self._insert(time_ns, kind, "", data)

    def add_quality_result(self, result: QualityResult) -> int:
        """Append a lab result, stamped with its `received_ns`, and return the event's id.

        The same result sent again changes nothing and returns the id it has; the time of
        receipt does not count, because a repeated message arrives later.

        Raises:
            JournalError: another result has this id already; no id; disk full, locked, damaged.
        """
        return self._add(QUALITY_RESULT, result.result_id, result.received_ns, result)

    def add_command(self, command: Command) -> int:
        """Append a command, once per `command_id`, and return the event's id."""
        return self._add(COMMAND, command.command_id, command.time_ns, command)

    def add_proposal(self, proposal: Proposal) -> int:
        """Append a proposal, once per `proposal_id`, and return the event's id."""
        return self._add(PROPOSAL, proposal.proposal_id, proposal.time_ns, proposal)

    def correct_quality_result(self, result: QualityResult, *, who: str = "", why: str = "") -> int:
        """Append a better value for the lab result of the same `result_id`; history is kept.

        A result that has not been delivered yet is delivered corrected; one that has been
        is not delivered again. Repeating the value that already stands changes nothing.

        Raises:
            JournalError: there is no such result to correct; disk full, locked, damaged.
        """
        with database_errors(self._path), transaction(self._connection):
            row = self._connection.execute(
                "SELECT id, kind, body FROM event WHERE message_id = ?1"
                " AND kind IN ('quality_result', 'quality_correction') ORDER BY id DESC LIMIT 1",
                (result.result_id,),
            ).fetchone()
            if row is None:
                raise JournalError(
                    f"there is no lab result {result.result_id!r} to correct",
                    where=str(self._path),
                    mend="List the lab results for its id, or add it as a new one",
                )
            standing_id, kind, body = row
            if _same_message(decode_result(kind, body), result):
                return standing_id
            correction = Correction(corrects=standing_id, result=result, who=who, why=why)
            return self._insert(
                result.received_ns, QUALITY_CORRECTION, result.result_id, encode_body(correction)
            )

    def close(self) -> None:
        """Release the file; closing twice does nothing."""
        self._connection.close()

    def __enter__(self) -> EventStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(
        self, kind: str, message_id: str, time_ns: int, message: QualityResult | Command | Proposal
    ) -> int:
        if not message_id:
            raise JournalError(
                f"a {kind} without an id cannot be told from its repetition",
                where=str(self._path),
                mend="Give it an id that is unique in this data directory",
            )
        data = encode_body(message)
        with database_errors(self._path), transaction(self._connection):
            row = self._connection.execute(
                "SELECT id, body FROM event WHERE kind = ? AND message_id = ?"
                " AND kind IN ('quality_result', 'command', 'proposal')",
                (kind, message_id),
            ).fetchone()
            if row is None:
                return self._insert(time_ns, kind, message_id, data)
            event_id, body = row
            if body == data:
                return event_id
            if isinstance(message, QualityResult) and _same_message(
                decode_result(kind, body), message
            ):
                return event_id
        raise JournalError(
            f"{kind} {message_id!r} is in the log already (event {event_id}), with other content",
            where=str(self._path),
            mend="Give the new one an id of its own"
            + ("; to change a lab result, correct it" if kind == QUALITY_RESULT else ""),
        )

    def _insert(self, time_ns: int, kind: str, message_id: str, body: bytes) -> int:
        head = self._connection.execute(
            "SELECT id, hash FROM event ORDER BY id DESC LIMIT 1"
        ).fetchone()
        last_id, previous_hash = (0, FIRST_HASH) if head is None else head
        self._connection.execute(
            "INSERT INTO event (id, time_ns, kind, message_id, body, previous_hash, hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                last_id + 1,
                time_ns,
                kind,
                message_id,
                body,
                previous_hash,
                chain_hash(previous_hash, time_ns, kind, message_id, body),
            ),
        )
        return last_id + 1


def verify_chain(path: str | Path) -> int | None:
    """The id of the first event that was changed, removed or inserted; None if all is well.

    The chain cannot show that the *newest* events were cut off: keep the last hash elsewhere
    (a printed report) if that matters.

    Raises:
        JournalError: the file is missing, damaged or not an event log.
    """
    path = events_path(path)
    connection = open_read_only(path, EVENTS_SCHEMA)
    try:
        with database_errors(path):
            return _first_broken(connection)
    finally:
        connection.close()


def _first_broken(connection: apsw.Connection) -> int | None:
    expected_id, expected_previous = 1, FIRST_HASH
    while True:
        # Short reads: a long one would keep the write-ahead log of a living writer growing.
        rows = select(
            connection,
            "SELECT id, time_ns, kind, message_id, body, previous_hash, hash FROM event"
            " WHERE id >= ? ORDER BY id LIMIT ?",
            (expected_id, _VERIFY_ROWS),
        )
        if not rows:
            # Ids below 1 are never given; one there was inserted behind our back.
            return select(connection, "SELECT min(id) FROM event WHERE id < 1")[0][0]
        for event_id, time_ns, kind, message_id, body, previous_hash, own_hash in rows:
            if (
                event_id != expected_id
                or previous_hash != expected_previous
                or own_hash != chain_hash(previous_hash, time_ns, kind, message_id, body)
            ):
                return event_id
            expected_id, expected_previous = event_id + 1, own_hash


def _same_message(old: QualityResult, new: QualityResult) -> bool:
    # Compared as bytes: NaN equals itself, and every mapping equals a dict with its content.
    return encode_body(replace(old, received_ns=0)) == encode_body(replace(new, received_ns=0))
