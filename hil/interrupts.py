"""Ctrl-C at a terminal goes to every process in it, but only one of them should answer."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

INTERRUPTED = 130
"""How a verb ends after Ctrl-C, as shells tell of it: 128 and the number of the signal."""


@contextmanager
def interrupts_held() -> Generator[None]:
    """Processes that are started inside never hear Ctrl-C: who starts them ends them.

    What is pressed meanwhile is not lost; it arrives when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
