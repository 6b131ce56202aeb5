"""A named process variable with its unit and limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    """One scalar of a model: name, unit, limits and nominal value, all in `unit`.

    `low` and `high` bound where the model makes physical sense; `nominal` is the design point.
    """

    name: str
    unit: str
    low: float
    high: float
    nominal: float
    description: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.nominal <= self.high:
            raise ValueError(
                f"variable {self.name}: nominal {self.nominal} {self.unit} is outside "
                f"[{self.low}, {self.high}] {self.unit}"
            )

    @property
    def span(self) -> float:
        """Width of the range, in `unit`; scales this variable in solvers."""
        return self.high - self.low

    def __str__(self) -> str:
        return f"{self.name} = {self.nominal:g} {self.unit} in [{self.low:g}, {self.high:g}]"
