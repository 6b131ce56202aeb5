"""Every fault type there is: what it acts on, which arguments it takes, where it makes sense."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType
from typing import Final, Literal, Protocol

from controller.errors import ScenarioError
from controller.settings.yaml_core import written
from hil.names import unknown_name

Driver = Literal["s7", "modbus"]
Lane = Literal["sensor", "quality", "loop", "device", "link", "plant", "host"]
Tier = Literal["virtual", "wire", "realtime"]
NO_ARGS: Final[Mapping[str, float]] = MappingProxyType({})
HOST: Final = "controller"
"""Target of host faults: the process that runs the controller, and its machine."""


class LinkFault(StrEnum):
    """What can be wrong with the line to a device.

    byte_order, word_order and stale_image concern every answer to a read, that of a read-back
    too: a write then reaches the PLC and still counts as failed. byte_order turns single words as
    well; word_order leaves them alone; neither touches bits and bytes.
    """

    CABLE_CUT = "cable_cut"  # bytes vanish both ways, and nobody answers who wants to connect
    RESET = "reset"  # open connections get an RST, new ones at their first byte
    REFUSE = "refuse"  # nobody listens; open connections are reset
    DELAY = "delay"  # frames arrive late, both ways, in order
    DROP = "drop"  # a frame is lost now and then, either way
    HALF_OPEN = "half_open"  # connections open at the beginning go dead, new ones work
    MODBUS_EXCEPTION = "modbus_exception"  # requests are refused and do not reach the PLC
    S7_ERROR = "s7_error"  # reads and writes are refused and do not reach the PLC
    BYTE_ORDER = "byte_order"  # read values arrive with the bytes of each word swapped
    WORD_ORDER = "word_order"  # read values arrive with their 16-bit words reversed
    STALE_IMAGE = "stale_image"  # reads repeat what they gave before the fault
    RECONNECT_STORM = "reconnect_storm"  # every connection is reset, again and again


@dataclass(frozen=True, slots=True)
class Span:
    """Values that an argument may take, all finite; `choices` leaves nothing between them.

    Attributes:
        but: the one value in between that means something else.
        default: of an argument that may be left out; None where the fault itself finds one.
    """

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    whole: bool = False
    choices: tuple[float, ...] = ()
    but: float | None = None
    default: float | None = None

    def holds(self, value: float) -> bool:
        if not math.isfinite(value) or (self.choices and value not in self.choices):
            return False
        if value == self.but or (self.whole and value != round(value)):
            return False
        return self.low <= value <= self.high and not (self.above_low and value == self.low)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(f'{choice:g}' for choice in self.choices)}"
        text = "a whole number" if self.whole else "a finite number"
        if self.low > -math.inf:
            text += f" {'above' if self.above_low else 'from'} {self.low:g}"
        text += f" up to {self.high:g}" if self.high < math.inf else ""
        return text + ("" if self.but is None else f", and not {self.but:g}")


_ANY = Span()
_POSITIVE = Span(low=0.0, above_low=True)
_NOT_NEGATIVE = Span(low=0.0)
_CHANCE = Span(low=0.0, high=1.0, above_low=True)
_ALWAYS = Span(low=0.0, high=1.0, above_low=True, default=1.0)
_S7_CONTEXT_NOT_SUPPORTED: Final = 0x8104
"""What an S7-1200 or S7-1500 says while PUT/GET is not permitted."""
# Up to 0xFF the return code of an item (0xFF itself is success), above class and code of a header.
_S7_CODE = Span(1, 0xFFFF, whole=True, but=0xFF, default=_S7_CONTEXT_NOT_SUPPORTED)
_MODBUS_CODE = Span(choices=(2, 4, 6))
"""Illegal address, device failure, device busy."""


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

    @property
    def arguments(self) -> Mapping[str, Span]:
        """All of them, the required ones first."""
        return {**self.required, **self.optional}


_RANGE: Final = MappingProxyType({"low": _ANY, "high": _ANY})

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "freeze": Kind("sensor"),
        "bias": Kind("sensor", {"size": _ANY}),
        "drift": Kind("sensor", {"rate_per_s": _ANY}),
        "spike": Kind("sensor", {"size": _ANY}, {"probability": _ALWAYS}),
        "nan": Kind("sensor"),
        "out_of_range": Kind("sensor", {"value": _ANY}),
        "quantise": Kind("sensor", {"step": _POSITIVE}),
        "late": Kind("quality", {"delay_s": _POSITIVE}),
        "missing": Kind("quality", {}, {"probability": _ALWAYS}),
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
        LinkFault.CABLE_CUT.value: Kind("link"),
        LinkFault.RESET.value: Kind("link", is_event=True),
        LinkFault.REFUSE.value: Kind("link"),
        LinkFault.DELAY.value: Kind(
            "link", {"delay_ms": _NOT_NEGATIVE}, {"jitter_ms": Span(low=0.0, default=0.0)}
        ),
        LinkFault.DROP.value: Kind("link", {"probability": _CHANCE}),
        LinkFault.HALF_OPEN.value: Kind("link"),
        LinkFault.MODBUS_EXCEPTION.value: Kind(
            "link", {"code": _MODBUS_CODE}, {"probability": _ALWAYS}, "modbus"
        ),
        LinkFault.S7_ERROR.value: Kind(
            "link", {}, {"code": _S7_CODE, "probability": _ALWAYS}, "s7"
        ),
        LinkFault.BYTE_ORDER.value: Kind("link"),
        LinkFault.WORD_ORDER.value: Kind("link"),
        LinkFault.STALE_IMAGE.value: Kind("link"),
        LinkFault.RECONNECT_STORM.value: Kind("link", {"period_ms": Span(low=1.0)}),
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
        (with a `probability` per scan), nan, out_of_range `value`, quantise `step`. What does not
        fit the type of the tag ends at its largest value; nan needs a real number.
    quality, on a lab source, of the samples drawn while it lasts: late `delay_s`, missing
        (`probability`), swapped (two bottles exchange their labels), lab_outlier `sigmas`.
    loop, on a slave loop: mode_flip (the operator keeps it in LOCAL). On its valve, in output
        units: stiction `band`, deadband `size`, saturation `low` `high`, rate_limit `rate_per_s`,
        stuck. On its setpoint, in its unit: refuse_write, clamp_write `low` `high`.
    device, on a PLC: stop, heartbeat_freeze.
    link, on a PLC: cable_cut, reset, refuse, delay `delay_ms` (`jitter_ms`; of real time), drop
        `probability`, half_open, modbus_exception `code` (`probability`), s7_error (`code`,
        `probability`), byte_order, word_order, stale_image, reconnect_storm `period_ms`.
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


class Where(Protocol):
    """Says where something stands, such as the argument `args`, `code` of a fault in its file."""

    def __call__(self, *place: str) -> str: ...


def where_of(number: int) -> Where:
    """Places in the fault with this number, where there is no file: `faults[2].args.code`."""

    def where(*place: str) -> str:
        return written(("faults", number, *place))

    return where


def check_fault(fault: Fault, where: Where) -> None:
    """Type, arguments and times of one fault, whatever its target is.

    Raises:
        ScenarioError: an unknown type or argument (the nearest known one is named), an argument
            that is missing or outside its range, or times that leave nothing to happen.
    """
    check_arguments(fault.type, fault.args, where)
    _check_times(fault, KINDS[fault.type], where)


def check_arguments(fault_type: str, args: Mapping[str, float], where: Where) -> None:
    """What a fault is told beside its target and its times.

    Raises:
        ScenarioError: an unknown type or argument (the nearest known one is named), an argument
            that is missing or outside its range.
    """
    kind = KINDS.get(fault_type)
    if kind is None:
        raise unknown_name("fault type", fault_type, KINDS, where("type"))
    spans = kind.arguments
    for name in args:
        if name not in spans:
            raise unknown_name(f"argument of {fault_type}", name, spans, where("args", name))
    for name, span in kind.required.items():
        if name not in args:
            raise ScenarioError(
                f"{fault_type} needs the argument {name}",
                where=where("args"),
                mend=f"Add it: {span}",
            )
    for name, value in args.items():
        if not spans[name].holds(value):
            raise ScenarioError(
                f"the argument {name} of {fault_type} is {value:g}",
                where=where("args", name),
                mend=f"Make it {spans[name]}",
            )
    _check_meaning(fault_type, args, where)


def check_driver(fault_type: str, driver: Driver, device: str, where: Where) -> None:
    """Raises ScenarioError where the protocol of a device knows no such fault."""
    wanted = KINDS[fault_type].driver
    if wanted is not None and driver != wanted:
        raise ScenarioError(
            f"{device} speaks {driver}, which knows no {fault_type}",
            where=where("target"),
            mend=f"Take a device of the driver {wanted}",
        )


def completed(fault_type: str, args: Mapping[str, float]) -> Mapping[str, float]:
    """The arguments of a fault, and the defaults of those that were left out."""
    optional = KINDS[fault_type].optional
    left_out = {name: s.default for name, s in optional.items() if name not in args}
    return {**args, **{name: value for name, value in left_out.items() if value is not None}}


def check_overlaps(faults: Sequence[Fault]) -> None:
    """Raises ScenarioError where one fault would begin while its like is on the same target."""
    for (i, one), (j, other) in combinations(enumerate(faults), 2):
        if (one.type, one.target) != (other.type, other.target):
            continue
        if one.at_s == other.at_s or (one.at_s < other.until_s and other.at_s < one.until_s):
            raise ScenarioError(
                f"{one.type} of {one.target} overlaps in time with faults[{i}]",
                where=where_of(j)(),
                mend="Let one end before the other begins, or make them one",
            )


def check_tier(faults: Sequence[Fault], tier: Tier) -> None:
    """Raises ScenarioError for a fault that makes no sense in this tier."""
    for number, fault in enumerate(faults):
        known = TIERS_OF.get(fault.type)
        if known is not None and tier not in known:
            raise ScenarioError(
                f"{fault.type} means nothing in the {tier} tier",
                where=where_of(number)(),
                mend=f"Run it in the {_either(known)} tier, or leave the fault out",
            )


def _either(tiers: Collection[Tier]) -> str:
    return " or ".join(tier for tier in ("virtual", "wire", "realtime") if tier in tiers)


def _check_meaning(fault_type: str, args: Mapping[str, float], where: Where) -> None:
    """What no range of a single argument says."""
    if {"low", "high"} <= args.keys() and not args["low"] < args["high"]:
        raise ScenarioError(
            f"the range [{args['low']:g}, {args['high']:g}] of {fault_type} is empty",
            where=where("args"),
            mend="Take low below high",
        )
    if args.get("step_s") == 0.0:
        raise ScenarioError(
            "a clock step of 0 s is none",
            where=where("args", "step_s"),
            mend="Take a time before or after now",
        )


def _check_times(fault: Fault, kind: Kind, where: Where) -> None:
    if not 0.0 <= fault.at_s <= fault.until_s or fault.at_s == math.inf:
        raise ScenarioError(
            f"a fault cannot last from {fault.at_s:g} s until {fault.until_s:g} s",
            where=where("until"),
            mend="Let it begin at 0 s or later, and end no sooner than it begins",
        )
    if fault.at_s == fault.until_s and not kind.is_event:
        raise ScenarioError(
            f"{fault.type} that begins and ends at {fault.at_s:g} s is never felt",
            where=where("until"),
            mend="Let it end later",
        )
    if fault.type == "parameter_drift" and fault.until_s == math.inf:
        raise ScenarioError(
            "a parameter drifts linearly until an end, and this drift has none",
            where=where("until"),
            mend="Give it an until",
        )
