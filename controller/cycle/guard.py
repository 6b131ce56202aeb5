"""The guard: the only way from a plan to a value on the wire. Imports nothing of ours.

For every MV it decides *whether* a setpoint may be sent (allowed) and *which* (finite, inside the
limits, not faster than the rate, not into a saturated output). In doubt it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

_ROUNDING = 1.0 + 1e-9
"""A step from the setpoint in use, which a REAL holds, may be longer than a step by that much."""


@dataclass(frozen=True, slots=True)
class GuardedMv:
    """Limits and tags of one MV. Values in `unit`, rate in `unit` per second."""

    name: str
    device: str
    unit: str
    low: float
    high: float
    rate_per_s: float
    setpoint: str
    request: str


@dataclass(frozen=True, slots=True)
class GuardedDevice:
    """The handshake words of one device, by tag name; empty where the PLC has none."""

    name: str
    heartbeat: str
    sequence: str
    epoch: str


@dataclass(frozen=True, slots=True)
class MvFacts:
    """What is known of an MV's slave loop in this cycle.

    Attributes:
        in_use: setpoint the PLC works with, or None when it cannot be read.
        last_sent: setpoint of our previous frame if the loop has followed us since, else None.
        remote: the slave loop follows us; high, low: its output is saturated that way.
        operator_low, operator_high: limits set by the operator, inside the engineering limits.
        confirmed: while the setpoint in use cannot be read: the one that was written when the loop
            was last seen following us, not longer ago than holding is allowed; else None.
        parked: last setpoint in use that could be read; only fills the block of a device.
        told: setpoint of our previous frame if it asked for control, followed or not.
        echoing: the PLC has answered to our previous frame.
        unconfirmed: our previous frame could not be read back, or not as it was written.
    """

    in_use: float | None
    last_sent: float | None
    remote: bool
    high: bool
    low: bool
    operator_low: float
    operator_high: float
    confirmed: float | None = None
    parked: float | None = None
    told: float | None = None
    echoing: bool = True
    unconfirmed: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """What the mode machine allows this cycle.

    Attributes:
        handshake: frames may be sent at all (READY, ACTIVE, or the one frame that hands back).
        control: MVs may be requested and moved (ACTIVE).
        hold: no MV may move (doubt).
    """

    handshake: bool
    control: bool
    hold: bool


@dataclass(frozen=True, slots=True)
class Move:
    """The guard's decision.

    Attributes:
        values: per MV, the setpoint it stands for; allowed: whether control is requested.
        reasons: per MV, why the plan was changed or refused; empty where it was not.
        frames: per device, values by tag, to be written in one request; empty: write nothing.
    """

    values: Mapping[str, float]
    allowed: Mapping[str, bool]
    reasons: Mapping[str, str]
    frames: Mapping[str, Mapping[str, float]]


def guard(
    mvs: tuple[GuardedMv, ...],
    devices: tuple[GuardedDevice, ...],
    authority: Authority,
    wanted: Mapping[str, float],
    facts: Mapping[str, MvFacts],
    cycle_s: float,
    heartbeat: int,
    sequence: int,
    epoch: int,
) -> Move:
    """Decide what may be written. `wanted` holds the plan's next setpoint per MV."""
    values: dict[str, float] = {}
    allowed: dict[str, bool] = {}
    reasons: dict[str, str] = {}
    for mv in mvs:
        fact = facts[mv.name]
        decision = _decide(mv, fact, authority, wanted.get(mv.name), cycle_s)
        if decision.value is not None:
            values[mv.name] = decision.value
        allowed[mv.name] = authority.control and decision.request
        if decision.reason:
            reasons[mv.name] = decision.reason
    frames: dict[str, Mapping[str, float]] = {}
    if authority.handshake:
        for device in devices:
            own = [mv for mv in mvs if mv.device == device.name]
            # Without a known setpoint for each of its MVs the block cannot be sent whole.
            if all(mv.name in values for mv in own):
                words: dict[str, float] = {
                    device.heartbeat: heartbeat,
                    device.sequence: sequence,
                    device.epoch: epoch,
                }
                words.pop("", None)
                for mv in own:
                    words[mv.request] = int(allowed[mv.name])
                    words[mv.setpoint] = values[mv.name]
                frames[device.name] = words
    return Move(values, allowed, reasons, frames)


class _Decision(NamedTuple):
    """The setpoint to send (None: nothing can be sent), whether to request it, and why."""

    value: float | None
    request: bool
    reason: str


def _decide(
    mv: GuardedMv, fact: MvFacts, authority: Authority, wanted: float | None, cycle_s: float
) -> _Decision:
    base = fact.last_sent if fact.remote and fact.last_sent is not None else fact.in_use
    if base is None or not isfinite(base):
        return _blind(mv, fact)
    told = _sound(mv, fact.told)
    if authority.control and fact.remote and told is not None:
        # What is in use may be misread like everything else: what was sent stands.
        if authority.hold:
            return _Decision(told, True, "held: in doubt")
        if fact.unconfirmed:
            return _Decision(told, True, "held: the last frame was not confirmed")
    if not mv.low <= base <= mv.high:
        # The PLC runs outside our limits: never take over there, never jump to the limit either.
        why = f"the setpoint in use, {base:g} {mv.unit}, is outside [{mv.low:g}, {mv.high:g}]"
        return _Decision(_inside(mv, base), False, f"not requested: {why}")
    if not authority.control:
        return _Decision(base, False, "tracking")
    if told is None and (authority.hold or not fact.echoing):
        why = "in doubt" if authority.hold else "the PLC has not answered to the last frame"
        return _Decision(base, False, f"not requested: {why}")
    if authority.hold:
        return _Decision(base, True, "held: in doubt")
    if not fact.remote:
        return _Decision(base, True, "tracking: the slave loop is not in REMOTE")
    if told is None:
        return _Decision(base, True, "tracking: the first request moves nothing")
    if wanted is None or not isfinite(wanted):
        return _Decision(base, True, f"held: the plan asks for {wanted}")
    value, reason = _approach(mv, fact, base, told, wanted, cycle_s)
    return _Decision(value, True, reason)


def _blind(mv: GuardedMv, fact: MvFacts) -> _Decision:
    """Without the setpoint in use: repeat what the loop was following, or withdraw the request."""
    why = "the setpoint in use is not known"
    followed = _sound(mv, fact.confirmed)
    if followed is not None:
        return _Decision(followed, True, f"held: {why}")
    if fact.parked is None or not isfinite(fact.parked):
        return _Decision(None, False, why)
    return _Decision(_inside(mv, fact.parked), False, f"not requested: {why}")


def _sound(mv: GuardedMv, value: float | None) -> float | None:
    """A setpoint that was sent before, if it may be sent again."""
    fits = value is not None and isfinite(value) and mv.low <= value <= mv.high
    return value if fits else None


def _approach(
    mv: GuardedMv,
    fact: MvFacts,
    base: float,
    told: float,
    wanted: float,
    cycle_s: float,
) -> tuple[float, str]:
    """The wanted value, as far as limits, rate and a saturated output let it, and what did not."""
    low, high = max(mv.low, fact.operator_low), min(mv.high, fact.operator_high)
    high = max(low, high)  # Limits that cross leave nothing to choose: the low one stands.
    # Where limits have been moved past where we are, the rate below makes it an approach.
    value, reason = min(max(wanted, low), high), ""
    if value != wanted:
        reason = f"limited to [{low:g}, {high:g}] {mv.unit}"
    step = mv.rate_per_s * cycle_s
    if abs(value - base) > step:
        value = base + step if value > base else base - step
        reason = f"limited to {mv.rate_per_s * 60:g} {mv.unit}/min"
    if abs(value - told) > step * _ROUNDING:
        # The PLC uses another setpoint than it was sent: go there no faster than the rate either.
        value = told + step if value > told else told - step
        reason = "limited: the setpoint in use is not the one that was sent"
    # To the setpoint in use is no move, wherever it was told to go.
    if fact.high and value > base:
        value, reason = base, "held: the output is saturated high"
    if fact.low and value < base:
        value, reason = base, "held: the output is saturated low"
    return _inside(mv, value), reason


def _inside(mv: GuardedMv, value: float) -> float:
    return min(max(value, mv.low), mv.high)


def release(
    mvs: tuple[GuardedMv, ...],
    devices: tuple[GuardedDevice, ...],
    frames: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """The frames of an earlier move once more, with every request withdrawn: the last resort.

    For the case that no cycle can be decided any more. Setpoints repeat what was allowed before,
    and with the request at 0 the PLC does not use them.
    """
    released: dict[str, dict[str, float]] = {}
    for device in devices:
        if device.name not in frames:
            continue
        words = dict(frames[device.name])
        for word in (device.heartbeat, device.sequence):
            if word in words:
                words[word] = int(words[word]) % 65535 + 1
        words |= {mv.request: 0 for mv in mvs if mv.device == device.name}
        released[device.name] = words
    return released
