"""Every fault type there is: what it acts on, which arguments it takes, where it makes sense."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from types import MappingProxyType
from typing import Final, Literal

from controller.errors import ScenarioError
from hil.link.frames import Driver
from hil.names import unknown_name

Lane = Literal["sensor", "quality", "loop", "device", "link", "plant", "host"]
Tier = Literal["virtual", "wire", "realtime"]
NO_ARGS: Final[Mapping[str, float]] = MappingProxyType({})
HOST: Final = "controller"
"""Target of host faults: the process that runs the controller, and its machine."""


@dataclass(frozen=True, slots=True)
class Span:
    """Values that an argument may take, all finite; `choices` leaves nothing between them."""

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    whole: bool = False
    choices: tuple[float, ...] = ()

    def holds(self, value: float) -> bool:
        if not math.isfinite(value) or (self.choices and value not in self.choices):
            return False
        if self.whole and value != round(value):
            return False
        return self.low <= value <= self.high and not (self.above_low and value == self.low)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(f'{choice:g}' for choice in self.choices)}"
        text = "a whole number" if self.whole else "a finite number"
        if self.low > -math.inf:
            text += f" {'above' if self.above_low else 'from'} {self.low:g}"
        return text + (f" up to {self.high:g}" if self.high < math.inf else "")


_ANY = Span()
_POSITIVE = Span(low=0.0, above_low=True)
_NOT_NEGATIVE = Span(low=0.0)
_CHANCE = Span(low=0.0, high=1.0, above_low=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault type acts on, its arguments, and where it makes sense.

    Attributes:
        required, optional: arguments by name with the values they may take.
        driver: the only protocol that knows this fault; None where any does.
        is_event: it happens at an instant, so it may begin and end at the same time.
    """

    lane: Lane
    required: Mapping[str, Span] = field(default_factory=lambda: MappingProxyType({}))
    optional: Mapping[str, Span] = field(default_factory=lambda: MappingProxyType({}))
    driver: Driver | None = None
    is_event: bool = False


_RANGE: Final = MappingProxyType({"low": _ANY, "high": _ANY})

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "freeze": Kind("sensor"),
        "bias": Kind("sensor", {"size": _ANY}),
        "drift": Kind("sensor", {"rate_per_s": _ANY}),
        "spike": Kind("sensor", {"size": _ANY}, {"probability": _CHANCE}),
        "nan": Kind("sensor"),
        "out_of_range": Kind("sensor", {"value": _ANY}),
        "quantise": Kind("sensor", {"step": _POSITIVE}),
        "late": Kind("quality", {"delay_s": _POSITIVE}),
        "missing": Kind("quality", {}, {"probability": _CHANCE}),
        "swapped": Kind("quality"),
        "lab_outlier": Kind("quality", {"sigmas": _POSITIVE}),
        "mode_flip": Kind("loop"),
        "stiction": Kind("loop", {"band": _POSITIVE}),
        "deadband": Kind("loop", {"size": _POSITIVE}),
        "saturation": Kind("loop", _RANGE),
        "rate_limit": Kind("loop", {"rate_per_s": _POSITIVE}),
        "stuck": Kind("loop"),
        "refuse_write": Kind("loop"),
        "clamp_write": Kind("loop", _RANGE),
        "stop": Kind("device"),
        "heartbeat_freeze": Kind("device"),
        "cable_cut": Kind("link"),
        "reset": Kind("link", is_event=True),
        "refuse": Kind("link"),
        "delay": Kind("link", {"delay_ms": _NOT_NEGATIVE}, {"jitter_ms": _NOT_NEGATIVE}),
        "drop": Kind("link", {"probability": _CHANCE}),
        "half_open": Kind("link"),
        "modbus_exception": Kind(
            "link", {"code": Span(choices=(2, 4, 6))}, {"probability": _CHANCE}, "modbus"
        ),
        "s7_error": Kind(
            "link", {}, {"code": Span(1, 0xFFFF, whole=True), "probability": _CHANCE}, "s7"
        ),
        "byte_order": Kind("link"),
        "word_order": Kind("link"),
        "stale_image": Kind("link"),
        "reconnect_storm": Kind("link", {"period_ms": _POSITIVE}),
        "parameter_drift": Kind("plant", {"factor": _POSITIVE}, is_event=True),
        "feed_change": Kind("plant", {"to": _ANY}),
        "gain_flip": Kind("plant"),
        "kill": Kind("host", is_event=True),
        "pause": Kind("host"),
        "disk_full": Kind("host"),
        "clock_step": Kind("host", {"step_s": _ANY}),
        "cpu_load": Kind("host", {}, {"workers": Span(1, 64, whole=True)}),
    }
)

_EVERY_TIER: Final[frozenset[Tier]] = frozenset(("virtual", "wire", "realtime"))
# The virtual tier runs the controller inside its own process, which nothing may kill or starve.
_OTHER_PROCESS: Final[frozenset[Tier]] = frozenset(("wire", "realtime"))

TIERS_OF: Final[Mapping[str, frozenset[Tier]]] = MappingProxyType(
    {name: _OTHER_PROCESS if kind.lane == "host" else _EVERY_TIER for name, kind in KINDS.items()}
)
"""In which tiers a fault type makes sense."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `type` acts on `target` from `at_s` to `until_s`, seconds of scenario time.

    sensor, on a measured tag, in its unit: freeze, bias `size`, drift `rate_per_s`, spike `size`
        (with a `probability` per scan), nan, out_of_range `value`, quantise `step`.
    quality, on a lab source, of the samples drawn while it lasts: late `delay_s`, missing
        (`probability`), swapped (two bottles exchange their labels), lab_outlier `sigmas`.
    loop, on a slave loop: mode_flip (the operator keeps it in LOCAL). On its valve, in output
        units: stiction `band`, deadband `size`, saturation `low` `high`, rate_limit `rate_per_s`,
        stuck. On its setpoint, in its unit: refuse_write, clamp_write `low` `high`.
    device, on a PLC: stop, heartbeat_freeze.
    link, on a PLC: cable_cut, reset, refuse, delay `delay_ms` (`jitter_ms`), drop `probability`,
        half_open, modbus_exception `code` (`probability`), s7_error (`code`, `probability`),
        byte_order, word_order, stale_image, reconnect_storm `period_ms`.
    plant: parameter_drift `factor` of a parameter (linear until the end, then it stays),
        feed_change `to` of an input that no loop drives, gain_flip of an input (its effect around
        its value at the beginning is reversed).
    host, on `controller`: kill, pause, disk_full, clock_step `step_s`, cpu_load (`workers`).
    """

    at_s: float
    until_s: float
    target: str
    type: str
    args: Mapping[str, float] = field(default_factory=lambda: NO_ARGS)

    @property
    def lane(self) -> Lane:
        return KINDS[self.type].lane


def check_fault(fault: Fault, where: str) -> None:
    """Type, arguments and times of one fault, whatever its target is.

    Raises:
        ScenarioError: an unknown type or argument (the nearest known one is named), an argument
            that is missing or outside its range, or times that leave nothing to happen.
    """
    kind = KINDS.get(fault.type)
    if kind is None:
        raise unknown_name("fault type", fault.type, KINDS, where)
    spans = {**kind.required, **kind.optional}
    for name in fault.args:
        if name not in spans:
            raise unknown_name(f"argument of {fault.type}", name, spans, where)
    missing = [name for name in kind.required if name not in fault.args]
    if missing:
        raise ScenarioError(
            f"{fault.type} needs the argument {', '.join(missing)}", where=where, mend="Add it"
        )
    for name, value in fault.args.items():
        if not spans[name].holds(value):
            raise ScenarioError(
                f"the argument {name} of {fault.type} is {value:g}",
                where=where,
                mend=f"Make it {spans[name]}",
            )
    _check_meaning(fault, where)
    _check_times(fault, kind, where)


def check_overlaps(faults: Sequence[Fault]) -> None:
    """Raises ScenarioError where one fault would begin while its like is on the same target."""
    for (i, one), (j, other) in combinations(enumerate(faults), 2):
        if (one.type, one.target) != (other.type, other.target):
            continue
        if one.at_s == other.at_s or (one.at_s < other.until_s and other.at_s < one.until_s):
            raise ScenarioError(
                f"{one.type} of {one.target} overlaps in time with faults[{i}]",
                where=f"faults[{j}]",
                mend="Let one end before the other begins, or make them one",
            )


def check_tier(faults: Sequence[Fault], tier: Tier) -> None:
    """Raises ScenarioError for a fault that makes no sense in this tier."""
    for number, fault in enumerate(faults):
        known = TIERS_OF.get(fault.type)
        if known is not None and tier not in known:
            raise ScenarioError(
                f"{fault.type} means nothing in the {tier} tier",
                where=f"faults[{number}]",
                mend=f"Run it in the {_either(known)} tier, or leave the fault out",
            )


def _either(tiers: Collection[Tier]) -> str:
    return " or ".join(tier for tier in ("virtual", "wire", "realtime") if tier in tiers)


def _check_meaning(fault: Fault, where: str) -> None:
    """What no range of a single argument says."""
    args = fault.args
    if {"low", "high"} <= args.keys() and not args["low"] < args["high"]:
        raise ScenarioError(
            f"the range [{args['low']:g}, {args['high']:g}] of {fault.type} is empty",
            where=where,
            mend="Take low below high",
        )
    if args.get("step_s") == 0.0:
        raise ScenarioError(
            "a clock step of 0 s is none", where=where, mend="Take a time before or after now"
        )


def _check_times(fault: Fault, kind: Kind, where: str) -> None:
    if not 0.0 <= fault.at_s <= fault.until_s or fault.at_s == math.inf:
        raise ScenarioError(
            f"a fault cannot last from {fault.at_s:g} s until {fault.until_s:g} s",
            where=where,
            mend="Let it begin at 0 s or later, and end no sooner than it begins",
        )
    if fault.at_s == fault.until_s and not kind.is_event:
        raise ScenarioError(
            f"{fault.type} that begins and ends at {fault.at_s:g} s is never felt",
            where=where,
            mend="Let it end later",
        )
    if fault.type == "parameter_drift" and fault.until_s == math.inf:
        raise ScenarioError(
            "a parameter drifts linearly until an end, and this drift has none",
            where=where,
            mend="Give it an until",
        )
