"""The table of fault types as JSON Schema, so that an editor completes and checks a fault."""

from __future__ import annotations

import math
from typing import Any

from controller.settings.schema_types import QUANTITY
from hil.faults.kinds import KINDS, Kind
from hil.faults.span import WITH_UNIT, Span


def add_fault_types(section: dict[str, Any]) -> None:
    """Let the schema of a scenario's `faults` entry know every type and its arguments.

    Args:
        section: the schema with the properties `type` and `args`; changed in place.
    """
    section["properties"]["type"]["enum"] = [*KINDS]
    section["allOf"] = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": _told(kind),
        }
        for name, kind in KINDS.items()
    ]


def _told(kind: Kind) -> dict[str, Any]:
    arguments = {
        "properties": {name: _number(span) for name, span in kind.arguments.items()},
        "additionalProperties": False,
        **({"required": [*kind.required]} if kind.required else {}),
    }
    needed = {"required": ["args"]} if kind.required else {}
    return {"properties": {"args": arguments}, **needed}


def _number(span: Span) -> dict[str, Any]:
    """What `Span.holds` says, except that it also refuses what is not finite."""
    found: dict[str, Any] = {"type": "integer" if span.whole else "number"}
    if span.choices:
        found["enum"] = [*span.choices]
    if span.low > -math.inf:
        found["exclusiveMinimum" if span.above_low else "minimum"] = span.low
    if span.high < math.inf:
        found["maximum"] = span.high
    if span.but is not None:
        found["not"] = {"const": span.but}
    if span.measure in WITH_UNIT:
        found = {"anyOf": [found, {"type": "string", "pattern": QUANTITY}]}
    if span.default is not None:
        found["default"] = span.default
    return found
