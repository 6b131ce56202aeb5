"""Every mistake in a settings file is told with line, column, path, reason and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from test_settings import BASE, PLANT

from controller.errors import SettingsError
from controller.settings import load, parse

FOREIGN = re.compile(
    r"pydantic|Input should|Extra inputs|Field required|validation error|type=|Traceback|"
    r"input_value|another value|\bdict\b|\bNone\b"
)


class Mistake(NamedTuple):
    """`old` in the text becomes `new`; the problem stands where `at` begins inside `new`."""

    old: str
    new: str
    at: str
    path: str
    what: str
    mend: str = ""


SHAPE = [
    Mistake("name: tank\n", "nmae: tank\n", "nmae", "nmae", "unknown key", "Did you mean name?"),
    Mistake(
        "host: plc.example",
        "hots: plc",
        "hots",
        "devices.plc.hots",
        "unknown key",
        "Did you mean host?",
    ),
    Mistake(
        "cycle: 10 s\n", "", "loopwright", "cycle", "a value is missing", "Add cycle: Length of one"
    ),
    Mistake(
        "driver: s7", "driver: s8", "s8", "devices.plc.driver", "found 's8', expected s7, modbus or"
    ),
    Mistake("    driver: s7\n", "", "plc:", "devices.plc.driver", "a value is missing"),
    Mistake("loopwright: 1", "loopwright: 2", "2", "loopwright", "found 2, expected 1"),
    Mistake(
        "name: tank", "name: 1tank", "1tank", "name", "found '1tank', expected letters, digits"
    ),
    Mistake("name: tank", "name: 7", "7", "name", "found 7, expected text", "Put it in quotes"),
    Mistake(
        "host: plc.example", "host: ''", "''", "devices.plc.host", "found '', expected some text"
    ),
    Mistake("unit: 7,", "port: 0,", "0", "devices.skid.port", "found 0, expected at least 1"),
    Mistake(
        "unit: 7,", "port: 65536,", "65536", "devices.skid.port", "found 65536, expected at most"
    ),
    Mistake("unit: 7,", "port: 50.5,", "50.5", "devices.skid.port", "expected a whole number"),
    Mistake(
        "unit: 7,", "port: '502',", "'502'", "devices.skid.port", "found '502', expected a whole"
    ),
    Mistake(
        "critical: false",
        "critical: no",
        "no",
        "measured[1].critical",
        "found 'no', expected true or false",
    ),
    Mistake(
        "{hold_cycles: 5}",
        "{hold_cycles: 0}",
        "0",
        "guard.hold_cycles",
        "found 0, expected at least 1",
    ),
    Mistake("{hold_cycles: 5}", "{watchdog_cycles: 0}", "0", "guard.watchdog_cycles", "at least 1"),
    Mistake("{hold_cycles: 5}", "{ready_cycles: -1}", "-1", "guard.ready_cycles", "at least 1"),
    Mistake(
        "{hold_cycles: 5}",
        "{rearm: never}",
        "never",
        "guard.rearm",
        "expected 'auto' or 'operator'",
    ),
    Mistake(
        "guard: {hold_cycles: 5}", "guard:", "guard", "guard", "found nothing, expected a section"
    ),
    Mistake(
        "zone: [5 %, 0.4]", "zone: [5 %]", "zone", "controlled[1].zone", "found 1 entry, expected 2"
    ),
    Mistake(
        "zone: [5 %, 0.4]",
        "zone: [1, 2, 3]",
        "zone",
        "controlled[1].zone",
        "found 3 entries, expected 2",
    ),
    Mistake(
        "zone: [5 %, 0.4]", "zone: 0.4", "0.4", "controlled[1].zone", "found 0.4, expected a list"
    ),
    Mistake(
        "weight: 10", "weight: 0", "0", "controlled[0].weight", "found 0, expected more than 0"
    ),
    Mistake(
        "weight: 10", "weight: .inf", ".inf", "controlled[0].weight", "expected a finite number"
    ),
    Mistake(
        "cycle: 10 s", "cycle: quick", "quick", "cycle", "found 'quick', expected a number, or"
    ),
    Mistake(
        "cycle: 10 s", "cycle: .nan", ".nan", "cycle", "expected a number, or a number and its unit"
    ),
    Mistake("cycle: 10 s", "cycle: 1:30", "1:30", "cycle", "found '1:30', expected a number"),
    Mistake(
        "delay_max: 2 h",
        "delay_max: 2 h, gate: 1",
        "1",
        "quality.assay.gate",
        "found 1, expected less than 1",
    ),
]


def position(text: str, index: int) -> str:
    line = text.count("\n", 0, index) + 1
    return f"{line}:{index - text.rfind(chr(10), 0, index)}"


def problems_in(text: str, path: Path) -> tuple[SettingsError, ...]:
    with pytest.raises(SettingsError) as caught:
        parse(text, path)
    return caught.value.problems


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("application")
    (folder / "plant.py").write_text(PLANT)
    return folder / "tank.yaml"


def check(mistake: Mistake, file: Path) -> None:
    """The text with the mistake in it is refused at the right place, in our words."""
    assert BASE.count(mistake.old) >= 1
    start = BASE.index(mistake.old)
    text = BASE.replace(mistake.old, mistake.new, 1)
    found = [
        p
        for p in problems_in(text, file)
        if p.where.endswith(f" {mistake.path}") and mistake.what in p.what
    ]
    assert len(found) == 1
    problem = found[0]
    assert problem.mend.startswith(mistake.mend)
    assert problem.mend
    if mistake.at:
        inside = mistake.new.find(mistake.at)
        index = start + inside if inside >= 0 else text.index(mistake.at)
        assert problem.where == f"{file}:{position(text, index)} {mistake.path}"
    assert not FOREIGN.search(str(problem))


def label(mistake: Mistake) -> str:
    return f"{mistake.path}: {mistake.what}"[:60]


@pytest.mark.parametrize("mistake", SHAPE, ids=label)
def test_a_wrong_shape_is_told_where_it_stands(mistake: Mistake, file: Path) -> None:
    check(mistake, file)


def test_the_whole_line_of_a_message(file: Path) -> None:
    text = BASE.replace("sigma: 0.2 K", "sigma: 0.2 kg/s")
    (problem,) = problems_in(text, file)
    assert str(problem) == (
        f"{file}:30:35 measured[0].sigma: the value is in kg/s, expected a unit that converts to "
        "degC. Write the value in degC"
    )
    assert problem.exit_code == 2


def test_all_problems_are_told_in_the_order_of_the_file(file: Path) -> None:
    text = (
        BASE.replace("step: 20 s", "step: 5 s")
        .replace("cycle: 10 s", "cycle: 10 kg")
        .replace("tag: T.PV,", "tag: T.PX,")
        .replace("plant.py:", "plan.py:")
    )
    found = problems_in(text, file)
    assert [p.where.partition(" ")[2] for p in found] == [
        "cycle",
        "model.plant",
        "measured[0].tag",
        "controlled[0].measured_by",
    ]
    with pytest.raises(SettingsError) as caught:
        parse(text, file)
    assert str(caught.value).count("\n") == 3


def test_a_misspelt_key_is_one_problem_not_two(file: Path) -> None:
    (problem,) = problems_in(BASE.replace("cycle: 10 s", "cylce: 10 s"), file)
    assert str(problem) == f"{file}:3:1 cylce: unknown key. Did you mean cycle?"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the file: No such file") as caught:
        load(tmp_path / "none.yaml")
    assert caught.value.where == str(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["[1, 2]", "hello", "3"])
def test_a_file_that_is_not_a_section(text: str) -> None:
    (problem,) = problems_in(text, Path("tank.yaml"))
    assert str(problem).startswith("tank.yaml:1:1: the file is not a section with keys.")
