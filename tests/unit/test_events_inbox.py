"""The inbox brings each message into one cycle: not early, not twice, not never."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import JournalError
from controller.historian.events import EVENTS_FILE, EventStore
from controller.historian.inbox import SqliteInbox
from controller.historian.journal import SqliteJournal, open_journal
from controller.historian.samples import delivered_ids
from controller.ports import Inbox, Messages
from controller.signal import Command, CommandKind, Proposal, QualityResult, Snapshot


def result(number: int, received_ns: int) -> QualityResult:
    return QualityResult(f"L-{number}", "lab", 0, received_ns, {"xG": number / 100})


def command(number: int) -> Command:
    return Command(f"C-{number}", CommandKind.REARM, number)


def journal_in(directory: Path) -> SqliteJournal:
    return open_journal(directory, start_ns=1, settings_text="", settings_path="a.yaml")


def snapshot_with(cycle: int, messages: Messages) -> Snapshot:
    return Snapshot(
        cycle, cycle, {}, messages.quality_results, messages.commands, messages.proposals
    )


def test_messages_come_in_order_of_arrival_and_once(tmp_path: Path) -> None:
    proposal = Proposal("P-1", 3, {"F_B": 4.4})
    with EventStore(tmp_path) as store:
        inbox: Inbox = SqliteInbox(store)
        assert inbox.poll(0) == Messages()
        store.add_command(command(2))
        store.add_quality_result(result(1, received_ns=5))
        store.append(1, "mode", {"to": "ACTIVE"})
        store.add_proposal(proposal)
        store.add_command(command(1))
        assert inbox.poll(10) == Messages((result(1, 5),), (command(2), command(1)), (proposal,))
        assert inbox.poll(20) == Messages()


def test_a_result_waits_until_it_is_received(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        inbox = SqliteInbox(store)
        store.add_quality_result(result(1, received_ns=100))
        store.add_quality_result(result(2, received_ns=50))
        assert inbox.poll(49) == Messages()
        assert inbox.poll(50) == Messages((result(2, 50),))
        assert inbox.poll(99) == Messages()
        assert inbox.poll(100) == Messages((result(1, 100),))
        assert inbox.poll(200) == Messages()


def test_a_waiting_result_is_delivered_as_corrected_a_delivered_one_is_past(
    tmp_path: Path,
) -> None:
    late = result(1, received_ns=100)
    better = replace(late, values={"xG": 0.5}, received_ns=60)
    with EventStore(tmp_path) as store:
        inbox = SqliteInbox(store)
        store.add_quality_result(late)
        assert inbox.poll(10) == Messages()
        store.correct_quality_result(better)
        assert inbox.poll(60) == Messages((better,))
        store.correct_quality_result(replace(better, values={"xG": 0.6}))
        assert inbox.poll(200) == Messages()


def test_after_skips_what_an_earlier_life_has_seen(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        store.add_command(command(1))
        seen = store.add_command(command(2))
        store.add_command(command(3))
        assert SqliteInbox(store, after=seen).poll(0).commands == (command(3),)


def test_a_restart_delivers_what_no_stored_snapshot_contains(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.events.add_command(command(1))
        journal.events.add_quality_result(result(1, received_ns=5))
        journal.events.add_quality_result(result(2, received_ns=500))
        inbox = journal.inbox()
        journal.append_snapshot(snapshot_with(1, inbox.poll(10)))
        journal.events.add_command(command(2))
        assert inbox.poll(20).commands == (command(2),)
        # The process ends here: command 2 was polled, but no snapshot with it was journalled.
        inbox.close()
    assert delivered_ids(tmp_path) == {("command", "C-1"), ("quality_result", "L-1")}
    with journal_in(tmp_path) as journal:
        inbox = journal.inbox()
        assert inbox.poll(30) == Messages((), (command(2),))
        assert inbox.poll(500) == Messages((result(2, 500),))
        inbox.close()


def test_a_correction_of_a_consumed_result_is_not_delivered_after_a_restart(
    tmp_path: Path,
) -> None:
    with journal_in(tmp_path) as journal:
        journal.events.add_quality_result(result(1, received_ns=5))
        journal.append_snapshot(snapshot_with(1, journal.inbox().poll(10)))
        journal.events.correct_quality_result(replace(result(1, 20), values={"xG": 0.5}))
    with journal_in(tmp_path) as journal:
        assert journal.inbox().poll(100) == Messages()


def test_nothing_is_delivered_before_the_first_start(tmp_path: Path) -> None:
    assert delivered_ids(tmp_path) == frozenset()


def test_a_log_that_became_unreadable_is_reported(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        inbox = SqliteInbox(store)
        store.add_command(command(1))
        store._connection.execute(
            "INSERT INTO event VALUES (2, 1, 'command', 'C-2', x'c1', x'00', x'00')"
        )
        with pytest.raises(JournalError, match=r"events\.db: command in .* cannot be read"):
            inbox.poll(10)
        inbox.close()


@settings(max_examples=25, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=8),
    restarts=st.sets(st.integers(0, 9)),
)
def test_every_result_arrives_exactly_once_and_never_early(
    arrivals: list[tuple[int, int]], restarts: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name, EventStore(name) as store:
        store._connection.execute("PRAGMA synchronous=OFF")
        inbox = SqliteInbox(store)
        got: list[str] = []
        for now in range(10):
            for number, (entered, received) in enumerate(arrivals):
                if entered == now:
                    store.add_quality_result(result(number, received))
            if now in restarts:
                inbox.close()
                inbox = SqliteInbox(store, delivered={("quality_result", key) for key in got})
            messages = inbox.poll(now)
            assert all(late.received_ns <= now for late in messages.quality_results)
            got += [late.result_id for late in messages.quality_results]
            due = {
                f"L-{number}"
                for number, (entered, received) in enumerate(arrivals)
                if entered <= now and received <= now
            }
            assert set(got) == due
        assert len(got) == len(set(got)) == len(arrivals)
        inbox.close()
        assert (Path(name) / EVENTS_FILE).exists()
