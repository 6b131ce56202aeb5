"""One lag: a guess at how a temperature follows the setpoint of its PLC loop."""

from __future__ import annotations

import casadi as ca

from plant_models.process import ProcessModel
from plant_models.variable import Variable

BASE = 80.0


def model(gain: float = 0.7, tau: float = 60.0) -> ProcessModel:
    """dT/dt = (T₀ + gain · (T_sp − T₀) − T) / tau, with T₀ = 80 degC.

    A real slave loop has the gain 1: every other value is a mismatch that the controller has to
    overcome.

    Args:
        gain: degC of temperature per degC of setpoint.
        tau: time constant in seconds.
    """
    x, u, none = ca.SX.sym("x", 1), ca.SX.sym("u", 1), ca.SX.sym("none", 0)
    temperature = Variable("T", "degC", 0.0, 150.0, BASE, "temperature")
    return ProcessModel(
        name="first order",
        x=(temperature,),
        u=(Variable("T_sp", "degC", 0.0, 150.0, BASE, "setpoint of the temperature loop"),),
        d=(),
        y=(temperature,),
        p=(),
        f=ca.Function("f", [x, u, none, none], [(BASE + gain * (u - BASE) - x) / tau]),
        h=ca.Function("h", [x, u, none, none], [x]),
        source="Seborg et al., Process Dynamics and Control, 4th ed. (2016), section 5.2",
    )
