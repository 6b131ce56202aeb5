"""Quantities of a scenario file as numbers, with the place in the file when one is wrong."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from controller.errors import ScenarioError
from controller.settings.problems import suggestion
from controller.settings.quantity import QuantityError, difference, seconds, value
from controller.settings.yaml_core import Document, written
from hil.scenario.file import FaultSection, ScenarioFile, SolverFaultSection


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

    @contextmanager
    def told_at(self, *place: str | int) -> Generator[None]:
        """Whatever ScenarioError comes from inside names this place, unless it names the file."""
        try:
            yield
        except ScenarioError as error:
            if error.where.startswith(f"{self._document.path}:"):
                raise
            rest = error.where.removeprefix(str(self._document.path)).strip()
            rest = rest.removeprefix(written(place))
            where = f"{self.where(*place)}{rest if rest[:1] == '.' else f' {rest.strip()}'}"
            raise ScenarioError(error.what, where=where.strip(), mend=error.mend) from error

    @contextmanager
    def told_inside(self, *place: str | int) -> Generator[None]:
        """As `told_at`, for a ScenarioError that knows its place within the text there."""
        try:
            yield
        except ScenarioError as error:
            where = f"{self.where(*place)} {error.where}".strip()
            raise ScenarioError(error.what, where=where, mend=error.mend) from error

    def in_time(self, at_s: float, duration: float | str, *place: str | int) -> None:
        """Raises ScenarioError for what would never happen: most likely a unit is wrong."""
        duration_s = self.seconds(duration, "duration")
        if not 0.0 <= at_s < duration_s:
            raise ScenarioError(
                f"at {at_s:g} s nothing can happen in a scenario of {duration_s:g} s",
                where=self.where(*place),
                mend="Correct the time or the duration",
            )


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
        return ScenarioError("unknown key", where=where, mend=_other_key(place))
    mend = "Correct the value"
    choices = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
    if choices:
        mend = suggestion(str(first["input"]), choices)
    return ScenarioError(
        f"found {first['input']!r}, which does not fit here ({first['msg'].lower()})",
        where=where,
        mend=mend,
    )


def _other_key(place: tuple[int | str, ...]) -> str:
    """How to mend a key that its section does not have."""
    section, key = _section(place[:-1]), str(place[-1])
    if section is FaultSection and key in SolverFaultSection.model_fields:
        return "A fault has target, type and args; solver, kind and delay belong to solver_faults"
    if section is SolverFaultSection and key in FaultSection.model_fields:
        return "A solver fault has solver, kind and delay; target, type and args belong to faults"
    known = [info.alias or name for name, info in section.model_fields.items()] if section else []
    return suggestion(key, known) if known else "Remove it, or correct its name"


def _section(place: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The section of the file at this place."""
    shape: Any = ScenarioFile
    for part in place:
        if isinstance(shape, type) and issubclass(shape, BaseModel):
            field = shape.model_fields.get(str(part))
            shape = field.annotation if field else None
        else:
            shape = (get_args(shape) or (None,))[-1]
        while get_origin(shape) in (Union, UnionType, Annotated):
            sections = [a for a in get_args(shape) if a is not type(None)]
            shape = sections[0] if get_origin(shape) is Annotated else sections[-1]
    return shape if isinstance(shape, type) and issubclass(shape, BaseModel) else None
