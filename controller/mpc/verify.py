"""Does an answer solve the problem? A solver's own word is never enough.

Checks the Karush–Kuhn–Tucker conditions from the problem's own functions (Nocedal & Wright 2006,
theorem 12.1): finite, primal feasible, stationary, complementary.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from plant_models.process import Vector

# Scaled variables are of order one: 1e-5 of a span is far below what any actuator resolves.
PRIMAL_TOLERANCE = 1e-5
# Relative to the largest multiplier, which carries the scale of the cost.
STATIONARITY_TOLERANCE = 1e-4
COMPLEMENTARITY_TOLERANCE = 1e-4
# What a limit counts as that is further away, or infinitely far.
FAR = 1e3


class Certificate(Struct, frozen=True):
    """Scaled residuals of the optimality conditions; `fault` is empty when all are met."""

    primal: float
    stationarity: float
    complementarity: float
    fault: str

    @property
    def residual(self) -> float:
        return max(self.stationarity, self.complementarity)


def certify(
    values: Vector,
    gradient: Vector,
    low: Vector,
    high: Vector,
    multipliers: Vector,
) -> Certificate:
    """Certificate of a candidate.

    Args:
        values: variables and constraints stacked, (n + m,); low, high: their bounds.
        gradient: of the Lagrangian, (n,).
        multipliers: of bounds and constraints stacked, (n + m,); positive at an upper bound.
    """
    if not (np.isfinite(values).all() and np.isfinite(gradient).all()):
        return Certificate(np.inf, np.inf, np.inf, "the answer is not finite")
    if not np.isfinite(multipliers).all():
        return Certificate(np.inf, np.inf, np.inf, "the multipliers are not finite")
    primal = max(float((low - values).max()), float((values - high).max()), 0.0)
    scale = max(1.0, float(np.abs(multipliers).max()))
    stationarity = float(np.abs(gradient).max()) / scale
    room = np.where(multipliers > 0, high - values, values - low)
    slackness = np.abs(multipliers) * np.minimum(np.maximum(room, 0.0), FAR)
    complementarity = float(slackness.max()) / scale
    fault = ""
    if primal > PRIMAL_TOLERANCE:
        fault = f"constraints are violated by {primal:.1e} of their span"
    elif stationarity > STATIONARITY_TOLERANCE:
        fault = f"not stationary (residual {stationarity:.1e})"
    elif complementarity > COMPLEMENTARITY_TOLERANCE:
        fault = f"an inactive constraint carries a price (residual {complementarity:.1e})"
    return Certificate(primal, stationarity, complementarity, fault)
