"""Collects everything wrong with a file, each problem with its place, in the order of the file."""

from __future__ import annotations

import difflib
import itertools
import types
import typing
from collections.abc import Iterable
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from controller.errors import SettingsError
from controller.settings.schema import ApplicationFile
from controller.settings.yaml_core import Document, KeyPath, written


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    by_folded = {k.casefold(): k for k in known}
    folded = name.casefold()
    # In a name of two letters, one that fits is half of it.
    cutoff = 0.5 if len(name) < 4 else 0.6
    found = difflib.get_close_matches(folded, by_folded, n=8, cutoff=cutoff)

    def unlikeness(other: str) -> tuple[float, int]:
        # The matcher does not tell a wrong letter from letters that changed places: count both.
        alike = difflib.SequenceMatcher(None, other, folded).ratio()
        wrong = sum(a != b for a, b in itertools.zip_longest(folded, other))
        return -round(alike, 6), wrong

    return by_folded[min(found, key=unlikeness)] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """How to mend an unknown name: the nearest known one, or all of them."""
    known = list(known)
    near = nearest(name, known)
    if near is not None:
        return f"Did you mean {near}?"
    if not known:
        return "None is defined; define it, or remove this"
    listed = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
    return f"Known: {listed}"


class Problems:
    """Gathers SettingsErrors against one document; `overridden` paths did not come from it."""

    def __init__(self, document: Document, overridden: Iterable[KeyPath] = ()) -> None:
        self.document = document
        self.overridden = tuple(overridden)
        self._found: list[tuple[tuple[int, int], SettingsError]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(
        self,
        path: KeyPath,
        what: str,
        mend: str,
        *,
        of_key: bool = False,
        offset: int | None = None,
    ) -> None:
        """Note a problem; `offset` counts characters into the text of a scalar."""
        line, column = self.document.position(path, of_key=of_key)
        if offset is not None and path in self.document.text_at:
            column += self.document.text_at[path] + offset
        where = f"{self.document.path}:{line}:{column} {written(path)}".rstrip()
        if any(path[: len(o)] == o for o in self.overridden):
            where = f"{self.document.path} override {written(path)}"
        self._found.append(((line, column), SettingsError(what, where=where, mend=mend)))

    def raise_found(self) -> None:
        """Raises one SettingsError that holds all problems, if there is any."""
        if not self._found:
            return
        # Stable: problems at one place stay in the order they were found.
        ordered = [e for _, e in sorted(self._found, key=lambda item: item[0])]
        first = ordered[0]
        raise SettingsError(first.what, where=first.where, mend=first.mend, problems=tuple(ordered))


def add_shape_problems(problems: Problems, error: ValidationError) -> None:
    """Tell in our own words what the schema found wrong."""
    details = error.errors(include_url=False)
    renamed: set[KeyPath] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            path = _path(detail["loc"])
            known = _known_keys(detail["loc"][:-1])
            meant = nearest(str(path[-1]), known)
            if meant is not None and meant not in problems.document.at(path[:-1]):
                renamed.add((*path[:-1], meant))
            override = path in problems.overridden
            what = "this override names nothing" if override else "unknown key"
            problems.add(path, what, suggestion(str(path[-1]), known), of_key=True)
    for detail in details:
        path = _path(detail["loc"])
        if detail["type"] == "missing" and path not in renamed:
            about = _description(detail["loc"])
            problems.add(path, "a value is missing", f"Add {path[-1]}{about}", of_key=True)
        elif detail["type"] not in ("missing", "extra_forbidden"):
            _add_wrong_value(problems, path, cast("dict[str, Any]", detail))


def _add_wrong_value(problems: Problems, path: KeyPath, detail: dict[str, Any]) -> None:
    kind: str = detail["type"]
    ctx: dict[str, Any] = detail.get("ctx", {})
    found = _shown(detail["input"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        drivers = "s7, modbus or modbus-rtu"
        if "driver" not in detail["input"]:
            problems.add((*path, "driver"), "a value is missing", f"Add driver: {drivers}")
            return
        path = (*path, "driver")
        found = _shown(detail["input"]["driver"])
        problems.add(path, f"found {found}, expected {drivers}", "Name one of these drivers")
        return
    if kind in ("too_short", "too_long"):
        count = ctx["actual_length"]
        limit = ctx.get("min_length", ctx.get("max_length"))
        what = f"found {count} {'entry' if count == 1 else 'entries'}, expected "
        what += "at least 1" if limit == 1 else str(limit)
        problems.add(path, what, "Add entries" if kind == "too_short" else "Remove entries")
        return
    expected = _EXPECTED.get(kind, "another value").format(**ctx)
    problems.add(path, f"found {found}, expected {expected}", _MEND.get(kind, "Change the value"))


_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a section of named entries",
    "finite_number": "a finite number",
    "float_type": "a number without unit",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "a section with keys",
    "model_type": "a section with keys",
    "quantity": "a number, or a number and its unit",
    "string_pattern_mismatch": "letters, digits, - and _, a letter first",
    "string_too_short": "some text",
    "string_type": "text",
}

_MEND = {
    "dict_type": "Write `name: …` lines below it, further in",
    "list_type": "Write `- …` lines below it, or [ … ]",
    "literal_error": "Choose one of these",
    "model_attributes_type": "Write `key: value` lines below it, further in",
    "model_type": "Write `key: value` lines below it, further in",
    "quantity": "Write for example 30 s, 0.5 K/min or 3.2",
    "string_type": "Put it in quotes",
}


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _path(loc: tuple[int | str, ...]) -> KeyPath:
    """Path in the file; the third part below `devices` is the driver that chose the shape."""
    return (*loc[:2], *loc[3:]) if loc[:1] == ("devices",) and len(loc) > 2 else loc


def _section(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The schema section at a location of the validator."""
    node: Any = ApplicationFile
    for part in loc:
        if isinstance(node, type) and issubclass(node, BaseModel):
            info = node.model_fields.get(str(part))
            node = info.annotation if info else None
        else:
            node = _child(node, part)
        node = _bare(node)
    return node if isinstance(node, type) and issubclass(node, BaseModel) else None


def _child(node: Any, part: int | str) -> Any:
    arguments = typing.get_args(node)
    if typing.get_origin(node) in (typing.Union, types.UnionType):
        chosen = [a for a in arguments if _driver(a) == part]
        return chosen[0] if chosen else None
    return arguments[-1] if arguments else None


def _bare(node: Any) -> Any:
    """Without Annotated and without `| None`."""
    if typing.get_origin(node) is typing.Annotated:
        return _bare(typing.get_args(node)[0])
    if typing.get_origin(node) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(node) if a is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else node
    return node


def _driver(section: type[BaseModel]) -> str | None:
    info = section.model_fields.get("driver")
    return typing.get_args(info.annotation)[0] if info else None


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    section = _section(loc)
    return list(section.model_fields) if section else []


def _description(loc: tuple[int | str, ...]) -> str:
    section = _section(loc[:-1])
    info = section.model_fields.get(str(loc[-1])) if section else None
    return f": {info.description.rstrip('.')}" if info and info.description else ""
