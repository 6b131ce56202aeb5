"""Fusion of late measurements at the time their sample was drawn.

The estimator remembers, for every cycle within `memory_s`, the belief before correction and all
that was measured then. A late result joins the cycle in which its sample was drawn; from there
the filter runs forward again. The outcome equals the filter that had every result in time.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy.special import chdtri  # pyright: ignore[reportUnknownVariableType]

from controller.estimation.augmented import PLAUSIBLE_SPANS, AugmentedModel, Disturbance
from controller.estimation.kalman import (
    Belief,
    Innovation,
    Matrix,
    Measurement,
    correct,
    innovation,
    predict,
)
from controller.signal import NS_PER_S
from plant_models.process import Vector, names

# After that many rejected results in a row the process has moved, not the laboratory failed.
REJECTIONS_BEFORE_TRUST = 3
# A sigma of zero would claim a perfect laboratory, and two of them would contradict each other;
# in these bounds the square survives beside any covariance in double precision.
SIGMA_SPANS = (1e-6, 1e6)


class Verdict(StrEnum):
    """What became of a late result."""

    FUSED = "fused"
    DUPLICATE = "duplicate"
    OUTLIER = "outlier"
    TOO_OLD = "too old"
    FUTURE = "from the future"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class LateResult:
    """A quality result translated to outputs of the model."""

    result_id: str
    source: str
    time_ns: int
    measurement: Measurement
    gate: float


@dataclass(frozen=True, slots=True)
class Fusion:
    """What one late result did: verdict, chi-square, and how far each output estimate moved."""

    result_id: str
    verdict: Verdict
    chi_square: float = 0.0
    innovation: tuple[float, ...] = ()
    moved: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One remembered cycle: belief before correction, inputs held until then, measurements.

    u is what the PLC worked with when it was read in this cycle, so it belongs to the interval
    that ends here.
    """

    time_ns: int
    prior: Belief
    posterior: Belief
    u: Vector
    d: Vector
    measured: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DelayedFilterState:
    """Everything the filter remembers. `moments` is in order of time, the newest last."""

    moments: tuple[Moment, ...]
    seen: tuple[str, ...] = ()
    rejected_in_a_row: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class DelayedFilter:
    """An extended Kalman filter with a memory for late results.

    Attributes:
        noise_per_hour: covariance the augmented states gain per hour, (nz, nz).
        dt_s: nominal cycle time.
        memory_s: how far back a late result may reach.
    """

    augmented: AugmentedModel
    noise_per_hour: Matrix
    dt_s: float
    memory_s: float

    def start(
        self, time_ns: int, z: Vector, covariance: Matrix, u: Vector, d: Vector
    ) -> DelayedFilterState:
        belief = Belief(z, covariance)
        return DelayedFilterState((Moment(time_ns, belief, belief, u, d, ()),))

    def advance(
        self,
        state: DelayedFilterState,
        time_ns: int,
        u: Vector,
        d: Vector,
        measured: Measurement,
    ) -> DelayedFilterState:
        """Step to time_ns with u (nu,) and d (nd,), and correct with what is measured now."""
        last = state.moments[-1]
        elapsed_s = (time_ns - last.time_ns) / NS_PER_S
        prior = self._predict(last, u, elapsed_s)
        moment = self._corrected(Moment(time_ns, prior, prior, u, d, (measured,)))
        kept = [*state.moments, moment]
        oldest = time_ns - round(self.memory_s * NS_PER_S)
        first = max(0, bisect_right([m.time_ns for m in kept], oldest) - 1)
        return replace(state, moments=tuple(kept[first:]))

    def fuse(
        self, state: DelayedFilterState, result: LateResult
    ) -> tuple[DelayedFilterState, Fusion]:
        """Insert a late result at its sample time and run forward again."""
        index, refusal = self._place(state, result)
        if refusal is not None:
            return state, Fusion(result.result_id, refusal)
        at = state.moments[index]
        found = innovation(self.augmented, at.posterior, at.u, at.d, result.measurement)
        chi_square, value = found.chi_square, tuple(found.value.tolist())
        limit = float(chdtri(len(value), 1.0 - result.gate))
        seen = (*state.seen, result.result_id)[-1000:]
        trusted = state.rejected_in_a_row >= REJECTIONS_BEFORE_TRUST
        if chi_square > limit and not trusted:
            rejected = state.rejected_in_a_row + 1
            refused = replace(state, seen=seen, rejected_in_a_row=rejected)
            return refused, Fusion(result.result_id, Verdict.OUTLIER, chi_square, value)
        if chi_square > limit:
            at = replace(at, prior=self._widened(at.prior, found, limit))
        at = self._corrected(replace(at, measured=(*at.measured, result.measurement)))
        moments = self._rerun([*state.moments[:index], at], state.moments[index + 1 :])
        before = self._outputs(state.moments[-1])
        after = self._outputs(moments[-1])
        fused = DelayedFilterState(tuple(moments), seen, 0)
        moved = tuple((after - before).tolist())
        return fused, Fusion(result.result_id, Verdict.FUSED, chi_square, value, moved)

    def _place(self, state: DelayedFilterState, result: LateResult) -> tuple[int, Verdict | None]:
        if result.result_id in state.seen:
            return 0, Verdict.DUPLICATE
        if not self._usable(result.measurement):
            return 0, Verdict.UNUSABLE
        times = [m.time_ns for m in state.moments]
        half = round(self.dt_s * NS_PER_S / 2)
        if result.time_ns > times[-1] + half:
            return 0, Verdict.FUTURE
        if result.time_ns < times[0] - half:
            return 0, Verdict.TOO_OLD
        after = bisect_right(times, result.time_ns)
        candidates = [i for i in (after - 1, after) if 0 <= i < len(times)]
        return min(candidates, key=lambda i: abs(times[i] - result.time_ns)), None

    def _usable(self, measured: Measurement) -> bool:
        """Something is measured, and neither value nor sigma is beyond what numbers can carry."""
        y = [self.augmented.model.y[output] for output in measured.outputs]
        return bool(y) and all(
            abs(value - variable.nominal) <= PLAUSIBLE_SPANS * variable.span
            and SIGMA_SPANS[0] * variable.span <= sigma <= SIGMA_SPANS[1] * variable.span
            for variable, value, sigma in zip(y, measured.values, measured.sigmas, strict=True)
        )

    def _rerun(self, moments: list[Moment], later: tuple[Moment, ...]) -> list[Moment]:
        for moment in later:
            last = moments[-1]
            prior = self._predict(last, moment.u, (moment.time_ns - last.time_ns) / NS_PER_S)
            moments.append(self._corrected(replace(moment, prior=prior)))
        return moments

    def _predict(self, moment: Moment, u: Vector, elapsed_s: float) -> Belief:
        belief = moment.posterior
        for _ in range(max(1, round(elapsed_s / self.dt_s))):
            step = elapsed_s / max(1, round(elapsed_s / self.dt_s))
            belief = predict(self.augmented, self.noise_per_hour, belief, u, moment.d, step)
        return belief

    def _corrected(self, moment: Moment) -> Moment:
        belief = moment.prior
        for measured in moment.measured:
            belief = correct(self.augmented, belief, moment.u, moment.d, measured)
        return replace(moment, posterior=belief)

    def _widened(self, belief: Belief, found: Innovation, limit: float) -> Belief:
        """Doubt the disturbances as much as the innovation shows, so that the filter can follow."""
        nx = self.augmented.nx
        covariance = belief.covariance.copy()
        covariance[nx:, nx:] *= max(1.0, found.chi_square / limit)
        return Belief(belief.z, covariance)

    def _outputs(self, moment: Moment) -> Vector:
        y, _ = self.augmented.observe(moment.posterior.z, moment.u, moment.d)
        return np.asarray(y, dtype=np.float64).ravel()


def noise_covariance(
    augmented: AugmentedModel, states: dict[str, float], disturbances: tuple[Disturbance, ...]
) -> Matrix:
    """Covariance gained per hour, (nz, nz), from standard deviations per square root of an hour.

    A state without an entry gains 2 % of its span per square root of an hour: enough to forget a
    wrong initial value, too little to follow noise.
    """
    model = augmented.model
    unknown = sorted(set(states) - set(names(model.x)))
    if unknown:
        raise KeyError(f"process noise for {', '.join(unknown)}: no such state")
    walk = [states.get(v.name, 0.02 * v.span) for v in model.x]
    walk += [disturbance.walk for disturbance in disturbances]
    return np.diag(np.square(np.array(walk, dtype=np.float64)))
