"""Profit of a run beside what the plant could have earned at its true optimum."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from controller.errors import ModelError
from hil.history import History
from hil.kpi.kpis import optimum
from hil.kpi.series import series
from hil.report.series import Column, plateaus
from hil.scenario.load import load_economics
from hil.scenario.parts import Economics

# An optimum costs a second or two; a story has few levels of feed, price or load.
_LEVELS = 4


class OptimumLevel(NamedTuple):
    """Best possible profit while the plant's inputs stood still, seconds of scenario time."""

    begin_s: float
    end_s: float
    profit: float


@dataclass(frozen=True, slots=True)
class Earnings:
    """True profit per cycle, its unit, and the optimum where the plant's inputs stood still.

    `note` says why there is no optimum, where there should be one.
    """

    profit: Column
    unit: str
    levels: tuple[OptimumLevel, ...]
    note: str = ""


def earnings(path: Path, history: History, folder: Path) -> Earnings | None:
    """What the scenario's economics say of a history; None where it has no economics.

    Args:
        path: the copy of the scenario beside the journal.
        folder: where the scenario lay when it ran; an optimum that is a file is looked for there.

    Raises:
        ScenarioError: the copy is missing or no scenario.
    """
    economics = load_economics(path)
    if economics is None:
        return None
    try:
        profit = series(economics.profit, history)
    except ModelError as error:
        nothing = np.full(len(history), np.nan)
        return Earnings(nothing, "", (), f"True profit is left out: {error.what}")
    try:
        return Earnings(profit, economics.unit, _levels(economics, history, folder))
    except Exception as error:  # noqa: BLE001
        # An optimum is foreign code and may fail in any way; the rest of the report stands.
        return Earnings(profit, economics.unit, (), f"The plant's optimum is not known: {error}")


def _levels(economics: Economics, history: History, folder: Path) -> tuple[OptimumLevel, ...]:
    if not economics.optimum_ref:
        return ()
    inputs = [np.round(history.column(f"u.{name}"), 6) for name in economics.optimum_inputs]
    rows = list(zip(*(values.tolist() for values in inputs), strict=True))
    rows = rows or [()] * len(history)
    seconds = history.columns["time_s"]
    known: dict[tuple[float, ...], float | None] = {}
    found: list[OptimumLevel] = []
    for first, last in plateaus(rows, _LEVELS):
        if rows[first] not in known:
            known[rows[first]] = optimum(economics, history, first, folder)
        best = known[rows[first]]
        if best is not None:
            found.append(OptimumLevel(seconds[first], seconds[last], best))
    return tuple(found)
