"""What a worker is asked for, an order, and what it gives back, a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hil.campaign.parcel import Parcel
    from hil.scenario import Tier

Row = dict[str, Any]
"""job, seed, variant, passed, failed (checks), error, wall_s, code; `x.` what was drawn; `kpi.`"""

DRAWN, KPI = "x.", "kpi."


@dataclass(frozen=True, slots=True)
class Order:
    """Everything a process on any machine needs to run one job.

    Attributes:
        variant: of the scenario's matrix, in words; "" where it has none.
        values: drawn values by dotted path; `changes` are those of the campaign and the variant.
        kpis: patterns of the KPIs to keep.
        code: the code version that must run it.
    """

    number: int
    seed: int
    variant: str
    values: Mapping[str, float]
    changes: Mapping[str, Any]
    tier: Tier
    duration_s: float | None
    replay: bool
    kpis: tuple[str, ...]
    code: str
    parcel: Parcel

    @property
    def frame(self) -> Row:
        """What a row of this job holds, however it ends."""
        drawn = {f"{DRAWN}{path}": float(value) for path, value in self.values.items()}
        whose = {"job": self.number, "seed": self.seed, "variant": self.variant}
        return {**whose, "code": self.code, **drawn}


def failure(order: Order, error: str) -> Row:
    """The row of a job that ended without a verdict."""
    return order.frame | {"passed": False, "failed": "", "error": error, "wall_s": 0.0}
