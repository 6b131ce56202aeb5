"""Key performance indicators of a run, from the true history and the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from controller.optimizer.expression import compile_expression
from controller.settings.plant_reference import find_factory
from hil.history import Column, History
from hil.scenario import Economics, Scenario
from hil.virtual_plc import PlcStatistics

RUNGS = ("tree", "rti", "condensed", "sqp", "ipopt", "shifted", "lqr", "hold")


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
    found |= _modes(history)
    found |= _variables(scenario, history)
    found |= _speed(history)
    found |= _tracking(scenario, history)
    found |= _limits(scenario, history, lab)
    found |= _economy(scenario, history)
    found["watchdog_trips"] = float(sum(plc.watchdog_trips.values()))
    found["plc_clamped_writes"] = float(sum(plc.clamped.values()))
    found["wire_writes"] = float(wire_writes)
    found["unsafe_writes"] = float(wire_violations)
    return found


def _modes(history: History) -> dict[str, float]:
    modes, rungs = history.texts["mode"], history.texts["rung"]
    found = {f"share_{mode.lower()}": count / len(modes) for mode, count in Counter(modes).items()}
    found["active_share"] = found.get("share_active", 0.0)
    entered = Counter(b for a, b in pairwise(modes) if a != b)
    found["sheds"] = float(entered["SHED"])
    found["activations"] = float(entered["ACTIVE"])
    used = Counter(rungs)
    found |= {f"rung_{rung}": float(used[rung]) for rung in RUNGS}
    return found


def _variables(scenario: Scenario, history: History) -> dict[str, float]:
    """Cycles in which a variable was not controlled as usual, and the largest move of each MV."""
    settings = scenario.settings
    mvs, cvs = [mv.name for mv in settings.manipulated], [cv.output for cv in settings.controlled]
    found: dict[str, float] = {}
    for kpi, column, variables in (
        ("mv_local", "local", mvs),
        ("mv_limited", "limited", mvs),
        ("cv_predicted", "predicted", cvs),
        ("cv_dropped", "dropped", cvs),
        ("given_up", "given_up", cvs),
    ):
        rows = [text.split("; ") for text in history.texts[column]]
        found |= {f"{kpi}.{name}": float(sum(name in row for row in rows)) for name in variables}
    for name, setpoint in history.named("sp").items():
        found[f"largest_move.{name}"] = float(np.max(np.abs(np.diff(setpoint)), initial=0.0))
    found["late_writes"] = float(np.sum(history.column("late_writes")))
    return found


def _speed(history: History) -> dict[str, float]:
    solve = history.column("solve_ms")
    solved = solve[solve > 0]
    cycle = history.column("cycle_ms")
    found = {
        "cycle_ms_p50": float(np.median(cycle)),
        "cycle_ms_p99": float(np.quantile(cycle, 0.99)),
    }
    if solved.size:
        found["solve_ms_p50"] = float(np.median(solved))
        found["solve_ms_p99"] = float(np.quantile(solved, 0.99))
    return found


def _tracking(scenario: Scenario, history: History) -> dict[str, float]:
    """Integral errors of CVs with a setpoint, travel and reversals of MVs."""
    found: dict[str, float] = {}
    seconds = history.column("time_s")
    judged = seconds >= scenario.judge_from_s
    dt_s = scenario.settings.cycle_s
    truth, wanted = history.named("y"), history.named("wanted")
    for name, setpoint in wanted.items():
        error = (truth[name] - setpoint)[judged]
        since = (seconds - scenario.judge_from_s)[judged]
        if not error.size or not np.all(np.isfinite(error)):
            continue
        found[f"iae.{name}"] = float(np.sum(np.abs(error)) * dt_s)
        found[f"ise.{name}"] = float(np.sum(error**2) * dt_s)
        found[f"itae.{name}"] = float(np.sum(since * np.abs(error)) * dt_s)
        tail = error[-max(1, error.size // 10) :]
        found[f"offset_end.{name}"] = float(abs(np.mean(tail)))
    for name, setpoint in history.named("sp").items():
        moves = np.diff(setpoint[judged])
        moves = moves[np.isfinite(moves)]
        found[f"travel.{name}"] = float(np.sum(np.abs(moves)))
        signs = np.sign(moves[moves != 0])
        found[f"reversals.{name}"] = float(np.sum(signs[1:] != signs[:-1]))
    return found


def _limits(
    scenario: Scenario, history: History, lab: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Violations of the CV zones: true ones per cycle, measured ones per lab sample."""
    zones = {
        cv.output: (cv.low, cv.high) for cv in scenario.settings.controlled if cv.setpoint is None
    }
    truth = history.named("y")
    judged = history.column("time_s") >= scenario.judge_from_s
    dt_s, tolerance = scenario.settings.cycle_s, scenario.violation_tolerance
    found: dict[str, float] = {}
    excess_all = np.zeros(int(np.sum(judged)))
    for name, (low, high) in zones.items():
        if name not in truth:
            continue
        y = truth[name][judged]
        excess = np.maximum(np.maximum(low - y, y - high), 0.0)
        excess[~np.isfinite(y)] = np.inf  # A plant that has left the numbers keeps no limit.
        excess_all = np.maximum(excess_all, excess)
        found[f"violation_max.{name}"] = float(np.max(excess, initial=0.0))
        found[f"violation_integral.{name}"] = float(np.sum(excess) * dt_s)
    if zones:
        found["violation_share"] = float(np.mean(excess_all > tolerance))
    late = {k: v for k, v in lab.items() if v["time_s"] >= scenario.judge_from_s}
    if late and zones:
        broken = sum(
            any(
                name in values and not low - tolerance <= values[name] <= high + tolerance
                for name, (low, high) in zones.items()
            )
            for values in late.values()
        )
        found["lab_samples"] = float(len(late))
        found["lab_violations"] = float(broken)
        found["lab_violation_share"] = broken / len(late)
    if scenario.economics is not None and scenario.economics.throughput:
        flow = _evaluate(scenario.economics.throughput, history)[judged]
        found["product_kg"] = float(np.sum(flow) * dt_s)
        found["off_spec_kg"] = float(np.sum(flow[excess_all > tolerance]) * dt_s)
    return found


def _economy(scenario: Scenario, history: History) -> dict[str, float]:
    """Profit in the two windows and at the plant's true optimum under the final inputs."""
    economics = scenario.economics
    if economics is None:
        return {}
    profit = _evaluate(economics.profit, history)
    seconds = history.column("time_s")
    found = {
        "profit_before": _mean_in(profit, seconds, economics.before_s),
        "profit_end": _mean_in(profit, seconds, economics.end_s),
    }
    best = optimum(economics, history, -1, scenario)
    first = optimum(economics, history, 0, scenario)
    if best is not None and first is not None:
        found["profit_optimum"] = best
        found["gap_end"] = (best - found["profit_end"]) / abs(best)
        found["gap_before"] = (first - found["profit_before"]) / abs(first)
    return found


def optimum(economics: Economics, history: History, row: int, scenario: Scenario) -> float | None:
    """Profit at the plant's true optimum for the plant inputs in a row of the history."""
    if not economics.optimum_ref:
        return None
    factory = find_factory(economics.optimum_ref, scenario.path.parent)
    inputs = {
        name: round(history.columns[f"u.{name}"][row], 9) for name in economics.optimum_inputs
    }
    arguments: dict[str, Any] = {**economics.optimum_arguments, **inputs}
    result = factory(**arguments)
    return float(getattr(result, "profit", result))  # pyright: ignore[reportArgumentType]


def profit_series(scenario: Scenario, history: History) -> Column | None:
    if scenario.economics is None:
        return None
    return _evaluate(scenario.economics.profit, history)


def _evaluate(text: str, history: History) -> Column:
    expression = compile_expression(text)
    # A plant output hides an input of the same name: it is what really flows.
    columns = {
        name[2:]: values
        for prefix in ("u.", "y.")
        for name, values in history.columns.items()
        if name.startswith(prefix)
    }
    rows = zip(*columns.values(), strict=True)
    return np.array([expression(dict(zip(columns, row, strict=True))) for row in rows])


def _mean_in(series: Column, seconds: Column, window: tuple[float, float]) -> float:
    inside = (seconds >= window[0]) & (seconds <= window[1])
    return float(np.mean(series[inside])) if np.any(inside) else float("nan")
