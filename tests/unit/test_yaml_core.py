"""YAML by the core schema of version 1.2, with the place of everything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import SettingsError
from controller.settings.yaml_core import decode, read, scalar

FILE = Path("a.yaml")


def data(text: str) -> Any:
    return read(FILE, text).data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Where YAML 1.1 would have said false, 90, 8, a date, 1000 …
        ("NO", "NO"), ("no", "no"), ("on", "on"), ("off", "off"), ("yes", "yes"), ("y", "y"),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("010", 10), ("08", 8),
        ("2001-01-01", "2001-01-01"), ("1_000", "1_000"), ("0b101", "0b101"), ("=", "="),
        ("<<", "<<"), ("1e3", 1000.0), ("+12", 12), ("-7", -7), ("0o17", 15), ("0x1F", 31),
        ("-0x1F", "-0x1F"), ("1.", 1.0), (".5", 0.5), ("-.5e-2", -0.005), (".", "."), ("+", "+"),
        (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf), ("inf", "inf"),
        ("nan", "nan"), ("true", True), ("True", True), ("TRUE", True), ("tRUE", "tRUE"),
        ("false", False), ("null", None), ("Null", None), ("NULL", None), ("~", None),
        ("nUll", "nUll"), ("5.0e-4", 5e-4), ("30 s", "30 s"), ("１", "１"),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, expected: object) -> None:
    for found in (data(f"a: {text}\n")["a"], data(f"[{text}]")[0], scalar(text)):
        assert found == expected
        assert type(found) is type(expected)


def test_not_a_number_and_nothing() -> None:
    assert math.isnan(data("a: .NaN")["a"])
    assert data("a:\nb:") == {"a": None, "b": None}


def test_quotes_and_tags_decide_before_the_schema_does() -> None:
    text = """[ '5', "true", !!str 5, !!float 3, !!int "7", !!bool 'true', !!null '' ]"""
    assert data(text) == ["5", "true", "5", 3.0, 7, True, None]
    assert type(data(text)[3]) is float


def test_keys_are_text() -> None:
    assert data("on: 1\nNO: 2\n'3': 4") == {"on": 1, "NO": 2, "3": 4}


def test_anchors() -> None:
    document = read(FILE, "a: &limits [0, 8]\nb: *limits\n")
    assert document.data == {"a": [0, 8], "b": [0, 8]}
    assert document.position(("b", 1)) == (1, 16)
    assert document.position(("b",)) == (2, 1)


def test_positions_of_keys_and_values() -> None:
    document = read(FILE, "a:\n  b: 'x'\n  c: [1, {d: 2}]\ne:\n")
    assert document.position(("a",)) == (1, 1)
    assert document.position(("a", "b")) == (2, 6)
    assert document.position(("a", "b"), of_key=True) == (2, 3)
    assert document.position(("a", "c")) == (3, 3)
    assert document.position(("a", "c", 1)) == (3, 10)
    assert document.position(("a", "c", 1, "d")) == (3, 14)
    assert document.position(("e",)) == (4, 1)
    assert document.position(("a", "missing")) == (1, 1)
    assert document.text_at[("a", "b")] == 1
    assert document.text_at[("a", "c", 0)] == 0


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a: 1\nb: {x: 1, x: 2}", "2:11 b.x", "this key is already in line 2, column 5"),
        ("a: 1\nb: 2\na: 3", "3:1 a", "this key is already in line 1, column 1"),
        ("1: 2", "1:1", "'1' is not text, but a key must be"),
        ("a: {~: 2}", "1:5 a", "'~' is not text, but a key must be"),
        ("[a]: 3", "1:1", "a list is not text, but a key must be"),
        ("a: &x [*x]", "1:4 a[0]", "an alias contains itself"),
        ("a: !foo 3", "1:4 a", "unknown tag !foo"),
        ("a: !foo [3]", "1:4 a", "unknown tag !foo"),
        ("a: !!python/object/apply:os.system [x]", "1:4 a", "unknown tag tag:yaml.org,2002:python"),
        ("a: !!int x", "1:4 a", "'x' does not fit its tag"),
        ("a: *q", "1:4", "not YAML: found undefined alias 'q'"),
        ("a: [1,\nb", "2:2", "not YAML: expected ',' or ']'"),
        ("a: b: c", "1:5", "not YAML: mapping values are not allowed here"),
        ("\ta: 1", "1:1", "not YAML: found character '\\t'"),
        ("a: \x01", "1:4", "the character U+0001 is not allowed in YAML"),
        ("a: 1\nb: \x02", "2:4", "the character U+0002 is not allowed in YAML"),
        ("--- 1\n--- 2", "2:1", "not YAML: found another document"),
        ("", "1:1", "the file is empty"),
        ("# only a comment\n", "1:1", "the file is empty"),
        ("[" * 700, "1:1", "sections are nested too deeply"),
        ("[" * 120 + "]" * 120, "1:102", "the file unfolds into too many values"),
    ],
)  # fmt: skip
def test_what_is_not_readable(text: str, place: str, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        data(text)
    problem = caught.value.problems[0]
    assert problem.where.rstrip(":").startswith(f"a.yaml:{place}")
    assert problem.what.startswith(what)
    assert problem.mend


def test_all_duplicate_keys_are_told() -> None:
    with pytest.raises(SettingsError) as caught:
        data("a: 1\na: 2\nb: {c: 1, c: 2}")
    assert [p.where for p in caught.value.problems] == ["a.yaml:2:1 a", "a.yaml:3:11 b.c"]


def test_aliases_cannot_unfold_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(SettingsError, match="unfolds into too many values"):
        data("\n".join(lines))


def test_bytes_that_are_not_utf_8() -> None:
    with pytest.raises(SettingsError, match="byte 0xff is not UTF-8") as caught:
        decode(FILE, "a: 1\nü: ".encode() + b"\xff")
    assert caught.value.where == "a.yaml:2:4"
    assert decode(FILE, b"\xef\xbb\xbfa: 1") == "a: 1"


@given(st.text(alphabet="ab:{}[],&*!|>'\"#%@-?~0.1 \n\t\\", max_size=40))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        document = read(FILE, text)
    except SettingsError as error:
        for problem in error.problems:
            assert problem.where.startswith("a.yaml:")
            assert problem.mend
    else:
        assert () in document.values
