"""What the resolving of a file shares: its problems, the model's variables, units, names in use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from controller.settings import quantity
from controller.settings.problems import Problems, suggestion
from controller.settings.quantity import QuantityError
from controller.settings.schema import ApplicationFile
from controller.settings.yaml_core import KeyPath, written
from controller.signal import Access, Tag
from plant_models.process import ProcessModel
from plant_models.variable import Variable

Part = Literal["state", "input", "disturbance", "output"]

# Stands for a number that has its problem noted already: every comparison with it is false, so
# no second problem follows from the first.
UNKNOWN = math.nan


@dataclass(slots=True)
class Context:
    """State of one resolving.

    Attributes:
        model: None where it could not be had; names and units are then not checked.
        tags: as read, in their own units.
        bound: by tag name, the unit of the model variable it carries.
        written_at: by tag name, the one place that writes it.
    """

    raw: ApplicationFile
    problems: Problems
    model: ProcessModel | None = None
    tags: dict[str, Tag] = field(default_factory=dict[str, Tag])
    bound: dict[str, str] = field(default_factory=dict[str, str])
    written_at: dict[str, KeyPath] = field(default_factory=dict[str, KeyPath])

    def add(self, path: KeyPath, what: str, mend: str, *, offset: int | None = None) -> None:
        self.problems.add(path, what, mend, offset=offset)

    def value(self, path: KeyPath, given: float | str, unit: str) -> float:
        """An absolute value in `unit`, or UNKNOWN with the problem noted."""
        try:
            return quantity.value(given, unit)
        except QuantityError as error:
            self.add(path, error.what, error.mend)
            return UNKNOWN

    def pair(self, path: KeyPath, given: Iterable[float | str], unit: str) -> tuple[float, float]:
        """Two values, the first below the second."""
        low, high = (self.value((*path, i), v, unit) for i, v in enumerate(given))
        if low >= high:
            self.add(path, f"low {low:g} is not below high {high:g}", "Write [low, high]")
        return low, high

    def positive(
        self, path: KeyPath, given: float | str, unit: str, *, per: str = "", zero: bool = False
    ) -> float:
        """A difference or spread in `unit` above zero, or with `zero` also zero itself."""
        try:
            result = quantity.difference(given, unit, per)
        except QuantityError as error:
            self.add(path, error.what, error.mend)
            return UNKNOWN
        if result < 0 or (result == 0 and not zero):
            limit = "zero or more" if zero else "more than zero"
            self.add(path, f"found {given}, expected {limit}", "Correct the number")
        return result

    def seconds(self, path: KeyPath, given: float | str, *, zero: bool = False) -> float:
        """A time above zero, or with `zero` also zero itself."""
        return self.positive(path, given, "s", zero=zero)

    def known(self, path: KeyPath, kind: str, name: str, names: Iterable[str]) -> bool:
        """Whether the name exists; notes the nearest one where it does not."""
        names = list(names)
        if name not in names:
            self.problems.add(
                path,
                f"there is no {kind} {name}",
                suggestion(name, names),
                of_key=path[-1] == name,
            )
        return name in names

    def once(self, seen: dict[str, KeyPath], path: KeyPath, kind: str, name: str) -> None:
        """Notes a name that is given a second time."""
        if name in seen:
            self.add(path, f"{kind} {name} is already at {written(seen[name])}", "Name another")
        seen.setdefault(name, path)

    def variables(self, *parts: Part) -> Mapping[str, Variable]:
        if self.model is None:
            return {}
        m = self.model
        by_part = {"state": m.x, "input": m.u, "disturbance": m.d, "output": m.y}
        return {v.name: v for part in parts for v in by_part[part]}

    def variable(self, path: KeyPath, name: str, *parts: Part) -> Variable | None:
        """A variable of the model; None where it is unknown or there is no model."""
        variables = self.variables(*parts)
        if self.model is not None and self.known(path, f"model {parts[0]}", name, variables):
            return variables[name]
        return None

    def tag(self, path: KeyPath, name: str, access: Access) -> Tag | None:
        """A tag that this place reads or writes; only one place may write it."""
        if not self.known(path, "tag", name, self.raw.tags):
            return None
        declared = self.raw.tags[name].access
        if declared != access:
            does = "written" if access == "write" else "read"
            self.add(
                path,
                f"tag {name} is {does} here, but declared access: {declared}",
                f"Name another tag, or declare it access: {access}",
            )
        if access == "write":
            self.once(self.written_at, path, "write tag", name)
        return self.tags.get(name)

    def bind(self, path: KeyPath, tag: Tag | None, variable: Variable | None) -> None:
        """A tag carries a variable of the model: from now on it is in that variable's unit."""
        if tag is None or variable is None:
            return
        try:
            quantity.affine(tag.unit, variable.unit)
        except QuantityError:
            self.add(
                path,
                f"tag {tag.name} is in {tag.unit}, but {variable.name} of the model is in "
                f"{variable.unit}",
                "Name another tag, or correct its unit",
            )
            return
        unit = self.bound.setdefault(tag.name, variable.unit)
        if unit != variable.unit:
            self.add(path, f"tag {tag.name} is used in {unit} already", "Name another tag")
