"""`loopwright` with a solver that dies of a segmentation fault as soon as a file exists."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from controller.cli import main
from controller.mpc.condensed import CondensedQp
from controller.mpc.instance import Instance
from controller.mpc.native.library import RealTimeIteration
from controller.mpc.solvers import Answer, Trajectory


def crash_when(trigger: Path) -> None:
    """Native code that reads where there is no memory, called where the solvers are called."""
    for rung in (CondensedQp, RealTimeIteration):
        sound = rung.__call__

        def crashing(
            self: object, instance: Instance, begin: Trajectory, sound: object = sound
        ) -> Answer:
            if trigger.exists():
                ctypes.string_at(0)
            return sound(self, instance, begin)  # type: ignore[operator]

        rung.__call__ = crashing  # type: ignore[method-assign]


if __name__ == "__main__":
    crash_when(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
