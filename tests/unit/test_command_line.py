"""The command line refuses what the loop would refuse, and says where and how to mend it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli import main
from controller.errors import ScenarioError
from hil.demo import run_demo

CONFIG = Path(__file__).parents[2] / "config"
REACTOR = str(CONFIG / "williams_otto" / "williams-otto.yaml")
SAMPLED = ("--sampled", "2026-03-01T14:30:00+01:00")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("xA=nan",), "outside [0, 1]"),
        (("xA=-5",), "outside [0, 1]"),
        (("xA=0.1", "xA=0.2"), "given twice"),
        (("xZ=0.1",), "does not measure xZ"),
        (("xA",), "not OUTPUT=VALUE"),
    ],
)
def test_a_lab_result_that_cannot_be_is_not_kept(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(tmp_path / "data"))
    assert main(["lab", REACTOR, "add", "assay", *words, *SAMPLED, *data]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_sample_time_needs_its_time_zone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["lab", REACTOR, "add", "assay", "xA=0.1", "--data", str(tmp_path / "data")]
    assert main([*arguments, "--sampled", "2026-03-01T14:30:00"]) == 2
    assert "has no time zone" in capsys.readouterr().err


def test_lab_results_are_kept_listed_and_corrected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(tmp_path / "data"))
    add = ["lab", REACTOR, "add", "assay", "xA=0.118", "--id", "L1", *SAMPLED, *data]
    assert main(add) == 0
    correct = ["lab", REACTOR, "correct", "assay", "xA=0.119", "--id", "L1", *SAMPLED, *data]
    assert main([*correct, "--who", "lab", "--why", "typing error"]) == 0
    capsys.readouterr()
    assert main(["lab", REACTOR, "list", *data, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["results"]
    assert (entry["id"], entry["values"], entry["corrected"]) == ("L1", {"xA": 0.119}, True)


@pytest.mark.parametrize(
    "words",
    [
        ("setpoint", "T_R", "790"),
        ("setpoint", "xA", "0.1"),
        ("setpoint", "F_B", "nan"),
        ("limit_high", "xA", "-1"),
        ("mode", "auto", "manual"),
        ("mode", "turbo"),
        ("rearm", "now"),
    ],
)
def test_a_command_that_the_loop_would_refuse_is_refused(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    assert main(["command", REACTOR, *words, "--data", str(tmp_path / "data")]) == 2


def test_a_command_is_kept_with_who_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(tmp_path / "data"))
    assert main(["command", REACTOR, "setpoint", "F_B", "4.5", "--who", "me", *data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == 1


def test_places_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`:100:` must not become a picture."""
    text = Path(REACTOR).read_text(encoding="utf-8").replace("holding:100:uint16", "holdin:100:x")
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["check", str(path)]) == 2
    assert "holdin:100:x" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["samples.db", "notes.txt"])
def test_the_demo_never_removes_what_it_has_not_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ScenarioError, match="not written"):
        run_demo(tmp_path, duration_s=60.0, tier="virtual")
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kpi: sheds", "kpi: shed", "there is no KPI shed"),
        ("kpi: sheds, high: 0", "kpi: sheds", "nothing is asserted"),
        ("id: cstr-setpoint", "id: ../../x", "does not fit"),
        ("scan: 1 s", "scan: 1 kg", "kg"),
        ("measures: F,", "measurs: F,", "unknown key"),
    ],
)
def test_scenario_mistakes_are_told_with_their_place(
    old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (CONFIG / "scenarios" / "cstr-setpoint.yaml").read_text(encoding="utf-8")
    assert old in text
    text = text.replace("../cstr/cstr.yaml", str(CONFIG / "cstr" / "cstr.yaml"))
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert main(["hil", "run", str(path), "--out", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert f"{path}:" in shown
    assert said in shown
    assert not (tmp_path / "out").exists()
