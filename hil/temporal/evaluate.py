"""Whether a run keeps a temporal formula, by how much, and from when on it did not.

Signal temporal logic with its quantitative semantics (Fainekos & Pappas 2009; Donzé & Maler 2010):
a comparison is worth its distance from the limit, words ±inf, `and` the minimum, `or` the maximum,
`always` and `eventually` the minimum and maximum over their window. The sign is the truth, the
size is the margin.

Time is the time of the history's rows. A row stands until the next one, the last one as long as
rows usually do. The formula is held in the first row, which counts from time 0 on: the windows
outside are in scenario time. A window that reaches beyond the end of the run meets an unknown
future: values are intervals over all that could come (Deshmukh et al. 2017), and where the unknown
decides, the outcome is untested. A window without times, or with `end`, is the rest of the run;
until and eventually must come true in it.

A value that is no number breaks every comparison it stands in, `not` or no `not`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from controller.errors import ScenarioError
from hil.history import Column, History
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
    Release,
    Says,
    Signal,
    Term,
    Until,
    affirmed,
)
from hil.temporal.parser import parse
from hil.temporal.windows import end_of, largest, smallest, spans, until

__all__ = ["Formula", "Robustness", "evaluate", "parse"]


@dataclass(frozen=True, slots=True)
class Robustness:
    """What a run says of a formula.

    Attributes:
        value: the margin, in the units of the comparison that decides; negative where broken,
            ±inf where words decide, None where the run ended too early to tell.
        first_violation_s: scenario time at which it broke for the first time.
        outcome: at a margin of 0 the comparison itself decides: 5 <= 5 is kept, 5 < 5 is not.
    """

    value: float | None
    first_violation_s: float | None
    outcome: Literal["passed", "failed", "untested"]


def evaluate(formula: Formula, history: History) -> Robustness:
    """Hold the formula against the run.

    Raises:
        ScenarioError: the history has no such signal, or its times do not increase.
    """
    if not len(history):
        return Robustness(None, None, "untested")
    formula.check_names(history.columns, history.texts)
    times_s = history.column("time_s")
    if not increases(times_s):
        raise ScenarioError(
            "the times of the run do not increase",
            where=formula.text,
            mend="Judge runs whose clock jumps by KPIs",
        )
    times_s[0] = min(times_s[0], 0.0)
    tree = affirmed(formula.tree)
    truth = _Evaluation(history, times_s, margins=False).of(tree)
    low, high = truth.low[0], truth.high[0]
    if low < 0 < high:
        return Robustness(None, None, "untested")
    margin = _Evaluation(history, times_s, margins=True).of(tree)
    if low > 0:
        return Robustness(float(margin.low[0]), None, "passed")
    row = _first_violation(truth, 0, times_s)
    return Robustness(float(margin.high[0]), float(times_s[row]), "failed")


@dataclass(frozen=True, slots=True)
class _Valued:
    """A part of a formula with the bounds of its value in every row."""

    tree: Logic
    low: Column
    high: Column
    parts: tuple[_Valued, ...] = ()


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Values of formulas without negations; with `margins` False, only 1 and -1 for true, false."""

    history: History
    times_s: Column
    margins: bool

    def of(self, tree: Logic) -> _Valued:
        match tree:
            case Compare():
                return _known(tree, self._compared(tree))
            case Says():
                size = inf if self.margins else 1.0
                return _known(tree, np.where(self._said(tree), size, -size))
            case Both(left, right) | Either(left, right):
                a, b = self.of(left), self.of(right)
                choose = np.minimum if isinstance(tree, Both) else np.maximum
                return _Valued(tree, choose(a.low, b.low), choose(a.high, b.high), (a, b))
            case Always(window, of) | Eventually(window, of):
                part, span = self.of(of), spans(self.times_s, window)
                extreme = smallest if isinstance(tree, Always) else largest
                low = extreme(np.append(part.low, -inf), span)
                return _Valued(tree, low, extreme(np.append(part.high, inf), span), (part,))
            case Until(window, left, right):
                a, b, span = self.of(left), self.of(right), spans(self.times_s, window)
                low = until(a.low, b.low, span, -inf)
                return _Valued(tree, low, until(a.high, b.high, span, inf), (a, b))
            case Release(window, left, right):
                a, b, span = self.of(left), self.of(right), spans(self.times_s, window)
                low = -until(-a.low, -b.low, span, inf)
                return _Valued(tree, low, -until(-a.high, -b.high, span, -inf), (a, b))
            case Not():
                raise AssertionError("negations stand in comparisons only")

    def _compared(self, tree: Compare) -> Column:
        with np.errstate(all="ignore"):
            left, right = self._value(tree.left), self._value(tree.right)
            difference = left - right
            match tree.order:
                case "<" | "<=":
                    margin = -difference
                    true = difference <= 0 if tree.order == "<=" else difference < 0
                case ">" | ">=":
                    margin = difference
                    true = difference >= 0 if tree.order == ">=" else difference > 0
                case "==":
                    margin, true = -np.abs(difference), difference == 0
                case "!=":
                    margin, true = np.abs(difference), difference != 0
        known = ~np.isnan(difference)
        if self.margins:
            return np.where(known, margin, -inf)
        return np.where(known & true, 1.0, -1.0)

    def _value(self, term: Term) -> Column:
        match term:
            case Number(value):
                return np.full(len(self.times_s), value)
            case Signal(name):
                return self.history.column(name)
            case Absolute(of):
                return np.abs(self._value(of))
            case Arithmetic(operation, left, right):
                a, b = self._value(left), self._value(right)
                match operation:
                    case "+":
                        return a + b
                    case "-":
                        return a - b
                    case "*":
                        return a * b
                    case "/":
                        # An infinite quotient would win every comparison: it is no number.
                        return np.where(b == 0, np.nan, a / b)

    def _said(self, tree: Says) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        rows = self.history.texts[tree.signal.name]
        if tree.listed:
            # Few texts differ, so each is taken apart once.
            has = {row: tree.word in row.split("; ") for row in set(rows)}
            return np.array([has[row] is tree.holds for row in rows])
        return np.array([(row == tree.word) is tree.holds for row in rows])


def _known(tree: Logic, values: Column) -> _Valued:
    return _Valued(tree, values, values)


def _first_violation(found: _Valued, row: int, times_s: Column) -> int:
    """The row in which a formula that is false in `row` goes wrong."""
    tree = found.tree
    broken = [part for part in found.parts if part.high[row] < 0]
    if isinstance(tree, Both | Either):
        rows = [_first_violation(part, row, times_s) for part in broken]
        return min(rows) if isinstance(tree, Both) else max(rows)
    if isinstance(tree, Always):
        part, span = found.parts[0], spans(times_s, tree.window)
        inside = part.high[span.first[row] : span.last[row] + 1]
        first = int(span.first[row] + np.argmax(inside < 0))
        return _first_violation(part, first, times_s)
    return row


def increases(times_s: Column) -> bool:
    """Whether time only ever went on: a clock that is set back leaves no windows to speak of."""
    return bool(np.all(np.diff(times_s) > 0))


def ends_s(history: History) -> float:
    """Scenario time until which the history tells anything."""
    return end_of(history.column("time_s"))
