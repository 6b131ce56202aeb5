"""The table of fault types for people who write them: what, on what, with which arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hil.faults.kinds import KINDS, TIERS_OF, Kind, Lane
from hil.faults.span import WITH_UNIT, Measure, Span


@dataclass(frozen=True, slots=True)
class _Lane:
    """What the faults of a lane act on, how that is named, and one of them as it is written."""

    title: str
    target: str
    example: str


LANES: Final[Mapping[Lane, _Lane]] = {
    "sensor": _Lane(
        "Transmitters",
        "a measured tag of a loop or indicator; for `kind: awlsim` also an address of its inputs",
        "{at: 5 min, until: 12 min, target: T.PV, type: bias, args: {size: 3 K}}",
    ),
    "quality": _Lane(
        "Laboratory",
        "a source under `lab`; they act on the samples drawn while they last",
        "{at: 1 h, until: 2 h, target: assay, type: late, args: {delay_s: 30 min}}",
    ),
    "loop": _Lane(
        "Loops and their valves",
        "a loop, which has the name of its manipulated variable",
        "{at: 10 min, until: 20 min, target: F, type: saturation, args: {low: 0, high: 15}}",
    ),
    "device": _Lane(
        "PLCs",
        "a device of the application",
        "{at: 80 min, until: 85 min, target: feed, type: stop}",
    ),
    "link": _Lane(
        "Links",
        "the device at the end of the line",
        "{at: 40 min, until: 46 min, target: feed, type: modbus_exception, args: {code: 4}}",
    ),
    "plant": _Lane(
        "Plant",
        "a parameter of the plant for parameter_drift, else one of its inputs",
        "{at: 38 min, until: 50 min, target: k10, type: parameter_drift, args: {factor: 0.97}}",
    ),
    "host": _Lane(
        "Controller",
        "always `controller`: its process and machine",
        "{at: 20 min, until: 21 min, target: controller, type: clock_step, args: {step_s: -5 s}}",
    ),
}

_UNITS: Final[Mapping[Measure, str]] = {
    "": "",
    "s": "s",
    "ms": "ms",
    "tag": "the tag's unit",
    "tag difference": "the tag's unit, a difference",
    "tag per s": "the tag's unit per s",
    "setpoint": "the setpoint's unit",
    "output": "as output_range",
    "output per s": "as output_range, per s",
    "plant input": "the plant input's unit",
}


def faults_as_markdown() -> str:
    """A section for each lane: its target, its types in a table, and one as YAML."""
    return "\n".join(_section(lane, about) for lane, about in LANES.items())


def _section(lane: Lane, about: _Lane) -> str:
    kinds = {name: kind for name, kind in KINDS.items() if kind.lane == lane}
    lines = [
        f"### {about.title}",
        "",
        f"`target`: {about.target}.",
        "",
        "| type | while it lasts | args | tiers |",
        "|---|---|---|---|",
        *(_row(name, kind) for name, kind in kinds.items()),
        "",
        "```yaml",
        "faults:",
        f"  - {about.example}",
        "```",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, kind: Kind) -> str:
    does = kind.does + (f" ({kind.driver} only)" if kind.driver else "")
    args = [_argument(argument, span, "") for argument, span in kind.required.items()]
    args += [_argument(argument, span, "optional, ") for argument, span in kind.optional.items()]
    tiers = [tier for tier in ("virtual", "wire", "realtime") if tier in TIERS_OF[name]]
    told = "all" if len(tiers) == 3 else ", ".join(tiers)
    return f"| `{name}` | {does} | {'<br>'.join(args) or '–'} | {told} |"


def _argument(name: str, span: Span, optional: str) -> str:
    default = "" if span.default is None else f"{span.default:g} by default, "
    unit = _UNITS[span.measure]
    plain = "" if not unit or span.measure in WITH_UNIT else ", without writing it"
    counted = f" ({unit}{plain})" if unit else ""
    unlimited = not span.choices and span.low == -math.inf and span.high == math.inf
    values = "a number" if unlimited else str(span).replace("a finite number", "a number")
    return f"`{name}`: {optional}{default}{values}{counted}"
