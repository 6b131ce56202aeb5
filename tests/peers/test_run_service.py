"""`loopwright run` as the operating system sees it: signals, sudden death, restart, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from controller.cli import main
from controller.historian.events import verify_chain
from controller.historian.reader import open_reader
from tests.peers.awl_plc import AwlPlc, Frame, LoopSettings

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
APPLICATION = Path(__file__).parent / "awl" / "reactor.yaml"
LONG_S = 40.0  # far longer than any step needs on a loaded machine; it only ends a hanging test
SCAN_S = 0.1
WATCHDOG_SCANS = 12  # three cycles of 0.4 s
# What differs from the application in lock-step: it runs in real time, and fast.
FAST = {
    "cycle: 10 s": "cycle: 0.4 s",
    "timeout: 2 s": "timeout: 350 ms",
    "rate: 6 K/min": "rate: 120 K/min",
    "tau: 60": "tau: 1.5",
    "step: 10 s": "step: 0.4 s",
    "hold_cycles: 3": "hold_cycles: 20",
}
STEP = 0.8 + 1e-3  # 120 K/min over a cycle of 0.4 s
START = 80.0
UNDER_WAY = 83.0  # four steps from the start and far from the setpoint: a bump would show
# Two frames may fall between two scans of a thread that had to wait for its turn.
NO_BUMP = 2 * STEP


class RealTimePlc:
    """The AWL program, scanned by a thread every 0.1 s, as a PLC does by itself."""

    def __init__(self) -> None:
        self.plc = AwlPlc(LoopSettings(watchdog=WATCHDOG_SCANS))
        self.in_use: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._scan)

    @contextmanager
    def running(self) -> Generator[RealTimePlc]:
        with self.plc:
            self.plc.scan()
            self._thread.start()
            try:
                yield self
            finally:
                self._stop.set()
                self._thread.join(LONG_S)

    def _scan(self) -> None:
        while not self._stop.wait(SCAN_S):
            self.plc.scan()
            self.in_use.append(self.plc.setpoint_in_use)


@pytest.fixture(name="running")
def _running() -> Iterator[RealTimePlc]:
    with RealTimePlc().running() as plc:
        yield plc


def write_config(directory: Path, port: int) -> Path:
    text = APPLICATION.read_text(encoding="utf-8")
    for old, new in {**FAST, "port: 1102": f"port: {port}"}.items():
        assert old in text
        text = text.replace(old, new)
    config = directory / "reactor.yaml"
    config.write_text(text, encoding="utf-8")
    return config


class Command:
    """One `loopwright` process; its output goes to files, so that it never waits for a reader."""

    def __init__(self, directory: Path, *words: str | Path) -> None:
        self._out, self._err = directory / "stdout.txt", directory / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controller.cli", *map(str, words)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LONG_S)

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def exit_code(self) -> int:
        return self.process.wait(LONG_S)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for it while the process lives; fails with what the process said."""
        until(what, lambda: self.process.poll() is not None or condition())
        assert self.process.poll() is None, f"ended before {what}:\n{self.stderr}"


def until(what: str, condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain: {what}"
        time.sleep(0.02)


def active(plc: AwlPlc, above: float) -> Callable[[], bool]:
    return lambda: plc.remote and plc.setpoint_in_use > above


def test_sudden_death_then_a_new_start_and_an_orderly_end(
    running: RealTimePlc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One story, because every start of the process costs seconds."""
    plc = running.plc
    config, data = write_config(tmp_path, plc.port), tmp_path / "data"
    with Command(tmp_path, "run", config, "--mode", "auto", "--data", data) as run:
        run.until("ACTIVE and under way", active(plc, above=UNDER_WAY))
        first = plc.frame.epoch
        run.process.kill()
        assert run.exit_code() == -signal.SIGKILL
    # Still held by its last frame; then the watchdog ends it, without a bump.
    until("the watchdog trips", lambda: not plc.remote)
    dropped = plc.setpoint_in_use
    assert plc.frame.request == 1  # nobody was left to take it back

    assert main(["replay", str(data), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["passed"]
    assert outcome["cycles"] == outcome["identical"] > 0
    assert plc.setpoint_in_use == dropped

    with Command(tmp_path, "run", config, "--mode", "auto", "--data", data, "--json") as run:
        run.until("a new epoch", lambda: plc.frame.epoch == first % 65535 + 1)
        assert plc.setpoint_in_use == dropped
        run.until("ACTIVE again", active(plc, above=dropped))
        run.process.send_signal(signal.SIGINT)
        assert run.exit_code() == 0, run.stderr
        summary = json.loads(run.stdout)
    assert summary["mode"] == "OFF"
    assert plc.frame.request == 0  # handed back in so many words, before the process ended
    given_back = plc.setpoint_in_use
    until("the PLC has scanned it", lambda: not plc.remote)
    assert plc.setpoint_in_use == pytest.approx(given_back, abs=STEP)

    assert max(abs(b - a) for a, b in pairwise(running.in_use)) <= NO_BUMP
    with open_reader(data) as reader:
        assert [segment.epoch for segment in reader.segments()] == [
            first,
            first % 65535 + 1,
        ]
    assert verify_chain(data) is None


def test_a_dry_run_decides_and_journals_but_writes_nothing(
    running: RealTimePlc, tmp_path: Path
) -> None:
    plc = running.plc
    config, data = write_config(tmp_path, plc.port), tmp_path / "data"
    before = plc.frame
    seen: set[Frame] = set()
    words = ("run", config, "--dry-run", "--mode", "auto", "--cycles", "7", "--data", data)
    with Command(tmp_path, *words, "--json") as run:
        while run.process.poll() is None:
            seen.add(plc.frame)
            time.sleep(0.02)
        assert run.exit_code() == 0, run.stderr
        assert json.loads(run.stdout)["cycles"] == 7
    assert seen == {before} == {Frame(0, 0, 0, 0, 0.0)}
    assert "READY" in run.stderr  # it did want to write
    assert not plc.remote
    assert set(running.in_use) == {START}


def test_a_plc_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config, data = write_config(tmp_path, port), tmp_path / "data"
    with Command(tmp_path, "run", config, "--mode", "auto", "--data", data) as run:
        assert run.exit_code() == 3
        said = "".join(run.stderr.split())
    lines = config.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, start=1) if text.startswith("  reactor:"))
    assert f"{config}:{line}:" in said
    assert "reactor(127.0.0.1:" in said
    assert "Connectionrefused" in said
    assert "Traceback" not in said
    assert not data.exists()  # not even a start is journalled


def test_a_plc_without_our_block_is_told_by_its_tags(
    running: RealTimePlc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data = write_config(tmp_path, running.plc.port), tmp_path / "data"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("DB20.DBD32", "DB99.DBD32"), encoding="utf-8")
    assert main(["run", str(config), "--mode", "auto", "--data", str(data)]) == 3
    said = capsys.readouterr().err
    line = next(n for n, t in enumerate(text.splitlines(), start=1) if t.startswith("  PV:"))
    assert f"{config}:{line}:" in "".join(said.split())
    assert "does not have the tags PV" in " ".join(said.split())
    assert "Traceback" not in said
    assert running.plc.frame == Frame(0, 0, 0, 0, 0.0)
    assert not data.exists()
