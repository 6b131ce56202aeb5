"""What the trends of a report have in common: labels, the range in view, and shaded limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hil.report.canvas import BAD, short, shown_unit
from hil.report.series import Column


def axis_label(name: str, unit: str) -> str:
    """Name and unit as people write it."""
    return f"{short(name, 24)}, {shown_unit(unit) or '–'}"


def range_words(words: str, low: float, high: float, unit: str) -> str:
    """The limits as a sentence; nothing where there are none."""
    known = [f"{value:g}" for value in (low, high) if np.isfinite(value)]
    if not known:
        return ""
    sign = "" if len(known) == 2 else "≥ " if np.isfinite(low) else "≤ "
    return f"{words} {sign}{' to '.join(known)} {shown_unit(unit)}".rstrip() + ". "


def scale_to(axes: Axes, seen: Sequence[Column | Sequence[float]], limits: Sequence[float]) -> None:
    """Scale to what is seen, and to each limit that is not far away from it."""
    values = np.concatenate([np.asarray(s, dtype=np.float64) for s in seen] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if not values.size:
        axes.set_ylim(0.0, 1.0)
        return
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    near = [limit for limit in limits if low - 0.6 * span <= limit <= high + 0.6 * span]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * (high - low or span)
    axes.set_ylim(low - margin, high + margin)


def shade_limits(axes: Axes, low: float, high: float) -> None:
    """Shade what lies beyond the limits, and name them there, where they are in view."""
    bottom, top = axes.get_ylim()
    low_shown, high_shown = bottom <= low <= top, bottom <= high <= top
    # Room for the words beyond a limit, clear of the data.
    room = 0.14 * (top - bottom)
    bottom = min(bottom, low - room) if low_shown else bottom
    top = max(top, high + room) if high_shown else top
    for shown, limit, edge, word in (
        (low_shown, low, bottom, "low limit"),
        (high_shown, high, top, "high limit"),
    ):
        if not shown:
            continue
        axes.axhspan(limit, edge, facecolor=BAD, alpha=0.10, linewidth=0)
        axes.axhline(limit, color=BAD, linewidth=0.9)
        axes.annotate(
            f"{word} {limit:g}",
            (1.0, edge),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3 if edge == bottom else -3),
            textcoords="offset points",
            ha="right",
            va="bottom" if edge == bottom else "top",
            color=BAD,
            fontsize=8,
        )
    axes.set_ylim(bottom, top)
