"""Quantities of a scenario file as numbers, with the place in the file when one is wrong."""

from __future__ import annotations

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
