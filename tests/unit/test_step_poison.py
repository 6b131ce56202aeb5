"""One cycle with poison in every tag and message: what is written stays sound, and it recovers."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from controller.cycle.step import step
from controller.signal import (
    NS_PER_S,
    Command,
    CommandKind,
    Proposal,
    QualityResult,
    Sample,
    Status,
)
from tests.unit.small_application import FRAME_TAGS, Run, small_application


def active() -> Run:
    run = Run(small_application())
    run.activate()
    return run


@pytest.mark.parametrize("tag", ["Q1.SPU", "T1.PV", "FEED.PV"])
def test_one_absurd_number_is_soon_forgotten(tag: str) -> None:
    wide = tuple(replace(t, low=-np.inf, high=np.inf) for t in small_application().tags)
    run = Run(replace(small_application(), tags=wide))
    run.activate()
    run.cycles(40)
    run.edit = lambda _, s: {**s, tag: structs.replace(s[tag], value=1e300)}
    run.cycle()
    run.edit = lambda _, s: s
    run.cycles(3)
    estimate = run.records[-1].estimate
    assert estimate is not None
    assert estimate.y[:2] == pytest.approx(run.bench.x, abs=5.0)
    run.cycles(20)
    assert run.records[-1].mode == "ACTIVE"


NUMERIC_TAGS = tuple(t.name for t in small_application().tags)
POISON = [float("nan"), float("inf"), float("-inf"), None, "x", 1e300, -1e300, -1]


def assert_frames_are_sound(run: Run) -> None:
    for frame in run.bench.frames:
        assert set(frame) == FRAME_TAGS
        for value in frame.values():
            assert isinstance(value, int | float)
            assert isfinite(value)
        assert all(0.0 <= float(frame[f"{mv}.SP"] or 0.0) <= 100.0 for mv in ("Q1", "Q2"))


@pytest.mark.parametrize("tag", NUMERIC_TAGS)
def test_poison_in_any_tag_never_reaches_a_frame(tag: str) -> None:
    run = active()
    for value in POISON:
        run.edit = lambda _, s, v=value: {**s, tag: structs.replace(s[tag], value=v)}
        run.cycle()
        run.edit = lambda _, s: s
        run.cycles(2)
    assert_frames_are_sound(run)
    run.activate()


def test_poison_in_every_message_never_reaches_a_frame() -> None:
    run = active()
    with np.errstate(all="ignore"):
        for number, poison in enumerate([np.nan, np.inf, -np.inf, 1e200, 0.0, -1.0]):
            value, now_ns = float(poison), run.state.time_ns + 10**10
            drawn = now_ns - 30 * NS_PER_S
            results = [
                QualityResult(f"a{number}", "lab", drawn, now_ns, {"mean": value}),
                QualityResult(f"b{number}", "lab", drawn, now_ns, {"mean": 47.0}, {"mean": value}),
                QualityResult(f"c{number}", "lab", drawn, now_ns, {}, {"mean": value}),
            ]
            commands = [
                Command(f"{kind}{name}{number}", kind, now_ns, name, value)
                for kind in (CommandKind.SETPOINT, CommandKind.LIMIT_LOW, CommandKind.LIMIT_HIGH)
                for name in ("T1", "Q2")
            ]
            run.cycle(*commands, results=results)
            proposal = Proposal(f"p{number}", now_ns, {"Q1": value}, gain=value)
            snapshot = replace(run.snapshots[-1], cycle=run.state.cycle + 1,
                               time_ns=run.state.time_ns + 10**10, proposals=(proposal,),
                               quality_results=(), commands=())  # fmt: skip
            run.state, record = step(run.application, run.state, snapshot)
            run.writes = {d: run.bench.take(f) for d, f in record.move.frames.items()}
    assert_frames_are_sound(run)
    assert run.records[-1].estimate is not None
    assert np.all(np.isfinite(run.records[-1].estimate.x))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(NUMERIC_TAGS),
            st.tuples(
                st.sampled_from(POISON) | st.floats() | st.floats(0.0, 100.0),
                st.sampled_from([Status.GOOD, Status.GOOD, Status.BAD]),
                st.integers(-(10**12), 10**12),
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_read_the_frames_are_sound(
    cycles: list[dict[str, tuple[object, Status, int]]],
) -> None:
    run = active()
    for changes in cycles:
        run.edit = lambda _, samples, changes=changes: {
            **samples,
            **{
                t: Sample(v, s, samples[t].time_ns + late, samples[t].received_ns)  # type: ignore[arg-type]
                for t, (v, s, late) in changes.items()
            },
        }
        run.cycle()
    run.edit = lambda _, samples: samples
    run.cycles(2)
    assert_frames_are_sound(run)
