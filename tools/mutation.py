"""Mutation test of guard, mode machine and validation: does a test notice each possible slip?

python tools/mutation.py                     all modules; exit 1 if a mutant survives unexplained
python tools/mutation.py --module guard      one module
python tools/mutation.py --json              one JSON document on stdout
python tools/mutation.py --report FILE       the report as Markdown
python tools/mutation.py --coverage          lines and branches of the guard; exit 1 below 100 %

Everything that is not under test is imported once; each mutant then gets a forked process, in which
an import hook serves the faulty module before any test can import names from it. Mutants that no
test can tell from the original are listed, each with its reason, in mutation_equivalents.yaml.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import yaml
from mutation_operators import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.yaml")
# Imported before the forks: libraries and leaves, never a module under test or what imports one.
PRELOADED = ("pytest", "hypothesis", "hypothesis.strategies", "msgspec", "controller.signal")
# Processor seconds that a mutant may take before it counts as an endless loop: processor time,
# because on a busy machine the clock on the wall would call slow mutants endless.
CPU_LIMIT_S = 30
MEMORY_LIMIT = 8 << 30
# Exit statuses of pytest: all passed; one failed; the module under test could not be imported.
SURVIVED, FAILED, NOT_IMPORTED, BROKEN = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Target:
    """A module under test and its tests: quick ones first, for most mutants need no more."""

    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT / Path(*self.module.split(".")).with_suffix(".py")


TARGETS: Mapping[str, Target] = {
    "guard": Target(
        "controller.cycle.guard",
        ("tests/unit/test_guard_rules.py", "tests/property/test_guard_invariants.py"),
    ),
    "mode": Target("controller.cycle.mode", ("tests/unit/test_mode.py",)),
    "validate": Target(
        "controller.cycle.validate",
        ("tests/unit/test_validate.py", "tests/property/test_validate_properties.py"),
    ),
}


@dataclass(slots=True)
class Outcome:
    """What became of the mutants of one module."""

    mutants: int = 0
    killed: int = 0
    timed_out: int = 0
    equivalent: list[tuple[Mutant, str]] = field(default_factory=list)
    survived: list[Mutant] = field(default_factory=list)
    stale: list[tuple[str, str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.survived and not self.stale


class _MutantLoader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class _MutantFinder(MetaPathFinder):
    """Serves the faulty module in place of the one on disk."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, str(path), code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _MutantLoader(fullname, self.path, self.code)
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def preload() -> None:
    """What every forked process needs, imported once."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    for name in PRELOADED:
        importlib.import_module(name)
    loaded = [target.module for target in TARGETS.values() if target.module in sys.modules]
    if loaded:
        raise RuntimeError(f"{loaded} must not be imported before the mutants are made")
    gc.freeze()  # Collections in a forked process would touch, and so copy, all of this.


def run_tests(target: Target, code: CodeType | None) -> int:
    """In a forked process: pytest's exit status of the target's tests against this code."""
    import hypothesis
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    if code is not None:
        sys.meta_path.insert(0, _MutantFinder(target.module, target.path, code))
    # The same examples for every mutant and in every run; a counterexample need not be the nicest.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, phases=phases
    )
    hypothesis.settings.load_profile("mutation")
    os.chdir(ROOT)
    # Plain asserts: nobody reads why a mutant died, and rewriting them is a third of the time.
    options = ["-x", "-q", "--tb=no", "--assert=plain", "--capture=no", "-p", "no:cacheprovider"]
    options += ["-c", os.devnull, f"--rootdir={ROOT}", "-W", "error"]
    for tests in target.tests:
        if status := int(pytest.main([*options, tests])):
            return status
    return SURVIVED


def fork(target: Target, code: CodeType | None) -> int:
    """Start the tests in a process of their own; its process id."""
    process = os.fork()
    if process:
        return process
    status = BROKEN
    try:
        status = run_tests(target, code)
    finally:  # Whatever happens in here, this process must never return into the caller's loop.
        os._exit(status)


def verdicts(
    target: Target, tried: Sequence[Mutant], jobs: int
) -> Iterator[tuple[Mutant, int | None]]:
    """Each mutant with the exit status of its tests, or None when it ran into the time limit."""
    waiting, running = list(reversed(tried)), dict[int, Mutant]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                running[fork(target, mutant.code)] = mutant
            process, status = os.wait()
            mutant = running.pop(process)
            slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (
                signal.SIGXCPU, signal.SIGKILL
            )  # fmt: skip
            yield mutant, None if slow else os.waitstatus_to_exitcode(status)
    finally:
        for process in running:
            os.kill(process, signal.SIGKILL)


def read_equivalents(path: Path = EQUIVALENTS) -> dict[str, dict[tuple[str, str, str], str]]:
    """Per module, the mutants that are known to behave like the original, and why they do."""
    document: dict[str, list[dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        module: {
            (entry["scope"], entry["statement"], mutant): entry["reason"]
            for entry in entries or ()
            for mutant in entry["mutants"]
        }
        for module, entries in document.items()
    }


def examine(name: str, equivalents: Mapping[tuple[str, str, str], str], jobs: int) -> Outcome:
    """Try every mutant of a module.

    Raises RuntimeError if its tests fail without any fault, or if there is no verdict on a mutant.
    """
    target, begun = TARGETS[name], time.monotonic()
    _, status = os.waitpid(fork(target, None), 0)
    if status:
        tests = " ".join(target.tests)
        raise RuntimeError(f"the tests of {name} fail without a mutant: run `pytest {tests}` first")
    found = mutants(target.path.read_text(encoding="utf-8"), str(target.path), _members())
    outcome = Outcome(len(found))
    for mutant, status in verdicts(target, found, jobs):
        if status == SURVIVED and mutant.key in equivalents:
            outcome.equivalent.append((mutant, equivalents[mutant.key]))
        elif status == SURVIVED:
            outcome.survived.append(mutant)
        elif status in (FAILED, NOT_IMPORTED, None):
            outcome.killed += 1
            outcome.timed_out += status is None
        else:
            raise RuntimeError(f"no verdict, pytest ended with {status}: {' | '.join(mutant.key)}")
    outcome.equivalent.sort(key=lambda pair: pair[0].line)
    outcome.survived.sort(key=lambda mutant: mutant.line)
    outcome.stale = sorted(set(equivalents) - {mutant.key for mutant, _ in outcome.equivalent})
    outcome.seconds = time.monotonic() - begun
    return outcome


def _members() -> dict[str, tuple[str, ...]]:
    leaf = importlib.import_module("controller.signal")
    return {name: tuple(getattr(leaf, name).__members__) for name in ("Status", "CommandKind")}


def document(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """The outcome as data."""
    return {
        "passed": all(outcome.passed for outcome in outcomes.values()),
        "modules": {
            name: {
                "mutants": outcome.mutants,
                "killed": outcome.killed,
                "timed_out": outcome.timed_out,
                "equivalent": len(outcome.equivalent),
                "survived": [_entry(mutant) for mutant in outcome.survived],
                "stale": [dict(zip(("scope", "statement", "mutant"), key, strict=True))
                          for key in outcome.stale],
                "seconds": round(outcome.seconds, 1),
            }
            for name, outcome in outcomes.items()
        },
    }  # fmt: skip


def _entry(mutant: Mutant) -> dict[str, object]:
    return {
        "line": mutant.line, "scope": mutant.scope, "statement": mutant.before,
        "mutant": mutant.after,
    }  # fmt: skip


def markdown(outcomes: Mapping[str, Outcome]) -> str:
    """The report: counts per module, and every mutant that is left with the reason why."""
    lines = [
        "# Mutation tests of guard, mode machine and validation",
        "",
        "Written by `python tools/mutation.py --report docs/mutation.md`; how and why is told in",
        "[ADR 11](adr/0011-mutation-testing.md). A mutant is the module with one fault; it is",
        "killed when a test fails. An equivalent mutant does what the original does for every",
        "input that can occur, so no test can fail.",
        "",
        "| Module | Mutants | Killed | of these by time-out | Equivalent | Survived |",
        "|---|---|---|---|---|---|",
    ]
    for name, it in outcomes.items():
        counts = (it.mutants, it.killed, it.timed_out, len(it.equivalent), len(it.survived))
        lines.append(f"| {name} | " + " | ".join(str(count) for count in counts) + " |")
    lines += ["", "The guard's tests reach every line and every branch of it (`--coverage`)."]
    for name, outcome in outcomes.items():
        lines += ["", f"## {name}: equivalent mutants"]
        seen = Counter[tuple[str, str, str]]()
        for mutant, reason in outcome.equivalent:
            head = (mutant.scope, mutant.before, reason)
            if not seen[head]:
                text = f"`{mutant.scope}`: {' '.join(reason.split())}"
                lines += ["", *textwrap.wrap(text, 100), "", "```diff"]
                lines += [f"- {line}" for line in mutant.before.splitlines()]
                same = [m for m, why in outcome.equivalent if (m.scope, m.before, why) == head]
                lines += [f"+ {line}" for m in same for line in m.after.splitlines()]
                lines += ["```"]
            seen[head] += 1
    return "\n".join(lines) + "\n"


def coverage_of_guard() -> int:
    """Print what the guard's quick tests leave out; 1 if that is anything at all."""
    target = TARGETS["guard"]
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"COVERAGE_FILE": str(Path(directory) / "coverage")}
        for command in (
            ["run", "--branch", f"--include={target.path}", "-m", "pytest", "-q", "-p",
             "no:cacheprovider", target.tests[0]],
            ["report", "--show-missing", "--fail-under=100"],
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-m", "coverage", *command],
                cwd=ROOT, env=environment, check=False,
            )  # fmt: skip
            if done.returncode:
                return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation test of guard, mode and validate.")
    parser.add_argument("--module", choices=TARGETS, action="append", help="only this module")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--report", type=Path, help="write the report to this Markdown file")
    parser.add_argument("--coverage", action="store_true", help="coverage of the guard instead")
    arguments = parser.parse_args()
    if arguments.coverage:
        return coverage_of_guard()
    preload()
    known, outcomes = read_equivalents(), dict[str, Outcome]()
    for name in arguments.module or TARGETS:
        it = outcomes[name] = examine(name, known.get(name, {}), arguments.jobs)
        print(
            f"{name:10} {it.mutants:4} mutants, {it.killed} killed ({it.timed_out} by time-out), "
            f"{len(it.equivalent)} equivalent, {len(it.survived)} survived, {it.seconds:.0f} s",
            file=sys.stderr,
        )
        for mutant in it.survived:
            where = f"{TARGETS[name].path.relative_to(ROOT)}:{mutant.line} {mutant.scope}"
            print(f"{where}\n  - {mutant.before}\n  + {mutant.after}", file=sys.stderr)
        for key in it.stale:
            print(f"stale in {EQUIVALENTS.name}: {' | '.join(key)}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(document(outcomes), indent=2))
    if arguments.report:
        arguments.report.write_text(markdown(outcomes), encoding="utf-8")
    return 0 if all(outcome.passed for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
