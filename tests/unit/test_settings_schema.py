"""The JSON Schema for editors is current and says the same as the reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from controller.settings import json_schema
from controller.settings.schema_types import QUANTITY
from controller.settings.yaml_core import read

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config" / "loopwright.schema.json"
EXAMPLE = ROOT / "config" / "williams_otto" / "williams-otto.yaml"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def example() -> Any:
    return read(EXAMPLE, EXAMPLE.read_text(encoding="utf-8")).data


def test_the_file_is_current() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema()


def test_the_tool_agrees() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "write_schema.py"), "--check"]
    done = subprocess.run(
        tool, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_fits(validator: Any, example: Any) -> None:
    assert [e.message for e in validator.iter_errors(example)] == []


def test_the_example_names_the_schema() -> None:
    first = EXAMPLE.read_text(encoding="utf-8").splitlines()[0]
    named = first.partition("$schema=")[2]
    assert (EXAMPLE.parent / named).resolve() == SCHEMA


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("devices", "reactor", "driver"), "s8"),
        (("devices", "reactor", "port"), 70000),
        (("devices", "reactor", "hots"), "a"),
        (("tags", "TR.PV", "rate_max"), "fast"),
        (("guard", "hold_cycles"), 0),
        (("cycle",), True),
        (("loopwright",), 2),
    ],
)
def test_an_editor_marks_what_the_reader_refuses(
    validator: Any, example: Any, path: tuple[str, ...], wrong: object
) -> None:
    section = example
    for part in path[:-1]:
        section = section[part]
    section[path[-1]] = wrong
    assert not validator.is_valid(example)


def test_every_key_is_described() -> None:
    schema = json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, key in section["properties"].items():
            assert key.get("description") or "$ref" in key, f"{section['title']}.{name}"


def test_the_pattern_of_a_quantity_is_understood_by_every_editor() -> None:
    # ECMA 262 has no possessive quantifiers, named groups or inline flags.
    assert not any(extension in QUANTITY for extension in ("(?P", "(?i", "++", "*+", "\\Z"))
