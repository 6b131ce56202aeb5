"""The tables of a report: KPIs with names and units, checks, proposals, events, versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from controller.settings import Settings
from hil.kpi.modes import mode_shares
from hil.kpi.series import standing
from hil.report.canvas import shown_unit, utc
from hil.report.data import Advised, Entry, Recorded
from hil.report.economy import Earnings
from hil.report.series import Column
from hil.report.story import Ending

# Longer logs are for the historian; a report that long is not read.
_EVENTS = 400
_ENDED = "the control process has ended"
_ABNORMAL = ("→ SHED", _ENDED, "refused", "outlier", "too old", "unusable", "future", "ignored")

_NAMES: Mapping[str, tuple[str, str]] = {
    # KPI: (in words, unit); € stands for the unit of profit, % for a share shown in percent
    "profit_before": ("profit before", "€"),
    "profit_end": ("profit at the end", "€"),
    "profit_optimum": ("profit at the plant's optimum", "€"),
    "gap_before": ("gap to the optimum before", "%"),
    "gap_end": ("gap to the optimum at the end", "%"),
    "violation_share": ("time outside the limits", "%"),
    "lab_samples": ("lab samples judged", ""),
    "lab_violations": ("lab samples outside the limits", ""),
    "lab_violation_share": ("share of lab samples outside the limits", "%"),
    "energy_per_in_spec_kg": ("energy per in-spec product", ""),
    "product_kg": ("product", "kg"),
    "off_spec_kg": ("off-spec product", "kg"),
    "sheds": ("times control was given back in doubt (SHED)", ""),
    "activations": ("times control was taken (ACTIVE)", ""),
    "active_share": ("time in control (ACTIVE)", "%"),
    "fallback_s": ("time without a freshly solved plan", "s"),
    "late_writes": ("frames too late to be written", ""),
    "deadline_misses": ("missed deadlines", ""),
    "jitter_ms_p50": ("jitter of the cycle, median", "ms"),
    "jitter_ms_p99": ("jitter of the cycle, 99 %", "ms"),
    "wall_s": ("time the run took", "s"),
    "control_starts": ("starts of the control process", ""),
    "control_endings": ("endings of the control process", ""),
    "invariant_violations": ("broken invariants", ""),
    "watchdog_trips": ("watchdog trips in the PLCs", ""),
    "plc_clamped_writes": ("writes that a PLC had to clamp", ""),
    "wire_writes": ("writes seen on the wire", ""),
    "unsafe_writes": ("unsafe writes seen on the wire", ""),
    "step_ms_p50": ("decision time, median", "ms"),
    "step_ms_p99": ("decision time, 99 %", "ms"),
    "solve_ms_p50": ("solve time, median", "ms"),
    "solve_ms_p99": ("solve time, 99 %", "ms"),
    "cycle_ms_p50": ("computing time of a cycle, median", "ms"),
    "cycle_ms_p99": ("computing time of a cycle, 99 %", "ms"),
    "busy_ms_p50": ("read, decide and write, median", "ms"),
    "busy_ms_p99": ("read, decide and write, 99 %", "ms"),
    "cycles": ("cycles", ""),
    "replayed_cycles": ("cycles decided again from the journal", ""),
    "replay_identical": ("replay identical (1 yes, 0 no)", ""),
}
# By the part before the dot: words, and what to do with the unit U of the variable behind it.
_PER_VARIABLE: Mapping[str, tuple[str, str]] = {
    "iae": ("integral of absolute error", "U·s"),
    "ise": ("integral of squared error", "U²·s"),
    "itae": ("integral of time × absolute error", "U·s²"),
    "offset_end": ("offset at the end", "U"),
    "travel": ("travel of the setpoint", "U"),
    "reversals": ("reversals of the setpoint", ""),
    "settling_s": ("settling time", "s"),
    "overshoot": ("overshoot, of the change of setpoint", "%"),
    "largest_move": ("largest move of the setpoint", "U"),
    "giveaway_low": ("mean distance inside the low limit", "U"),
    "giveaway_high": ("mean distance inside the high limit", "U"),
    "cpk": ("process capability Cpk", ""),
    "ppk": ("process performance Ppk", ""),
    "mv_local": ("cycles in which the loop did not follow", ""),
    "mv_limited": ("cycles at a limit", ""),
    "cv_predicted": ("cycles predicted, not measured", ""),
    "cv_dropped": ("cycles dropped, not controlled", ""),
    "given_up": ("cycles in which a limit was given up", ""),
    "violation_max": ("largest violation", "U"),
    "violation_integral": ("integral of violation", "U·s"),
}
_HEADLINE = (
    "profit_before",
    "profit_end",
    "profit_optimum",
    "gap_end",
    "lab_violations",
    "lab_samples",
    "violation_share",
    "off_spec_kg",
    "active_share",
    "sheds",
    "watchdog_trips",
    "unsafe_writes",
    "cycle_ms_p50",
    "cycle_ms_p99",
    "busy_ms_p50",
    "busy_ms_p99",
    "solve_ms_p50",
    "solve_ms_p99",
)


NOT_MEASURED = "not measured"


class Kpi(NamedTuple):
    """A KPI in words: name in the verdict, what it means, value and unit as shown."""

    name: str
    words: str
    value: str
    unit: str


class Words:
    """Puts KPIs into words and units of one application."""

    def __init__(self, settings: Settings, money: str) -> None:
        model = settings.model
        units = {v.name: v.unit for v in (*model.d, *model.u, *model.y)}
        units |= {mv.name: units.get(mv.input, "1") for mv in settings.manipulated}
        self._units = {name: shown_unit(unit) for name, unit in units.items()}
        self._money = money

    def kpi(self, name: str, value: float | None) -> Kpi:
        words, unit = self._meaning(name)
        if value is None or not isfinite(value):
            return Kpi(name, words, NOT_MEASURED, "")
        if unit == "%":
            return Kpi(name, words, f"{100 * value:.4g}", "%")
        return Kpi(name, words, number(value), unit)

    def unit(self, variable: str) -> str:
        """Unit of a model variable or MV as people write it, empty for a pure number."""
        return self._units.get(variable, "")

    def limits(self, name: str, low: float | None, high: float | None) -> str:
        _, unit = self._meaning(name)
        factor = 100.0 if unit == "%" else 1.0
        shown = f" {unit}" if unit else ""
        if low is not None and low == high:
            return f"= {number(factor * low)}{shown}"
        parts = [f"≥ {number(factor * low)}{shown}"] if low is not None else []
        parts += [f"≤ {number(factor * high)}{shown}"] if high is not None else []
        return " and ".join(parts) or "none"

    def _meaning(self, name: str) -> tuple[str, str]:
        if name in _NAMES:
            words, unit = _NAMES[name]
            return words, self._money if unit == "€" else unit
        head, _, variable = name.partition(".")
        if head in _PER_VARIABLE and variable:
            words, unit = _PER_VARIABLE[head]
            # All of these are differences, which have no zero point.
            own = self._units.get(variable, "").replace("°C", "K")
            if not own:
                # A pure number: only the time remains of the product.
                return f"{words}, {variable}", unit.lstrip("U²").lstrip("·")
            return f"{words}, {variable}", unit.replace("U", own)
        if head == "time_in" and variable:
            return f"time in {variable.upper()}", "s"
        if head == "solve_failures" and variable:
            return f"answers of {variable} that were refused", ""
        if name.startswith("share_"):
            return f"time in {name.removeprefix('share_').upper()}", "%"
        if name.startswith("rung_"):
            return f"plans by {name.removeprefix('rung_')}", ""
        return name.replace("_", " "), ""


def number(value: float) -> str:
    """Four figures, whole numbers whole."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}".replace(",", " ")


def journal_kpis(recorded: Recorded) -> dict[str, float]:
    """What a journal alone can tell, for a run without a verdict."""
    modes = recorded.mode
    found = {"cycles": float(len(modes))}
    cycle_s, time_s = recorded.settings.cycle_s, recorded.time_s
    found |= mode_shares(modes, standing(time_s, cycle_s, float(time_s[-1]) + cycle_s))
    entered = Counter(after for before, after in pairwise(modes) if before != after)
    found["sheds"], found["activations"] = float(entered["SHED"]), float(entered["ACTIVE"])
    for rung, count in sorted(Counter(recorded.rung).items()):
        if rung:
            found[f"rung_{rung}"] = float(count)
    busy = recorded.column("busy_ms")
    if np.any(busy > 0):
        found["busy_ms_p50"] = float(np.median(busy))
        found["busy_ms_p99"] = float(np.quantile(busy, 0.99))
    return found


def add_endings(recorded: Recorded, endings: Sequence[Ending]) -> None:
    """How the control process ended goes among the events, too."""
    for ending in endings:
        if ending.time_s is not None:
            at_s = ending.time_s - recorded.begun_s
            recorded.entries.append(Entry(at_s, f"{_ENDED}: {ending.how}"))
    recorded.entries.sort(key=lambda entry: entry.time_s)


def headline(words: Words, kpis: Mapping[str, float | None]) -> list[Kpi]:
    """The KPIs that matter first, as far as they were measured at all."""
    found: list[Kpi] = []
    for name in _HEADLINE:
        # In lock-step no time passes while deciding: a time of zero says nothing.
        unmeasured = name not in kpis or ("_ms_" in name and not kpis[name])
        if not unmeasured:
            found.append(words.kpi(name, kpis[name]))
    return found


def replay_line(kpis: Mapping[str, float | None]) -> str:
    if "replay_identical" not in kpis:
        return "not replayed"
    cycles = number(kpis.get("replayed_cycles") or 0.0)
    if kpis["replay_identical"]:
        return f"all {cycles} cycles decided again from the journal: identical, bit for bit"
    return f"{cycles} cycles decided again from the journal: NOT identical"


def proposals(
    recorded: Recorded, words: Words, earned: Earnings | None, truth_s: Column | None
) -> list[tuple[str, ...]]:
    """Per proposal: number, time, targets, expected gain, reason, and what happened."""
    unit = recorded.settings.optimizer.unit if recorded.settings.optimizer else ""
    time_s, profit, kind = recorded.time_s, recorded.column("objective"), "estimated objective"
    if earned is not None and truth_s is not None and np.isfinite(earned.profit).any():
        time_s, profit, kind, unit = truth_s, earned.profit, "profit", earned.unit
    rows: list[tuple[str, ...]] = []
    ends = [*(a.time_s for a in recorded.advised[1:]), float(time_s[-1]) + 1.0]
    for i, (advised, end_s) in enumerate(zip(recorded.advised, ends, strict=True), 1):
        # Name, value and unit stay together on a line.
        targets = ", ".join(
            f"{name} {value:.4g} {words.unit(name)}".strip().replace(" ", "\N{NO-BREAK SPACE}")
            for name, value in advised.targets.items()
        )
        rows.append(
            (
                str(i),
                clock(advised.time_s),
                targets,
                f"{advised.gain:+.3g} {unit}".replace("-", "−"),
                advised.why,
                _outcome(advised, end_s, time_s, profit, kind, unit),
            )
        )
    return rows


def _outcome(
    advised: Advised,
    end_s: float,
    time_s: Column,
    profit: Column,
    kind: str,
    unit: str,
) -> str:
    """Accepted or not, and the mean of a quarter of an hour before it and before the next one."""
    if advised.fate != "accepted":
        return advised.fate
    window_s = 900.0
    means: list[float] = []
    for at_s in (advised.time_s, end_s):
        inside = (time_s >= at_s - window_s) & (time_s < at_s) & np.isfinite(profit)
        means.append(float(profit[inside].mean()) if inside.any() else float("nan"))
    if not all(map(isfinite, means)) or end_s - advised.time_s < window_s:
        return "accepted"
    return f"accepted; {kind} {means[0]:.4g} → {means[1]:.4g} {unit}"


def events(recorded: Recorded) -> tuple[list[tuple[str, str, bool]], int]:
    """Time, text and whether it is abnormal, without what other tables show; how many are left out.

    A repetition of the same text is told once, with its count.
    """
    rows: list[tuple[str, str, bool]] = []
    repeated = 1
    last = ""
    for entry in recorded.entries:
        text = entry.text
        if (text.startswith("result ") and ": fused" in text) or (
            text.startswith("proposal ") and " accepted" in text
        ):
            continue
        if text == last:
            repeated += 1
            rows[-1] = (rows[-1][0], f"{text} (× {repeated})", rows[-1][2])
            continue
        last, repeated = text, 1
        rows.append((clock(entry.time_s), text, any(word in text for word in _ABNORMAL)))
    return rows[:_EVENTS], max(0, len(rows) - _EVENTS)


def clock(time_s: float) -> str:
    """Hours, minutes and seconds since the start of the run."""
    sign, whole = ("-", -round(time_s)) if time_s < 0 else ("", round(time_s))
    return f"{sign}{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def versions(recorded: Recorded) -> list[tuple[str, str]]:
    """What a repetition depends on, from the newest start in the journal."""
    segment = recorded.segments[-1]
    rows = [(name, str(value)) for name, value in segment.versions.items()]
    rows.append(("settings", segment.settings_name))
    rows += [(f"override {name}", str(value)) for name, value in segment.overrides.items()]
    rows.append(("starts", "; ".join(f"{s.epoch}: {utc(s.start_ns)}" for s in recorded.segments)))
    return rows


def sentence(checks: Sequence[Mapping[str, Any]]) -> str:
    """Every check counted by outcome, in words."""
    counts = Counter(str(check["outcome"]) for check in checks)
    parts = [f"{counts[o]} {o}" for o in ("passed", "failed", "untested") if counts[o]]
    return f"{len(checks)} checks: {', '.join(parts)}"
