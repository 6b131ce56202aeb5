"""Quadruple tank: two pumps, four tanks, and a transmission zero that two valves move.

Each pump feeds one lower tank and, across, the upper tank that drains into the other lower one.
With γ1 + γ2 > 1 most water goes straight down and the process is minimum phase; below 1 it is
not, and the loops must be paired the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import casadi as ca

from plant_models.integrate import ModelPlant
from plant_models.process import ProcessModel
from plant_models.variable import Variable

SOURCE = (
    "Johansson (2000), The quadruple-tank process: a multivariable laboratory process with an "
    "adjustable zero, IEEE Trans. Control Systems Technology 8(3)"
)

# Below this level (cm) the outflow falls linearly instead of with the square root, whose slope
# is infinite at an empty tank. It changes the outflow by less than 2e-5 above 1 cm.
LAMINAR_CM = 0.01

# Fastest time constant: a nearly empty upper tank, 1 s, because of LAMINAR_CM.
DT_MAX_S = 1.0

# Published settings of valves and pumps at the operating points P− and P+.
MINIMUM_PHASE: Mapping[str, float] = MappingProxyType(
    {"gamma1": 0.70, "gamma2": 0.60, "k1": 3.33, "k2": 3.35}
)
NON_MINIMUM_PHASE: Mapping[str, float] = MappingProxyType(
    {"gamma1": 0.43, "gamma2": 0.34, "k1": 3.14, "k2": 3.29}
)
LEVELS_CM = {False: (12.6, 13.0, 4.8, 4.9), True: (12.4, 12.7, 1.8, 1.4)}
PUMPS_V = {False: (3.15, 3.15), True: (3.00, 3.00)}

PARAMETERS = (
    Variable("A1", "cm^2", 1.0, 1000.0, 28.0, "cross-section of tank 1"),
    Variable("A2", "cm^2", 1.0, 1000.0, 32.0, "cross-section of tank 2"),
    Variable("A3", "cm^2", 1.0, 1000.0, 28.0, "cross-section of tank 3, above tank 1"),
    Variable("A4", "cm^2", 1.0, 1000.0, 32.0, "cross-section of tank 4, above tank 2"),
    Variable("a1", "cm^2", 0.0, 1.0, 0.071, "outlet of tank 1"),
    Variable("a2", "cm^2", 0.0, 1.0, 0.057, "outlet of tank 2"),
    Variable("a3", "cm^2", 0.0, 1.0, 0.071, "outlet of tank 3"),
    Variable("a4", "cm^2", 0.0, 1.0, 0.057, "outlet of tank 4"),
    Variable("k1", "cm^3/V/s", 0.0, 10.0, MINIMUM_PHASE["k1"], "flow of pump 1 per volt"),
    Variable("k2", "cm^3/V/s", 0.0, 10.0, MINIMUM_PHASE["k2"], "flow of pump 2 per volt"),
    Variable("gamma1", "1", 0.0, 1.0, MINIMUM_PHASE["gamma1"], "share of pump 1 into tank 1"),
    Variable("gamma2", "1", 0.0, 1.0, MINIMUM_PHASE["gamma2"], "share of pump 2 into tank 2"),
    Variable("g", "cm/s^2", 0.0, 2000.0, 981.0, "gravity"),
)


def model(minimum_phase: bool = True, **parameters: float) -> ProcessModel:
    """Four levels (cm), two pump voltages; measured are the two lower levels. Time in seconds.

    Args:
        minimum_phase: valves as at P− (True) or as at P+ (False).
        parameters: what differs from those settings, by name.

    Raises:
        KeyError: a parameter is not one of `PARAMETERS`.

    Source: `SOURCE`.
    """
    x, u = ca.SX.sym("x", 4), ca.SX.sym("u", 2)
    d, p = ca.SX.sym("d", 0), ca.SX.sym("p", len(PARAMETERS))
    settings = MINIMUM_PHASE if minimum_phase else NON_MINIMUM_PHASE
    levels = tuple(
        Variable(f"h{i}", "cm", 0.0, 20.0, level, f"level of tank {i}")
        for i, level in enumerate(LEVELS_CM[minimum_phase], start=1)
    )
    pumps = tuple(
        Variable(f"v{i}", "V", 0.0, 10.0, voltage, f"voltage of pump {i}")
        for i, voltage in enumerate(PUMPS_V[minimum_phase], start=1)
    )
    return ProcessModel(
        name=f"quadruple tank, {'minimum' if minimum_phase else 'non-minimum'} phase",
        x=levels,
        u=pumps,
        d=(),
        y=levels[:2],
        p=PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [_balances(x, u, p)]),
        h=ca.Function("h", [x, u, d, p], [x[:2]]),
        source=SOURCE,
    ).with_parameters({**settings, **parameters})


def plant(minimum_phase: bool = True, **parameters: float) -> ModelPlant:
    """The tanks as a plant, at rest at the nominal pump voltages."""
    return ModelPlant(model(minimum_phase, **parameters), DT_MAX_S)


def _balances(x: ca.SX, u: ca.SX, p: ca.SX) -> ca.SX:
    """Volume balances of the four tanks, cm/s, shape (4,)."""
    v1, v2 = ca.vertsplit(u)
    area, outlet = p[0:4], p[4:8]
    k1, k2, gamma1, gamma2, g = ca.vertsplit(p[8:13])
    # Bernoulli, a √(2 g h); h / ⁴√(h² + ε²) is √h with a finite slope at the empty tank.
    out = outlet * ca.sqrt(2 * g) * x / (x**2 + LAMINAR_CM**2) ** 0.25
    flows = ca.vertcat(
        gamma1 * k1 * v1 + out[2] - out[0],
        gamma2 * k2 * v2 + out[3] - out[1],
        (1 - gamma2) * k2 * v2 - out[2],
        (1 - gamma1) * k1 * v1 - out[3],
    )
    return flows / area
