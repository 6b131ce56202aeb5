"""What a screen can show of a long series: decimation that keeps spikes, lanes of states."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hil.kpi.series import MISSED

Column = NDArray[np.float64]


class Span(NamedTuple):
    """A state that lasted from `begin` to `end` (excluded), in the unit of the time axis."""

    begin: float
    end: float
    state: str


def decimate(time: Column, value: Column, columns: int = 1000) -> tuple[Column, Column]:
    """At most four points for each of `columns` slices of time: first, least, greatest, last.

    Drawn as a line, that covers the same pixels as the whole series (the M4 aggregation, Jugel,
    Jerzak, Hackenbroich, Markl: M4, PVLDB 7(10), 2014), so no spike is lost. A slice with a gap
    (NaN) keeps one NaN, so that the line breaks there.

    Args:
        time: rising (n,); value: (n,).
    """
    if time.size <= 4 * columns:
        return time, value
    slices = np.linspace(time[0], time[-1], columns + 1)[1:-1]
    borders = [0, *np.searchsorted(time, slices).tolist(), time.size]
    keep: list[int] = []
    for first, stop in pairwise(borders):
        if first == stop:
            continue
        part = value[first:stop]
        known = np.isfinite(part)
        chosen = {first, stop - 1}
        if known.any():
            chosen |= {
                first + int(np.argmin(np.where(known, part, np.inf))),
                first + int(np.argmax(np.where(known, part, -np.inf))),
            }
        if not known.all():
            chosen.add(first + int(np.argmin(known)))
        keep.extend(sorted(chosen))
    return time[keep], value[keep]


def spans(time: Column, states: Sequence[str], step: float) -> tuple[Span, ...]:
    """Runs of equal states; an empty state is a gap. The last one lasts one `step` more.

    A step that was missed (the controller was absent) ends a run, too.
    """
    found: list[Span] = []
    first = 0
    for i in range(1, len(states) + 1):
        ended = i == len(states)
        hole = not ended and time[i] - time[i - 1] > MISSED * step
        if not ended and not hole and states[i] == states[first]:
            continue
        if states[first]:
            end = time[i - 1] + step if ended or hole else time[i]
            found.append(Span(float(time[first]), float(end), states[first]))
        first = i
    return tuple(found)


def absences(time: Column, step: float, end: float, state: str) -> tuple[Span, ...]:
    """Where no row stands, from 0 to `end`: each row stands for a step, or until the next one."""
    begins = np.append(-step if time[0] > (MISSED - 1.0) * step else time[0], time)
    ends = np.append(time, end)
    holes = np.flatnonzero(ends - begins > MISSED * step)
    return tuple(Span(float(begins[i] + step), float(ends[i]), state) for i in holes)


def broken(time: Column, value: Column, step: float) -> tuple[Column, Column]:
    """The series with a NaN where a step was missed, so that no line leads over it."""
    holes = np.flatnonzero(np.diff(time) > MISSED * step)
    return np.insert(time, holes + 1, time[holes] + step), np.insert(value, holes + 1, np.nan)


def plateaus(levels: Sequence[tuple[float, ...]], count: int) -> tuple[tuple[int, int], ...]:
    """First and last row of the `count` longest stretches without any change, in order of time.

    A stretch shorter than a fiftieth of all rows is the middle of a ramp and does not count.
    """
    found: list[tuple[int, int]] = []
    first = 0
    for i in range(1, len(levels) + 1):
        if i == len(levels) or levels[i] != levels[first]:
            found.append((first, i - 1))
            first = i
    found = [p for p in found if 50 * (p[1] - p[0] + 1) >= len(levels)]
    longest = sorted(found, key=lambda p: p[0] - p[1])[:count]
    return tuple(sorted(longest))
