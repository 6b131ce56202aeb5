"""Lanes of states over time: mode, solver, doubts, faults, and when lab results arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hil.report.canvas import (
    BAD,
    FAULT,
    FILL,
    FILL_DARK,
    GRID,
    INK,
    LAB,
    MUTED,
    WARN,
    Chart,
    TimeAxis,
    render,
    short,
)
from hil.report.data import LabSample, Recorded
from hil.report.series import Column, Span, absences, spans

_ROW = 0.34  # height of a lane in inches
_FAULT_LANES = 12
_SLICES = 1200


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is drawn; a larger rank is more abnormal and survives where pixels are few."""

    face: str
    hatch: str = ""
    rank: int = 0


ABSENT = "ABSENT"
MODES: Mapping[str, Look] = {
    "ACTIVE": Look(FILL, "", 0),
    "READY": Look(FILL_DARK, "\\\\", 1),
    "INIT": Look(FILL_DARK, "..", 2),
    "MANUAL": Look(GRID, "//", 3),
    "OFF": Look("none", "", 4),
    "SHED": Look(BAD, "xx", 5),
    ABSENT: Look(GRID, "--", 6),
}
RUNGS: Mapping[str, Look] = {
    "tree": Look(FILL, "", 0),
    "condensed": Look(FILL, "", 0),
    "rti": Look(FILL, "", 0),
    "sqp": Look(FILL_DARK, "\\\\", 1),
    "ipopt": Look(FILL_DARK, "..", 2),
    "shifted": Look(WARN, "//", 3),
    "lqr": Look(WARN, "..", 4),
    "hold": Look(BAD, "xx", 5),
}
_OTHER = Look(FILL_DARK, "++", 3)
_DOUBT: Mapping[str, Look] = {"in doubt": Look(WARN, "//")}
_FAULT = Look(FAULT, "xx")


class Lane(NamedTuple):
    """A row of the picture: its label, its states over time, and how each state looks."""

    label: str
    found: tuple[Span, ...]
    looks: Mapping[str, Look]


def lanes(axis: TimeAxis, recorded: Recorded, faults: Sequence[Span]) -> Chart:
    """The lanes of one run: mode, solver, doubts, each fault, and when lab results arrived."""
    time_s, step_s = recorded.time_s, recorded.settings.cycle_s
    mode = state_lane("mode", time_s, recorded.mode, step_s, MODES)
    absent = absences(time_s, step_s, axis.last_s, ABSENT)
    rows = [
        mode._replace(found=(*mode.found, *absent)),
        state_lane("solver", time_s, recorded.rung, step_s, RUNGS),
        state_lane("doubts", time_s, recorded.doubt, step_s, _DOUBT),
    ]
    rows += fault_lanes(faults)
    caption = (
        "Grey is normal. A lab result is a tick where it arrived, with a line back to where its "
        "sample was drawn. Shaded through all pictures: control given back to the PLC (SHED)."
    )
    if absent:
        caption += " ABSENT: there was no cycle; the controller was down or stood still."
    figure = draw_lanes(axis, rows, recorded.lab)
    return Chart("lanes", "Modes, solver, faults", caption, render(figure, "lanes"))


def draw_lanes(
    axis: TimeAxis, rows: Sequence[Lane], lab: Sequence[LabSample] | None = None
) -> Figure:
    """One row per lane, each state a bar with its name on it or in the legend.

    Args:
        lab: for one more row with the lab results; None: no such row.
    """
    labels = [_two_lines(row.label) for row in rows] + ([] if lab is None else ["lab results"])
    count = len(labels)
    figure, axes = axis.figure(_ROW * count + 0.9, "")
    axes.set_ylim(count, 0)
    axes.set_yticks([i + 0.5 for i in range(count)], labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    shown: dict[str, Look] = {}
    for i, (_, found, looks) in enumerate(rows):
        shown |= _bars(axis, axes, i, found, looks)
    if lab is not None:
        drawn = axis.at([sample.drawn_s for sample in lab])
        known = axis.at([sample.known_s for sample in lab])
        middle = np.full(known.size, count - 0.5)
        axes.hlines(middle, drawn, known, color=LAB, linewidth=0.5)
        axes.plot(known, middle, "|", color=LAB, markersize=11, markeredgewidth=1.5)
    handles = [
        Patch(facecolor=look.face, edgecolor=MUTED, hatch=look.hatch or None, label=state)
        for state, look in shown.items()
    ]
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.985),
            ncols=10,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
    return figure


def state_lane(
    label: str,
    time_s: Column,
    states: Sequence[str],
    step_s: float,
    looks: Mapping[str, Look],
) -> Lane:
    """A lane of one state after the other, such as the mode."""
    return Lane(label, _visible(time_s, states, step_s, looks), looks)


def _two_lines(label: str) -> str:
    """Type and target of a fault below each other where they do not fit beside."""
    if len(label) <= 16:
        return label
    first, _, rest = label.partition(" ")
    return f"{short(first, 17)}\n{short(rest, 17)}"


def _visible(
    time_s: Column, states: Sequence[str], step_s: float, looks: Mapping[str, Look]
) -> tuple[Span, ...]:
    """Runs of states; where they are finer than the screen, the most abnormal one of each slice."""
    found = spans(time_s, states, step_s)
    if len(found) <= _SLICES // 2:
        return found
    borders = np.searchsorted(time_s, np.linspace(time_s[0], time_s[-1], _SLICES + 1)[1:-1])
    begins = sorted({0, *borders[borders < time_s.size].tolist()})
    worst = [
        max(states[begin:end], key=lambda state: looks.get(state, _OTHER).rank)
        for begin, end in zip(begins, [*begins[1:], len(states)], strict=True)
    ]
    return spans(time_s[begins], worst, max(step_s, (time_s[-1] - time_s[0]) / _SLICES))


def felt_faults(time_s: Column, active: Sequence[str], step_s: float) -> list[Span]:
    """What was broken in the cycles that a history has, in order of appearance."""
    names: list[str] = []
    for text in dict.fromkeys(active):
        names += [name for name in text.split("; ") if name and name not in names]
    found: list[Span] = []
    for name in names:
        states = [name if name in text.split("; ") else "" for text in active]
        found += spans(time_s, states, step_s)
    return found


def fault_lanes(faults: Sequence[Span]) -> list[Lane]:
    """A lane per fault, in order of appearance; the last lane takes what is too many."""
    names = list(dict.fromkeys(fault.state for fault in faults))
    groups = [[name] for name in names[: _FAULT_LANES - 1]]
    rest = names[_FAULT_LANES - 1 :]
    groups += [rest] if rest else []
    rows: list[Lane] = []
    for group in groups:
        label = group[0] if len(group) == 1 else f"{len(group)} other faults"
        found = tuple(fault._replace(state="fault") for fault in faults if fault.state in group)
        rows.append(Lane(label, found, {"fault": _FAULT}))
    return rows


def _bars(
    axis: TimeAxis, axes: Axes, row: int, found: Sequence[Span], looks: Mapping[str, Look]
) -> dict[str, Look]:
    """Draw a lane; gives the states that need a legend because no bar has room for their name."""
    named: set[str] = set()
    shown: dict[str, Look] = {}
    for state in dict.fromkeys(span.state for span in found):
        look = shown[state] = looks.get(state, _OTHER)
        own = [span for span in found if span.state == state]
        axes.broken_barh(
            [(float(axis.at([s.begin])[0]), float(axis.at([s.end - s.begin])[0])) for s in own],
            (row + 0.14, 0.72),
            facecolor=look.face,
            # The edge keeps a bar visible that is narrower than a pixel.
            edgecolor=look.face if look.face in (WARN, BAD, FAULT) else MUTED,
            linewidth=1.0,
        )
        if look.hatch:
            axes.broken_barh(
                [(float(axis.at([s.begin])[0]), float(axis.at([s.end - s.begin])[0])) for s in own],
                (row + 0.14, 0.72),
                facecolor="none",
                edgecolor=INK,
                hatch=look.hatch,
                linewidth=0.0,
                alpha=0.45,
            )
        for span in own:
            # A letter is about a hundred-and-fiftieth of the axis wide.
            if (span.end - span.begin) / axis.last_s > (len(state) + 2) / 150:
                named.add(state)
                (at,) = axis.at([(span.begin + span.end) / 2])
                axes.text(
                    at,
                    row + 0.5,
                    state,
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    bbox={"boxstyle": "round,pad=0.15", "facecolor": look.face, "linewidth": 0}
                    if look.hatch
                    else None,
                )
    return {state: look for state, look in shown.items() if state not in named}
