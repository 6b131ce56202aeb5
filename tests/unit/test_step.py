"""The whole cycle as one function: offset-free, deterministic, replayable, safe with any input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import structs

from controller.cycle.record import (
    decode_snapshot,
    decode_wishes,
    encode_record,
    encode_snapshot,
    encode_wishes,
    last_wishes,
)
from controller.cycle.state import LoopState
from controller.cycle.step import step
from controller.historian.journal import open_journal
from controller.historian.reader import open_reader
from controller.historian.samples import SAMPLES_FILE
from controller.replay import Replayed, replay
from controller.signal import (
    NS_PER_S,
    Command,
    CommandKind,
    QualityResult,
    Sample,
    Status,
    WriteOutcome,
)
from tests.unit.small_application import (
    CYCLE_S,
    FRAME_TAGS,
    GAIN,
    START_NS,
    Bench,
    Run,
    mode_command,
    small_application,
)


def active(**bench: object) -> Run:
    run = Run(small_application(), Bench(**bench))  # type: ignore[arg-type]
    run.activate()
    return run


def bad(*tags: str) -> object:
    def edit(_: int, samples: dict[str, Sample]) -> dict[str, Sample]:
        lost = {t: Sample(None, Status.BAD_COMMUNICATION_ERROR, 0, 0) for t in tags}
        return {**samples, **lost}

    return edit


def test_the_way_to_active() -> None:
    run = active()
    modes = [r.mode for r in run.records]
    assert modes == ["INIT", "INIT", "READY", "ACTIVE", "ACTIVE"]
    assert [bool(r.move.frames) for r in run.records] == [False, False, True, True, True]
    ready, first = run.bench.frames[0], run.bench.frames[1]
    assert (ready["Q1.REQ"], first["Q1.REQ"]) == (0, 1)
    # Bumpless: nothing moves before the loops have followed into REMOTE.
    assert ready["Q1.SP"] == first["Q1.SP"] == 50.0
    assert set(first) == FRAME_TAGS
    assert [f["HB"] for f in run.bench.frames] == [1, 2, 3]
    assert run.records[2].events == ("INIT → READY: critical signals good for 3 cycles",)


@pytest.mark.parametrize("wanted", ["off", "manual"])
def test_off_and_manual_write_nothing(wanted: str) -> None:
    run = Run(small_application())
    run.cycle(mode_command(wanted))
    run.cycles(5)
    assert run.bench.frames == []
    assert (run.records[-1].plan is None) == (wanted == "off")


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.floats(0.6, 1.5), min_size=4, max_size=4),
    st.lists(st.floats(-12.0, 12.0), min_size=2, max_size=2),
    st.floats(0.7, 1.3),
)
def test_no_offset_with_wrong_gains_and_constant_disturbances(
    factors: list[float], upset: list[float], feed: float
) -> None:
    gain = np.array(factors).reshape(2, 2)
    wanted = np.array([55.0, 40.0]) + 5.0 * (feed - 1.0)
    needed = np.linalg.solve(GAIN * gain, wanted) - upset
    assume(np.all(needed > 3.0))
    assume(np.all(needed < 97.0))
    run = active(gain=gain, upset=np.array(upset), feed=feed)
    run.cycles(140)
    assert run.bench.x == pytest.approx([55.0, 40.0], abs=2e-3)
    assert all(r.plan is None or r.plan.rung == "sqp" for r in run.records)


def test_a_step_of_the_disturbance_is_taken_back() -> None:
    run = active()
    run.cycles(60)
    run.bench.upset = np.array([10.0, -10.0])
    run.cycles(5)
    assert abs(run.bench.x[0] - 55.0) > 0.05
    run.cycles(120)
    assert run.bench.x == pytest.approx([55.0, 40.0], abs=2e-3)


def test_a_new_setpoint_is_reached_within_limits_and_rates() -> None:
    run = active()
    run.cycle(Command("c", CommandKind.SETPOINT, START_NS, "T1", 62.0))
    run.cycles(80)
    assert run.bench.x == pytest.approx([62.0, 40.0], abs=1e-2)
    sent = np.array([[f["Q1.SP"], f["Q2.SP"]] for f in run.bench.frames], dtype=np.float64)
    assert np.max(np.abs(np.diff(sent, axis=0))) <= 5.0 + 1e-9
    assert sent.min() >= 0.0
    assert sent.max() <= 100.0


def test_an_operator_s_limit_pulls_the_mv_inside_at_its_rate() -> None:
    run = active()
    run.cycles(60)
    assert run.bench.heat["Q1"] == pytest.approx(54.35, abs=0.05)
    run.cycle(Command("c", CommandKind.LIMIT_HIGH, run.records[-1].time_ns, "Q1", 40.0))
    assert run.bench.frames[-1]["Q1.SP"] == pytest.approx(49.35, abs=0.06)
    run.cycles(10)
    assert run.bench.heat["Q1"] <= 40.0 + 1e-6


def test_the_same_state_and_snapshot_give_the_same_digest() -> None:
    run = active()
    run.cycles(3)
    state = run.state
    snapshot = replace(run.snapshots[-1], cycle=state.cycle + 1, time_ns=state.time_ns + 10**10)
    digests = {step(small_application(), state, snapshot)[1].digest for _ in range(3)}
    assert len(digests) == 1


def eventful() -> Run:
    run = active(gain=np.array([[1.2, 0.9], [1.1, 0.8]]))
    for number in range(25):
        results, commands = [], []
        now_ns = START_NS + round((run.state.cycle + 1) * CYCLE_S * NS_PER_S)
        if number % 5 == 0:
            drawn = now_ns - 60 * NS_PER_S
            mean = {"mean": float(run.bench.x.mean())}
            results.append(QualityResult(f"r{number}", "lab", drawn, now_ns, mean))
        if number == 8:
            commands.append(Command("c8", CommandKind.SETPOINT, now_ns, "T2", 44.0))
        run.edit = bad("T1.PV") if 12 <= number < 15 else (lambda _, s: s)
        run.cycle(*commands, results=results)
    return run


def test_replay_from_decoded_snapshots_is_identical() -> None:
    run = eventful()
    state = LoopState()
    for snapshot, record in zip(run.snapshots, run.records, strict=True):
        state, again = step(small_application(), state, decode_snapshot(encode_snapshot(snapshot)))
        assert again.digest == record.digest


def journalled(run: Run, directory: Path, reason_of: int = -1, other_snapshot_of: int = -1) -> None:
    journal = open_journal(
        directory, settings_path="two-tanks.yaml", settings_text="",
        start_ns=START_NS,
    )  # fmt: skip
    with journal:
        for snapshot, record in zip(run.snapshots, run.records, strict=True):
            seen = journal.append_snapshot(snapshot)
            kept = structs.replace(record, reason="forged") if record.cycle == reason_of else record
            seen = "of another" if record.cycle == other_snapshot_of else seen
            journal.append_record(kept.cycle, kept.time_ns, encode_record(kept, seen))


def last(outcomes: object) -> Replayed:
    return list(outcomes)[-1]  # type: ignore[call-overload]


def test_a_journal_is_replayed_bit_for_bit(tmp_path: Path) -> None:
    run = eventful()
    journalled(run, tmp_path)
    with open_reader(tmp_path) as reader:
        outcome = last(replay(reader, lambda _: small_application()))
        assert outcome.passed
        assert outcome.cycles == outcome.identical == len(run.records)
        later = last(replay(reader, lambda _: small_application(),
                            from_ns=run.records[20].time_ns))  # fmt: skip
        assert later.cycles == len(run.records) - 20
        assert later.passed


def test_replay_names_what_differs(tmp_path: Path) -> None:
    run = eventful()
    journalled(run, tmp_path, reason_of=7)
    with open_reader(tmp_path) as reader:
        outcome = last(replay(reader, lambda _: small_application()))
    assert not outcome.passed
    assert outcome.identical == outcome.cycles - 1
    assert [(d.cycle, d.fields) for d in outcome.differences] == [(7, ("reason",))]


def test_replay_sees_that_a_record_belongs_to_another_snapshot(tmp_path: Path) -> None:
    run = eventful()
    journalled(run, tmp_path, other_snapshot_of=5)
    with open_reader(tmp_path) as reader:
        outcome = last(replay(reader, lambda _: small_application()))
    assert [(d.cycle, d.fields) for d in outcome.differences] == [(5, ("snapshot_digest",))]


def test_replay_sees_a_record_that_was_altered_beside_its_digest(tmp_path: Path) -> None:
    run = eventful()
    journalled(run, tmp_path)
    database = apsw.Connection(str(tmp_path / SAMPLES_FILE))
    data = database.execute("SELECT record FROM cycle WHERE cycle = 9").fetchone()[0]
    assert data.count(b"ACTIVE") == 1
    altered = data.replace(b"ACTIVE", b"MANUAL")
    database.execute("UPDATE cycle SET record = ? WHERE cycle = 9", (altered,))
    database.close()
    with open_reader(tmp_path) as reader:
        outcome = last(replay(reader, lambda _: small_application()))
    assert [(d.cycle, d.fields) for d in outcome.differences] == [(9, ("mode",))]


def test_a_doubt_holds_then_sheds_with_one_frame_that_hands_back() -> None:
    run = active()
    run.cycles(3)
    held = run.bench.frames[-1]["Q1.SP"]
    run.edit = bad("T1.PV")
    for _ in range(3):
        record = run.cycle()
        assert record.mode == "ACTIVE"
        assert record.move.frames["plc"]["Q1.SP"] == held
        assert record.move.reasons["Q1"] == "held: in doubt"
        assert record.doubts[0].startswith("T1.PV")
    shed = run.cycle()
    assert shed.mode == "SHED"
    assert shed.move.frames["plc"]["Q1.REQ"] == 0
    written = len(run.bench.frames)
    run.cycles(5)
    assert len(run.bench.frames) == written
    run.edit = lambda _, samples: samples
    run.activate()


@pytest.mark.parametrize("wanted", ["off", "manual"])
def test_the_operator_takes_back_control(wanted: str) -> None:
    run = active()
    record = run.cycle(mode_command(wanted))
    assert record.mode == wanted.upper()
    assert [record.move.frames["plc"][f"{mv}.REQ"] for mv in ("Q1", "Q2")] == [0, 0]
    assert run.cycle().move.frames == {}


def test_a_silent_plc_sheds() -> None:
    run = active()
    run.bench.alive = False
    modes = [run.cycle().mode for _ in range(10)]
    assert modes[0] == "ACTIVE"
    assert "SHED" in modes
    reasons = [d for r in run.records for d in r.doubts]
    assert any("has not echoed the heartbeat for 3 cycles" in d for d in reasons)


def test_a_setpoint_in_use_that_is_lost_holds_its_mv_and_the_others_go_on() -> None:
    run = active()
    told = run.records[-1].move.values["Q2"]
    run.edit = bad("Q2.SPU")
    records = [run.cycle() for _ in range(run.application.rules.hold_cycles)]
    assert {r.mode for r in records} == {"ACTIVE"}
    for record in records:
        assert record.mv_status["Q2"] == "DROPPED"
        assert record.move.frames["plc"]["Q2.SP"] == told
        assert record.move.reasons["Q2"] == "held: the setpoint in use is not known"
        assert record.move.frames["plc"]["Q1.REQ"] == 1


def test_blind_for_too_long_or_seen_in_local_withdraws_the_request() -> None:
    run = active()
    run.edit = bad("Q2.SPU")
    requests = [run.cycle().move.frames["plc"]["Q2.REQ"] for _ in range(12)]
    hold = run.application.rules.hold_cycles
    assert requests == [1] * hold + [0] * (12 - hold)


def test_no_setpoint_is_requested_that_was_never_followed() -> None:
    """Ready, then blind: the PLC may be anywhere, so nothing is asked of it."""
    run = Run(small_application())
    while run.cycle(mode_command("auto")).mode != "READY":
        pass
    run.edit = bad("Q2.SPU")
    for _ in range(6):
        frame = run.cycle().move.frames.get("plc", {"Q2.REQ": 0})
        assert frame["Q2.REQ"] == 0


def test_old_commands_and_proposals_are_refused() -> None:
    run = active()
    now_ns = run.records[-1].time_ns
    old = Command("old", CommandKind.LIMIT_HIGH, now_ns - 3600 * 10**9, "Q1", 52.0)
    record = run.cycle(old)
    assert record.wishes.high == {}
    assert any("refused: limit_high Q1: more than 600 s old" in e for e in record.events)


def test_wishes_outlive_the_process() -> None:
    run = active()
    record = run.cycle(
        Command("l", CommandKind.LIMIT_HIGH, run.records[-1].time_ns, "Q1", 52.0),
        Command("o", CommandKind.OPTIMIZER, run.records[-1].time_ns, text="hold"),
    )
    kept = decode_wishes(encode_wishes(last_wishes(encode_record(record))))
    assert kept == record.wishes
    assert (kept.high, kept.listening) == ({"Q1": 52.0}, False)


def test_a_saturation_word_that_cannot_be_read_blocks_both_directions() -> None:
    run = active()
    told = run.records[-1].move.values["Q2"]
    run.edit = bad("Q2.SAT")
    for _ in range(3):
        assert run.cycle().move.values["Q2"] == pytest.approx(told, abs=1e-9)


def test_never_active_without_an_estimate() -> None:
    run = Run(small_application())
    run.edit = bad("Q2.SPU")
    run.cycle(mode_command("auto"))
    run.cycles(10)
    assert run.records[-1].estimate is None
    assert {r.mode for r in run.records} == {"INIT"}
    assert run.bench.frames == []


def test_an_mv_in_local_is_left_alone_and_the_other_goes_on() -> None:
    run = active()
    for _ in range(20):
        run.bench.remote["Q2"] = False
        record = run.cycle()
    assert record.mv_status == {"Q1": "ON", "Q2": "LOCAL"}
    assert run.bench.frames[-1]["Q2.SP"] == run.bench.heat["Q2"]
    assert run.bench.heat["Q1"] != 50.0


def test_a_saturated_output_blocks_its_direction() -> None:
    run = active()
    before = run.bench.heat["Q1"]
    run.bench.saturation["Q1"] = 1
    record = run.cycles(6)
    assert run.bench.heat["Q1"] <= before
    assert record.mv_status["Q1"] == "HIGH"


def test_a_late_frame_is_not_taken_for_sent() -> None:
    run = active()
    run.cycles(2)
    in_use = run.bench.heat["Q1"]
    run.cycle()
    run.bench.heat["Q1"] = in_use  # as if the frame had never left
    run.writes = {"plc": WriteOutcome.LATE}
    record = run.cycle()
    assert abs(record.move.values["Q1"] - in_use) <= 5.0 + 1e-9


def test_a_clock_that_jumps_is_a_doubt() -> None:
    run = active()
    snapshot = replace(run.snapshots[-1], cycle=run.state.cycle + 1,
                       time_ns=run.state.time_ns + 3600 * NS_PER_S)  # fmt: skip
    _, record = step(small_application(), run.state, snapshot)
    assert any("clock moved by 3600 s instead of 10 s" in d for d in record.doubts)


def test_a_lab_result_moves_the_estimate_and_says_so() -> None:
    run = active()
    run.cycles(20)
    now_ns = START_NS + round((run.state.cycle + 1) * CYCLE_S * NS_PER_S)
    estimate = run.records[-1].estimate
    assert estimate is not None
    value = float(estimate.y[2]) + 0.3
    fine = QualityResult("r1", "lab", now_ns - 30 * NS_PER_S, now_ns, {"mean": value})
    strange = replace(fine, result_id="r2", source="nobody")
    old = replace(fine, result_id="r3", time_ns=now_ns - 7200 * NS_PER_S)
    void = replace(fine, result_id="r4", valid=False)
    record = run.cycle(results=[fine, fine, strange, old, void])
    assert record.estimate is not None
    verdicts = [f.verdict.value for f in record.estimate.fusions]
    assert verdicts == ["fused", "duplicate", "unusable", "too old", "unusable"]
    assert record.events[0].startswith("result r1: fused, chi-square")


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e9, -1e9])
def test_an_estimate_that_broke_starts_again(poison: float) -> None:
    run = active()
    estimator = run.state.estimator
    assert estimator is not None
    newest = estimator.moments[-1]
    believed = structs.replace(newest.posterior, z=np.full(4, poison))
    lost = structs.replace(newest, posterior=believed)
    broken = structs.replace(estimator, moments=(*estimator.moments[:-1], lost))
    run.state = structs.replace(run.state, estimator=broken)
    record = run.cycle()
    assert record.estimate is not None
    assert record.estimate.healthy
    run.cycles(120)
    assert run.bench.x == pytest.approx([55.0, 40.0], abs=1e-2)


def test_a_critical_laboratory_that_falls_silent_sheds() -> None:
    application = small_application()
    lab = replace(application.sources["lab"], critical=True, stale_after_s=120.0)
    run = Run(replace(application, sources={"lab": lab}))
    run.cycle(mode_command("auto"))
    run.cycles(5)
    assert run.records[-1].mode == "INIT"
    assert "lab: no result has been used yet" in run.records[-1].doubts
    now_ns = START_NS + round((run.state.cycle + 1) * CYCLE_S * NS_PER_S)
    mean = {"mean": float(run.bench.x.mean())}
    run.cycle(results=[QualityResult("r1", "lab", now_ns - 10 * NS_PER_S, now_ns, mean)])
    modes = [run.cycle().mode for _ in range(20)]
    # The result is 10 s old when it comes; 120 s are allowed, then 3 cycles are held.
    assert modes.index("ACTIVE") < modes.index("SHED") == 11 + 3
