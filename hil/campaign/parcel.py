"""A scenario with every file that it names, so that any machine runs the very same one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from os.path import commonpath, normpath, relpath
from pathlib import Path, PurePosixPath
from typing import Any

from controller.errors import ScenarioError, SettingsError
from controller.settings.yaml_core import decode, read

SIZE_MAX = 8_000_000
"""Bytes. Every job carries its files, so that a worker that joins late needs nothing else."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """The scenario's place among the files, and every file by its relative path."""

    scenario: str
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents."""
        total = hashlib.sha256(self.scenario.encode())
        for name, data in sorted(self.files.items()):
            total.update(f"\n{len(name.encode())} {len(data)} {name}\n".encode())
            total.update(data)
        return total.hexdigest()


def pack(scenario: Path) -> Parcel:
    """The scenario, its application, and the files that either names by a relative path.

    A Python file that is packed may import what is installed, not its neighbours.

    Raises:
        ScenarioError: a file cannot be read, is named by an absolute path, or all are too large.
    """
    scenario = Path(normpath(Path.cwd() / scenario))
    data = _document(scenario)
    found = {scenario, *_named(data, scenario)}
    for named in _applications(data):
        application = Path(normpath(scenario.parent / named))
        if application.is_file():
            found |= {application, *_named(_document(application), application)}
    top = commonpath([path.parent for path in found])
    files = {PurePosixPath(relpath(path, top)).as_posix(): _read(path) for path in sorted(found)}
    size = sum(map(len, files.values()))
    if size > SIZE_MAX:
        raise ScenarioError(
            f"the scenario and its files have {size / 1e6:.1f} MB, more than {SIZE_MAX / 1e6:g} MB",
            where=str(scenario),
            mend="Name an installed package instead of a large file",
        )
    return Parcel(PurePosixPath(relpath(scenario, top)).as_posix(), files)


def _applications(data: Any) -> Iterator[str]:
    """The application that a scenario names, and those of its matrix."""
    if isinstance(data, dict):
        matrix = data.get("matrix")
        yield from _texts(data.get("application"))
        yield from _texts(matrix.get("application") if isinstance(matrix, dict) else None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ScenarioError(
            f"cannot be read: {error.strerror}", where=str(path), mend="Check the path"
        ) from error


def _document(path: Path) -> Any:
    try:
        return read(path, decode(path, _read(path))).data
    except SettingsError as error:
        raise ScenarioError(error.what, where=error.where, mend=error.mend) from error


def _named(data: Any, document: Path) -> set[Path]:
    """Files that a document names: `file` or `file.py:factory`."""
    found: set[Path] = set()
    for text in _texts(data):
        for candidate in {text, text.rpartition(":")[0]} - {""}:
            path = document.parent / candidate
            with suppress(OSError, ValueError):  # A long text, or a NUL in it, names no file.
                if not path.is_file():
                    continue
                if Path(candidate).is_absolute():
                    raise ScenarioError(
                        f"names {candidate} by an absolute path, which other machines do not have",
                        where=str(document),
                        mend="Name it relative to this file",
                    )
                found.add(Path(normpath(path)))
    return found


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)


def unpack(parcel: Parcel) -> Path:
    """The scenario's path in a directory of this user that is named by the content.

    Raises:
        ScenarioError: the temporary directory belongs to someone else, or holds something else.
    """
    return _unpacked(parcel.digest, parcel.scenario, tuple(sorted(parcel.files.items())))


@cache
def _unpacked(digest: str, scenario: str, files: tuple[tuple[str, bytes], ...]) -> Path:
    folder = scratch() / digest[:32]
    if not folder.is_dir():
        draft = Path(tempfile.mkdtemp(dir=scratch(), prefix="draft-"))
        for name, data in files:
            path = draft / name
            if not path.resolve().is_relative_to(draft.resolve()):
                raise ScenarioError(f"{name} leaves its directory", where="campaign files")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            draft.rename(folder)
        except OSError:  # Another worker of this machine was first.
            shutil.rmtree(draft, ignore_errors=True)
    for name, data in files:
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            raise ScenarioError(
                "is not the file that the campaign was started with",
                where=str(path),
                mend=f"Remove {folder} and start again",
            )
    return folder / scenario


def scratch() -> Path:
    """A directory for temporary files that nobody but this user can write.

    Raises:
        ScenarioError: someone else has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"loopwright-campaign-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise ScenarioError(
            "others can write there",
            where=str(folder),
            mend="Remove it, or set TMPDIR to a directory of your own",
        )
    return folder
