"""Fusion of late measurements at the time their sample was drawn.

The estimator remembers, for every cycle within `memory_s`, the belief before correction and all
that was measured then. A late result joins the cycle in which its sample was drawn; from there
the filter runs forward again. The outcome equals the filter that had every result in time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter

import numpy as np
from msgspec import Struct, structs
from scipy.special import chdtri  # pyright: ignore[reportUnknownVariableType]

from controller.estimation.augmented import PLAUSIBLE_SPANS, AugmentedModel, Disturbance
from controller.estimation.evaluation import Evaluation, LinearEvaluation, Matrix, compiled
from controller.estimation.fused import Fused, FusedStep, applies, fused_step
from controller.estimation.kalman import (
    Belief,
    Innovation,
    Measurement,
    correct,
    innovation,
    predict,
    surprise,
    unexpected,
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


class Moment(Struct, frozen=True, eq=False):
    """One remembered cycle: belief before correction, inputs held until then, measurements.

    u is what the PLC worked with when it was read in this cycle, so it belongs to the interval
    that ends here.

    Attributes:
        doubt: covariance added to the belief before this moment, because rejected results in a
            row showed that the process has moved; (nz, nz) or None.
        arrival: moving horizon only: what was known before this moment from all that lies
            before it, where a window starts here.
        outcome: moving horizon only: how the solve of the window that ends here went.
        shown: what the beliefs show, where that came with them for nothing.
    """

    time_ns: int
    prior: Belief
    posterior: Belief
    u: Vector
    d: Vector
    measured: tuple[Measurement, ...]
    doubt: Matrix | None = None
    arrival: Belief | None = None
    outcome: str = ""
    shown: Fused | None = None


class DelayedFilterState(Struct, frozen=True, eq=False):
    """Everything an estimator remembers.

    Attributes:
        moments: in order of time, the newest last.
        seen: identities of the results judged so far.
        rejected: by source, how many of its results in a row were rejected.
    """

    moments: tuple[Moment, ...]
    seen: tuple[str, ...] = ()
    rejected: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What the gate says about a late result.

    Attributes:
        fusion: verdict, chi-square and innovation; the outputs have not moved yet.
        index: which moment the result joins.
        state: state in which the judgement is remembered.
        excess: chi-square over its limit, where the result is trusted all the same; else 1.
    """

    fusion: Fusion
    index: int
    state: DelayedFilterState
    excess: float = 1.0


def remembered(
    moments: tuple[Moment, ...], newest: Moment, memory_s: float, more: int = 0
) -> tuple[Moment, ...]:
    """Moments within memory_s of the newest one, the one before them, and `more` older ones."""
    oldest = newest.time_ns - round(memory_s * NS_PER_S)
    first = bisect_right(moments, oldest, key=attrgetter("time_ns")) - 1 - more
    return (*(moments[first:] if first > 0 else moments), newest)


def judge(
    state: DelayedFilterState,
    result: LateResult,
    augmented: AugmentedModel,
    evaluation: Evaluation,
    dt_s: float,
    memory_s: float,
) -> Judgement:
    """Whether a late result may be fused, and into which moment."""
    index, refusal = _place(state, result, augmented, dt_s, memory_s)
    if refusal is not None:
        return Judgement(Fusion(result.result_id, refusal), index, state)
    at = state.moments[index]
    found = innovation(evaluation, at.posterior, at.u, at.d, result.measurement)
    chi_square, value = found.chi_square, tuple(found.value.tolist())
    limit = float(chdtri(len(value), 1.0 - result.gate))
    seen = (*state.seen, result.result_id)[-1000:]
    rejected = state.rejected.get(result.source, 0)
    if chi_square > limit and rejected < REJECTIONS_BEFORE_TRUST:
        counts = {**state.rejected, result.source: rejected + 1}
        refused = DelayedFilterState(state.moments, seen, counts)
        fusion = Fusion(result.result_id, Verdict.OUTLIER, chi_square, value)
        return Judgement(fusion, index, refused)
    fusion = Fusion(result.result_id, Verdict.FUSED, chi_square, value)
    judged = DelayedFilterState(state.moments, seen, {**state.rejected, result.source: 0})
    return Judgement(fusion, index, judged, max(1.0, chi_square / limit) if limit > 0 else 1.0)


def _place(
    state: DelayedFilterState,
    result: LateResult,
    augmented: AugmentedModel,
    dt_s: float,
    memory_s: float,
) -> tuple[int, Verdict | None]:
    moments = state.moments
    if result.result_id in state.seen:
        return 0, Verdict.DUPLICATE
    if not _usable(augmented, result.measurement):
        return 0, Verdict.UNUSABLE
    half = round(dt_s * NS_PER_S / 2)
    if result.time_ns > moments[-1].time_ns + half:
        return 0, Verdict.FUTURE
    # The memory reaches back to the last moment that is at least that old.
    oldest = moments[-1].time_ns - round(memory_s * NS_PER_S)
    first = max(0, bisect_right(moments, oldest, key=attrgetter("time_ns")) - 1)
    if result.time_ns < moments[first].time_ns - half:
        return 0, Verdict.TOO_OLD
    after = bisect_right(moments, result.time_ns, key=attrgetter("time_ns"))
    candidates = [i for i in (after - 1, after) if first <= i < len(moments)]
    return min(candidates, key=lambda i: abs(moments[i].time_ns - result.time_ns)), None


def _usable(augmented: AugmentedModel, measured: Measurement) -> bool:
    """Something is measured, and neither value nor sigma is beyond what numbers can carry."""
    y = [augmented.model.y[output] for output in measured.outputs]
    return bool(y) and all(
        abs(value - variable.nominal) <= PLAUSIBLE_SPANS * variable.span
        and SIGMA_SPANS[0] * variable.span <= sigma <= SIGMA_SPANS[1] * variable.span
        for variable, value, sigma in zip(y, measured.values, measured.sigmas, strict=True)
    )


def joined(moment: Moment, measurement: Measurement, excess: float, nx: int) -> Moment:
    """The moment with one more measurement.

    Where the result exceeds its limit and is trusted, the disturbances are doubted as much as
    the innovation shows, so that the estimate can follow.
    """
    measured = (*moment.measured, measurement)
    if excess <= 1.0:
        return structs.replace(moment, measured=measured)
    doubt = np.zeros_like(moment.prior.covariance)
    doubt[nx:, nx:] = (excess - 1.0) * moment.prior.covariance[nx:, nx:]
    prior = Belief(moment.prior.z, moment.prior.covariance + doubt)
    arrival = moment.arrival
    if arrival is not None:
        arrival = Belief(arrival.z, arrival.covariance + doubt)
    if moment.doubt is not None:
        doubt = doubt + moment.doubt
    return structs.replace(moment, prior=prior, measured=measured, doubt=doubt, arrival=arrival)


def known(belief: Belief) -> bool:
    """Whether the belief is made of finite numbers."""
    return bool(np.isfinite(belief.z).all() and np.isfinite(belief.covariance).all())


def concluded(
    evaluation: Evaluation, state: DelayedFilterState, judged: Judgement, moments: list[Moment]
) -> tuple[DelayedFilterState, Fusion]:
    """What a late result did, once the moments from its own on are explained again; where that
    leaves the finite numbers it is not used."""
    if not known(moments[-1].posterior):
        return state, Fusion(judged.fusion.result_id, Verdict.UNUSABLE)
    before, _ = outputs(evaluation, state.moments[-1])
    after, _ = outputs(evaluation, moments[-1])
    fused = structs.replace(judged.state, moments=tuple(moments))
    return fused, replace(judged.fusion, moved=tuple((after - before).tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class DelayedFilter:
    """A Kalman filter with a memory for late results.

    Attributes:
        noise_per_hour: covariance the augmented states gain per hour, (nz, nz).
        dt_s: nominal cycle time.
        memory_s: how far back a late result may reach.
        constant: matrices of a linear model; None: the model is linearised at every estimate
            (extended Kalman filter).
    """

    augmented: AugmentedModel
    noise_per_hour: Matrix
    dt_s: float
    memory_s: float
    constant: LinearEvaluation | None = None

    @property
    def evaluation(self) -> Evaluation:
        return compiled(self.augmented) if self.constant is None else self.constant

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
        moment = self._next(state.moments[-1], time_ns, u, d, (measured,), None)
        moments = remembered(state.moments, moment, self.memory_s)
        return DelayedFilterState(moments, state.seen, state.rejected)

    def fuse(
        self, state: DelayedFilterState, result: LateResult
    ) -> tuple[DelayedFilterState, Fusion]:
        """Insert a late result at its sample time and run forward again."""
        evaluation = self.evaluation
        judged = judge(state, result, self.augmented, evaluation, self.dt_s, self.memory_s)
        if judged.fusion.verdict is not Verdict.FUSED:
            return judged.state, judged.fusion
        index = judged.index
        at = joined(state.moments[index], result.measurement, judged.excess, self.augmented.nx)
        moments = list(state.moments)
        posterior = self._corrected(at.prior, at.u, at.d, at.measured)
        moments[index] = structs.replace(at, posterior=posterior, shown=None)
        for i in range(index + 1, len(moments)):
            m = moments[i]
            moments[i] = self._next(moments[i - 1], m.time_ns, m.u, m.d, m.measured, m.doubt)
        return concluded(self.evaluation, state, judged, moments)

    def outputs(self, moment: Moment) -> tuple[Vector, Vector]:
        """Estimated outputs y (ny,) and their variances (ny,)."""
        if moment.shown is not None:
            return moment.shown.y, moment.shown.variance
        return outputs(self.evaluation, moment)

    def innovation(self, moment: Moment, measured: Measurement) -> Innovation:
        """What was measured in this moment beyond what was expected before it."""
        return innovation(self.evaluation, moment.prior, moment.u, moment.d, measured)

    def surprise(self, moment: Moment, measured: Measurement) -> Vector:
        """The value of the innovation alone, (m,), at a third of the price."""
        if moment.shown is not None:
            return unexpected(moment.shown.expected, measured)
        return surprise(self.evaluation, moment.prior, moment.u, moment.d, measured)

    def _next(
        self,
        last: Moment,
        time_ns: int,
        u: Vector,
        d: Vector,
        measured: tuple[Measurement, ...],
        doubt: Matrix | None,
    ) -> Moment:
        elapsed_s = (time_ns - last.time_ns) / NS_PER_S
        fused = _fused(self) if len(measured) == 1 and doubt is None else None
        if fused is not None and applies(self.constant, measured[0], elapsed_s, self.dt_s):
            shown = fused(last.posterior, u, last.d, d, elapsed_s, measured[0])
            prior, posterior = shown.prior, shown.posterior
            return Moment(time_ns, prior, posterior, u, d, measured, shown=shown)
        prior = predict(
            self.evaluation, self.noise_per_hour, last.posterior, u, last.d, elapsed_s, self.dt_s
        )
        if doubt is not None:
            prior = Belief(prior.z, prior.covariance + doubt)
        return Moment(time_ns, prior, self._corrected(prior, u, d, measured), u, d, measured, doubt)

    def _corrected(
        self, belief: Belief, u: Vector, d: Vector, measured: tuple[Measurement, ...]
    ) -> Belief:
        for one in measured:
            belief = correct(self.evaluation, belief, u, d, one)
        return belief


@lru_cache(maxsize=64)
def _fused(filter_: DelayedFilter) -> FusedStep | None:
    return fused_step(filter_.augmented, filter_.constant, filter_.noise_per_hour)


def outputs(evaluation: Evaluation, moment: Moment) -> tuple[Vector, Vector]:
    """Outputs y (ny,) of a moment's posterior and their variances (ny,)."""
    y, c = evaluation.observe(moment.posterior.z, moment.u, moment.d)
    # reduce, because an array's own sum takes twice as long to start.
    return y, np.add.reduce(np.dot(c, moment.posterior.covariance) * c, axis=1)


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
