"""Chooses an FMU's inputs and outputs and gives them the units and limits of the plant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from controller.errors import ScenarioError
from controller.settings.quantity import QuantityError, affine
from hil.fmu.messages import Facts, Value
from plant_models.process import Vector
from plant_models.variable import Variable

Choice = Sequence[str] | Mapping[str, Mapping[str, object] | None]
"""Names, or names with what differs from modelDescription.xml: unit, low, high, nominal."""

_OPTIONS = ("unit", "low", "high", "nominal")
_NUMERIC = frozenset(
    {"Real", "Integer", "Boolean", "Enumeration", "Float32", "Float64"}
    | {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Variables in the plant's units, and how they become the FMU's: fmu = scale·plant + offset."""

    variables: tuple[Variable, ...]
    scale: Vector
    offset: Vector

    def to_fmu(self, values: Vector) -> list[float]:
        """Values (n,) in the FMU's units."""
        return (self.scale * values + self.offset).tolist()

    def from_fmu(self, values: Sequence[float]) -> Vector:
        """Values (n,) in the plant's units."""
        return (np.asarray(values, dtype=np.float64) - self.offset) / self.scale


def channels(known: Mapping[str, Facts], causality: str, choice: Choice | None) -> Channels:
    """The FMU's inputs or outputs: those chosen, or all scalar numeric ones.

    Raises:
        ScenarioError: a name is unknown or of another kind, a unit does not fit, or the limits
            exclude the nominal value.
    """
    if choice is None:
        choice = [n for n, v in known.items() if v.causality == causality and _is_number(v)]
    options = choice if isinstance(choice, Mapping) else dict.fromkeys(choice)
    found = [_channel(known, causality, name, change or {}) for name, change in options.items()]
    if not found and causality == "output":
        raise ScenarioError("it has no output", mend="Name outputs among its variables")
    scale, offset = (np.array([row[k] for row in found], dtype=np.float64) for k in (1, 2))
    return Channels(tuple(row[0] for row in found), scale, offset)


def _channel(
    known: Mapping[str, Facts], causality: str, name: str, change: Mapping[str, object]
) -> tuple[Variable, float, float]:
    facts = _known(known, name)
    # Any variable may be read; only an input may be driven.
    if not _is_number(facts) or (causality == "input" and facts.causality != "input"):
        kind = f"{'' if facts.scalar else 'array '}{facts.causality} of type {facts.type}"
        raise ScenarioError(
            f"{name} is an {kind}, which cannot be an {causality} of the plant"
            if kind[0] in "aeiou"
            else f"{name} is a {kind}, which cannot be an {causality} of the plant",
            mend=f"Choose among {_names(known, causality)}",
        )
    unknown = sorted(set(change) - set(_OPTIONS))
    if unknown:
        raise ScenarioError(
            f"{name} takes no {', '.join(unknown)}", mend=f"Use {', '.join(_OPTIONS)}"
        )
    declared, unit = facts.unit or "", str(change.get("unit", facts.unit or "1"))
    try:
        scale, offset = affine(unit, declared) if declared and unit != declared else (1.0, 0.0)
    except QuantityError as error:
        raise ScenarioError(f"{name}: {error.what}", mend=error.mend) from error

    def limit(key: str, own: float | None) -> float | None:
        if key in change:
            return _finite(f"{name}.{key}", change[key])
        return None if own is None else (own - offset) / scale

    low, high = limit("low", facts.low), limit("high", facts.high)
    low, high = -inf if low is None else low, inf if high is None else high
    start = limit("nominal", _start(facts))
    if start is None:
        start = min(max(0.0, low), high)
    elif "nominal" not in change and causality == "output":
        start = min(max(start, low), high)
    try:
        return Variable(name, unit, low, high, start, facts.text), scale, offset
    except ValueError as error:
        raise ScenarioError(str(error), mend="Give it a fitting low, high or nominal") from error


def start_values(known: Mapping[str, Facts], start: Mapping[str, object]) -> dict[str, Value]:
    """Start values as they were given, after a look whether each may be set.

    Raises:
        ScenarioError: a name is unknown, its value is computed, or the value does not fit.
    """
    found: dict[str, Value] = {}
    for name, value in start.items():
        facts = _known(known, name)
        given = facts.causality in ("parameter", "input") or facts.initial in ("exact", "approx")
        if not given or not facts.scalar or facts.variability == "constant":
            raise ScenarioError(
                f"{name} ({facts.causality}, {facts.variability}) takes no start value",
                mend=f"Parameters are {_names(known, 'parameter')}",
            )
        if facts.type == "String" and isinstance(value, str):
            found[name] = value
        elif facts.type in _NUMERIC:
            found[name] = _finite(name, value)
        else:
            raise ScenarioError(
                f"{name} is a {facts.type}, which {value!r} is not", mend="Correct the value"
            )
    return found


def parameters(known: Mapping[str, Facts]) -> dict[str, float]:
    """Numeric parameters and the values they start from."""
    found = {
        name: _start(facts)
        for name, facts in known.items()
        if facts.causality == "parameter" and _is_number(facts)
    }
    return {name: value for name, value in found.items() if value is not None}


def _known(known: Mapping[str, Facts], name: str) -> Facts:
    if name not in known:
        raise ScenarioError(
            f"it has no variable {name}",
            mend=f"Inputs are {_names(known, 'input')}, outputs {_names(known, 'output')}",
        )
    return known[name]


def _names(known: Mapping[str, Facts], causality: str) -> str:
    found = [name for name, facts in known.items() if facts.causality == causality]
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    return ", ".join(found[:20]) + more if found else "none"


def _is_number(facts: Facts) -> bool:
    return facts.scalar and facts.type in _NUMERIC


def _start(facts: Facts) -> float | None:
    if facts.start is None:
        return facts.nominal if facts.causality == "output" else None
    if facts.start in ("true", "false"):
        return float(facts.start == "true")
    return float(facts.start)


def _finite(name: str, value: object) -> float:
    if isinstance(value, (bool, int, float)) and isfinite(value):
        return float(value)
    raise ScenarioError(f"{name}: {value!r} is not a finite number", mend="Correct the value")
