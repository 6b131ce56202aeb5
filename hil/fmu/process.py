"""The process that holds an FMU: every request has a deadline, and it ends with its plant."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import weakref
from importlib.util import find_spec
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import TypeVar

import msgspec

from controller.errors import PlantError, ScenarioError
from hil.fmu.messages import Done, Failure, Interface, Quit, Ready, Reply, Request

BOOT_S = 60.0
"""For the interpreter to start on a busy machine, and to read a large model description."""
FAREWELL_S = 1.0
"""For an FMU to close its files when the run is over."""
_GRACE_S = 2.0
_REPLY_MAX = 64 << 20
_WORDS_MAX = 300

_R = TypeVar("_R", bound=Reply)


class FmuProcess:
    """One process with one FMU in it, started at once and ended by `close`."""

    def __init__(self, path: Path, folder: Path, timeout_s: float) -> None:
        """Start it.

        Args:
            path: the FMU, for messages.
            folder: private directory; the FMU was unpacked into `MODEL` in it. What the FMU
                writes on the way lands there too.
            timeout_s: longest time for one request, seconds.

        Raises:
            ScenarioError: FMPy is not installed, or modelDescription.xml is wrong.
        """
        if find_spec("fmpy") is None:
            raise ScenarioError(
                "FMUs need the package fmpy, which is not installed",
                where=str(path),
                mend="Run pip install 'loopwright[fmu]'",
            )
        self._path, self._timeout_s = path, timeout_s
        self._decoder = msgspec.msgpack.Decoder(Reply)
        self._log_file = folder / "log"
        self._connection, theirs = Pipe()
        self._log_file.unlink(missing_ok=True)
        with theirs, self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-u", "-m", "hil.fmu.child"),
                    *(str(theirs.fileno()), str(folder), str(max(timeout_s, BOOT_S) + _GRACE_S)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                cwd=folder,
                # It works elsewhere: what is relative here must be found from there.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
        self.close = weakref.finalize(self, _end, self._process, self._connection)
        try:
            self._hear(Ready, BOOT_S, "to start")
            self.interface = self._hear(Interface, BOOT_S, "to be read")
        except PlantError as error:
            self.close()
            # Nothing runs yet: the file is at fault, not the run.
            raise ScenarioError(error.what, where=error.where, mend=error.mend) from error

    def ask(self, request: Request, reply: type[_R], doing: str) -> _R:
        """The FMU's answer to a request.

        Raises:
            PlantError: it did not answer in time, crashed, or failed; its process has ended.
        """
        try:
            self._connection.send_bytes(msgspec.msgpack.encode(request))
        except OSError as error:
            raise self._crashed(doing) from error
        return self._hear(reply, self._timeout_s, doing)

    def _hear(self, wanted: type[_R], timeout_s: float, doing: str) -> _R:
        try:
            if not self._connection.poll(timeout_s):
                self._kill()
                raise self._error(
                    f"the FMU took longer than {timeout_s:g} s {doing} and was stopped",
                    "Mend what hangs in it, or give a larger timeout_s",
                )
            reply = self._decoder.decode(self._connection.recv_bytes(_REPLY_MAX))
        except (EOFError, OSError) as error:
            raise self._crashed(doing) from error
        except msgspec.DecodeError as error:
            self._kill()
            raise self._error(f"its process answered nonsense when asked {doing}", "") from error
        if isinstance(reply, Failure):
            self._kill()
            raise self._error(reply.what, reply.mend)
        if not isinstance(reply, wanted):
            self._kill()
            raise self._error(f"its process answered out of turn when asked {doing}", "")
        return reply

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _crashed(self, doing: str) -> PlantError:
        self._process.kill()
        code = self._process.wait()
        try:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError:
            how = f"signal {-code}"
        return self._error(f"the FMU crashed ({how}) when asked {doing}", "Mend the model")

    def _error(self, what: str, mend: str) -> PlantError:
        words = self._last_words()
        return PlantError(
            f"{what}; it last said: {words}" if words else what, where=str(self._path), mend=mend
        )

    def _last_words(self) -> str:
        """The last line that the FMU printed, for messages."""
        try:
            with self._log_file.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        spoken = [line.strip() for line in lines if line.strip()]
        return "".join(c for c in spoken[-1] if c.isprintable())[:_WORDS_MAX] if spoken else ""


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """Ask the process to end in order, then see that it has."""
    with contextlib.suppress(OSError, EOFError):
        if process.poll() is None:
            connection.send_bytes(msgspec.msgpack.encode(Quit()))
            if connection.poll(FAREWELL_S):
                msgspec.msgpack.decode(connection.recv_bytes(_REPLY_MAX), type=Done | Failure)
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(FAREWELL_S)
    process.kill()
    process.wait()
