"""The control side in a process of its own, which may be killed, stopped or starved."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import controller.blas  # noqa: F401  # pyright: ignore[reportUnusedImport]  (before numpy)
from controller.app import open_devices
from controller.errors import LoopwrightError
from controller.historian.journal import SqliteJournal
from controller.loop import Loop
from controller.settings import parse
from hil.control.clocks import PipeClock, ScaledClock, SharedTime
from hil.control.side import Account, Assignment, control
from hil.interrupts import end_with_parent


class Ready(NamedTuple):
    """Everything is built and the journal is open; the loop begins when it is told to."""

    segment: int


class Ended(NamedTuple):
    """The loop is over; `error` is empty where it ended as it should."""

    error: str
    foreseen: bool


class Lockstep(NamedTuple):
    """The clock of the process is run by the other end of the pipe."""

    start_ns: int
    offset_ns: int


def control_process(
    connection: Connection, assignment: Assignment, time: Lockstep | SharedTime, scratch: Path
) -> None:
    """Body of the process: controls until told to stop; says how it ended.

    Args:
        scratch: folder for temporary files; who is killed cannot clear up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the harness; it will tell us.
    signal.signal(signal.SIGTERM, _leave)
    end_with_parent()
    os.environ["TMPDIR"] = str(scratch)
    tempfile.tempdir = None  # looked up anew
    try:
        _run(connection, assignment, time)
    except LoopwrightError as error:
        _say(connection, Ended(f"{type(error).__name__}: {error}", True))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the harness has gone
    except Exception:
        _say(connection, Ended(traceback.format_exc(), False))
        raise
    else:
        _say(connection, Ended("", True))


def _run(connection: Connection, assignment: Assignment, time: Lockstep | SharedTime) -> None:
    overrides = {**assignment.overrides, **assignment.addresses}
    settings = parse(assignment.settings_text, assignment.settings_path, overrides)
    clock = (
        ScaledClock(time)
        if isinstance(time, SharedTime)
        else PipeClock(connection, time.start_ns, time.offset_ns)
    )
    devices = open_devices(settings, clock, assignment.seed)

    def started(loop: Loop, journal: SqliteJournal) -> None:
        clock.on_stop = loop.stop
        if isinstance(clock, PipeClock):
            clock.on_sleep = journal.settle
        connection.send(Ready(journal.epoch))
        connection.recv()  # the word to begin

    def tell(account: Account) -> None:
        connection.send(account)

    try:
        control(assignment, settings, devices, clock, tell, started=started)
    finally:
        for device in devices:
            device.close()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit()  # by way of every `finally`


def _say(connection: Connection, ended: Ended) -> None:
    try:
        connection.send(ended)
    except OSError:
        return  # the harness has gone
