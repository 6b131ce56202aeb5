"""Which code runs: the installed version with a digest of the sources, equal on every worker."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import controller
import hil
import plant_models


@cache
def code_version() -> str:
    """`0.1.0+1f2e3d4c5b6a`: a change of one line anywhere gives another one."""
    total = hashlib.sha256()
    for package in (controller, hil, plant_models):
        top = Path(str(package.__file__)).parent
        for path in sorted(top.rglob("*.py")):
            total.update(path.relative_to(top.parent).as_posix().encode())
            total.update(path.read_bytes())
    return f"{version('loopwright')}+{total.hexdigest()[:12]}"
