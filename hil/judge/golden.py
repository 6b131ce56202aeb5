"""Holds a run against a golden run: signals in tolerance tubes, KPIs in bands, modes in order.

Never bit-exact: processors and library versions round differently. The tube of a signal at time t
reaches from the smallest to the largest golden value within [t - lag, t + lead], widened by the
tolerance: a run may do the same up to `lead` earlier or `lag` later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan

import numpy as np

from controller.errors import ScenarioError
from controller.settings.problems import suggestion
from hil.history import Column, History
from hil.judge.golden_file import (
    ROUNDING,
    GoldenRun,
    RunIdentity,
    golden_of,
    matches,
    row_extremes,
)
from hil.judge.verdict import Check
from hil.scenario.parts import Golden, Tube
from hil.scenario.signals import PREFIXES
from hil.temporal.evaluate import increases
from hil.temporal.windows import Spans, largest, smallest, standing_rows

MODES = "modes"


def golden_signals(history: History, spec: Golden) -> dict[str, Tube]:
    """The columns that a scenario compares, with their tubes.

    A name may be written without its prefix (`cB` for `y.cB`, else `sp.`, `u.`, `cv.`), or as a
    pattern (`y.*`); a name goes before a pattern, an earlier pattern before a later one. `ignore`
    takes out of the patterns.

    Raises:
        ScenarioError: a name fits no signal of the run.
    """
    found: dict[str, Tube] = {}
    for name, tube in spec.tubes.items():
        if "*" in name:
            continue
        column = next((p + name for p in PREFIXES if p + name in history.columns), None)
        if column is None:
            raise ScenarioError(
                f"the run has no signal {name}",
                where=f"golden.signals.{name}",
                mend=suggestion(name, sorted(history.columns)),
            )
        found[column] = tube
    for pattern, tube in spec.tubes.items():
        if "*" not in pattern:
            continue
        for column in history.columns:
            if matches(column, [pattern]) and not matches(column, spec.ignore):
                found.setdefault(column, tube)
    return found


def golden_run(
    history: History, kpis: Mapping[str, float], identity: RunIdentity, spec: Golden
) -> GoldenRun:
    """What is to be kept of this run, for `write_golden`.

    Raises:
        ScenarioError: control was never active, so the run proves nothing; or its clock was set
            back.
    """
    if "ACTIVE" not in history.texts.get("mode", ()):
        raise ScenarioError(
            "control was never active in this run, so it cannot be golden",
            where=identity.scenario,
            mend="Mend the scenario first",
        )
    if not increases(history.column("time_s")):
        raise ScenarioError(
            "the clock was set back during this run, so it cannot be golden",
            where=identity.scenario,
            mend="Compare this scenario by KPIs",
        )
    signals = list(golden_signals(history, spec))
    return golden_of(history, kpis, identity, signals, list(spec.bands))


def golden_checks(
    history: History,
    kpis: Mapping[str, float],
    identity: RunIdentity,
    golden: GoldenRun | None,
    spec: Golden,
) -> list[Check]:
    """One check per compared signal and KPI, one for the modes, one for the golden run itself.

    Raises:
        ScenarioError: the scenario compares a signal that the run does not have.
    """
    name = f"golden {spec.file.name}"
    if golden is None:
        detail = "there is no such file; make it with --update-golden and commit it"
        return [Check(name, None, None, None, "untested", detail=detail)]
    wrong = _unfit(history, identity, golden)
    if wrong:
        return [Check(name, None, None, None, "failed", detail=wrong)]
    told = f"made by {_versions(golden)}, tier {golden.identity.tier}, seed {golden.identity.seed}"
    checks = [Check(name, 1.0, 1.0, None, "passed", detail=told)]
    if MODES not in spec.ignore:
        checks.append(_modes_check(history, golden))
    tubes = golden_signals(history, spec)
    checks += [_tube_check(history, golden, column, tube) for column, tube in tubes.items()]
    bands = _bands(kpis, golden, spec)
    return checks + [_band_check(kpi, kpis, golden, band) for kpi, band in bands.items()]


def _unfit(history: History, identity: RunIdentity, golden: GoldenRun) -> str:
    """Why the two cannot be compared."""
    if not golden.active:
        return "control was never active in the golden run; make a better one"
    if "ACTIVE" not in history.texts.get("mode", ()):
        return "control was never active in this run"
    there = golden.identity
    if there.scenario != identity.scenario:
        return f"it is of scenario {there.scenario}, this run of {identity.scenario}"
    if abs(there.duration_s - identity.duration_s) > 1e-6:
        return f"it lasts {there.duration_s:g} s, this run {identity.duration_s:g} s"
    if not increases(history.column("time_s")):
        return "the clock was set back during this run"
    last_s = history.columns["time_s"][-1]
    if last_s < golden.times_s[-1] - 1e-6:
        return f"this run stopped at {last_s:g} s"
    return ""


def _modes_check(history: History, golden: GoldenRun) -> Check:
    modes = history.texts["mode"]
    gone = [mode for i, mode in enumerate(modes) if i == 0 or modes[i - 1] != mode]
    wanted = [mode for _, mode in golden.modes]
    same = gone == wanted
    detail = "" if same else f"golden: {' → '.join(wanted)}; run: {' → '.join(gone)}"
    outcome = "passed" if same else "failed"
    return Check("golden modes", float(same), 1.0, None, outcome, detail=detail)


def _tube_check(history: History, golden: GoldenRun, column: str, tube: Tube) -> Check:
    """The value told is the one farthest outside, or nearest to a wall of the tube."""
    name = f"golden {column}"
    if column not in golden.low:
        detail = "the golden run does not have it; renew it with --update-golden"
        return Check(name, None, None, None, "untested", detail=detail)
    floor, ceiling = envelope(golden, column, tube)
    begins = _begins(history.column("time_s"), golden.times_s)
    low, high = row_extremes(history.column(column), begins)
    compared = np.isfinite(floor)
    if not np.any(compared):
        detail = "the golden run has no number for it"
        return Check(name, None, None, None, "untested", detail=detail)
    excess = np.maximum(floor - low, high - ceiling)
    excess = np.where(np.isfinite(low) & np.isfinite(high), excess, np.inf)
    excess[~compared] = -np.inf
    worst = int(np.argmax(excess))
    value = low[worst] if floor[worst] - low[worst] >= high[worst] - ceiling[worst] else high[worst]
    outside = int(np.sum(excess > 0))
    detail = f"closest to a wall at {golden.times_s[worst]:g} s"
    if outside:
        first = golden.times_s[np.argmax(excess > 0)]
        rows = np.sum(compared)
        detail = (
            f"worst at {golden.times_s[worst]:g} s; {outside} of {rows} rows outside, "
            f"the first at {first:g} s"
        )
    return Check(
        name,
        float(value) if isfinite(value) else None,
        float(floor[worst]),
        float(ceiling[worst]),
        "failed" if outside else "passed",
        detail=detail,
    )


def envelope(golden: GoldenRun, column: str, tube: Tube) -> tuple[Column, Column]:
    """Lower and upper wall of the tube in each row of the golden run; NaN where it has no value."""
    low, high = golden.low[column], golden.high[column]
    known = np.isfinite(low) & np.isfinite(high)
    floor = low - _width(tube, low)
    ceiling = high + _width(tube, high)
    span = Spans(
        standing_rows(golden.times_s, golden.times_s - tube.lag_s),
        standing_rows(golden.times_s, golden.times_s + tube.lead_s),
    )
    floor = smallest(np.where(known, floor, np.inf), span)
    ceiling = largest(np.where(known, ceiling, -np.inf), span)
    some = floor <= ceiling
    return np.where(some, floor, nan), np.where(some, ceiling, nan)


def _width(tube: Tube, values: Column) -> Column:
    sizes = np.abs(values)
    return np.maximum(tube.absolute, tube.relative * sizes) + ROUNDING * sizes


def _begins(times_s: Column, golden_s: Column) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The first cycle of the run in each row of the golden run."""
    rows = np.searchsorted(times_s, golden_s - 1e-6, side="left")
    return np.minimum(rows, times_s.size - 1).astype(np.intp)


def _bands(kpis: Mapping[str, float], golden: GoldenRun, spec: Golden) -> dict[str, Tube]:
    found = {name: band for name, band in spec.bands.items() if "*" not in name}
    for pattern, band in spec.bands.items():
        for kpi in golden.kpis if "*" in pattern else ():
            if matches(kpi, [pattern]) and not matches(kpi, spec.ignore):
                found.setdefault(kpi, band)
    return found


def _band_check(kpi: str, kpis: Mapping[str, float], golden: GoldenRun, band: Tube) -> Check:
    name, wanted, value = f"golden {kpi}", golden.kpis.get(kpi), kpis.get(kpi)
    if wanted is None:
        detail = "the golden run does not have it; renew it with --update-golden"
        return Check(name, value, None, None, "untested", detail=detail)
    width = max(band.absolute, band.relative * abs(wanted)) + ROUNDING * abs(wanted)
    low, high = wanted - width, wanted + width
    if value is None or not isfinite(value):
        return Check(name, None, low, high, "untested", detail="this run does not tell it")
    outcome = "passed" if low <= value <= high else "failed"
    return Check(name, value, low, high, outcome, detail=f"golden {wanted:g}")


def _versions(golden: GoldenRun) -> str:
    return ", ".join(f"{name} {number}" for name, number in golden.versions.items())


def golden_diff(old: GoldenRun | None, new: GoldenRun) -> str:
    """What an update of the golden run changes, for a person who has to agree to it."""
    if old is None:
        return f"new golden run of {new.identity.scenario}: {len(new.low)} signals\n"
    lines: list[str] = [f"golden run of {new.identity.scenario}"]
    before = {**_identity(old), **old.versions}
    after = {**_identity(new), **new.versions}
    lines += [
        f"  {key}: {before.get(key, '-')} → {after.get(key, '-')}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]
    modes = [" → ".join(mode for _, mode in run.modes) for run in (old, new)]
    if modes[0] != modes[1]:
        lines += [f"  modes before: {modes[0]}", f"  modes now:    {modes[1]}"]
    lines += _signal_changes(old, new)
    lines += _kpi_changes(old.kpis, new.kpis)
    return "\n".join(lines if len(lines) > 1 else [*lines, "  nothing changed"]) + "\n"


def _identity(run: GoldenRun) -> dict[str, str]:
    identity = run.identity
    return {
        "scenario": identity.scenario,
        "tier": identity.tier,
        "seed": str(identity.seed),
        "duration": f"{identity.duration_s:g} s",
    }


def _signal_changes(old: GoldenRun, new: GoldenRun) -> list[str]:
    lines: list[str] = []
    # Where the rows differ, the old run is read at the new times.
    rows = standing_rows(old.times_s, new.times_s)
    for name in dict.fromkeys((*old.low, *new.low)):
        if name not in new.low or name not in old.low:
            lines.append(f"  {name}: {'no longer kept' if name in old.low else 'newly kept'}")
            continue
        pairs = ((old.low[name][rows], new.low[name]), (old.high[name][rows], new.high[name]))
        changes = [np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(b - a)) for a, b in pairs]
        changes = [np.where(np.isnan(change), np.inf, change) for change in changes]
        side = int(np.max(changes[1]) > np.max(changes[0]))
        worst = int(np.argmax(changes[side]))
        if changes[side][worst] > 0:
            a, b = pairs[side][0][worst], pairs[side][1][worst]
            size = f", largest change {b - a:+.4g}" if isfinite(b - a) else ""
            lines.append(f"  {name}: {a:.7g} → {b:.7g} at {new.times_s[worst]:g} s{size}")
    return lines


def _kpi_changes(old: Mapping[str, float], new: Mapping[str, float]) -> Sequence[str]:
    lines: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        texts = ["-" if value is None else f"{value:.7g}" for value in (before, after)]
        share = f" ({(after - before) / abs(before):+.2%})" if before and after is not None else ""
        lines.append(f"  {name}: {texts[0]} → {texts[1]}{share}")
    return lines
