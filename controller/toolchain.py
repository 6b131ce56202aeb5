"""Compiles generated C once and keeps the library in a cache, by the hash of all that made it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

from controller.errors import ModelError
from controller.mpc.native.generate import generate
from controller.mpc.native.library import RealTimeIteration, load
from controller.mpc.stage import Stage

PROBE = "controller.mpc.native.probe"

# The generated stage functions are long straight lines: optimizing them harder costs minutes and
# gains nothing. The solver's loops gain threefold from -O3. No -ffast-math: NaN must stay NaN.
COMMON = ("-std=c11", "-fPIC", "-march=native", "-fno-math-errno", "-w")
OPTIMIZE: Mapping[str, str] = {"stage.c": "-O1"}
PROBE_SECONDS = 60


class NoCompilerError(ModelError):
    """There is no C compiler on this machine."""


def cache_folder() -> Path:
    """`LOOPWRIGHT_CACHE`, else `loopwright` in the user's cache folder."""
    own = os.environ.get("LOOPWRIGHT_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "loopwright"


def compiled(files: Mapping[str, str], probe: str) -> Path:
    """The shared library made of C files (by name; `.h` are included by the others).

    Compiles when no library of the same content is in the cache; a new one is tried in a process
    of its own, `python -m probe LIBRARY`, before anyone loads it.

    Raises:
        NoCompilerError: there is no C compiler.
        ModelError: it does not compile, or its trial fails.
    """
    path = cache_folder() / f"{key(files)}.so"
    if not path.exists():
        _build(files, path, probe)
    return path


def compiled_rung(stage: Stage, budget: int) -> RealTimeIteration:
    """The compiled real-time iteration of a problem, with at most `budget` SQP iterations.

    Raises:
        NoCompilerError: there is no C compiler.
        ModelError: it does not compile, or its trial fails.
    """
    path = compiled(generate(stage).files, PROBE)
    return RealTimeIteration(load(path, stage), stage, budget)


def key(files: Mapping[str, str]) -> str:
    """Hash of the sources, the compiler and the processor the library is made for.

    Raises:
        NoCompilerError: there is no C compiler.
    """
    digest = blake2b(digest_size=16)
    for part in (_version(compiler()), *COMMON, *sorted(OPTIMIZE.items()), platform.machine()):
        digest.update(repr(part).encode())
    digest.update(_processor().encode())
    for name in sorted(files):
        digest.update(f"{name}\0{files[name]}\0".encode())
    return digest.hexdigest()


def compiler() -> str:
    """The C compiler: `CC`, gcc or cc.

    Raises:
        NoCompilerError: none of them is there.
    """
    for name in (os.environ.get("CC", ""), "gcc", "cc"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NoCompilerError(
        "there is no C compiler (gcc, cc or $CC) on this machine",
        mend="Install gcc for plans that take a tenth of the time.",
    )


def _version(path: str) -> str:
    return subprocess.run(
        [path, "--version"], capture_output=True, text=True, check=False, timeout=PROBE_SECONDS
    ).stdout


def _processor() -> str:
    """What -march=native compiles for: a library must not run on a lesser processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def _build(files: Mapping[str, str], path: Path, probe: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix="building-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        cc, objects = compiler(), [file for file in files if file in ("stage.c", "rti.c")]
        running = [
            subprocess.Popen(
                [cc, *COMMON, OPTIMIZE.get(file, "-O3"), "-c", file],
                cwd=folder,
                stderr=subprocess.PIPE,
                text=True,
            )
            for file in objects
        ]
        errors = [process.communicate()[1] for process in running]
        for process, error in zip(running, errors, strict=True):
            _require(process.returncode, error)
        done = subprocess.run(
            [cc, "-shared", "-o", "new.so", *(f"{Path(file).stem}.o" for file in objects), "-lm"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        _require(done.returncode, done.stderr)
        _try(folder / "new.so", probe)
        # Two processes that build the same library both win: equal names have equal content.
        (folder / "new.so").replace(path)


def _require(code: int, error: str) -> None:
    if code:
        raise ModelError(
            f"the generated C code does not compile: {(error.strip().splitlines() or ['?'])[0]}",
            mend="Report this with the configuration; `mpc: {engine: portable}` runs without it.",
        )


def _try(library: Path, probe: str) -> None:
    """Run the library on hostile numbers in a process of its own; a crash stays there."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", probe, str(library)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the compiled solver did not return within {PROBE_SECONDS} s") from error
    if done.returncode:
        raise ModelError(
            f"the compiled solver failed its trial (exit code {done.returncode}): "
            f"{(done.stderr.strip().splitlines() or ['without a word'])[-1]}",
            mend="Report this with the configuration; `mpc: {engine: portable}` runs without it.",
        )
