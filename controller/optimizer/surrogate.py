"""The model plus what the Gaussian processes learned: the best present guess of the plant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from controller.optimizer.gaussian_process import GaussianProcess, learn
from controller.optimizer.problem import OptimizerProblem
from plant_models.process import Vector


class SteadyPoint(Protocol):
    """What the surrogate needs of a visit."""

    @property
    def u(self) -> tuple[float, ...]: ...
    @property
    def d(self) -> tuple[float, ...]: ...
    @property
    def objective(self) -> float: ...
    @property
    def constraints(self) -> tuple[float, ...]: ...
    @property
    def repeats(self) -> int: ...


# Mean and standard deviation of each constraint, both (nc,).
Constraints = tuple[Vector, Vector]


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """Prior + Gaussian processes, one for the objective and one per constraint.

    Attributes:
        reference: (nu + nd,), the input that the processes take as zero.
        processes: objective first, then the constraints.
    """

    problem: OptimizerProblem
    reference: Vector
    processes: tuple[GaussianProcess, ...]

    def scaled(self, u: Vector, d: Vector) -> Vector:
        """Input of the processes, (nu + nd,)."""
        return (np.concatenate([u, d]) - self.reference) / self.problem.scale

    def predict(self, u: Vector, d: Vector) -> tuple[tuple[float, float], Constraints]:
        """(mean, sd) of the objective, and means and sds of the constraints, without noise."""
        at = self.scaled(u, d)
        prior = self.problem.believed(u, d)
        learned = np.array([process.predict_one(at) for process in self.processes])
        mean, sd = prior + learned[:, 0], learned[:, 1]
        return (float(mean[0]), float(sd[0])), (mean[1:], sd[1:])

    def gain(self, before: Vector, after: Vector, d: Vector) -> tuple[float, float]:
        """Objective at `after` minus at `before`, both at d, and its standard deviation."""
        at = np.stack([self.scaled(before, d), self.scaled(after, d)])
        mean, covariance = self.processes[0].predict(at)
        prior = self.problem.prior(after, d)[0] - self.problem.prior(before, d)[0]
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        return prior + float(mean[1] - mean[0]), math.sqrt(max(float(variance), 0.0))

    def innovation(self, visit: SteadyPoint) -> Vector:
        """Measured minus predicted, in standard deviations, (1 + nc,): objective, constraints."""
        objective, constraints = self.predict(np.array(visit.u), np.array(visit.d))
        mean = np.concatenate([[objective[0]], constraints[0]])
        sd = np.concatenate([[objective[1]], constraints[1]])
        measured = np.array([visit.objective, *visit.constraints])
        # A little absolute room, for a noise-free problem.
        room = np.sqrt(sd**2 + self.problem.sigma**2) + 1e-9 * (1.0 + np.abs(mean))
        return (measured - mean) / room


def build_surrogate(problem: OptimizerProblem, visits: tuple[SteadyPoint, ...]) -> Surrogate:
    """Learn plant − model from at least one visit."""
    inputs = np.array([(*v.u, *v.d) for v in visits])
    reference = np.mean(inputs, axis=0)
    points = (inputs - reference) / problem.scale
    nu = len(problem.decisions)
    believed = np.array([problem.believed(z[:nu], z[nu:]) for z in inputs])
    measured = np.array([(v.objective, *v.constraints) for v in visits])
    amplitudes = _amplitudes(problem, reference[:nu], reference[nu:])
    # The mean of n repeated samples is √n times better than one.
    share = 1.0 / np.sqrt([float(v.repeats) for v in visits])
    processes = tuple(
        learn(points, measured[:, i] - believed[:, i], problem.sigma[i] * share, amplitudes[i])
        for i in range(measured.shape[1])
    )
    return Surrogate(problem, reference, processes)


def _amplitudes(problem: OptimizerProblem, u: Vector, d: Vector) -> list[float]:
    """Expected slope of plant − model over one trust region: a share of the model's own."""
    slopes: list[Vector] = []
    for i, radius in enumerate(problem.radius):
        step = np.zeros(len(u))
        step[i] = radius
        up = np.clip(u + step, problem.low, problem.high)
        down = np.clip(u - step, problem.low, problem.high)
        slopes.append(np.abs(problem.believed(up, d) - problem.believed(down, d)) / 2)
    largest = np.max(np.nan_to_num(np.array(slopes)), axis=0)
    # Never below the noise: a model that is flat here may still be wrong.
    floor = np.maximum(problem.sigma, 1e-6)
    return [float(v) for v in np.maximum(problem.mismatch * largest, floor)]
