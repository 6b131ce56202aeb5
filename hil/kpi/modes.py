"""What the controller did with its time: modes, rungs of the ladder, variables, milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from controller.cycle.mode import Mode
from controller.settings import Settings
from hil.history import Column, History
from hil.kpi.series import Standing, standing

RUNGS = ("tree", "rti", "condensed", "sqp", "ipopt", "shifted", "lqr", "hold")
FALLBACKS = frozenset({"shifted", "lqr", "hold"})
"""Rungs that do not optimize: an older plan, a linear law, no move."""
ABSENT = "absent"
"""The mode of the time without a cycle: the controller was killed, stopped or too late."""


def mode_shares(modes: Sequence[str], stood: Standing) -> dict[str, float]:
    """Shares of the run's time by mode, and of the time without a cycle where there was any."""
    in_mode = np.array(modes)
    spent_s = {mode: float(np.sum(stood.rows_s[in_mode == mode])) for mode in sorted(set(modes))}
    if stood.absent_s > 0.0:
        spent_s[ABSENT] = stood.absent_s
    whole_s = sum(spent_s.values())
    found = {f"share_{mode.lower()}": each_s / whole_s for mode, each_s in spent_s.items()}
    found["active_share"] = found.get("share_active", 0.0)
    return found


def modes(settings: Settings, history: History, end_s: float) -> dict[str, float]:
    """Shares, seconds and changes of modes; cycles and refusals of each rung of the ladder.

    Args:
        end_s: when the run was over, seconds of scenario time.
    """
    modes, rungs = history.texts["mode"], history.texts["rung"]
    stood = standing(history.column("time_s"), settings.cycle_s, end_s)
    found = mode_shares(modes, stood)
    entered = Counter(b for a, b in pairwise(modes) if a != b)
    found["sheds"] = float(entered["SHED"])
    found["activations"] = float(entered["ACTIVE"])
    used = Counter(rungs)
    found |= {f"rung_{rung}": float(used[rung]) for rung in RUNGS}
    if "refused" in history.texts:
        refused = _listed(history.texts["refused"])
        found |= {f"solve_failures.{rung}": float(refused[rung]) for rung in RUNGS}
    lasted_s = stood.rows_s
    in_mode = np.array(modes)
    for mode in Mode:
        found[f"time_in.{mode.lower()}"] = float(np.sum(lasted_s[in_mode == mode]))
    found[f"time_in.{ABSENT}"] = stood.absent_s
    fallback = (in_mode == Mode.SHED) | np.isin(np.array(rungs), list(FALLBACKS))
    found["fallback_s"] = float(np.sum(lasted_s[fallback]))
    return found


def variables(settings: Settings, history: History) -> dict[str, float]:
    """Cycles in which a variable was not controlled as usual, and the largest move of each MV."""
    mvs, cvs = [mv.name for mv in settings.manipulated], [cv.output for cv in settings.controlled]
    found: dict[str, float] = {}
    for kpi, column, names in (
        ("mv_local", "local", mvs),
        ("mv_limited", "limited", mvs),
        ("cv_predicted", "predicted", cvs),
        ("cv_dropped", "dropped", cvs),
        ("given_up", "given_up", cvs),
    ):
        counted = _listed(history.texts[column])
        found |= {f"{kpi}.{name}": float(counted[name]) for name in names}
    for name, setpoint in history.named("sp").items():
        found[f"largest_move.{name}"] = float(np.max(np.abs(np.diff(setpoint)), initial=0.0))
    found["late_writes"] = float(np.sum(history.column("late_writes")))
    return found


def speed(history: History) -> dict[str, float]:
    """Milliseconds of cycles and solves, lateness of cycles, deadlines that were missed."""
    solve = history.column("solve_ms")
    found = _quantiles("cycle_ms", history.column("cycle_ms"))
    found |= _quantiles("solve_ms", solve[solve > 0])
    if "lateness_ms" in history.columns:
        found |= _quantiles("jitter_ms", np.abs(history.column("lateness_ms")))
    if "skipped" in history.columns:
        found["deadline_misses"] = float(np.sum(history.column("skipped")))
    return found


def _quantiles(name: str, values: Column) -> dict[str, float]:
    if not values.size:
        return {}
    return {
        f"{name}_p50": float(np.median(values)),
        f"{name}_p99": float(np.quantile(values, 0.99)),
    }


def _listed(rows: list[str]) -> Counter[str]:
    """In how many rows each word of `; ` separated lists stands."""
    counted: Counter[str] = Counter()
    # Few rows differ, so each text is taken apart once.
    for text, count in Counter(rows).items():
        counted.update(dict.fromkeys(text.split("; "), count))
    return counted
