"""One HTML file that shows a run: verdict, what matters, pictures, reasons, how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.errors import ReplayError
from controller.signal import NS_PER_S
from hil.report.canvas import utc
from hil.report.data import Recorded, read_history, read_journal, read_verdict
from hil.report.economy import Earnings, earnings
from hil.report.figures import charts
from hil.report.page import (
    Cell,
    Raw,
    banner,
    code,
    details,
    page,
    paragraph,
    picture,
    safe,
    section,
    table,
)
from hil.report.series import Column
from hil.report.story import story_of
from hil.report.tables import (
    NOT_MEASURED,
    Kpi,
    Words,
    add_endings,
    events,
    headline,
    journal_kpis,
    proposals,
    replay_line,
    sentence,
    versions,
)
from hil.runner import HISTORY_FILE, SCENARIO_FILE, VERDICT_FILE
from hil.whole_file import write_whole

REPORT_FILE = "report.html"

_SHAPES = {"passed": "✔ passed", "failed": "✘ failed", "untested": "? untested"}


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Write the report of a data directory and return where it is.

    The journal (`samples.db`, `events.db`) is enough. What a scenario run leaves beside it
    (verdict, true history, scenario) adds the verdict, the truth, faults and the optimum.

    Args:
        out: the file to write, `report.html` in the directory unless told otherwise.

    Raises:
        JournalError: the journal is missing or damaged.
        ReplayError: the journal holds no cycle, a file beside it is damaged, or the report
            cannot be written.
        ScenarioError: the scenario beside the journal is wrong.
    """
    directory = Path(directory)
    out = directory / REPORT_FILE if out is None else Path(out)
    recorded = read_journal(directory)
    verdict = read_verdict(directory / VERDICT_FILE)
    history = read_history(directory / HISTORY_FILE)
    story = story_of(verdict, directory)
    add_endings(recorded, story.endings)
    earned, truth_s, scenario_text = None, None, ""
    if history is not None:
        truth_s = history.column("time_s") - recorded.begun_s
    if (directory / SCENARIO_FILE).exists():
        scenario_text = (directory / SCENARIO_FILE).read_text(encoding="utf-8", errors="replace")
        if history is not None:
            earned = earnings(directory / SCENARIO_FILE, history, story.folder or directory)
    pictures = [picture(chart) for chart in charts(recorded, history, earned, story)]
    money = earned.unit if earned else ""
    words = Words(recorded.settings, money or _objective_unit(recorded))
    kpis: Mapping[str, float | None] = verdict["kpis"] if verdict else journal_kpis(recorded)
    title = str(verdict.get("title") or verdict["scenario"]) if verdict else recorded.settings.name
    text = page(
        f"{title} – Loopwright report",
        _heading(title, recorded, verdict),
        _what_matters(words, kpis, verdict),
        *([_checks(words, verdict)] if verdict else []),
        section("The run in pictures", *_notes(earned), *pictures),
        *_shaping(recorded),
        _proposals(recorded, words, earned, truth_s),
        _events(recorded),
        section(
            "Every KPI", _kpi_table([words.kpi(name, kpis[name]) for name in kpis], names=True)
        ),
        _repeat(directory, recorded, verdict, scenario_text),
    )
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise ReplayError(
            f"the report cannot be written: {error.strerror}",
            where=str(out),
            mend="Name a place that can be written",
        ) from error
    return out


def _objective_unit(recorded: Recorded) -> str:
    return recorded.settings.optimizer.unit if recorded.settings.optimizer else ""


def _heading(title: str, recorded: Recorded, verdict: Mapping[str, Any] | None) -> Raw:
    last_ns = recorded.start_ns + round(float(recorded.time_s[-1]) * NS_PER_S)
    period = f"{utc(recorded.start_ns, seconds=True)} to {utc(last_ns, seconds=True)}"
    settings, kept = recorded.settings, len(recorded.time_s)
    cycles = kept if verdict is None else int(verdict["kpis"].get("cycles") or kept)
    more = f" ({kept} in the journal)" if kept != cycles else ""
    facts = (
        f"{settings.name}: {cycles} cycles of {settings.cycle_s:g} s{more}, {period}. "
        f"Loopwright {recorded.segments[-1].versions.get('loopwright', 'of unknown version')}."
    )
    if verdict is None:
        mark = banner(
            "recorded", "RECORDED: no verdict", "A run without a scenario: nothing was judged."
        )
    else:
        outcome = "passed" if verdict["passed"] else "failed"
        mark = banner(outcome, outcome.upper(), sentence(verdict["checks"]))
        facts = (
            f"Scenario {verdict['scenario']}, seed {verdict['seed']}, tier {verdict['tier']}. "
            + facts
        )
    return Raw(f"<header><h1>{safe(title)}</h1>{paragraph(facts, 'muted')}{mark}</header>")


def _what_matters(
    words: Words, kpis: Mapping[str, float | None], verdict: Mapping[str, Any] | None
) -> Raw:
    parts = [_kpi_table(headline(words, kpis), names=False)]
    if verdict is not None:
        parts.append(paragraph(f"Replay: {replay_line(kpis)}."))
        violations = [str(text) for text in verdict.get("violations", [])]
        if violations:
            shown = [(f"▲ {text}",) for text in violations[:50]]
            heading = f"Unsafe writes seen on the wire: {len(violations)}"
            parts.append(table((heading,), shown, [True] * len(shown)))
        endings = [(str(text),) for text in verdict.get("control_endings", [])]
        if endings:
            parts.append(table(("How the control process ended on the way",), endings))
    return section("What matters", *parts)


def _kpi_table(rows: list[Kpi], *, names: bool) -> Raw:
    header: list[str | Cell] = ["Figure", Cell("Value", "number"), "Unit"]
    lines: list[list[str | Cell]] = [
        [kpi.words, Cell(kpi.value, "number"), kpi.unit] for kpi in rows
    ]
    if names:
        header.append("Name in checks")
        lines = [[*line, kpi.name] for line, kpi in zip(lines, rows, strict=True)]
    return table(header, lines, narrow=True)


def _checks(words: Words, verdict: Mapping[str, Any]) -> Raw:
    rows: list[list[str | Cell]] = []
    failed: list[bool] = []
    for check in verdict["checks"]:
        kpi = words.kpi(check["name"], check["value"])
        outcome, severe = str(check["outcome"]), check["severity"] == "fail"
        note = "" if severe else " (warning only)"
        rows.append(
            [
                Cell(_SHAPES.get(outcome, outcome) + note, "fixed"),
                kpi.words,
                Cell(_measured(kpi, outcome), "number"),
                Cell(words.limits(check["name"], check["low"], check["high"]), "number"),
                check["name"],
                str(check.get("detail", "")),
            ]
        )
        failed.append(outcome != "passed" and severe)
    header = ["Outcome", "Check", Cell("Value", "number"), Cell("Wanted", "number"), "Name"]
    if any(row[-1] for row in rows):
        header.append("Where and why")
    else:
        rows = [row[:-1] for row in rows]
    return section("Checks", table(header, rows, failed))


def _measured(kpi: Kpi, outcome: str) -> str:
    """The value of a check. One that was decided without a number is either true or not: a formula
    about modes alone has no margin."""
    if kpi.value == NOT_MEASURED and outcome != "untested":
        return "holds" if outcome == "passed" else "does not hold"
    return f"{kpi.value} {kpi.unit}".strip()


def _notes(earned: Earnings | None) -> list[Raw]:
    return [paragraph(earned.note, "muted")] if earned is not None and earned.note else []


def _shaping(recorded: Recorded) -> list[Raw]:
    """Which limits shaped the steady-state targets; nothing where none did."""
    if not recorded.shaped:
        return []
    rows = [
        [
            name,
            Cell(f"{100 * shaped.cycles / len(recorded.time_s):.0f} %", "number"),
            shaped.sentence,
        ]
        for name, shaped in sorted(recorded.shaped.items(), key=lambda item: -item[1].cycles)
    ]
    header = ("Limit", Cell("Of the cycles", "number"), "What the target said of it last")
    return [section("What shaped the targets", table(header, rows))]


def _proposals(
    recorded: Recorded, words: Words, earned: Earnings | None, truth_s: Column | None
) -> Raw:
    if not recorded.advised:
        return section("Proposals of the optimizer", paragraph("There were none.", "muted"))
    rows = [
        [Cell(number, "number"), Cell(at, "fixed"), targets, Cell(gain, "number"), why, what]
        for number, at, targets, gain, why, what in proposals(recorded, words, earned, truth_s)
    ]
    header = (
        Cell("No.", "number"),
        "At",
        "Targets",
        Cell("Expected gain", "number"),
        "Why",
        "What happened",
    )
    comment = paragraph(
        "Values of profit are means over the quarter of an hour before the proposal and before "
        "the next one. Times are h:m:s since the start.",
        "muted",
    )
    return section("Proposals of the optimizer", comment, table(header, rows))


def _events(recorded: Recorded) -> Raw:
    rows, left_out = events(recorded)
    if not rows:
        return section("Events", paragraph("There were none.", "muted"))
    lines = [[Cell(at, "fixed"), f"▲ {text}" if odd else text] for at, text, odd in rows]
    parts = [table(("At", "What"), lines, [odd for _, _, odd in rows])]
    if left_out:
        parts.append(paragraph(f"{left_out} later events are left out; the journal has them."))
    return section("Events", *parts)


def _repeat(
    directory: Path, recorded: Recorded, verdict: Mapping[str, Any] | None, scenario_text: str
) -> Raw:
    parts: list[Raw] = []
    if verdict is not None:
        scenario = shlex.quote(str(verdict.get("scenario_path") or f"{verdict['scenario']}.yaml"))
        hours = len(recorded.time_s) * recorded.settings.cycle_s / 3600
        parts.append(
            code(f"loopwright hil run {scenario} --tier {verdict['tier']} --seed {verdict['seed']}")
        )
        parts.append(paragraph(f"The run shown here lasted {hours:.3g} h of plant time.", "muted"))
    parts.append(code(f"loopwright replay {shlex.quote(directory.name or str(directory))}"))
    parts.append(table((), versions(recorded), narrow=True))
    if scenario_text:
        parts.append(details("The scenario", code(scenario_text)))
    return section("How to repeat this run", *parts)
