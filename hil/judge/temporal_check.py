"""Temporal formulas and bounds on signals as checks of a verdict."""

from __future__ import annotations

from math import inf, isfinite
from typing import Literal

import numpy as np

from controller.errors import ScenarioError
from controller.settings.problems import suggestion
from hil.history import Column, History
from hil.judge.verdict import Check
from hil.temporal.evaluate import ends_s, evaluate, increases, parse
from hil.temporal.windows import end_of

Severity = Literal["fail", "warn"]
_SET_BACK = "the clock was set back during the run; judge it by KPIs"
_NEVER_ACTIVE = "control was never active in this run"


def temporal_check(formula: str, history: History, severity: Severity = "fail") -> Check:
    """Hold a formula against the run; its value is the margin, wanted from 0 on.

    A run that never reached ACTIVE proves nothing, unless the formula itself is about the mode.

    Raises:
        ScenarioError: the formula cannot be read or names signals that the run does not have.
    """
    parsed = parse(formula)
    if len(history) and not increases(history.column("time_s")):
        return Check(formula, None, 0.0, None, "untested", severity, _SET_BACK)
    found = evaluate(parsed, history)
    detail = ""
    outcome = found.outcome
    if not len(history):
        detail = "the run has no cycle"
    elif found.first_violation_s is not None:
        at_s = found.first_violation_s
        detail = f"broken at {_moment(at_s)}, {_situation(history, at_s)}"
    elif outcome == "untested":
        detail = f"a window reaches beyond the end of the run at {_moment(ends_s(history))}"
    elif "mode" not in parsed.names and not reached_active(history):
        outcome, detail = "untested", _NEVER_ACTIVE
    return Check(formula, found.value, 0.0, None, outcome, severity, detail)


def bound_check(
    history: History,
    signal: str,
    low: float | None,
    high: float | None,
    from_s: float = 0.0,
    until_s: float = inf,
    severity: Severity = "fail",
) -> Check:
    """Hold every value of a signal in a time against limits; the value told is the worst.

    Raises:
        ScenarioError: the run has no such signal.
    """
    name = f"{signal}{_times(from_s, until_s)}"
    if not len(history):
        return Check(name, None, low, high, "untested", severity, "the run has no cycle")
    if signal not in history.columns:
        raise ScenarioError(
            f"the run has no signal {signal}",
            where=f"bound: {signal}",
            mend=suggestion(signal, sorted(history.columns)),
        )
    times_s = history.column("time_s")
    inside = (times_s >= from_s) & (times_s <= until_s)
    if not np.any(inside):
        return Check(name, None, low, high, "untested", severity, "no cycle lies in this time")
    values, times_s = history.column(signal)[inside], times_s[inside]
    excess = _excess(values, low, high)
    worst = int(np.argmax(excess))
    detail = f"worst at {_moment(times_s[worst])}, {_situation(history, times_s[worst])}"
    value = float(values[worst])
    if excess[worst] > 0:
        outside = excess > 0
        first = _moment(times_s[np.argmax(outside)])
        detail += f"; {np.sum(outside)} of {values.size} cycles outside, the first at {first}"
        told = value if isfinite(value) else None
        return Check(name, told, low, high, "failed", severity, detail)
    end_s = end_of(history.column("time_s"))
    if until_s != inf and until_s > end_s + 1e-6:
        detail = f"the run ends at {_moment(end_s)}"
        return Check(name, value, low, high, "untested", severity, detail)
    if not reached_active(history):
        return Check(name, value, low, high, "untested", severity, _NEVER_ACTIVE)
    return Check(name, value, low, high, "passed", severity, detail)


def reached_active(history: History) -> bool:
    return "ACTIVE" in history.texts.get("mode", ())


def _excess(values: Column, low: float | None, high: float | None) -> Column:
    """By how much each value is outside, negative inside; inf where it is no number."""
    below = np.full(values.size, -inf) if low is None else low - values
    above = np.full(values.size, -inf) if high is None else values - high
    return np.where(np.isfinite(values), np.maximum(below, above), inf)


def _times(from_s: float, until_s: float) -> str:
    if from_s <= 0 and until_s == inf:
        return ""
    end = "end" if until_s == inf else f"{until_s:g} s"
    return f" [{from_s:g} s, {end}]"


def _moment(time_s: float) -> str:
    return f"{time_s:g} s"


def _situation(history: History, time_s: float) -> str:
    """Mode and faults at a time of the run, for a person who looks for the reason."""
    row = int(np.searchsorted(history.column("time_s"), time_s + 1e-6, side="right")) - 1
    mode = history.texts.get("mode", [])
    faults = history.texts.get("faults", [])
    words = f"mode {mode[max(row, 0)]}" if mode else "mode unknown"
    broken = faults[max(row, 0)] if faults else ""
    return f"{words}, {broken}" if broken else words
