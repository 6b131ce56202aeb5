"""Values laid over a file by path, as a scenario does: `guard.hold_cycles: 3`."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from controller.errors import SettingsError
from controller.settings.problems import suggestion
from controller.settings.schema import ApplicationFile
from controller.settings.yaml_core import Document, KeyPath

# Entries of these are declared in the file alone; an override may change but not add one.
_DECLARED = frozenset({"devices", "tags", "quality"})
# What names an entry of a list, in the order of preference.
_NAMES = ("name", "output", "input", "on")


class _Unknown(LookupError):
    """A part of a path that names nothing, and what there is instead."""

    def __init__(self, part: str, known: Iterable[str]) -> None:
        super().__init__(part)
        self.part = part
        self.known = tuple(known)


def lay_over(document: Document, overrides: Mapping[str, object]) -> list[KeyPath]:
    """Puts the overrides into the document; the places they went to.

    A key that the file leaves out may be set; whether the shape knows it is checked later.

    Raises:
        SettingsError: every override whose path leads nowhere.
    """
    # Aliases share their values; an override changes one place only.
    document.data = _unshared(document.data)
    places: list[KeyPath] = []
    problems: list[SettingsError] = []
    for dotted, new in overrides.items():
        try:
            place, parent = _place(document.data, dotted)
        except _Unknown as unknown:
            problems.append(
                SettingsError(
                    "this override names nothing",
                    where=f"{document.path} override {dotted}",
                    mend=suggestion(unknown.part, unknown.known),
                )
            )
            continue
        parent[place[-1]] = copy.deepcopy(new)
        places.append(place)
    if problems:
        first = problems[0]
        raise SettingsError(
            first.what, where=first.where, mend=first.mend, problems=tuple(problems)
        )
    return places


def _unshared(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _unshared(item) for key, item in cast("dict[str, Any]", data).items()}
    if isinstance(data, list):
        return [_unshared(item) for item in cast("list[Any]", data)]
    return data


def _place(data: dict[str, Any], dotted: str) -> tuple[KeyPath, Any]:
    """Path of an override, and the section or list that its last part belongs to."""
    place: list[str | int] = []
    parts = [part for part in re.split(r"\.|\[(\d+)\]", dotted) if part]
    here: Any = data
    while parts:
        inside: Any = here
        if isinstance(here, dict):
            length, key = _key(cast("dict[str, Any]", here), place, parts)
        elif isinstance(here, list):
            length, key = _entry(cast("list[Any]", here), parts)
        else:
            raise _Unknown(parts[0], ())
        parts = parts[length:]
        place.append(key)
        if not parts:
            return tuple(place), inside
        if isinstance(here, dict) and key not in here:
            inside[key] = {}  # a section that the file leaves out
        here = inside[key]
    raise _Unknown(dotted, data)


def _key(section: dict[str, Any], place: list[str | int], parts: list[str]) -> tuple[int, str]:
    """The next key, and of how many parts: names have dots in them, so the longest comes first."""
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in section:
            return length, name
    top = () if place else tuple(ApplicationFile.model_fields)
    may_be_new = len(parts) == 1 if place else parts[0] in top
    if may_be_new and not (len(place) == 1 and place[0] in _DECLARED):
        return 1, parts[0]
    raise _Unknown(".".join(parts[: max(1, len(parts) - 1)]), [*section, *top])


def _entry(entries: list[Any], parts: list[str]) -> tuple[int, int]:
    """The next entry of a list, by number or by name, and of how many parts."""
    names = [_name(entry, i) for i, entry in enumerate(entries)]
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in names:
            return length, names.index(name)
    if parts[0].isdigit() and int(parts[0]) < len(entries):
        return 1, int(parts[0])
    raise _Unknown(parts[0], names)


def _name(entry: Any, number: int) -> str:
    if isinstance(entry, dict):
        section = cast("dict[str, Any]", entry)
        for key in _NAMES:
            if isinstance(section.get(key), str):
                return section[key]
    return str(number)
