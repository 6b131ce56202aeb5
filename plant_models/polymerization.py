"""Industrial fed-batch polymerization: reactor, jacket and external heat exchanger, 10 states.

Monomer is fed as fast as the cooling allows: the reactor must stay within 2 K of its temperature
and below the adiabatic temperature that a failing cooling would lead to.
"""

from __future__ import annotations

import casadi as ca

from plant_models.process import ProcessModel
from plant_models.variable import Variable

SOURCE = (
    "Lucia, Andersson, Brandt, Diehl & Engell (2014), Handling uncertainty in economic nonlinear "
    "model predictive control: a comparative case study, J. Process Control 24"
)

S_PER_H = 3600.0
GAS_CONSTANT = 8.314
"""kJ/kmol/K, with the activation energy in kJ/kmol."""

STATES = (
    Variable("m_W", "kg", 0.0, 20000.0, 10000.0, "water in the reactor"),
    Variable("m_A", "kg", 0.0, 5000.0, 853.0, "monomer in the reactor"),
    Variable("m_P", "kg", 0.0, 25000.0, 26.5, "product in the reactor"),
    Variable("T_R", "K", 343.15, 383.15, 363.15, "reactor temperature"),
    Variable("T_S", "K", 323.15, 383.15, 363.15, "temperature of the reactor's steel"),
    Variable("T_M", "K", 323.15, 383.15, 363.15, "coolant leaving the jacket"),
    Variable("T_EK", "K", 293.15, 383.15, 308.15, "product leaving the external heat exchanger"),
    Variable("T_AWT", "K", 293.15, 383.15, 308.15, "coolant leaving the external heat exchanger"),
    Variable("m_fed", "kg", 0.0, 30000.0, 300.0, "monomer fed since the start of the batch"),
    Variable("T_adiab", "K", 343.15, 393.15, 378.0468243, "temperature if the cooling failed now"),
)
INPUTS = (
    Variable("feed", "kg/h", 0.0, 30000.0, 0.0, "feed of monomer and water"),
    Variable("T_M_in", "K", 333.15, 373.15, 363.15, "coolant entering the jacket"),
    Variable("T_EK_in", "K", 333.15, 373.15, 333.15, "coolant entering the heat exchanger"),
)
OUTPUTS = STATES
PARAMETERS = (
    Variable("dH_R", "kJ/kg", 100.0, 2000.0, 950.0, "heat of reaction"),
    Variable("k_0", "1/h", 0.1, 50.0, 7.0, "frequency factor"),
    Variable("E_a", "kJ/kmol", 1000.0, 50000.0, 8500.0, "activation energy"),
    Variable("k_U1", "1", 0.0, 100.0, 4.0, "rate factor without product"),
    Variable("k_U2", "1", 0.0, 100.0, 32.0, "rate factor in product"),
    Variable("k_WS", "kJ/h/m^2/K", 0.0, 1e5, 17280.0, "heat transfer, water to steel"),
    Variable("k_AS", "kJ/h/m^2/K", 0.0, 1e5, 3600.0, "heat transfer, monomer to steel"),
    Variable("k_PS", "kJ/h/m^2/K", 0.0, 1e5, 360.0, "heat transfer, product to steel"),
    Variable("alpha", "kJ/h/K", 0.0, 1e8, 3.6e6, "heat transfer of the external heat exchanger"),
    Variable("A", "m^2", 1.0, 500.0, 65.0, "area of the jacket"),
    Variable("T_F", "K", 253.15, 373.15, 298.15, "feed temperature"),
)

FEED_WATER, FEED_MONOMER = 0.333, 0.667
"""Mass fractions of the feed."""
JACKET_COOLANT_KG, JACKET_FLOW_KG_H = 5000.0, 300000.0
EXCHANGER_COOLANT_KG, EXCHANGER_FLOW_KG_H = 1000.0, 100000.0
EXCHANGER_PRODUCT_KG, EXCHANGER_PRODUCT_FLOW_KG_H = 200.0, 20000.0
STEEL_KG = 39000.0
CP_WATER, CP_STEEL, CP_FEED, CP_REACTOR = 4.2, 0.47, 3.0, 5.0
"""kJ/kg/K."""


def model(**parameters: float) -> ProcessModel:
    """Reactor model: 10 states, 3 inputs, no measured disturbance; time in seconds.

    A batch: it has no steady state. The fastest mode, 0.8 s, is the external heat exchanger's.

    Raises:
        KeyError: a parameter is not one of `PARAMETERS`.

    Source: `SOURCE`.
    """
    x, u = ca.SX.sym("x", len(STATES)), ca.SX.sym("u", len(INPUTS))
    d, p = ca.SX.sym("d", 0), ca.SX.sym("p", len(PARAMETERS))
    return ProcessModel(
        name="polymerization reactor",
        x=STATES,
        u=INPUTS,
        d=(),
        y=OUTPUTS,
        p=PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [_balances(x, u, p) / S_PER_H]),
        h=ca.Function("h", [x, u, d, p], [x]),
        source=SOURCE,
    ).with_parameters(parameters)


def adiabatic_temperature(m_a: ca.SX, total: ca.SX, t_r: ca.SX, dh: ca.SX) -> ca.SX:
    """Where the reactor temperature, in K, ends if all monomer reacts without cooling."""
    return t_r + m_a * dh / (total * CP_REACTOR)


def _balances(x: ca.SX, u: ca.SX, p: ca.SX) -> ca.SX:
    """Mass and energy balances, per hour, shape (10,)."""
    m_w, m_a, m_p, t_r, t_s, t_m, t_ek, t_awt, _, _ = ca.vertsplit(x)
    feed, t_m_in, t_ek_in = ca.vertsplit(u)
    dh, k_0, e_a, k_u1, k_u2, k_ws, k_as, k_ps, alpha, area, t_f = ca.vertsplit(p)
    total = m_w + m_a + m_p
    conversion = m_p / (m_a + m_p)
    gel = k_u1 * (1 - conversion) + k_u2 * conversion
    outside = m_a / total * EXCHANGER_PRODUCT_KG
    in_reactor = k_0 * ca.exp(-e_a / (GAS_CONSTANT * t_r)) * gel * (m_a - outside)
    in_exchanger = k_0 * ca.exp(-e_a / (GAS_CONSTANT * t_ek)) * gel * outside
    wall = (m_w * k_ws + m_a * k_as + m_p * k_ps) / total * area
    to_steel, to_jacket = wall * (t_r - t_s), wall * (t_s - t_m)
    circulation = EXCHANGER_PRODUCT_FLOW_KG_H * CP_REACTOR * (t_r - t_ek)
    exchanged = alpha * (t_ek - t_awt)

    monomer = feed * FEED_MONOMER - in_reactor - in_exchanger
    temperature = (feed * CP_FEED * (t_f - t_r) - to_steel - circulation + dh * in_reactor) / (
        CP_REACTOR * total
    )
    margin = dh / CP_REACTOR * (monomer / total - m_a * feed / total**2)
    return ca.vertcat(
        feed * FEED_WATER,
        monomer,
        in_reactor + in_exchanger,
        temperature,
        (to_steel - to_jacket) / (CP_STEEL * STEEL_KG),
        (JACKET_FLOW_KG_H * CP_WATER * (t_m_in - t_m) + to_jacket) / (CP_WATER * JACKET_COOLANT_KG),
        (circulation - exchanged + dh * in_exchanger) / (CP_REACTOR * EXCHANGER_PRODUCT_KG),
        (EXCHANGER_FLOW_KG_H * CP_WATER * (t_ek_in - t_awt) + exchanged)
        / (CP_WATER * EXCHANGER_COOLANT_KG),
        feed,
        temperature + margin,
    )
