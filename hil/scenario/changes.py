"""Changes to a scenario by dotted path: for its matrix, for campaigns, for the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, cast

from controller.errors import ScenarioError
from controller.settings.yaml_core import Document, KeyPath

Changes = Mapping[str, object]

_OVERRIDES = "overrides."


def lay_over(document: Document, changes: Changes) -> None:
    """Put the changes into the document; sections that it leaves out are made.

    Below `overrides.` the rest of the path is one key, for that is how overrides are written. An
    entry of a list is given by its number, `faults[0].until` or `faults.0.until`.

    Raises:
        ScenarioError: a path that leads through a value, or beyond the end of a list.
    """
    if not isinstance(document.data, dict):
        raise ScenarioError(
            "the file is not a section with keys",
            where=f"{document.path}:1:1",
            mend="Begin with scenario: 1",
        )
    data = cast("dict[str, Any]", copy.deepcopy(document.data))
    for dotted, new in changes.items():
        _put(data, dotted, copy.deepcopy(new), f"{document.path} change {dotted}")
        _place(document, dotted)
    document.data = data


def _place(document: Document, dotted: str) -> None:
    """What a matrix changes stands where the matrix says it."""
    source = document.keys.get(("matrix", dotted))
    if source is None:
        return
    path: KeyPath
    if dotted.startswith(_OVERRIDES):
        path = ("overrides", dotted.removeprefix(_OVERRIDES))
    else:
        path = tuple(int(part) if part.isdecimal() else part for part in _parts(dotted))
    for places in (document.values, document.keys):
        for old in [old for old in places if old[: len(path)] == path]:
            del places[old]
        for length in range(1, len(path) + 1):
            places.setdefault(path[:length], source)


def said(changes: Changes) -> str:
    """Changes in a few words, for names: `seed=4,k10=1.05`.

    The last part of a path names it, or as many as tell it from the others.
    """
    names = list(changes)
    words: list[str] = []
    for dotted, value in changes.items():
        parts = _parts(dotted)
        length = 1
        while sum(_parts(other)[-length:] == parts[-length:] for other in names) > 1:
            length += 1
        name = ".".join(parts[-length:])
        words.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    return ",".join(words)


def _parts(dotted: str) -> list[str]:
    return [part for part in re.split(r"\.|\[(\d+)\]", dotted) if part]


def _put(data: dict[str, Any], dotted: str, new: object, where: str) -> None:
    if dotted.startswith(_OVERRIDES):
        overrides = data.setdefault("overrides", {})
        overrides[dotted.removeprefix(_OVERRIDES)] = new
        return
    parts = _parts(dotted)
    if not parts:
        raise ScenarioError(
            "a change needs a path", where=where, mend="Write one such as plant.mismatch.k10"
        )
    here: Any = data
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if isinstance(here, list):
            entries = cast("list[Any]", here)
            if not part.isdecimal() or int(part) >= len(entries):
                raise ScenarioError(
                    f"{part} is not an entry of this list of {len(entries)}",
                    where=where,
                    mend="Count entries from 0",
                )
            if last:
                entries[int(part)] = new
            here = entries[int(part)]
        elif isinstance(here, dict):
            section = cast("dict[str, Any]", here)
            if last:
                section[part] = new
            elif section.get(part) is None:
                section[part] = {}
            here = section[part]
        else:
            raise ScenarioError(
                f"{'.'.join(parts[:number])} is the value {here!r} and has nothing inside",
                where=where,
                mend="Correct the path",
            )
