"""How a cycle is written down: round trips, digests, and the fields in which two records differ."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from types import MappingProxyType

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controller.cycle.record import (
    Timing,
    decode_entry,
    decode_record,
    decode_snapshot,
    differences,
    digest,
    encode_decision,
    encode_record,
    encode_snapshot,
)
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
from tests.unit.small_application import Run, small_application

NAMES = st.text(min_size=1, max_size=6)
TIMES = st.integers(0, 2**62)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=4)
)
FLOATS = st.dictionaries(NAMES, st.floats(), max_size=3)
SNAPSHOTS = st.builds(
    Snapshot,
    cycle=st.integers(0, 2**40),
    time_ns=TIMES,
    samples=st.dictionaries(
        NAMES, st.builds(Sample, VALUES, st.sampled_from(Status), TIMES, TIMES), max_size=4
    ),
    quality_results=st.lists(
        st.builds(
            QualityResult, NAMES, NAMES, TIMES, TIMES, FLOATS, FLOATS, st.booleans(), NAMES
        ),
        max_size=2,
    ).map(tuple),
    commands=st.lists(
        st.builds(
            Command, NAMES, st.sampled_from(CommandKind), TIMES, NAMES,
            st.none() | st.floats(), NAMES, NAMES, NAMES,
        ),
        max_size=2,
    ).map(tuple),
    proposals=st.lists(
        st.builds(Proposal, NAMES, TIMES, FLOATS, st.floats(), NAMES), max_size=2
    ).map(tuple),
    writes=st.dictionaries(NAMES, st.sampled_from(WriteOutcome), max_size=3),
    skipped=st.integers(0, 2**20),
)  # fmt: skip


def plain(value: object) -> object:
    """Comparable: NaN equals NaN, 1 is not 1.0, the order of keys does not count."""
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return repr(value)


@settings(max_examples=150, deadline=None)
@given(SNAPSHOTS)
def test_a_snapshot_comes_back_as_it_was(snapshot: Snapshot) -> None:
    data = encode_snapshot(snapshot)
    back = decode_snapshot(data)
    for field in ("cycle", "time_ns", "quality_results", "commands", "proposals", "skipped"):
        assert plain(getattr(back, field)) == plain(getattr(snapshot, field))
    assert plain(back.samples) == plain(snapshot.samples)
    assert back.writes == snapshot.writes
    assert encode_snapshot(back) == data


def test_nan_survives() -> None:
    samples = {"T": Sample(float("nan"), Status.BAD_SENSOR_FAILURE, 1, 2)}
    back = decode_snapshot(encode_snapshot(Snapshot(0, 0, samples)))
    value = back.samples["T"].value
    assert isinstance(value, float)
    assert math.isnan(value)
    assert back.samples["T"].status is Status.BAD_SENSOR_FAILURE


def test_the_order_of_arrival_of_tags_does_not_matter() -> None:
    a, b = Sample(1.0, Status.GOOD, 0, 0), Sample(2.0, Status.GOOD, 0, 0)
    assert encode_snapshot(Snapshot(0, 0, {"a": a, "b": b})) == encode_snapshot(
        Snapshot(0, 0, MappingProxyType({"b": b, "a": a}))
    )


def test_what_is_no_snapshot_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_snapshot(b"\x93\x01\x02\x03")


def test_a_thing_that_cannot_be_written_down_is_named() -> None:
    record = Run(small_application()).cycle()
    with pytest.raises(TypeError, match="cannot write down a object"):
        encode_record(replace(record, readings={"T": object()}))  # type: ignore[dict-item]


def test_the_digest_leaves_out_the_timing_and_nothing_else() -> None:
    run = Run(small_application())
    run.activate()
    record = run.records[-1]
    late = decode_record(encode_record(record, "seen", Timing(step_ms=12.0)))
    assert late["timing"]["step_ms"] == 12.0
    assert late["snapshot_digest"] == "seen"
    assert late["digest"] == record.digest == replace(record).digest
    assert replace(record, reason="another").digest != record.digest
    assert record.plan is not None
    moved = replace(record.plan, moves=np.nextafter(record.plan.moves, np.inf))
    assert replace(record, plan=moved).digest != record.digest


def test_what_was_decided_is_kept_as_it_was_digested() -> None:
    record = Run(small_application()).cycle()
    entry = decode_entry(encode_record(record))
    assert bytes(entry.decided) == encode_decision(record)
    assert entry.digest == digest(bytes(entry.decided)) == record.digest
    decoded = decode_record(encode_record(record))
    named = set(record.__struct_fields__) | {"digest", "snapshot_digest", "timing"}
    assert set(decoded) == named


def test_differences_name_the_fields() -> None:
    run = Run(small_application())
    run.activate()
    record = run.records[-1]
    one = decode_record(encode_record(record, "seen"))
    changed = replace(record, reason="x", cv_value={"T1": 1.0})
    other = decode_record(encode_record(changed, "seen", Timing(step_ms=3.0)))
    assert differences(one, one) == ()
    assert set(differences(one, other)) == {"reason", "cv_value"}
    assert differences(one, decode_record(encode_record(record, "other"))) == ("snapshot_digest",)


def test_nan_does_not_differ_from_nan() -> None:
    run = Run(small_application())
    record = replace(run.cycle(), readings={"T1.PV": float("nan")})
    one, other = (decode_record(encode_record(record)) for _ in range(2))
    assert differences(one, other) == ()
