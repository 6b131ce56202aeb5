"""A loaded machine: the processor time that the controller has to share."""

from __future__ import annotations

import multiprocessing as mp
import time
from pathlib import Path

import pytest

from hil.control.host import ControlHost


def _load() -> list[int]:
    return [
        process.pid
        for process in mp.active_children()
        if process.name.startswith("load-") and process.pid is not None
    ]


def _burnt_ticks(pid: int) -> int:
    """Processor time of a process so far, user and system, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("ends_with", ["its fault", "the run"])
def test_a_load_burns_processor_time_until_it_ends(ends_with: str) -> None:
    host = ControlHost()
    host.begin("cpu_load", {"workers": 1.0})
    (pid,) = _load()
    give_up_s, before = time.monotonic() + 20.0, _burnt_ticks(pid)
    while _burnt_ticks(pid) < before + 100:  # a second, more than it takes to start
        assert time.monotonic() < give_up_s, "it does not burn anything"
        time.sleep(0.02)
    if ends_with == "its fault":
        host.end("cpu_load")
    else:
        host.close()
    assert _load() == []
    assert not Path(f"/proc/{pid}").exists()
