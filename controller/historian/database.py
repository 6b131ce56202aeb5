"""How a file of the data directory is opened, recognised and protected against half a change."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

import apsw

from controller.errors import JournalError

Synchronous = Literal["NORMAL", "FULL"]

# Commits of the other processes take milliseconds; who waits longer than this has met a fault.
BUSY_TIMEOUT_S = 5.0

# Order matters: the first class that fits names the fault.
_FAULTS: tuple[tuple[type[apsw.Error], str, str], ...] = (
    (
        apsw.FullError,
        "the disk is full",
        "Free some space; everything acknowledged before is kept",
    ),
    (
        apsw.NotADBError,
        "this is not a database",
        "Name a data directory that Loopwright made, or restore the file from a backup",
    ),
    (
        apsw.CorruptError,
        "the file is damaged",
        "Move it aside or restore a backup; the command `.recover` of the sqlite3 shell saves "
        "what can still be read",
    ),
    (
        apsw.BusyError,
        "another process keeps the file locked",
        "Find the process that holds it (fuser FILE) and let it finish",
    ),
    (
        apsw.ReadOnlyError,
        "the file may not be written",
        "Give this user the right to write the data directory",
    ),
    (
        apsw.CantOpenError,
        "the file cannot be opened",
        "Check that the data directory exists and that this user may read and write it",
    ),
    (
        apsw.IOError,
        "the disk reports an input/output error",
        "Check the disk (dmesg, smartctl); everything acknowledged before is kept",
    ),
)


@dataclass(frozen=True, slots=True)
class Schema:
    """What makes a file ours: its application id, the version of its tables, and the tables."""

    name: str
    application_id: int
    version: int
    tables: str


def journal_error(error: apsw.Error, path: Path) -> JournalError:
    """The database's own complaint as what, where and how to mend."""
    for kind, what, mend in _FAULTS:
        if isinstance(error, kind):
            return JournalError(f"{what} ({error})", where=str(path), mend=mend)
    return JournalError(f"the database refuses ({error})", where=str(path))


@contextmanager
def database_errors(path: Path) -> Generator[None]:
    """Turn every database error inside the block into a JournalError that names `path`."""
    try:
        yield
    except JournalError as error:
        error.where = error.where or str(path)
        raise
    except apsw.Error as error:
        raise journal_error(error, path) from error


@contextmanager
def transaction(connection: apsw.Connection) -> Generator[None]:
    """All of the block or nothing. Takes the write lock at once, so it never has to upgrade."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may already have rolled back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def open_database(
    path: Path,
    schema: Schema,
    *,
    synchronous: Synchronous,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> apsw.Connection:
    """Open a file for reading and writing in WAL mode; make it if it is missing or empty.

    Raises:
        JournalError: not a database, damaged, not ours, or written by a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            f"the data directory cannot be made ({error.strerror})",
            where=str(path.parent),
            mend="Choose a directory that this user may write",
        ) from error
    with database_errors(path):
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(round(busy_timeout_s * 1000))
            if _is_blank(connection):
                _create(connection, schema, busy_timeout_s)
            _recognise(connection, schema, path)
            connection.execute(f"PRAGMA synchronous={synchronous}")
        except BaseException:
            connection.close()
            raise
    return connection


def open_read_only(
    path: Path, schema: Schema, *, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> apsw.Connection:
    """Open an existing file for reading only; works beside a living writer and on a copy.

    Raises:
        JournalError: missing, not a database, damaged, not ours, or from a newer version.
    """
    if not path.is_file():
        raise JournalError(
            f"there is no {schema.name} here",
            where=str(path),
            mend="Name the data directory of a controller that has been started at least once",
        )
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    log = Path(f"{path}-wal")
    merged = not log.exists() or log.stat().st_size == 0
    if merged and not os.access(path.parent, os.W_OK):
        # Reading a WAL file needs a -shm file beside it, which a read-only medium cannot give.
        address += "&immutable=1"
    with database_errors(path):
        connection = apsw.Connection(
            address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            connection.set_busy_timeout(round(busy_timeout_s * 1000))
            _recognise(connection, schema, path)
        except BaseException:
            connection.close()
            raise
    return connection


def select(
    connection: apsw.Connection, statement: str, values: Sequence[object] = ()
) -> list[tuple[Any, ...]]:
    """All rows of one short read. Our tables are STRICT, so columns have their declared types."""
    return connection.execute(statement, cast("Any", values)).fetchall()


def _is_blank(connection: apsw.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    marks = connection.pragma("application_id"), connection.pragma("user_version")
    return tables == 0 and marks == (0, 0)


def _create(connection: apsw.Connection, schema: Schema, busy_timeout_s: float) -> None:
    _switch_to_wal(connection, busy_timeout_s)
    with transaction(connection):
        # Another process may have been quicker while we waited for the lock.
        if _is_blank(connection):
            connection.execute(schema.tables)
            connection.execute(f"PRAGMA application_id={schema.application_id}")
            connection.execute(f"PRAGMA user_version={schema.version}")


def _switch_to_wal(connection: apsw.Connection, busy_timeout_s: float) -> None:
    # SQLite does not call its busy handler for this one change, so we wait ourselves.
    give_up_s = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except apsw.BusyError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.005)


def _recognise(connection: apsw.Connection, schema: Schema, path: Path) -> None:
    application_id: int = connection.pragma("application_id")
    version: int = connection.pragma("user_version")
    if application_id != schema.application_id:
        raise JournalError(
            f"this database is not Loopwright's {schema.name} "
            f"(application id {application_id:#010x}, expected {schema.application_id:#010x})",
            where=str(path),
            mend="Name the data directory of a controller",
        )
    if version > schema.version:
        raise JournalError(
            f"written by a newer version (schema {version}, this version knows {schema.version})",
            where=str(path),
            mend="Update Loopwright",
        )
    if version < schema.version:
        raise JournalError(
            f"unknown schema version {version}, this version knows {schema.version}",
            where=str(path),
            mend="Read it with the version of Loopwright that wrote it",
        )
