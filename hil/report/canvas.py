"""The drawing ground of a report: one time axis for all pictures, and SVG that takes its colours
from the page, so that it follows light, dark and paper."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from controller.signal import NS_PER_S
from hil.report.series import Column, Span, broken, decimate

# Stand-ins that the SVG is drawn with, and the CSS variables that replace them. Grey is normal;
# colour is for what deserves attention, and never alone: a dash, a hatch or a word goes with it.
INK, MUTED, GRID = "#101112", "#707172", "#d0d1d2"
FILL, FILL_DARK = "#c0c1c2", "#a0a1a2"
TRUTH, TARGET, LAB, FAN = "#206090", "#108060", "#805010", "#7040a0"
WARN, BAD, FAULT = "#b07010", "#c02020", "#506878"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    FILL: "fill",
    FILL_DARK: "fill-dark",
    TRUTH: "truth",
    TARGET: "target",
    LAB: "lab",
    FAN: "fan",
    WARN: "warn",
    BAD: "bad",
    FAULT: "fault",
}
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 11.0, 1.35, 0.25, 0.34, 0.50  # inches
_STYLE: Any = {
    "svg.fonttype": "none",  # words stay words: small, searchable, and in the reader's font
    "text.parse_math": False,  # a name with two dollar signs is a name, not a formula
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "axes.axisbelow": True,
}
_UNUSED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_NAMESPACE = re.compile(r' xmlns(:\w+)?="[^"]*"')
_MARKUP = re.compile(r"<[^>]*>")
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_ID = re.compile(r'( id="|url\(#|xlink:href="#)')


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: file-safe name, title, what to see in it, and the SVG element."""

    name: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The time axis that all pictures share.

    Attributes:
        first_s, last_s: its ends, seconds since the start of the run.
        unit_s, label: seconds per unit of the axis, and its label.
        ticks: distance of its labels, in its unit; 0 leaves it to the drawing library.
        step_s: of the lines, which break where a step was missed; 0: they never break.
        sheds: when control was given back to the PLC, seconds; shaded in every picture.
    """

    first_s: float
    last_s: float
    unit_s: float
    label: str
    sheds: tuple[Span, ...]
    ticks: float = 0.0
    step_s: float = 0.0

    def at(self, time_s: Column | Sequence[float]) -> Column:
        return np.asarray(time_s, dtype=np.float64) / self.unit_s

    def figure(self, height: float, ylabel: str) -> tuple[Figure, Axes]:
        """A figure of the common width, its axes at the common place; height in inches."""
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_axes(
            (
                _LEFT / _WIDTH,
                _BOTTOM / height,
                1 - (_LEFT + _RIGHT) / _WIDTH,
                1 - (_TOP + _BOTTOM) / height,
            )
        )
        axes.set_xlim(self.first_s / self.unit_s, self.last_s / self.unit_s)
        axes.set_xlabel(self.label, labelpad=2)
        axes.set_ylabel(short(ylabel, 36))
        if self.ticks:
            axes.xaxis.set_major_locator(MultipleLocator(self.ticks))
        axes.grid(visible=True)
        for shed in self.sheds:
            axes.axvspan(*self.at(shed[:2]), color=BAD, alpha=0.12, linewidth=0.8)
        return figure, axes

    def line(self, axes: Axes, time_s: Column, value: Column, **style: Any) -> None:
        """A line of what a screen shows of a series; nothing where nothing is known."""
        if np.isfinite(value).any():
            if self.step_s:
                time_s, value = broken(time_s, value, self.step_s)
            time_s, value = decimate(time_s, value)
            axes.plot(self.at(time_s), value, **style)


def time_axis(
    start_ns: int, duration_s: float, sheds: tuple[Span, ...], step_s: float = 0.0
) -> TimeAxis:
    """An axis in minutes, hours or days, whichever gives handy numbers."""
    unit_s, unit = 3600.0, "h"
    if duration_s < 2 * 3600:
        unit_s, unit = 60.0, "min"
    elif duration_s > 96 * 3600:
        unit_s, unit = 86400.0, "d"
    label = f"time since {utc(start_ns)}, {unit}"
    # Steps that divide hours and days as clocks do; at most a dozen and a half of labels.
    steps = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 12.0, 15.0, 24.0)
    ticks = next((s for s in steps if duration_s / unit_s / s <= 16), 0.0)
    if duration_s / unit_s < 4:
        ticks = 0.0
    return TimeAxis(0.0, duration_s, unit_s, label, sheds, ticks, step_s)


def short(text: str, letters: int) -> str:
    """A label that fits its place."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def shown_unit(unit: str) -> str:
    """A unit as people write it; nothing for a pure number."""
    pretty = {"degC": "°C", "percent": "%", "1": "", "delta_degC": "K"}
    return pretty.get(unit, unit.replace("**", "^"))


def utc(time_ns: int, seconds: bool = False) -> str:
    moment = datetime.fromtimestamp(time_ns / NS_PER_S, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC" if seconds else "%Y-%m-%d %H:%M UTC")


def drawing() -> Any:
    """The drawing style, as a context manager around making and rendering figures."""
    return mpl.rc_context(_STYLE)


def legend(axes: Axes) -> None:
    """One row above the axes, where it covers no data."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.985),
            ncols=8,
            columnspacing=1.4,
            handlelength=2.2,
            borderaxespad=0.2,
        )


def render(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: same figure, same bytes; no outside reference."""
    buffer = BytesIO()
    canvas = FigureCanvasSVG(figure)
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": name}):
        # Names in any script: the reader's browser has fonts that are not installed here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas.print_svg(buffer, metadata={"Date": None})
    svg = _NAMESPACE.sub("", _UNUSED.sub("", buffer.getvalue().decode())).strip()
    # A hundredth of a point is finer than any screen; numbers that are read stay as they are.
    svg = _MARKUP.sub(lambda part: _LONG_NUMBER.sub(r"\1", part[0]), svg)
    # Several pictures share the page, so their ids must differ.
    svg = _ID.sub(rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
