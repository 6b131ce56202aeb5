"""The clock of the machine, behind the Clock port."""

from __future__ import annotations

import time

from controller.signal import NS_PER_S

# A sleep is cut into slices so that a signal handler, which must take no lock, can end it.
SLICE_S = 0.1


class SystemClock:
    """Wall time for stamps, monotonic time for deadlines; a sleep can be cut short."""

    def __init__(self) -> None:
        self._awake = False

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until(self, monotonic_ns: int) -> None:
        while not self._awake and (left_ns := monotonic_ns - time.monotonic_ns()) > 0:
            time.sleep(min(left_ns / NS_PER_S, SLICE_S))

    def wake(self) -> None:
        """End the present sleep and every later one; may be called from a signal handler."""
        self._awake = True
