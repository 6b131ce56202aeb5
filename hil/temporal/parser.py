"""Reads temporal formulas such as `always[20 min, 2 h](y.T <= 125)`.

    formula     = formula implies formula | formula or formula | formula and formula
                | formula until[window] formula | not formula
                | always[window] formula | eventually[window] formula
                | term (< | <= | > | >= | == | !=) term
                | words (== | !=) word | words has word | ( formula )
    term        = number | signal | term (+ | - | * | /) term | - term | abs(term) | ( term )
    window      = [time, time] | [time, end]           none: [0, end], the end of the run
    word        = name | "any text"

What stands higher binds more loosely; not, always and eventually take the next comparison or
parenthesis. This is a precedence parser (Pratt 1973).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, cast

from controller.settings.quantity import QuantityError, seconds
from hil.temporal.formula import (
    Absolute,
    Always,
    Arithmetic,
    Both,
    Compare,
    Either,
    Eventually,
    Formula,
    Logic,
    Not,
    Number,
    Order,
    Says,
    Signal,
    Term,
    Until,
    Window,
    error,
)

_TOKEN = re.compile(
    r"""\s*(?: (?P<number> (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)
             | (?P<name> [A-Za-z_]\w*(?:\.\w+)*)
             | (?P<text> "[^"]*"|'[^']*')
             | (?P<window> \[[^\]]*\])
             | (?P<sign> <=|>=|==|!=|[-+*/()<>])
             | (?P<wrong> \S)
             | (?P<end> $))""",
    re.VERBOSE,
)
_BINDING: Mapping[str, int] = {
    "implies": 1,
    "or": 2,
    "and": 3,
    "until": 4,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "has"), 6),
    "+": 7,
    "-": 7,
    "*": 8,
    "/": 8,
}
_PREFIX = 5
_MINUS = 9
_KEYWORDS = frozenset({*_BINDING, "not", "always", "eventually", "abs"})
# More than any formula a person writes; bounds the recursions over the tree.
_DEPTH_MAX = 50
_LENGTH_MAX = 4000


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["number", "name", "text", "window", "sign", "wrong", "end"]
    text: str
    at: int


def parse(text: str) -> Formula:
    """Read a formula; its signals are not looked up, see `Formula.check_names`.

    Raises:
        ScenarioError: it cannot be read; points at the column.
    """
    if len(text) > _LENGTH_MAX:
        raise error(text[:40] + "…", 1, f"more than {_LENGTH_MAX} characters", "Split it")
    parser = _Parser(text)
    tree = parser.expression(0)
    if parser.next.kind != "end":
        raise parser.unexpected(parser.next)
    return Formula(text, parser.logic(tree, parser.tokens[0]))


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise AssertionError(f"no token at {at} of {text!r}")
        kind = cast('Literal["number", "name", "text", "window", "sign", "end"]', match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return found


class _Parser:
    """The tokens of one text and how far they have been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self._position = 0
        self._depth = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self._position]

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self._position += 1
        return token

    def unexpected(self, token: _Token) -> Exception:
        if token.kind == "end":
            what = "something is missing at the end"
        else:
            what = f"'{token.text}' is not expected here"
        mend = "Write it like always[20 min, 2 h](y.T <= 125)"
        if token.text in ("=", "&", "|", "!", "→"):
            mend = "Write ==, and, or, not, implies"
        elif token.text in ("<", "<=", ">", ">=", "==", "!="):
            mend = "Compare two things at a time and join the comparisons with and"
        elif token.text == "until":
            mend = "Use parentheses to say which until is meant first"
        elif token.text == "[":
            mend = "Close the window with ]"
        elif token.kind == "window":
            mend = "A window stands right after always, eventually or until"
        return error(self.text, token.at, what, mend)

    def logic(self, found: Logic | Term, token: _Token) -> Logic:
        """`found`, which begins at `token`, as something true or false."""
        if isinstance(found, Number | Signal | Arithmetic | Absolute):
            raise error(
                self.text,
                token.at,
                "this is a value, nothing that could be true or false",
                'Compare it, as in y.T <= 125 or mode == ACTIVE or faults has "freeze T.PV"',
            )
        return found

    def term(self, found: Logic | Term, token: _Token) -> Term:
        """`found`, which begins at `token`, as a value."""
        if not isinstance(found, Number | Signal | Arithmetic | Absolute):
            raise error(
                self.text, token.at, "this is true or false, no value", "Compute with values only"
            )
        return found

    def expression(self, binding: int) -> Logic | Term:
        """What follows, as far as it binds more tightly than `binding`."""
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise error(self.text, self.next.at, "nested too deeply", "Split it into several")
        begin = self.next
        left = self._prefix()
        while self.next.kind != "end":
            sign = self.next
            strength = _BINDING.get(sign.text, 0) if sign.kind in ("name", "sign") else 0
            if strength <= binding:
                break
            self.take()
            left = self._infix(left, begin, sign)
            # Neither comparisons nor until can be chained: 0 < y < 5 would not say what it means.
            if strength in (4, 6) and _BINDING.get(self.next.text, 0) == strength:
                raise self.unexpected(self.next)
        self._depth -= 1
        return left

    def _prefix(self) -> Logic | Term:
        token = self.take()
        match token.kind, token.text:
            case "number", text:
                return Number(float(text))
            case "sign", "(":
                inner = self.expression(0)
                self._close()
                return inner
            case "sign", "-":
                of = self._operand(_MINUS)
                if isinstance(of, Number):
                    return Number(-of.value)
                return Arithmetic("-", Number(0.0), of)
            case "name", "abs":
                opening = self.take()
                if opening.text != "(":
                    raise self.unexpected(opening)
                inner = self._operand(0)
                self._close()
                return Absolute(inner)
            case "name", "not":
                return Not(self._statement(_PREFIX))
            case "name", "always" | "eventually":
                window = self._window()
                of = self._statement(_PREFIX)
                return (Always if token.text == "always" else Eventually)(window, of)
            case "name", name if name not in _KEYWORDS:
                return Signal(name, token.at)
            case _:
                raise self.unexpected(token)

    def _close(self) -> None:
        closing = self.take()
        if closing.text != ")":
            raise self.unexpected(closing)

    def _operand(self, binding: int) -> Term:
        begin = self.next
        return self.term(self.expression(binding), begin)

    def _statement(self, binding: int) -> Logic:
        begin = self.next
        return self.logic(self.expression(binding), begin)

    def _infix(self, left: Logic | Term, begin: _Token, sign: _Token) -> Logic | Term:
        strength = _BINDING[sign.text]
        match sign.text:
            case "implies":
                # It binds to the right: a implies (b implies c).
                return Either(Not(self.logic(left, begin)), self._statement(strength - 1))
            case "and":
                return Both(self.logic(left, begin), self._statement(strength))
            case "or":
                return Either(self.logic(left, begin), self._statement(strength))
            case "until":
                window = self._window()
                return Until(window, self.logic(left, begin), self._statement(strength))
            case "+" | "-" | "*" | "/":
                return Arithmetic(sign.text, self.term(left, begin), self._operand(strength))
            case _:
                words = self._words(left, sign)
                if words is not None:
                    return words
                order = cast("Order", sign.text)
                return Compare(order, self.term(left, begin), self._operand(strength))

    def _words(self, left: Logic | Term, sign: _Token) -> Says | None:
        """A statement about a column of words, whose names have no dot."""
        if sign.text not in ("==", "!=", "has"):
            return None
        word = self.next
        quoted = word.kind == "text"
        plain = word.kind == "name" and "." not in word.text and word.text not in _KEYWORDS
        if isinstance(left, Signal) and "." not in left.name and (plain or quoted):
            self.take()
            said = word.text[1:-1] if quoted else word.text
            return Says(left, said, word.at, sign.text == "has", sign.text != "!=")
        if quoted or sign.text == "has":
            what = f"'{sign.text}' stands between a column of words and a word"
            raise error(self.text, sign.at, what, 'Write it like faults has "freeze T.PV"')
        return None

    def _window(self) -> Window:
        token = self.next
        if token.kind != "window":
            return Window()
        self.take()
        parts = token.text[1:-1].split(",")
        if len(parts) != 2:
            raise error(self.text, token.at, "a window has a begin and an end", "Write [0, 5 min]")
        begin_s = self._seconds(parts[0], token.at + 1)
        place = token.at + 2 + len(parts[0])
        end_s = inf if parts[1].strip() == "end" else self._seconds(parts[1], place)
        if end_s < begin_s:
            raise error(self.text, token.at, "the window ends before it begins", "Swap the times")
        return Window(begin_s, end_s)

    def _seconds(self, written: str, at: int) -> float:
        at += len(written) - len(written.lstrip())
        try:
            time_s = seconds(written.strip())
        except QuantityError as problem:
            raise error(self.text, at, problem.what, problem.mend) from problem
        if time_s < 0:
            raise error(self.text, at, "the window looks back", "Write times from 0 on")
        return time_s
