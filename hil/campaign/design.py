"""The design of a campaign: which plant each job gets, from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from hil.campaign.campaign_file import Campaign, DesignKind

EXTENDABLE: frozenset[DesignKind] = frozenset({"sobol", "random"})
"""Designs whose first n points stay when more are asked for. A Latin hypercube is one piece."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A seed of the scenario and the plant drawn for it: the value of each path; numbers from 0."""

    number: int
    seed: int
    values: Mapping[str, float]


def draws_of(campaign: Campaign) -> tuple[Draw, ...]:
    """Every seed and plant of a campaign; the same file gives the same ones."""
    points = _unit_points(campaign.design, campaign.seeds, len(campaign.mismatch), campaign)
    columns: dict[str, list[float]] = {}
    for i, drawn in enumerate(campaign.mismatch):
        share = points[:, i]
        if drawn.scale == "log":
            low, high = np.log(drawn.low), np.log(drawn.high)
            columns[drawn.path] = np.exp(low + share * (high - low)).tolist()
        else:
            columns[drawn.path] = (drawn.low + share * (drawn.high - drawn.low)).tolist()
    return tuple(
        Draw(
            number,
            campaign.first_seed + number,
            {path: values[number] for path, values in columns.items()},
        )
        for number in range(campaign.seeds)
    )


def _unit_points(
    design: DesignKind, count: int, width: int, campaign: Campaign
) -> NDArray[np.float64]:
    """Points in the unit cube, shape (count, width). Source: Owen (1998), scrambled Sobol' points;
    McKay, Beckman & Conover (1979), Latin hypercubes."""
    rng = np.random.default_rng(campaign.design_seed)
    if design == "random":
        return rng.random((count, width))
    if design == "latin_hypercube":
        return qmc.LatinHypercube(width, rng=rng).random(count)
    # The sequence is balanced at powers of two; a shorter one is its beginning.
    return qmc.Sobol(width, rng=rng).random_base2(max(count - 1, 0).bit_length())[:count]


def design_hash(campaign: Campaign, parcel_digest: str) -> str:
    """What results must have in common to stand in one table: scenario files, ranges, design, what
    is kept. The number of seeds belongs to it where a design of more seeds is another design."""
    plain = {
        "format": 2,
        "files": parcel_digest,
        "tier": campaign.tier,
        "duration_s": campaign.duration_s,
        "first_seed": campaign.first_seed,
        "seeds": None if campaign.design in EXTENDABLE else campaign.seeds,
        "design": campaign.design,
        "design_seed": campaign.design_seed,
        "mismatch": [asdict(drawn) for drawn in campaign.mismatch],
        "changes": campaign.changes,
        "kpis": campaign.kpis,
        "replay_every": campaign.replay_every,
    }
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()
