"""Lab results as they stand now, each with the history of its corrections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.historian.database import database_errors, open_read_only
from controller.historian.events import EVENTS_SCHEMA, events_path
from controller.historian.messages import QUALITY_CORRECTION, decode_correction, decode_result
from controller.signal import QualityResult


@dataclass(frozen=True, slots=True)
class QualityVersion:
    """One value that a lab result had: the event that brought it, with who and why."""

    event_id: int
    result: QualityResult
    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class QualityEntry:
    """A lab result and everything it ever was, oldest first, the value that stands now last."""

    history: tuple[QualityVersion, ...]

    @property
    def current(self) -> QualityResult:
        return self.history[-1].result

    @property
    def corrected(self) -> bool:
        return len(self.history) > 1


def quality_results(path: str | Path) -> tuple[QualityEntry, ...]:
    """Every lab result of a data directory, in order of first arrival.

    Raises:
        JournalError: the event log is missing, damaged or not ours.
    """
    path = events_path(path)
    connection = open_read_only(path, EVENTS_SCHEMA)
    history: dict[str, list[QualityVersion]] = {}
    try:
        with database_errors(path):
            rows = connection.execute(
                "SELECT id, kind, message_id, body FROM event"
                " WHERE kind IN ('quality_result', 'quality_correction') ORDER BY id"
            )
            for event_id, kind, message_id, body in rows:
                history.setdefault(message_id, []).append(_version(event_id, kind, body))
    finally:
        connection.close()
    return tuple(QualityEntry(tuple(versions)) for versions in history.values())


def _version(event_id: int, kind: str, body: bytes) -> QualityVersion:
    if kind == QUALITY_CORRECTION:
        correction = decode_correction(body)
        return QualityVersion(event_id, correction.result, correction.who, correction.why)
    return QualityVersion(event_id, decode_result(kind, body))
