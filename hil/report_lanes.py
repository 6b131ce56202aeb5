"""Lanes of states over time: mode, solver, doubts, faults, and when lab results arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hil.history import History
from hil.report_canvas import (
    BAD,
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
from hil.report_data import Recorded
from hil.report_series import Column, Span, spans

_ROW = 0.34  # height of a lane in inches
_FAULT_LANES = 12
_SLICES = 1200


@dataclass(frozen=True, slots=True)
class _Look:
    """How a state is drawn; a larger rank is more abnormal and survives where pixels are few."""

    face: str
    hatch: str = ""
    rank: int = 0


_MODES: Mapping[str, _Look] = {
    "ACTIVE": _Look(FILL, "", 0),
    "READY": _Look(FILL_DARK, "\\\\", 1),
    "INIT": _Look(FILL_DARK, "..", 2),
    "MANUAL": _Look(GRID, "//", 3),
    "OFF": _Look("none", "", 4),
    "SHED": _Look(BAD, "xx", 5),
}
_RUNGS: Mapping[str, _Look] = {
    "tree": _Look(FILL, "", 0),
    "condensed": _Look(FILL, "", 0),
    "rti": _Look(FILL, "", 0),
    "sqp": _Look(FILL_DARK, "\\\\", 1),
    "ipopt": _Look(FILL_DARK, "..", 2),
    "shifted": _Look(WARN, "//", 3),
    "lqr": _Look(WARN, "..", 4),
    "hold": _Look(BAD, "xx", 5),
}
_OTHER = _Look(FILL_DARK, "++", 3)
_DOUBT: Mapping[str, _Look] = {"in doubt": _Look(WARN, "//")}
_FAULT = _Look(WARN, "xx")


def lanes(
    axis: TimeAxis, recorded: Recorded, history: History | None, truth_s: Column | None
) -> Chart:
    """One row per lane, each state a bar with its name on it or in the legend."""
    time_s, step_s = recorded.time_s, recorded.settings.cycle_s
    rows: list[tuple[str, tuple[Span, ...], Mapping[str, _Look]]] = [
        ("mode", _visible(time_s, recorded.mode, step_s, _MODES), _MODES),
        ("solver", _visible(time_s, recorded.rung, step_s, _RUNGS), _RUNGS),
        ("doubts", _visible(time_s, recorded.doubt, step_s, _DOUBT), _DOUBT),
    ]
    if history is not None and truth_s is not None:
        rows += _faults(truth_s, history.texts.get("faults", []), step_s)
    count = len(rows) + 1
    figure, axes = axis.figure(_ROW * count + 0.9, "")
    axes.set_ylim(count, 0)
    axes.set_yticks(
        [i + 0.5 for i in range(count)], [*(_two_lines(row[0]) for row in rows), "lab results"]
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    shown: dict[str, _Look] = {}
    for i, (_, found, looks) in enumerate(rows):
        shown |= _bars(axis, axes, i, found, looks)
    drawn = axis.at([sample.drawn_s for sample in recorded.lab])
    known = axis.at([sample.known_s for sample in recorded.lab])
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
    caption = (
        "Grey is normal. A lab result is a tick where it arrived, with a line back to where its "
        "sample was drawn. Shaded through all pictures: control given back to the PLC (SHED)."
    )
    return Chart("lanes", "Modes, solver, faults", caption, render(figure, "lanes"))


def _two_lines(label: str) -> str:
    """Type and target of a fault below each other where they do not fit beside."""
    if len(label) <= 16:
        return label
    first, _, rest = label.partition(" ")
    return f"{short(first, 17)}\n{short(rest, 17)}"


def _visible(
    time_s: Column, states: Sequence[str], step_s: float, looks: Mapping[str, _Look]
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


def _faults(
    time_s: Column, active: Sequence[str], step_s: float
) -> list[tuple[str, tuple[Span, ...], Mapping[str, _Look]]]:
    """A lane per fault, in order of appearance; the last lane takes what is too many."""
    names: list[str] = []
    for text in dict.fromkeys(active):
        names += [name for name in text.split("; ") if name and name not in names]
    groups = [[name] for name in names[: _FAULT_LANES - 1]]
    rest = names[_FAULT_LANES - 1 :]
    groups += [rest] if rest else []
    rows: list[tuple[str, tuple[Span, ...], Mapping[str, _Look]]] = []
    for group in groups:
        label = group[0] if len(group) == 1 else f"{len(group)} other faults"
        member = set(group)
        states = ["fault" if member & set(text.split("; ")) else "" for text in active]
        rows.append((label, spans(time_s, states, step_s), {"fault": _FAULT}))
    return rows


def _bars(
    axis: TimeAxis, axes: Axes, row: int, found: Sequence[Span], looks: Mapping[str, _Look]
) -> dict[str, _Look]:
    """Draw a lane; gives the states that need a legend because no bar has room for their name."""
    named: set[str] = set()
    shown: dict[str, _Look] = {}
    for state in dict.fromkeys(span.state for span in found):
        look = shown[state] = looks.get(state, _OTHER)
        own = [span for span in found if span.state == state]
        axes.broken_barh(
            [(float(axis.at([s.begin])[0]), float(axis.at([s.end - s.begin])[0])) for s in own],
            (row + 0.14, 0.72),
            facecolor=look.face,
            # The edge keeps a bar visible that is narrower than a pixel.
            edgecolor=look.face if look.face in (WARN, BAD) else MUTED,
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
