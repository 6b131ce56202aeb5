"""The picture of a measurement, for a README: bars of step times, lines of growth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from controller.errors import ScenarioError
from hil.bench.document import Document

OURS, PEER, INK = "#206090", "#b0b1b2", "#303132"
ENDINGS = (".png", ".svg", ".pdf")


def check_ending(path: Path) -> None:
    """
    Raises:
        ScenarioError: matplotlib has no such picture, or the directory does not exist.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ScenarioError(
            f"{path.suffix or 'a name without ending'} is no kind of picture",
            where=f"--plot {path}",
            mend=f"End the name in one of {', '.join(ENDINGS)}",
        )
    if not path.parent.is_dir():
        raise ScenarioError(
            "there is no such directory", where=f"--plot {path}", mend=f"Make {path.parent} first"
        )


def draw(found: Document, path: Path) -> None:
    """Write the picture of a document to a .png, .svg or .pdf file."""
    panels = bool(found["cases"]) + len(found["growth"])
    figure = Figure(figsize=(4.6 * max(panels, 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(np.atleast_1d(figure.subplots(1, max(panels, 1))))
    if found["cases"]:
        _bars(axes.pop(0), found)
    for ax, growth in zip(axes, found["growth"], strict=False):
        _line(ax, growth)
    figure.savefig(path, dpi=160)


def _bars(ax: Axes, found: Document) -> None:
    """Medians as bars, 99th percentiles as whiskers, the ratio as a number above."""
    cases = found["cases"]
    place = np.arange(len(cases), dtype=np.float64)
    peered = [c for c in cases if c["ratio"] is not None]
    width = 0.38 if peered else 0.6
    _bar(ax, place, [c["median_ms"] for c in cases], [c["p99_ms"] for c in cases], width, OURS)
    if peered:
        medians = [c["peer_median_ms"] for c in cases]
        _bar(ax, place + width, medians, [c["peer_p99_ms"] for c in cases], width, PEER)
        for x, case in zip(place, cases, strict=True):
            ax.annotate(
                f"{case['ratio']:.0f}×",
                (float(x + width), case["peer_p99_ms"]),
                textcoords="offset points",
                xytext=(0, 4),
                ha="center",
                color=INK,
            )
        ax.legend(["Loopwright", "do-mpc"], frameon=False, fontsize=8, loc="upper left")
        ax.margins(y=0.25)
    ax.set_yscale("log")
    ax.set_ylabel("one step, ms: median, whisker to p99")
    labels = [f"{c['name']}\nnx {c['states']}, N {c['intervals']}" for c in cases]
    ax.set_xticks(place + (width / 2 if peered else 0.0), labels, fontsize=7)
    _tidy(ax)


def _bar(
    ax: Axes, x: np.ndarray, medians: list[float], p99: list[float], width: float, colour: str
) -> None:
    above = np.maximum(np.array(p99) - np.array(medians), 0.0)
    error = np.vstack([np.zeros_like(above), above])
    ax.bar(x, medians, width, yerr=error, color=colour, ecolor=INK, capsize=2)


def _line(ax: Axes, growth: Document) -> None:
    sizes, medians = growth["sizes"], growth["median_ms"]
    ax.loglog(sizes, medians, "o-", color=OURS)
    straight = [medians[0] * size / sizes[0] for size in sizes]
    ax.loglog(sizes, straight, "--", color=PEER, linewidth=1.0)
    ax.set_xlabel(f"{growth['over']} (exponent {growth['exponent']:.2f}; dashed: linear)")
    ax.set_ylabel("one step, ms")
    _tidy(ax)


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis="y", linewidth=0.4, color="#d0d1d2")
    ax.set_axisbelow(True)
