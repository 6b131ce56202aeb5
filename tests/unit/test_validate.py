"""Which samples are trusted, which are replaced by the last good one, and why."""

from __future__ import annotations

import gc
from math import inf, isnan

import pytest

from controller.cycle.validate import CONFIRMATIONS, Memory, Reading, TagMemory, validate
from controller.signal import NS_PER_S, Sample, Status, Tag, Value

CYCLE_S = 10.0


def tag(**more: object) -> Tag:
    return Tag("T", "plc", "x", "float64", unit="degC", **more)  # type: ignore[arg-type]


class Sensor:
    """Feeds one tag, a cycle at a time."""

    def __init__(self, tag: Tag) -> None:
        self.tag, self.memory, self.now_ns = tag, {}, 0
        self.memory: Memory

    def see(
        self, value: Value, status: Status = Status.GOOD, age_s: float = 0.0, missing: bool = False
    ) -> Reading:
        self.now_ns += round(CYCLE_S * NS_PER_S)
        taken = self.now_ns - round(age_s * NS_PER_S)
        samples = {} if missing else {"T": Sample(value, status, taken, self.now_ns)}
        self.memory, readings = validate((self.tag,), self.memory, samples, self.now_ns, CYCLE_S)
        return readings["T"]


def test_a_good_sample_is_taken_as_it_is() -> None:
    sensor = Sensor(tag())
    reading = sensor.see(21.5)
    assert (reading.value, reading.status, reading.age_s) == (21.5, Status.GOOD, 0.0)
    assert reading.good
    assert reading.why == ""
    taken = sensor.now_ns
    assert sensor.memory == {"T": TagMemory(21.5, taken, raw=21.5, changed_ns=taken, jumps=0)}
    assert sensor.see(22.5, age_s=4.0).age_s == 4.0
    taken = sensor.now_ns - 4 * NS_PER_S
    assert sensor.memory == {"T": TagMemory(22.5, taken, raw=22.5, changed_ns=taken, jumps=0)}


def test_readings_and_memory_are_values_that_the_garbage_collector_need_not_see() -> None:
    sensor = Sensor(tag())
    for value in (sensor.see(21.5), sensor.memory["T"]):
        assert not gc.is_tracked(value)
        with pytest.raises(AttributeError):
            value.value = 22.0  # type: ignore[misc]


@pytest.mark.parametrize("status", Status)
def test_only_a_good_status_is_good(status: Status) -> None:
    assert Reading(1.0, status, 0.0).good is (status >> 30 == 0)


@pytest.mark.parametrize(("value", "expected"), [(True, 1.0), (False, 0.0), (7, 7.0)])
def test_bits_and_whole_numbers_become_numbers(value: Value, expected: float) -> None:
    reading = Sensor(tag()).see(value)
    assert reading.value == expected
    assert type(reading.value) is float


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_the_ends_of_the_range_belong_to_it(value: float) -> None:
    assert Sensor(tag(low=0.0, high=100.0)).see(value).good


REFUSED: list[tuple[Value, Status, float, Status]] = [
    (float("nan"), Status.GOOD, 0.0, Status.BAD_SENSOR_FAILURE),
    (float("inf"), Status.GOOD, 0.0, Status.BAD_SENSOR_FAILURE),
    (float("-inf"), Status.GOOD, 0.0, Status.BAD_SENSOR_FAILURE),
    (None, Status.GOOD, 0.0, Status.BAD),
    ("21.5", Status.GOOD, 0.0, Status.BAD),
    (21.5, Status.BAD_COMMUNICATION_ERROR, 0.0, Status.BAD_COMMUNICATION_ERROR),
    (100.1, Status.GOOD, 0.0, Status.BAD_OUT_OF_RANGE),
    (-0.1, Status.GOOD, 0.0, Status.BAD_OUT_OF_RANGE),
    (21.5, Status.GOOD, 20.1, Status.UNCERTAIN_LAST_USABLE),
]


@pytest.mark.parametrize(("value", "status", "age_s", "verdict"), REFUSED)
def test_what_is_refused_leaves_the_last_good_value(
    value: Value, status: Status, age_s: float, verdict: Status
) -> None:
    sensor = Sensor(tag(low=0.0, high=100.0))
    for _ in range(3):
        sensor.see(20.0)
    memory = sensor.memory
    reading = sensor.see(value, status, age_s)
    assert (reading.value, reading.status, reading.age_s) == (20.0, verdict, CYCLE_S)
    assert not reading.good
    assert reading.why
    assert sensor.memory == memory


@pytest.mark.parametrize(("value", "status", "age_s", "verdict"), REFUSED)
def test_without_a_last_good_value_there_is_none(
    value: Value, status: Status, age_s: float, verdict: Status
) -> None:
    sensor = Sensor(tag(low=0.0, high=100.0))
    reading = sensor.see(value, status, age_s)
    assert isnan(reading.value)
    assert reading.status == verdict
    assert reading.age_s == inf
    assert reading.why
    assert sensor.memory == {}


@pytest.mark.parametrize(
    ("value", "status", "age_s", "why"),
    [
        (None, Status.GOOD, 0.0, "the device did not deliver it"),
        (float("nan"), Status.GOOD, 0.0, "not a number"),
        (100.1, Status.GOOD, 0.0, "100.1 degC is outside [0, 100]"),
        (21.5, Status.GOOD, 25.0, "25 s old, 20 s allowed"),
    ],
)
def test_the_reason_is_told(value: Value, status: Status, age_s: float, why: str) -> None:
    assert Sensor(tag(low=0.0, high=100.0)).see(value, status, age_s).why == why


def test_a_tag_that_was_not_read_waits_for_data() -> None:
    reading = Sensor(tag()).see(0.0, missing=True)
    assert reading.status is Status.BAD_WAITING_FOR_INITIAL_DATA
    assert reading.why == "no sample"


@pytest.mark.parametrize(("limit_s", "age_s", "good"), [
    (0.0, 20.0, True), (0.0, 20.001, False), (5.0, 5.0, True), (5.0, 5.001, False),
])  # fmt: skip
def test_the_limit_of_age(limit_s: float, age_s: float, good: bool) -> None:
    assert Sensor(tag(stale_after_s=limit_s)).see(1.0, age_s=age_s).good is good


def test_an_uncertain_sample_is_used_but_not_good() -> None:
    reading = Sensor(tag()).see(3.0, Status.UNCERTAIN_SENSOR_NOT_ACCURATE)
    assert reading.value == 3.0
    assert not reading.good


def test_a_single_spike_is_rejected() -> None:
    sensor = Sensor(tag(rate_max_per_s=0.1))
    sensor.see(20.0)
    reading = sensor.see(21.1)  # 1.0 is allowed in 10 s
    assert reading.value == 20.0
    assert reading.status is Status.UNCERTAIN_SENSOR_NOT_ACCURATE
    assert reading.why == "jumped from 20 to 21.1 degC"
    assert reading.age_s == CYCLE_S
    first, now = sensor.now_ns - 10 * NS_PER_S, sensor.now_ns
    assert sensor.memory == {"T": TagMemory(20.0, first, raw=21.1, changed_ns=now, jumps=1)}
    assert sensor.see(20.5).good


def test_a_rejected_jump_may_be_reached_at_the_permitted_rate() -> None:
    sensor = Sensor(tag(rate_max_per_s=0.1))
    sensor.see(20.0)
    assert not sensor.see(21.9).good
    assert sensor.see(21.9).good  # 1.9 in 20 s


@pytest.mark.parametrize("change", [1.25, -1.25])
def test_a_change_of_exactly_the_permitted_rate_is_no_jump(change: float) -> None:
    sensor = Sensor(tag(rate_max_per_s=0.125))  # 1.25 in 10 s: floats hold these exactly
    sensor.see(20.0)
    assert sensor.see(20.0 + change).good


@pytest.mark.parametrize("age_s", [9.0, 12.0])
def test_a_sample_that_is_hardly_newer_may_still_move_by_what_a_cycle_permits(age_s: float) -> None:
    sensor = Sensor(tag(rate_max_per_s=0.125))
    sensor.see(20.0)
    assert sensor.see(21.0, age_s=age_s).good  # taken 1 s after the one before, or 2 s before it
    assert not sensor.see(30.0).good


def test_a_jump_that_stays_is_believed() -> None:
    sensor = Sensor(tag(rate_max_per_s=0.1))
    sensor.see(20.0)
    rejected = [sensor.see(80.0) for _ in range(CONFIRMATIONS - 1)]
    assert [r.value for r in rejected] == [20.0, 20.0]
    accepted = sensor.see(80.0)
    assert accepted.good
    assert accepted.value == 80.0
    assert not sensor.see(20.0).good  # and the count starts anew


def test_a_frozen_value_is_not_trusted_until_it_moves() -> None:
    sensor = Sensor(tag(frozen_after_s=30.0))
    assert [sensor.see(5.0).good for _ in range(4)] == [True, True, True, False]
    reading = sensor.see(5.0)
    assert reading.status is Status.BAD_SENSOR_FAILURE
    assert reading.why == "has not changed for 40 s"
    assert (reading.value, reading.age_s) == (5.0, 40.0)
    assert sensor.see(5.01).good


@pytest.mark.parametrize("moved", [5.01, 4.99])
def test_the_least_change_in_either_direction_shows_that_a_value_lives(moved: float) -> None:
    sensor = Sensor(tag(frozen_after_s=30.0))
    for _ in range(3):
        sensor.see(5.0)
    assert [sensor.see(moved).good for _ in range(4)] == [True, True, True, False]


def test_a_frozen_value_keeps_what_was_known_before() -> None:
    sensor = Sensor(tag(frozen_after_s=20.0, rate_max_per_s=0.1))
    sensor.see(5.0)
    seen = [sensor.see(8.0), sensor.see(8.0)]
    assert [r.status for r in seen] == [Status.UNCERTAIN_SENSOR_NOT_ACCURATE] * 2
    frozen = sensor.see(8.0)
    assert (frozen.status, frozen.value) == (Status.BAD_SENSOR_FAILURE, 5.0)
    since = sensor.now_ns - 20 * NS_PER_S
    assert sensor.memory == {
        "T": TagMemory(5.0, since - 10 * NS_PER_S, raw=8.0, changed_ns=since, jumps=2)
    }


def test_a_clock_that_was_set_back_does_not_delay_the_watch_for_a_frozen_value() -> None:
    sensor = Sensor(tag(frozen_after_s=30.0))
    sensor.now_ns = 3600 * NS_PER_S
    sensor.see(5.0)
    sensor.now_ns = 0
    assert [sensor.see(5.0).good for _ in range(4)] == [True, True, True, False]


def test_a_gap_does_not_look_frozen() -> None:
    sensor = Sensor(tag(frozen_after_s=30.0))
    sensor.see(5.0)
    for _ in range(10):
        sensor.see(None, Status.BAD_COMMUNICATION_ERROR)
    assert sensor.see(5.1).good


def test_tags_do_not_disturb_each_other() -> None:
    tags = (tag(), Tag("P", "plc", "y", "float32", low=0.0, high=1.0))
    samples = {n: Sample(v, Status.GOOD, 0, 0) for n, v in (("T", 5.0), ("P", 2.0))}
    memory, readings = validate(tags, {}, samples, 0, CYCLE_S)
    assert readings["T"].good
    assert not readings["P"].good
    assert set(memory) == {"T"}
