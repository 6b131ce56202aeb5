"""How the processes of the harness end: at Ctrl-C, when they are told to, and with their parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""How a verb ends after Ctrl-C, as shells tell of it: 128 and the number of the signal."""

_PR_SET_PDEATHSIG = 1


@contextmanager
def interrupts_held() -> Generator[None]:
    """Processes that are started inside never hear Ctrl-C: who starts them ends them.

    Ctrl-C at a terminal goes to every process in it, but only one of them should answer. What is
    pressed meanwhile is not lost; it arrives when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_in_order() -> None:
    """SIGTERM, as of a CI server at its time limit, ends every process of a run as Ctrl-C does."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def end_with_parent() -> None:
    """The kernel kills this process when the thread that started it is gone, however that ended.

    Only the kernel can end a process that is stopped, or waits for work that will never come.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        sys.exit()  # it was gone before the kernel had been asked
