"""Moving-horizon estimation: the last moments explained together, inside the physical bounds.

Every cycle the states over the last `window` intervals are estimated anew from all that was
measured in them, and from the arrival: what was known before the window began. When the window
moves on, the arrival moves with one step of the extended Kalman filter, linearised at the states
that the whole window believes in, not at those believed at the time (Rao, Rawlings & Mayne 2003).
On a linear model with no bound active the estimate is that of the Kalman filter.

A late result joins its moment, and the windows from there on are solved again. Every solve
starts from the arrival alone, so the estimate does not depend on the order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from msgspec.structs import replace

from controller.estimation.augmented import AugmentedModel
from controller.estimation.delayed import (
    DelayedFilterState,
    Fusion,
    LateResult,
    Moment,
    Verdict,
    concluded,
    joined,
    judge,
    outputs,
    remembered,
)
from controller.estimation.evaluation import Evaluation, Matrix, augmented_spans, compiled
from controller.estimation.kalman import (
    Belief,
    Innovation,
    Measurement,
    correct,
    innovation,
    predict,
    surprise,
)
from controller.estimation.window import (
    WindowEstimate,
    WindowSetting,
    between,
    estimate_window,
    square_root,
)
from controller.signal import NS_PER_S
from plant_models.process import Vector


@dataclass(frozen=True, slots=True, eq=False)
class MovingHorizonEstimator:
    """A moving-horizon estimator with a memory for late results.

    Attributes:
        noise_per_hour: covariance the augmented states gain per hour, (nz, nz).
        dt_s: nominal cycle time.
        memory_s: how far back a late result may reach.
        window: intervals estimated together.
        iterations: budget of Gauss–Newton steps a window.
    """

    augmented: AugmentedModel
    noise_per_hour: Matrix
    dt_s: float
    memory_s: float
    window: int = 10
    iterations: int = 6

    @property
    def evaluation(self) -> Evaluation:
        return compiled(self.augmented)

    def start(
        self, time_ns: int, z: Vector, covariance: Matrix, u: Vector, d: Vector
    ) -> DelayedFilterState:
        belief = Belief(z, covariance)
        return DelayedFilterState((Moment(time_ns, belief, belief, u, d, (), arrival=belief),))

    def advance(
        self,
        state: DelayedFilterState,
        time_ns: int,
        u: Vector,
        d: Vector,
        measured: Measurement,
    ) -> DelayedFilterState:
        """Step to time_ns with u (nu,) and d (nd,), and explain the window that ends there."""
        prior = self._prior(state.moments[-1], time_ns, u, None)
        newest = Moment(time_ns, prior, prior, u, d, (measured,))
        moments = list(remembered(state.moments, newest, self.memory_s, self.window))
        self._explain(moments, len(moments) - 1)
        return DelayedFilterState(tuple(moments), state.seen, state.rejected)

    def fuse(
        self, state: DelayedFilterState, result: LateResult
    ) -> tuple[DelayedFilterState, Fusion]:
        """Insert a late result at its sample time and solve the windows from there on again."""
        judged = judge(state, result, self.augmented, self.evaluation, self.dt_s, self.memory_s)
        if judged.fusion.verdict is not Verdict.FUSED:
            return judged.state, judged.fusion
        moments, index = list(state.moments), judged.index
        moments[index] = joined(
            moments[index], result.measurement, judged.excess, self.augmented.nx
        )
        for i in range(index, len(moments)):
            m = moments[i]
            if i > index:
                prior = self._prior(moments[i - 1], m.time_ns, m.u, m.doubt)
                moments[i] = replace(m, prior=prior)
            self._explain(moments, i)
        return concluded(self.evaluation, state, judged, moments)

    def outputs(self, moment: Moment) -> tuple[Vector, Vector]:
        """Estimated outputs y (ny,) and their variances (ny,)."""
        return outputs(self.evaluation, moment)

    def innovation(self, moment: Moment, measured: Measurement) -> Innovation:
        """What was measured in this moment beyond what was expected before it."""
        return innovation(self.evaluation, moment.prior, moment.u, moment.d, measured)

    def surprise(self, moment: Moment, measured: Measurement) -> Vector:
        """The value of the innovation alone, (m,)."""
        return surprise(self.evaluation, moment.prior, moment.u, moment.d, measured)

    def trajectory(self, state: DelayedFilterState) -> WindowEstimate:
        """The states over the newest window, and how its solve ended."""
        window = state.moments[-self.window - 1 :]
        return estimate_window(_setting(self), _arrival(window[0]), window)

    def _prior(self, last: Moment, time_ns: int, u: Vector, doubt: Matrix | None) -> Belief:
        elapsed_s = (time_ns - last.time_ns) / NS_PER_S
        prior = predict(
            self.evaluation, self.noise_per_hour, last.posterior, u, last.d, elapsed_s, self.dt_s
        )
        return prior if doubt is None else Belief(prior.z, prior.covariance + doubt)

    def _explain(self, moments: list[Moment], end: int) -> None:
        """Solve the window that ends there; it leaves behind the arrival of the next one."""
        setting, start = _setting(self), max(0, end - self.window)
        window = moments[start : end + 1]
        found = estimate_window(setting, _arrival(window[0]), window)
        at = moments[end]
        if found.outcome == "not finite":
            posterior = at.prior
            for measured in at.measured:
                posterior = correct(self.evaluation, posterior, at.u, at.d, measured)
        else:
            posterior = Belief(found.z[-1].copy(), found.covariance)
        moments[end] = replace(at, posterior=posterior, outcome=found.outcome)
        if end - start == self.window:
            moved = _moved(setting, window[0], window[1], found.z[0])
            moments[start + 1] = replace(moments[start + 1], arrival=moved)


@lru_cache(maxsize=64)
def _setting(estimator: MovingHorizonEstimator) -> WindowSetting:
    low, high = bounds(estimator.augmented)
    return WindowSetting(
        estimator.evaluation,
        estimator.noise_per_hour,
        square_root(estimator.noise_per_hour),
        estimator.dt_s,
        low,
        high,
        augmented_spans(estimator.augmented),
        estimator.iterations,
    )


def bounds(augmented: AugmentedModel) -> tuple[Vector, Vector]:
    """Where the augmented states make sense, (nz,) each: a state within the range of its
    variable, a disturbance within one width of the range it adds to."""
    width = augmented_spans(augmented)[augmented.nx :]
    low = np.array([v.low for v in augmented.model.x], dtype=np.float64)
    high = np.array([v.high for v in augmented.model.x], dtype=np.float64)
    return np.concatenate([low, -width]), np.concatenate([high, width])


def _moved(setting: WindowSetting, first: Moment, second: Moment, smoothed: Vector) -> Belief:
    """The arrival at the second moment, from that at the first, linearised at the smoothed
    state (nz,) of the first."""
    belief = _arrival(first)
    for measured in first.measured:
        belief = correct(setting.evaluation, belief, first.u, first.d, measured, about=smoothed)
    moved = between(setting, first, second, smoothed)
    covariance = moved.a @ belief.covariance @ moved.a.T + moved.noise
    if second.doubt is not None:
        covariance = covariance + second.doubt
    return Belief(moved.z + moved.a @ (belief.z - smoothed), covariance)


def _arrival(moment: Moment) -> Belief:
    return moment.prior if moment.arrival is None else moment.arrival
