"""What a killed controller loses follows from its clock, not from the pace of a thread."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import JournalError
from controller.historian.journal import SqliteJournal, open_journal
from controller.historian.reader import open_reader
from controller.historian.samples import SAMPLES_FILE
from controller.historian.writer import LossBound
from controller.signal import Snapshot

S = 1_000_000_000


class StandingClock:
    """Time that moves only when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns


def start(directory: Path, clock: StandingClock, bound: LossBound) -> SqliteJournal:
    return open_journal(
        directory,
        start_ns=1,
        settings_text="",
        settings_path="a.yaml",
        loss_bound=bound,
        monotonic_ns=clock.monotonic_ns,
    )


def cycle(journal: SqliteJournal, number: int, clock: StandingClock) -> None:
    journal.append_snapshot(Snapshot(number, clock.now_ns, {}))
    journal.append_record(number, clock.now_ns, b"record %d" % number)


def saved(directory: Path) -> list[int]:
    with open_reader(directory) as reader:
        rows = list(reader.cycles(1))
    assert all(row.record == b"record %d" % row.cycle for row in rows)
    return [row.cycle for row in rows]


def test_what_a_rest_would_make_too_old_is_saved_when_it_begins(tmp_path: Path) -> None:
    clock = StandingClock()
    with start(tmp_path, clock, LossBound(seconds=1.0)) as journal:
        cycle(journal, 0, clock)
        journal.rest(S // 2)
        journal.settle()
        assert saved(tmp_path) == []
        clock.now_ns = S // 2
        cycle(journal, 1, clock)
        journal.rest(S)
        journal.settle()
        assert saved(tmp_path) == [0, 1]


def test_a_clock_that_stands_still_makes_nothing_old(tmp_path: Path) -> None:
    clock = StandingClock()
    with start(tmp_path, clock, LossBound(seconds=0.01)) as journal:
        cycle(journal, 0, clock)
        threading.Event().wait(0.1)  # ten times the bound, of real time
        assert saved(tmp_path) == []


def test_a_cycle_that_does_not_end_is_saved_by_the_clock_alone(tmp_path: Path) -> None:
    clock = StandingClock()
    with start(tmp_path, clock, LossBound(seconds=0.01)) as journal:
        cycle(journal, 0, clock)
        clock.now_ns = S
        pause = threading.Event()
        for _ in range(1000):
            if saved(tmp_path):
                break
            pause.wait(0.01)
        assert saved(tmp_path) == [0]


def test_a_fault_of_the_disk_is_told_by_the_next_call(tmp_path: Path) -> None:
    clock = StandingClock()
    journal = start(tmp_path, clock, LossBound(seconds=1.0))
    other = apsw.Connection(str(tmp_path / SAMPLES_FILE))
    other.execute("DROP TABLE delivered; DROP TABLE cycle")
    cycle(journal, 0, clock)
    journal.rest(10 * S)
    journal.settle()
    with pytest.raises(JournalError, match=r"samples\.db"):
        journal.append_snapshot(Snapshot(1, 10 * S, {}))
    with pytest.raises(JournalError, match=r"samples\.db"):
        journal.close()
    other.close()


def test_a_disk_without_an_answer_does_not_hold_the_clock_for_ever(tmp_path: Path) -> None:
    clock = StandingClock()
    journal = start(tmp_path, clock, LossBound(seconds=1.0, stall_s=0.1))
    other = apsw.Connection(str(tmp_path / SAMPLES_FILE))
    other.execute("BEGIN IMMEDIATE")
    cycle(journal, 0, clock)
    journal.rest(10 * S)
    with pytest.raises(JournalError, match=r"no answer for 0\.1 s"):
        journal.settle()
    other.execute("ROLLBACK")
    other.close()
    journal.flush()
    journal.close()


def expected(steps_ns: Sequence[int], rests: Sequence[bool], bound_ns: int, rows: int) -> list[int]:
    """The rule in its shortest form: which cycles are on the disk when the last rest begins."""
    now_ns, waiting, done = 0, list[tuple[int, int]](), list[int]()
    for number, (step_ns, foreseen) in enumerate(zip(steps_ns, rests, strict=True)):
        if waiting and now_ns - waiting[0][1] >= bound_ns:
            done += [n for n, _ in waiting]
            waiting.clear()
        waiting.append((number, now_ns))
        until_ns = now_ns + step_ns if foreseen else now_ns
        if len(waiting) >= rows or until_ns - waiting[0][1] >= bound_ns:
            done += [n for n, _ in waiting]
            waiting.clear()
        now_ns += step_ns
    return done


@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 30).map(lambda tenths: tenths * S // 10), st.booleans()),
        min_size=1,
        max_size=25,
    ),
    rows=st.integers(2, 8),
    seed=st.integers(0, 1000),
)
def test_the_pace_of_the_thread_does_not_decide_what_is_lost(
    steps: list[tuple[int, bool]], rows: int, seed: int
) -> None:
    # A step that was not foreseen is a machine that stood still: the rest was to be shorter.
    steps_ns, foreseen = [step for step, _ in steps], [known for _, known in steps]
    chance, pause = random.Random(seed), threading.Event()
    with TemporaryDirectory() as folder:
        clock, directory, found = StandingClock(), Path(folder), list[int]()
        with start(directory, clock, LossBound(seconds=1.0, rows=rows)) as journal:
            for number, (step_ns, known) in enumerate(steps):
                cycle(journal, number, clock)
                journal.rest(clock.now_ns + (step_ns if known else 0))
                journal.settle()
                found = saved(directory)
                clock.now_ns += step_ns
                pause.wait(chance.choice((0.0, 0.0, 0.002)))
        assert found == expected(steps_ns, foreseen, S, rows)
