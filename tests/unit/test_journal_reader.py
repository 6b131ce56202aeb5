"""The reader finds cycles and events by number and time, beside a living journal and in a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from controller.errors import JournalError
from controller.historian import database
from controller.historian.events import EVENTS_FILE
from controller.historian.journal import SqliteJournal, open_journal
from controller.historian.reader import Counts, open_reader
from controller.historian.samples import SAMPLES_FILE
from controller.signal import Command, CommandKind, Snapshot


def start(directory: Path) -> SqliteJournal:
    return open_journal(directory, start_ns=1, settings_text="", settings_path="a.yaml")


def run_cycles(journal: SqliteJournal, cycles: range) -> None:
    for cycle in cycles:
        journal.append_snapshot(Snapshot(cycle, cycle * 10, {}))
        journal.append_record(cycle, cycle * 10, b"%d" % cycle)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Cycles 0 … 599 (more than one read) at 0, 10, 20 … ns; the last one is undecided."""
    with start(tmp_path) as journal:
        run_cycles(journal, range(599))
        journal.append_snapshot(Snapshot(599, 5990, {}))
        journal.append_event(100, "mode", {"to": "READY"})
        journal.events.add_command(Command("C-1", CommandKind.REARM, 200))
        journal.append_event(300, "mode", {"to": "ACTIVE"})
    return tmp_path


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({}, range(600)),
        ({"from_cycle": 590}, range(590, 600)),
        ({"to_cycle": 3}, range(4)),
        ({"from_ns": 95}, range(10, 600)),
        ({"to_ns": 95}, range(10)),
        ({"from_ns": 100, "to_ns": 120}, range(10, 13)),
        ({"from_ns": 100, "from_cycle": 300, "to_cycle": 301}, range(300, 302)),
        ({"from_ns": 6000}, range(0)),
        ({"from_cycle": 700}, range(0)),
    ],
)
def test_cycles_by_number_and_time(filled: Path, window: dict[str, int], expected: range) -> None:
    with open_reader(filled) as reader:
        rows = list(reader.cycles(1, **window))
    assert [row.cycle for row in rows] == list(expected)
    assert all(row.time_ns == row.cycle * 10 for row in rows)
    assert all(row.record == (b"%d" % row.cycle if row.cycle < 599 else None) for row in rows)


def test_cycles_before_a_clock_step_are_found_by_time(tmp_path: Path) -> None:
    with start(tmp_path) as journal:
        for cycle, time_ns in enumerate([10, 20, 5, 15, 30]):
            journal.append_snapshot(Snapshot(cycle, time_ns, {}))
    with open_reader(tmp_path) as reader:
        assert [row[:2] for row in reader.cycles(1, from_ns=10, to_ns=20)] == [
            (0, 10),
            (1, 20),
            (3, 15),
        ]


def test_an_unknown_segment_is_empty(filled: Path) -> None:
    with open_reader(filled) as reader:
        assert list(reader.cycles(9)) == []
        assert reader.last_record(9) is None


def test_events_by_id_time_and_kind(filled: Path) -> None:
    with open_reader(filled) as reader:
        assert [event.event_id for event in reader.events()] == [1, 2, 3]
        assert [event.event_id for event in reader.events(from_id=2)] == [2, 3]
        assert [event.event_id for event in reader.events(from_ns=100, to_ns=200)] == [1, 2]
        modes = [event.body["to"] for event in reader.events(kinds=("mode",))]
    assert modes == ["READY", "ACTIVE"]


def test_counts_and_the_last_record(filled: Path) -> None:
    with open_reader(filled) as reader:
        assert reader.counts() == Counts(segments=1, cycles=600, records=599, events=3)
        assert str(reader.counts()) == "1 segments, 600 cycles, 599 records, 3 events"
        last = reader.last_record()
    assert last is not None
    assert (last.cycle, last.record) == (598, b"598")


def test_a_reader_follows_a_living_journal_and_never_stops_it(tmp_path: Path) -> None:
    with start(tmp_path) as journal:
        run_cycles(journal, range(300))
        journal.flush()
        with open_reader(tmp_path) as reader:
            slow = reader.cycles(1)
            assert next(slow).cycle == 0
            run_cycles(journal, range(300, 400))
            journal.append_event(1, "mode", {})
            journal.flush()
            assert reader.counts() == Counts(1, 400, 400, 1)
            # It ends where the log ended when it began.
            assert [row.cycle for row in slow] == list(range(1, 300))


def test_a_copy_of_a_living_journal_can_be_read(tmp_path: Path) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy"
    with start(live) as journal:
        run_cycles(journal, range(50))
        journal.append_event(1, "mode", {})
        journal.flush()
        copy.mkdir()
        for name in (SAMPLES_FILE, EVENTS_FILE):
            shutil.copy(live / name, copy / name)
            shutil.copy(live / f"{name}-wal", copy / f"{name}-wal")
    with open_reader(copy) as reader:
        assert reader.counts() == Counts(1, 50, 50, 1)


def test_a_read_only_medium_can_be_read(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in filled.iterdir())
    monkeypatch.setattr(database.os, "access", lambda *_: False)
    with open_reader(filled) as reader:
        assert reader.counts() == Counts(1, 600, 599, 3)
        assert sorted(path.name for path in filled.iterdir()) == before


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no cycle log here"):
        open_reader(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_page_is_reported_where_it_is_read(filled: Path) -> None:
    path = filled / SAMPLES_FILE
    data = bytearray(path.read_bytes())
    data[8 * 4096 :] = b"\xa5" * (len(data) - 8 * 4096)
    path.write_bytes(data)
    with (
        open_reader(filled) as reader,
        pytest.raises(JournalError, match=r"samples\.db: the file is damaged"),
    ):
        list(reader.cycles(1))
