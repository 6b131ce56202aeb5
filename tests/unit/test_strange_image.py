"""A PLC that shows another image of itself: swapped bytes, another block. Nothing in it counts."""

from __future__ import annotations

import struct

import pytest

from controller.signal import Sample, Status, WriteOutcome
from tests.unit.small_application import Run, small_application


def _swapped(value: float, word: bool) -> float:
    if word:
        return float(struct.unpack("<H", struct.pack(">H", int(value)))[0])
    return struct.unpack("<f", struct.pack(">f", value))[0]


def _image(wrong: frozenset[str] | None, changes: dict[str, float]) -> object:
    """From cycle 60 on: these tags byte-swapped (None: all of them), and these values instead."""

    def edit(number: int, samples: dict[str, Sample]) -> dict[str, Sample]:
        if not 60 <= number < 64:
            return samples
        seen = dict(samples)
        for name, sample in samples.items():
            if wrong is None or name in wrong:
                word = name.endswith((".MODE", ".SAT")) or name == "HBE"
                value = _swapped(float(sample.value or 0.0), word)
                seen[name] = Sample(value, Status.GOOD, sample.time_ns, sample.received_ns)
        for name, value in changes.items():
            seen[name] = Sample(value, Status.GOOD, *_times(samples[name]))
        return seen

    return edit


def _times(sample: Sample) -> tuple[int, int]:
    return sample.time_ns, sample.received_ns


def _run(wrong: frozenset[str] | None, changes: dict[str, float]) -> Run:
    run = Run(small_application())
    run.activate()
    while run.state.cycle < 59:
        run.cycle()
    run.edit = _image(wrong, changes)  # type: ignore[assignment]
    run.cycles(4)
    return run


def test_where_the_echo_cannot_be_ours_the_last_setpoint_is_held() -> None:
    run = _run(None, {"Q1.SPU": 0.0, "Q2.SPU": 0.0, "Q1.MODE": 512.0, "Q2.MODE": 512.0})
    before = run.bench.frames[-5]
    for frame in run.bench.frames[-4:-1]:
        # 0 lies inside the limits of both: only the echo tells that this is not our PLC.
        assert frame["Q1.SP"] == before["Q1.SP"]
        assert frame["Q2.SP"] == before["Q2.SP"]
        assert frame["Q1.REQ"] == frame["Q2.REQ"] == 1
    # It lasts longer than we hold: control is handed back, and taken again with the true image.
    assert run.bench.frames[-1]["Q1.REQ"] == run.bench.frames[-1]["Q2.REQ"] == 0
    record = run.cycles(12)
    assert set(record.mv_status.values()) == {"ON"}


def test_a_local_loop_that_jumped_is_not_followed_before_it_has_lasted() -> None:
    run = _run(frozenset(), {"Q2.SPU": 1.0, "Q2.MODE": 2.0})
    before, first, second = run.bench.frames[-5:-2]
    assert first["Q2.REQ"] == 0
    assert first["Q2.SP"] == before["Q2.SP"]
    assert second["Q2.REQ"] == 1
    assert second["Q2.SP"] == pytest.approx(1.0)
    # The other loop is not concerned.
    assert first["Q1.REQ"] == second["Q1.REQ"] == 1


def test_a_late_echo_is_ours_and_one_that_runs_ahead_is_not() -> None:
    late = Run(small_application())
    late.activate()
    late.cycles(5)
    late.bench.alive = False  # the echo stands still from here on
    late.cycles(2)
    assert late.state.handshake.echoed == {"plc": late.bench.echo}
    assert late.records[-1].mv_status["Q1"] != "DROPPED"
    ahead = Run(small_application())
    ahead.activate()
    ahead.cycles(5)
    ahead.bench.echo += 1
    record = ahead.cycle()
    assert record.mv_status["Q1"] == "DROPPED"
    assert "the setpoint in use is not known" in record.move.reasons["Q1"]


def test_a_frame_that_was_too_late_was_never_told() -> None:
    run = Run(small_application())
    run.activate()
    run.cycles(5)
    before = dict(run.state.handshake.sent)
    run.writes = {"plc": WriteOutcome.LATE}
    run.cycle()
    assert run.state.handshake.told != before
    on_time = dict(run.state.handshake.sent)
    run.cycle()
    assert run.state.handshake.told == on_time
