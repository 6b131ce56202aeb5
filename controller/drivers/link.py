"""What a protocol has to offer so that a connection can read and write blocks with it."""

from __future__ import annotations

from typing import Protocol

from controller.drivers.block_plan import Limits, Request
from controller.errors import DeviceRefused


class AddressRefused(DeviceRefused):
    """The device has no such address, or not this much of it; parts of the block may be fine."""


class Link(Protocol):
    """One protocol's way to perform one request. Used by a single thread, except `abort`.

    Every method but `abort` and `close` raises DeviceError, and nothing else, when it fails.
    """

    def connect(self) -> Limits:
        """Open the connection; what it negotiated limits the requests."""
        ...

    def read(self, request: Request) -> bytes:
        """Exactly `request.size` bytes. Raises AddressRefused when asking again is pointless."""
        ...

    def write(self, request: Request, data: bytes) -> None: ...

    def abort(self) -> None:
        """From another thread: make a request under way fail soon."""
        ...

    def close(self) -> None:
        """Drop the socket; harmless when there is none."""
        ...
