"""Seeds: one range, told and checked wherever a seed can be given."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from controller.cli import main
from controller.errors import ScenarioError
from hil.scenario import load_scenario, variants
from hil.seeds import SEED_MAX, seed_of, seeds_of

SCENARIO = Path(__file__).parents[2] / "config" / "scenarios" / "cstr-setpoint.yaml"
TOO_LARGE = str(10**30)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("4", (4,)),
        ("0", (0,)),
        ("1-5", (1, 2, 3, 4, 5)),
        ("1,4,9", (1, 4, 9)),
        ("3-4,4-5,1", (3, 4, 5, 1)),
        (f"{SEED_MAX}", (SEED_MAX,)),
        (f"{SEED_MAX - 1}-{SEED_MAX}", (SEED_MAX - 1, SEED_MAX)),
    ],
)
def test_seeds_are_written_as_numbers_and_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TOO_LARGE, "from 0 to 2147483647"),
        (str(SEED_MAX + 1), "from 0 to 2147483647"),
        (f"1-{TOO_LARGE}", "from 0 to 2147483647"),
        ("9" * 5000, "from 0 to 2147483647"),
        ("-3", "is no seed"),
        ("4.5", "is no seed"),
        ("1,,2", "is no seed"),
        ("", "is no seed"),
        ("5-1", "the lower one first"),
        ("0-10000", "more than 10000 seeds"),
    ],
)
def test_what_is_no_seed_is_refused(text: str, said: str) -> None:
    with pytest.raises(ArgumentTypeError, match=said):
        seeds_of(text)


@pytest.mark.parametrize("text", ["-1", TOO_LARGE, "1-5", "x"])
def test_one_seed_is_one_number_in_the_range(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="whole numbers from 0 to 2147483647"):
        seed_of(text)


@pytest.mark.parametrize("seed", [TOO_LARGE, "-1"])
@pytest.mark.parametrize("words", [["hil", "run", str(SCENARIO)], ["hil", "swarm"], ["demo"]])
def test_every_verb_refuses_it_before_anything_runs(
    words: list[str], seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words, "--seed", seed])
    assert end.value.code == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert "whole numbers from 0 to 2147483647" in answer.err


def _with(folder: Path, line: str) -> Path:
    """The scenario with one more line at its end, instead of its own seed."""
    text = SCENARIO.read_text(encoding="utf-8")
    text = text.replace("../cstr/", f"{SCENARIO.parents[1]}/cstr/").replace("\nseed: 3\n", "\n")
    path = folder / "s.yaml"
    path.write_text(f"{text}{line}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("seed", [TOO_LARGE, "-3", "true", "1.5"])
def test_a_file_is_refused_at_its_line(tmp_path: Path, seed: str) -> None:
    path = _with(tmp_path, f"seed: {seed}")
    line = path.read_text(encoding="utf-8").count("\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert caught.value.where == f"{path}:{line}:1 seed"


@pytest.mark.parametrize("seed", [TOO_LARGE, "-3", "true"])
def test_a_matrix_is_refused_at_the_seed(tmp_path: Path, seed: str) -> None:
    path = _with(tmp_path, f"matrix: {{seed: [0, {seed}]}}")
    line = path.read_text(encoding="utf-8").count("\n")
    with pytest.raises(ScenarioError, match="is no seed") as caught:
        variants(path)
    assert caught.value.where == f"{path}:{line}:20 matrix.seed[1]"
    assert "2147483647" in caught.value.mend


def test_the_first_and_the_last_seed_are_taken(tmp_path: Path) -> None:
    path = _with(tmp_path, f"matrix: {{seed: [0, {SEED_MAX}]}}")
    assert [scenario.seed for scenario in variants(path)] == [0, SEED_MAX]
