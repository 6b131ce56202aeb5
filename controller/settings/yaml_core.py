"""Reads YAML by the core schema of YAML 1.2 and remembers where every value stands.

PyYAML reads YAML 1.1, where `NO` is false, `1:30` is 90 and `010` is 8: traps in a plant file.
Here they are the text NO, the text 1:30 and the number 10 (YAML 1.2.2, section 10.3.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from controller.errors import SettingsError
from controller.settings.application import Position

KeyPath = tuple[str | int, ...]

# Aliases can make a small file unfold into an endless one; an application has some thousand nodes.
NODES_MAX = 50_000
DEPTH_MAX = 100

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,4000}")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})

_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null"))
# Left on a plain scalar that no explicit tag marks: the core schema decides.
_PLAIN = _TAG + "plain"

_KIND = {str: "str", bool: "bool", int: "int", float: "float", type(None): "null"}

Scalar = str | int | float | bool | None


class CoreLoader(yaml.SafeLoader):
    """Composes nodes only, and resolves no plain scalar by the rules of YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012
        # One resolver that takes all: PyYAML then leaves quoted scalars as !!str.
        None: [(_PLAIN, re.compile(""))],  # type: ignore[dict-item]
    }


@dataclass(slots=True)
class Document:
    """Plain values of a file and, by path, where their keys and they themselves stand.

    `text_at` holds, for scalars of one line, how many characters before their text stand (a
    quote); a scalar of several lines has no such simple place.
    """

    path: Path
    text: str
    data: Any = None
    values: dict[KeyPath, Position] = field(default_factory=dict[KeyPath, Position])
    keys: dict[KeyPath, Position] = field(default_factory=dict[KeyPath, Position])
    text_at: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])

    def position(self, path: KeyPath, *, of_key: bool = False) -> Position:
        """Of a scalar: its value. Of a section: its key. Of what is absent: what is around it."""
        while path:
            if of_key and path in self.keys:
                return self.keys[path]
            if path in self.values:
                return self.values[path]
            path, of_key = path[:-1], False
        return self.values.get((), (1, 1))

    def at(self, path: KeyPath) -> Any:
        """The value at a path that exists."""
        value = self.data
        for part in path:
            value = value[part]
        return value


def written(path: KeyPath) -> str:
    """A path as people write it: `manipulated[0].rate`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def decode(path: Path, raw: bytes) -> str:
    """Text of a file in UTF-8, with or without a byte order mark.

    Raises:
        SettingsError: not UTF-8, at the first wrong byte.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise SettingsError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8",
            where=f"{path}:{line}:{column}",
            mend="Save the file as UTF-8",
        ) from None


def read(path: Path, text: str) -> Document:
    """The one document in `text`; `path` only names it in errors.

    Raises:
        SettingsError: not YAML, a key twice, an unknown tag, an alias of itself. Duplicate keys
            are collected; broken syntax ends the reading at its first place.
    """
    document = Document(path, text)
    try:
        node = cast("yaml.Node | None", yaml.compose(text, Loader=CoreLoader))
    except yaml.MarkedYAMLError as error:
        raise _syntax(path, error) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise SettingsError(
            f"the character U+{ord(text[error.position]):04X} is not allowed in YAML",
            where=f"{path}:{line}:{column}",
            mend="Remove it, or write it as an escape in double quotes",
        ) from None
    except RecursionError:
        raise SettingsError(
            "sections are nested too deeply", where=f"{path}:1:1", mend="Flatten the file"
        ) from None
    if node is None:
        raise SettingsError("the file is empty", where=f"{path}:1:1", mend="Describe a plant in it")
    reader = _Reader(document)
    document.data = reader.value(node, ())
    if reader.problems:
        first = reader.problems[0]
        raise SettingsError(
            first.what, where=first.where, mend=first.mend, problems=tuple(reader.problems)
        )
    return document


def _syntax(path: Path, error: yaml.MarkedYAMLError) -> SettingsError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = (error.problem or "broken syntax").removeprefix("but ")
    if error.context:
        context = error.context_mark
        what += f", {error.context}" + (
            f" that began in line {context.line + 1}" if context else ""
        )
    return SettingsError(
        f"not YAML: {what}",
        where=f"{path}:{line}:{column}",
        mend="Check indentation, brackets and quotes here and in the line before",
    )


def scalar(text: str) -> Scalar:
    """Value of a plain scalar by the core schema of YAML 1.2.

    >>> [scalar(t) for t in ("NO", "1:30", "010", "0o10", "1e3", "~")]
    ['NO', '1:30', 10, 8, 1000.0, None]
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return float("-inf") if text[0] == "-" else float("inf")
    return float("nan") if text in _NAN else text


class _Reader:
    """Turns nodes into values; one instance reads one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[SettingsError] = []
        self.nodes = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.nodes += 1
        if self.nodes > NODES_MAX or len(path) > DEPTH_MAX:
            raise SettingsError(
                "the file unfolds into too many values",
                where=f"{self.document.path}:{_position(node)[0]}:{_position(node)[1]}",
                mend="Use fewer aliases (*name) and fewer nested sections",
            )
        self.document.values[path] = _position(node)
        # A section, or a key with nothing behind it, is found by its key.
        empty = isinstance(node, yaml.ScalarNode) and node.start_mark.index == node.end_mark.index
        if path in self.document.keys and (empty or not isinstance(node, yaml.ScalarNode)):
            self.document.values[path] = self.document.keys[path]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open:
            self.problem(node, path, "an alias contains itself", "Write the values out")
            return None
        self.open.add(id(node))
        result = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else None
        if isinstance(node, yaml.SequenceNode):
            result = [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        self.open.discard(id(node))
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self.problem(node, path, f"unknown tag {node.tag}", "Remove the tag")
        return result

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            key = self.scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                name = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list"
                self.problem(
                    key_node, path, f"{name} is not text, but a key must be", "Put it in quotes"
                )
                continue
            if key in result:
                line, column = self.document.keys[*path, key]
                self.problem(
                    key_node,
                    (*path, key),
                    f"this key is already in line {line}, column {column}",
                    "Remove one of the two",
                )
                continue
            self.document.keys[*path, key] = _position(key_node)
            result[key] = self.value(value_node, (*path, key))
        return result

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Scalar:
        text = cast("str", node.value)
        if node.start_mark.line == node.end_mark.line:
            self.document.text_at[path] = 1 if node.style in ("'", '"') else 0
        if node.tag == _PLAIN:
            return scalar(text)
        if node.tag not in _KNOWN_TAGS:
            self.problem(node, path, f"unknown tag {node.tag}", "Remove the tag")
            return None
        if node.tag == _TAG + "str":
            return text
        result = scalar(text)
        kind = _KIND[type(result)]
        if node.tag == f"{_TAG}float" and kind == "int":
            return float(cast("int", result))
        if node.tag != f"{_TAG}{kind}":
            self.problem(node, path, f"{text!r} does not fit its tag {node.tag}", "Remove the tag")
        return result

    def problem(self, node: yaml.Node, path: KeyPath, what: str, mend: str) -> None:
        line, column = _position(node)
        where = f"{self.document.path}:{line}:{column} {written(path)}".rstrip()
        self.problems.append(SettingsError(what, where=where, mend=mend))


def _position(node: yaml.Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1
