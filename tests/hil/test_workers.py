"""Worker processes: one that is killed costs its own job only, and none outlives who started it."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.errors import ProcessLost
from hil.workers import in_turn
from tests.hil.light_work import light

ROOT = Path(__file__).parents[2]


def test_a_process_that_is_killed_costs_its_own_job_only() -> None:
    first, lost, *others = in_turn(light, range(5), 2)
    assert (first, others) == (0, [4, 6, 8])
    assert isinstance(lost, ProcessLost)
    assert lost.exit_code == 3
    assert "fewer --jobs" in lost.mend
    assert not mp.active_children()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_who_started_it(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "tests.hil.light_work", str(tmp_path)]
    starter = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: len(list(tmp_path.iterdir())) == 2)
        starter.send_signal(number)
        starter.wait(30)
    finally:
        starter.kill()
        starter.wait()
    workers = [int(file.name) for file in tmp_path.iterdir()]
    _wait(lambda: not any(map(_alive, workers)))


def _wait(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 30.0
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
