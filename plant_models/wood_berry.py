"""Wood and Berry's distillation column: methanol from water, two products by reflux and steam.

The best-known small example of interaction and dead time: each product answers both inputs, with
dead times from 1 to 7 min, and the feed flow disturbs both.
"""

from __future__ import annotations

from dataclasses import replace

import casadi as ca

from plant_models.actuator import ActuatedPlant
from plant_models.integrate import ModelPlant
from plant_models.process import ProcessModel, nominal, symbols
from plant_models.transfer_function import FOPDT, transfer_matrix
from plant_models.variable import Variable

SOURCE = (
    "Wood & Berry (1973), Terminal composition control of a binary distillation column, "
    "Chem. Eng. Sci. 28"
)

MINUTE_S = 60.0

INPUTS = (
    Variable("R", "lb/min", 0.0, 4.0, 1.95, "reflux flow"),
    Variable("S", "lb/min", 0.0, 4.0, 1.71, "steam flow to the reboiler"),
)
DISTURBANCES = (Variable("F", "lb/min", 1.0, 4.0, 2.45, "feed flow"),)
OUTPUTS = (
    Variable("XD", "percent", 80.0, 100.0, 96.25, "methanol in the distillate"),
    Variable("XB", "percent", 0.0, 20.0, 0.5, "methanol in the bottoms"),
)
GAINS = (
    Variable("reflux_gain", "1", 0.0, 3.0, 1.0, "multiplies the effects of R"),
    Variable("steam_gain", "1", 0.0, 3.0, 1.0, "multiplies the effects of S"),
)
PURE_PERCENT = 100.0
"""No product holds more methanol than that, nor less than none, whatever a straight line says."""
CELLS = {
    ("XD", "R"): FOPDT(12.8, 16.7 * MINUTE_S, 1.0 * MINUTE_S),
    ("XD", "S"): FOPDT(-18.9, 21.0 * MINUTE_S, 3.0 * MINUTE_S),
    ("XD", "F"): FOPDT(3.8, 14.9 * MINUTE_S, 8.1 * MINUTE_S),
    ("XB", "R"): FOPDT(6.6, 10.9 * MINUTE_S, 7.0 * MINUTE_S),
    ("XB", "S"): FOPDT(-19.4, 14.4 * MINUTE_S, 3.0 * MINUTE_S),
    ("XB", "F"): FOPDT(4.9, 13.2 * MINUTE_S, 3.4 * MINUTE_S),
}


def model(dt_s: float = MINUTE_S) -> ProcessModel:
    """Column model: inputs R and S, measured disturbance F, outputs XD and XB; sampled.

    Raises:
        ValueError: dt_s is not positive, or too short for the dead times.

    Source: `SOURCE`.
    """
    return transfer_matrix(
        "Wood-Berry column", INPUTS, DISTURBANCES, OUTPUTS, CELLS, dt_s, source=SOURCE
    )


def plant(dt_s: float = 6.0, reflux_gain: float = 1.0, steam_gain: float = 1.0) -> ModelPlant:
    """The column as a plant at its published operating point, moving every dt_s seconds; its
    outputs are XD, XB and the feed flow F.

    The published answers are straight lines around 96.25 and 0.5 percent; where they leave what a
    composition can be, the product is pure. The states go on beyond, as sections go on filling up
    that are pure at the end already, so the way back takes its time.

    `reflux_gain` and `steam_gain` multiply the effects of R and S: a column unlike its model. They
    are parameters of the plant, so they may drift.
    """
    column = model(dt_s)
    x, u, d, none = symbols(column)
    gains = column.symbol.sym("gains", len(GAINS))
    rest = ca.DM(nominal(INPUTS))
    felt = rest + gains * (u - rest)
    f = ca.Function("f", [x, u, d, gains], [column.f(x, felt, d, none)])
    products = ca.fmax(0.0, ca.fmin(column.h(x, felt, d, none), PURE_PERCENT))
    h = ca.Function("h", [x, u, d, gains], [ca.vertcat(products, d)])
    unlike = replace(column, y=(*OUTPUTS, *DISTURBANCES), p=GAINS, f=f, h=h)
    return ModelPlant(unlike, parameters={"reflux_gain": reflux_gain, "steam_gain": steam_gain})


def actuated_plant(**arguments: float) -> ActuatedPlant:
    """The column with a reflux valve (lag 5 s) and a steam valve (lag 10 s) before it.

    Args:
        arguments: those of `plant`.
    """
    return ActuatedPlant(plant(**arguments), {"R": 5.0, "S": 10.0})
