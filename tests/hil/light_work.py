"""Work for processes that takes no time, kills its process, or never ends; light to import."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hil.workers import in_turn


def light(job: int) -> int:
    """Twice the number; job 1 kills its process, as the kernel does where memory runs short."""
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job


def endless(folder: str) -> None:
    """Tells its process by a file, and works on."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600.0)


if __name__ == "__main__":
    list(in_turn(endless, [sys.argv[1]] * 2, 2))
