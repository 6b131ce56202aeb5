"""Arithmetic that an engineer writes into the settings, such as the optimizer's objective."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub)


def unknown_parts(text: str, names: Collection[str]) -> Iterator[tuple[int, str, str]]:
    """Whatever is not arithmetic in known names: (character, what is wrong, unknown name or "").

    The first character is 0. Only + - * / **, parentheses, numbers and names are arithmetic.
    """
    # Leading blanks would be an indentation to Python.
    blanks = len(text) - len(text.lstrip())
    source = text.strip()
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = (getattr(error, "offset", None) or 1) - 1
        yield blanks + min(column, len(source)), "this is not an arithmetic expression", ""
        return
    for node in _unknown(tree.body, frozenset(names)):
        # ast counts bytes of UTF-8, people count characters.
        line = source.splitlines()[node.lineno - 1].encode()
        offset = blanks + len(line[: node.col_offset].decode())
        if isinstance(node, ast.Name):
            yield offset, f"there is no variable {node.id}", node.id
        else:
            yield offset, f"{ast.unparse(node)} is not arithmetic", ""


def _unknown(node: ast.expr, names: frozenset[str]) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS):
        yield from _unknown(node.left, names)
        yield from _unknown(node.right, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, _OPERATORS):
        yield from _unknown(node.operand, names)
    elif isinstance(node, ast.Name):
        if node.id not in names:
            yield node
    elif not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        yield node
