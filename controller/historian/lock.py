"""One control process per data directory: two would write to the same PLC."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from controller.errors import JournalError

LOCK_FILE = "control.lock"


class ControlLock:
    """Holds the data directory until released; the kernel releases it when the process dies."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            JournalError: another living process holds it (the message tells its pid); the
                directory cannot be written, or the disk is full.
        """
        path = directory / LOCK_FILE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(
                f"the lock file cannot be opened ({error.strerror})",
                where=str(path),
                mend="Choose a data directory that this user may write",
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise JournalError(
                f"another control process (pid {holder or 'unknown'}) runs on this data directory",
                where=str(directory),
                mend="Stop it first, or give this one a data directory of its own",
            ) from error
        # The file stays when the lock goes: removing it would let two processes lock two files.
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise JournalError(
                f"the lock file cannot be written ({error.strerror})",
                where=str(path),
                mend="Free some space on this disk",
            ) from error

    def release(self) -> None:
        """Let another process in; releasing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
