"""A serial line without hardware: two pseudo-terminals joined by socat, a slave at the far end."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import serial
from modbus_tk import defines, hooks
from modbus_tk.modbus_rtu import RtuServer

BAUDRATE = 19200
UNIT = 1
LONG_S = 20.0  # far longer than anything here needs, so it only ends a hanging test
_READ = "modbus_rtu.RtuServer.after_read"
_WRITE = "modbus_rtu.RtuServer.before_write"


class SerialLine:
    """Two joined pseudo-terminals, `near` and `far`, as long as the context lasts.

    Raises:
        AssertionError: socat is not installed, or made no terminals.
    """

    def __init__(self, directory: Path) -> None:
        self.near, self.far = directory / "near", directory / "far"

    def __enter__(self) -> Self:
        socat = shutil.which("socat")
        assert socat, "the program socat is missing: install the Debian package socat"
        ends = [f"pty,rawer,link={end}" for end in (self.near, self.far)]
        self._socat = subprocess.Popen([socat, *ends])
        until_s = time.monotonic() + LONG_S
        while not (self.near.exists() and self.far.exists()):
            assert self._socat.poll() is None, "socat ended without making the terminals"
            assert time.monotonic() < until_s, "socat made no terminals"
            time.sleep(0.005)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socat.terminate()
        self._socat.wait(LONG_S)


class RtuSlave:
    """A modbus_tk slave at the far end of a line: unit 1, holding registers 0–99.

    Attributes:
        near: the other end of the line, for the master.
        answer: may change what the slave sends; gets the response and returns the one to send.
            No bytes mean silence.
        asked: function, address and count of every request.
    """

    def __init__(self, line: SerialLine) -> None:
        self.near = line.near
        self.asked: list[tuple[int, int, int]] = []
        self.answer: Callable[[bytes], bytes] = lambda response: response
        self._port = serial.Serial(str(line.far), baudrate=BAUDRATE, parity="N")
        # A loaded machine pauses inside a frame for longer than the 3.5 characters of the book.
        self._server = RtuServer(self._port, interframe_multiplier=20)
        self._slave = self._server.add_slave(UNIT)
        self._slave.add_block("holding", defines.HOLDING_REGISTERS, 0, 100)

    def __enter__(self) -> Self:
        hooks.install_hook(_READ, self._after_read)
        hooks.install_hook(_WRITE, self._before_write)
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
        hooks.uninstall_hook(_WRITE, self._before_write)
        hooks.uninstall_hook(_READ, self._after_read)

    def set(self, address: int, *words: int) -> None:
        self._slave.set_values("holding", address, list(words))

    def get(self, address: int, count: int) -> tuple[int, ...]:
        return tuple(self._slave.get_values("holding", address, count))

    def send(self, frame: bytes) -> None:
        """An answer at a time of our own choosing."""
        self._port.write(frame)
        self._port.flush()

    def send_late(self, frame: bytes) -> None:
        """An answer that nobody waits for any more; returns when it lies at the master's end."""
        self.send(frame)
        near = os.open(self.near, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            until_s = time.monotonic() + LONG_S
            while waiting(near) < len(frame):
                assert time.monotonic() < until_s, "socat does not pass it on"
                time.sleep(0.005)
        finally:
            os.close(near)

    def _after_read(self, arguments: tuple[RtuServer, bytes]) -> None:
        self.asked.append(struct.unpack_from(">xBHH", arguments[1]))

    def _before_write(self, arguments: tuple[RtuServer, bytes]) -> bytes:
        return self.answer(arguments[1])


def waiting(terminal: int) -> int:
    """Bytes that have arrived at a terminal and were not read."""
    (count,) = struct.unpack("i", fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)))
    return count
