"""The directory of a campaign: rows in Parquet shards, each there as a whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import JournalError, ScenarioError
from hil.campaign.extras import require
from hil.campaign.order import Row
from hil.whole_file import write_whole

CAMPAIGN_FILE, IDENTITY_FILE, LOCK_FILE = "campaign.yaml", "campaign.json", "campaign.lock"
SHARDS = "results"

_TEXTS, _NUMBERS = ("variant", "failed", "error", "code"), ("job", "seed")


@dataclass(frozen=True, slots=True)
class Identity:
    """What all rows of a directory have in common."""

    id: str
    title: str
    design: str
    code: str
    scenario: str


class CampaignDirectory:
    """Rows that were sealed, and where further ones go. Use inside `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 1 + max((_number(shard) for shard in _shards(path)), default=0)

    def seal(self, rows: Sequence[Row]) -> Path:
        """Write rows as a shard; when this returns they survive a crash of the machine.

        Raises:
            JournalError: the directory cannot be written.
        """
        require("pyarrow", "Parquet shards")
        import pyarrow.parquet as pq

        path = self.path / SHARDS / f"shard-{self._next:06d}.parquet"
        draft = path.with_suffix(".draft")
        try:
            with draft.open("wb") as file:
                pq.write_table(_table(rows), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync(path.parent)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise _full(path, error) from error
        self._next += 1
        return path

    def rows(self) -> list[Row]:
        """Every sealed row, by job number."""
        return read_rows(self.path)


@contextmanager
def opened(path: Path, identity: Identity, text: str) -> Generator[CampaignDirectory]:
    """The directory, new or continued, for this process alone.

    Raises:
        ScenarioError: it holds another campaign, another design, or results of other code.
        JournalError: another process is at work there, or it cannot be written.
    """
    try:
        (path / SHARDS).mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JournalError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            mend="Choose another directory with --out",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(
                "another process works on this campaign",
                where=str(path),
                mend="Wait for it, stop it, or choose another directory with --out",
            ) from error
        for draft in (path / SHARDS).glob("*.draft"):  # Left by a process that was killed.
            draft.unlink()
        _check(path, identity)
        _write(path / CAMPAIGN_FILE, text.encode())
        _write(path / IDENTITY_FILE, msgspec.json.format(msgspec.json.encode(identity)))
        yield CampaignDirectory(path)
    finally:
        os.close(lock)


def _check(path: Path, identity: Identity) -> None:
    """Refuse a directory whose results are of something else; without results, take any."""
    file = path / IDENTITY_FILE
    if not any(_shards(path)):
        return
    if not file.exists():
        raise ScenarioError(
            "there are results, but nothing says of what",
            where=str(file),
            mend="Choose another directory with --out",
        )
    try:
        held = msgspec.json.decode(file.read_bytes(), type=Identity)
    except msgspec.DecodeError as error:
        raise ScenarioError(
            f"is damaged: {error}", where=str(file), mend="Choose another directory with --out"
        ) from error
    if held.id != identity.id:
        raise ScenarioError(
            f"holds the campaign {held.id}, not {identity.id}",
            where=str(path),
            mend="Choose another directory with --out",
        )
    if held.design != identity.design:
        raise ScenarioError(
            "holds results of another design: the campaign, the number of seeds of a Latin "
            "hypercube, the scenario or its application has changed",
            where=str(path),
            mend=f"Compare with {path / CAMPAIGN_FILE}, or choose another directory with --out",
        )
    if held.code != identity.code:
        raise ScenarioError(
            f"holds results of Loopwright {held.code}, this is {identity.code}",
            where=str(path),
            mend="Choose another directory with --out, or continue with that version",
        )


def read_rows(path: Path) -> list[Row]:
    """Every sealed row under a campaign's directory, by job number; one per job.

    Raises:
        ScenarioError: a shard is damaged.
    """
    require("pyarrow", "Parquet shards")
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[int, Row] = {}
    for shard in _shards(path):
        try:
            table: Any = pq.read_table(shard)
        except (OSError, pa.ArrowInvalid) as error:
            raise ScenarioError(
                f"is damaged: {error}",
                where=str(shard),
                mend="Remove it; starting again runs its jobs once more",
            ) from error
        for row in table.to_pylist():
            rows.setdefault(row["job"], row)
    return [rows[number] for number in sorted(rows)]


def _table(rows: Sequence[Row]) -> Any:
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table(
        {name: pa.array([row.get(name) for row in rows], _type(name)) for name in names}
    )


def _type(name: str) -> Any:
    import pyarrow as pa

    if name in _NUMBERS:
        return pa.int64()
    if name == "passed":
        return pa.bool_()
    return pa.string() if name in _TEXTS else pa.float64()


def _shards(path: Path) -> list[Path]:
    return sorted((path / SHARDS).glob("shard-*.parquet"))


def _number(shard: Path) -> int:
    return int(shard.stem.removeprefix("shard-"))


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise _full(path, error) from error


def _full(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"results cannot be written: {error.strerror or error}",
        where=str(path),
        mend="Make room; starting again runs only the jobs that are missing",
    )


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
