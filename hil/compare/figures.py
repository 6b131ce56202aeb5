"""Trends of two runs over the same axes: controlled and manipulated variables, modes, faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from controller.settings import Settings
from hil.compare.runs import FinishedRun, Pair
from hil.history import Column, History
from hil.report.axes import axis_label, range_words, scale_to, shade_limits
from hil.report.canvas import (
    FILL_DARK,
    MUTED,
    TARGET,
    TRUTH,
    Chart,
    TimeAxis,
    drawing,
    legend,
    render,
    time_axis,
)
from hil.report.lanes import MODES, RUNGS, Lane, draw_lanes, fault_lanes, felt_faults, state_lane
from hil.world import START_NS

_PANEL = 2.4
_SEEDS = 20  # for the band of all seeds; more would not widen it much
_SLICES = 400


class _Side(NamedTuple):
    """One run of the pair that is shown, and the histories of the others of its side."""

    history: History
    settings: Settings | None
    others: tuple[History, ...]

    def column(self, name: str) -> Column | None:
        return self.history.column(name) if name in self.history.columns else None

    @property
    def time_s(self) -> Column:
        return self.history.column("time_s")

    @property
    def step_s(self) -> float:
        steps = np.diff(self.time_s)
        return float(np.median(steps)) if steps.size else 1.0


def overlays(shown: Pair, pairs: Sequence[Pair], prefix: str) -> tuple[Chart, ...]:
    """Pictures of one pair, with the range of all seeds behind; none without a true history.

    Args:
        prefix: makes the names of the pictures unique in the page.

    Raises:
        ReplayError, JournalError: the data of a run are damaged.
    """
    others = [pair for pair in pairs if pair is not shown][: _SEEDS - 1]
    a, b = (
        _side(run, [each.history() for each in rest])
        for run, rest in ((shown.a, [p.a for p in others]), (shown.b, [p.b for p in others]))
    )
    if a is None or b is None:
        return ()
    duration_s = max(float(side.time_s[-1]) + side.step_s for side in (a, b))
    axis = time_axis(START_NS, duration_s, (), max(a.step_s, b.step_s))
    found: list[Chart] = []
    with drawing():
        for i, name in enumerate(dict.fromkeys((*_named(a, "cv"), *_named(b, "cv")))):
            found.append(_controlled(axis, a, b, name, f"{prefix}-cv{i}"))
        for i, name in enumerate(dict.fromkeys((*_named(a, "sp"), *_named(b, "sp")))):
            found.append(_manipulated(axis, a, b, name, f"{prefix}-mv{i}"))
        found.append(_lanes(axis, a, b, f"{prefix}-lanes"))
    return tuple(found)


def _side(run: FinishedRun, others: Sequence[History | None]) -> _Side | None:
    history = run.history()
    if history is None:
        return None
    return _Side(history, run.settings(), tuple(h for h in others if h is not None))


def _named(side: _Side, prefix: str) -> list[str]:
    return list(side.history.named(prefix))


def _controlled(axis: TimeAxis, a: _Side, b: _Side, name: str, chart: str) -> Chart:
    unit = _unit(b.settings or a.settings, name)
    figure, axes = axis.figure(_PANEL, axis_label(name, unit))
    # The plant's own value if the harness knows it, else what the controller estimated.
    column = f"y.{name}" if a.column(f"y.{name}") is not None else f"cv.{name}"
    seen = _both(axis, axes, a, b, column, "default")
    for side, label, dashes in ((a, "setpoint A", (2, 2)), (b, "setpoint B", (5, 2))):
        wanted = side.column(f"wanted.{name}")
        if wanted is None or not np.isfinite(wanted).any():
            continue
        same = _equal(wanted, a.column(f"wanted.{name}"), b.column(f"wanted.{name}"))
        if same and side is b:
            continue
        seen.append(wanted)
        axis.line(
            axes,
            side.time_s,
            wanted,
            color=TARGET,
            linewidth=1.2,
            dashes=dashes,
            drawstyle="steps-post",
            label="setpoint" if same else label,
        )
    limits = [_cv_limits(side.settings, name) for side in (a, b)]
    words = _show_limits(axes, seen, limits, unit)
    legend(axes)
    truth = "True value" if column.startswith("y.") else "Estimated value"
    return Chart(chart, f"Controlled variable {name}", f"{truth}. {words}", render(figure, chart))


def _manipulated(axis: TimeAxis, a: _Side, b: _Side, name: str, chart: str) -> Chart:
    settings = b.settings or a.settings
    mv = (
        None
        if settings is None
        else next((m for m in settings.manipulated if m.name == name), None)
    )
    unit = _unit(settings, mv.input if mv is not None else name)
    figure, axes = axis.figure(_PANEL, axis_label(name, unit))
    seen = _both(axis, axes, a, b, f"sp.{name}", "steps-post")
    limits = [_mv_limits(side.settings, name) for side in (a, b)]
    words = _show_limits(axes, seen, limits, unit)
    legend(axes)
    caption = f"Setpoint in use in the PLC. {words}"
    return Chart(chart, f"Manipulated variable {name}", caption, render(figure, chart))


def _both(
    axis: TimeAxis, axes: Axes, a: _Side, b: _Side, name: str, drawstyle: str
) -> list[Column | Sequence[float]]:
    """A wide and grey, B narrow and coloured on top: where both agree, both can be seen."""
    seen: list[Column | Sequence[float]] = []
    for side, label, colour in ((a, "A", FILL_DARK), (b, "B", TRUTH)):
        band = _band(side, name)
        if band is not None:
            time_s, low, high = band
            n = len(side.others) + 1
            axes.fill_between(
                axis.at(time_s),
                low,
                high,
                color=colour,
                alpha=0.22,
                linewidth=0,
                label=f"{label}, all {n} runs",
            )
            seen += [low, high]
    for side, label, colour, width in ((a, "A", FILL_DARK, 3.0), (b, "B", TRUTH, 1.3)):
        values = side.column(name)
        if values is None:
            continue
        seen.append(values)
        axis.line(
            axes,
            side.time_s,
            values,
            color=colour,
            linewidth=width,
            drawstyle=drawstyle,
            label=label,
        )
    return seen


def _band(side: _Side, name: str) -> tuple[Column, Column, Column] | None:
    """Time, least and greatest value over all runs of a side with the same cycles."""
    own = side.column(name)
    if own is None:
        return None
    rows = [h.column(name) for h in side.others if name in h.columns]
    rows = [row for row in rows if row.size == own.size]
    if not rows:
        return None
    every = np.vstack([own, *rows])
    low, high = np.fmin.reduce(every), np.fmax.reduce(every)
    begins = np.unique(np.linspace(0, own.size, min(_SLICES, own.size) + 1).astype(int)[:-1])
    return (
        side.time_s[begins],
        np.fmin.reduceat(low, begins),
        np.fmax.reduceat(high, begins),
    )


def _equal(values: Column, *others: Column | None) -> bool:
    return all(o is not None and np.array_equal(values, o, equal_nan=True) for o in others)


def _cv_limits(settings: Settings | None, name: str) -> tuple[float, float] | None:
    found = [] if settings is None else [c for c in settings.controlled if c.output == name]
    return (found[0].low, found[0].high) if found else None


def _mv_limits(settings: Settings | None, name: str) -> tuple[float, float] | None:
    found = [] if settings is None else [m for m in settings.manipulated if m.name == name]
    return (found[0].low, found[0].high) if found else None


def _show_limits(
    axes: Axes,
    seen: Sequence[Column | Sequence[float]],
    limits: Sequence[tuple[float, float] | None],
    unit: str,
) -> str:
    """Shade the limits of B, and draw those of A where they are others; tells both in words."""
    a, b = limits
    known = b or a or (-np.inf, np.inf)
    moved = a is not None and b is not None and a != b
    scale_to(axes, seen, [*known, *(a if moved and a is not None else ())])
    shade_limits(axes, *known)
    if not moved or a is None:
        return range_words("Limits", *known, unit)
    bottom, top = axes.get_ylim()
    for limit in a:
        if bottom <= limit <= top:
            axes.axhline(limit, color=MUTED, linewidth=1.0, dashes=(3, 3))
    return range_words("Limits of B, shaded:", *known, unit) + range_words(
        "Limits of A, dashed:", *a, unit
    )


def _unit(settings: Settings | None, variable: str) -> str:
    if settings is None:
        return ""
    model = settings.model
    return next((v.unit for v in (*model.y, *model.u, *model.d) if v.name == variable), "")


def _lanes(axis: TimeAxis, a: _Side, b: _Side, chart: str) -> Chart:
    rows: list[Lane] = []
    for text, looks in (("mode", MODES), ("rung", RUNGS)):
        for side, label in ((a, "A"), (b, "B")):
            states = side.history.texts.get(text, [])
            if states:
                word = "solver" if text == "rung" else text
                rows.append(state_lane(f"{word} {label}", side.time_s, states, side.step_s, looks))
    faults = [side.history.texts.get("faults", []) for side in (a, b)]
    if faults[0] == faults[1]:
        rows += fault_lanes(felt_faults(b.time_s, faults[1], b.step_s))
    else:
        for side, active, label in ((a, faults[0], "A"), (b, faults[1], "B")):
            found = fault_lanes(felt_faults(side.time_s, active, side.step_s))
            rows += [lane._replace(label=f"{label}: {lane.label}") for lane in found]
    figure = draw_lanes(axis, rows)
    caption = "Grey is normal. Faults are those that the scenario raised."
    return Chart(chart, "Modes, solver, faults", caption, render(figure, chart))
