"""Brings lab results, commands and proposals from the event log into the next cycle, once each."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import apsw

from controller.historian.database import database_errors, journal_error, open_read_only, select
from controller.historian.events import EVENTS_SCHEMA, EventStore
from controller.historian.messages import (
    COMMAND,
    PROPOSAL,
    QUALITY_CORRECTION,
    QUALITY_RESULT,
    MessageKey,
    decode_command,
    decode_proposal,
    decode_result,
)
from controller.ports import Messages
from controller.signal import Command, Proposal, QualityResult

_NOTHING = Messages()


class SqliteInbox:
    """Implements `controller.ports.Inbox` on the event log.

    A message counts as consumed when a snapshot that contains it is in the cycle log. At a start,
    `delivered` (see `controller.historian.samples.delivered_ids`) names those, and everything
    else with an event id above `after` is delivered. During the life of the process each is
    delivered once. A message polled by a process that died before it journalled the snapshot
    was never acted upon, so the next process gets it again.
    """

    def __init__(
        self, store: EventStore, after: int = 0, delivered: AbstractSet[MessageKey] = frozenset()
    ) -> None:
        self._path = store.path
        # A connection of its own: SQLite reports to it only what *other* connections commit.
        self._connection = open_read_only(self._path, EVENTS_SCHEMA)
        self._delivered = delivered
        self._last_id = after
        self._seen_version = -1
        self._waiting: dict[str, QualityResult] = {}
        self._next_due_ns = 0

    def poll(self, time_ns: int) -> Messages:
        """New commands and proposals, and the lab results received up to `time_ns`.

        Costs a few microseconds while nobody has written to the event log.

        Raises:
            JournalError: the event log is damaged or cannot be read.
        """
        try:
            version: int = self._connection.execute("PRAGMA data_version").get
        except apsw.Error as error:
            raise journal_error(error, self._path) from error
        unchanged = version == self._seen_version
        if unchanged and not (self._waiting and self._next_due_ns <= time_ns):
            return _NOTHING
        commands: list[Command] = []
        proposals: list[Proposal] = []
        if not unchanged:
            self._take_new(commands, proposals)
            # Read before the scan: what is committed during it shows as a change next time.
            self._seen_version = version
        return Messages(self._take_due(time_ns), tuple(commands), tuple(proposals))

    def close(self) -> None:
        """Release the file; closing twice does nothing."""
        self._connection.close()

    def _take_new(self, commands: list[Command], proposals: list[Proposal]) -> None:
        with database_errors(self._path):
            rows = select(
                self._connection,
                "SELECT id, kind, message_id, body FROM event WHERE id > ? ORDER BY id",
                (self._last_id,),
            )
            for _, kind, message_id, body in rows:
                if kind == QUALITY_CORRECTION:
                    # What has been delivered is past; what still waits is delivered as corrected.
                    if message_id in self._waiting:
                        self._waiting[message_id] = decode_result(kind, body)
                elif (kind, message_id) in self._delivered:
                    continue
                elif kind == QUALITY_RESULT:
                    self._waiting[message_id] = decode_result(kind, body)
                elif kind == COMMAND:
                    commands.append(decode_command(body))
                elif kind == PROPOSAL:
                    proposals.append(decode_proposal(body))
        if rows:
            self._last_id = rows[-1][0]

    def _take_due(self, time_ns: int) -> tuple[QualityResult, ...]:
        due = tuple(result for result in self._waiting.values() if result.received_ns <= time_ns)
        for result in due:
            del self._waiting[result.result_id]
        self._next_due_ns = min(
            (result.received_ns for result in self._waiting.values()), default=0
        )
        return due
