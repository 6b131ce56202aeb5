"""The picture of a tuning: what CV and MVs do after a step, with the model and with all plants."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from controller.workbench.closed_loop import ClosedLoop, StepTest
from controller.workbench.search import severity
from controller.workbench.suggestion import duration
from controller.workbench.tuning import TunedCv, Tuning
from plant_models.process import Vector

NOMINAL, ENVELOPE, WORST, WANTED = "#206090", "#c8d6e0", "#c02020", "#108060"
WIDTH, HEIGHT = 5.0, 1.9  # inches of one panel
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "loopwright",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
}


def draw(loop: ClosedLoop, tuning: Tuning, kind: str = "svg") -> bytes:
    """One column per CV that was stepped, one row for it and one per MV; png, svg or pdf."""
    mvs = loop.application.mvs
    with mpl.rc_context(_STYLE):
        rows, columns = 1 + len(mvs), len(tuning.cvs)
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, sharex="col")
        for column, cv in enumerate(tuning.cvs):
            factor, unit = _time(float(cv.nominal.time_s[-1]))
            _cv_panel(loop, axes[0, column], cv, factor)
            for i, mv in enumerate(mvs):
                series = [test.u[:, i] for test in cv.tests]
                _panel(axes[1 + i, column], cv, series, factor, steps=True)
                axes[1 + i, column].set_ylabel(f"{mv.name} [{mv.unit}]")
            axes[-1, column].set_xlabel(f"time after the step [{unit}]")
        axes[0, 0].legend(loc="lower right", frameon=False, fontsize=8.0)
        target = BytesIO()
        plain = {"Date": None} if kind == "svg" else None
        figure.savefig(target, format=kind, dpi=130, metadata=plain)
    return target.getvalue()


def _time(seconds: float) -> tuple[float, str]:
    """The unit in which so long a time is drawn: seconds in it, and its name."""
    if seconds > 4.0 * 3600.0:
        return 3600.0, "h"
    return (60.0, "min") if seconds > 240.0 else (1.0, "s")


def _cv_panel(loop: ClosedLoop, axes: Axes, cv: TunedCv, factor: float) -> None:
    index = cv.nominal.cv
    begin = float(loop.point.y[loop.application.cvs[index].output])
    _panel(axes, cv, [test.y[:, index] for test in cv.tests], factor, steps=False)
    axes.axhline(begin + cv.nominal.size, color=WANTED, linewidth=1.0, linestyle="--")
    axes.axvline(
        cv.wanted_s / factor,
        color=WANTED,
        linewidth=1.0,
        linestyle=":",
        label=f"wanted: 63 % in {duration(cv.wanted_s)}",
    )
    axes.set_ylabel(f"{cv.name} [{cv.unit}]")
    axes.set_title(
        f"{cv.name}: {duration(cv.nominal_s)}, worst {duration(cv.worst_s)}, "
        f"overshoot {cv.overshoot:.0%}, worst {cv.worst_overshoot:.0%}",
        fontsize=9.0,
        loc="left",
    )


def _panel(
    axes: Axes, cv: TunedCv, series: Sequence[Vector], factor: float, *, steps: bool
) -> None:
    """Nominal line, envelope of the ensemble, and the least damped plant."""
    times = max((test.time_s for test in cv.tests), key=len) / factor
    padded = np.array([np.pad(s, (0, times.size - s.size), mode="edge") for s in series])
    where: Any = "post" if steps else None
    axes.fill_between(
        times,
        padded.min(axis=0),
        padded.max(axis=0),
        color=ENVELOPE,
        step=where,
        label=f"all {len(cv.tests)} plants",
    )
    style: Any = {"drawstyle": "steps-post"} if steps else {}
    worst = cv.tests.index(_least_damped(cv.tests))
    axes.plot(
        times, padded[worst], color=WORST, linewidth=1.1, linestyle="--", label="worst", **style
    )
    axes.plot(times, padded[0], color=NOMINAL, linewidth=1.6, label="model", **style)


def _least_damped(tests: Sequence[StepTest]) -> StepTest:
    return max(tests, key=lambda test: (severity(test), test.response_s))
