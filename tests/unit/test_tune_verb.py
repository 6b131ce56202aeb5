"""The verb `tune`: tables, JSON, picture and page; lines that can be pasted; clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_tuning import HEATER

from controller.cli import main
from controller.settings import load

PNG = b"\x89PNG\r\n\x1a\n"


def written(folder: Path, old: str = "", new: str = "") -> str:
    assert old in HEATER
    path = folder / "heater.yaml"
    path.write_text(HEATER.replace(old, new) if old else HEATER, encoding="utf-8")
    return str(path)


def test_it_prints_one_document_and_draws_the_worst_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, picture = written(tmp_path), tmp_path / "shown" / "tuning.png"
    assert main(["tune", config, "--json", "--plot", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["application"] == "heater"
    assert found["reached"]
    assert found["damped"]
    assert not found["linearized"]
    (cv,) = found["cvs"]
    times = cv["response_s"]
    assert times["wanted"] == 40.0
    assert times["nominal"] == pytest.approx(40.0, rel=0.1)
    assert times["worst"] > times["nominal"]
    assert cv["overshoot"]["worst"] >= cv["overshoot"]["nominal"]
    assert cv["gain_uncertainty"] == 0.2
    assert "slower" in times["slowest_member"]
    assert picture.read_bytes().startswith(PNG)
    # What it says to write is what the file then holds.
    (lines,) = yaml.safe_load(found["yaml"])["manipulated"]
    assert lines == {"name": "Q", "move_suppression": found["mvs"][0]["move_suppression"]}
    changed = load(config, {"manipulated.Q.move_suppression": lines["move_suppression"]})
    assert changed.manipulated[0].move_suppression == lines["move_suppression"]


def test_the_same_seed_gives_the_same_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    for seed in ("3", "3"):
        assert main(["tune", written(tmp_path), "--json", "--seed", seed]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_the_page_is_whole_and_names_what_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = "2 percent/min, target_weight: 0}\ncontrolled:\n  - {gain_uncertainty: 0.0, "
    config = written(tmp_path, "600 percent/min, target_weight: 0}\ncontrolled:\n  - {", slow)
    page = tmp_path / "tuning.html"
    assert main(["tune", config, "--html", str(page)]) == 1
    printed, text = capsys.readouterr().out, page.read_text(encoding="utf-8")
    for part in (printed, text):
        assert "T does not respond in 40 s: the rate of Q (2 percent a minute)" in part
        assert "The fastest that is reachable is" in part
        assert "move_suppression:" in part
    assert "not all as wanted" in text
    assert text.count("<svg") == 1
    assert "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (", response: 40 s", "", "no controlled variable states a response time"),
        ("response: 40 s", "response: 9 s", "T should respond in 9 s"),
        ("response: 40 s", "response: 0 s", "expected more than zero"),
        ("response: 40 s", "response: 5 kg", "expected a unit that converts to s"),
        ("response: 40 s", "gain_uncertainty: 120 %", "not even the sign of a gain is known"),
        ("response: 40 s", "gain_uncertainty: -5 %", "expected zero or more"),
        ("target_weight: 0", "move_suppression: 0", "every move_suppression is 0"),
        ("range: [0 percent,", "range: [99.9999 percent,", "T cannot be moved from"),
    ],
)
def test_what_cannot_be_tuned_is_refused_by_name(
    old: str, new: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", written(tmp_path, old, new), "--json"]) == 2
    caught = capsys.readouterr()
    assert said in caught.err
    assert "heater.yaml:" in caught.err
    assert json.loads(caught.out)["problems"][0]["mend"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--plot", "picture.txt"), "is not the name of a picture"),
        (("--plot", "picture"), "End it in one of: png, svg, pdf"),
        (("--seed", "-1"), "-1 is no seed"),
        (("--html", "/dev/null/tuning.html"), "cannot write the file"),
    ],
)
def test_a_wrong_option_is_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", written(tmp_path), *options]) == 2
    assert said in capsys.readouterr().err
