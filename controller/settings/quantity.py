"""Converts what engineers write (`0.1 kg/s/min`, `0.2 K`, `76 degC`) into the unit wanted.

Temperatures come in two kinds. A value is absolute: 350 K is 76.85 °C. A difference, such as a
standard deviation or a rate, is not: 0.2 K is 0.2 °C. The caller says which one it wants.
"""

from __future__ import annotations

import functools
import math
import re
import tokenize
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pint
from pint.errors import PintError

from controller.settings.schema_types import NUMBER

_PARTS = re.compile(rf"\s*({NUMBER})\s*(.*?)\s*", re.DOTALL)
# What a unit is written with. The unit parser computes whatever it is given, and stumbles over
# some of it: no number may stand anywhere but before a slash or as the one short exponent.
_UNIT = re.compile(
    r"""(?: [A-Za-z_%°µμΩ] [A-Za-z0-9_]*+
          | (?:\*\*|\^) \s*+ [-+]? \d{1,2}+ (?:\.\d{1,3}+)? (?! \s* (?:\*\*|\^|[²³⁻¹.\d]))
          | ⁻?[¹²³] (?! [²³⁻¹])
          | 1 (?= \s*/)
          | \*(?!\*) | [/·()\s]
        )+""",
    re.VERBOSE,
)
_NONE = frozenset({"", "1"})

# Money has a unit like any other quantity, but no fixed rate of exchange: one dimension each.
_CURRENCIES = ("EUR", "USD", "GBP", "CHF", "JPY", "CNY")


class QuantityError(ValueError):
    """The text cannot be converted: `what` is wrong and how to `mend` it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


@functools.cache
def _registry() -> pint.UnitRegistry[float]:
    registry: pint.UnitRegistry[float] = pint.UnitRegistry()
    for currency in _CURRENCIES:
        registry.define(f"{currency} = [currency_{currency}]")
    return registry


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit as a line: value in base units = slope · value + offset."""

    slope: float
    offset: float
    dimensions: Any


@functools.cache
def _unit(text: str) -> _Unit:
    wrong = QuantityError(f"{text!r} is not a unit", "Write a unit such as s, kg/s, K/min or degC")
    if text in _NONE:
        return _Unit(1.0, 0.0, _registry().Unit("").dimensionality)
    if not _UNIT.fullmatch(text):
        raise wrong
    try:
        unit: Any = _registry().parse_units(text)
        zero, one, thousand = (
            float(_registry().Quantity(v, unit).to_base_units().magnitude)
            for v in (0.0, 1.0, 1000.0)
        )
    except (PintError, ArithmeticError, ValueError, TypeError, AttributeError, SyntaxError):
        raise wrong from None
    except (AssertionError, RecursionError, tokenize.TokenError):
        raise wrong from None
    # A degree of an offset scale is a simple fraction of a kelvin: 1, 5/9, 5/4. Far points and
    # the nearest such fraction free it from rounding.
    degree = Fraction((thousand - zero) / 1000.0).limit_denominator(1000)
    slope = float(degree) if zero else one
    if abs(one - zero - slope) > 1e-9 * abs(slope):
        raise QuantityError(f"{text!r} is a logarithmic unit", "Use a linear unit")
    return _Unit(slope, zero, unit.dimensionality)


def _affine(source: str, target: str) -> tuple[float, float] | None:
    """(a, b) with target value = a · source value + b, or None where dimensions differ."""
    s, t = _unit(source), _unit(target)
    if s.dimensions != t.dimensions:
        return None
    return s.slope / t.slope, (s.offset - t.offset) / t.slope


def check_unit(text: str) -> None:
    """Raises QuantityError where `text` is not a unit."""
    _unit(text)


def affine(source: str, target: str) -> tuple[float, float]:
    """(a, b) such that a value v in `source` is a·v + b in `target`.

    Raises:
        QuantityError: an unknown unit, or different dimensions; names both.
    """
    result = _affine(source, target)
    if result is None:
        raise _mismatch(source, target)
    return result


def value(quantity: float | str, unit: str) -> float:
    """An absolute value in `unit`; a bare number is in `unit` already."""
    return _convert(quantity, unit, difference=False)


def difference(quantity: float | str, unit: str, per: str = "") -> float:
    """A difference, spread or step in `unit`, or such a thing `per` a time.

    >>> difference("0.6 K/min", "degC", per="s")
    0.01
    """
    return _convert(quantity, unit, difference=True, per=per)


def seconds(quantity: float | str) -> float:
    """A time in seconds; a bare number is in seconds already."""
    return _convert(quantity, "s", difference=False)


def _convert(quantity: float | str, unit: str, *, difference: bool, per: str = "") -> float:
    if not isinstance(quantity, str):
        return float(quantity)
    parts = _PARTS.fullmatch(quantity)
    if parts is None:
        raise QuantityError(f"{quantity!r} is not a quantity", "Write a number and its unit")
    number, source = float(parts[1]), parts[2]
    if source:
        line = _affine(source, f"{_delta(unit)}/{per}" if per else unit)
        if line is None:
            raise _mismatch(source, f"{unit}/{per}" if per else unit)
        number = line[0] * number + (0.0 if difference else line[1])
    if not math.isfinite(number):
        raise QuantityError(f"{quantity!r} is too large", "Write a finite number")
    return number


def _delta(unit: str) -> str:
    """The unit of a difference, ready to be divided."""
    if unit in _NONE:
        return "1"
    _unit(unit)
    return f"({unit})"


def _mismatch(source: str, target: str) -> QuantityError:
    got = "has no unit" if source in _NONE else f"is in {source}"
    if target in _NONE:
        return QuantityError(f"the value {got}, expected a number without unit", "Remove the unit")
    return QuantityError(
        f"the value {got}, expected a unit that converts to {target}",
        f"Write the value in {target}",
    )
