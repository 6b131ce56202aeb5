"""Which mismatch moves which KPI: partial rank correlation with bootstrap intervals.

Sources: Saltelli, Chan & Scott (2000), Sensitivity Analysis, ch. 6 (rank regression, PRCC);
Efron & Tibshirani (1993), percentile intervals of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hil.campaign.campaign_file import Range

Matrix = NDArray[np.float64]

RESAMPLES = 200
CONFIDENCE = 0.95
ROWS_PER_FACTOR = 3
"""Rows that each factor needs, below which ranks say nothing that holds tomorrow."""

_SINGULAR = 1e-9
_BOOTSTRAP_SEED = 1


@dataclass(frozen=True, slots=True)
class Factor:
    """What a KPI may depend on: a drawn value, or how far it is from the middle.

    The second is there since a plant that is wrong either way often hurts: what goes down and up
    again has no rank correlation with the value itself.
    """

    range: Range
    distance: bool

    @property
    def name(self) -> str:
        drawn = self.range
        return f"|{drawn.name} − {drawn.centre:.4g}|" if self.distance else drawn.name

    def of(self, drawn: Matrix) -> Matrix:
        """The factor's values for drawn ones."""
        if not self.distance:
            return drawn
        if self.range.scale == "log":
            return np.abs(np.log(drawn / self.range.centre))
        return np.abs(drawn - self.range.centre)


@dataclass(frozen=True, slots=True)
class Effect:
    """How one factor moves one KPI.

    Attributes:
        prcc: partial rank correlation, from -1 (more of it, less of the KPI) to 1.
        low, high: its 95 % bootstrap interval.
        srrc: standardized rank regression coefficient.
    """

    kpi: str
    factor: str
    prcc: float
    low: float
    high: float
    srrc: float

    @property
    def certain(self) -> bool:
        """The interval does not hold 0."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Effects of all factors on all KPIs that vary.

    Attributes:
        explained: per KPI the share of the variance of its ranks that the factors explain; the
            rest is chance (seeds) and what is not monotonic.
        note: why there is nothing, or less than one might expect.
    """

    factors: tuple[Factor, ...]
    kpis: tuple[str, ...]
    effects: tuple[Effect, ...]
    explained: Mapping[str, float]
    note: str = ""

    def grid(self) -> Matrix:
        """PRCC, shape (KPIs, factors)."""
        return np.array([e.prcc for e in self.effects]).reshape(len(self.kpis), len(self.factors))

    def strongest(self, count: int) -> list[Effect]:
        """The effects that surely exist, the strongest first."""
        sure = [effect for effect in self.effects if effect.certain]
        return sorted(sure, key=lambda effect: -abs(effect.prcc))[:count]

    def worth_drawing(self, count: int) -> list[Effect]:
        """The strongest effects, each KPI once and each factor thrice: IAE, ISE and ITAE of one
        variable against one factor are thrice the same picture."""
        chosen: list[Effect] = []
        for effect in self.strongest(len(self.effects)):
            same_factor = sum(effect.factor == other.factor for other in chosen)
            if same_factor < 3 and all(effect.kpi != other.kpi for other in chosen):
                chosen.append(effect)
        return chosen[:count]


def sensitivity(
    ranges: Sequence[Range], drawn: Mapping[str, Matrix], kpis: Mapping[str, Matrix]
) -> Sensitivity:
    """PRCC of every KPI that varies.

    Args:
        drawn: values per path of `ranges`, shape (jobs,).
        kpis: values per KPI, shape (jobs,); NaN where a job has none.
    """
    jobs = len(next(iter(drawn.values()), ()))
    factors = tuple(Factor(r, False) for r in ranges) + tuple(Factor(r, True) for r in ranges)
    note = ""
    if jobs < ROWS_PER_FACTOR * (len(factors) + 1):
        factors = factors[: len(ranges)]
        note = f"{jobs} jobs are too few to tell the effect of a distance"
    if jobs < ROWS_PER_FACTOR * (len(factors) + 1):
        return Sensitivity((), (), (), {}, f"{jobs} jobs are too few for {len(ranges)} values")
    x = np.column_stack([factor.of(drawn[factor.range.path]) for factor in factors])
    effects: dict[str, list[Effect]] = {}
    explained: dict[str, float] = {}
    for mask, names in _same_rows(kpis, ROWS_PER_FACTOR * (len(factors) + 1)):
        y = np.column_stack([kpis[name][mask] for name in names])
        prcc, srrc, share = partial_rank_correlation(x[mask], y)
        low, high = _interval(x[mask], y)
        for k, name in enumerate(names):
            effects[name] = [
                Effect(name, f.name, *map(float, (prcc[i, k], low[i, k], high[i, k], srrc[i, k])))
                for i, f in enumerate(factors)
            ]
            explained[name] = float(share[k])
    ordered = tuple(name for name in kpis if name in effects)
    flat = tuple(effect for name in ordered for effect in effects[name])
    return Sensitivity(factors, ordered, flat, {n: explained[n] for n in ordered}, note)


def _same_rows(kpis: Mapping[str, Matrix], least: int) -> list[tuple[NDArray[np.bool_], list[str]]]:
    """KPIs that vary, together with those known in the same rows."""
    groups: dict[bytes, tuple[NDArray[np.bool_], list[str]]] = {}
    for name, values in kpis.items():
        mask = np.isfinite(values)
        if mask.sum() >= least and np.ptp(values[mask]) > 0.0:
            groups.setdefault(mask.tobytes(), (mask, []))[1].append(name)
    return list(groups.values())


def partial_rank_correlation(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """PRCC and SRRC, each (factors, KPIs), and R² of the rank regression, (KPIs,).

    With P the inverse correlation of the ranked x, b = P r the standardized coefficients and
    R² = r·b, the partial correlation is b / sqrt(b² + P_ii (1 - R²)): the correlation of what is
    left of both after the other factors have been regressed out.

    Args:
        x: shape (jobs, factors); y: shape (jobs, KPIs). A column that does not vary gives 0.
    """
    ranks = _standardized(np.column_stack([x, y]))
    correlation = ranks.T @ ranks
    width = x.shape[1]
    rxx, rxy = correlation[:width, :width], correlation[:width, width:]
    inverse = np.linalg.inv(rxx + _SINGULAR * np.eye(width))
    srrc = inverse @ rxy
    share = np.clip(np.sum(srrc * rxy, axis=0), 0.0, 1.0)
    rest = np.outer(np.diag(inverse), 1.0 - share)
    size = np.sqrt(srrc**2 + rest)
    prcc = np.divide(srrc, size, out=np.zeros_like(srrc), where=size > 0.0)
    return prcc, srrc, share


def _standardized(columns: Matrix) -> Matrix:
    """Ranks, centred, with norm 1; zeros for a column of equal values."""
    ranks: Matrix = np.asarray(rankdata(columns, axis=0), dtype=np.float64)
    ranks -= ranks.mean(axis=0)
    norm = np.linalg.norm(ranks, axis=0)
    return np.divide(ranks, norm, out=np.zeros_like(ranks), where=norm > 0.0)


def _interval(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """Percentile interval of the PRCC over jobs drawn again; the same rows give the same one."""
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    drawn: list[Matrix] = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(x), len(x))
        drawn.append(partial_rank_correlation(x[rows], y[rows])[0])
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(np.array(drawn), [tail, 1.0 - tail], axis=0)
    return low, high
