"""The examples for CI servers: every script line is run, in order, as the server would run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli import (
    _parser,  # pyright: ignore[reportPrivateUsage]
    main,
)
from controller.settings.yaml_core import read

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "ci"
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
            words = shlex.split(re.sub(r"\$\w+", "7", line.split("||")[0]))
            if words and words[0] == program:
                found.append(words[1:])
    return found


def options(words: list[str]) -> Mapping[str, Any]:
    return vars(_parser().parse_args(words))


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


# --- run as a CI server runs them ------------------------------------------------------------

SHORTER = {
    "--cycles 20000 ": "--cycles 60 ",
    "--cycles 200000": "--cycles 60",
    "--seed 1-12": "--seed 1",
    "-n 2": "-n 0",
}
"""All that is changed in the scripts, to save the time; the plant beside them is short as well."""

ASK = """\
#!{python}
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({place!r})
    line.sendall(json.dumps([os.path.basename(sys.argv[0]), os.getcwd(), *sys.argv[1:]]).encode())
    line.shutdown(socket.SHUT_WR)
    sys.exit(int(line.recv(16)))
"""


class Server:
    """Runs scripts in bash. What they call is run here: it is imported and built already.

    A swarm or tests that both examples have are run for the first of them only; pip installs
    nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.installed: list[str] = []
        self.codes: dict[tuple[str, ...], int] = {}
        self._line = socket.socket(socket.AF_UNIX)
        place = str(folder / "line")
        self._line.bind(place)
        self._line.listen()
        self._line.settimeout(0.05)
        for program in ("loopwright", "pytest", "pip"):
            ask = self.bin / program
            ask.write_text(ASK.format(python=sys.executable, place=place))
            ask.chmod(0o755)

    def close(self) -> None:
        self._line.close()

    def run(self, script: str, where: Path, **variables: str) -> int:
        """The exit code of a script, as of the shells of GitHub and GitLab."""
        for long, short in SHORTER.items():
            script = script.replace(long, short)
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
            cwd=where,
            env={**os.environ, "CI": "true", "LOOPWRIGHT": "loopwright", **variables, "PATH": path},
            stdin=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 90.0
            while shell.poll() is None:
                assert time.monotonic() < end, script
                self._answer()
        finally:
            shell.kill()
            shell.wait()
        return shell.returncode

    def _answer(self) -> None:
        try:
            caller, _ = self._line.accept()
        except TimeoutError:
            return
        with caller:
            caller.settimeout(5.0)
            program, where, *words = json.loads(b"".join(iter(lambda: caller.recv(65536), b"")))
            caller.sendall(str(self._called(program, Path(where), words)).encode())

    def _called(self, program: str, where: Path, words: list[str]) -> int:
        if program == "pip":
            self.installed += [word for word in words[1:] if not word.startswith("-")]
            return 0 if words[0] == "install" else 2
        call = _pytest if program == "pytest" else _loopwright
        if program != "pytest" and words[:2] != ["hil", "swarm"]:
            return call(where, words)  # Later lines read what it leaves.
        key = (program, *words)
        if key not in self.codes:
            self.codes[key] = call(where, words)
        return self.codes[key]


def _loopwright(where: Path, words: list[str]) -> int:
    before = Path.cwd()
    os.chdir(where)
    try:
        return main(words)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        os.chdir(before)


def _pytest(where: Path, words: list[str]) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(ROOT)
    known = [] if _plugin_installed() else ["-p", "hil.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", *known, *words]
    return subprocess.run(command, cwd=where, env=environment, check=False, timeout=80).returncode


def _plugin_installed() -> bool:
    return "hil.pytest_plugin" in {point.value for point in entry_points(group="pytest11")}


@pytest.fixture(scope="module", name="server")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def plant(folder: Path) -> Path:
    """What the examples expect in a repository: the reactor, and one scenario of a minute."""
    config = ROOT / "config"
    (folder / "plant" / "scenarios").mkdir(parents=True)
    shutil.copy(config / "cstr" / "cstr.yaml", folder / "plant" / "reactor.yaml")
    source = config / "scenarios" / "cstr-setpoint.yaml"
    data: dict[str, Any] = read(source, source.read_text(encoding="utf-8")).data
    data |= {
        "id": "reactor",
        "application": "../reactor.yaml",
        "duration": "60 s",
        "commands": data["commands"][:1],
        "profiles": [],
        "judge_from": 0,
        "assertions": [{"kpi": "unsafe_writes", "high": 0}],
    }
    text = yaml.safe_dump(data, sort_keys=False)
    (folder / "plant" / "scenarios" / "reactor.hil.yaml").write_text(text, encoding="utf-8")
    return folder


def _loaded(name: str) -> dict[str, Any]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert all(long in text for long in SHORTER)
    return yaml.safe_load(text)


@pytest.mark.slow
@pytest.mark.parametrize("event", ["pull_request", "schedule"])
def test_every_step_on_github_succeeds(server: Server, tmp_path: Path, event: str) -> None:
    flow = _loaded("github-actions.yml")
    files = {f"GITHUB_{name}": str(tmp_path / name) for name in ("ENV", "OUTPUT", "PATH")}
    for file in files.values():
        Path(file).touch()
    for name, job in flow["jobs"].items():
        if event not in job.get("if", event):
            continue
        here = tmp_path / name
        here.mkdir()
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout"):
                plant(here / step.get("with", {}).get("path", "."))
            condition = step.get("if", "")
            scheduled = "== 'schedule'" in condition
            other = "schedule" in condition and scheduled != (event == "schedule")
            if "run" in step and not other:
                variables = {**flow["env"], **files, "GITHUB_RUN_NUMBER": "7"}
                assert server.run(step["run"], here, **variables) == 0, step["run"]
    assert {"loopwright", "pytest", "pytest-xdist"} <= set(server.installed)


def _git(where: Path, *words: str) -> None:
    options = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *options, *words], cwd=where, check=True, capture_output=True)


@pytest.mark.slow
def test_every_job_on_gitlab_succeeds(server: Server, tmp_path: Path) -> None:
    pipeline = _loaded("gitlab-ci.yml")
    here = plant(tmp_path / "branch")
    for words in (["init"], ["add", "."], ["commit", "-m", "plant"]):
        _git(here, *words)
    _git(here, "remote", "add", "origin", str(here))
    variables = {
        "CI_PROJECT_DIR": str(here),
        "CI_PIPELINE_IID": "7",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    }
    jobs = {name: job for name, job in pipeline.items() if "script" in job}
    assert len(jobs) == 6
    for job in jobs.values():
        lines = [*pipeline["default"]["before_script"], *job["script"]]
        assert server.run("\n".join(lines), here, **variables) == 0, lines
    assert {"loopwright", "pytest", "pytest-xdist"} <= set(server.installed)


def test_what_is_wrong_in_a_script_would_be_noticed(server: Server, tmp_path: Path) -> None:
    plant(tmp_path)
    for wrong in (
        "loopwright hil run plant/scenarios --tiers wire",
        "loopwright hil run plant/scenario --tier wire",
        "loopwright hil run plant/scenarios --tag smok || test $? -eq 1",
        "pip instal x",
        "nothing-of-this-name",
    ):
        assert server.run(f"{wrong}\ntrue", tmp_path) != 0, wrong
