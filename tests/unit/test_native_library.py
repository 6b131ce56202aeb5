"""Compiling, caching and trying the solver library: what is wrong with it is told, never run."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from controller import toolchain
from controller.errors import ModelError
from controller.mpc.native.generate import generate
from controller.mpc.native.library import load
from controller.mpc.problem import Horizon
from controller.mpc.stage import Stage, make_stage
from controller.toolchain import PROBE, NoCompilerError, cache_folder, compiled, key
from tests.unit import small_application as small
from tests.unit.implicit_problems import drained_tank, jacketed, swinging


@lru_cache(maxsize=4)
def tanks(intervals: int) -> Stage:
    horizon = Horizon(30.0, intervals, small.CYCLE_S)
    return make_stage(small.augmented(), small.MVS, small.CVS, horizon)


# The smallest library that passes its trial: it refuses everything.
REFUSING = """
#include <stddef.h>
size_t rti_argument_size(void) { return 4; }
size_t rti_iterate_size(void) { return 3; }
size_t rti_result_size(void) { return 2; }
static double scratch[8];
void *rti_create(void) { return scratch; }
void rti_destroy(void *self) {}
int rti_solve(void *self, const double *argument, const double *guess, int budget,
              const double *tolerance, double *iterate, double *result) {
    /* here */
    return 3;
}
"""


def another_version(_: str) -> str:
    return "another compiler"


def library(instead: str = "") -> dict[str, str]:
    return {"rti.c": REFUSING.replace("/* here */", instead), "stage.c": "int stage;"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOPWRIGHT_CACHE", str(tmp_path))
    return tmp_path


def test_a_library_is_compiled_once(cache: Path) -> None:
    kept = cache_folder() / f"{key(library())}.so"
    assert not kept.exists()
    path = compiled(library(), PROBE)
    made = path.stat().st_mtime_ns
    assert kept.exists()
    assert compiled(library(), PROBE) == path
    assert path.stat().st_mtime_ns == made
    assert [file.name for file in cache.iterdir()] == [path.name]


def test_the_key_tells_sources_flags_and_compilers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    files = library()
    keys = {key(files), key(library("(void)budget;")), key({**files, "sizes.h": ""})}
    swapped = {"rti.c": files["stage.c"], "stage.c": files["rti.c"]}
    keys.add(key(swapped))
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "COMMON", (*toolchain.COMMON, "-g"))
        keys.add(key(files))
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "OPTIMIZE", {"stage.c": "-O2"})
        keys.add(key(files))
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "_version", another_version)
        keys.add(key(files))
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "_processor", lambda: "a lesser processor")
        keys.add(key(files))
    assert len(keys) == 8
    assert key(dict(reversed(files.items()))) == key(files)


def test_different_problems_have_different_libraries() -> None:
    keys = {key(generate(stage).files) for stage in (tanks(4), tanks(5), jacketed())}
    assert len(keys) == 3
    assert key(generate(tanks(4)).files) in keys


def test_without_a_compiler_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NoCompilerError, match="no C compiler"):
        compiled(library(), PROBE)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NoCompilerError, match="no C compiler"):
        compiled(library(), PROBE)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("*(volatile int *)0 = 1;", r"failed its trial \(exit code -11\)"),
        ("__builtin_trap();", r"failed its trial \(exit code -\d+\)"),
        ("iterate[4] = 1.0;", r"trial 0: verdict 3, or wrote outside"),
        ("result[-1] = 1.0;", r"trial 0: verdict 3, or wrote outside"),
        ("return 17;", r"trial 0: verdict 17"),
        ("this is no C;", r"does not compile: rti.c:"),
    ],
)
def test_a_library_that_misbehaves_is_never_loaded(cache: Path, fault: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        compiled(library(fault), PROBE)
    assert list(cache.iterdir()) == []


def test_a_library_that_hangs_is_never_loaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "PROBE_SECONDS", 2)
    with pytest.raises(ModelError, match="did not return within 2 s"):
        compiled(library("for (volatile int i = 0;; i++) {}"), PROBE)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(60)])
def test_a_corrupted_library_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.so"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.so is no library of ours"):
        load(path, tanks(4))


def test_a_library_of_another_problem_is_refused_by_name(cache: Path) -> None:
    path = compiled(library(), PROBE)
    with pytest.raises(ModelError, match=rf"{path.name} was compiled for another problem.*\[4, 3"):
        load(path, tanks(4))


@pytest.mark.parametrize("made", [lambda: tanks(4), swinging, drained_tank])
def test_no_number_makes_it_touch_foreign_memory(made: object, tmp_path: Path) -> None:
    """The trial again, with every access checked by AddressSanitizer and UBSan."""
    try:
        cc = toolchain.compiler()
    except NoCompilerError:
        pytest.skip("there is no C compiler on this machine")
    found = subprocess.run(
        [cc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip(f"{cc} has no AddressSanitizer")
    for name, text in generate(made()).files.items():  # type: ignore[operator]
        (tmp_path / name).write_text(text, encoding="utf-8")
    sources = ["rti.c", "stage.c"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        [cc, "-w", "-O1", "-fPIC", "-shared", *checks, "-o", "checked.so", *sources, "-lm"],
        cwd=tmp_path,
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-m", PROBE, str(tmp_path / "checked.so")],
        env={**os.environ, "LD_PRELOAD": found, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
