"""Key performance indicators of a run, from the true history and the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from controller.settings.plant_reference import find_factory
from hil.history import Column, History
from hil.kpi.control import excess, judged_rows, limits, tracking
from hil.kpi.modes import modes, speed, variables
from hil.kpi.series import series
from hil.plc.virtual import PlcStatistics
from hil.scenario.parts import Economics, Scenario


def kpis(
    scenario: Scenario,
    history: History,
    plc: PlcStatistics,
    lab: Mapping[str, Mapping[str, float]],
    wire_writes: int,
    wire_violations: int,
) -> dict[str, float]:
    """Every KPI that this run can tell, by name.

    Args:
        lab: measured values per result id, with the key `time_s` for the sample time.
    """
    if not len(history):
        return {}
    found: dict[str, float] = {"cycles": float(len(history))}
    scenario = replace(
        scenario, judge_from_s=min(scenario.judge_from_s, history.columns["time_s"][-1])
    )
    found |= modes(scenario.settings, history, scenario.duration_s)
    found |= variables(scenario.settings, history)
    found |= speed(history)
    found |= tracking(scenario, history)
    found |= limits(scenario, history, lab)
    if scenario.economics is not None:
        found |= _product(scenario.economics, scenario, history)
        found |= _economy(scenario.economics, scenario, history)
    found["watchdog_trips"] = float(sum(plc.watchdog_trips.values()))
    found["plc_clamped_writes"] = float(sum(plc.clamped.values()))
    found["wire_writes"] = float(wire_writes)
    found["unsafe_writes"] = float(wire_violations)
    return found


def _product(economics: Economics, scenario: Scenario, history: History) -> dict[str, float]:
    """Product made, off-spec product, and energy per kilogram that is in spec."""
    if not economics.throughput:
        return {}
    judged, dt_s = judged_rows(scenario, history), scenario.settings.cycle_s
    flow = series(economics.throughput, history)[judged]
    worst = np.max([np.zeros(flow.size), *excess(scenario, history).values()], axis=0)
    made = float(np.sum(flow) * dt_s)
    lost = float(np.sum(flow[worst > scenario.violation_tolerance]) * dt_s)
    found = {"product_kg": made, "off_spec_kg": lost}
    if economics.energy and made > lost:
        used = float(np.sum(series(economics.energy, history)[judged]) * dt_s)
        found["energy_per_in_spec_kg"] = used / (made - lost)
    return found


def _economy(economics: Economics, scenario: Scenario, history: History) -> dict[str, float]:
    """Profit in the two windows and at the plant's true optimum under the final inputs."""
    profit = series(economics.profit, history)
    seconds = history.column("time_s")
    found = {
        "profit_before": _mean_in(profit, seconds, economics.before_s),
        "profit_end": _mean_in(profit, seconds, economics.end_s),
    }
    best = optimum(economics, history, -1, scenario.path.parent)
    first = optimum(economics, history, 0, scenario.path.parent)
    if best is not None and first is not None:
        found["profit_optimum"] = best
        found["gap_end"] = (best - found["profit_end"]) / abs(best)
        found["gap_before"] = (first - found["profit_before"]) / abs(first)
    return found


def optimum(economics: Economics, history: History, row: int, folder: Path) -> float | None:
    """Profit at the plant's true optimum for the plant inputs in a row of the history.

    Args:
        folder: of the scenario, where an optimum that is a file lies.
    """
    if not economics.optimum_ref:
        return None
    factory = find_factory(economics.optimum_ref, folder)
    inputs = {
        name: round(history.columns[f"u.{name}"][row], 9) for name in economics.optimum_inputs
    }
    arguments: dict[str, Any] = {**economics.optimum_arguments, **inputs}
    result = factory(**arguments)
    return float(getattr(result, "profit", result))  # pyright: ignore[reportArgumentType]


def _mean_in(values: Column, seconds: Column, window: tuple[float, float]) -> float:
    inside = (seconds >= window[0]) & (seconds <= window[1])
    return float(np.mean(values[inside])) if np.any(inside) else float("nan")
