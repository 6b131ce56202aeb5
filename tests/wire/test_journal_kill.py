"""Sudden death: what the journal has acknowledged is there after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cycle.record import decode_snapshot
from controller.historian.events import EventStore, verify_chain
from controller.historian.journal import open_journal
from controller.historian.reader import open_reader
from controller.historian.samples import delivered_ids
from controller.signal import Command, CommandKind

APPEND_EVENTS = """
import sys
from controller.errors import JournalError
from controller.historian.events import EventStore
from controller.signal import Command, CommandKind
directory, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = EventStore(directory)
try:
    for number in range(count):
        print(store.add_command(Command(f"{name}-{number}", CommandKind.REARM, number)), flush=True)
except JournalError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""

FILL_THE_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
"""

RUN_CYCLES = """
import sys, time
from controller.historian.journal import open_journal
from controller.historian.writer import LossBound
from controller.signal import Sample, Snapshot, Status
bound = LossBound(seconds=0.2, rows=20, capacity=40)
journal = open_journal(
    sys.argv[1], start_ns=1, settings_text="", settings_path="a.yaml", loss_bound=bound
)
for cycle in range(100_000):
    samples = {f"T{i}": Sample(float(i), Status.GOOD, cycle, cycle) for i in range(20)}
    journal.append_snapshot(Snapshot(cycle, cycle, samples))
    journal.append_record(cycle, cycle, bytes(3000))
    print(cycle, flush=True)
    time.sleep(0.0005)
"""

CONSUME = """
import sys
from controller.historian.journal import open_journal
from controller.signal import Snapshot
journal = open_journal(sys.argv[1], start_ns=1, settings_text="", settings_path="a.yaml")
inbox = journal.inbox()
for cycle in range(100_000):
    # One command a cycle arrives, so that death meets every stage of a delivery.
    waiting = inbox.poll(cycle).commands
    journal.append_snapshot(Snapshot(cycle, cycle, {}, commands=waiting))
    for command in waiting:
        print(command.command_id, flush=True)
"""


@contextmanager
def child(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def kill_after(process: subprocess.Popen[str], lines: int) -> list[str]:
    """Everything the child acknowledged, killed as soon as it acknowledged `lines` times."""
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    return seen + remaining(process)


def remaining(process: subprocess.Popen[str]) -> list[str]:
    """What a killed child had still said; not by communicate, which skips lines read ahead."""
    assert process.stdout is not None
    assert process.stderr is not None
    rest, complaint = process.stdout.read(), process.stderr.read()
    assert process.wait(30) == -signal.SIGKILL, complaint
    return rest.split()


def test_every_acknowledged_event_survives(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for round_number, lines in enumerate([1, 2, 9, 40, 150]):
        with child(APPEND_EVENTS, str(tmp_path), f"R{round_number}", "100000") as process:
            acknowledged += map(int, kill_after(process, lines))
        assert verify_chain(tmp_path) is None
    with EventStore(tmp_path) as store:
        last = store.append(1, "mode", {})
    # At most one event a round was committed and died before it could be acknowledged.
    assert last - 1 <= len(acknowledged) + 5
    assert set(acknowledged) <= set(range(1, last))
    assert verify_chain(tmp_path) is None


def test_two_processes_share_one_chain(tmp_path: Path) -> None:
    with (
        child(APPEND_EVENTS, str(tmp_path), "A", "150") as first,
        child(APPEND_EVENTS, str(tmp_path), "B", "150") as second,
    ):
        outputs = [process.communicate(timeout=60) for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outputs
    ids = [[int(word) for word in out.split()] for out, _ in outputs]
    assert ids[0] == sorted(ids[0])
    assert ids[1] == sorted(ids[1])
    assert sorted(ids[0] + ids[1]) == list(range(1, 301))
    assert verify_chain(tmp_path) is None


def test_a_disk_that_fills_up_keeps_every_acknowledged_event(tmp_path: Path) -> None:
    with child(FILL_THE_DISK + APPEND_EVENTS, str(tmp_path), "A", "100000") as process:
        out, complaint = process.communicate(timeout=60)
        assert process.returncode == 3, complaint
    acknowledged = [int(word) for word in out.split()]
    assert "events.db" in complaint
    assert "disk" in complaint
    assert len(acknowledged) > 5
    assert verify_chain(tmp_path) is None
    with EventStore(tmp_path) as store:
        assert store.append(1, "mode", {}) == acknowledged[-1] + 1


@pytest.mark.parametrize("lines", [1, 57, 400])
def test_the_cycle_log_loses_at_most_its_bound(tmp_path: Path, lines: int) -> None:
    with child(RUN_CYCLES, str(tmp_path)) as process:
        handed_over = [int(word) for word in kill_after(process, lines)]
    with open_reader(tmp_path) as reader:
        rows = list(reader.cycles(1))
    assert [row.cycle for row in rows] == list(range(len(rows)))
    assert handed_over[-1] + 1 - len(rows) <= 40
    assert all(len(decode_snapshot(row.snapshot).samples) == 20 for row in rows)
    # Only the newest one may have been saved between its snapshot and its record.
    assert all(row.record == bytes(3000) for row in rows[:-1])
    with open_journal(tmp_path, start_ns=2, settings_text="", settings_path="a.yaml") as journal:
        assert journal.epoch == 2


@pytest.mark.parametrize("lines", [1, 5, 17])
def test_every_message_is_consumed_once_across_a_death(tmp_path: Path, lines: int) -> None:
    commands = [Command(f"C-{number}", CommandKind.REARM, number) for number in range(40)]
    with child(CONSUME, str(tmp_path)) as process, EventStore(tmp_path) as store:
        for command in commands[:lines]:
            store.add_command(command)
            assert process.stdout is not None
            assert process.stdout.readline().strip() == command.command_id
        for command in commands[lines:]:
            store.add_command(command)
            if command.command_id == f"C-{lines + 10}":
                process.send_signal(signal.SIGKILL)
        consumed = {f"C-{number}" for number in range(lines)} | set(remaining(process))
    kept = {key for kind, key in delivered_ids(tmp_path) if kind == "command"}
    assert consumed <= kept
    with open_reader(tmp_path) as reader:
        decided = [
            command.command_id
            for row in reader.cycles(1)
            for command in decode_snapshot(row.snapshot).commands
        ]
    assert set(decided) == kept
    with open_journal(tmp_path, start_ns=2, settings_text="", settings_path="a.yaml") as journal:
        inbox = journal.inbox()
        again = [command.command_id for command in inbox.poll(1).commands]
        inbox.close()
    assert decided + again == [command.command_id for command in commands]
