"""The mutation test itself: which faults it makes, and that tests which bite kill them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "mutation.py"

SOURCE = '''
"""Limits a value."""

import enum


class Mode(enum.StrEnum):
    OFF = "off"
    ON = "on"


def limited(value: float, low: float, high: float = 1.0) -> float:
    """A docstring is no code."""
    if low <= value < high and value:
        return min(value, high)
    return low


def counted(values: list[float], mode: Mode) -> int:
    count = 0
    for value in values:
        if value == 0.0:
            continue
        count += 1
    match mode:
        case Mode.ON if count:
            return count
        case _:
            return -1
'''


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import mutation_operators

    return mutation_operators


def faults(operators: ModuleType, before: str) -> set[str]:
    return {m.after for m in operators.mutants(SOURCE, "limits.py", {}) if m.before == before}


def test_a_condition_gets_every_fault(operators: ModuleType) -> None:
    assert faults(operators, "if low <= value < high and value:") == {
        "if True:", "if False:", "if not (low <= value < high and value):",
        "if low <= value < high or value:", "if value:", "if low <= value < high:",
        "if low < value < high and value:", "if low == value < high and value:",
        "if value < high and value:", "if low <= value <= high and value:",
        "if low <= value != high and value:",
        "if high <= value < high and value:", "if low <= value < low and value:",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "some"),
    [
        ("return min(value, high)", {"return None", "return max(value, high)", "return value",
                                     "return high", "return min(value, low)"}),
        ("if value == 0.0:", {"if value <= 0.0:", "if value >= 0.0:", "if value == 1.0:",
                              "if True:", "if False:"}),
        ("continue", {"break", "pass"}),
        ("count += 1", {"count -= 1", "count += 1 =", "count += 2", "count += 0", "pass"}),
        ("for value in values:", {"pass", "for value in values:  # one pass"}),
        ("case Mode.ON if count:", {"no such case", "case Mode.OFF if count:",
                                    "case Mode.ON if True:", "case Mode.ON if False:"}),
        ("return -1", {"return 1", "return -2", "return -0"}),
        ("def limited(value: float, low: float, high: float=1.0) -> float:",
         {"def limited(value: float, low: float, high: float=2.0) -> float:"}),
    ],
)  # fmt: skip
def test_faults(operators: ModuleType, before: str, some: set[str]) -> None:
    assert some <= faults(operators, before)


def test_every_mutant_is_told_apart_and_none_is_the_original(operators: ModuleType) -> None:
    found = operators.mutants(SOURCE, "limits.py", {})
    assert len({m.key for m in found}) == len(found)
    original = compile(SOURCE, "limits.py", "exec")
    assert all(m.code != original and m.before != m.after for m in found)
    assert not any("docstring" in m.before or "import" in m.before for m in found)


TESTS = """
from limited_plant.limits import over

def test_limits() -> None:
    assert over(1.5) and not over(1.0)
"""
# Forks belong into a process without threads, which a test runner's worker is not.
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tools!r})
import mutation
mutation.ROOT, mutation.CPU_LIMIT_S = Path.cwd(), 2
mutation.TARGETS = {{"limits": mutation.Target("limited_plant.limits", ("test_limits.py",))}}
mutation.preload()
{before}
excuses = {{tuple(key): reason for key, reason in {excuses!r}}}
outcomes = {{"limits": mutation.examine("limits", excuses, 2)}}
print(json.dumps(mutation.document(outcomes) | {{"report": mutation.markdown(outcomes)}}))
"""
Excuses = list[tuple[tuple[str, str, str], str]]


def run(
    directory: Path, body: str, excuses: Excuses | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """The tool on a package of its own, with one function and one test."""
    package = directory / "limited_plant"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "limits.py").write_text(f"def over(value: float) -> bool:\n{body}")
    (directory / "test_limits.py").write_text(TESTS)
    script = SCRIPT.format(tools=str(TOOL.parent), excuses=excuses or [], before=before)
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(directory), str(ROOT)))},
        capture_output=True,
        text=True,
        check=False,
    )


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_mutants_are_killed_excused_or_named(tmp_path: Path) -> None:
    body = "    return value > 1.0\n"
    found = result(run(tmp_path, body))["modules"]["limits"]
    # The test knows the limit and one value above it, so this fault is out of its sight.
    assert [m["mutant"] for m in found["survived"]] == ["return value != 1.0"]
    assert found["killed"] == found["mutants"] - 1 > 4
    assert found["timed_out"] == 0

    excuse = (("over", "return value > 1.0", "return value != 1.0"), "nothing is below 1 here")
    killed = (("over", "return value > 1.0", "return None"), "this one is killed")
    after = result(run(tmp_path, body, [excuse, killed]))
    assert not after["passed"]
    assert after["modules"]["limits"]["survived"] == []
    assert after["modules"]["limits"]["equivalent"] == 1
    assert "+ return value != 1.0" in after["report"]
    assert "nothing is below 1 here" in after["report"]
    assert [m["mutant"] for m in after["modules"]["limits"]["stale"]] == ["return None"]


@pytest.mark.slow
def test_an_endless_loop_is_ended_by_the_limit_on_processor_time(tmp_path: Path) -> None:
    loop = "def over(value):\n    while value:\n        pass\n"
    endless = f"""
code = compile({loop!r}, "limits.py", "exec")
mutant = mutation.Mutant("over", "", "", 1, code)
mutation.mutants = lambda *_: [mutant]
"""
    found = result(run(tmp_path, "    return value > 1.0\n", before=endless))
    assert found["passed"]
    assert found["modules"]["limits"]["timed_out"] == found["modules"]["limits"]["killed"] == 1


@pytest.mark.slow
def test_tests_that_fail_without_a_fault_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "    return value > 9.0\n")
    assert done.returncode
    assert "the tests of limits fail without a mutant" in done.stderr


def test_every_excuse_gives_a_reason() -> None:
    excuses = yaml.safe_load((TOOL.parent / "mutation_equivalents.yaml").read_text())
    assert set(excuses) == {"guard", "mode", "validate"}
    for entries in excuses.values():
        for entry in entries or ():
            assert set(entry) == {"scope", "statement", "mutants", "reason"}
            assert len(entry["reason"].split()) > 5


@pytest.mark.slow
def test_the_tests_of_the_guard_reach_every_line_and_branch() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--coverage"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "guard.py" in done.stdout
