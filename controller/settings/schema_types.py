"""What the sections of a settings file are made of: quantities, numbers in bounds, text."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
QUANTITY = rf"^\s*{NUMBER}\s*($|[A-Za-z%°µμΩ(/].*$|1\s*/.*$)"
_QUANTITY = re.compile(QUANTITY)


def _quantity(value: Any) -> float | str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value):
        return value  # unchanged: a factory may count with whole numbers
    if isinstance(value, str) and _QUANTITY.match(value):
        return value
    raise PydanticCustomError("quantity", "a number, or a number and its unit")


Quantity = Annotated[
    float | str,
    PlainValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": QUANTITY},
            ]
        }
    ),
]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pair = Annotated[list[Quantity], Field(min_length=2, max_length=2)]
Address = Annotated[int, Field(ge=0, le=65535)]
AddressPair = Annotated[list[Address], Field(min_length=2, max_length=2)]
Port = Annotated[int, Field(ge=1, le=65535)]
UnitId = Annotated[int, Field(ge=0, le=255)]
Number = Annotated[float, Field(allow_inf_nan=False)]
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)
"""How every section is read: no unknown keys, no guessing of types."""
