"""Jobs on several processes, one at a time on each: one that is killed costs its own job only."""

from __future__ import annotations

import multiprocessing as mp
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from controller.errors import ProcessLost
from hil.interrupts import end_in_order, end_with_parent, interrupts_held

_Job = TypeVar("_Job")
_Answer = TypeVar("_Answer")


def in_turn(
    work: Callable[[_Job], _Answer], jobs: Sequence[_Job], processes: int
) -> Generator[_Answer | ProcessLost]:
    """What became of each job, in their order.

    A job whose process is killed is not tried again, for it may have eaten all memory; its answer
    is that it was lost, and the others go on.

    Args:
        work: a function of a module, or a partial one, for every process imports it anew.

    Raises:
        Exception: whatever `work` raises; the processes are ended first.
    """
    waiting = deque(enumerate(jobs))
    idle = [_process() for _ in range(min(processes, len(jobs)))]
    flying: dict[Future[_Answer], tuple[int, ProcessPoolExecutor]] = {}
    landed: dict[int, _Answer | ProcessLost] = {}
    told = 0
    with _ended(idle, flying):
        while told < len(jobs):
            while waiting and idle:
                number, job = waiting.popleft()
                process = idle.pop()
                try:
                    flying[_submitted(process, work, job)] = (number, process)
                except BrokenProcessPool:  # It was killed while it had nothing to do.
                    idle.append(_process())
                    waiting.appendleft((number, job))
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                number, process = flying.pop(future)
                try:
                    landed[number] = future.result()
                except BrokenProcessPool:
                    landed[number] = _lost()
                    process = _process()
                idle.append(process)
            while told in landed:
                yield landed.pop(told)
                told += 1


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=mp.get_context("spawn"), initializer=_begin)


def _submitted(
    process: ProcessPoolExecutor, work: Callable[[_Job], _Answer], job: _Job
) -> Future[_Answer]:
    with interrupts_held():  # The process starts with its first job.
        return process.submit(work, job)


def _begin() -> None:
    end_in_order()
    end_with_parent()


@contextmanager
def _ended(
    idle: Sequence[ProcessPoolExecutor],
    flying: Mapping[Future[Any], tuple[int, ProcessPoolExecutor]],
) -> Generator[None]:
    """No process is left behind; where the work is broken off, none finishes its job first."""
    try:
        yield
    except BaseException:
        for child in mp.active_children():
            child.terminate()
        raise
    finally:
        for process in [*idle, *(process for _, process in flying.values())]:
            process.shutdown(cancel_futures=True)


def _lost() -> ProcessLost:
    return ProcessLost(
        "its process was killed from outside, or crashed",
        mend="Where memory ran short (dmesg tells), run it again with fewer --jobs",
    )
