"""The examples for CI servers: valid YAML whose commands this version really understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli import _parser  # pyright: ignore[reportPrivateUsage]
from hil.pytest_plugin import pytest_addoption

FOLDER = Path(__file__).parents[2] / "config" / "ci"
EXAMPLES = ("github-actions.yml", "gitlab-ci.yml")


def scripts(node: Any) -> Iterator[str]:
    """Every shell script of a pipeline: `run` on GitHub, the entries of `script` on GitLab."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "run":
                yield value
            elif key in ("script", "before_script"):
                yield from value
            else:
                yield from scripts(value)
    elif isinstance(node, list):
        for entry in node:
            yield from scripts(entry)


def commands(name: str, program: str) -> list[list[str]]:
    """Arguments of each call of a program, with variables that CI sets filled in."""
    found: list[list[str]] = []
    for script in scripts(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))):
        for line in script.replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"\$\w+", "7", line.removesuffix("|| true")))
            if words and words[0] == program:
                found.append(words[1:])
    return found


def options(words: list[str]) -> Mapping[str, Any]:
    return vars(_parser().parse_args(words))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_is_understood(name: str) -> None:
    calls = commands(name, "loopwright")
    parsed = [options(words) for words in calls]
    assert len(parsed) >= 6
    assert {words[0] for words in calls} == {"check", "hil"}
    assert {words[1] for words in calls if words[0] == "hil"} == {"run", "swarm", "compare"}


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(SystemExit):
        options(["hil", "run", "plant/scenarios", "--tiers", "wire"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_the_commands_write_is_kept(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    smoke = next(words for words in commands(name, "loopwright") if "--junit" in words)
    parsed = options(smoke)
    assert parsed["tag"] == "smoke"
    assert str(parsed["junit"]) == "out/junit.xml"
    assert str(parsed["html"]) == "out/html"
    assert re.search(r"path(s: \[|: )out\b", text)
    if name.startswith("gitlab"):
        assert "junit: out/junit.xml" in text


@pytest.mark.parametrize("name", EXAMPLES)
def test_both_sides_of_the_comparison_run_the_same(name: str) -> None:
    parsed = [options(words) for words in commands(name, "loopwright") if "--seed" in words]
    before, after = (one for one in parsed if one["action"] == "run")
    for key in ("tag", "tier", "seed"):
        assert before[key] == after[key]
    (compared,) = (options(words) for words in commands(name, "loopwright") if "compare" in words)
    assert (compared["a"], compared["b"]) == (before["out"], after["out"])


class Recorder:
    """Stands in for pytest's parser: the options that the plugin declares."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def getgroup(self, *_: str) -> Recorder:
        return self

    def addoption(self, name: str, **_: object) -> None:
        self.names.add(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_pytest_is_called_with_options_of_the_plugin(name: str) -> None:
    known = Recorder()
    pytest_addoption(known)  # type: ignore[arg-type]
    (words,) = commands(name, "pytest")
    used = {word for word in words if word.startswith("--hil")}
    assert used
    assert used <= known.names
    assert words[0] == "plant"
