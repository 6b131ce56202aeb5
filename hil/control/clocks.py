"""Clocks of a control process: in lock-step over a pipe, or the wall clock made faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any, Literal, NamedTuple

from controller.signal import NS_PER_S

_SLICE_S = 0.05
"""A sleep is cut into slices, so that an order to stop is heard soon."""


class SleepRequest(NamedTuple):
    """The control process has nothing to do before this time, ns."""

    until_ns: int


class TimeAnswer(NamedTuple):
    """The time now, by how much the wall clock is off (both ns), and whether to stop."""

    now_ns: int
    offset_ns: int
    stop: bool


class PipeClock:
    """A clock that stands still while the controller thinks; the other end runs the world.

    Attributes:
        on_stop: called when the run is over.
        on_sleep: called before time goes on, to wait for what others would have done by then.
    """

    def __init__(self, connection: Connection, start_ns: int, offset_ns: int) -> None:
        self._connection = connection
        self._now_ns = start_ns
        self.offset_ns = offset_ns
        self._stopped = False
        self.lateness_ms = 0.0
        self.on_stop: Callable[[], None] = _nothing
        self.on_sleep: Callable[[], None] = _nothing

    def time_ns(self) -> int:
        return self._now_ns + self.offset_ns

    def monotonic_ns(self) -> int:
        return self._now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        if self._stopped:
            return
        # Asked for even where no time is to pass: the other end has then heard of this cycle
        # before the next one writes.
        self.on_sleep()
        self._connection.send(SleepRequest(monotonic_ns))
        answer: TimeAnswer = self._connection.recv()
        self._now_ns, self.offset_ns, self._stopped = answer
        self.lateness_ms = (self._now_ns - monotonic_ns) / 1e6
        if self._stopped:
            self.on_stop()


_FIELDS = ("origin_ns", "offset_ns", "stop")
Field = Literal["origin_ns", "offset_ns", "stop"]


class SharedTime:
    """What both processes of a realtime run know of its time; no lock, for one may be killed.

    Scenario time is `start_ns` plus `speed` times what the machine's monotonic clock has gone on
    since the origin.
    """

    def __init__(self, start_ns: int, speed: float) -> None:
        self._words: Any = RawArray("q", len(_FIELDS))
        self._start_ns = start_ns
        self.speed = speed

    def get(self, field: Field) -> int:
        return int(self._words[_FIELDS.index(field)])

    def set(self, field: Field, value: int) -> None:
        self._words[_FIELDS.index(field)] = value

    def now_ns(self) -> int:
        elapsed_ns = time.monotonic_ns() - self.get("origin_ns")
        return self._start_ns + int(elapsed_ns * self.speed)

    def seconds_until(self, time_ns: int) -> float:
        """Real seconds until a scenario time; negative when it has passed."""
        return (time_ns - self.now_ns()) / self.speed / NS_PER_S


class ScaledClock:
    """The wall clock, `speed` times as fast; a sleep ends when the run is to stop."""

    def __init__(self, shared: SharedTime) -> None:
        self._shared = shared
        self._stopped = False
        self.lateness_ms = 0.0
        self.on_stop: Callable[[], None] = _nothing

    @property
    def offset_ns(self) -> int:
        return self._shared.get("offset_ns")

    def time_ns(self) -> int:
        return self._shared.now_ns() + self.offset_ns

    def monotonic_ns(self) -> int:
        return self._shared.now_ns()

    def sleep_until(self, monotonic_ns: int) -> None:
        """Lateness is told in ms of real time, for it is the machine's."""
        while not self._stopped:
            if self._shared.get("stop"):
                self._stopped = True
                self.on_stop()
                return
            left_s = self._shared.seconds_until(monotonic_ns)
            if left_s <= 0.0:
                break
            time.sleep(min(left_s, _SLICE_S))
        self.lateness_ms = max(0.0, -1e3 * self._shared.seconds_until(monotonic_ns))


def _nothing() -> None:
    """Nobody is to be told."""
