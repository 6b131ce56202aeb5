"""Runs the world around a control process: starts it, serves its clock, starts it again."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from controller.errors import ScenarioError
from controller.signal import NS_PER_S, CommandKind
from hil.control.clocks import SharedTime, SleepRequest, TimeAnswer
from hil.control.host import ControlHost
from hil.control.mail import PatientMail
from hil.control.process import Ended, Lockstep, Ready, control_process
from hil.control.side import Account, Assignment, Tell
from hil.interrupts import interrupts_held
from hil.world import World

_BUILD_S = 180.0
"""A control process compiles for some seconds at most; a minute on a loaded machine."""
_CYCLE_S = 60.0
"""No cycle takes that long, not even with every rung of the ladder failing."""
_LEAVE_S = 20.0


class Supervisor:
    """Keeps one control process for a run, through everything that is done to it.

    Args:
        tell: hears the account of every cycle, when its record has been journalled.
        started: called before each control process begins.
        mail: of the world; delivered here while somebody keeps the event log locked.
        scratch: folder for the temporary files of the control process.
        end_ns: when the run is over, in scenario time.

    Attributes:
        starts: of the control process.
        unready: starts that never came to a first cycle.
        endings: when and how it ended, but for the regular end with the run.
    """

    def __init__(
        self,
        world: World,
        host: ControlHost,
        assignment: Assignment,
        tell: Tell,
        started: Callable[[], None],
        mail: PatientMail,
        scratch: Path,
        end_ns: int,
    ) -> None:
        self._world = world
        self._host = host
        self._assignment = assignment
        self._tell = tell
        self._started = started
        self._mail = mail
        self._scratch = scratch
        self._end_ns = end_ns
        self._context = mp.get_context("spawn")
        self._connection: Connection | None = None
        self._process: SpawnProcess | None = None
        self._ready = False
        self.starts = 0
        self.unready = 0
        self.endings: list[str] = []

    # --- lock-step ---------------------------------------------------------------------------

    def run_lockstep(self) -> None:
        """The world goes on while the control process sleeps, or is dead, or stands still.

        Raises:
            ScenarioError: it ended without a fault that explains it, or does not answer.
        """
        while self._world.time_ns < self._end_ns:
            self._start(Lockstep(self._world.time_ns, self._host.offset_ns))
            self._expect_ready(_BUILD_S)
            self._begin()
            self._serve_clock()
            self._wait_until_undisturbed()

    def _serve_clock(self) -> None:
        """Until the control process is gone, or the run is over."""
        while True:
            message = self._receive(_CYCLE_S)
            match message:
                case Account():
                    self._tell(message)
                case SleepRequest():
                    self._world.run_until(min(message.until_ns, self._end_ns))
                    while self._host.paused and self._world.time_ns < self._end_ns:
                        self._scan()
                    if self._world.time_ns >= self._end_ns:
                        self._wake()
                    if self._host.down or not self._alive():
                        self._over(Ended("it was killed", True))
                        return
                    now_ns = self._world.time_ns
                    answer = TimeAnswer(now_ns, self._host.offset_ns, now_ns >= self._end_ns)
                    self._send(answer)
                case Ended():
                    self._over(message)
                    return
                case _:
                    self._over(Ended("it was killed", True))
                    return

    def _wake(self) -> None:
        """A pause does not outlast the run: only a process that goes on can hand back."""
        if self._host.paused:
            self._host.end("pause")

    def _wait_until_undisturbed(self) -> None:
        while self._host.disturbed and self._world.time_ns < self._end_ns:
            self._scan()

    def _scan(self) -> None:
        scan_ns = round(self._world.scenario.scan_s * NS_PER_S)
        self._world.run_until(min(self._world.time_ns + scan_ns, self._end_ns))

    # --- real time ---------------------------------------------------------------------------

    def run_realtime(self, shared: SharedTime) -> None:
        """The world goes on by the wall clock, whatever the control process does.

        Raises:
            ScenarioError: as `run_lockstep`.
        """
        self._start(shared)
        self._expect_ready(_BUILD_S)
        shared.set("origin_ns", time.monotonic_ns())
        self._begin()
        while (now_ns := shared.now_ns()) < self._end_ns:
            shared.set("offset_ns", self._host.offset_ns)
            self._world.run_until(now_ns)
            self._mail.deliver()
            if self._process is None and not self._host.disturbed:
                self._start(shared)
            self._hear(shared)
        shared.set("stop", 1)
        self._wake()
        self._leave(shared)

    def _hear(self, shared: SharedTime) -> None:
        """What the control process says until the next scan."""
        if self._process is None or (self._host.paused and self._alive()):
            # Whoever was stopped in the middle of a message ends it later.
            self._pause(shared)
            return
        connection = self._connected()
        while connection.poll(max(0.0, shared.seconds_until(self._next_scan_ns()))):
            message = self._receive(0.0)
            match message:
                case Account():
                    self._tell(message)
                case Ready():
                    self._begin()
                case Ended():
                    self._over(message)
                    return
                case _:
                    self._over(Ended("it was killed", True))
                    return

    def _pause(self, shared: SharedTime) -> None:
        time.sleep(max(0.0, shared.seconds_until(self._next_scan_ns())))

    def _next_scan_ns(self) -> int:
        return self._world.time_ns + round(self._world.scenario.scan_s * NS_PER_S)

    def _leave(self, shared: SharedTime) -> None:
        """The run is over: let the control process hand back, with the PLC still running."""
        if self._process is not None and not self._ready:
            self._break_off(self._process)
        give_up_s = time.monotonic() + _LEAVE_S
        while self._process is not None and time.monotonic() < give_up_s:
            self._world.run_until(shared.now_ns())
            self._hear(shared)
        if self._process is not None:
            self._over(Ended("it did not end when it was told to", False))

    def _break_off(self, process: SpawnProcess) -> None:
        """It was started too late for a first cycle: there is nothing that it could hand back."""
        self._end_with("it was still being started when the run ended")
        process.terminate()
        self._collect()

    # --- the process -------------------------------------------------------------------------

    def _start(self, clock: Lockstep | SharedTime) -> None:
        mode = self._mode_wanted() if self.starts else ""
        assignment = replace(self._assignment, mode=mode)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=control_process,
            args=(theirs, assignment, clock, self._scratch),
            name="loopwright-control",
        )
        self._started()
        with interrupts_held():
            process.start()
        theirs.close()
        self._connection, self._process = ours, process
        self._host.attach(process)
        self._ready = False
        self.starts += 1

    def _begin(self) -> None:
        self._ready = True
        self._send("begin")

    def _mode_wanted(self) -> str:
        """A service that is started again asks for the mode that was wanted last."""
        elapsed_s = self._world.elapsed_s
        modes = [
            command.text
            for command in self._world.scenario.commands
            if command.kind is CommandKind.MODE and command.at_s <= elapsed_s
        ]
        return modes[-1] if modes else ""

    def _expect_ready(self, patience_s: float) -> None:
        message = self._receive(patience_s)
        if isinstance(message, Ready):
            return
        said = message.error if isinstance(message, Ended) else "it was killed"
        self._collect()
        raise ScenarioError(
            f"the control process did not start: {said}",
            where=str(self._world.scenario.path),
            mend="Run loopwright check on the application",
        )

    def _receive(self, patience_s: float) -> Any:
        """The next message; None when the process has gone without a word.

        Raises:
            ScenarioError: nothing comes within `patience_s` of real time.
        """
        connection = self._connected()
        try:
            if not connection.poll(patience_s):
                self._host.close()
                raise ScenarioError(
                    f"the control process has said nothing for {patience_s:g} s",
                    where=str(self._world.scenario.path),
                    mend="Look at the last cycles of its journal",
                )
            return connection.recv()
        except (EOFError, OSError):
            return None  # perhaps in the middle of a message

    def _send(self, message: object) -> None:
        try:
            self._connected().send(message)
        except (BrokenPipeError, ConnectionResetError):
            return  # it has gone; the next receive says so

    def _connected(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("there is no control process to talk to")
        return self._connection

    def _over(self, ended: Ended) -> None:
        """The process has ended, or is about to."""
        self._collect()
        over = self._world.time_ns >= self._end_ns
        if ended.error == "" and over:
            return
        how = ended.error or "it ended by itself"
        self._end_with(how)
        if not (self._host.excused and ended.foreseen):
            raise ScenarioError(
                f"the control process ended in the middle of the run: {how}",
                where=str(self._world.scenario.path),
                mend="No fault of the scenario explains this: look at its journal and mend it",
            )

    def _end_with(self, how: str) -> None:
        self.endings.append(f"{self._world.elapsed_s:g} s: {how}")
        self.unready += not self._ready

    def _alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def _collect(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.join(0.0 if self._host.paused else _LEAVE_S)
            if process.is_alive():
                process.kill()
                process.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
