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
from hil.faults.span import Measure, Span
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

    CABLE_CUT = "cable_cut"
    RESET = "reset"
    REFUSE = "refuse"
    DELAY = "delay"
    DROP = "drop"
    HALF_OPEN = "half_open"
    MODBUS_EXCEPTION = "modbus_exception"
    S7_ERROR = "s7_error"
    BYTE_ORDER = "byte_order"
    WORD_ORDER = "word_order"
    STALE_IMAGE = "stale_image"
    RECONNECT_STORM = "reconnect_storm"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault type acts on, its arguments, and where it makes sense.

    Attributes:
        does: what happens while it lasts, in a few words.
        required, optional: arguments by name with the values they may take.
        driver: the only protocol that knows this fault; None where any does.
        is_event: it happens at an instant, so it may begin and end at the same time.
    """

    lane: Lane
    does: str
    required: Mapping[str, Span] = field(default_factory=lambda: MappingProxyType({}))
    optional: Mapping[str, Span] = field(default_factory=lambda: MappingProxyType({}))
    driver: Driver | None = None
    is_event: bool = False

    @property
    def arguments(self) -> Mapping[str, Span]:
        """All of them, the required ones first."""
        return {**self.required, **self.optional}


def _any(measure: Measure = "") -> Span:
    return Span(measure)


def _positive(measure: Measure = "") -> Span:
    return Span(measure, low=0.0, above_low=True)


_CHANCE = Span(low=0.0, high=1.0, above_low=True)
_ALWAYS = Span(low=0.0, high=1.0, above_low=True, default=1.0)
_S7_CONTEXT_NOT_SUPPORTED: Final = 0x8104
"""What an S7-1200 or S7-1500 says while PUT/GET is not permitted."""
# Up to 0xFF the return code of an item (0xFF itself is success), above class and code of a header.
_S7_CODE = Span(low=1, high=0xFFFF, whole=True, but=0xFF, default=_S7_CONTEXT_NOT_SUPPORTED)
_MODBUS_CODE = Span(choices=(2, 4, 6))
"""Illegal address, device failure, device busy."""

_OUTPUT_RANGE: Final = MappingProxyType({"low": _any("output"), "high": _any("output")})
_SETPOINT_RANGE: Final = MappingProxyType({"low": _any("setpoint"), "high": _any("setpoint")})

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "freeze": Kind("sensor", "shows the value of the beginning"),
        "bias": Kind("sensor", "is off by size", {"size": _any("tag difference")}),
        "drift": Kind("sensor", "is off by more and more", {"rate_per_s": _any("tag per s")}),
        "spike": Kind(
            "sensor",
            "is off by size, up or down, in a scan now and then",
            {"size": _any("tag difference")},
            {"probability": _ALWAYS},
        ),
        "nan": Kind("sensor", "shows no number; the tag must be a real number"),
        "out_of_range": Kind(
            "sensor", "shows a value outside the tag's range", {"value": _any("tag")}
        ),
        "quantise": Kind("sensor", "shows whole steps only", {"step": _positive("tag difference")}),
        "late": Kind("quality", "results arrive later", {"delay_s": _positive("s")}),
        "missing": Kind("quality", "results never arrive", {}, {"probability": _ALWAYS}),
        "swapped": Kind("quality", "two bottles exchange their labels"),
        "lab_outlier": Kind(
            "quality", "results are off by so many standard deviations", {"sigmas": _positive()}
        ),
        "mode_flip": Kind("loop", "the operator keeps the loop in LOCAL"),
        "stiction": Kind("loop", "the valve sticks, and jumps", {"band": _positive("output")}),
        "deadband": Kind("loop", "small changes do not move it", {"size": _positive("output")}),
        "saturation": Kind("loop", "the valve moves in this range only", _OUTPUT_RANGE),
        "rate_limit": Kind(
            "loop", "the valve moves slowly", {"rate_per_s": _positive("output per s")}
        ),
        "stuck": Kind("loop", "the valve stays where it is"),
        "refuse_write": Kind("loop", "the PLC does not take a new setpoint"),
        "clamp_write": Kind(
            "loop", "the PLC clamps setpoints to a part of its own range", _SETPOINT_RANGE
        ),
        "stop": Kind("device", "the PLC is in STOP"),
        "heartbeat_freeze": Kind("device", "the PLC repeats an old heartbeat"),
        LinkFault.CABLE_CUT.value: Kind(
            "link", "bytes vanish both ways, and nobody answers who wants to connect"
        ),
        LinkFault.RESET.value: Kind(
            "link", "open connections get an RST, new ones at their first byte", is_event=True
        ),
        LinkFault.REFUSE.value: Kind("link", "nobody listens; open connections are reset"),
        LinkFault.DELAY.value: Kind(
            "link",
            "frames arrive late, both ways, in order; in real time",
            {"delay_ms": Span("ms", low=0.0)},
            {"jitter_ms": Span("ms", low=0.0, default=0.0)},
        ),
        LinkFault.DROP.value: Kind(
            "link", "a frame is lost now and then, either way", {"probability": _CHANCE}
        ),
        LinkFault.HALF_OPEN.value: Kind(
            "link", "connections open at the beginning go dead, new ones work"
        ),
        LinkFault.MODBUS_EXCEPTION.value: Kind(
            "link",
            "requests are refused and do not reach the PLC",
            {"code": _MODBUS_CODE},
            {"probability": _ALWAYS},
            "modbus",
        ),
        LinkFault.S7_ERROR.value: Kind(
            "link",
            "reads and writes are refused and do not reach the PLC",
            {},
            {"code": _S7_CODE, "probability": _ALWAYS},
            "s7",
        ),
        LinkFault.BYTE_ORDER.value: Kind(
            "link", "read values arrive with the bytes of each word swapped"
        ),
        LinkFault.WORD_ORDER.value: Kind(
            "link", "read values arrive with their 16-bit words reversed"
        ),
        LinkFault.STALE_IMAGE.value: Kind("link", "reads repeat what they gave before the fault"),
        LinkFault.RECONNECT_STORM.value: Kind(
            "link",
            "every connection is reset, again and again",
            {"period_ms": Span("ms", low=1.0)},
        ),
        "parameter_drift": Kind(
            "plant",
            "the parameter goes linearly to factor times its value, and stays there",
            {"factor": _positive()},
            is_event=True,
        ),
        "feed_change": Kind(
            "plant", "an input that no loop drives is changed", {"to": _any("plant input")}
        ),
        "gain_flip": Kind("plant", "an input acts the other way round"),
        "kill": Kind("host", "the control process ends, and is started again", is_event=True),
        "pause": Kind("host", "the control process stands still"),
        "disk_full": Kind("host", "the journal cannot be written"),
        "clock_step": Kind(
            "host", "the controller's clock is wrong by so much", {"step_s": _any("s")}
        ),
        "cpu_load": Kind(
            "host",
            "others take the processor; without workers all of it",
            {},
            {"workers": Span(low=1, high=64, whole=True)},
        ),
    }
)
"""The one table of fault types: the schema, the documentation and the swarm are made from it."""

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

    What a type does, on which target, with which arguments: `KINDS`.
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


def kind_of(fault_type: str, where: Where) -> Kind:
    """Raises ScenarioError for an unknown type; it proposes the nearest."""
    if fault_type not in KINDS:
        raise unknown_name("fault type", fault_type, KINDS, where("type"))
    return KINDS[fault_type]


def check_arguments(fault_type: str, args: Mapping[str, float], where: Where) -> None:
    """What a fault is told beside its target and its times.

    Raises:
        ScenarioError: an unknown type or argument (the nearest known one is named), an argument
            that is missing or outside its range.
    """
    kind = kind_of(fault_type, where)
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
