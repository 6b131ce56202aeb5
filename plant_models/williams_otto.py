"""Williams–Otto reactor: the plant, the controller's wrong model of it, and the true optimum.

The plant (`williams_otto_plant`) has three reactions. The controller's model lumps them into two,
so that its optimum is not the plant's: the standard test of real-time optimization.

Source: J. F. Forbes, T. E. Marlin and J. F. MacGregor, Computers chem. Engng 18 (1994) 497–510.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import casadi as ca
import numpy as np
from scipy.optimize import minimize

from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable
from plant_models.williams_otto_plant import (
    FEED_A_FLOW,
    FEED_B_FLOW,
    HOLD_UP_KG,
    KELVIN,
    REACTOR_TEMPERATURE,
    composition,
    mass_fraction,
    plant,
    plant_model,
    steady_state_outputs,
)

__all__ = [
    "PRICES",
    "Optimum",
    "composition",
    "optimum",
    "plant",
    "plant_model",
    "profit",
    "steady_state_outputs",
    "two_reaction_model",
]

SteadyOutputs = Callable[[float, float, float], Mapping[str, float]]

# p1 (per kg of P), p2 (per kg of E), p3 (per kg of A), p4 (per kg of B).
PRICES = (1043.38, 20.92, 79.23, 118.34)


@cache
def _two_reactions() -> ProcessModel:
    x = ca.SX.sym("x", 7)
    u = ca.SX.sym("u", 2)
    d = ca.SX.sym("d", 1)
    p = ca.SX.sym("p", 6)
    xa, xb, xe, xp, xg, t_r, f_b = ca.vertsplit(x)
    k1, k2, e1, e2, t_lag, f_lag = ca.vertsplit(p)
    t = t_r + KELVIN
    r1 = k1 * ca.exp(-e1 / t) * xa * xb**2 * HOLD_UP_KG
    r2 = k2 * ca.exp(-e2 / t) * xa * xb * xp * HOLD_UP_KG
    f_a = d[0]
    f = f_a + f_b
    rhs = ca.vertcat(
        (f_a - r1 - r2 - f * xa) / HOLD_UP_KG,
        (f_b - 2 * r1 - r2 - f * xb) / HOLD_UP_KG,
        (2 * r1 - f * xe) / HOLD_UP_KG,
        (r1 - r2 - f * xp) / HOLD_UP_KG,
        (3 * r2 - f * xg) / HOLD_UP_KG,
        (u[1] - t_r) / t_lag,
        (u[0] - f_b) / f_lag,
    )
    shares = (
        mass_fraction("xA", 0.12, "feed A"),
        mass_fraction("xB", 0.41806, "feed B"),
        mass_fraction("xE", 0.27240, "by-product E"),
        mass_fraction("xP", 0.10953, "product P"),
        mass_fraction("xG", 0.08, "waste G"),
    )
    return ProcessModel(
        name="Williams–Otto reactor, two reactions",
        x=(*shares, REACTOR_TEMPERATURE, FEED_B_FLOW),
        u=(
            Variable("F_B_sp", "kg/s", 0.0, 10.0, 4.633, "setpoint of feed B"),
            Variable("T_R_sp", "degC", 0.0, 150.0, 76.233, "setpoint of the temperature"),
        ),
        d=(FEED_A_FLOW,),
        y=(REACTOR_TEMPERATURE, FEED_B_FLOW, shares[0], shares[2], shares[3], shares[4]),
        p=(
            Variable("k1", "1/s", 0.0, 1e10, 2.189e8, "prefactor of A + 2 B → P + E"),
            Variable("k2", "1/s", 0.0, 1e15, 4.310e13, "prefactor of A + B + P → G"),
            Variable("activation1", "K", 1e3, 2e4, 8077.6, "activation temperature 1"),
            Variable("activation2", "K", 1e3, 2e4, 12438.5, "activation temperature 2"),
            Variable("temperature_lag", "s", 1.0, 3600.0, 90.0, "of T_R behind its setpoint"),
            Variable("feed_lag", "s", 1.0, 600.0, 10.0, "of F_B behind its setpoint"),
        ),
        f=ca.Function("f", [x, u, d, p], [rhs]),
        h=ca.Function("h", [x, u, d, p], [ca.vertcat(t_r, f_b, xa, xe, xp, xg)]),
        source="Forbes, Marlin & MacGregor 1994",
    )


def two_reaction_model(**parameters: float) -> ProcessModel:
    """The controller's structurally wrong model; `parameters` replace nominal ones.

    u = (F_B_sp kg/s, T_R_sp degC), d = (F_A kg/s), y = (T_R, F_B, xA, xE, xP, xG).

    Raises:
        KeyError: an unknown parameter.
    """
    return _two_reactions().with_parameters(parameters)


def profit(outputs: Mapping[str, float], prices: tuple[float, ...] = PRICES) -> float:
    """F (p1 xP + p2 xE) − p3 F_A − p4 F_B of steady outputs, in money per second."""
    p1, p2, p3, p4 = prices
    f_a, f_b = outputs["F_A"], outputs["F_B"]
    return (f_a + f_b) * (p1 * outputs["xP"] + p2 * outputs["xE"]) - p3 * f_a - p4 * f_b


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best steady point: F_B in kg/s, T_R in °C, profit, and the limited mass fractions."""

    F_B: float
    T_R: float
    profit: float
    xA: float
    xG: float


def optimum(
    prices: tuple[float, ...] = PRICES,
    limits: Mapping[str, float] | None = None,
    F_A: float = 1.8275,
    factors: tuple[float, float, float] = (1, 1, 1),
    outputs: SteadyOutputs | None = None,
) -> Optimum:
    """Best F_B in 3–6 kg/s and T_R in 70–100 °C by SLSQP from four starts.

    Args:
        limits: upper limits by mass fraction, e.g. {"xA": 0.12, "xG": 0.08}; None for none.
        outputs: (F_B, T_R, F_A) -> steady outputs of another model; None for the true plant.

    Raises:
        ArithmeticError: no start ends at a feasible point.
    """
    bounds = {} if limits is None else dict(limits)

    @cache  # the solver asks for profit and limits of the same point one after the other
    def steady(f_b: float, t_r: float) -> Mapping[str, float]:
        if outputs is not None:
            return outputs(f_b, t_r, F_A)
        return steady_state_outputs(f_b, t_r, F_A, factors)

    def at(z: Vector) -> Mapping[str, float]:
        return steady(4.5 + 1.5 * float(z[0]), 85.0 + 15.0 * float(z[1]))

    def loss(z: Vector) -> float:
        return -profit(at(z), prices) / 100.0

    def slack(z: Vector) -> Vector:
        y = at(z)
        return np.array([10.0 * (limit - y[name]) for name, limit in bounds.items()])

    constraints = [{"type": "ineq", "fun": slack}] if bounds else []
    best: tuple[float, Vector] | None = None
    for start in itertools.product((-0.5, 0.5), repeat=2):
        found = minimize(
            loss,
            np.array(start),
            method="SLSQP",
            bounds=[(-1.0, 1.0)] * 2,
            constraints=constraints,
            options={"ftol": 1e-13, "maxiter": 300},
        )
        z = np.asarray(found.x, dtype=np.float64)
        feasible = not bounds or float(np.min(slack(z))) > -1e-7
        if feasible and (best is None or float(found.fun) < best[0]):
            best = (float(found.fun), z)
    if best is None:
        raise ArithmeticError(f"Williams–Otto: no feasible steady state within {bounds}")
    y = at(best[1])
    return Optimum(*map(float, (y["F_B"], y["T_R"], profit(y, prices), y["xA"], y["xG"])))
