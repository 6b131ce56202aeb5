"""The event log keeps every message once, in a chain that shows every change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import apsw
import numpy as np
import pytest

from controller.errors import JournalError
from controller.historian import events
from controller.historian.database import Schema, open_database
from controller.historian.events import EVENTS_FILE, EventStore, verify_chain
from controller.historian.lab_results import quality_results
from controller.historian.reader import Event, open_reader
from controller.historian.samples import SAMPLES_SCHEMA
from controller.signal import Command, CommandKind, Proposal, QualityResult

RESULT = QualityResult("L-1", "lab", 1_000, 9_000, {"xG": 0.08, "xA": 0.12}, {"xG": 5e-4})
COMMAND = Command("C-1", CommandKind.SETPOINT, 2_000, "T_R", 85.9, who="op", why="trial")
PROPOSAL = Proposal("P-1", 3_000, {"F_B": 4.39, "T_R": 80.5}, gain=12.0, why="richer feed")


def stored(directory: Path) -> list[Event]:
    with open_database(directory / "samples.db", SAMPLES_SCHEMA, synchronous="NORMAL"):
        pass
    with open_reader(directory) as reader:
        return list(reader.events())


def tamper(directory: Path, statement: str, *values: object) -> None:
    connection = apsw.Connection(str(directory / EVENTS_FILE))
    connection.execute("DROP TRIGGER event_no_update; DROP TRIGGER event_no_delete")
    connection.execute(statement, values)
    connection.close()


def fill(directory: Path, count: int) -> None:
    with EventStore(directory) as store:
        for number in range(1, count + 1):
            assert store.append(number, "mode", {"to": "ACTIVE", "number": number}) == number


def test_every_kind_comes_back_as_it_was_given(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        assert store.append(500, "mode", {"from": "OFF", "to": "MANUAL", "because": [1, None]}) == 1
        assert store.add_quality_result(RESULT) == 2
        assert store.add_command(COMMAND) == 3
        assert store.add_proposal(PROPOSAL) == 4
    mode, result, command, proposal = stored(tmp_path)
    assert mode.body == {"from": "OFF", "to": "MANUAL", "because": [1, None]}
    assert (mode.time_ns, mode.kind, mode.message_id) == (500, "mode", "")
    assert (result.time_ns, result.kind, result.message_id) == (9_000, "quality_result", "L-1")
    assert result.body["values"] == {"xG": 0.08, "xA": 0.12}
    assert (command.body["kind"], command.body["value"]) == ("setpoint", 85.9)
    assert proposal.body["targets"] == {"F_B": 4.39, "T_R": 80.5}
    assert verify_chain(tmp_path) is None


def test_a_body_may_hold_numpy_numbers_and_read_only_mappings(tmp_path: Path) -> None:
    body = {"gain": np.float64(1.5), "u": np.array([1.0, 2.0]), "m": MappingProxyType({"a": 1})}
    with EventStore(tmp_path) as store:
        store.append(1, "alarm", body)
    assert stored(tmp_path)[0].body == {"gain": 1.5, "u": [1.0, 2.0], "m": {"a": 1}}


def test_a_body_that_cannot_be_kept_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        with pytest.raises(JournalError, match="cannot be kept"):
            store.append(1, "alarm", {"what": object()})
        with pytest.raises(JournalError, match="cannot be written"):
            store.append(1, "alarm", {"big": 2**70})
    assert stored(tmp_path) == []


def test_the_same_message_again_changes_nothing(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        first = [
            store.add_quality_result(RESULT),
            store.add_command(COMMAND),
            store.add_proposal(PROPOSAL),
        ]
        reordered = replace(
            RESULT, received_ns=99_000, values=MappingProxyType({"xA": 0.12, "xG": 0.08})
        )
        again = [
            store.add_quality_result(reordered),
            store.add_command(COMMAND),
            store.add_proposal(PROPOSAL),
        ]
    assert first == again == [1, 2, 3]
    assert [event.event_id for event in stored(tmp_path)] == [1, 2, 3]


def test_a_nan_equals_itself_when_a_result_is_repeated(tmp_path: Path) -> None:
    result = replace(RESULT, values={"xG": float("nan")}, valid=False)
    with EventStore(tmp_path) as store:
        assert store.add_quality_result(result) == store.add_quality_result(result)


def test_one_id_with_two_contents_is_refused(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        store.add_quality_result(RESULT)
        store.add_command(COMMAND)
        store.add_proposal(PROPOSAL)
        with pytest.raises(JournalError, match=r"'L-1' is in the log already .*correct it"):
            store.add_quality_result(replace(RESULT, values={"xG": 0.09}))
        with pytest.raises(JournalError, match="'C-1' is in the log already"):
            store.add_command(replace(COMMAND, value=90.0))
        with pytest.raises(JournalError, match="'P-1' is in the log already"):
            store.add_proposal(replace(PROPOSAL, gain=1.0))
    assert len(stored(tmp_path)) == 3
    assert verify_chain(tmp_path) is None


def test_one_id_may_serve_messages_of_different_kinds(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        ids = {
            store.add_quality_result(replace(RESULT, result_id="1")),
            store.add_command(replace(COMMAND, command_id="1")),
            store.add_proposal(replace(PROPOSAL, proposal_id="1")),
        }
    assert ids == {1, 2, 3}


def test_a_message_needs_an_id_and_its_own_method(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        with pytest.raises(JournalError, match="without an id"):
            store.add_command(replace(COMMAND, command_id=""))
        with pytest.raises(JournalError, match="Use add_command"):
            store.append(1, "command", {"command_id": "C-9"})


def test_corrections_keep_the_history(tmp_path: Path) -> None:
    better = replace(RESULT, received_ns=20_000, values={"xG": 0.06, "xA": 0.12})
    best = replace(better, received_ns=30_000, values={"xG": 0.05, "xA": 0.12})
    other = replace(RESULT, result_id="L-2")
    with EventStore(tmp_path) as store:
        store.add_quality_result(RESULT)
        store.add_quality_result(other)
        assert store.correct_quality_result(better, who="ann", why="typing error") == 3
        assert store.correct_quality_result(replace(better, received_ns=21_000)) == 3
        assert store.correct_quality_result(best, who="bob", why="second run") == 4
        # The original sent once more is still only a repetition.
        assert store.add_quality_result(RESULT) == 1
    first, second = quality_results(tmp_path)
    assert first.current == best
    assert first.corrected
    assert [version.result for version in first.history] == [RESULT, better, best]
    assert [(version.who, version.why) for version in first.history] == [
        ("", ""),
        ("ann", "typing error"),
        ("bob", "second run"),
    ]
    assert [event.body["corrects"] for event in stored(tmp_path)[2:]] == [1, 3]
    assert second.current == other
    assert not second.corrected
    assert verify_chain(tmp_path) is None


def test_only_a_known_result_can_be_corrected(tmp_path: Path) -> None:
    with (
        EventStore(tmp_path) as store,
        pytest.raises(JournalError, match="no lab result 'L-1' to correct"),
    ):
        store.correct_quality_result(RESULT)


@pytest.mark.parametrize(
    ("statement", "values", "broken"),
    [
        ("UPDATE event SET body = ? WHERE id = 3", (b"\x80",), 3),
        ("UPDATE event SET time_ns = ? WHERE id = 1", (77,), 1),
        ("UPDATE event SET kind = ? WHERE id = 5", ("alarm",), 5),
        ("UPDATE event SET message_id = ? WHERE id = 2", ("C-1",), 2),
        ("UPDATE event SET hash = ? WHERE id = 4", (bytes(32),), 4),
        ("DELETE FROM event WHERE id = ?", (3,), 4),
        ("DELETE FROM event WHERE id = ?", (1,), 2),
        ("UPDATE event SET id = ? WHERE id = 6", (60,), 60),
        ("UPDATE event SET id = ? WHERE id = 1", (0,), 2),
    ],
)
def test_the_chain_shows_every_change(
    tmp_path: Path, statement: str, values: tuple[object, ...], broken: int
) -> None:
    fill(tmp_path, 6)
    tamper(tmp_path, statement, *values)
    assert verify_chain(tmp_path) == broken


def test_a_changed_event_with_a_fitting_hash_breaks_the_next_one(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    own_hash = events.chain_hash(events.FIRST_HASH, 1, "mode", "", b"\x80")
    tamper(tmp_path, "UPDATE event SET body = ?, hash = ? WHERE id = 1", b"\x80", own_hash)
    assert verify_chain(tmp_path) == 2


def test_an_event_inserted_before_the_first_is_found(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    tamper(
        tmp_path, "INSERT INTO event SELECT -5, 1, 'mode', '', body, hash, hash FROM event LIMIT 1"
    )
    assert verify_chain(tmp_path) == -5


def test_a_chain_longer_than_one_read_verifies(tmp_path: Path) -> None:
    with EventStore(tmp_path) as store:
        store._connection.execute("PRAGMA synchronous=OFF")
        for number in range(600):
            store.append(number, "alarm", {})
    assert verify_chain(tmp_path / EVENTS_FILE) is None


@pytest.mark.parametrize("statement", ["UPDATE event SET body = x'80'", "DELETE FROM event"])
def test_the_file_itself_refuses_changes(tmp_path: Path, statement: str) -> None:
    fill(tmp_path, 2)
    connection = apsw.Connection(str(tmp_path / EVENTS_FILE))
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        connection.execute(statement)
    connection.close()
    assert verify_chain(tmp_path) is None


def test_a_file_that_is_no_database_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_bytes(b"an invoice from last year, for once. " * 200)
    with pytest.raises(JournalError, match=r"events\.db: this is not a database"):
        EventStore(tmp_path)


def test_a_damaged_file_is_named_as_such(tmp_path: Path) -> None:
    fill(tmp_path, 400)
    path = tmp_path / EVENTS_FILE
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    with (
        pytest.raises(JournalError, match="the file is damaged") as caught,
        EventStore(tmp_path) as store,
    ):
        store.append(1, "mode", {})
    assert caught.value.exit_code == 3
    assert "restore a backup" in caught.value.mend
    with pytest.raises(JournalError, match="the file is damaged"):
        verify_chain(tmp_path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE invoice (id INTEGER PRIMARY KEY)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="not Loopwright's event log"):
        EventStore(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "complaint"), [(99, "newer version .*99"), (0, "unknown schema version 0")]
)
def test_other_schema_versions_are_refused(tmp_path: Path, version: int, complaint: str) -> None:
    fill(tmp_path, 1)
    connection = apsw.Connection(str(tmp_path / EVENTS_FILE))
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    with pytest.raises(JournalError, match=complaint):
        EventStore(tmp_path)
    with pytest.raises(JournalError, match=complaint):
        quality_results(tmp_path)


def test_a_missing_log_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no event log here"):
        verify_chain(tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(JournalError, match="data directory cannot be made"):
        EventStore(tmp_path / "taken")


def test_a_full_disk_keeps_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_small(
        path: Path, schema: Schema, *, synchronous: str, busy_timeout_s: float
    ) -> apsw.Connection:
        assert synchronous == "FULL"
        connection = open_database(path, schema, synchronous="FULL", busy_timeout_s=busy_timeout_s)
        connection.pragma("max_page_count", 20)
        return connection

    monkeypatch.setattr(events, "open_database", open_small)
    acknowledged: list[int] = []
    with EventStore(tmp_path) as store:
        with pytest.raises(JournalError, match="the disk is full") as caught:
            acknowledged.extend(store.append(1, "alarm", {"text": "x" * 500}) for _ in range(1000))
        assert "Free some space" in caught.value.mend
    assert len(acknowledged) > 20
    assert [event.event_id for event in stored(tmp_path)] == acknowledged
    assert verify_chain(tmp_path) is None


def test_a_file_locked_for_too_long_is_named_as_such(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    other = apsw.Connection(str(tmp_path / EVENTS_FILE))
    other.execute("BEGIN IMMEDIATE")
    with EventStore(tmp_path, busy_timeout_s=0.01) as store:
        with pytest.raises(JournalError, match="another process keeps the file locked"):
            store.append(2, "mode", {})
        other.execute("ROLLBACK")
        assert store.append(2, "mode", {}) == 2
    other.close()
