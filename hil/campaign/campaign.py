"""Runs a campaign: the missing jobs of its design, sealed in shards as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic

from controller.errors import DeviceError
from hil.campaign.campaign_file import Campaign
from hil.campaign.code_version import code_version
from hil.campaign.design import design_hash, jobs_of
from hil.campaign.order import Order, Row
from hil.campaign.parcel import Parcel, pack
from hil.campaign.shards import CampaignDirectory, Identity, opened
from hil.scenario import load_scenario

SHARD_ROWS = 32
SHARD_S = 20.0
"""A shard is sealed after so many rows or so many seconds: what a crash may cost."""

Executor = Callable[[Sequence[Order]], Iterator[Row]]
Progress = Callable[[int, int, int], None]
"""Called with the jobs done, all jobs, and how many failed."""


def run_campaign(
    campaign: Campaign,
    directory: Path,
    executor: Executor,
    progress: Progress | None = None,
    *,
    shard_rows: int = SHARD_ROWS,
) -> list[Row]:
    """Run what is missing in `directory` and give back every row, by job number.

    Args:
        executor: runs orders anywhere, and yields their rows in any order.
        shard_rows: rows after which a shard is sealed, at the latest.

    Raises:
        ScenarioError: the scenario refuses the changes, or the directory holds something else.
        SettingsError: the application's file is wrong.
        JournalError: the directory is in use, or cannot be written.
        DeviceError: a worker, or the way to it, is lost.
    """
    parcel = pack(campaign.scenario)
    orders = orders_of(campaign, parcel)
    # A misspelt path is one error now, not one in every row.
    load_scenario(campaign.scenario, {**campaign.changes, **orders[0].values})
    identity = Identity(
        id=campaign.id,
        title=campaign.title,
        design=design_hash(campaign, parcel.digest),
        code=code_version(),
        scenario=campaign.scenario.name,
    )
    with opened(directory, identity, campaign.text) as place:
        held = place.rows()
        wanted: dict[int, Row] = {row["job"]: row for row in held if row["job"] < campaign.jobs}
        missing = [order for order in orders if order.number not in wanted]
        failed = sum(not row["passed"] for row in wanted.values())
        if progress is not None:
            progress(len(wanted), campaign.jobs, failed)

        def told(rows: Iterator[Row]) -> Iterator[Row]:
            nonlocal failed
            for row in rows:
                # A job that ran twice, since a worker seemed to be dead, counts once.
                if row["job"] in wanted:
                    continue
                wanted[row["job"]] = row
                failed += not row["passed"]
                if progress is not None:
                    progress(len(wanted), campaign.jobs, failed)
                yield row

        _collect(place, told(executor(missing)) if missing else iter(()), shard_rows)
    lost = [order.number for order in missing if order.number not in wanted]
    if lost:
        raise DeviceError(
            f"{len(lost)} jobs gave no row, the first is {lost[0]}",
            where=str(directory),
            mend="Start again: only these jobs run",
        )
    return [wanted[order.number] for order in orders]


def _collect(place: CampaignDirectory, rows: Iterator[Row], shard_rows: int) -> None:
    """Seal rows in shards; also those that came before an interruption."""
    unsealed: list[Row] = []
    sealed_s = monotonic()
    try:
        for row in rows:
            unsealed.append(row)
            if len(unsealed) >= shard_rows or monotonic() - sealed_s >= SHARD_S:
                batch, unsealed, sealed_s = unsealed, [], monotonic()
                place.seal(batch)
    finally:
        if unsealed:
            place.seal(unsealed)


def orders_of(campaign: Campaign, parcel: Parcel) -> list[Order]:
    """Every job of the campaign, ready to be sent."""
    every = campaign.replay_every
    return [
        Order(
            number=job.number,
            seed=job.seed,
            values=job.values,
            changes=campaign.changes,
            tier=campaign.tier,
            duration_s=campaign.duration_s,
            replay=every > 0 and job.number % every == 0,
            kpis=campaign.kpis,
            code=code_version(),
            parcel=parcel,
        )
        for job in jobs_of(campaign)
    ]
