"""Hostile and damaged FMU archives: each refused with its reason before anything is written."""

from __future__ import annotations

import re
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.errors import ScenarioError
from hil.fmu import archive
from hil.fmu.archive import unpack
from tests.hil.fmu_models import described, rewritten, tank

DESCRIPTION = "modelDescription.xml"


@pytest.fixture(scope="module", name="good", params=[2, 3], ids=["FMI 2", "FMI 3"])
def _good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tank(request.param, tmp_path_factory.mktemp("good"))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "folder"
    folder.mkdir(parents=True)
    return folder


def refused(path: Path, folder: Path, words: str) -> None:
    before = sorted(folder.parent.parent.rglob("*"))
    with pytest.raises(ScenarioError) as caught:
        unpack(path, folder)
    # Not the whole text: the path of a test's directory tells what the test is about.
    assert re.search(words, f"{caught.value.what}. {caught.value.mend}"), caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.mend
    assert sorted(folder.parent.parent.rglob("*")) == before


def test_only_what_a_simulation_needs_is_unpacked(good: Path, folder: Path) -> None:
    description = unpack(good, folder)
    assert description.identifier == good.stem
    files = {p.relative_to(folder).parts[0] for p in folder.rglob("*") if p.is_file()}
    assert files == {DESCRIPTION, "binaries", "resources"}
    libraries = [p for p in (folder / "binaries").rglob("*") if p.is_file()]
    assert [p.name for p in libraries] == [f"{good.stem}.so"]
    assert (folder / DESCRIPTION).read_bytes() == zipfile.ZipFile(good).read(DESCRIPTION)
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in folder.rglob("*.py"))


def added(name: str, content: bytes = b"x", **attributes: int) -> Callable[[Path, Path], Path]:
    """Makes a copy with one more entry, which is as odd as `attributes` say."""

    def make(good: Path, to: Path) -> Path:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name
        for key, value in attributes.items():
            setattr(entry, key, value)
        rewritten(good, to)
        with zipfile.ZipFile(to, "a") as file:
            file.writestr(entry, content)
        return to

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (added("../outside"), "leads out of the archive"),
        (added("resources/../../outside"), "leads out of the archive"),
        (added("/etc/outside"), "not a relative path"),
        (added("C:outside"), "not a relative path"),
        (added("C:/outside"), "not a relative path"),
        (added("..\\outside"), "not a relative path"),
        (added("resources\\a"), "not a relative path"),
        (added("resources//a"), "malformed"),
        (added("resources/./a"), "malformed"),
        (added("resources/a\x1bb"), "no name should have"),
        (added("resources/\u202exe"), "no name should have"),
        (added("resources/" + "a" * 300), "malformed"),
        (added("resources/link", b"/etc/passwd", external_attr=0o120777 << 16), "a link or a dev"),
        (added("resources/fifo", external_attr=0o010666 << 16), "a link or a device"),
        (added(DESCRIPTION), "'modelDescription.xml' twice"),
        (added("MODELDESCRIPTION.XML"), "twice"),
        (added(f"{DESCRIPTION}/a"), "lies in something that is a file"),
        (added("resources/a", compress_type=zipfile.ZIP_LZMA), "another method"),
        (added("resources/bomb", bytes(4 << 20), compress_type=zipfile.ZIP_DEFLATED), "ZIP bomb"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_suspicious_entry_refuses_the_whole_archive(
    good: Path, folder: Path, tmp_path: Path, make: Callable[[Path, Path], Path], words: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns while it writes a name twice
        path = make(good, tmp_path / "bad.fmu")
    refused(path, folder, words)


def test_what_the_archive_may_hold_is_bounded(
    good: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(archive, "ENTRIES_MAX", 3)
        refused(good, folder, r"lists \d+ files")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "DIRECTORY_MAX", 100)
        refused(good, folder, r"lists \d+ files in")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "UNPACKED_MAX", 1000)
        refused(good, folder, "would unpack to")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "ARCHIVE_MAX", 1000)
        refused(good, folder, "MiB long")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "DESCRIPTION_MAX", 100)
        refused(good, folder, "its modelDescription.xml is")


def test_more_entries_than_the_end_record_admits_are_still_counted(
    good: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(good.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    content[at + 8 : at + 12] = b"\x01\x00\x01\x00"
    liar = tmp_path / "liar.fmu"
    liar.write_bytes(content)
    monkeypatch.setattr(archive, "ENTRIES_MAX", 3)
    refused(liar, folder, "lists|damaged")


def test_a_length_that_lies_is_found_out(good: Path, folder: Path, tmp_path: Path) -> None:
    """The table of contents promises one byte of a file that unpacks to many."""
    path = added(
        "resources/liar.bin", bytes(1000), compress_type=zipfile.ZIP_DEFLATED
    )(good, tmp_path / "liar.fmu")  # fmt: skip
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match="damaged"):
        unpack(path, folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no ZIP archive"),
        (b"MZ this is something else", "no ZIP archive"),
        (b"PK\x05\x06" + bytes(18), "no modelDescription.xml"),
        (b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18), "ZIP64"),
        (b"PK\x05\x06" + bytes(6) + b"\x05\0\x90\0\0\0\x10\0\0\0\0\0", "damaged|lists"),
    ],
    ids=["empty", "not a ZIP", "nothing in it", "ZIP64", "cut off"],
)
def test_what_is_no_archive(folder: Path, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "odd.fmu"
    path.write_bytes(content)
    refused(path, folder, words)


def test_an_encrypted_entry_is_refused(good: Path, folder: Path, tmp_path: Path) -> None:
    content = bytearray(good.read_bytes())
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path = tmp_path / "locked.fmu"
    path.write_bytes(content)
    refused(path, folder, "is encrypted")


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (archive.sys, "platform", "win32"),
        (archive.sys, "maxsize", 2**31 - 1),
        (archive.platform, "machine", lambda: "riscv64"),
    ],
)
def test_a_platform_without_fmus_is_told(
    good: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    value: object,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, name, value)
        with pytest.raises(ScenarioError, match="FMUs do not run on"):
            unpack(good, folder)


def test_every_cut_of_a_good_archive_is_refused(good: Path, folder: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    path = tmp_path / "cut.fmu"
    for length in (10, len(content) // 2, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, folder, "no ZIP archive|damaged")


def test_a_flipped_bit_is_noticed(good: Path, folder: Path, tmp_path: Path) -> None:
    content = bytearray(good.read_bytes())
    content[content.find(b"do_step") + 2] ^= 1
    path = tmp_path / "flipped.fmu"
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match="damaged: Bad CRC"):
        unpack(path, folder)


def with_xml(good: Path, to: Path, xml: bytes) -> Path:
    return rewritten(good, to, lambda name, old: xml if name == DESCRIPTION else old)


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b'<fmiModelDescription fmiVersion="2.0">&b;</fmiModelDescription>'
)
XXE = (
    b'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    b'<fmiModelDescription fmiVersion="2.0" modelName="&a;"/>'
)
REMOTE = b'<!DOCTYPE m SYSTEM "http://127.0.0.1:1/m.dtd"><fmiModelDescription fmiVersion="2.0"/>'


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (BOMB, "DOCTYPE"),
        (XXE, "DOCTYPE"),
        (REMOTE, "DOCTYPE"),
        (BOMB.decode().replace('?>', ' encoding="utf-16"?>', 1).encode("utf-16"), "DOCTYPE"),
        (b"", "malformed"),
        (b"<fmiModelDescription", "malformed"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "malformed"),
        (b"\xff\xff\x00", "malformed"),
        (b"<a>" * 100_000, "nests more than 32 deep"),
        (b"<model/>", "no FMI 2 or FMI 3 model"),
        (b'<fmiModelDescription fmiVersion="1.0"/>', r"fmiVersion '1\.0'"),
        (b'<fmiModelDescription fmiVersion="4.0"/>', r"fmiVersion '4\.0'"),
        (b'<fmiModelDescription fmiVersion="3.0"/>', "offers nothing"),
    ],
    ids=[
        "entity bomb", "foreign file", "foreign DTD", "bomb in UTF-16", "empty", "cut off",
        "unknown encoding", "no text", "deep", "another root", "FMI 1", "FMI 4", "no interface",
    ],
)  # fmt: skip
def test_a_model_description_that_is_dangerous_or_wrong(
    good: Path, folder: Path, tmp_path: Path, xml: bytes, words: str
) -> None:
    refused(with_xml(good, tmp_path / "bad.fmu", xml), folder, words)


def test_model_exchange_alone_is_not_enough(good: Path, folder: Path, tmp_path: Path) -> None:
    path = described(good, tmp_path / "me.fmu", "<CoSimulation", "<ModelExchange")
    refused(path, folder, r"not for co-simulation \(it offers ModelExchange\)")


@pytest.mark.parametrize("identifier", ["../../evil", "/evil", "a b", "", "a.so\x7f", "x" * 300])
def test_a_model_identifier_is_no_path(
    good: Path, folder: Path, tmp_path: Path, identifier: str
) -> None:
    old, new = (f'modelIdentifier="{name}"' for name in (good.stem, identifier))
    path = described(good, tmp_path / "id.fmu", old, new)
    refused(path, folder, "is no C identifier")


def test_a_description_without_a_token_is_refused(good: Path, folder: Path, tmp_path: Path) -> None:
    key = "guid" if good.stem == "Tank2" else "instantiationToken"
    refused(described(good, tmp_path / "t.fmu", f"{key}=", f"{key}X="), folder, "no GUID")


def test_a_library_for_other_platforms_only_is_told(
    good: Path, folder: Path, tmp_path: Path
) -> None:
    path = rewritten(
        good, tmp_path / "w.fmu", lambda name, old: None if name.endswith(".so") else old
    )
    refused(path, folder, r"no binaries/.*\.so in it.*\(it has: .*win")


def test_a_missing_description(good: Path, folder: Path, tmp_path: Path) -> None:
    path = rewritten(
        good, tmp_path / "w.fmu", lambda name, old: None if name == DESCRIPTION else old
    )
    refused(path, folder, "no modelDescription.xml at its root")
