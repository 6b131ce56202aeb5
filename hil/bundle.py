"""A bundle: everything of one failing run in one file, so that one command reproduces it.

It is a zip file with relative names only: `bundle.json`, the scenario and the files it needs below
`files/`, the journal and the verdict below `run/`. A plant or model that is a Python file is
among them: whoever runs a bundle runs its code.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import zip_longest
from math import nan
from pathlib import Path, PurePosixPath
from typing import Any, cast
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import msgspec

from controller.cycle.record import decode_entry
from controller.errors import ScenarioError
from controller.historian.reader import open_reader
from hil.judge.verdict import Check, Outcome
from hil.scenario.parts import Scenario, Tier

SUFFIX = ".loopwright.zip"
REPRODUCED = "history_hash"
"""The check that a bundle which is run again does the same."""
_INDEX = "bundle.json"
_FORMAT = 1
_FILES_MAX = 1000
_BYTES_MAX = 4 * 1024**3
_CHUNK = 1 << 20


class BundleIndex(msgspec.Struct, frozen=True):
    """What `bundle.json` says.

    Attributes:
        scenario: its file, relative to the bundle.
        history_hash: of everything that was decided in the run.
        violations: what went wrong, in words.
    """

    format: int
    scenario: str
    tier: Tier
    seed: int
    version: str
    history_hash: str
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle: where its scenario and the recorded run lie now, and what was recorded."""

    scenario: Path
    run: Path
    index: BundleIndex


def history_hash(directory: Path) -> str:
    """SHA-256 over every decided record of a data directory, in order; timing is left out.

    Raises:
        JournalError: there is no journal, or it is damaged.
    """
    found = hashlib.sha256()
    with open_reader(directory) as reader:
        for segment in reader.segments():
            for row in reader.cycles(segment.segment):
                if row.record is not None:
                    found.update(decode_entry(row.record).decided)
    return found.hexdigest()


def write_bundle(
    path: Path, scenario: Scenario, directory: Path, violations: Sequence[str]
) -> Path:
    """Pack the run in `directory` of this scenario, changes and all, into `path`.

    Raises:
        JournalError: the run has no journal.
        ScenarioError: a file of the scenario cannot be read.
    """
    sources = _sources(scenario)
    root = Path(os.path.commonpath([p.parent for p in (scenario.path.resolve(), *sources)]))
    place = PurePosixPath("files", scenario.path.resolve().relative_to(root).as_posix())
    index = BundleIndex(
        format=_FORMAT,
        scenario=str(place),
        tier=scenario.tier,
        seed=scenario.seed,
        version=version("loopwright"),
        history_hash=history_hash(directory),
        violations=tuple(violations),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ZipFile(path, "w", ZIP_DEFLATED, strict_timestamps=False) as archive:
            archive.writestr(_INDEX, msgspec.json.format(msgspec.json.encode(index)))
            archive.writestr(str(place), scenario.text)
            for source in sources:
                archive.write(source, f"files/{source.relative_to(root).as_posix()}")
            for source in sorted(directory.iterdir()):
                if source.is_file() and source.suffix != ".lock":
                    archive.write(source, f"run/{source.name}")
    except OSError as error:
        raise ScenarioError(
            f"the bundle cannot be written: {error.strerror}",
            where=str(error.filename or path),
            mend="Check the directory and the files of the scenario",
        ) from error
    return path


@contextmanager
def open_bundle(path: Path) -> Generator[Bundle]:
    """Unpack a bundle into a directory of its own, which is gone afterwards.

    Raises:
        ScenarioError: it is no bundle, of a format that this version does not know, or one of its
            members would land elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="loopwright-bundle-") as folder:
        root = Path(folder)
        try:
            with ZipFile(path) as archive:
                index = _index(archive, path)
                _extract(archive, root, path)
        except (OSError, BadZipFile, RuntimeError) as error:
            raise _broken(path, f"it cannot be read: {error}") from error
        scenario = root / index.scenario
        if not scenario.is_file():
            raise _broken(path, f"it lacks its scenario {index.scenario}")
        yield Bundle(scenario, root / "run", index)


def reproduced(bundle: Bundle, directory: Path) -> Check:
    """Whether the run in `directory` decided exactly what the bundle's run decided, in a sentence.

    By the wall clock no two runs are the same, so there another history proves nothing.
    """
    if history_hash(directory) == bundle.index.history_hash:
        return _check("passed", "it did exactly what the run in the bundle did")
    before, now = bundle.index.version, version("loopwright")
    why = _first_difference(bundle.run, directory)
    if before != now:
        why += f"; that was Loopwright {before}, this is {now}"
    sentence = f"it did not do what the run in the bundle did: {why}"
    if bundle.index.tier != "realtime":
        return _check("failed", sentence)
    return replace(
        _check("untested", f"{sentence}; by the wall clock no two runs are the same"),
        severity="warn",
    )


def _check(outcome: Outcome, sentence: str) -> Check:
    return Check(REPRODUCED, nan, None, None, outcome, detail=sentence)


def _decided(directory: Path) -> list[dict[int, bytes]]:
    """A digest of what was decided, by cycle, of each start."""
    with open_reader(directory) as reader:
        return [
            {
                row.cycle: hashlib.sha256(decode_entry(row.record).decided).digest()
                for row in reader.cycles(segment.segment)
                if row.record is not None
            }
            for segment in reader.segments()
        ]


def _first_difference(before: Path, now: Path) -> str:
    """Where two journals part, in words."""
    pairs = zip_longest(_decided(before), _decided(now), fillvalue=dict[int, bytes]())
    for number, (was, is_now) in enumerate(pairs, 1):
        cycles = sorted(c for c in {**was, **is_now} if was.get(c) != is_now.get(c))
        if cycles:
            start = f" of start {number}" if number > 1 else ""
            what = "was decided otherwise"
            if cycles[0] not in was or cycles[0] not in is_now:
                what = f"is only in {'this run' if cycles[0] in is_now else 'that one'}"
            return f"cycle {cycles[0]}{start} is the first that {what}"
    return "its journal is not the one that the bundle was made of"


def _sources(scenario: Scenario) -> tuple[Path, ...]:
    """The files that a scenario needs beside itself: application, plants and models in files."""
    settings, here = scenario.settings, scenario.path.parent
    found = [settings.path, *_file_of(settings.path.parent, settings.model_ref)]
    found += _file_of(here, scenario.plant_ref)
    if scenario.awl is not None:
        found += [path for path in (scenario.awl.program, scenario.awl.symbols) if path]
    if scenario.economics is not None:
        found += _file_of(here, scenario.economics.optimum_ref)
    if scenario.golden is not None and scenario.golden.file.is_file():
        found.append(scenario.golden.file)
    for text in _texts(scenario.plant_arguments):
        # An argument that names a file beside the scenario, such as an FMU.
        named = here / text
        if not Path(text).is_absolute() and 0 < len(text) < 256 and named.is_file():
            found.append(named)
    return tuple(dict.fromkeys(path.resolve() for path in found))


def _file_of(folder: Path, reference: str) -> list[Path]:
    name = reference.rpartition(":")[0]
    path = folder / name
    return [path] if name.endswith(".py") and path.is_file() else []


def _texts(arguments: Mapping[str, Any]) -> Iterable[str]:
    for value in arguments.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(cast("Mapping[str, Any]", value))


def _index(archive: ZipFile, path: Path) -> BundleIndex:
    try:
        with archive.open(_INDEX) as member:
            index = msgspec.json.decode(member.read(_CHUNK), type=BundleIndex)
    except (KeyError, msgspec.DecodeError) as error:
        raise _broken(path, f"it has no readable {_INDEX}: {error}") from error
    if index.format != _FORMAT:
        raise ScenarioError(
            f"the bundle has format {index.format}, this version reads {_FORMAT}",
            where=str(path),
            mend=f"Open it with Loopwright {index.version}",
        )
    if not _harmless(index.scenario):
        raise _broken(path, f"its scenario would be {index.scenario!r}")
    return index


def _extract(archive: ZipFile, root: Path, path: Path) -> None:
    members = archive.infolist()
    if len(members) > _FILES_MAX:
        raise _broken(path, f"it has {len(members)} members, more than {_FILES_MAX}")
    room = _BYTES_MAX
    for member in members:
        if member.filename == _INDEX:
            continue
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if is_link or member.is_dir() or not _harmless(member.filename):
            raise _broken(path, f"its member {member.filename!r} is not a file inside it")
        room = _unpack(archive, member, root / member.filename, room)
        if room < 0:
            raise _broken(path, f"it unpacks to more than {_BYTES_MAX} bytes")


def _unpack(archive: ZipFile, member: ZipInfo, target: Path, room: int) -> int:
    """Counts what really comes out, whatever the archive says; returns the room that is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as sink:
        while room >= 0 and (chunk := source.read(_CHUNK)):
            sink.write(chunk)
            room -= len(chunk)
    return room


def _harmless(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        len(parts) > 1
        and parts[0] in ("files", "run")
        and "\\" not in name
        and ":" not in name
        and not any(part in ("..", ".", "") for part in parts)
    )


def _broken(path: Path, why: str) -> ScenarioError:
    return ScenarioError(
        f"this is no bundle of Loopwright: {why}",
        where=str(path),
        mend="Use a file that a failing run has left",
    )
