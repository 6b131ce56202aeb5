"""Quantities of a scenario file as numbers, with the place in the file when one is wrong."""

from __future__ import annotations

from pydantic import ValidationError

from controller.errors import ScenarioError
from controller.settings.quantity import QuantityError, difference, seconds, value
from controller.settings.yaml_core import Document, written


class Places:
    """Turns quantities into numbers, with the place in the file when one is wrong."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def where(self, *place: str | int) -> str:
        line, column = self._document.position(place)
        return f"{self._document.path}:{line}:{column} {written(place)}"

    def seconds(self, quantity: float | str, *place: str | int) -> float:
        try:
            return seconds(quantity)
        except QuantityError as error:
            raise ScenarioError(
                str(error), where=self.where(*place), mend="Write a time such as 30 s or 2 h"
            ) from error

    def value(
        self, quantity: float | str, unit: str, *place: str | int, spread: str | None = None
    ) -> float:
        """A value in `unit`; with `spread`, a difference, "" or per that time."""
        try:
            if spread is None:
                return value(quantity, unit)
            return difference(quantity, unit, per=spread)
        except QuantityError as error:
            raise ScenarioError(
                str(error), where=self.where(*place), mend=f"Write it in {unit}"
            ) from error


def shape_error(document: Document, error: ValidationError) -> ScenarioError:
    """The first thing that has the wrong shape, where it stands."""
    found = error.errors(include_url=False)
    # A misspelt key is both unknown and missing: it is told as what was written.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    place = first["loc"]
    missing = first["type"] == "missing"
    line, column = document.position(place[:-1] if missing else place, of_key=True)
    where = f"{document.path}:{line}:{column} {written(place)}"
    if missing:
        return ScenarioError("a value is missing", where=where, mend=f"Add {place[-1]}")
    if first["type"] == "extra_forbidden":
        return ScenarioError("unknown key", where=where, mend="Remove it, or correct its name")
    return ScenarioError(
        f"found {first['input']!r}, which does not fit here ({first['msg'].lower()})",
        where=where,
        mend="Correct the value",
    )
