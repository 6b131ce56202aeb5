"""One HTML file that shows kept moves and plans beside those of another configuration."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from controller.replay_verb import OPEN_LOOP, course, stance
from controller.settings import Settings, load
from controller.signal import NS_PER_S
from controller.what_if import Compared, MvChange, Outcome
from hil.compare.page import settings_diff, write_page
from hil.compare.runs import newest_start
from hil.history import Column
from hil.report.axes import axis_label, range_words, scale_to, shade_limits
from hil.report.canvas import (
    FILL_DARK,
    MUTED,
    TRUTH,
    Chart,
    TimeAxis,
    drawing,
    legend,
    render,
    time_axis,
    utc,
)
from hil.report.lanes import MODES, RUNGS, draw_lanes, state_lane
from hil.report.page import Cell, Raw, banner, code, page, paragraph, picture, safe, section, table
from hil.report.tables import clock

_PANEL = 2.4
_NAN = float("nan")
# Kept wide and grey, the other one narrow and coloured on top: where both agree, both can be seen.
_LOOKS = (("kept", FILL_DARK, 3.0), ("would have", TRUTH, 1.3))


def write_what_if(
    outcome: Outcome, each: Sequence[Compared], data: Path, config: Path, out: Path
) -> Path:
    """Write the page of a what-if, and return where it is.

    Args:
        each: every compared cycle, at least one.
        data, config: the journal and the other application file.

    Raises:
        ReplayError: the page cannot be written.
    """
    other = load(config)
    start_ns = each[0].time_ns
    text = page(
        f"{config.name} on {data.name} – Loopwright what-if",
        _heading(outcome, each, data, config),
        _moves(outcome, start_ns),
        section("Kept and would-have moves", *map(picture, _trends(each, other))),
        *_cases(outcome, other, start_ns),
        _changed(data, other),
        section(
            "How to repeat this",
            code(
                f"loopwright hil what-if {shlex.quote(str(data))} "
                f"--config {shlex.quote(str(config))} --html {shlex.quote(str(out))}"
            ),
        ),
    )
    return write_page(out, text)


def _heading(outcome: Outcome, each: Sequence[Compared], data: Path, config: Path) -> Raw:
    first, last = (utc(e.time_ns, seconds=True) for e in (each[0], each[-1]))
    words = f"{outcome.differing} of {outcome.cycles} cycles with another move"
    facts = f"Journal {data}, decided again with {config}, {first} to {last}."
    mark = banner("recorded", words, OPEN_LOOP)
    note = paragraph(outcome.note) if outcome.note else ""
    return Raw(f"<header><h1>What if?</h1>{paragraph(facts, 'muted')}{mark}{note}</header>")


def _moves(outcome: Outcome, start_ns: int) -> Raw:
    header = (
        "MV",
        Cell("Moves differ in", "number"),
        Cell("Plans differ in", "number"),
        Cell("First", "number"),
        Cell("Mean", "number"),
        Cell("Mean size", "number"),
        Cell("Largest", "number"),
        "Unit",
    )
    rows = [_row(change, start_ns) for change in outcome.mvs.values()]
    parts = [table(header, rows, narrow=True)]
    tolerances = ", ".join(f"{c.tolerance:g} {c.unit} of {c.name}" for c in outcome.mvs.values())
    parts.append(
        paragraph(
            f"Would-have minus kept, over the cycles that differ. Less than {tolerances} is no "
            "difference. Times are h:m:s since the first cycle.",
            "muted",
        )
    )
    if outcome.states:
        lines = [
            (
                s.what,
                s.kept or "none",
                s.would or "none",
                Cell(str(s.cycles), "number"),
                Cell(clock((s.first_ns - start_ns) / NS_PER_S), "number"),
            )
            for s in outcome.states
        ]
        names = ("", "Kept", "Would have", Cell("Cycles", "number"), Cell("First", "number"))
        parts.append(table(names, lines, narrow=True))
    return section("Which moves change", *parts)


def _row(change: MvChange, start_ns: int) -> list[str | Cell]:
    if change.first_ns is None:
        texts = ["never", "", "", ""]
    else:
        texts = [
            clock((change.first_ns - start_ns) / NS_PER_S),
            f"{change.mean:+.3g}",
            f"{change.mean_size:.3g}",
            f"{change.largest:+.3g}",
        ]
    counted = [f"{change.differing} of {change.compared}", str(change.planned), *texts]
    numbers = [Cell(text.replace("-", "−"), "number") for text in counted]
    return [change.name, *numbers, change.unit]


def _trends(each: Sequence[Compared], other: Settings) -> list[Chart]:
    start_ns = each[0].time_ns
    time_s = np.array([(e.time_ns - start_ns) / NS_PER_S for e in each])
    axis = time_axis(start_ns, float(time_s[-1]) + other.cycle_s, ())
    charts: list[Chart] = []
    with drawing():
        for i, mv in enumerate(other.manipulated):
            kept, would = (
                np.array([o.move.get(mv.name, _NAN) for o in side])
                for side in ([e.kept for e in each], [e.would for e in each])
            )
            unit = other.tags[mv.setpoint].unit
            figure, axes = axis.figure(_PANEL, axis_label(mv.name, unit))
            _pair(axis, axes, time_s, (kept, would), "steps-post")
            scale_to(axes, [kept, would], (mv.low, mv.high))
            shade_limits(axes, mv.low, mv.high)
            legend(axes)
            caption = "Setpoint that passed the guard in each cycle. "
            caption += range_words("Limits", mv.low, mv.high, unit)
            title = f"Manipulated variable {mv.name}"
            charts.append(Chart(f"mv{i}", title, caption, render(figure, f"mv{i}")))
            figure, axes = axis.figure(1.7, axis_label(f"Δ {mv.name}", unit))
            axis.line(
                axes, time_s, would - kept, color=TRUTH, linewidth=1.1, drawstyle="steps-post"
            )
            axes.axhline(0.0, color=MUTED, linewidth=0.8)
            scale_to(axes, [would - kept], (0.0,))
            caption = "Each difference counts from where the plant stood; they do not add up."
            title = f"{mv.name}, would-have minus kept"
            charts.append(Chart(f"delta{i}", title, caption, render(figure, f"delta{i}")))
        rows = [
            state_lane(f"{what} {word}", time_s, states, other.cycle_s, looks)
            for what, looks in (("mode", MODES), ("rung", RUNGS))
            for word, states in (
                ("kept", [getattr(e.kept, what) for e in each]),
                ("other", [getattr(e.would, what) for e in each]),
            )
        ]
        figure = draw_lanes(axis, rows)
        caption = "Mode and rung of the solve ladder in each cycle."
        charts.append(Chart("lanes", "Modes and solver", caption, render(figure, "lanes")))
    return charts


def _pair(
    axis: TimeAxis, axes: Axes, time_s: Column, values: tuple[Column, Column], drawstyle: str
) -> None:
    for value, (label, colour, width) in zip(values, _LOOKS, strict=True):
        axis.line(
            axes, time_s, value, color=colour, linewidth=width, drawstyle=drawstyle, label=label
        )


def _cases(outcome: Outcome, other: Settings, start_ns: int) -> list[Raw]:
    """A section for the first and one for the most different cycles, with the plans in pictures."""
    found: list[Raw] = []
    for title, kind, cases in (
        ("The first cycle that differs", "first", outcome.first[:1]),
        ("The cycles that differ most", "most", outcome.most),
    ):
        parts: list[Raw] = []
        for i, case in enumerate(cases):
            at = clock((case.time_ns - start_ns) / NS_PER_S)
            parts.append(Raw(f"<h3>Cycle {case.cycle}, {safe(at)}</h3>"))
            parts.append(_case_table(case, outcome))
            parts += map(picture, _plans(case, other, f"{kind}{i}"))
        if parts:
            found.append(section(title, *parts))
    return found


def _case_table(case: Compared, outcome: Outcome) -> Raw:
    both = (case.kept, case.would)
    rows = [("mode, rung, plan", *map(stance, both))]
    for name, change in outcome.mvs.items():
        moves = (f"{o.move[name]:.5g} {change.unit}" if name in o.move else "–" for o in both)
        rows.append((f"{name} moved to", *moves))
        rows.append((f"{name} planned", *(course(o.moves.get(name, ())) for o in both)))
    rows += [
        (f"{name} expected", *(course(o.expected.get(name, ())) for o in both))
        for name in dict.fromkeys(n for o in both for n in o.expected)
    ]
    return table(("", "Kept", "Would have"), rows)


class _Variable(NamedTuple):
    """A variable of a plan, with the limits that the other configuration gives it."""

    name: str
    unit: str
    low: float
    high: float


def _plans(case: Compared, other: Settings, prefix: str) -> list[Chart]:
    """The planned moves and what was expected of them, over the longer of the two horizons."""
    both = (case.kept, case.would)
    horizon_s = max(o.step_s * max(map(len, o.moves.values()), default=0) for o in both)
    if not horizon_s:
        return []
    axis = time_axis(case.time_ns, horizon_s, ())
    units = {variable.name: variable.unit for variable in other.model.y}
    mvs = [
        _Variable(mv.name, other.tags[mv.setpoint].unit, mv.low, mv.high)
        for mv in other.manipulated
    ]
    cvs = [_Variable(cv.output, units[cv.output], cv.low, cv.high) for cv in other.controlled]
    charts: list[Chart] = []
    with drawing():
        for i, mv in enumerate(mvs):
            # The last move stays for its whole interval.
            ahead = [[*v, *v[-1:]] for v in (list(o.moves.get(mv.name, ())) for o in both)]
            title = f"{mv.name}, planned in cycle {case.cycle}"
            charts.append(_plan(axis, mv, ahead, case, title, f"{prefix}-mv{i}", "steps-post"))
        for i, cv in enumerate(cvs):
            ahead = [list(o.expected.get(cv.name, ())) for o in both]
            title = f"{cv.name}, expected in cycle {case.cycle}"
            charts.append(_plan(axis, cv, ahead, case, title, f"{prefix}-cv{i}", "default"))
    return charts


def _plan(
    axis: TimeAxis,
    variable: _Variable,
    ahead: Sequence[Sequence[float]],
    case: Compared,
    title: str,
    name: str,
    drawstyle: str,
) -> Chart:
    figure, axes = axis.figure(2.0, axis_label(variable.name, variable.unit))
    columns = [np.array(values, dtype=np.float64) for values in ahead]
    for values, side, look in zip(columns, (case.kept, case.would), _LOOKS, strict=True):
        time_s = np.array([side.step_s * k for k in range(values.size)])
        label, colour, width = look
        axis.line(
            axes, time_s, values, color=colour, linewidth=width, drawstyle=drawstyle, label=label
        )
    scale_to(axes, columns, (variable.low, variable.high))
    shade_limits(axes, variable.low, variable.high)
    legend(axes)
    caption = range_words("Limits", variable.low, variable.high, variable.unit)
    return Chart(name, title, caption, render(figure, name))


def _changed(data: Path, other: Settings) -> Raw:
    start = newest_start(data)
    text = "" if start is None else settings_diff(start.settings_text, other.text)
    if not text:
        return section("What is changed", paragraph("The file is the one kept with the journal."))
    return section("What is changed", code(text))
