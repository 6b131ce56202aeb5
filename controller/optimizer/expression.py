"""The economic objective as text: plain arithmetic over named variables, compiled once, no eval."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import casadi as ca

from controller.errors import ModelError

# Numbers or CasADi symbols: both know the same arithmetic, which no common type describes.
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
# Deeper than any objective a person writes; bounds the recursion below.
_DEPTH_MAX = 60
_MEND = "Write it with numbers, names, parentheses and + - * / ** only"


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked arithmetic expression.

    Attributes:
        text: as written.
        names: the variables it needs, sorted.
    """

    text: str
    names: tuple[str, ...]
    _tree: ast.expr

    def __call__(self, values: Mapping[str, float]) -> float:
        """Value at the given numbers; NaN where it is undefined (division by zero, overflow).

        Raises:
            ModelError: a name is missing from `values`.
        """
        self._require(values)
        try:
            result = _evaluate(self._tree, values, float)
        except (ZeroDivisionError, OverflowError):
            return math.nan
        # A negative number to a fractional power is complex in Python: not a value of a plant.
        return float(result) if isinstance(result, (int, float)) else math.nan

    def symbolic(self, symbols: Mapping[str, ca.SX]) -> ca.SX:
        """The same expression over CasADi symbols, for derivatives and compiled calls.

        Raises:
            ModelError: a name is missing from `symbols`.
        """
        self._require(symbols)
        return _evaluate(self._tree, symbols, ca.SX)

    def _require(self, given: Mapping[str, object]) -> None:
        missing = [name for name in self.names if name not in given]
        if missing:
            raise ModelError(
                f"nothing here is called {', '.join(missing)}",
                where=self.text,
                mend=f"Use one of: {', '.join(sorted(given))}",
            )

    def __str__(self) -> str:
        return self.text


def compile_expression(text: str) -> Expression:
    """Parse and check `text`.

    Raises:
        ModelError: it is not arithmetic; the message points at the part that is not.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ModelError("this is no expression", where=text, mend=_MEND) from problem
    found: set[str] = set()
    _check(tree, text, found, 0)
    return Expression(text, tuple(sorted(found)), tree)


def _check(node: ast.expr, text: str, found: set[str], depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise ModelError("the expression is nested too deeply", where=text, mend=_MEND)
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(left, text, found, depth + 1)
            _check(right, text, found, depth + 1)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            _check(operand, text, found, depth + 1)
        case ast.Constant(value=int() | float() as value) if not isinstance(
            value, bool
        ) and math.isfinite(value):
            return
        case ast.Name(id=name):
            found.add(name)
        case _:
            part = ast.get_source_segment(text.strip(), node) or type(node).__name__
            raise ModelError(f"'{part}' is not arithmetic", where=text, mend=_MEND)


def _evaluate(node: ast.expr, values: Mapping[str, Any], number: Callable[[Any], Any]) -> Any:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](
                _evaluate(left, values, number), _evaluate(right, values, number)
            )
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_evaluate(operand, values, number))
        case ast.Name(id=name):
            return number(values[name])
        case ast.Constant(value=value):
            return number(value)
        case _:
            raise AssertionError(f"unchecked node {node!r}")
