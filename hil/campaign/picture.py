"""Pictures of a campaign: a heat map of mismatch and KPI, and the strongest pairs as points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from controller.errors import JournalError, ScenarioError
from hil.campaign.sensitivity import Effect
from hil.campaign.summary import FAILED, Summary
from hil.report.canvas import BAD, INK, MUTED, TRUTH, short

ENDINGS = (".png", ".svg", ".pdf")
KPIS_MAX = 28
PAIRS_MAX = 6

_PLAIN: Any = {"text.parse_math": False, "svg.hashsalt": "campaign"}


def check_ending(path: Path) -> None:
    """
    Raises:
        ScenarioError: matplotlib has no such picture.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ScenarioError(
            f"{path.suffix or 'a name without ending'} is no kind of picture",
            where=f"--picture {path}",
            mend=f"End the name in one of {', '.join(ENDINGS)}",
        )


def draw(summary: Summary, path: Path) -> None:
    """Heat map and strongest pairs in one .png, .svg or .pdf file.

    Raises:
        JournalError: the file cannot be written.
    """
    pairs = summary.sensitivity.worth_drawing(PAIRS_MAX)
    shown = shown_kpis(summary)
    with mpl.rc_context(_PLAIN):
        height = heat_height(len(shown))
        figure = Figure(figsize=(10.0, height + (5.2 if pairs else 0.0)), layout="constrained")
        FigureCanvasAgg(figure)
        # A row for the heat map and two for the points.
        parts = figure.subfigures(2 if pairs else 1, 1, squeeze=False)[:, 0]
        parts[0].suptitle(f"{summary.campaign.title}\n{summary.rate}", fontsize=10, color=INK)
        draw_heat(summary, parts[0].subplots(1, 1))
        if pairs:
            draw_pairs(summary, pairs, list(np.ravel(parts[1].subplots(2, 3))))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
        except OSError as error:
            raise JournalError(
                f"the picture cannot be written: {error.strerror}",
                where=str(path),
                mend="Choose another place with --picture",
            ) from error


def heat_height(kpis: int) -> float:
    """Inches that a heat map of so many KPIs needs."""
    return 1.7 + 0.3 * max(kpis, 2)


def shown_kpis(summary: Summary) -> list[str]:
    """The KPIs that depend most on any mismatch, the verdict first."""
    found = summary.sensitivity
    if not found.kpis:
        return []
    strength = dict(zip(found.kpis, np.max(np.abs(found.grid()), axis=1), strict=True))
    ordered = sorted(found.kpis, key=lambda name: (name != FAILED, -strength[name]))
    return ordered[:KPIS_MAX]


def draw_heat(summary: Summary, axes: Axes) -> None:
    """PRCC by colour and number; uncertain ones are faint. R² stands at the right."""
    found, shown = summary.sensitivity, shown_kpis(summary)
    if not shown:
        axes.set_axis_off()
        axes.text(0.5, 0.5, found.note or "no KPI varies", ha="center", transform=axes.transAxes)
        return
    effects = {(e.kpi, e.factor): e for e in found.effects}
    names = [factor.name for factor in found.factors]
    grid = np.array([[_shade(effects[kpi, name]) for name in names] for kpi in shown])
    axes.pcolormesh(
        np.arange(len(names) + 1) - 0.5,
        np.arange(len(shown) + 1) - 0.5,
        grid,
        cmap="RdBu_r",
        vmin=-1.0,
        vmax=1.0,
        edgecolors="white",
        linewidth=0.8,
    )
    for row, kpi in enumerate(shown):
        for column, name in enumerate(names):
            _number(axes, column, row, effects[kpi, name])
        axes.text(
            len(names) - 0.4, row, f"{found.explained[kpi]:.2f}", va="center", size=8, color=INK
        )
    axes.text(len(names) - 0.4, -0.85, "R²", va="center", size=8, color=INK)
    axes.set_xlim(-0.5, len(names) + 0.3)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    labels = [short(name, 28) for name in names]
    slant: Any = {"rotation": 20, "ha": "right"} if len(names) > 6 else {}
    axes.set_xticks(range(len(names)), labels, fontsize=8, **slant)
    axes.set_yticks(range(len(shown)), [short(kpi, 32) for kpi in shown], fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _shade(effect: Effect) -> float:
    """The colour's place between -1 and 1: a third of it where chance may be the cause."""
    return effect.prcc if effect.certain else effect.prcc / 3


def _number(axes: Axes, column: int, row: int, effect: Effect) -> None:
    dark = abs(effect.prcc) > 0.6
    axes.text(
        column,
        row,
        f"{effect.prcc:+.2f}" if effect.certain else "·",
        ha="center",
        va="center",
        size=8,
        color="white" if dark and effect.certain else "#202122",
    )


def draw_pairs(summary: Summary, pairs: Sequence[Effect], axes: Sequence[Axes]) -> None:
    """KPI over the mismatch that moves it, a point per job; failed jobs are crosses."""
    ranges = {factor.name: factor.range for factor in summary.sensitivity.factors}
    failed = np.zeros(summary.rate.jobs, dtype=np.bool_)
    failed[list(summary.failed_rows)] = True
    for ax, effect in zip(axes, pairs, strict=False):
        drawn = ranges[effect.factor]
        x = summary.drawn[drawn.path]
        y = failed.astype(np.float64) if effect.kpi == FAILED else summary.columns[effect.kpi]
        ax.plot(x[~failed], y[~failed], ".", color=TRUTH, markersize=4)
        ax.plot(x[failed], y[failed], "x", color=BAD, markersize=5)
        if drawn.scale == "log":
            ax.set_xscale("log")
        ax.set_xlabel(short(drawn.name, 30), fontsize=8, labelpad=1)
        title = f"{short(effect.kpi, 24)}, PRCC {effect.prcc:+.2f}"
        ax.set_title(title, fontsize=8.5, color=INK)
        ax.tick_params(labelsize=7, color=MUTED)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(visible=True, linewidth=0.4)
    for ax in axes[len(pairs) :]:
        ax.set_axis_off()
