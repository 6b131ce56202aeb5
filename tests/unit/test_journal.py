"""The journal gives back every cycle it took, and says so when it cannot take one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from controller.cycle.record import decode_snapshot
from controller.errors import JournalError
from controller.historian import journal as journal_module
from controller.historian.database import Schema, open_database
from controller.historian.journal import SqliteJournal, open_journal
from controller.historian.reader import CycleRow, open_reader
from controller.historian.samples import SAMPLES_FILE, delivered_ids
from controller.historian.writer import LossBound
from controller.ports import Journal
from controller.signal import (
    Command,
    CommandKind,
    Proposal,
    QualityResult,
    Sample,
    Snapshot,
    Status,
    WriteOutcome,
)

S = 1_000_000_000
# Commits only when asked to, so that a test decides what is on the disk.
LAZY = LossBound(seconds=60.0, rows=1000, capacity=1000)


def start(directory: Path, **changes: Any) -> SqliteJournal:
    header: dict[str, Any] = {
        "start_ns": 1,
        "settings_text": "loopwright: 1\n",
        "settings_path": "plants/reactor.yaml",
        "loss_bound": LAZY,
    }
    return open_journal(directory, **(header | changes))


def snapshot(cycle: int, **changes: Any) -> Snapshot:
    samples = {"TR.PV": Sample(85.0 + cycle, Status.GOOD, cycle * S, cycle * S + 5)}
    return Snapshot(cycle, cycle * S, changes.pop("samples", samples), **changes)


def run_cycles(journal: Journal, cycles: range) -> None:
    for cycle in cycles:
        journal.append_snapshot(snapshot(cycle))
        journal.append_record(cycle, cycle * S, b"record %d" % cycle)


def stored(directory: Path, segment: int = 1, **window: int) -> list[CycleRow]:
    with open_reader(directory) as reader:
        return list(reader.cycles(segment, **window))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    with start(tmp_path) as opened:
        yield opened


def test_a_cycle_comes_back_as_it_was_given(tmp_path: Path) -> None:
    full = snapshot(
        7,
        quality_results=(QualityResult("L-1", "lab", 1, 2, {"xG": 0.08}),),
        commands=(Command("C-1", CommandKind.MODE, 3, text="auto", who="op"),),
        proposals=(Proposal("P-1", 4, {"F_B": 4.4}),),
        writes={"reactor": WriteOutcome.LATE},
        skipped=2,
    )
    with start(tmp_path) as journal:
        journal.append_snapshot(full)
        journal.append_record(7, 7 * S, b"decided")
    (row,) = stored(tmp_path)
    assert (row.cycle, row.time_ns, row.record) == (7, 7 * S, b"decided")
    assert decode_snapshot(row.snapshot) == full
    assert delivered_ids(tmp_path) == {
        ("quality_result", "L-1"),
        ("command", "C-1"),
        ("proposal", "P-1"),
    }


def test_what_happens_to_a_snapshot_afterwards_does_not_change_the_journal(
    tmp_path: Path, journal: SqliteJournal
) -> None:
    samples = {"TR.PV": Sample(85.0, Status.GOOD, 1, 2)}
    journal.append_snapshot(snapshot(1, samples=samples))
    samples["TR.PV"] = Sample(-1.0, Status.BAD, 1, 2)
    journal.flush()
    (row,) = stored(tmp_path)
    assert decode_snapshot(row.snapshot).samples["TR.PV"].value == 85.0


def test_a_record_may_follow_after_its_snapshot_was_saved(
    tmp_path: Path, journal: SqliteJournal
) -> None:
    journal.append_snapshot(snapshot(1))
    journal.flush()
    assert stored(tmp_path)[0].record is None
    journal.append_record(1, S, b"decided")
    journal.flush()
    assert stored(tmp_path)[0].record == b"decided"


def test_every_start_is_a_segment_with_the_next_epoch(tmp_path: Path) -> None:
    with start(
        tmp_path, overrides={"mpc.horizon": 30}, seed=11, initial_state=b"state", start_ns=5
    ) as journal:
        assert journal.epoch == 1
        run_cycles(journal, range(3))
    with start(tmp_path, initial_state=lambda epoch: b"epoch %d" % epoch) as journal:
        assert journal.epoch == 2
        run_cycles(journal, range(2))
    with open_reader(tmp_path) as reader:
        first, second = reader.segments()
    assert (first.segment, first.epoch, first.start_ns, first.seed) == (1, 1, 5, 11)
    assert (first.settings_name, first.settings_text) == ("reactor.yaml", "loopwright: 1\n")
    assert first.overrides == {"mpc.horizon": 30}
    assert set(first.versions) == {"loopwright", "casadi", "numpy", "python", "platform"}
    assert first.initial_state == b"state"
    assert (second.segment, second.epoch, second.initial_state) == (2, 2, b"epoch 2")
    assert [row.cycle for row in stored(tmp_path, 1)] == [0, 1, 2]
    assert [row.cycle for row in stored(tmp_path, 2)] == [0, 1]


def test_the_epoch_starts_again_at_one(tmp_path: Path) -> None:
    start(tmp_path).close()
    connection = apsw.Connection(str(tmp_path / SAMPLES_FILE))
    connection.execute("UPDATE segment SET epoch = 65535")
    connection.close()
    with start(tmp_path) as journal:
        assert journal.epoch == 1
        assert journal.segment.segment == 2


def test_a_second_controller_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with start(tmp_path):
        with pytest.raises(JournalError, match=rf"pid {os.getpid()}\) runs on this") as caught:
            start(tmp_path)
        assert caught.value.exit_code == 3
    with start(tmp_path) as journal:
        assert journal.epoch == 2


def test_a_failed_start_leaves_the_directory_free(tmp_path: Path) -> None:
    (tmp_path / SAMPLES_FILE).write_bytes(b"no database at all, but long enough " * 100)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"samples\.db: this is not a database"):
            start(tmp_path)


def test_a_newer_cycle_log_is_refused(tmp_path: Path) -> None:
    start(tmp_path).close()
    connection = apsw.Connection(str(tmp_path / SAMPLES_FILE))
    connection.execute("PRAGMA user_version=3")
    connection.close()
    with pytest.raises(JournalError, match=r"newer version .schema 3.*Update Loopwright"):
        start(tmp_path)
    with pytest.raises(JournalError, match="newer version"):
        open_reader(tmp_path)


def test_cycles_must_rise_and_records_must_fit(journal: SqliteJournal) -> None:
    journal.append_snapshot(snapshot(5))
    with pytest.raises(JournalError, match="cycle 5 comes after cycle 5"):
        journal.append_snapshot(snapshot(5))
    with pytest.raises(JournalError, match=r"record of cycle 4, but the last .* is of cycle 5"):
        journal.append_record(4, 4 * S, b"")
    journal.append_snapshot(snapshot(9))


def test_a_cycle_is_saved_within_the_bound_without_being_asked(tmp_path: Path) -> None:
    with start(tmp_path, loss_bound=LossBound(seconds=0.05)) as journal:
        run_cycles(journal, range(1))
        until(lambda: len(stored(tmp_path)) == 1)


def test_enough_cycles_are_saved_before_the_time_is_up(tmp_path: Path) -> None:
    with start(tmp_path, loss_bound=LossBound(seconds=60.0, rows=10)) as journal:
        run_cycles(journal, range(1))
        # Time for the writer to fall asleep on the first cycle: the tenth has to wake it.
        threading.Event().wait(0.05)
        run_cycles(journal, range(1, 10))
        until(lambda: len(stored(tmp_path)) == 10)


def test_a_flush_brings_earlier_commits_to_the_disk(tmp_path: Path) -> None:
    with start(tmp_path, loss_bound=LossBound(seconds=60.0, rows=10)) as journal:
        run_cycles(journal, range(10))
        until(lambda: len(stored(tmp_path)) == 10)
        path = tmp_path / SAMPLES_FILE
        before = path.stat().st_size
        journal.flush()
        assert path.stat().st_size > before


def test_a_snapshot_with_a_message_is_saved_at_once(tmp_path: Path, journal: SqliteJournal) -> None:
    run_cycles(journal, range(3))
    assert stored(tmp_path) == []
    journal.append_snapshot(snapshot(3, commands=(Command("C-1", CommandKind.REARM, 1),)))
    assert [row.cycle for row in stored(tmp_path)] == [0, 1, 2, 3]
    assert delivered_ids(tmp_path) == {("command", "C-1")}


def test_a_full_disk_is_reported_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_small(path: Path, schema: Schema, *, synchronous: Any) -> apsw.Connection:
        connection = open_database(path, schema, synchronous=synchronous)
        connection.pragma("max_page_count", 60)
        return connection

    monkeypatch.setattr(journal_module, "open_database", open_small)
    journal = start(tmp_path)
    saved: list[int] = []

    def fill() -> None:
        for cycle in range(1000):
            journal.append_snapshot(snapshot(cycle))
            journal.append_record(cycle, cycle * S, bytes(3000))
            journal.flush()
            saved.append(cycle)

    with pytest.raises(JournalError, match=r"samples\.db: the disk is full .*Free some space"):
        fill()
    assert len(saved) > 10
    with pytest.raises(JournalError, match="the disk is full"):
        journal.append_snapshot(snapshot(2000))
    # Events go to another file: the reason of the shed can still be kept.
    journal.append_event(1, "shed", {"because": "journal"})
    with pytest.raises(JournalError, match="the disk is full"):
        journal.close()
    assert [row.cycle for row in stored(tmp_path)] == saved
    monkeypatch.undo()
    with start(tmp_path) as again:
        assert again.epoch == 2


def test_a_slow_disk_holds_the_caller_back_and_then_is_reported(tmp_path: Path) -> None:
    bound = LossBound(seconds=0.01, rows=2, capacity=4, stall_s=0.2)
    journal = start(tmp_path, loss_bound=bound)
    other = apsw.Connection(str(tmp_path / SAMPLES_FILE))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match=r"the disk has given no answer for 0\.2 s"):
        run_cycles(journal, range(20))
    with pytest.raises(JournalError, match="the disk has given no answer"):
        journal.flush()
    released = threading.Timer(0.1, other.execute, ("ROLLBACK",))
    released.start()
    released.join()
    journal.flush()
    journal.close()
    other.close()
    assert [row.cycle for row in stored(tmp_path)] == [0, 1, 2, 3]


def test_nothing_is_taken_after_the_end(tmp_path: Path) -> None:
    journal = start(tmp_path)
    run_cycles(journal, range(2))
    journal.close()
    with pytest.raises(JournalError, match="the journal is closed"):
        journal.append_snapshot(snapshot(2))
    assert len(stored(tmp_path)) == 2


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"rows": 0}, {"rows": 10, "capacity": 5}])
def test_a_loss_bound_must_make_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a loss bound needs"):
        LossBound(**wrong)


def until(reached: Callable[[], bool]) -> None:
    """Ask again and again, for 10 s at most: the writer thread has its own pace."""
    pause = threading.Event()
    for _ in range(1000):
        if reached():
            return
        pause.wait(0.01)
    raise AssertionError("not reached within 10 s")
