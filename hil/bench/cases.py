"""The four problems of the comparison: reactor, polymerization, chain of masses, column."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hil.bench.case import BenchCase, Input, Price, Tracked, Upset, Zone
from plant_models import chain_of_masses, linear_column, polymerization, van_de_vusse
from plant_models.integrate import rk4
from plant_models.process import Vector, nominal

INF = float("inf")


def cstr() -> BenchCase:
    """The reactor of Klatt & Engell as do-mpc's own example runs it: 18 s steps, cB at 0.6 mol/l.

    The plant's first reaction is 5 % faster than believed and the third has a 0.5 % lower
    activation energy, about the corners that the example guards against.
    """
    model = van_de_vusse.model(VR=10.01)
    return BenchCase(
        name="cstr",
        title="Klatt–Engell CSTR",
        model=model,
        step_s=18.0,
        intervals=20,
        d=np.array([5.1, 130.0]),
        x0=np.array([0.8, 0.5, 134.14, 130.0]),
        u0=np.array([30.0, -6000.0]),
        inputs=(
            Input(5.0, 100.0, move_weight=10.0 * (95.0 / 100.0) ** 2),
            Input(-8500.0, 0.0, move_weight=0.1 * (8500.0 / 2000.0) ** 2),
        ),
        tracked=(Tracked(1, 0.6, weight=1.0, scale=0.1),),
        zones=(
            Zone(2, -INF, 140.0, weight=10.0, scale=1.0),
            Zone(3, -INF, 140.0, weight=10.0, scale=1.0),
        ),
        upsets=(Upset(30, 0, 5.5), Upset(60, 1, 120.0), Upset(80, 0, 4.7)),
        plant_parameters={"k10": 1.05 * 1.287e12, "E3": 0.995 * 8560.0},
        kick=np.array([0.005, 0.005, 0.1, 0.1]),
    )


def industrial_polymerization() -> BenchCase:
    """The batch of Lucia et al.: as much product as early as the cooling and the safety allow.

    The reaction of the plant is 10 % slower and gives 5 % more heat than believed.
    """
    model = polymerization.model()
    span = 30000.0
    product, reactor, fed, adiabatic = 2, 3, 8, 9
    return BenchCase(
        name="polymerization",
        title="industrial polymerization",
        model=model,
        step_s=50.0,
        intervals=20,
        d=np.zeros(0),
        x0=nominal(model.x),
        u0=np.array([0.0, 363.15, 333.15]),
        inputs=(
            Input(0.0, span, move_weight=10.0),
            Input(333.15, 373.15, move_weight=1.0),
            Input(333.15, 373.15, move_weight=1.0),
        ),
        # 0.01 per kg and step.
        prices=(Price(product, -0.01 * 3600.0 / 50.0),),
        zones=(
            Zone(reactor, 361.15, 365.15, weight=50.0, scale=1.0),
            Zone(adiabatic, -INF, 382.15, weight=50.0, scale=1.0),
            Zone(fed, -INF, span, weight=50.0, scale=100.0),
        ),
        plant_parameters={"dH_R": 1.05 * 950.0, "k_0": 0.9 * 7.0},
        kick=np.array([1.0, 1.0, 1.0, 0.02, 0.02, 0.02, 0.02, 0.02, 0.0, 0.02]),
    )


def chain() -> BenchCase:
    """Five masses, pulled away from rest for a second, brought back without hitting a wall."""
    model = chain_of_masses.model(5)
    at_rest, step_s, free = nominal(model.x), 0.2, 3
    return BenchCase(
        name="chain",
        title="chain of five masses",
        model=model,
        step_s=step_s,
        intervals=40,
        d=np.zeros(0),
        x0=_pulled(at_rest, step_s),
        u0=np.zeros(3),
        inputs=tuple(
            Input(-1.0, 1.0, move_weight=0.01, rest=0.0, rest_weight=0.04) for _ in range(3)
        ),
        tracked=tuple(
            Tracked(i, float(at_rest[i]), 4.0 if 3 * free <= i < 3 * free + 3 else 1.0, 1.0)
            for i in range(len(model.x))
        ),
        # The wall stands at y = -0.05 m; every ball and the hand shall stay in front of it.
        zones=tuple(Zone(3 * i + 1, -0.05, INF, weight=0.1, scale=0.01) for i in range(free + 1)),
        kick=np.concatenate([np.zeros(3 * free + 3), np.full(3 * free, 0.02)]),
    )


def _pulled(at_rest: Vector, step_s: float) -> Vector:
    """The chain after its hand was moved for five steps."""
    pull = rk4(chain_of_masses.model(5), step_s, 20)
    x = at_rest
    p = chain_of_masses.model(5).p_nominal
    for _ in range(5):
        x = np.asarray(pull(x, [-1.0, 1.0, 1.0], [], p), dtype=np.float64).ravel()
    return x


def column() -> BenchCase:
    """A linear column: both products inside their zones with as little boilup as that takes.

    The run starts off specification; then the feed grows, and later shrinks, unseen.
    """
    model = linear_column.model()
    a, _, e = (np.asarray(m) for m in linear_column.jacobians())
    away = -np.linalg.solve(a, e @ np.array([0.0, -0.004]))
    reflux, boilup = linear_column.REFLUX_KMOL_MIN, linear_column.BOILUP_KMOL_MIN
    rate = 0.03 / 60.0
    return BenchCase(
        name="column",
        title="linear column",
        model=model,
        step_s=60.0,
        intervals=60,
        d=nominal(model.d),
        x0=nominal(model.x) + away,
        u0=np.array([reflux, boilup]),
        inputs=(
            Input(1.7, 2.2, 1.0, rate_per_s=rate, rest=reflux - 0.05, rest_weight=1.0),
            Input(2.2, 2.7, 1.0, rate_per_s=rate, rest=boilup - 0.10, rest_weight=1.0),
        ),
        zones=(
            Zone(0, 0.987, 0.992, weight=1.0, scale=1e-3),
            Zone(1, 0.008, 0.013, weight=1.0, scale=1e-3),
        ),
        upsets=(Upset(20, 0, 1.02), Upset(60, 0, 0.97)),
        kick=np.full(len(model.x), 1e-4),
        linear=True,
    )


CASES: Mapping[str, Callable[[], BenchCase]] = {
    "cstr": cstr,
    "polymerization": industrial_polymerization,
    "chain": chain,
    "column": column,
}
