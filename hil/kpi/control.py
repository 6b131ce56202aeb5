"""How well control kept setpoints and limits, on the true plant."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from hil.history import Column, History
from hil.scenario.parts import Scenario

SETTLING_BAND = 0.05
"""Of the setpoint's step: within it a response has settled."""


def tracking(scenario: Scenario, history: History) -> dict[str, float]:
    """Integral errors and step responses of CVs with a setpoint, travel and reversals of MVs."""
    found: dict[str, float] = {}
    seconds = history.column("time_s")
    judged = seconds >= scenario.judge_from_s
    dt_s = scenario.settings.cycle_s
    truth, wanted = history.named("y"), history.named("wanted")
    for name, setpoint in wanted.items():
        found |= step_responses(name, seconds[judged], truth[name][judged], setpoint[judged])
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


def step_responses(name: str, seconds: Column, truth: Column, setpoint: Column) -> dict[str, float]:
    """The worst response to a change of the setpoint; nothing where it never changed.

    A ramp is one change: its time counts from the begin, its size is the whole. A response lasts
    until the next change. `overshoot` is a share of the change; `settling_s` ends with the first
    cycle from which on the error stays within 5 % of the change, and is inf where it never does.
    """
    changes = np.flatnonzero(np.diff(setpoint)) + 1
    changes = changes[np.isfinite(setpoint[changes]) & np.isfinite(setpoint[changes - 1])]
    if not changes.size:
        return {}
    # Rows of one ramp follow each other without a gap.
    begins = changes[np.diff(changes, prepend=-1) > 1]
    overshoots, settlings = [0.0], [0.0]
    for begin, end in pairwise([*begins.tolist(), len(setpoint)]):
        final = setpoint[changes[np.searchsorted(changes, end) - 1]]
        step = final - setpoint[begin - 1]
        if step == 0:
            continue
        beyond = (truth[begin:end] - final) / step
        beyond[~np.isfinite(beyond)] = inf
        overshoots.append(float(np.max(beyond)))
        outside = np.flatnonzero(np.abs(beyond) > SETTLING_BAND)
        settled = begin + (int(outside[-1]) + 1 if outside.size else 0)
        settlings.append(float(seconds[settled] - seconds[begin]) if settled < end else inf)
    return {f"overshoot.{name}": max(overshoots), f"settling_s.{name}": max(settlings)}


def zones(scenario: Scenario) -> dict[str, tuple[float, float]]:
    """Limits of the CVs that have a zone."""
    return {
        cv.output: (cv.low, cv.high) for cv in scenario.settings.controlled if cv.setpoint is None
    }


def judged_rows(scenario: Scenario, history: History) -> NDArray[np.bool_]:
    return history.column("time_s") >= scenario.judge_from_s


def excess(scenario: Scenario, history: History) -> dict[str, Column]:
    """By how much each zone was left in every judged cycle; inf where there is no number."""
    truth, judged = history.named("y"), judged_rows(scenario, history)
    found: dict[str, Column] = {}
    for name, (low, high) in zones(scenario).items():
        if name in truth:
            y = truth[name][judged]
            outside = np.maximum(np.maximum(low - y, y - high), 0.0)
            # A plant that has left the numbers keeps no limit.
            found[name] = np.where(np.isfinite(y), outside, inf)
    return found


def limits(
    scenario: Scenario, history: History, lab: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Violations of the zones: true ones per cycle, measured ones per lab sample; giveaway.

    `giveaway_low` and `giveaway_high` are mean distances from a limit, of what is inside of it:
    what is given to the customer beyond what was sold, in the CV's unit.
    """
    dt_s, tolerance = scenario.settings.cycle_s, scenario.violation_tolerance
    truth, judged = history.named("y"), judged_rows(scenario, history)
    known = zones(scenario)
    found: dict[str, float] = {}
    outside = excess(scenario, history)
    for name, each in outside.items():
        found[f"violation_max.{name}"] = float(np.max(each, initial=0.0))
        found[f"violation_integral.{name}"] = float(np.sum(each) * dt_s)
        low, high = known[name]
        for side, distance in (
            ("low", truth[name][judged] - low),
            ("high", high - truth[name][judged]),
        ):
            if distance.size and np.all(np.isfinite(distance)):
                found[f"giveaway_{side}.{name}"] = float(np.mean(np.maximum(distance, 0.0)))
    if known:
        worst = np.max([np.zeros(int(np.sum(judged))), *outside.values()], axis=0)
        found["violation_share"] = float(np.mean(worst > tolerance))
    late = [v for v in lab.values() if v["time_s"] >= scenario.judge_from_s]
    if late and known:
        broken = sum(
            any(
                name in values and not low - tolerance <= values[name] <= high + tolerance
                for name, (low, high) in known.items()
            )
            for values in late
        )
        found["lab_samples"] = float(len(late))
        found["lab_violations"] = float(broken)
        found["lab_violation_share"] = broken / len(late)
    for name, (low, high) in known.items():
        samples = sorted((v["time_s"], v[name]) for v in late if name in v)
        found |= capability(name, np.array([value for _, value in samples]), low, high)
    return found


CAPABILITY_SAMPLES = 10
"""Fewer tell nothing of a spread."""
_D2 = 1.128
"""Mean range of two normal values in standard deviations (ISO 7870-2, table of control factors)."""


def capability(name: str, samples: Column, low: float, high: float) -> dict[str, float]:
    """Cpk and Ppk of laboratory samples in time order, against the limits that are finite.

    Index = min(mean - low, high - mean) / (3 sigma) (ISO 22514-2; AIAG, Statistical Process
    Control, 2nd edition). Cpk takes the spread within: mean moving range of two over d2 = 1.128.
    Ppk takes the standard deviation of all samples. Cpk above Ppk: the mean wanders.
    """
    samples = samples[np.isfinite(samples)]
    room = min(float(np.mean(samples)) - low, high - float(np.mean(samples))) if samples.size else 0
    if samples.size < CAPABILITY_SAMPLES or not isfinite(room):
        return {}
    spreads = {
        "cpk": float(np.mean(np.abs(np.diff(samples)))) / _D2,
        "ppk": float(np.std(samples, ddof=1)),
    }
    return {f"{index}.{name}": room / (3 * s) for index, s in spreads.items() if s > 0}
