"""The verb `hil campaign`: one scenario over many plants, on this machine or a Dask cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from controller.errors import JournalError
from controller.terminal import Verb, json_flag, messages, print_json, progress_bar, results
from hil.campaign.campaign import SHARD_ROWS, run_campaign
from hil.campaign.campaign_file import JOBS_MAX, Campaign, load_campaign
from hil.campaign.dask_cluster import on_cluster
from hil.campaign.extras import require
from hil.campaign.job import execute
from hil.campaign.local_processes import on_processes
from hil.campaign.order import Order, Row
from hil.campaign.summary import Summary, document, summarize, tables
from hil.whole_file import write_whole

SUMMARY_FILE = "summary.json"


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= JOBS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 to {JOBS_MAX}")
    return int(text)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("campaign", type=Path, help="campaign file")
    parser.add_argument(
        "--out", type=Path, help="directory of the results (default: out/campaigns/ID)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=_count, help="processes here (default: one per core)")
    where.add_argument("--scheduler", help="address of a Dask scheduler: tcp://host:8786")
    parser.add_argument("--seeds", type=_count, help="how many, instead of the file's own")
    parser.add_argument(
        "--shard-rows",
        type=_count,
        default=SHARD_ROWS,
        help=f"jobs per Parquet shard, the most that a crash costs (default {SHARD_ROWS})",
    )
    parser.add_argument("--html", type=Path, help="write one self-contained page")
    parser.add_argument("--picture", type=Path, help="draw it: a .png, .svg or .pdf file")
    json_flag(parser)


def _execute(arguments: argparse.Namespace) -> int:
    require("pyarrow", "Parquet shards")
    if arguments.picture is not None:
        from hil.campaign.picture import check_ending

        check_ending(arguments.picture)
    campaign = load_campaign(arguments.campaign)
    if arguments.seeds is not None:
        campaign = campaign.with_seeds(arguments.seeds)
    directory = arguments.out or Path("out/campaigns") / campaign.id
    rows = _run(campaign, directory, arguments)
    summary = summarize(campaign, rows)
    found = document(summary)
    _keep(directory / SUMMARY_FILE, found)
    if arguments.picture is not None:
        from hil.campaign.picture import draw

        draw(summary, arguments.picture)
    if arguments.html is not None:
        from hil.campaign.page import write_page

        write_page(summary, arguments.html)
    if arguments.json:
        print_json(found)
    else:
        _tell(summary, directory)
    return 1 if summary.rate.failures else 0


def _run(campaign: Campaign, directory: Path, arguments: argparse.Namespace) -> list[Row]:
    def executor(orders: Sequence[Order]) -> Iterator[Row]:
        if arguments.scheduler is not None:
            return on_cluster(orders, arguments.scheduler)
        return on_processes(orders, arguments.jobs or os.cpu_count() or 1, execute)

    with progress_bar() as bar:
        task = bar.add_task(campaign.id, total=campaign.seeds, numbers="")

        def progress(done: int, jobs: int, failed: int) -> None:
            bar.update(
                task, completed=done, total=jobs, numbers=f"{done} of {jobs}, {failed} failed"
            )

        rows = arguments.shard_rows
        return run_campaign(campaign, directory, executor, progress, shard_rows=rows)


def _keep(path: Path, found: dict[str, object]) -> None:
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(found)))
    except OSError as error:
        raise JournalError(
            f"the summary cannot be written: {error.strerror}",
            where=str(path),
            mend="Make room, and start again: no job runs twice",
        ) from error


def _tell(summary: Summary, directory: Path) -> None:
    for table in tables(summary):
        results().print(table)
    for name, count in summary.failed_checks.items():
        messages().print(f"{count} jobs: {name}", style="bold red", markup=False)
    for text, jobs in summary.errors.items():
        shown = ", ".join(map(str, jobs[:5])) + (", …" if len(jobs) > 5 else "")
        messages().print(f"job {shown}: {text}", style="bold red", markup=False)
    results().print(str(summary.rate), markup=False)
    if summary.sensitivity.note:
        results().print(f"sensitivity: {summary.sensitivity.note}", markup=False)
    results().print(f"results: {directory}", markup=False)


campaign = Verb(
    "campaign",
    "Run one scenario over many plants and seeds: how often it fails, and which mismatch hurts.",
    "loopwright hil campaign config/campaigns/cstr-mismatch.yaml --html campaign.html",
    _configure,
    _execute,
)
