"""Extremes over sliding time windows, in O(n log n), with an unknown future after the last row."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from hil.history import Column
from hil.temporal.formula import Window

Rows = NDArray[np.intp]

# Times come from whole nanoseconds, so less than this is rounding.
_SAME_TIME_S = 1e-6


@dataclass(frozen=True, slots=True)
class Spans:
    """For each row the first and last row of its window, both counted.

    Row n, one after the last, stands for everything after the end of the run.
    """

    first: Rows
    last: Rows


def standing_rows(times_s: Column, moments_s: Column) -> Rows:
    """The row that stands at each moment: the last that is not later; the first one before all."""
    rows = np.searchsorted(times_s, moments_s + _SAME_TIME_S, side="right") - 1
    return np.maximum(rows, 0).astype(np.intp)


def end_of(times_s: Column) -> float:
    """Until when the last row stands: for as long as rows usually do."""
    if len(times_s) < 2:
        return float(times_s[-1])
    return float(times_s[-1] + np.median(np.diff(times_s)))


def spans(times_s: Column, window: Window) -> Spans:
    """The window of every row.

    A row stands until the next one comes. So a window begins with the row that stands then.
    """
    n, end_s = len(times_s), end_of(times_s)
    first = standing_rows(times_s, times_s + window.begin_s)
    if window.begin_s > 0:
        first[times_s + window.begin_s > end_s - _SAME_TIME_S] = n
    if window.end_s == inf:
        last = np.full(n, n - 1, dtype=np.intp)
    else:
        last = standing_rows(times_s, times_s + window.end_s)
        last[times_s + window.end_s > end_s + _SAME_TIME_S] = n
    return Spans(first, np.maximum(first, last))


def smallest(values: Column, span: Spans) -> Column:
    """The smallest value between the first and the last row of each span; inf in an empty one.

    Powers of two: any span is covered by two overlapping ones whose minima are known. Levels
    are made one after the other, so that memory is O(n) (Bender & Farach-Colton 2000).
    """
    lengths = span.last - span.first + 1
    result = np.full(len(lengths), inf)
    levels = np.frexp(lengths.astype(np.float64))[1] - 1
    minima = values
    for level in range(int(np.max(levels, initial=-1)) + 1):
        width = 1 << level
        asked = np.flatnonzero((levels == level) & (lengths > 0))
        if asked.size:
            begin, end = span.first[asked], span.last[asked] + 1 - width
            result[asked] = np.minimum(minima[begin], minima[end])
        minima = np.minimum(minima[:-width], minima[width:])
    return result


def largest(values: Column, span: Spans) -> Column:
    return -smallest(-values, span)


def until(left: Column, right: Column, span: Spans, future: float) -> Column:
    """The value of `left until right` in every row; `future` is that of `right` after the end.

    Splits a window [a, b] into: left holds up to a, right comes within [a, b], and from a on
    left holds until right comes, however late (Donzé, Ferrère & Maler 2013). The last part needs
    no window: had right come only later than b, what holds until then would hold until any row
    before.
    """
    n = len(left)
    unbounded = np.empty(n + 1)
    unbounded[n] = future
    coming = future
    for row, (holds, comes) in enumerate(
        zip(left[::-1].tolist(), right[::-1].tolist(), strict=True)
    ):
        coming = max(comes, min(holds, coming))
        unbounded[n - 1 - row] = coming
    before = smallest(left, Spans(np.arange(n, dtype=np.intp), span.first - 1))
    within = largest(np.append(right, future), span)
    return np.minimum(np.minimum(before, within), unbounded[span.first])
