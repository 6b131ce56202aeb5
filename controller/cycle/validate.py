"""From raw samples to trusted readings: range, rate, stale, frozen, not-a-number."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from msgspec import Struct

from controller.signal import NS_PER_S, Sample, Status, Tag

# A jump that is repeated that many times in a row is a process that moved, not a bad reading.
CONFIRMATIONS = 3

# Nearly every status of every cycle is this one, and `is` costs a tenth of a look at its bits.
_GOOD = Status.GOOD


class Reading(Struct, frozen=True, gc=False):
    """A value with what it is worth. `value` is the last usable one when the status is not good.

    A struct, not a dataclass, because there is one per tag and cycle: it is made in an eighth of
    the time.
    """

    value: float
    status: Status
    age_s: float
    why: str = ""

    @property
    def good(self) -> bool:
        return self.status is _GOOD or self.status.is_good


class TagMemory(Struct, frozen=True, gc=False):
    """What is remembered of a tag: last good value and its time, last change, rejected jumps."""

    value: float
    time_ns: int
    raw: float
    changed_ns: int
    jumps: int = 0


Memory = Mapping[str, TagMemory]


def validate(
    tags: tuple[Tag, ...],
    memory: Memory,
    samples: Mapping[str, Sample],
    now_ns: int,
    cycle_s: float,
) -> tuple[Memory, dict[str, Reading]]:
    """Readings by tag name, and the memory for the next cycle."""
    after: dict[str, TagMemory] = {}
    readings: dict[str, Reading] = {}
    for tag in tags:
        name = tag.name
        kept, readings[name] = _one(tag, memory.get(name), samples.get(name), now_ns, cycle_s)
        if kept is not None:
            after[name] = kept
    return after, readings


def _one(
    tag: Tag, memory: TagMemory | None, sample: Sample | None, now_ns: int, cycle_s: float
) -> tuple[TagMemory | None, Reading]:
    if sample is None:
        return memory, _fallback(memory, now_ns, Status.BAD_WAITING_FOR_INITIAL_DATA, "no sample")
    raw, status, time_ns = sample.value, sample.status, sample.time_ns
    if raw is None or isinstance(raw, str) or (status is not _GOOD and status.is_bad):
        status = status if status.is_bad else Status.BAD
        return memory, _fallback(memory, now_ns, status, "the device did not deliver it")
    value = float(raw)
    if not isfinite(value):
        return memory, _fallback(memory, now_ns, Status.BAD_SENSOR_FAILURE, "not a number")
    if not tag.low <= value <= tag.high:
        why = f"{value:g} {tag.unit} is outside [{tag.low:g}, {tag.high:g}]"
        return memory, _fallback(memory, now_ns, Status.BAD_OUT_OF_RANGE, why)
    age_s = (now_ns - time_ns) / NS_PER_S
    limit_s = tag.stale_after_s or 2 * cycle_s
    if age_s > limit_s:
        why = f"{age_s:.0f} s old, {limit_s:g} s allowed"
        return memory, _fallback(memory, now_ns, Status.UNCERTAIN_LAST_USABLE, why)
    if memory is None:
        return TagMemory(value, time_ns, value, time_ns), Reading(value, status, age_s)
    # The clock may have been set back: nothing has changed later than now.
    changed_ns = time_ns if value != memory.raw else min(memory.changed_ns, time_ns)
    if tag.frozen_after_s and (time_ns - changed_ns) / NS_PER_S >= tag.frozen_after_s:
        still_s = (time_ns - changed_ns) / NS_PER_S
        why = f"has not changed for {still_s:.0f} s"
        seen = TagMemory(memory.value, memory.time_ns, value, changed_ns, memory.jumps)
        return seen, Reading(memory.value, Status.BAD_SENSOR_FAILURE, still_s, why)
    if tag.rate_max_per_s and memory.jumps + 1 < CONFIRMATIONS:
        elapsed_s = max((time_ns - memory.time_ns) / NS_PER_S, cycle_s)
        if abs(value - memory.value) > tag.rate_max_per_s * elapsed_s:
            why = f"jumped from {memory.value:g} to {value:g} {tag.unit}"
            jumped = TagMemory(memory.value, memory.time_ns, value, changed_ns, memory.jumps + 1)
            uncertain = Status.UNCERTAIN_SENSOR_NOT_ACCURATE
            return jumped, Reading(memory.value, uncertain, elapsed_s, why)
    return TagMemory(value, time_ns, value, changed_ns), Reading(value, status, age_s)


def _fallback(memory: TagMemory | None, now_ns: int, status: Status, why: str) -> Reading:
    if memory is None:
        return Reading(float("nan"), status, float("inf"), why)
    return Reading(memory.value, status, (now_ns - memory.time_ns) / NS_PER_S, why)
