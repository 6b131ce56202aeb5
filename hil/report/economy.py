"""Profit of a run beside what the plant could have earned at its true optimum."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from controller.errors import ModelError, ScenarioError, SettingsError
from controller.settings import Settings
from controller.settings.yaml_core import decode, read
from hil.history import History
from hil.kpi.kpis import optimum, profit_series
from hil.report.series import Column, plateaus
from hil.scenario import Scenario, load_scenario

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


def earnings(path: Path, settings: Settings, history: History) -> Earnings | None:
    """What the scenario's economics say of a history; None where it has no economics.

    Args:
        path: the copy of the scenario beside the journal.
        settings: of the run, from its journal.

    Raises:
        ScenarioError: the copy is no scenario.
    """
    try:
        scenario = reload_scenario(path, settings)
    except SettingsError as error:
        nothing = np.full(len(history), np.nan)
        return Earnings(nothing, "", (), f"True profit is left out: {error.what}")
    profit = profit_series(scenario, history)
    if scenario.economics is None or profit is None:
        return None
    unit = scenario.economics.unit
    try:
        return Earnings(profit, unit, _levels(scenario, history))
    except (ModelError, ArithmeticError, KeyError, TypeError, ValueError) as error:
        # A foreign optimum may fail in any of these ways; the rest of the report stands.
        return Earnings(profit, unit, (), f"The plant's optimum is not known: {error}")


def reload_scenario(path: Path, settings: Settings) -> Scenario:
    """The scenario of a run, from its copy; its application is the one kept in the journal.

    Raises:
        ScenarioError: the copy is missing or is no scenario.
        SettingsError: the application needs files that are not here, such as a model of its own.
    """
    try:
        document = read(path, decode(path, path.read_bytes()))
    except OSError as error:
        raise ScenarioError(
            f"cannot be read: {error.strerror}", where=str(path), mend="Restore the file"
        ) from error
    except SettingsError as error:
        raise ScenarioError(error.what, where=error.where, mend=error.mend) from error
    if not isinstance(document.data, dict):
        raise _no_scenario(path, "it is not a section with keys")
    # The copy lies apart from the application that it names by a relative path, so both are laid
    # side by side once more. JSON is YAML without any ambiguity.
    with TemporaryDirectory() as folder:
        application = Path(folder) / "application.yaml"
        application.write_text(settings.text, encoding="utf-8")
        copy = Path(folder) / path.name
        data = {**document.data, "application": application.name}
        copy.write_text(json.dumps(data), encoding="utf-8")
        try:
            return load_scenario(copy)
        except ScenarioError as error:
            raise _no_scenario(path, error.what) from error


def _no_scenario(path: Path, what: str) -> ScenarioError:
    return ScenarioError(
        what, where=str(path), mend="Correct the file, or remove it to leave the optimum out"
    )


def _levels(scenario: Scenario, history: History) -> tuple[OptimumLevel, ...]:
    economics = scenario.economics
    if economics is None or not economics.optimum_ref:
        return ()
    inputs = [np.round(history.column(f"u.{name}"), 6) for name in economics.optimum_inputs]
    rows = list(zip(*(values.tolist() for values in inputs), strict=True))
    rows = rows or [()] * len(history)
    seconds = history.columns["time_s"]
    known: dict[tuple[float, ...], float | None] = {}
    found: list[OptimumLevel] = []
    for first, last in plateaus(rows, _LEVELS):
        if rows[first] not in known:
            known[rows[first]] = optimum(economics, history, first, scenario)
        best = known[rows[first]]
        if best is not None:
            found.append(OptimumLevel(seconds[first], seconds[last], best))
    return tuple(found)
