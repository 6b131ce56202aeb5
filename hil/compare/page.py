"""One HTML file that shows what a change did to the loop, for those who have to agree to it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from controller.errors import ReplayError
from controller.historian.samples import Segment
from hil.compare.check_changes import seeds_told, told_together
from hil.compare.comparison import Comparison, Group, KpiRow
from hil.compare.directions import of_the_machine
from hil.compare.figures import overlays
from hil.compare.paired_test import LEVEL
from hil.compare.runs import Pair
from hil.report.page import (
    Cell,
    Raw,
    banner,
    code,
    details,
    page,
    paragraph,
    picture,
    section,
    table,
)
from hil.report.scenario import scenario_value
from hil.report.tables import Words, number
from hil.whole_file import write_whole

_FINDINGS = {
    "better": "✔ better",
    "worse": "✘ worse",
    "changed": "◆ changed",
    "not significant": "– not significant",
    "too few pairs": "? too few pairs",
    "machine": "○ not tested",
    "unpaired": "? in one side only",
    "same": "= same",
}
_ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}
_DIFF_LINES = 200


def write_comparison(comparison: Comparison, a: Path, b: Path, out: Path) -> Path:
    """Write the page of a comparison of the directories A and B, and return where it is.

    Raises:
        ReplayError, JournalError: the data of a run are damaged, or the page cannot be written.
    """
    groups = [
        _group(group, f"g{i}", folded=len(comparison.groups) > 3)
        for i, group in enumerate(comparison.groups)
    ]
    text = page(
        f"{b.name} against {a.name} – Loopwright comparison",
        _heading(comparison, a, b),
        _regressions(comparison),
        _checks(comparison),
        *groups,
        _changed_settings(comparison),
        _unpaired(comparison),
        _method(a, b, out),
    )
    return write_page(out, text)


def write_page(out: Path, text: str) -> Path:
    """Write a page whole or not at all.

    Raises:
        ReplayError: the place cannot be written.
    """
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise ReplayError(
            f"the page cannot be written: {error.strerror}",
            where=str(out),
            mend="Name a place that can be written",
        ) from error
    return out


def _heading(comparison: Comparison, a: Path, b: Path) -> Raw:
    count = len(comparison.regressions)
    scenarios = len(comparison.groups)
    facts = (
        f"{comparison.pairs} pairs of runs over {scenarios} "
        f"{'scenario' if scenarios == 1 else 'scenarios'}: same scenario, tier and seed."
    )
    if count:
        words = f"{count} REGRESSION{'S' if count > 1 else ''}"
        mark = banner("failed", words, comparison.power)
    else:
        mark = banner("passed", "NO REGRESSION FOUND", comparison.power)
    sides = Raw(paragraph(f"A, before: {a}") + paragraph(f"B, after: {b}"))
    words = paragraph(facts, "muted")
    return Raw(f"<header><h1>What changed from A to B</h1>{sides}{words}{mark}</header>")


def _regressions(comparison: Comparison) -> Raw:
    found = comparison.regressions
    if not found:
        return Raw("")
    return section(
        "Regressions", table((), [(f"✘ {text}",) for text in found], [True] * len(found))
    )


def _checks(comparison: Comparison) -> Raw:
    if not comparison.changes:
        words = "Every assertion of every scenario has the same outcome in A and in B."
        return section("Verdicts", paragraph(words))
    rows = [
        (
            change.place,
            change.check,
            change.outcomes,
            Cell(change.share, "fixed"),
            Cell(change.worst, "fixed"),
            Cell(change.turned[0].values, "number"),
            "" if change.severity == "fail" else "warning only",
        )
        for change in comparison.changes
    ]
    worst = ("Worst in", Cell("Value there", "number"))
    header = ("Scenario", "Check", "Outcome", "Shown by", *worst, "")
    return section("Verdicts", table(header, rows, [c.worse for c in comparison.changes]))


def _group(group: Group, prefix: str, *, folded: bool) -> Raw:
    shown = _telling(group)
    settings = shown.b.settings() or shown.a.settings()
    money = str(scenario_value(shown.b.directory, "economics.unit") or "")
    words = None if settings is None else Words(settings, money)
    moved = [row for row in group.kpis if row.finding != "same"]
    same = [row.name for row in group.kpis if row.finding == "same"]
    seeds = seeds_told(pair.a.seed for pair in group.pairs)
    parts = [
        paragraph(
            f"{len(group.pairs)} pairs, tier {group.tier}, seeds {seeds}. Arrows tell the better "
            "way.",
            "muted",
        ),
        _kpis(sorted(moved, key=_urgency), words),
    ]
    if same:
        text = f"{len(same)} KPIs are the same in every pair: {', '.join(same)}."
        parts.append(paragraph(text, "muted"))
    charts = overlays(shown, group.pairs, prefix)
    if charts:
        why = "" if len(group.pairs) == 1 else ", the pair whose KPIs differ most"
        band = " Bands are the least and greatest of all runs." if len(group.pairs) > 1 else ""
        caption = paragraph(f"Lines: seed {shown.a.seed}{why}.{band}", "muted")
        trends = Raw("\n".join([caption, *map(picture, charts)]))
        parts.append(details("Trends", trends) if folded else trends)
    return section(f"{group.title} ({group.scenario}, {group.tier})", *parts)


def _telling(group: Group) -> Pair:
    """The pair with the largest relative differences: where to look first."""
    names = [row.name for row in group.kpis if not of_the_machine(row.name)]

    def distance(pair: Pair) -> float:
        total = 0.0
        for name in names:
            a, b = pair.a.kpis.get(name), pair.b.kpis.get(name)
            if a is not None and b is not None and a != b:
                total += abs(b - a) / (abs(a) + abs(b))
        return total

    return max(group.pairs, key=distance)


def _urgency(row: KpiRow) -> tuple[int, float]:
    """Significant findings first, then by relative size."""
    order = ("worse", "better", "changed", "not significant", "too few pairs", "unpaired")
    place = order.index(row.finding) if row.finding in order else len(order)
    return place, -abs(row.percent or 0.0)


def _kpis(rows: Sequence[KpiRow], words: Words | None) -> Raw:
    if not rows:
        return paragraph("No KPI differs in any pair.")
    lines: list[list[str | Cell]] = []
    for row in rows:
        label, unit, factor = _meaning(row, words)
        lines.append(
            [
                Cell(_FINDINGS[row.finding], "fixed"),
                Cell(f"{label} {_ARROWS[row.better]}".strip(), "words"),
                Cell(_value(row.a, factor), "number"),
                Cell(_value(row.b, factor), "number"),
                Cell(_signed(row.difference, factor), "number"),
                unit,
                Cell("" if row.percent is None else f"{row.percent:+.1f} %", "number"),
                Cell(_interval(row, factor), "number"),
                Cell("" if row.p_holm is None else f"{row.p_holm:.2g}", "number"),
                Cell(str(row.n), "number"),
            ]
        )
    header = (
        "Finding",
        "KPI",
        Cell("A", "number"),
        Cell("B", "number"),
        Cell("B − A", "number"),
        "Unit",
        Cell("of A", "number"),
        Cell("95 % interval", "number"),
        Cell("p, corrected", "number"),
        Cell("n", "number"),
    )
    return table(header, lines, [row.finding == "worse" for row in rows])


def _meaning(row: KpiRow, words: Words | None) -> tuple[str, str, float]:
    """A KPI in words, its unit, and the factor to it."""
    if words is None:
        return row.name, "", 1.0
    kpi = words.kpi(row.name, row.a if row.a is not None else row.b)
    return kpi.words, kpi.unit, 100.0 if kpi.unit == "%" else 1.0


def _value(value: float | None, factor: float = 1.0) -> str:
    if value is None or not isfinite(value):
        return "not measured"
    return number(factor * value)


def _signed(value: float | None, factor: float) -> str:
    return "" if value is None else f"{factor * value:+.3g}".replace("-", "−")


def _interval(row: KpiRow, factor: float) -> str:
    if row.interval is None:
        return ""
    return f"{_signed(row.interval.low, factor)} … {_signed(row.interval.high, factor)}"


def _changed_settings(comparison: Comparison) -> Raw:
    """What was changed between the two sides, as far as the journals tell."""
    parts: list[Raw] = []
    told: set[str] = set()
    for group in comparison.groups:
        pair = group.pairs[0]
        a, b = pair.a.start(), pair.b.start()
        if a is None or b is None:
            continue
        versions = [
            (name, str(a.versions.get(name, "none")), str(b.versions.get(name, "none")))
            for name in dict.fromkeys((*a.versions, *b.versions))
            if a.versions.get(name) != b.versions.get(name)
        ]
        if versions and "versions" not in told:
            told.add("versions")
            parts.append(table(("Version of", "A", "B"), versions, narrow=True))
        text = "\n".join(
            filter(None, (settings_diff(a.settings_text, b.settings_text), *_overrides(a, b)))
        )
        if text and text not in told:
            told.add(text)
            parts.append(paragraph(f"{b.settings_name}, in {group.scenario}:"))
            parts.append(code(text))
        if pair.a.variant != pair.b.variant:
            words = [run.variant or "as written" for run in pair]
            parts.append(paragraph(f"Scenario {group.scenario}: {words[0]} → {words[1]}"))
    if not parts:
        words = "Settings and versions are the same, as far as the journals tell."
        parts.append(paragraph(words))
    return section("What was changed", *parts)


def settings_diff(a: str, b: str) -> str:
    """The lines of two settings files that differ, as programmers read them; empty: none."""
    lines = difflib.unified_diff(a.splitlines(), b.splitlines(), "A", "B", n=1, lineterm="")
    return "\n".join(list(lines)[:_DIFF_LINES])


def _overrides(a: Segment, b: Segment) -> list[str]:
    """Settings changed for a run, but for the addresses, which the harness makes up."""
    return [
        f"override {name}: {a.overrides.get(name)} → {b.overrides.get(name)}"
        for name in dict.fromkeys((*a.overrides, *b.overrides))
        if a.overrides.get(name) != b.overrides.get(name) and not name.startswith("devices.")
    ]


def _unpaired(comparison: Comparison) -> Raw:
    sides = (("only in A", comparison.only_a), ("only in B", comparison.only_b))
    rows = [(where, text) for where, runs in sides for text in told_together(runs)]
    return section("Runs without a partner", table((), rows)) if rows else Raw("")


def _method(a: Path, b: Path, out: Path) -> Raw:
    text = (
        "Differences are taken within a pair of the same seed, so what the seed does to both is "
        "gone. Interval: percentile bootstrap of the mean difference. p: Wilcoxon's signed-rank "
        "test, exact, two-sided, corrected by Holm for all KPIs of this page together; significant "
        f"at {100 * LEVEL:g} %. KPIs that are the same in every pair, or differ in fewer than six, "
        "and computing times are not tested."
    )
    command = f"loopwright hil compare {shlex.quote(str(a))} {shlex.quote(str(b))}"
    return section(
        "How this was found",
        paragraph(text),
        code(f"{command} --html {shlex.quote(str(out))}"),
    )
