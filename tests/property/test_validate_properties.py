"""Whatever a device delivers: a good reading is finite, in range and not older than allowed."""

from __future__ import annotations

from math import inf, isfinite

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cycle.validate import CONFIRMATIONS, Memory, validate
from controller.signal import NS_PER_S, Sample, Status, Tag

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.floats(-20.0, 120.0),
    st.text(max_size=3),
)
SAMPLES = st.tuples(VALUES, st.sampled_from(Status), st.floats(-5.0, 40.0))
TAGS = st.builds(
    lambda rate, stale, frozen: Tag(
        "T", "plc", "x", "float64", low=0.0, high=100.0,
        rate_max_per_s=rate, stale_after_s=stale, frozen_after_s=frozen,
    ),
    st.sampled_from([0.0, 0.5]), st.sampled_from([0.0, 5.0]), st.sampled_from([0.0, 20.0]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(TAGS, st.lists(st.none() | SAMPLES, min_size=1, max_size=12))
def test_a_good_reading_deserves_it(
    tag: Tag, deliveries: list[tuple[object, Status, float] | None]
) -> None:
    memory: Memory = {}
    ever_usable = False
    for number, delivery in enumerate(deliveries, start=100):
        now_ns = number * 10 * NS_PER_S
        samples: dict[str, Sample] = {}
        age_s = 0.0
        if delivery is not None:
            value, status, age_s = delivery
            taken_ns = now_ns - round(age_s * NS_PER_S)
            samples["T"] = Sample(value, status, taken_ns, now_ns)  # type: ignore[arg-type]
        memory, readings = validate((tag,), memory, samples, now_ns, 10.0)
        reading = readings["T"]
        ever_usable = ever_usable or "T" in memory
        # Once there was a usable value there is always a number to go on with, and a sane one.
        assert isfinite(reading.value) == ever_usable
        if ever_usable:
            assert 0.0 <= reading.value <= 100.0
            kept = memory["T"]
            assert reading.value == kept.value
            assert 0 <= kept.jumps < CONFIRMATIONS
            assert 0.0 <= kept.raw <= 100.0
        else:
            assert reading.age_s == inf
        if reading.good:
            assert delivery is not None
            assert delivery[1].is_good
            assert age_s <= (tag.stale_after_s or 20.0) + 1e-6
            assert reading.why == ""
        elif delivery is None or not delivery[1].is_good:
            assert not reading.status.is_good


@settings(max_examples=60, deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=8))
def test_validation_depends_on_its_arguments_alone(
    deliveries: list[tuple[object, Status, float]],
) -> None:
    tag = Tag("T", "plc", "x", "float64", low=0.0, high=100.0, rate_max_per_s=0.5)

    def once() -> list[object]:
        memory: Memory = {}
        seen: list[object] = []
        for number, (value, status, age_s) in enumerate(deliveries, start=100):
            now_ns = number * 10 * NS_PER_S
            sample = Sample(value, status, now_ns - round(age_s * NS_PER_S), now_ns)  # type: ignore[arg-type]
            memory, readings = validate((tag,), memory, {"T": sample}, now_ns, 10.0)
            seen.append((repr(readings["T"]), repr(memory)))
        return seen

    assert once() == once()
