"""Host faults at awkward moments: no cycle, no message and no process is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from controller import service
from controller.errors import JournalError
from controller.historian.database import database_errors
from controller.historian.events import EventStore
from controller.historian.journal import open_journal
from controller.settings import Settings, load
from controller.signal import Command, CommandKind, QualityResult
from hil.bundle import BundleIndex, history_hash, open_bundle, reproduced, write_bundle
from hil.control.host import ControlHost
from hil.control.mail import PatientMail
from hil.runner import VERDICT_FILE, run_scenario
from hil.scenario import load_scenario

CONFIG = Path(__file__).parents[2] / "config"


def _host(kind: str, begin: str, end: str) -> dict[str, Any]:
    return {"at": begin, "until": end, "target": "controller", "type": kind}


def test_a_kill_at_the_start_leaves_the_one_cycle_that_was_made(tmp_path: Path) -> None:
    changes = {"duration": "1 min", "faults": [_host("kill", "0 s", "1 min")], "commands": []}
    scenario = load_scenario(CONFIG / "scenarios" / "lost-controller.yaml", changes)
    run = run_scenario(scenario, tmp_path / "run")
    assert run.verdict.kpis["replayed_cycles"] == 1
    assert run.verdict.kpis["replay_identical"] == 1
    assert run.verdict.kpis["control_starts"] == 1


def test_a_restart_that_comes_too_late_ends_with_the_run(tmp_path: Path) -> None:
    changes = {"duration": "60 s", "clock.speed": 20, "faults": [_host("kill", "25 s", "57 s")]}
    scenario = load_scenario(CONFIG / "scenarios" / "realtime.yaml", changes)
    run = run_scenario(scenario, tmp_path / "run", check_replay=False)
    kpis = run.verdict.kpis
    assert (kpis["control_starts"], kpis["control_unready"]) == (2, 1)
    verdict = json.loads((run.directory / VERDICT_FILE).read_text(encoding="utf-8"))
    killed, late = verdict["control_endings"]
    assert killed.endswith("it was killed")
    assert late.endswith("it was still being started when the run ended")
    assert not list(run.directory.glob("scratch-*"))


def test_who_is_stopped_cannot_be_started() -> None:
    host = ControlHost()
    host.begin("kill", {})
    host.begin("pause", {})
    host.end("kill")
    assert host.disturbed
    host.end("pause")
    assert not host.disturbed


FILL_THE_DISK_AT_THE_START = """
import resource, sys
from controller.errors import JournalError
from controller.historian.journal import open_journal

def start():
    return open_journal(sys.argv[1], start_ns=1, settings_text="", settings_path="a.yaml")

for room in range(0, 200_000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        start().close()
    except JournalError as error:
        print(error)
    else:
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with start() as journal:
    print(journal.segment.segment)
"""


def test_a_disk_that_is_full_at_the_start_is_told_and_nothing_is_half_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK_AT_THE_START, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    *complaints, segment = done.stdout.splitlines()
    assert "control.lock: the lock file cannot be written" in complaints[0]
    assert any("events.db" in line for line in complaints)
    # One start succeeded with room to spare; the failed ones before it left no segment.
    assert segment == "2"


def test_mail_waits_for_a_log_that_a_stopped_process_keeps_locked(tmp_path: Path) -> None:
    with EventStore(tmp_path, busy_timeout_s=0.01) as store:
        mail = PatientMail(store)
        stopped = apsw.Connection(str(store.path))
        stopped.execute("BEGIN IMMEDIATE")
        mail.add_quality_result(QualityResult("L-1", "lab", 1, 2, {"xG": 0.08}))
        mail.add_command(Command("C-1", CommandKind.REARM, 3))
        mail.deliver()
        stopped.execute("ROLLBACK")
        mail.deliver()
        mail.deliver()
        rows = stopped.execute("SELECT message_id FROM event ORDER BY id").fetchall()
        assert [row[0] for row in rows] == ["L-1", "C-1"]
        stopped.close()


def test_mail_does_not_wait_for_a_fault_that_will_not_pass(tmp_path: Path) -> None:
    class Full(EventStore):
        def add_command(self, command: Command) -> int:
            with database_errors(self.path):
                raise apsw.FullError("database or disk is full")

    with Full(tmp_path) as store, pytest.raises(JournalError, match="the disk is full"):
        PatientMail(store).add_command(Command("C-1", CommandKind.REARM, 3))


def test_a_bundle_of_the_wall_clock_is_no_proof(tmp_path: Path) -> None:
    changes = {"duration": "50 s", "profiles": [], "commands": []}
    short = load_scenario(CONFIG / "scenarios" / "cstr-setpoint.yaml", changes)
    run = run_scenario(short, tmp_path / "run", tier="virtual", check_replay=False)
    scenario = load_scenario(CONFIG / "scenarios" / "realtime.yaml")
    packed = write_bundle(tmp_path / "x.loopwright.zip", scenario, run.directory, [])
    with open_bundle(packed) as bundle:
        assert reproduced(bundle, run.directory).outcome == "passed"
        other = msgspec.structs.replace(bundle.index, history_hash="00")
        assert isinstance(other, BundleIndex)
        check = reproduced(type(bundle)(bundle.scenario, bundle.run, other), run.directory)
    assert (check.outcome, check.severity) == ("untested", "warn")
    assert "no two runs are the same" in check.detail
    assert history_hash(run.directory) != "00"


STOPPED_UNDER_A_HARNESS = """
import multiprocessing, os, signal, sys
from pathlib import Path
from controller.settings import load
from hil.control.process import Lockstep, Ready, control_process
from hil.control.side import Assignment

if __name__ == "__main__":
    config, folder = Path(sys.argv[1]), Path(sys.argv[2])
    settings = load(config)
    assignment = Assignment(folder, settings.text, settings.path, {}, {}, 1)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, assignment, Lockstep(10**18, 0), folder)
    process = context.Process(target=control_process, args=arguments)
    process.start()
    assert isinstance(ours.recv(), Ready)
    os.kill(process.pid, signal.SIGSTOP)
    print(process.pid, flush=True)
    ours.recv()
"""


def test_a_stopped_controller_dies_with_its_harness(tmp_path: Path) -> None:
    script = tmp_path / "harness.py"
    script.write_text(STOPPED_UNDER_A_HARNESS, encoding="utf-8")
    harness = subprocess.Popen(
        [sys.executable, str(script), str(CONFIG / "cstr" / "cstr.yaml"), str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert harness.stdout is not None
    pid = 0
    try:
        (tmp_path / "data").mkdir()
        pid = int(harness.stdout.readline())
    finally:
        harness.send_signal(signal.SIGKILL)
        harness.communicate(timeout=30)
    gone = _gone(pid)
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone


def _gone(pid: int) -> bool:
    """Whether a process has ended within 10 s; a zombie that nobody collects has."""
    give_up = time.monotonic() + 10.0
    while time.monotonic() < give_up:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except OSError:
            return True
        if state.split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


class _Dead:
    def is_alive(self) -> bool:
        return False


class _NeverTold:
    """An order to stop that does not come."""

    def __init__(self) -> None:
        self.asked = 0

    def wait(self, _timeout: float) -> bool:
        self.asked += 1
        if self.asked > 3:
            raise AssertionError("the optimizer goes on without its controller")
        return False


def test_the_optimizer_does_not_outlive_a_killed_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Settings = load(CONFIG / "cstr" / "cstr.yaml")
    text = settings.text
    open_journal(tmp_path, start_ns=1, settings_text=text, settings_path=settings.path).close()
    told: Any = _NeverTold()
    interrupt = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(service, "build_advice", lambda _settings: object())  # pyright: ignore
    monkeypatch.setattr(service.mp, "parent_process", _Dead)
    try:
        service.slow_layer(str(settings.path), str(tmp_path), told)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert told.asked == 1
