"""No single slip of the keyboard escapes, and none breaks the reading of a settings file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_settings import BASE
from test_settings_errors import FOREIGN, file, problems_in

from controller.errors import SettingsError
from controller.settings import parse
from controller.settings.yaml_core import KeyPath, read, written

pytestmark = pytest.mark.slow
__all__ = ["file"]

_BASE = read(Path("tank.yaml"), BASE)


def _is_schema_key(path: KeyPath) -> bool:
    if path[0] in ("devices", "tags", "quality"):
        return len(path) > 2 and path[-2] != "measures"
    return len(path) < 3 or path[-2] not in (
        "parameters",
        "states",
        "backoff",
        "trust_region",
        "probe",
    )


SCHEMA_KEYS = sorted((p for p in _BASE.keys if _is_schema_key(p)), key=str)


@st.composite
def typos(draw: st.DrawFn, word: str) -> str:
    i = draw(st.integers(0, len(word) - 1))
    letter = draw(st.sampled_from("abcxyz_"))
    kind = draw(st.sampled_from(["drop", "swap", "insert", "replace"]))
    if kind == "drop":
        return word[:i] + word[i + 1 :]
    if kind == "swap":
        return word[:i] + word[i : i + 2][::-1] + word[i + 2 :]
    return word[:i] + letter + word[i + (kind == "replace") :]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_single_typo_in_a_key_is_told_at_its_place(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(SCHEMA_KEYS))
    key = str(path[-1])
    typo = data.draw(typos(key).filter(lambda t: re.fullmatch(r"[a-z_]\w*", t) is not None))
    parent = _BASE.at(path[:-1])
    assume(typo not in parent)
    line, column = _BASE.keys[path]
    lines = BASE.splitlines(keepends=True)
    row = lines[line - 1]
    assert row[column - 1 :].startswith(key)
    lines[line - 1] = row[: column - 1] + typo + row[column - 1 + len(key) :]
    found = problems_in("".join(lines), Path("tank.yaml"))
    wheres = {p.where: p for p in found}
    where = f"tank.yaml:{line}:{column} {written((*path[:-1], typo))}"
    if key == "driver":  # without it, no key of the device can be judged
        assert [w.endswith(f" {written(path)}") for w in wheres] == [True]
        return
    assert where in wheres
    assert wheres[where].what == "unknown key"
    assert not any(FOREIGN.search(str(p)) for p in found)


SCALARS = sorted(
    (p for p in _BASE.values if p and not isinstance(_BASE.at(p), (dict, list))), key=str
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SCALARS),
    st.sampled_from(
        ["~", "true", "-1", "0", "1e300", ".nan", ".inf", "''", "x y", "3 kg", "1 K", "[]", "{}",
         "[1, 2]", "{a: 1}", "99999999999999999999", "NO", "'\\'", "é", "1 s + 2", "1 __class__"]
    ),
)  # fmt: skip
def test_no_value_breaks_the_reading(file: Path, path: KeyPath, junk: str) -> None:
    line, column = _BASE.values[path]
    lines = BASE.splitlines(keepends=True)
    row = lines[line - 1]
    end = re.match(r'"[^"]*"|[^,}\]\n]*', row[column - 1 :])
    assert end is not None
    lines[line - 1] = row[: column - 1] + junk + row[column - 1 + end.end() :]
    try:
        parse("".join(lines), file)
    except SettingsError as error:
        for problem in error.problems:
            assert re.match(rf"{re.escape(str(file))}:\d+:\d+ \S", problem.where)
            assert problem.mend
            assert not FOREIGN.search(str(problem))
