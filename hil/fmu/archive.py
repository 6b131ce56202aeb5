"""Opens the archive of an FMU with suspicion: what looks wrong is refused before it is unpacked.

An FMU is a ZIP archive with modelDescription.xml at its root, one shared library per platform
under binaries/, and files of its own under resources/ (FMI 2.0.4 and 3.0.1, section 2.5).
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import struct
import sys
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from controller.errors import ScenarioError
from hil.fmu.description import Description, read_description

DESCRIPTION = "modelDescription.xml"

MIB = 1 << 20
ARCHIVE_MAX = 512 * MIB
"""Larger than any FMU met so far (a whole vehicle with its maps is below 200 MiB)."""
DIRECTORY_MAX = 4 * MIB
"""Of the archive's table of contents, which is read into memory whole."""
ENTRIES_MAX = 10_000
UNPACKED_MAX = 1024 * MIB
DESCRIPTION_MAX = 32 * MIB
RATIO_MAX = 200
"""Executables and model data shrink to a third or a tenth; runs of zeros to a thousandth."""
RATIO_FREE = MIB
"""Up to this unpacked size an entry may shrink as well as it can: it does no harm."""

_END = b"PK\x05\x06"
_END_LAYOUT = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = b"PK\x06\x07"
_COMMENT_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Library:
    """Where an FMU of one FMI version keeps the shared library for this machine."""

    folder: str
    suffix: str


def library_place(fmi: int) -> Library:
    """The folder and suffix of this platform's shared library, after FMI 2 and FMI 3.

    Raises:
        ScenarioError: FMI has no name for this platform.
    """
    system, suffix = {
        "linux": ("linux", ".so"),
        "darwin": ("darwin", ".dylib"),
    }.get(sys.platform, ("", ""))
    machine = platform.machine().lower()
    processor = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
    if not system or machine not in processor or sys.maxsize < 2**32:
        raise ScenarioError(
            f"FMUs do not run on {sys.platform} {machine}",
            mend="Run the scenario on 64-bit Linux or macOS",
        )
    folder = f"{system}64" if fmi == 2 else f"{processor[machine]}-{system}"
    return Library(f"binaries/{folder}", suffix)


def unpack(path: Path, folder: Path) -> Description:
    """Check the archive at `path` from end to end, then unpack what a simulation needs.

    Only modelDescription.xml, the shared libraries of this platform and resources/ are written,
    and nothing at all when an entry or the description is refused. What turns out damaged while
    it is unpacked leaves a part of the files in `folder`.

    Args:
        folder: an empty directory that nobody else can enter.

    Raises:
        ScenarioError: no such file, no ZIP archive, a hostile or damaged one, no co-simulation,
            or no shared library for this platform.
    """
    try:
        with path.open("rb") as file:
            return _unpack(file, path, folder)
    except OSError as error:
        raise ScenarioError(
            f"the FMU cannot be read: {error.strerror}", where=str(path), mend="Check the path"
        ) from error


def _unpack(file: IO[bytes], path: Path, folder: Path) -> Description:
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            entries = _checked(archive)
            description = read_description(archive.read(entries[DESCRIPTION]))
            place = library_place(description.fmi)
            library = f"{place.folder}/{description.identifier}{place.suffix}"
            if library not in entries:
                there = sorted({n.split("/")[1] for n in entries if n.startswith("binaries/")})
                raise ScenarioError(
                    f"there is no {library} in it, the shared library for this machine",
                    mend=f"Export it for this platform (it has: {', '.join(there) or 'none'})",
                )
            wanted = (DESCRIPTION, f"{place.folder}/", "resources/")
            for name, entry in entries.items():
                if name.startswith(wanted):
                    _write(archive, entry, folder / name)
            (folder / "resources").mkdir(exist_ok=True)
    except ScenarioError as error:
        raise ScenarioError(error.what, where=str(path), mend=error.mend) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise ScenarioError(
            f"the FMU is damaged: {error}", where=str(path), mend="Export or copy it again"
        ) from error
    return description


def _check_directory(file: IO[bytes]) -> None:
    """Bound what `zipfile` reads into memory before it is given the file."""
    size = file.seek(0, os.SEEK_END)
    if size > ARCHIVE_MAX:
        raise _refused(f"it is {size / MIB:.0f} MiB long, more than {ARCHIVE_MAX // MIB}")
    first = max(0, size - _COMMENT_MAX - _END_LAYOUT.size)
    file.seek(first)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_LAYOUT.size:
        raise ScenarioError(
            "the FMU is no ZIP archive", mend="Name an .fmu file; a fetched one may be incomplete"
        )
    if _ZIP64_LOCATOR in tail[max(0, at - 20) : at]:
        raise _refused("it is written as ZIP64, for sizes that no FMU has")
    _, _, _, _, entries, directory, _, _ = _END_LAYOUT.unpack_from(tail, at)
    if entries > ENTRIES_MAX or directory > DIRECTORY_MAX:
        raise _refused(f"it lists {entries} files in {directory / MIB:.1f} MiB")


def _checked(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of the archive by name, after every entry has passed."""
    listed = archive.infolist()
    if len(listed) > ENTRIES_MAX:
        raise _refused(f"it lists {len(listed)} files")
    total = sum(entry.file_size for entry in listed)
    if total > UNPACKED_MAX:
        raise _refused(f"it would unpack to {total / MIB:.0f} MiB, more than {UNPACKED_MAX // MIB}")
    files: dict[str, zipfile.ZipInfo] = {}
    folded: dict[str, bool] = {}
    for entry in listed:
        _check_entry(entry)
        name = entry.filename.rstrip("/")
        key = _folded(name)
        if key in folded and not (entry.is_dir() and folded[key]):
            raise _refused(f"it holds {name!r} twice")
        folded[key] = entry.is_dir()
        if not entry.is_dir():
            files[name] = entry
    for name in files:
        parents = [_folded(str(parent)) for parent in Path(name).parents]
        if any(folded.get(parent) is False for parent in parents):
            raise _refused(f"{name!r} lies in something that is a file as well")
    if DESCRIPTION not in files:
        raise ScenarioError(
            f"there is no {DESCRIPTION} at its root", mend="Name an FMU; export it again"
        )
    if files[DESCRIPTION].file_size > DESCRIPTION_MAX:
        raise _refused(f"its {DESCRIPTION} is {files[DESCRIPTION].file_size / MIB:.0f} MiB long")
    return files


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    segments = name.removesuffix("/").split("/")
    if not name or any(not c.isprintable() for c in name):
        raise _refused(f"the file name {name!r} has characters that no name should have")
    if "\\" in name or name.startswith("/") or name[1:2] == ":":
        raise _refused(f"the file name {name!r} is not a relative path with forward slashes")
    if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in segments):
        raise _refused(f"the file name {name!r} leads out of the archive or is malformed")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(f"{name!r} is a link or a device, not a file")
    if entry.flag_bits & 0x1:
        raise _refused(f"{name!r} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(f"{name!r} is packed by another method than FMI allows")
    packed = max(entry.compress_size, 1)
    if entry.file_size > RATIO_FREE and entry.file_size > RATIO_MAX * packed:
        raise _refused(
            f"{name!r} would grow {entry.file_size // packed} times: it looks like a ZIP bomb"
        )


def _folded(name: str) -> str:
    """What file systems that ignore case, or compose characters, take for the same name."""
    return unicodedata.normalize("NFC", name).casefold()


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Unpack one file; `zipfile` gives no more than the length announced, and checks its CRC."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    executable = (entry.external_attr >> 16) & stat.S_IXUSR
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with (
        os.fdopen(os.open(path, flags, 0o700 if executable else 0o600), "wb") as file,
        archive.open(entry) as packed,
    ):
        shutil.copyfileobj(packed, file)


def _refused(what: str) -> ScenarioError:
    return ScenarioError(
        f"the FMU is refused: {what}",
        mend="Use an FMU from a source you trust, written by a modelling tool",
    )
