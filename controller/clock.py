"""The clock of the machine, behind the Clock port."""

from __future__ import annotations

import threading
import time

from controller.signal import NS_PER_S


class SystemClock:
    """Wall time for stamps, monotonic time for deadlines; a sleep can be cut short."""

    def __init__(self) -> None:
        self._wake = threading.Event()

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until(self, monotonic_ns: int) -> None:
        remaining_ns = monotonic_ns - time.monotonic_ns()
        if remaining_ns > 0:
            self._wake.wait(remaining_ns / NS_PER_S)

    def wake(self) -> None:
        """End the present sleep and every later one: the process is about to stop."""
        self._wake.set()
