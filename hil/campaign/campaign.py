"""Runs a campaign: the missing jobs of its design, sealed in shards as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

from controller.errors import DeviceError, ScenarioError
from hil.campaign.campaign_file import JOBS_MAX, Campaign
from hil.campaign.code_version import code_version
from hil.campaign.design import design_hash, draws_of
from hil.campaign.order import Order, Row
from hil.campaign.parcel import Parcel, pack
from hil.campaign.shards import CampaignDirectory, Identity, opened
from hil.scenario import variants

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
    identity = Identity(
        id=campaign.id,
        title=campaign.title,
        design=design_hash(campaign, parcel.digest),
        code=code_version(),
        scenario=campaign.scenario.name,
    )
    with opened(directory, identity, campaign.text) as place:
        held = place.rows()
        wanted: dict[int, Row] = {row["job"]: row for row in held if row["job"] < len(orders)}
        missing = [order for order in orders if order.number not in wanted]
        # A variant may have settings of its own: workers build each application once.
        seen = list(dict.fromkeys(order.variant for order in orders))
        missing.sort(key=lambda order: (seen.index(order.variant), order.number))
        failed = sum(not row["passed"] for row in wanted.values())
        if progress is not None:
            progress(len(wanted), len(orders), failed)

        def told(rows: Iterator[Row]) -> Iterator[Row]:
            nonlocal failed
            for row in rows:
                # A job that ran twice, since a worker seemed to be dead, counts once.
                if row["job"] in wanted:
                    continue
                wanted[row["job"]] = row
                failed += not row["passed"]
                if progress is not None:
                    progress(len(wanted), len(orders), failed)
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
    """Every job of the campaign, ready to be sent: each seed, and the plant drawn for it, with
    every variant of the scenario's matrix.

    Raises:
        ScenarioError, SettingsError: a variant cannot be run, or there are too many jobs.
    """
    every = campaign.replay_every
    draws = draws_of(campaign)
    variants = _variants(campaign, draws[0].values)
    if len(variants) * campaign.seeds > JOBS_MAX:
        raise ScenarioError(
            f"{len(variants)} variants of the scenario with {campaign.seeds} seeds each are more "
            f"than {JOBS_MAX} jobs",
            where=str(campaign.path),
            mend="Take fewer seeds, or values out of the matrix",
        )
    return [
        Order(
            number=number,
            seed=draw.seed,
            variant=name,
            values=draw.values,
            changes={**campaign.changes, **chosen},
            tier=campaign.tier,
            duration_s=campaign.duration_s,
            replay=every > 0 and number % every == 0,
            kpis=campaign.kpis,
            code=code_version(),
            parcel=parcel,
        )
        for number, (draw, (name, chosen)) in enumerate(product(draws, variants.items()))
    ]


def _variants(campaign: Campaign, drawn: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """By its name, what each variant of the scenario's matrix changes; `""` without a matrix.

    What the campaign says goes before: a path that it changes or draws does not vary.
    """
    own: dict[str, object] = {**campaign.changes, **drawn, "seed": campaign.first_seed}
    # Loading them tells a misspelt path now, once, and not in every row.
    found = variants(campaign.scenario, own)
    settled = ["tier"] if campaign.duration_s is None else ["tier", "duration"]
    for path in settled:
        if path in found[0].changes:
            raise ScenarioError(
                f"the matrix of {campaign.scenario.name} varies {path}, which the campaign settles",
                where=str(campaign.path),
                mend=f"Take {path} out of the matrix, or use loopwright hil run",
            )
    twice = [name for name, count in Counter(s.variant for s in found).items() if count > 1]
    if twice:
        raise ScenarioError(
            f"the matrix holds {twice[0]} more than once",
            where=str(campaign.scenario),
            mend="Remove the repetition; seeds of a campaign stand in its own file",
        )
    return {s.variant: {p: v for p, v in s.changes.items() if p not in own} for s in found}
