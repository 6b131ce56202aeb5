"""When to knock again at the door of a device that did not answer."""

from __future__ import annotations

import numpy as np

from controller.ports import Clock
from controller.signal import NS_PER_S

BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0


class Backoff:
    """When to try a dead device again: after 0.1 s at first, 5 s at last, jittered.

    The jitter (between half and all of the delay) keeps many connections that died together
    from coming back together.
    """

    def __init__(self, clock: Clock, rng: np.random.Generator) -> None:
        self._clock = clock
        self._rng = rng
        self._delay_s = BACKOFF_FIRST_S
        self._ready_at_ns: int | None = None

    @property
    def elapsed(self) -> bool:
        return self._ready_at_ns is None or self._clock.monotonic_ns() >= self._ready_at_ns

    def failed(self) -> None:
        wait_s = self._delay_s * self._rng.uniform(0.5, 1.0)
        self._ready_at_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        self._delay_s = min(2.0 * self._delay_s, BACKOFF_LAST_S)

    def succeeded(self) -> None:
        self._delay_s = BACKOFF_FIRST_S
        self._ready_at_ns = None
