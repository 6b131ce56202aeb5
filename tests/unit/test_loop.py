"""The only loop, with a fake clock, device, journal and inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

import controller.loop as loop_module
from controller.cycle.record import Record, decode_record, digest, encode_snapshot
from controller.errors import JournalError
from controller.loop import Loop
from controller.ports import Messages
from controller.signal import NS_PER_S, Snapshot, WriteOutcome
from tests.unit.small_application import (
    CYCLE_S,
    START_NS,
    FakeClock,
    FakeInbox,
    FakeJournal,
    FakePlc,
    mode_command,
    small_application,
)


@dataclass
class Site:
    """A loop with everything around it."""

    clock: FakeClock = field(default_factory=FakeClock)
    journal: FakeJournal = field(default_factory=FakeJournal)
    inbox: FakeInbox = field(default_factory=FakeInbox)
    seen: list[tuple[Snapshot, Record]] = field(default_factory=list)
    dry_run: bool = False

    def __post_init__(self) -> None:
        self.plc = FakePlc(self.clock)
        self.loop = Loop(
            small_application(),
            (self.plc,),
            self.journal,
            self.inbox,
            self.clock,
            dry_run=self.dry_run,
            observers=(lambda snapshot, record: self.seen.append((snapshot, record)),),
        )
        self.inbox.waiting = Messages(commands=(mode_command("auto"),))

    def activate(self) -> None:
        for _ in range(20):
            record = self.loop.cycle()
            if set(record.mv_status.values()) == {"ON"}:
                return
        raise AssertionError("not active after 20 cycles")

    def on_read(self, what: Callable[[], None]) -> None:
        """Do something in the middle of the next cycle."""
        poll = self.inbox.poll

        def once(time_ns: int) -> Messages:
            self.inbox.poll = poll  # type: ignore[method-assign]
            what()
            return poll(time_ns)

        self.inbox.poll = once  # type: ignore[method-assign]


def test_cycles_start_at_their_deadlines() -> None:
    site = Site()
    site.loop.run(6)
    starts = [(t - START_NS) / NS_PER_S for t in site.plc.read_at[:6]]
    assert starts == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    assert [s.cycle for s in site.journal.snapshots[:6]] == list(range(6))
    assert site.loop.counters.cycles == 6
    assert site.loop.counters.skipped == 0


def test_snapshot_comes_before_record_and_both_are_kept() -> None:
    site = Site()
    site.loop.cycle()
    assert [s.cycle for s in site.journal.snapshots] == [0]
    cycle, data = site.journal.records[0]
    record = decode_record(data)
    assert cycle == record["cycle"] == 0
    assert record["digest"] == site.seen[0][1].digest
    assert site.journal.snapshots[0].commands == (mode_command("auto"),)
    assert record["timing"]["read_ms"] == pytest.approx(100.0)


def test_every_record_names_the_snapshot_it_was_decided_from() -> None:
    site = Site()
    site.activate()
    site.loop.hand_back("over")
    assert len(site.journal.records) == len(site.journal.snapshots) > 3
    for snapshot, (_, data) in zip(site.journal.snapshots, site.journal.records, strict=True):
        assert decode_record(data)["snapshot_digest"] == digest(encode_snapshot(snapshot))


def test_every_event_of_the_cycle_goes_to_the_journal() -> None:
    site = Site()
    site.loop.cycle()
    assert site.journal.events == ["OFF → INIT: automatic control requested", "mode auto"]


def test_the_outcome_of_a_write_is_in_the_next_snapshot() -> None:
    site = Site()
    site.activate()
    before = site.seen[-1][0]
    assert before.writes == {"plc": WriteOutcome.WRITTEN}
    site.plc.bench.alive = False
    site.loop.cycle()
    site.loop.cycle()
    assert site.seen[-1][0].writes == {"plc": WriteOutcome.FAILED}
    assert site.loop.counters.failed_frames == 2


def test_an_overrun_skips_counts_and_never_bursts() -> None:
    site = Site()
    site.activate()
    first = len(site.plc.read_at)
    site.on_read(lambda: site.clock.pass_s(3.5 * CYCLE_S))
    site.loop.cycle()
    for _ in range(3):
        site.loop.cycle()
    starts = [(t - START_NS) / NS_PER_S for t in site.plc.read_at[first:]]
    begun = starts[0]
    assert starts[1:] == [begun + 40.0, begun + 50.0, begun + 60.0]
    assert site.loop.counters.skipped == 3
    after = site.seen[-3][0]
    assert after.skipped == 3
    assert after.cycle == site.seen[-4][0].cycle + 4
    assert [s.skipped for s, _ in site.seen[-2:]] == [0, 0]


@pytest.mark.parametrize("overrun", [1.1, 1.4, 1.6, 1.9, 1.99, 2.0, 2.01, 2.6, 7.95])
def test_cycles_never_follow_each_other_at_once(overrun: float) -> None:
    site = Site()
    site.activate()
    first = len(site.plc.read_at)
    site.on_read(lambda: site.clock.pass_s(overrun * CYCLE_S))
    for _ in range(4):
        site.loop.cycle()
    starts = site.plc.read_at[first:]
    gaps = [(b - a) / NS_PER_S for a, b in pairwise(starts)]
    assert min(gaps) >= CYCLE_S / 2
    assert gaps[-1] == pytest.approx(CYCLE_S)
    cycles = [s.cycle for s, _ in site.seen[-4:]]
    elapsed = (starts[-1] - starts[0]) / NS_PER_S / CYCLE_S
    assert cycles[-1] - cycles[0] == pytest.approx(elapsed, abs=1e-6)


def test_a_late_frame_is_not_written_and_the_next_snapshot_says_so() -> None:
    site = Site()
    site.activate()
    written = len(site.plc.bench.frames)
    site.on_read(lambda: site.clock.pass_s(1.05 * CYCLE_S))
    late = site.loop.cycle()
    assert late.move.frames
    assert len(site.plc.bench.frames) == written
    assert site.loop.counters.late_frames == 1
    assert decode_record(site.journal.records[-1][1])["move"]["frames"]
    site.loop.cycle()
    assert site.seen[-1][0].writes == {"plc": WriteOutcome.LATE}
    assert len(site.plc.bench.frames) == written + 1


def handed_back(site: Site) -> bool:
    frame = site.plc.bench.frames[-1]
    return (frame["Q1.REQ"], frame["Q2.REQ"]) == (0, 0)


@pytest.mark.parametrize("call", range(1, 4))
def test_a_broken_journal_hands_back_and_raises(call: int) -> None:
    site = Site()
    site.activate()
    assert not handed_back(site)
    site.journal.breaks_at = site.journal.calls + call
    with pytest.raises(JournalError, match="the disk is full"):
        site.loop.run()
    assert handed_back(site)
    assert site.loop.state.mode.mode == "OFF"
    assert not any(site.plc.bench.remote.values())


def test_nothing_is_decided_on_a_snapshot_that_cannot_be_kept() -> None:
    site = Site()
    site.activate()
    seen, written = len(site.seen), len(site.plc.bench.frames)
    site.journal.breaks_at = site.journal.calls + 1
    with pytest.raises(JournalError):
        site.loop.cycle()
    assert (len(site.seen), len(site.plc.bench.frames)) == (seen, written)


def test_stop_hands_back_with_one_frame_and_ends() -> None:
    site = Site()
    site.activate()
    written = len(site.plc.bench.frames)
    site.on_read(site.loop.stop)
    site.loop.run()
    assert handed_back(site)
    assert len(site.plc.bench.frames) == written + 2  # the cycle it was in, and the last one
    assert site.journal.events[-1] == "handed back: the controller was stopped"
    assert site.journal.snapshots[-1].commands[0].text == "off"
    assert len(site.journal.snapshots) == len(site.journal.records)


def test_stop_while_it_sleeps_does_not_start_another_cycle() -> None:
    site = Site()
    site.activate()
    cycles = site.loop.counters.cycles
    site.loop.stop()
    site.loop.run()
    assert site.loop.counters.cycles == cycles
    assert handed_back(site)


def test_a_run_of_a_number_of_cycles_hands_back_at_its_end() -> None:
    site = Site()
    site.loop.run(8)
    assert site.loop.counters.cycles == 8
    assert handed_back(site)
    site.loop.hand_back("again")
    assert [f["Q1.REQ"] for f in site.plc.bench.frames].count(0) == 2  # READY's, and the last


def test_without_control_there_is_nothing_to_hand_back() -> None:
    site = Site()
    site.inbox.waiting = Messages(commands=(mode_command("manual"),))
    site.loop.run(5)
    assert site.plc.bench.frames == []


def test_a_dry_run_writes_nothing() -> None:
    site = Site(dry_run=True)
    site.loop.run(12)
    assert site.plc.bench.frames == []
    assert any(decode_record(data)["move"]["frames"] for _, data in site.journal.records)
    assert all(s.writes == {} for s in site.journal.snapshots)
    assert {decode_record(data)["mode"] for _, data in site.journal.records} <= {
        "OFF", "INIT", "READY"
    }  # fmt: skip


def test_a_locked_event_log_delays_events_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    append, locked = site.journal.append_event, True

    def sometimes(time_ns: int, kind: str, body: Mapping[str, object]) -> None:
        if locked:
            raise JournalError("the event log is locked", where="events.db")
        append(time_ns, kind, body)

    monkeypatch.setattr(site.journal, "append_event", sometimes)
    site.activate()
    assert site.journal.events == []
    locked = False
    site.loop.cycle()
    decided = [event for _, record in site.seen for event in record.events]
    assert site.journal.events == decided != []


def test_a_step_that_breaks_still_hands_back(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    site.activate()
    told = site.plc.bench.frames[-1]

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(loop_module, "step", broken)
    with pytest.raises(ZeroDivisionError):
        site.loop.run(3)
    last = site.plc.bench.frames[-1]
    assert last["HB"] == told["HB"] % 65535 + 1
    assert {name: value for name, value in last.items() if name.endswith(".REQ")} == {
        "Q1.REQ": 0,
        "Q2.REQ": 0,
    }
    assert last["Q1.SP"] == told["Q1.SP"]
