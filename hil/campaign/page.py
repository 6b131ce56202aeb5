"""The page of a campaign: one HTML file that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path

import yaml
from matplotlib.figure import Figure

from controller.errors import JournalError
from hil.campaign.picture import (
    PAIRS_MAX,
    draw_heat,
    draw_pairs,
    heat_height,
    shown_kpis,
)
from hil.campaign.summary import QUANTILES, Summary, changes_of, quantile_name, varying
from hil.report.canvas import Chart, drawing, render
from hil.report.page import Cell, Raw, banner, code, page, paragraph, picture, safe, section, table
from hil.whole_file import write_whole

FAILED_SHOWN = 50
VARIANTS_BESIDE = 6
"""More columns than that are not read any more; the JSON document has them all."""


def write_page(summary: Summary, path: Path) -> None:
    """
    Raises:
        JournalError: the file cannot be written.
    """
    rate, campaign = summary.rate, summary.campaign
    outcome = "passed" if rate.failures == 0 else "failed"
    words = "no job failed" if rate.failures == 0 else f"{rate.failures} jobs failed"
    parts = [
        Raw(f"<h1>{safe(campaign.title)}</h1>"),
        paragraph(
            f"{campaign.id}: {rate.jobs} jobs, {campaign.design}, seed {campaign.first_seed} on, "
            f"tier {campaign.tier}, Loopwright {summary.code}, "
            f"{summary.wall_s / 60:.3g} min of computing",
            "muted",
        ),
        banner(outcome, words, str(rate)),
        *([_variants(summary)] if len(summary.variants) > 1 else []),
        _ranges(summary),
        _sensitivity(summary),
        _failures(summary),
        _kpis(summary),
    ]
    try:
        write_whole(path, page(campaign.title, *parts).encode())
    except OSError as error:
        raise JournalError(
            f"the page cannot be written: {error.strerror}",
            where=str(path),
            mend="Choose another place with --html",
        ) from error


def _variants(summary: Summary) -> Raw:
    """How often each variant fails, and its medians beside those of the others."""
    header = ("variant", *(Cell(text, "number") for text in ("jobs", "failed", "at most, 95 %")))
    rows = [
        (
            variant.name,
            Cell(str(variant.rate.jobs), "number"),
            Cell(str(variant.rate.failures), "number"),
            Cell(f"{100 * variant.rate.high:.3g} %", "number"),
        )
        for variant in summary.variants
    ]
    parts = [
        paragraph("Each variant has met the same plants and seeds.", "muted"),
        table(header, rows, [variant.rate.failures > 0 for variant in summary.variants]),
    ]
    if len(summary.variants) <= VARIANTS_BESIDE:
        medians = [
            (name, *(Cell(f"{v.medians[name]:.4g}", "number") for v in summary.variants))
            for name in varying(summary)
        ]
        beside = ("median of KPI", *(Cell(v.name, "number") for v in summary.variants))
        parts.append(table(beside, medians))
    return section("Variants", *parts)


def _ranges(summary: Summary) -> Raw:
    rows = [
        (r.path, Cell(f"{r.low:g}", "number"), Cell(f"{r.high:g}", "number"), r.scale)
        for r in summary.campaign.mismatch
    ]
    header = ("what is drawn", Cell("from", "number"), Cell("to", "number"), "scale")
    parts = [table(header, rows, narrow=True)]
    fixed = dict(summary.campaign.changes)
    if fixed:
        text = yaml.safe_dump(fixed, sort_keys=False, allow_unicode=True, default_flow_style=None)
        parts += [paragraph("Changed in all jobs:", "muted"), code(text.rstrip())]
    return section("Mismatch", *parts)


def _sensitivity(summary: Summary) -> Raw:
    found = summary.sensitivity
    parts: list[Raw] = []
    if found.note:
        parts.append(paragraph(found.note, "muted"))
    shown = shown_kpis(summary)
    if not shown:
        return section("Which mismatch moves which KPI", *parts)
    with drawing():
        figure = Figure(figsize=(11.0, heat_height(len(shown))), layout="constrained")
        draw_heat(summary, figure.subplots(1, 1))
        heat = Chart(
            "heat",
            "Partial rank correlation",
            "Red: more of the mismatch, more of the KPI; blue: less. A dot: its 95 % interval "
            "holds 0. |x − c| is the distance from c, in either direction. R²: the share of the "
            "KPI's ranks that all mismatch together explains; the rest is chance, or neither "
            "rises nor falls throughout.",
            render(figure, "heat"),
        )
        parts.append(picture(heat))
        pairs = found.worth_drawing(PAIRS_MAX)
        if pairs:
            figure = Figure(figsize=(11.0, 5.4), layout="constrained")
            draw_pairs(summary, pairs, list(figure.subplots(2, 3).ravel()))
            points = Chart(
                "pairs",
                "The strongest pairs",
                "A point per job; a cross is a job that failed.",
                render(figure, "pairs"),
            )
            parts.append(picture(points))
    return section("Which mismatch moves which KPI", *parts)


def _failures(summary: Summary) -> Raw:
    if not summary.failed_jobs:
        return section("Failures", paragraph("None."))
    checks = [(name, Cell(str(count), "number")) for name, count in summary.failed_checks.items()]
    errors = [(text, Cell(str(len(jobs)), "number")) for text, jobs in summary.errors.items()]
    rows = [
        (
            Cell(str(row["job"]), "number"),
            Cell(str(row["seed"]), "number"),
            row["variant"],
            row["error"] or row["failed"],
            ", ".join(f"{path} = {value:.5g}" for path, value in changes_of(row).items()),
        )
        for row in summary.failed_jobs[:FAILED_SHOWN]
    ]
    more = len(summary.failed_jobs) - len(rows)
    header = (
        Cell("job", "number"),
        Cell("seed", "number"),
        "variant",
        "what failed",
        "drawn values",
    )
    return section(
        "Failures",
        table(("check or error", Cell("jobs", "number")), checks + errors, narrow=True),
        table(header, rows),
        paragraph(f"{more} more are in the Parquet files." if more else "", "muted"),
    )


def _kpis(summary: Summary) -> Raw:
    header = ("KPI", *(Cell(quantile_name(share), "number") for share in QUANTILES))
    rows = [
        (name, *(Cell(f"{value:.4g}", "number") for value in values))
        for name, values in varying(summary).items()
    ]
    same = len(summary.quantiles) - len(rows)
    note = f"{same} KPIs are the same in all jobs." if same else ""
    return section("KPIs", table(header, rows), paragraph(note, "muted"))
