"""What a campaign found: how often the scenario fails, how KPIs spread, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import beta

from hil.campaign.campaign_file import Campaign
from hil.campaign.order import DRAWN, KPI, Row
from hil.campaign.sensitivity import Sensitivity, sensitivity

CONFIDENCE = 0.95
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_MEDIAN = QUANTILES.index(0.5)
_SHOWN = (0.0, 0.05, 0.5, 0.95, 1.0)
FAILED = "failed"
"""The verdict beside the KPIs: 1 where the job failed."""

OF_THE_MACHINE = ("cycle_ms", "solve_ms", "jitter_ms", "wall_s", "deadline")
"""How KPIs begin that tell of the machine and what else it did, not of the plant."""


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Failures among jobs, with exact one-sided bounds, each at 95 %.

    Attributes:
        variants: that the jobs are shared among; they meet the same plants and seeds, which makes
            them no independent jobs, so the bounds are the least and greatest of any variant.
    """

    jobs: int
    failures: int
    low: float
    high: float
    variants: int = 1

    @property
    def rate(self) -> float:
        return self.failures / self.jobs

    def __str__(self) -> str:
        worst = "in the worst variant " if self.variants > 1 else ""
        text = (
            f"{self.failures} of {self.jobs} failed: {100 * self.rate:.3g} %, "
            f"at most {100 * self.high:.3g} % {worst}with 95 % confidence"
        )
        if self.failures == 0:
            text += f" (about 3/n = {300 * self.variants / self.jobs:.3g} %)"
        elif self.low > 0.0:
            text += f", at least {100 * self.low:.3g} %"
        return text


def failure_rate(failures: int, jobs: int) -> FailureRate:
    """Bounds of Clopper & Pearson (1934): exact for independent jobs.

    >>> f"{failure_rate(0, 300).high:.5f}"
    '0.00994'
    """
    if jobs < 1 or not 0 <= failures <= jobs:
        raise ValueError(f"{failures} failures of {jobs} jobs")
    tail = 1.0 - CONFIDENCE
    low = float(beta.ppf(tail, failures, jobs - failures + 1)) if failures else 0.0
    high = float(beta.ppf(1.0 - tail, failures + 1, jobs - failures)) if failures < jobs else 1.0
    return FailureRate(jobs, failures, low, high)


def over_variants(rates: Sequence[FailureRate]) -> FailureRate:
    """The rate over several variants of a scenario."""
    return FailureRate(
        jobs=sum(rate.jobs for rate in rates),
        failures=sum(rate.failures for rate in rates),
        low=min(rate.low for rate in rates),
        high=max(rate.high for rate in rates),
        variants=len(rates),
    )


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of the scenario's matrix: its failures, and the median of each KPI."""

    name: str
    rate: FailureRate
    medians: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """A campaign in numbers.

    Attributes:
        variants: of the scenario's matrix; one without a name where it has none.
        quantiles: per KPI, at `QUANTILES`; over the jobs that have it.
        failed_checks: how many jobs each check failed in, the most frequent first.
        errors: per error text, its jobs.
        columns: KPI values per name, shape (jobs,), NaN where a job has none.
        drawn: drawn values per path, shape (jobs,).
        failed_rows: where in these columns the failed jobs stand.
    """

    campaign: Campaign
    rate: FailureRate
    variants: tuple[Variant, ...]
    quantiles: Mapping[str, tuple[float, ...]]
    failed_checks: Mapping[str, int]
    errors: Mapping[str, tuple[int, ...]]
    failed_jobs: tuple[Row, ...]
    failed_rows: tuple[int, ...]
    wall_s: float
    code: str
    columns: Mapping[str, NDArray[np.float64]]
    drawn: Mapping[str, NDArray[np.float64]]
    sensitivity: Sensitivity


def summarize(campaign: Campaign, rows: Sequence[Row]) -> Summary:
    """Everything that the rows of a campaign tell: all of them, by job number; at least one."""
    names = sorted({name for row in rows for name in row if name.startswith(KPI)})
    columns = {name.removeprefix(KPI): _column(rows, name) for name in names}
    drawn = {r.path: _column(rows, f"{DRAWN}{r.path}") for r in campaign.mismatch}
    failed = [row for row in rows if not row["passed"]]
    verdicts = np.array([float(not row["passed"]) for row in rows])
    checks = Counter(text for row in failed for text in row["failed"].split("; ") if text)
    errors: dict[str, list[int]] = {}
    for row in failed:
        if row["error"]:
            errors.setdefault(row["error"], []).append(row["job"])
    variants = _variants(rows, columns)
    return Summary(
        campaign=campaign,
        rate=over_variants([variant.rate for variant in variants]),
        variants=variants,
        quantiles={name: _quantiles(column) for name, column in columns.items()},
        failed_checks=dict(checks.most_common()),
        errors={text: tuple(jobs) for text, jobs in errors.items()},
        failed_jobs=tuple(failed),
        failed_rows=tuple(i for i, row in enumerate(rows) if not row["passed"]),
        wall_s=float(sum(row["wall_s"] for row in rows)),
        code=", ".join(sorted({row["code"] for row in rows})),
        columns=columns,
        drawn=drawn,
        sensitivity=sensitivity(
            campaign.mismatch,
            {path: _per_plant(column, len(variants)) for path, column in drawn.items()},
            {
                name: _per_plant(column, len(variants))
                for name, column in {FAILED: verdicts, **columns}.items()
                if not name.startswith(OF_THE_MACHINE)
            },
        ),
    )


def _variants(
    rows: Sequence[Row], columns: Mapping[str, NDArray[np.float64]]
) -> tuple[Variant, ...]:
    names = np.array([row["variant"] for row in rows])
    passed = np.array([row["passed"] for row in rows])
    found: list[Variant] = []
    for name in dict.fromkeys(names.tolist()):
        own = names == name
        medians = {kpi: _quantiles(column[own])[_MEDIAN] for kpi, column in columns.items()}
        failures = int(np.sum(~passed[own]))
        found.append(Variant(name, failure_rate(failures, int(np.sum(own))), medians))
    return tuple(found)


def _per_plant(column: NDArray[np.float64], variants: int) -> NDArray[np.float64]:
    """Means over the variants: only plants are independent of each other. Shape (plants,)."""
    return column.reshape(-1, variants).mean(axis=1)


def _column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _quantiles(column: NDArray[np.float64]) -> tuple[float, ...]:
    known = column[np.isfinite(column)]
    if not known.size:
        return tuple(float("nan") for _ in QUANTILES)
    return tuple(float(value) for value in np.quantile(known, QUANTILES))


def document(summary: Summary) -> dict[str, Any]:
    """For JSON."""
    rate, found = summary.rate, summary.sensitivity
    return {
        "campaign": summary.campaign.id,
        "title": summary.campaign.title,
        "version": summary.code,
        "design": summary.campaign.design,
        "jobs": rate.jobs,
        "failures": rate.failures,
        "failure_rate": rate.rate,
        "failure_rate_at_most": rate.high,
        "failure_rate_at_least": rate.low,
        "confidence": CONFIDENCE,
        "variants": [
            {
                "variant": variant.name,
                "jobs": variant.rate.jobs,
                "failures": variant.rate.failures,
                "failure_rate": variant.rate.rate,
                "failure_rate_at_most": variant.rate.high,
                "failure_rate_at_least": variant.rate.low,
                "medians": dict(variant.medians),
            }
            for variant in summary.variants
        ],
        "wall_s": summary.wall_s,
        "failed_checks": dict(summary.failed_checks),
        "errors": {text: list(jobs) for text, jobs in summary.errors.items()},
        "failed_jobs": [
            {
                "job": row["job"],
                "seed": row["seed"],
                "variant": row["variant"],
                "failed": row["failed"],
                "error": row["error"],
                "values": changes_of(row),
            }
            for row in summary.failed_jobs
        ],
        "quantiles": list(QUANTILES),
        "kpis": {name: list(values) for name, values in summary.quantiles.items()},
        "sensitivity": {
            "note": found.note,
            "factors": [factor.name for factor in found.factors],
            "explained": dict(found.explained),
            "effects": [{**asdict(effect), "certain": effect.certain} for effect in found.effects],
        },
    }


def changes_of(row: Row) -> dict[str, float]:
    """The drawn values of a row, by the path that `loopwright hil run --set` takes."""
    return {
        name.removeprefix(DRAWN): value for name, value in row.items() if name.startswith(DRAWN)
    }


def tables(summary: Summary, effects: int = 12) -> list[Table]:
    """For a terminal: variants, KPIs that vary, and the strongest effects."""
    shown = [_variant_table(summary)] if len(summary.variants) > 1 else []
    spread = Table(title=f"{summary.campaign.title}: KPIs over {summary.rate.jobs} jobs")
    spread.add_column("KPI", no_wrap=True)
    for share in _SHOWN:
        spread.add_column(quantile_name(share), justify="right", no_wrap=True)
    for name, values in varying(summary).items():
        cells = (values[QUANTILES.index(share)] for share in _SHOWN)
        spread.add_row(name, *(f"{value:.4g}" for value in cells))
    found = summary.sensitivity.strongest(effects)
    if not found:
        return [*shown, spread]
    table = Table(title="Which mismatch moves which KPI")
    for column in ("KPI", "mismatch", "PRCC", "95 % interval"):
        table.add_column(column, justify="left" if column in ("KPI", "mismatch") else "right")
    for effect in found:
        interval = f"{effect.low:+.2f} … {effect.high:+.2f}"
        table.add_row(effect.kpi, effect.factor, f"{effect.prcc:+.2f}", interval)
    return [*shown, spread, table]


def _variant_table(summary: Summary) -> Table:
    table = Table(title=f"{len(summary.variants)} variants, each with the same plants and seeds")
    table.add_column("variant")
    for column in ("jobs", "failed", "at most, 95 %"):
        table.add_column(column, justify="right")
    for variant in summary.variants:
        rate = variant.rate
        most = f"{100 * rate.high:.3g} %"
        table.add_row(variant.name, str(rate.jobs), str(rate.failures), most)
    return table


def varying(summary: Summary) -> dict[str, tuple[float, ...]]:
    """Quantiles of the KPIs that were measured, and are not the same in all jobs."""
    return {name: values for name, values in summary.quantiles.items() if values[0] < values[-1]}


def quantile_name(share: float) -> str:
    return {0.0: "least", 0.5: "median", 1.0: "most"}.get(share, f"{100 * share:g} %")
