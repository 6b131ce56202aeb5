"""Distillation column, linearised: 20 stages, reflux and boilup against two product qualities.

A binary column in LV configuration with constant molar flows, constant relative volatility and
perfect level control, linearised about its steady state by exact derivatives.
"""

from __future__ import annotations

from functools import lru_cache

import casadi as ca
import numpy as np

from plant_models.process import NoSteadyStateError, ProcessModel, Vector
from plant_models.variable import Variable

SOURCE = (
    "stage equations as in Skogestad & Morari (1988), Understanding the dynamic behavior of "
    "distillation columns, Ind. Eng. Chem. Res. 27, with 20 stages"
)

S_PER_MIN = 60.0
STAGES = 20
FEED_STAGE = 10
"""Counted from the reboiler, which is stage 1; the total condenser is stage 20."""
VOLATILITY = 2.0
TRAY_KMOL, END_KMOL = 1.0, 5.0
"""Liquid on a tray; in the reboiler and in the reflux drum."""
FEED_LIQUID = 1.0
"""The feed is boiling liquid."""

REFLUX_KMOL_MIN, BOILUP_KMOL_MIN = 1.92, 2.42
FEED_KMOL_MIN, FEED_FRACTION = 1.0, 0.5


@lru_cache(maxsize=1)
def steady_profile() -> Vector:
    """Mole fractions of the light component, reboiler first, (20,), at the nominal flows.

    Raises:
        NoSteadyStateError: Newton's iteration does not converge.
    """
    x = ca.SX.sym("x", STAGES)
    u = ca.SX([REFLUX_KMOL_MIN, BOILUP_KMOL_MIN])
    d = ca.SX([FEED_KMOL_MIN, FEED_FRACTION])
    solve = ca.rootfinder("profile", "newton", {"x": x, "g": _balances(x, u, d)})
    found = np.asarray(solve(np.linspace(0.02, 0.98, STAGES), []), dtype=np.float64).ravel()
    if not np.all((found > 0.0) & (found < 1.0)):
        raise NoSteadyStateError(f"the column has no profile between 0 and 1: {found}")
    return found


def model() -> ProcessModel:
    """Linear model: 20 compositions, inputs reflux L and boilup V, measured disturbances feed
    flow F and feed composition z_F, outputs distillate y_D and bottoms x_B; time in seconds.

    Source: `SOURCE`.
    """
    profile = steady_profile()
    x, u, d = ca.SX.sym("x", STAGES), ca.SX.sym("u", 2), ca.SX.sym("d", 2)
    p = ca.SX.sym("p", 0)
    u_0 = ca.DM([REFLUX_KMOL_MIN, BOILUP_KMOL_MIN])
    d_0 = ca.DM([FEED_KMOL_MIN, FEED_FRACTION])
    a, b, e = jacobians()
    rate = ca.mtimes(a, x - ca.DM(profile)) + ca.mtimes(b, u - u_0) + ca.mtimes(e, d - d_0)
    stages = tuple(
        Variable(f"x{i + 1}", "mol/mol", 0.0, 1.0, float(value), "light component in the liquid")
        for i, value in enumerate(profile)
    )
    return ProcessModel(
        name="linear distillation column",
        x=stages,
        u=(
            Variable("L", "kmol/min", 0.0, 5.0, REFLUX_KMOL_MIN, "reflux"),
            Variable("V", "kmol/min", 0.0, 5.0, BOILUP_KMOL_MIN, "boilup"),
        ),
        d=(
            Variable("F", "kmol/min", 0.5, 1.5, FEED_KMOL_MIN, "feed"),
            Variable("z_F", "mol/mol", 0.3, 0.7, FEED_FRACTION, "light component in the feed"),
        ),
        y=(
            Variable("y_D", "mol/mol", 0.0, 1.0, float(profile[-1]), "distillate"),
            Variable("x_B", "mol/mol", 0.0, 1.0, float(profile[0]), "bottoms"),
        ),
        p=(),
        f=ca.Function("f", [x, u, d, p], [rate / S_PER_MIN]),
        h=ca.Function("h", [x, u, d, p], [ca.vertcat(x[-1], x[0])]),
        source=SOURCE,
    )


@lru_cache(maxsize=1)
def jacobians() -> tuple[ca.DM, ca.DM, ca.DM]:
    """(A (20, 20), B (20, 2), E (20, 2)) of d(x)/dt = A dx + B du + E dd, per minute."""
    x, u, d = ca.SX.sym("x", STAGES), ca.SX.sym("u", 2), ca.SX.sym("d", 2)
    balances = _balances(x, u, d)
    derive = ca.Function("derive", [x, u, d], [ca.jacobian(balances, v) for v in (x, u, d)])
    point = (
        steady_profile(),
        [REFLUX_KMOL_MIN, BOILUP_KMOL_MIN],
        [FEED_KMOL_MIN, FEED_FRACTION],
    )
    a, b, e = derive(*point)
    return ca.DM(a), ca.DM(b), ca.DM(e)


def _balances(x: ca.SX, u: ca.SX, d: ca.SX) -> ca.SX:
    """Component balance per stage, reboiler first, per minute, shape (20,)."""
    reflux, boilup = u[0], u[1]
    feed, fraction = d[0], d[1]
    vapour = VOLATILITY * x / (1 + (VOLATILITY - 1) * x)
    below = reflux + FEED_LIQUID * feed
    above_vapour = boilup + (1 - FEED_LIQUID) * feed
    distillate = above_vapour - reflux
    bottoms = below - boilup
    rows: list[ca.SX] = []
    for i in range(STAGES):
        stage = i + 1
        if stage == 1:
            rows.append((below * x[1] - boilup * vapour[0] - bottoms * x[0]) / END_KMOL)
            continue
        if stage == STAGES:
            rows.append((above_vapour * vapour[i - 1] - (reflux + distillate) * x[i]) / END_KMOL)
            continue
        liquid_in = below if stage < FEED_STAGE else reflux
        liquid_out = below if stage <= FEED_STAGE else reflux
        vapour_in = boilup if stage <= FEED_STAGE else above_vapour
        vapour_out = boilup if stage < FEED_STAGE else above_vapour
        gain = liquid_in * x[i + 1] - liquid_out * x[i]
        gain += vapour_in * vapour[i - 1] - vapour_out * vapour[i]
        if stage == FEED_STAGE:
            gain += feed * fraction
        rows.append(gain / TRAY_KMOL)
    return ca.vertcat(*rows)
