"""The objective may hold arithmetic in known names and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.settings.expression import unknown_parts

NAMES = ("a", "b", "xP")


@pytest.mark.parametrize(
    "text", ["a", "-a", "+1.5e3 * (a - b) / xP ** 2", "  a+b ", "2 ** -a", "((a))"]
)
def test_arithmetic_in_known_names(text: str) -> None:
    assert list(unknown_parts(text, NAMES)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a + c", [(4, "there is no variable c", "c")]),
        ("  c - d", [(2, "there is no variable c", "c"), (6, "there is no variable d", "d")]),
        ("ä * c", [(0, "there is no variable ä", "ä"), (4, "there is no variable c", "c")]),
        ("a + sin(b)", [(4, "sin(b) is not arithmetic", "")]),
        ("a.real", [(0, "a.real is not arithmetic", "")]),
        ("a if b else 1", [(0, "a if b else 1 is not arithmetic", "")]),
        ("a // b", [(0, "a // b is not arithmetic", "")]),
        ("not a", [(0, "not a is not arithmetic", "")]),
        ("a < b", [(0, "a < b is not arithmetic", "")]),
        ("'a'", [(0, "'a' is not arithmetic", "")]),
        ("True", [(0, "True is not arithmetic", "")]),
        ("1j * a", [(0, "1j is not arithmetic", "")]),
        ("[a]", [(0, "[a] is not arithmetic", "")]),
        ("a = b", None),
        ("a +", None),
        ("a $ b", [(2, "this is not an arithmetic expression", "")]),
        ("(a", None),
        ("", None),
        ("(" * 1000 + "a", None),
        ("-" * 100_000 + "a", None),
        ("__import__('os')", [(0, "__import__('os') is not arithmetic", "")]),
    ],
)  # fmt: skip
def test_anything_else_is_told_with_its_place(
    text: str, found: list[tuple[int, str, str]] | None
) -> None:
    parts = list(unknown_parts(text, NAMES))
    if found is None:
        assert [what for _, what, _ in parts] == ["this is not an arithmetic expression"]
    else:
        assert parts == found


@given(st.text(alphabet="ab1.+-*/() \n\"'\\#:=é", max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    for offset, what, _ in unknown_parts(text, NAMES):
        assert 0 <= offset <= len(text)
        assert what
