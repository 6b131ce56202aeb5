"""The verbs `hil compare` and `hil what-if`: what did a change do, what would a change do."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from controller.terminal import Verb, json_flag, print_json, results, time_of
from hil.compare.check_changes import told_together
from hil.compare.comparison import Comparison, Group, KpiRow

# --- compare ---------------------------------------------------------------------------------


def _configure_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="before: the directory of a run, or of several")
    parser.add_argument("b", type=Path, help="after: the same scenarios, tiers and seeds")
    parser.add_argument("--html", type=Path, help="write one HTML file with tables and trends")
    parser.add_argument(
        "--fail-on-regression",
        action="store_true",
        help="exit 1 if a check or a KPI became worse, or a run is missing in B",
    )
    json_flag(parser)


def _compare(arguments: argparse.Namespace) -> int:
    from hil.compare.comparison import compare as compare_runs
    from hil.compare.page import write_comparison
    from hil.compare.runs import find_runs, pair_runs

    pairing = pair_runs(find_runs(arguments.a), find_runs(arguments.b))
    comparison = compare_runs(pairing)
    if arguments.html:
        write_comparison(comparison, arguments.a, arguments.b, arguments.html)
    if arguments.json:
        page = {"html": str(arguments.html)} if arguments.html else {}
        print_json({**comparison.plain(), **page})
    else:
        _show(comparison)
        if arguments.html:
            results().print(f"page: {arguments.html}", markup=False, soft_wrap=True)
    return 1 if arguments.fail_on_regression and comparison.regressions else 0


def _show(comparison: Comparison) -> None:
    screen = results()
    for group in comparison.groups:
        screen.print(_kpi_table(group))
    for change in comparison.changes:
        if not change.worse:  # Those are among the regressions below.
            screen.print(str(change), markup=False)
    for side, runs in (("A", comparison.only_a), ("B", comparison.only_b)):
        for text in told_together(runs):
            screen.print(f"only in {side}: {text}", markup=False)
    screen.print(comparison.power, markup=False)
    count = len(comparison.regressions)
    screen.print(f"{comparison.pairs} pairs, {count} regressions", markup=False)
    for text in comparison.regressions:
        screen.print(f"  {text}", style="bold red", markup=False)


def _kpi_table(group: Group) -> Table:
    """The KPIs that differ anywhere; the others are counted."""
    moved = [row for row in group.kpis if row.finding not in ("same", "unpaired")]
    table = Table(title=f"{group.scenario}, {group.tier}: {len(group.pairs)} pairs")
    table.add_column("KPI")
    for column in ("A", "B", "B − A", "of A", "p, corrected", "n"):
        table.add_column(column, justify="right")
    table.add_column("finding")
    for row in moved:
        table.add_row(*_cells(row))
    same = sum(row.finding == "same" for row in group.kpis)
    table.caption = f"{same} more KPIs are the same in every pair"
    return table


def _cells(row: KpiRow) -> tuple[str, ...]:
    return (
        row.name,
        "" if row.a is None else f"{row.a:.4g}",
        "" if row.b is None else f"{row.b:.4g}",
        "" if row.difference is None else f"{row.difference:+.3g}",
        "" if row.percent is None else f"{row.percent:+.1f} %",
        "" if row.p_holm is None else f"{row.p_holm:.2g}",
        str(row.n),
        row.finding,
    )


# --- what-if ---------------------------------------------------------------------------------


def _configure_what_if(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data directory of a run")
    parser.add_argument("--config", type=Path, required=True, help="another application file")
    parser.add_argument("--from", dest="begin", help="compare from this time on, ISO 8601")
    parser.add_argument("--to", dest="end", help="compare up to this time, ISO 8601")
    parser.add_argument("--html", type=Path, default=Path("what-if.html"), help="HTML file")
    json_flag(parser)


def _what_if(arguments: argparse.Namespace) -> int:
    from controller.replay_verb import document, what_if
    from controller.what_if import Compared
    from hil.compare.what_if_page import write_what_if

    each: list[Compared] = []
    outcome = what_if(
        arguments.data,
        arguments.config,
        time_of(arguments.begin, "--from") if arguments.begin else None,
        time_of(arguments.end, "--to") if arguments.end else None,
        lambda compared: each.append(compared.without_plans),
    )
    write_what_if(outcome, each, arguments.data, arguments.config, arguments.html)
    if arguments.json:
        print_json({**document(outcome, arguments.config), "html": str(arguments.html)})
    else:
        results().print(str(outcome), markup=False)
        results().print(f"page: {arguments.html}", markup=False, soft_wrap=True)
    return 0


compare = Verb(
    "compare",
    "Compare two sets of runs: KPIs with significance over seeds, verdicts, trends.",
    "loopwright hil compare out/main out/change --html comparison.html",
    _configure_compare,
    _compare,
)
what_if = Verb(
    "what-if",
    "Show what another configuration would have decided in the cycles of a run.",
    "loopwright hil what-if out/hil/demo --config other.yaml --html what-if.html",
    _configure_what_if,
    _what_if,
)
