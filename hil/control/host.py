"""What can happen to the control process and its machine: killed, stopped, starved, misdated."""

from __future__ import annotations

import multiprocessing as mp
import os
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.context import SpawnProcess

from controller.signal import NS_PER_S
from hil.interrupts import interrupts_held


class ControlHost:
    """Raises and ends host faults on the control process.

    kill ends it without warning (SIGKILL) and keeps it down until the fault ends. pause stops it
    (SIGSTOP), as a swapping or suspended machine does. disk_full lets every write to a file fail
    (RLIMIT_FSIZE, so it needs no privilege and no disk is filled). clock_step moves its wall clock,
    not its monotonic one. cpu_load runs busy processes beside it.

    Attributes:
        down: it is to stay dead.
        paused: it is stopped.
        excused: something has been done to it that explains its end.
        offset_ns: of its wall clock.
    """

    def __init__(self) -> None:
        self.process: SpawnProcess | None = None
        self.down = False
        self.paused = False
        self.disk_full = False
        self.excused = False
        self.offset_ns = 0
        self._steps: list[int] = []
        self._load: list[SpawnProcess] = []

    @property
    def disturbed(self) -> bool:
        """Whether it could not be started now."""
        return self.down or self.paused or self.disk_full

    def attach(self, process: SpawnProcess) -> None:
        """A new control process, under the faults that are in force."""
        self.process = process
        self.excused = self.disk_full
        if self.disk_full:
            self._limit_files(0)

    def begin(self, fault: str, args: Mapping[str, float]) -> None:
        if fault == "kill":
            self.down = self.excused = True
            if self.process is not None:
                self.process.kill()
        elif fault == "pause":
            self.paused = True
            self._signal(signal.SIGSTOP)
        elif fault == "disk_full":
            self.disk_full = self.excused = True
            self._limit_files(0)
        elif fault == "clock_step":
            self._steps.append(round(args["step_s"] * NS_PER_S))
            self.offset_ns += self._steps[-1]
        elif fault == "cpu_load":
            self._burn(round(args.get("workers", os.cpu_count() or 1)))

    def end(self, fault: str) -> None:
        if fault == "kill":
            self.down = False
        elif fault == "pause":
            self.paused = False
            self._signal(signal.SIGCONT)
        elif fault == "disk_full":
            self.disk_full = False
            self._limit_files(resource.RLIM_INFINITY)
        elif fault == "clock_step":
            self.offset_ns -= self._steps.pop(0)
        elif fault == "cpu_load":
            self._rest()

    def close(self) -> None:
        """End whatever is still in force, and the control process."""
        self._rest()
        if self.process is not None and self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def _limit_files(self, size: int) -> None:
        """Files can no longer grow, not even be written to; pipes and sockets can."""
        if self.process is not None and self.process.pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
                soft = hard if size == resource.RLIM_INFINITY else size
                resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def _burn(self, workers: int) -> None:
        context = mp.get_context("spawn")
        for number in range(workers):
            process = context.Process(target=_busy, name=f"load-{number}", daemon=True)
            with interrupts_held():
                process.start()
            self._load.append(process)

    def _rest(self) -> None:
        for process in self._load:
            process.kill()
            process.join()
        self._load.clear()


def _busy() -> None:
    harness = mp.parent_process()
    while harness is None or harness.is_alive():
        pass  # Nobody would end it if the harness were killed.
