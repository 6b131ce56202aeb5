"""Stirred tank with an electrically heated jacket: the plant behind the Statement List program."""

from __future__ import annotations

import casadi as ca

from plant_models.integrate import ModelPlant
from plant_models.process import ProcessModel
from plant_models.variable import Variable

SOURCE = "Seborg et al., Process Dynamics and Control, 4th ed. (2016), section 2.4"
CP = 4.18  # kJ/kg/K, water, in the tank and in the jacket
TANK_KG, JACKET_KG = 200.0, 60.0
DT_MAX_S = 5.0  # the jacket, m cp / UA = 125 s, is the fastest part

STATES = (
    Variable("T", "degC", 0.0, 120.0, 60.0, "temperature of the tank"),
    Variable("TJ", "degC", 0.0, 150.0, 68.36, "temperature of the jacket"),
)
HEATER = Variable("heater", "percent", 0.0, 100.0, 27.86667, "power of the heater")
FEED = (
    Variable("feed", "kg/s", 0.0, 0.5, 0.1, "flow through the tank"),
    Variable("T_in", "degC", 5.0, 60.0, 20.0, "temperature of the feed"),
)
PARAMETERS = (
    Variable("UA", "kW/K", 0.1, 10.0, 2.0, "heat transfer from jacket to tank"),
    Variable("power", "kW", 1.0, 500.0, 60.0, "full power of the heater"),
)


def plant(**parameters: float) -> ModelPlant:
    """The tank at rest at 60 degC, with a quarter of the heater's power.

    Raises:
        KeyError: a parameter is not one of `PARAMETERS`.
    """
    x, u = ca.SX.sym("x", 2), ca.SX.sym("u", 1)
    d, p = ca.SX.sym("d", 2), ca.SX.sym("p", 2)
    to_tank = p[0] * (x[1] - x[0])  # kW
    heating = ca.vertcat(
        (d[0] * CP * (d[1] - x[0]) + to_tank) / (TANK_KG * CP),
        (p[1] * u[0] / 100.0 - to_tank) / (JACKET_KG * CP),
    )
    model = ProcessModel(
        name="heated tank",
        x=STATES,
        u=(HEATER,),
        d=FEED,
        y=STATES,
        p=PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [heating]),
        h=ca.Function("h", [x, u, d, p], [x]),
        source=SOURCE,
    )
    return ModelPlant(model.with_parameters(parameters), DT_MAX_S)
