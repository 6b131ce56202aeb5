"""Bundles: what is packed comes out again, and a hostile one is refused."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

from controller.errors import ScenarioError
from hil.bundle import open_bundle, write_bundle
from hil.runner import run_scenario
from hil.scenario import load_scenario

CSTR = Path(__file__).parents[2] / "config" / "scenarios" / "cstr-setpoint.yaml"
CHANGES = {
    "tier": "virtual",
    "duration": 100,
    "profiles": [],
    "commands": [{"at": 0, "kind": "mode", "text": "auto"}],
}
INDEX = (
    b'{"format":1,"scenario":"files/a.yaml","tier":"virtual","seed":1,"version":"0.1.0",'
    b'"history_hash":"00","violations":[]}'
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    scenario = load_scenario(CSTR, CHANGES)
    run = run_scenario(scenario, folder / "run", check_replay=False)
    return write_bundle(folder / "out" / "x.loopwright.zip", scenario, run.directory, ["it broke"])


def test_scenario_application_and_run_come_out_where_they_belong(packed: Path) -> None:
    with ZipFile(packed) as archive:
        names = set(archive.namelist())
    assert names >= {
        "bundle.json",
        "files/scenarios/cstr-setpoint.yaml",
        "files/cstr/cstr.yaml",
        "run/samples.db",
        "run/events.db",
        "run/verdict.json",
    }
    with open_bundle(packed) as bundle:
        scenario = load_scenario(bundle.scenario)
        assert scenario.duration_s == 100.0
        assert scenario.settings.path == bundle.scenario.parents[1] / "cstr" / "cstr.yaml"
        assert (bundle.index.seed, bundle.index.violations) == (scenario.seed, ("it broke",))
        folder = bundle.run.parent
    assert not folder.exists()


def test_nothing_in_it_tells_where_it_was_made(packed: Path) -> None:
    with ZipFile(packed) as archive:
        for name in archive.namelist():
            assert not name.startswith("/")
        assert str(CSTR.parent).encode() not in archive.read("bundle.json")
        assert str(CSTR.parent).encode() not in archive.read("files/scenarios/cstr-setpoint.yaml")


def test_a_plant_in_a_file_is_packed_too(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tank.py").write_text(
        "from plant_models.van_de_vusse import actuated_plant as tank\n", encoding="utf-8"
    )
    application = (CSTR.parents[1] / "cstr" / "cstr.yaml").read_text(encoding="utf-8")
    (tmp_path / "cstr.yaml").write_text(application, encoding="utf-8")
    text = CSTR.read_text(encoding="utf-8").replace("../cstr/cstr.yaml", "../cstr.yaml")
    own = tmp_path / "own" / "scenario.yaml"
    own.write_text(text, encoding="utf-8")
    scenario = load_scenario(own, {**CHANGES, "plant.ref": "tank.py:tank"})
    run = run_scenario(scenario, tmp_path / "run", check_replay=False)
    path = write_bundle(tmp_path / "y.loopwright.zip", scenario, run.directory, [])
    with ZipFile(path) as archive:
        assert "files/own/tank.py" in archive.namelist()


def _climbing(archive: ZipFile) -> None:
    archive.writestr("files/../../escaped.yaml", b"x")


def _absolute(archive: ZipFile) -> None:
    archive.writestr("/files/a", b"x")


def _with_backslash(archive: ZipFile) -> None:
    archive.writestr("files/..\\..\\a", b"x")


def _elsewhere(archive: ZipFile) -> None:
    archive.writestr("other/a", b"x")


def _link(archive: ZipFile) -> None:
    member = ZipInfo("files/link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


def _twice(archive: ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("files/a.yaml", b"x")


def _crowd(archive: ZipFile) -> None:
    for number in range(1001):
        archive.writestr(f"files/{number}", b"")


@pytest.mark.parametrize(
    "spoil", [_climbing, _absolute, _with_backslash, _elsewhere, _link, _twice, _crowd]
)
def test_a_hostile_bundle_is_refused(spoil: Callable[[ZipFile], None], tmp_path: Path) -> None:
    path = tmp_path / "bad.loopwright.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", INDEX)
        archive.writestr("files/a.yaml", b"scenario: 1")
        spoil(archive)
    with pytest.raises(ScenarioError, match="no bundle"), open_bundle(path):
        pass
    assert not (tmp_path / "escaped.yaml").exists()


def test_a_bundle_that_grows_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hil.bundle._BYTES_MAX", 1000)
    path = tmp_path / "bomb.loopwright.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", INDEX)
        archive.writestr("files/a.yaml", bytes(100_000))
    with pytest.raises(ScenarioError, match="more than 1000 bytes"), open_bundle(path):
        pass


@pytest.mark.parametrize(
    ("index", "why"),
    [
        (b"{}", "no readable"),
        (INDEX.replace(b'"format":1', b'"format":9'), "format 9"),
        (INDEX.replace(b"files/a.yaml", b"../a.yaml"), "its scenario would be"),
        (INDEX.replace(b"files/a.yaml", b"files/b.yaml"), "lacks its scenario"),
    ],
)
def test_an_index_that_says_nonsense_is_refused(index: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.loopwright.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", index)
        archive.writestr("files/a.yaml", b"scenario: 1")
    with pytest.raises(ScenarioError, match=why), open_bundle(path):
        pass


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.loopwright.zip"
    path.write_bytes(b"not a zip file")
    with pytest.raises(ScenarioError, match="no bundle"), open_bundle(path):
        pass
