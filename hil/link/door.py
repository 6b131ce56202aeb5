"""Where a proxy listens in place of a PLC: open, shut, or behind a cut cable."""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_WAITING_MAX = 16
_PLUG_S = 0.02  # the kernel completes a connection on loopback within the call, or not at all
_PLUGS_MAX = 64


class DoorState(Enum):
    """What becomes of whoever wants to connect."""

    OPEN = "open"  # accepted
    SHUT = "shut"  # refused: bound but not listening, so that nobody else can take the port
    SILENT = "silent"  # never answered: the connection request is dropped, as behind a cut cable


class Door:
    """A listening socket on loopback that can be shut or made silent.

    Nobody answers a connection request while the queue of those who wait to be accepted is full
    (Linux drops it, and the client asks again until it gives up). A silent door is one whose queue
    is as short as possible, and filled by connections of its own.

    Attributes:
        port: the same for ever.
        state: as it was set last.
    """

    def __init__(self, port: int, watch: Callable[[socket.socket, bool], None]) -> None:
        """Open it.

        Args:
            port: to listen on; 0 takes a free one.
            watch: told of the socket when there is somebody to accept, and when no longer.
        """
        self._watch = watch
        self._plugs: list[socket.socket] = []
        self._listener = _bound(port)
        self.port = int(self._listener.getsockname()[1])
        self.state = DoorState.SHUT
        self.set(DoorState.OPEN)

    def set(self, state: DoorState) -> None:
        """Change what becomes of those who come; connections that are open stay."""
        if state is self.state:
            return
        if self.state is DoorState.OPEN:
            self._watch(self._listener, False)
        self.close()
        self._listener, self.state = _bound(self.port), state
        if state is DoorState.OPEN:
            self._listener.listen(_WAITING_MAX)
            self._watch(self._listener, True)
        elif state is DoorState.SILENT:
            self._listener.listen(0)
            self._plug()

    def is_of(self, file: object) -> bool:
        """Whether this is the socket that was watched."""
        return file is self._listener

    def accept(self) -> socket.socket | None:
        """Who came; None when nobody is there any more."""
        try:
            return self._listener.accept()[0]
        except OSError:
            return None

    def close(self) -> None:
        for plug in self._plugs:
            plug.close()
        self._plugs.clear()
        self._listener.close()

    def _plug(self) -> None:
        for _ in range(_PLUGS_MAX):
            plug = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._plugs.append(plug)
            plug.settimeout(_PLUG_S)
            try:
                plug.connect((LOOPBACK, self.port))
            except TimeoutError:
                return
        raise RuntimeError(f"port {self.port} cannot be made silent: this needs Linux")


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.setblocking(False)
    return listener
