"""The scalar random walk and the in-order Kalman filter, written down a second time in numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import casadi as ca
import numpy as np

from controller.estimation.augmented import augment
from controller.estimation.delayed import DelayedFilter, DelayedFilterState, LateResult
from controller.estimation.kalman import Measurement
from controller.signal import NS_PER_S
from plant_models.process import ProcessModel
from plant_models.variable import Variable

DT_S = 10.0
Q, R = 0.1, 1.0
"""Variance that the state gains in a cycle, and that of a measurement."""


@lru_cache(maxsize=2)
def walk(feedthrough: float = 0.0, memory_cycles: int = 100) -> DelayedFilter:
    """x gains variance Q a cycle; y = x + feedthrough u."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    state = Variable("x", "1", -100.0, 100.0, 0.0)
    model = ProcessModel(
        "walk", (state,), (Variable("u", "1", -1.0, 1.0, 0.0),), (), (state,), (),
        ca.Function("f", [x, u, d, p], [0.001 * u]),
        ca.Function("h", [x, u, d, p], [x + feedthrough * u]),
    )  # fmt: skip
    noise = np.array([[Q * 3600.0 / DT_S]])
    return DelayedFilter(augment(model, (), DT_S, DT_S), noise, DT_S, memory_cycles * DT_S)


def at(cycle: float) -> int:
    return round(cycle * DT_S * NS_PER_S)


def nothing() -> Measurement:
    return Measurement((), (), ())


def result(name: str, cycle: float, value: float, gate: float = 1.0) -> LateResult:
    measured = Measurement((0,), (value,), (float(np.sqrt(R)),))
    return LateResult(name, "lab", at(cycle), measured, gate)


@dataclass
class Walk:
    """Drives the filter one cycle at a time."""

    filter: DelayedFilter = field(default_factory=walk)
    cycle: int = 0
    state: DelayedFilterState = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.filter.start(0, np.zeros(1), np.ones((1, 1)), np.zeros(1), np.zeros(0))

    def advance(self, value: float | None = None, u: float = 0.0) -> None:
        self.cycle += 1
        measured = nothing() if value is None else Measurement((0,), (value,), (1.0,))
        self.state = self.filter.advance(
            self.state, at(self.cycle), np.array([u]), np.zeros(0), measured
        )

    @property
    def mean(self) -> float:
        return float(self.state.moments[-1].posterior.z[0])

    @property
    def variance(self) -> float:
        return float(self.state.moments[-1].posterior.covariance[0, 0])
