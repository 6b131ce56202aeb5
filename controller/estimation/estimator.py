"""What the cycle asks of an estimator, whichever kind the application chose."""

from __future__ import annotations

from typing import Literal, Protocol

from controller.estimation.augmented import AugmentedModel
from controller.estimation.delayed import (
    DelayedFilter,
    DelayedFilterState,
    Fusion,
    LateResult,
    Moment,
)
from controller.estimation.evaluation import Matrix, linear
from controller.estimation.kalman import Innovation, Measurement
from controller.estimation.moving_horizon import MovingHorizonEstimator
from plant_models.process import Vector

EstimatorKind = Literal["kalman", "ekf", "moving_horizon"]


class Estimator(Protocol):
    """Estimates the augmented state, with a memory for late results.

    Everything remembered is in the state that is passed in and out; the newest moment holds the
    estimate. One estimator serves one thread.
    """

    @property
    def augmented(self) -> AugmentedModel: ...

    @property
    def noise_per_hour(self) -> Matrix:
        """Covariance the augmented states gain per hour, (nz, nz)."""
        ...

    @property
    def memory_s(self) -> float:
        """How far back a late result may reach."""
        ...

    def start(
        self, time_ns: int, z: Vector, covariance: Matrix, u: Vector, d: Vector
    ) -> DelayedFilterState:
        """Begin with the mean z (nz,) and its covariance (nz, nz)."""
        ...

    def advance(
        self,
        state: DelayedFilterState,
        time_ns: int,
        u: Vector,
        d: Vector,
        measured: Measurement,
    ) -> DelayedFilterState:
        """Step to time_ns with u (nu,) and d (nd,), and take in what is measured now."""
        ...

    def fuse(
        self, state: DelayedFilterState, result: LateResult
    ) -> tuple[DelayedFilterState, Fusion]:
        """Take in a late result at its sample time, or say why not."""
        ...

    def outputs(self, moment: Moment) -> tuple[Vector, Vector]:
        """Estimated outputs y (ny,) of a moment and their variances (ny,)."""
        ...

    def innovation(self, moment: Moment, measured: Measurement) -> Innovation:
        """What was measured in a moment beyond what was expected before it."""
        ...

    def surprise(self, moment: Moment, measured: Measurement) -> Vector:
        """The value of the innovation alone, (m,)."""
        ...


def make_estimator(
    kind: EstimatorKind,
    augmented: AugmentedModel,
    noise_per_hour: Matrix,
    dt_s: float,
    memory_s: float,
    window: int,
    iterations: int,
) -> Estimator:
    """The estimator of the chosen kind; `window` and `iterations` are for the moving horizon.

    Raises:
        ModelError: `kalman` was chosen for a model that is not linear.
    """
    if kind == "moving_horizon":
        return MovingHorizonEstimator(augmented, noise_per_hour, dt_s, memory_s, window, iterations)
    constant = linear(augmented, dt_s) if kind == "kalman" else None
    return DelayedFilter(augmented, noise_per_hour, dt_s, memory_s, constant)
