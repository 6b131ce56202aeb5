"""Van de Vusse reactor: cooled CSTR with A → B → C and 2 A → D, the benchmark of Klatt and Engell.

B is wanted. Its yield has a maximum over the flow, so the gain from flow to cB changes its sign
there; below the maximum the reactor answers in the wrong direction first (non-minimum phase).
"""

from __future__ import annotations

import casadi as ca

from plant_models.actuator import ActuatedPlant
from plant_models.integrate import ModelPlant
from plant_models.process import ProcessModel
from plant_models.variable import Variable

SOURCE = (
    "Klatt & Engell (1998), Gain-scheduling trajectory control of a continuous stirred tank "
    "reactor, Comput. Chem. Eng. 22; values as in Chen, Kremling & Allgöwer (1995), Nonlinear "
    "predictive control of a benchmark CSTR, Proc. 3rd European Control Conference"
)

KELVIN = 273.15
S_PER_H = 3600.0

# Fastest time constant: the jacket, m_K c_pK / (k_w A_R) = 41 s. RK4 is exact to 1e-9 at 5 s.
DT_MAX_S = 5.0

STATES = (
    Variable("cA", "mol/l", 0.0, 10.0, 2.1404, "concentration of A in the reactor"),
    Variable("cB", "mol/l", 0.0, 10.0, 1.0903, "concentration of B in the reactor"),
    Variable("T", "degC", 50.0, 250.0, 114.19, "reactor temperature"),
    Variable("TK", "degC", 50.0, 250.0, 112.91, "coolant temperature in the jacket"),
)
INPUTS = (
    Variable("F", "1/h", 3.0, 35.0, 14.19, "dilution rate: feed flow over reactor volume"),
    Variable("Q", "kJ/h", -9000.0, 0.0, -1113.5, "heat put into the coolant; negative cools"),
)
DISTURBANCES = (
    Variable("cA0", "mol/l", 4.5, 5.7, 5.10, "concentration of A in the feed"),
    Variable("T0", "degC", 90.0, 140.0, 104.9, "feed temperature"),
)
OUTPUTS = STATES
PARAMETERS = (
    Variable("k10", "1/h", 0.0, 1e14, 1.287e12, "frequency factor of A → B"),
    Variable("k20", "1/h", 0.0, 1e14, 1.287e12, "frequency factor of B → C"),
    Variable("k30", "l/mol/h", 0.0, 1e12, 9.043e9, "frequency factor of 2 A → D"),
    Variable("E1", "K", 0.0, 2e4, 9758.3, "activation energy of A → B over R"),
    Variable("E2", "K", 0.0, 2e4, 9758.3, "activation energy of B → C over R"),
    Variable("E3", "K", 0.0, 2e4, 8560.0, "activation energy of 2 A → D over R"),
    Variable("dH1", "kJ/mol", -100.0, 100.0, 4.20, "reaction enthalpy of A → B"),
    Variable("dH2", "kJ/mol", -100.0, 100.0, -11.0, "reaction enthalpy of B → C"),
    Variable("dH3", "kJ/mol", -100.0, 100.0, -41.85, "reaction enthalpy of 2 A → D, per mol A"),
    Variable("rho", "kg/l", 0.1, 5.0, 0.9342, "density of the reacting mass"),
    Variable("cp", "kJ/kg/K", 0.1, 10.0, 3.01, "heat capacity of the reacting mass"),
    Variable("kw", "kJ/h/m^2/K", 0.0, 2e4, 4032.0, "heat transfer coefficient of the wall"),
    Variable("AR", "m^2", 0.01, 10.0, 0.215, "area of the wall"),
    Variable("VR", "l", 0.1, 1000.0, 10.0, "reactor volume"),
    Variable("mK", "kg", 0.1, 100.0, 5.0, "mass of coolant in the jacket"),
    Variable("cpK", "kJ/kg/K", 0.1, 10.0, 2.0, "heat capacity of the coolant"),
)


def model(**parameters: float) -> ProcessModel:
    """Reactor model: 4 states, inputs F and Q, measured disturbances cA0 and T0; time in seconds.

    Raises:
        KeyError: a parameter is not one of `PARAMETERS`.

    Source: `SOURCE`.
    """
    x, u = ca.SX.sym("x", len(STATES)), ca.SX.sym("u", len(INPUTS))
    d, p = ca.SX.sym("d", len(DISTURBANCES)), ca.SX.sym("p", len(PARAMETERS))
    per_hour = _balances(x, u, d, p)
    return ProcessModel(
        name="Van de Vusse reactor",
        x=STATES,
        u=INPUTS,
        d=DISTURBANCES,
        y=OUTPUTS,
        p=PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [per_hour / S_PER_H]),
        h=ca.Function("h", [x, u, d, p], [x]),
        source=SOURCE,
    ).with_parameters(parameters)


def plant(**parameters: float) -> ModelPlant:
    """The reactor as a plant, at rest at its published operating point (maximum of cB)."""
    return ModelPlant(model(**parameters), DT_MAX_S)


def actuated_plant(**parameters: float) -> ActuatedPlant:
    """The reactor with a feed valve (lag 6 s) and a heat exchanger (lag 15 s) before it."""
    return ActuatedPlant(plant(**parameters), {"F": 6.0, "Q": 15.0})


def _balances(x: ca.SX, u: ca.SX, d: ca.SX, p: ca.SX) -> ca.SX:
    """Material and energy balances, per hour, shape (4,)."""
    c_a, c_b, t, t_k = ca.vertsplit(x)
    flow, heat = ca.vertsplit(u)
    c_a0, t_0 = ca.vertsplit(d)
    k10, k20, k30, e1, e2, e3, dh1, dh2, dh3, rho, cp, kw, area, volume, m_k, cp_k = ca.vertsplit(p)
    kelvin = t + KELVIN
    r1 = k10 * ca.exp(-e1 / kelvin) * c_a
    r2 = k20 * ca.exp(-e2 / kelvin) * c_b
    r3 = k30 * ca.exp(-e3 / kelvin) * c_a**2
    reaction_heat = (r1 * dh1 + r2 * dh2 + r3 * dh3) / (rho * cp)
    wall = kw * area * (t_k - t)
    return ca.vertcat(
        flow * (c_a0 - c_a) - r1 - r3,
        -flow * c_b + r1 - r2,
        flow * (t_0 - t) - reaction_heat + wall / (rho * cp * volume),
        (heat - wall) / (m_k * cp_k),
    )
