"""A solver whose native code crashes takes the process with it: the PLC goes on by itself.

A library is tried in a process of its own before it is used (`controller.toolchain`), so this is
the case that nobody foresaw.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from controller.cli import main
from controller.historian.events import verify_chain
from tests.peers.test_run_service import (
    NO_BUMP,
    ROOT,
    UNDER_WAY,
    Command,
    RealTimePlc,
    active,
    until,
    write_config,
)

pytestmark = pytest.mark.peer


class CrashingCommand(Command):
    """A `loopwright` process whose solver crashes when `trigger` exists."""

    def __init__(self, directory: Path, trigger: Path, *words: str | Path) -> None:
        self._out, self._err = directory / "stdout.txt", directory / "stderr.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.peers.crashing_solver", str(trigger)),
                    *map(str, words),
                ],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
                stdout=out,
                stderr=err,
            )


def test_a_crash_inside_the_solver_leaves_the_loops_to_the_plc_and_a_restart_takes_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RealTimePlc().running() as running:
        plc = running.plc
        config, data = write_config(tmp_path, plc.port), tmp_path / "data"
        trigger, words = tmp_path / "crash", ("--mode", "auto", "--data", data)
        with CrashingCommand(tmp_path, trigger, "run", config, *words) as run:
            run.until("ACTIVE and under way", active(plc, above=UNDER_WAY))
            first = plc.frame
            trigger.touch()
            assert run.exit_code() == -signal.SIGSEGV
        # Nobody was left to hand back: the watchdog does it, without a bump.
        assert plc.frame.request == 1
        until("the watchdog trips", lambda: not plc.remote)
        dropped = plc.setpoint_in_use

        assert main(["replay", str(data), "--json"]) == 0
        outcome = json.loads(capsys.readouterr().out)
        assert outcome["cycles"] == outcome["identical"] > 0
        assert verify_chain(data) is None

        with Command(tmp_path, "run", config, *words) as run:
            run.until("a new epoch", lambda: plc.frame.epoch == first.epoch % 65535 + 1)
            assert plc.setpoint_in_use == dropped
            run.until("ACTIVE again", active(plc, above=dropped))
            run.process.send_signal(signal.SIGINT)
            assert run.exit_code() == 0, run.stderr
        until("handed back", lambda: plc.frame.request == 0)
        assert max(abs(b - a) for a, b in pairwise(running.in_use)) <= NO_BUMP
