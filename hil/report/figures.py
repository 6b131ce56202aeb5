"""The pictures of a report: controlled and manipulated variables, disturbances, profit, lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from controller.settings.application import Controlled, Manipulated
from hil.history import History
from hil.report.axes import axis_label, range_words, scale_to, shade_limits
from hil.report.canvas import (
    BAD,
    FAN,
    FILL,
    FILL_DARK,
    INK,
    LAB,
    MUTED,
    TARGET,
    TRUTH,
    WARN,
    Chart,
    TimeAxis,
    drawing,
    legend,
    render,
    time_axis,
)
from hil.report.data import LabSample, Recorded
from hil.report.economy import Earnings
from hil.report.lanes import felt_faults, lanes
from hil.report.series import Column, spans
from hil.report.story import Story

_PANEL = 2.5  # height in inches
_ESTIMATE: dict[str, Any] = {"color": INK, "linewidth": 1.4}
_TRUE: dict[str, Any] = {"color": TRUTH, "linewidth": 1.3, "dashes": (5, 2)}
_FAN: dict[str, Any] = {"color": FAN, "linewidth": 1.5, "dashes": (1, 1), "zorder": 3}


def charts(
    recorded: Recorded, history: History | None, earned: Earnings | None, story: Story
) -> tuple[Chart, ...]:
    """Every picture that the data allow, in reading order, all over the same time axis."""
    cycle_s = recorded.settings.cycle_s
    sheds = [mode if mode == "SHED" else "" for mode in recorded.mode]
    begun_s = recorded.begun_s
    end_s = recorded.duration_s if story.end_s is None else story.end_s - begun_s
    axis = time_axis(
        recorded.start_ns,
        max(recorded.duration_s, end_s),
        spans(recorded.time_s, sheds, cycle_s),
        cycle_s,
    )
    truth_s, faults = None, story.faults or ()
    if history is not None:
        truth_s = history.column("time_s") - begun_s
        if story.faults is None:
            faults = felt_faults(history.column("time_s"), history.texts["faults"], cycle_s)
    faults = [f._replace(begin=f.begin - begun_s, end=f.end - begun_s) for f in faults]
    found: list[Chart] = []
    with drawing():
        for i, cv in enumerate(recorded.settings.controlled):
            found.append(_controlled(axis, recorded, cv, f"cv{i}", history, truth_s))
        for i, mv in enumerate(recorded.settings.manipulated):
            found.append(_manipulated(axis, recorded, mv, f"mv{i}"))
        for i, item in enumerate(recorded.settings.feedforward):
            found.append(_disturbance(axis, recorded, item.input, f"d{i}", history, truth_s))
        money = _profit(axis, recorded, earned, truth_s)
        found += [money] if money else []
        found.append(lanes(axis, recorded, faults))
        times = _compute_time(recorded, history)
        found += [times] if times else []
    return tuple(found)


def _unit(recorded: Recorded, name: str) -> str:
    model = recorded.settings.model
    variables = (*model.y, *model.u, *model.d)
    return next((v.unit for v in variables if v.name == name), "1")


def _fans(
    axis: TimeAxis, axes: Axes, recorded: Recorded, values: Mapping[float, list[float]], steps: bool
) -> None:
    step_s = recorded.settings.mpc.step_s
    label: str | None = "plans" if steps else "predictions"
    for time_s, ahead in values.items():
        ahead = [*ahead, ahead[-1]] if steps else ahead
        at = [time_s + step_s * k for k in range(len(ahead))]
        style = "steps-post" if steps else "default"
        axes.plot(axis.at(at), ahead, **_FAN, drawstyle=style, label=label)
        # A dot where the plan was made.
        axes.plot(axis.at(at[:1]), ahead[:1], "o", color=FAN, markersize=2.5, zorder=3)
        label = None


def _controlled(
    axis: TimeAxis,
    recorded: Recorded,
    cv: Controlled,
    name: str,
    history: History | None,
    truth_s: Column | None,
) -> Chart:
    unit = _unit(recorded, cv.output)
    figure, axes = axis.figure(_PANEL, axis_label(cv.output, unit))
    estimate, wanted = recorded.column(f"cv.{cv.output}"), recorded.column(f"wanted.{cv.output}")
    seen = [estimate, wanted]
    fans = {fan.time_s: fan.cv[cv.output] for fan in recorded.fans}
    _fans(axis, axes, recorded, fans, steps=False)
    axis.line(axes, recorded.time_s, estimate, **_ESTIMATE, label="estimated")
    if history is not None and truth_s is not None and f"y.{cv.output}" in history.columns:
        truth = history.column(f"y.{cv.output}")
        seen.append(truth)
        axis.line(axes, truth_s, truth, **_TRUE, label="true")
    if np.isfinite(wanted).any():
        axis.line(
            axes, recorded.time_s, wanted, color=TARGET, drawstyle="steps-post", label="setpoint"
        )
    samples = [s for s in recorded.lab if np.isfinite(s.values.get(cv.output, np.nan))]
    seen += _lab(axis, axes, samples, cv.output)
    scale_to(axes, seen, (cv.low, cv.high))
    shade_limits(axes, cv.low, cv.high)
    legend(axes)
    caption = range_words("Shaded: outside the limits", cv.low, cv.high, unit)
    if samples:
        caption += "Lab results stand at the time the sample was drawn, bars are ±2 σ. "
    caption += "Dotted: what the plan made at that time expected."
    svg = render(figure, name)
    return Chart(name, f"Controlled variable {cv.output}", caption, svg)


def _lab(
    axis: TimeAxis, axes: Axes, samples: Sequence[LabSample], output: str
) -> list[Column | Sequence[float]]:
    seen: list[Column | Sequence[float]] = []
    for used, marker, face, label in (
        (True, "o", LAB, "lab, ±2 σ"),
        (False, "X", BAD, "lab, refused or not used"),
    ):
        chosen = [s for s in samples if (s.fate == "fused") is used]
        if not chosen:
            continue
        values = [s.values[output] for s in chosen]
        bars = [2 * s.sigma.get(output, 0.0) for s in chosen]
        axes.errorbar(
            axis.at([s.drawn_s for s in chosen]),
            values,
            yerr=bars,
            fmt=marker,
            markersize=4.5 if used else 6.5,
            color=face,
            markeredgecolor=face,
            elinewidth=1.2,
            capsize=2.5,
            label=label,
            zorder=4,
        )
        seen += [[v + b for v, b in zip(values, bars, strict=True)]]
        seen += [[v - b for v, b in zip(values, bars, strict=True)]]
    return seen


def _manipulated(axis: TimeAxis, recorded: Recorded, mv: Manipulated, name: str) -> Chart:
    unit = _unit(recorded, mv.input)
    figure, axes = axis.figure(_PANEL, axis_label(mv.name, unit))
    in_use = recorded.column(f"in_use.{mv.name}")
    written = recorded.column(f"written.{mv.name}")
    resting = recorded.column(f"resting.{mv.name}")
    fans = {fan.time_s: fan.mv[mv.name] for fan in recorded.fans}
    _fans(axis, axes, recorded, fans, steps=True)
    steps = {"drawstyle": "steps-post"}
    axis.line(
        axes,
        recorded.time_s,
        resting,
        color=TARGET,
        linewidth=1.3,
        dashes=(5, 2),
        label="optimizer's target",
        **steps,
    )
    axis.line(
        axes, recorded.time_s, in_use, color=FILL_DARK, linewidth=3.0, label="in use", **steps
    )
    axis.line(
        axes, recorded.time_s, written, color=INK, linewidth=1.1, label="written by us", **steps
    )
    scale_to(axes, [in_use, written, resting], (mv.low, mv.high))
    shade_limits(axes, mv.low, mv.high)
    legend(axes)
    caption = (
        range_words("Setpoint of the PLC's loop; limits", mv.low, mv.high, unit)
        + "Where no value is written the PLC has control. "
        "Dotted: moves that the plan made at that time intended."
    )
    return Chart(name, f"Manipulated variable {mv.name}", caption, render(figure, name))


def _disturbance(
    axis: TimeAxis,
    recorded: Recorded,
    variable: str,
    name: str,
    history: History | None,
    truth_s: Column | None,
) -> Chart:
    figure, axes = axis.figure(2.0, axis_label(variable, _unit(recorded, variable)))
    measured = recorded.column(f"d.{variable}")
    seen = [measured]
    axis.line(axes, recorded.time_s, measured, color=INK, linewidth=1.0, label="measured")
    if history is not None and truth_s is not None:
        column = next((c for c in (f"y.{variable}", f"u.{variable}") if c in history.columns), "")
        if column:
            seen.append(history.column(column))
            axis.line(axes, truth_s, seen[-1], **_TRUE, label="true")
    scale_to(axes, seen, ())
    legend(axes)
    caption = "Measured disturbance: read, never moved. A gap is a value that was not trusted."
    return Chart(name, f"Disturbance {variable}", caption, render(figure, name))


def _profit(
    axis: TimeAxis, recorded: Recorded, earned: Earnings | None, truth_s: Column | None
) -> Chart | None:
    if earned is not None and truth_s is not None and np.isfinite(earned.profit).any():
        figure, axes = axis.figure(_PANEL, f"profit, {earned.unit}")
        axis.line(axes, truth_s, earned.profit, **_ESTIMATE, label="profit of the plant")
        seen: list[Column | Sequence[float]] = [earned.profit]
        shift_s = truth_s[0] if truth_s.size else 0.0
        for i, level in enumerate(earned.levels):
            axes.plot(
                axis.at([level.begin_s + shift_s, level.end_s + shift_s]),
                [level.profit] * 2,
                color=TARGET,
                linewidth=1.6,
                dashes=(6, 2),
                label=None if i else "best possible in steady state",
            )
            seen.append([level.profit])
        caption = "True profit rate beside the plant's own optimum within the limits. "
    else:
        optimizer = recorded.settings.optimizer
        objective = recorded.column("objective")
        if optimizer is None or not np.isfinite(objective).any():
            return None
        figure, axes = axis.figure(_PANEL, f"objective, {optimizer.unit}")
        axis.line(axes, recorded.time_s, objective, **_ESTIMATE, label="estimated objective")
        seen = [objective]
        caption = "What the optimizer maximises, at the estimated outputs. "
    scale_to(axes, seen, ())
    _proposals(axis, axes, recorded)
    legend(axes)
    if recorded.advised:
        caption += "Numbered: proposals of the optimizer, as in the table below."
    return Chart("profit", "Profit", caption, render(figure, "profit"))


def _proposals(axis: TimeAxis, axes: Axes, recorded: Recorded) -> None:
    """A tick and a number per proposal; numbers only as far as they do not run together."""
    if recorded.advised:
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom - 0.12 * (top - bottom), top)
    last_s = -np.inf
    for number, advised in enumerate(recorded.advised, 1):
        (at,) = axis.at([advised.time_s])
        axes.axvline(at, ymax=0.05, color=MUTED, linewidth=1.0)
        if advised.time_s - last_s >= axis.last_s / 60:
            place = ("data", "axes fraction")
            axes.annotate(
                str(number), (at, 0.06), xycoords=place, ha="center", fontsize=8, color=MUTED
            )
            last_s = advised.time_s


def _compute_time(recorded: Recorded, history: History | None) -> Chart | None:
    """Histogram of solve times, or of the busy part of the cycle where those are not known."""
    values, what = recorded.column("busy_ms"), "read, decide and write"
    if history is not None and "solve_ms" in history.columns:
        values, what = history.column("solve_ms"), "solve"
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return None
    low, high = np.log10(values.min()) - 0.05, np.log10(values.max()) + 0.05
    axis = TimeAxis(10**low, 10**high, 1.0, f"time to {what}, ms", ())
    figure, axes = axis.figure(2.2, "cycles")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if high - low < 1.5:
        axes.xaxis.set_minor_formatter(
            lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else ""
        )
    axes.hist(values, bins=np.logspace(low, high, 60).tolist(), color=FILL, edgecolor=FILL_DARK)
    for share, word, dashes in ((0.5, "median", (4, 2)), (0.99, "99 %", (1, 1))):
        value = float(np.quantile(values, share))
        colour = INK if share == 0.5 else WARN
        axes.axvline(
            value, color=colour, linewidth=1.3, dashes=dashes, label=f"{word} {value:.3g} ms"
        )
    legend(axes)
    budget_ms = 1e3 * recorded.settings.cycle_s
    caption = (
        f"{values.size} cycles; slowest {values.max():.3g} ms of the {budget_ms:g} ms that a "
        "cycle lasts. Logarithmic scale."
    )
    return Chart("times", f"Time to {what}", caption, render(figure, "times"))
