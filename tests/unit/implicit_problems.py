"""Small problems with implicit intervals: a reactor with a fast jacket, a tank with a pipe."""

from __future__ import annotations

from functools import lru_cache

import casadi as ca
import numpy as np

from controller.estimation.augmented import Disturbance, augment, operating_point
from controller.mpc.problem import (
    ControlledVariable,
    Horizon,
    ManipulatedVariable,
    Situation,
)
from controller.mpc.stage import Stage, make_stage
from plant_models.dae import dae_model
from plant_models.process import ProcessModel
from plant_models.variable import Variable

CONCENTRATION = Variable("c", "mol/l", 0.0, 1.0, 0.5)
TEMPERATURE = Variable("T", "K", 300.0, 400.0, 350.0)
JACKET = Variable("Tj", "K", 250.0, 350.0, 300.0)
FLOW = Variable("q", "percent", 0.0, 100.0, 60.0)
FEED = Variable("F", "percent", 50.0, 150.0, 100.0)
COOLANT = Variable("Tc", "K", 250.0, 350.0, 300.0)


@lru_cache(maxsize=4)
def jacketed_model(jacket_s: float = 0.5, valve_s: float = 0.2) -> ProcessModel:
    """Exothermic CSTR (c, T: minutes) with a jacket and a coolant valve (Tj, q: below a second)."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 4), ("u", 2), ("d", 0), ("p", 0)))
    c, t, jacket, valve = ca.vertsplit(x)
    rate = 1.2e9 * ca.exp(-8750.0 / t) * c
    dilution = u[0] / 6000.0
    changes = ca.vertcat(
        dilution * (1.0 - c) - rate,
        dilution * (350.0 - t) + 209.2 * rate - 0.035 * (t - jacket),
        (u[1] - jacket) / jacket_s * ca.sqrt(valve / 50.0) + 0.01 / jacket_s * (t - jacket),
        (u[0] - valve - 40.0) / valve_s * (1.0 + (valve - 50.0) / 200.0),
    )
    return ProcessModel(
        "jacketed reactor",
        x=(CONCENTRATION, TEMPERATURE, JACKET, FLOW),
        u=(FEED, COOLANT),
        d=(),
        y=(CONCENTRATION, TEMPERATURE),
        p=(),
        f=ca.Function("f", [x, u, d, p], [changes]),
        h=ca.Function("h", [x, u, d, p], [x[:2]]),
        source="Seborg, Edgar & Mellichamp (2004), example 2.5, with a fast jacket and valve",
    )


@lru_cache(maxsize=1)
def jacketed() -> Stage:
    mvs = (
        ManipulatedVariable("F", 0, "percent", 50.0, 150.0, 5.0, 0.1, 0.01),
        ManipulatedVariable("Tc", 1, "K", 250.0, 350.0, 2.0, 0.1, 0.01),
    )
    cvs = (
        ControlledVariable("c", 0, "mol/l", 0.0, 1.0, 0.45, 10.0, 0.1),
        ControlledVariable("T", 1, "K", 330.0, 360.0, None, 10.0, 10.0),
    )
    augmented = augment(jacketed_model(), (), 1.0, 2.0)
    return make_stage(augmented, mvs, cvs, Horizon(10.0, 6, 10.0))


@lru_cache(maxsize=1)
def pendulum() -> ProcessModel:
    """Swings once in ten seconds, hardly damped."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 1), ("d", 0), ("p", 0)))
    omega = 2 * np.pi / 10.0
    pull = -omega * ca.sin(x[0]) - 0.1 * omega * x[1]
    angle = Variable("a", "rad", -1.0, 1.0, 0.0)
    return ProcessModel(
        "pendulum",
        x=(angle, Variable("b", "rad", -1.0, 1.0, 0.0)),
        u=(Variable("torque", "rad/s", -1.0, 1.0, 0.0),),
        d=(),
        y=(angle,),
        p=(),
        f=ca.Function("f", [x, u, d, p], [ca.vertcat(omega * x[1], pull + u)]),
        h=ca.Function("h", [x, u, d, p], [x[0]]),
    )


@lru_cache(maxsize=1)
def swinging() -> Stage:
    """Several Radau steps in each interval."""
    mvs = (ManipulatedVariable("torque", 0, "rad/s", -1.0, 1.0, 0.02, 0.1, 0.01),)
    cvs = (ControlledVariable("a", 0, "rad", -0.5, 0.5, 0.4, 10.0, 0.1),)
    return make_stage(augment(pendulum(), (), 1.0, 1.0), mvs, cvs, Horizon(12.0, 5, 12.0))


@lru_cache(maxsize=1)
def tank_model() -> ProcessModel:
    """A tank of 50 m2 drains through a pipe: head = loss + flow^2 / 2, loss = flow."""
    symbols = [ca.SX.sym(n, k) for n, k in (("x", 1), ("z", 2), ("u", 1), ("d", 0), ("p", 0))]
    x, z, u = symbols[:3]
    balance = ca.vertcat(x - z[1] - z[0] ** 2 / 2.0, z[1] - z[0])
    head, flow = Variable("head", "m", 0.0, 10.0, 4.0), Variable("flow", "m3/s", 0.0, 10.0, 2.0)
    return dae_model(
        "tank",
        x=(head,),
        z=(flow, Variable("loss", "m", 0.0, 10.0, 2.0)),
        u=(Variable("feed", "m3/s", 0.0, 10.0, 2.0),),
        y=(head, flow),
        f=ca.Function("f", symbols, [(u - z[0]) / 50.0]),
        g=ca.Function("g", symbols, [balance]),
        h=ca.Function("h", symbols, [ca.vertcat(x, z[0])]),
    )


@lru_cache(maxsize=1)
def drained_tank() -> Stage:
    mvs = (ManipulatedVariable("feed", 0, "m3/s", 0.0, 10.0, 0.2, 0.1, 0.01),)
    cvs = (
        ControlledVariable("head", 0, "m", 0.0, 10.0, 6.0, 10.0, 1.0),
        ControlledVariable("flow", 1, "m3/s", 0.0, 2.4, None, 10.0, 1.0),
    )
    augmented = augment(tank_model(), (Disturbance("feed", "input", 0.1),), 10.0, 10.0)
    return make_stage(augmented, mvs, cvs, Horizon(10.0, 6, 10.0))


def resting(stage: Stage) -> Situation:
    """At rest at the nominal point, setpoints and zones as configured."""
    x, u, d = operating_point(stage.augmented.model)
    n_mv = len(stage.mvs)
    return Situation(
        x=x,
        w=np.zeros(stage.augmented.nw),
        d=d,
        u_now=u,
        mv_low=np.array([mv.low for mv in stage.mvs]),
        mv_high=np.array([mv.high for mv in stage.mvs]),
        cv_low=np.array([cv.low for cv in stage.cvs]),
        cv_high=np.array([cv.high for cv in stage.cvs]),
        setpoint=np.array([np.nan if c.setpoint is None else c.setpoint for c in stage.cvs]),
        free=np.ones(n_mv),
        blocked_up=np.zeros(n_mv),
        blocked_down=np.zeros(n_mv),
        resting=np.full(n_mv, np.nan),
    )
