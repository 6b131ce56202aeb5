"""The cycle log: what was seen and decided in every cycle, in segments of one start each."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

import apsw

from controller.historian.database import Schema, database_errors, open_read_only
from controller.historian.messages import MessageKey

SAMPLES_FILE = "samples.db"

EPOCH_MAX = 65535

# `delivered` names the messages that some stored snapshot contains. It is written in the same
# transaction as that snapshot, so a message counts as consumed exactly when its snapshot is kept.
SAMPLES_SCHEMA = Schema(
    name="cycle log",
    application_id=0x4C575350,  # "LWSP"
    version=2,
    tables="""
        CREATE TABLE segment (
            id            INTEGER PRIMARY KEY,
            epoch         INTEGER NOT NULL,
            start_ns      INTEGER NOT NULL,
            settings_path TEXT NOT NULL,
            settings_text TEXT NOT NULL,
            overrides     TEXT NOT NULL,
            versions      TEXT NOT NULL,
            seed          INTEGER NOT NULL,
            initial_state BLOB NOT NULL
        ) STRICT;
        CREATE TABLE cycle (
            segment  INTEGER NOT NULL REFERENCES segment (id),
            cycle    INTEGER NOT NULL,
            time_ns  INTEGER NOT NULL,
            snapshot BLOB NOT NULL,
            record   BLOB,
            PRIMARY KEY (segment, cycle)
        ) STRICT;
        CREATE INDEX cycle_time ON cycle (segment, time_ns, cycle);
        CREATE INDEX cycle_undecided ON cycle (segment, cycle) WHERE record IS NULL;
        CREATE TABLE delivered (
            kind       TEXT NOT NULL,
            message_id TEXT NOT NULL,
            segment    INTEGER NOT NULL,
            cycle      INTEGER NOT NULL,
            PRIMARY KEY (kind, message_id)
        ) STRICT, WITHOUT ROWID;
    """,
)


def samples_path(path: str | Path) -> Path:
    """The cycle log of a data directory; the path of the file itself is accepted, too."""
    path = Path(path)
    return path if path.name == SAMPLES_FILE else path / SAMPLES_FILE


@dataclass(frozen=True, slots=True)
class Segment:
    """One start of a controller: everything that is needed to decide its cycles again.

    Attributes:
        segment: id, rising with every start.
        epoch: 1 … 65535, one more with every start, then 1 again; goes to the PLC.
        start_ns: time of the start, ns since epoch.
        settings_path, settings_text: where the configuration file was, and its content.
        overrides: settings that were changed for this start.
        versions: of loopwright, casadi, numpy, python and the platform.
        seed: of every chance decision.
        initial_state: the encoded LoopState before the first cycle.
    """

    segment: int
    epoch: int
    start_ns: int
    settings_path: str
    settings_text: str
    overrides: Mapping[str, Any]
    versions: Mapping[str, str]
    seed: int
    initial_state: bytes

    @property
    def settings_name(self) -> str:
        return PurePath(self.settings_path).name

    def __str__(self) -> str:
        return (
            f"segment {self.segment}: epoch {self.epoch}, {self.settings_name}, seed {self.seed}, "
            f"initial state {len(self.initial_state)} B"
        )


def running_versions() -> dict[str, str]:
    """Versions that a bit-exact replay depends on."""
    versions = {name: _installed(name) for name in ("loopwright", "casadi", "numpy")}
    return versions | {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def insert_segment(connection: apsw.Connection, segment: Segment) -> None:
    """Add the header of a start; the caller holds the transaction."""
    connection.execute(
        "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            segment.segment,
            segment.epoch,
            segment.start_ns,
            segment.settings_path,
            segment.settings_text,
            json.dumps(dict(segment.overrides)),
            json.dumps(dict(segment.versions)),
            segment.seed,
            segment.initial_state,
        ),
    )


def read_segments(connection: apsw.Connection) -> tuple[Segment, ...]:
    """Every start, oldest first."""
    rows = connection.execute(
        "SELECT id, epoch, start_ns, settings_path, settings_text, overrides, versions, seed,"
        " initial_state FROM segment ORDER BY id"
    )
    return tuple(
        Segment(
            segment=row[0],
            epoch=row[1],
            start_ns=row[2],
            settings_path=row[3],
            settings_text=row[4],
            overrides=json.loads(row[5]),
            versions=json.loads(row[6]),
            seed=row[7],
            initial_state=row[8],
        )
        for row in rows
    )


def delivered_ids(path: str | Path) -> frozenset[MessageKey]:
    """Kind and id of every message that a stored snapshot contains; none before the first start.

    Raises:
        JournalError: the cycle log is damaged or not ours.
    """
    path = samples_path(path)
    if not path.exists():
        return frozenset()
    connection = open_read_only(path, SAMPLES_SCHEMA)
    try:
        with database_errors(path):
            rows = connection.execute("SELECT kind, message_id FROM delivered")
            return frozenset((kind, message_id) for kind, message_id in rows)
    finally:
        connection.close()


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
