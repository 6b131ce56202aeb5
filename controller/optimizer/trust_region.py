"""Where to go next: the best predicted point, or the most telling one, close to a known point."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

from controller.optimizer.problem import OptimizerProblem
from controller.optimizer.surrogate import Surrogate
from plant_models.process import Vector

# Points tried before polishing; a lattice this dense cannot miss a basin of a nearly affine
# problem inside one trust region.
_CANDIDATES = 40
_POLISHED = 3
# A probe has to tell at least this share of what the most telling one would.
_TELLING = 0.5
# Money that one standard deviation of a broken limit is worth, in standard deviations of it.
_PENALTY = 1e3
# Shares of beta to ask for, in turn, when a limit cannot be kept with more.
_CONFIDENCES = (1.0, 0.5, 0.0)
# Standard deviations of one lab value by which the solver may miss a limit: rounding.
_KEPT = 1e-3


def best_step(
    problem: OptimizerProblem, surrogate: Surrogate, centre: Vector, d: Vector, radius: float
) -> Vector:
    """Maximise the predicted objective within the trust region, limits kept with beta sigmas.

    Where no point keeps every limit with that confidence, with less of it; where none keeps them
    at all, the point that breaks them least.
    """
    low = np.maximum(problem.low, centre - radius * problem.radius)
    high = np.minimum(problem.high, centre + radius * problem.radius)
    box = (np.minimum(low, high), high)
    start = np.clip(centre, *box)
    for confidence in _CONFIDENCES:
        found, broken = _search(problem, surrogate, box, start, d, confidence * problem.beta)
        if broken <= _KEPT:
            return found
        start = found
    return start


def _search(
    problem: OptimizerProblem,
    surrogate: Surrogate,
    box: tuple[Vector, Vector],
    centre: Vector,
    d: Vector,
    beta: float,
) -> tuple[Vector, float]:
    """Best point of the box at this confidence, and by how many sigmas it breaks limits."""
    low, high = box
    half = np.maximum((high - low) / 2, 1e-12)
    middle = (high + low) / 2
    sigma = np.maximum(problem.sigma, 1e-9)
    known: dict[bytes, Vector] = {}

    def evaluate(z: Vector) -> Vector:
        u = np.clip(middle + half * z, low, high)
        (objective, _), (mean, sd) = surrogate.predict(u, d)
        return np.concatenate([[objective], mean + beta * sd]) / sigma

    def believed(z: Vector) -> Vector:
        """Objective and confident constraints, each in its noise's standard deviations."""
        # The solver asks for objective and constraints of the same point one after the other.
        key = np.asarray(z, dtype=np.float64).tobytes()
        if key not in known:
            known[key] = evaluate(z)
        return known[key]

    def broken(z: Vector) -> float:
        return float(np.sum(np.maximum(believed(z)[1:], 0.0)))

    def merit(z: Vector) -> float:
        found = float(believed(z)[0]) - _PENALTY * broken(z)
        return found if np.isfinite(found) else -np.inf

    starts = [(centre - middle) / half, *_lattice(len(middle), _CANDIDATES)]
    ranked = sorted(starts, key=lambda z: -merit(z))[:_POLISHED]
    best = ranked[0]
    for start in ranked:
        for polished in (_feasible_ascent(believed, start), _least_violation(believed, start)):
            if merit(polished) > merit(best) + 1e-9:
                best = polished
    return np.clip(middle + half * best, low, high), broken(best)


def best_probe(
    problem: OptimizerProblem, surrogate: Surrogate, centres: Sequence[Vector], d: Vector
) -> Vector:
    """The best predicted probing move among the safest that say enough about the objective.

    Candidates are one probe away from a centre in each direction; places already on their way
    count as known.
    """
    steps = [np.array(s) for s in itertools.product((-1.0, 0.0, 1.0), repeat=len(problem.low))]
    probe = np.array([v.probe for v in problem.decisions])
    sigma = np.maximum(problem.sigma[1:], 1e-9)
    candidates: list[tuple[float, float, float, Vector]] = []
    known = np.stack([*surrogate.processes[0].points, *(surrogate.scaled(c, d) for c in centres)])
    for centre, step in itertools.product(centres, steps):
        u = np.clip(centre + step * probe, problem.low, problem.high)
        (money, _), (mean, sd) = surrogate.predict(u, d)
        broken = float(np.sum(np.maximum(mean + problem.beta * sd, 0.0) / sigma))
        news = _news(surrogate, known, surrogate.scaled(u, d), float(problem.sigma[0]))
        candidates.append((broken, news, money, u))
    finite = [c for c in candidates if np.isfinite(c[0])]
    if not finite:
        return np.asarray(centres[0])
    least = min(c[0] for c in finite)
    safe = [c for c in finite if c[0] <= least + 1e-9]
    enough = _TELLING * max(c[1] for c in safe)
    return max((c for c in safe if c[1] >= enough), key=lambda c: (c[2], tuple(c[3])))[3]


def _news(surrogate: Surrogate, known: Vector, at: Vector, sigma: float) -> float:
    """Variance of the objective's mismatch at `at` once every known place has been measured."""
    kernel = surrogate.processes[0].kernel
    covariance = kernel(known, known) + max(sigma, 1e-6) ** 2 * np.eye(len(known))
    cross = kernel(at[None, :], known)[0]
    prior = float(kernel(at[None, :], at[None, :])[0, 0])
    return prior - float(cross @ np.linalg.solve(covariance, cross))


def _lattice(dimension: int, count: int) -> list[Vector]:
    """A low-discrepancy lattice on [−1, 1]^dimension (Kronecker sequence of the golden ratio)."""
    # The generalised golden ratio solves r^(dimension + 1) = r + 1.
    ratio = 2.0
    for _ in range(40):
        ratio = (1.0 + ratio) ** (1.0 / (dimension + 1))
    alpha = ratio ** -np.arange(1, dimension + 1, dtype=np.float64)
    return [2.0 * np.mod(0.5 + alpha * k, 1.0) - 1.0 for k in range(count)]


def _feasible_ascent(believed: Callable[[Vector], Vector], start: Vector) -> Vector:
    """SLSQP on the confident problem; the start where it fails."""
    scale = 1.0 / max(1.0, abs(float(believed(start)[0])))

    def loss(z: Vector) -> float:
        return -scale * float(believed(z)[0])

    def slack(z: Vector) -> Vector:
        return -believed(z)[1:]

    found = minimize(
        loss,
        start,
        method="SLSQP",
        bounds=[(-1.0, 1.0)] * len(start),
        constraints=[{"type": "ineq", "fun": slack}],
        options={"ftol": 1e-9, "maxiter": 40},
    )
    return _finite_or(found.x, start)


def _least_violation(believed: Callable[[Vector], Vector], start: Vector) -> Vector:
    """The point that breaks the limits least; the start when it keeps them all."""
    if float(np.max(believed(start)[1:], initial=0.0)) <= 0.0:
        return start

    def loss(z: Vector) -> float:
        return float(np.sum(np.maximum(believed(z)[1:], 0.0) ** 2))

    found = minimize(
        loss,
        start,
        method="L-BFGS-B",
        bounds=[(-1.0, 1.0)] * len(start),
        options={"maxiter": 40},
    )
    return _finite_or(found.x, start)


def _finite_or(found: Vector, start: Vector) -> Vector:
    z = np.clip(np.asarray(found, dtype=np.float64), -1.0, 1.0)
    return z if bool(np.all(np.isfinite(z))) else start
