"""Chain of masses: balls on springs between a wall and a hand that moves the last one.

A benchmark for fast optimization: the springs make it nonlinear, every ball adds six states, and
nothing damps it but the controller.
"""

from __future__ import annotations

from itertools import pairwise

import casadi as ca
import numpy as np

from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable

SOURCE = (
    "Wirsching, Bock & Diehl (2006), Fast NMPC of a chain of masses connected by springs, IEEE "
    "Conf. on Control Applications; values as in Kouzoupis, Frison, Zanelli & Diehl (2018), Recent "
    "advances in quadratic programming algorithms for nonlinear model predictive control"
)

GRAVITY_M_S2 = 9.81
REST_STRETCH = 6.0
"""At rest the far end stands this many spring lengths per spring away from the wall."""

PARAMETERS = (
    Variable("mass", "kg", 1e-3, 1.0, 0.033, "one ball"),
    Variable("stiffness", "N/m", 0.1, 100.0, 1.0, "one spring"),
    Variable("length", "m", 1e-3, 1.0, 0.033, "one spring, not loaded"),
)
AXES = ("x", "y", "z")


def model(masses: int = 5, **parameters: float) -> ProcessModel:
    """Chain of `masses` balls, the first fixed to the wall, the last moved by its velocity.

    6 (masses - 2) + 3 states: positions of the free balls and of the last one in m, velocities of
    the free balls in m/s; 3 inputs, in m/s. Gravity pulls along -z. The nominal state is at rest.

    Raises:
        ValueError: fewer than three masses.
        KeyError: a parameter is not one of `PARAMETERS`.

    Source: `SOURCE`.
    """
    if masses < 3:
        raise ValueError(f"a chain has at least 3 masses, not {masses}: two ends and one between")
    free = masses - 2
    x, u = ca.SX.sym("x", 6 * free + 3), ca.SX.sym("u", 3)
    d, p = ca.SX.sym("d", 0), ca.SX.sym("p", len(PARAMETERS))
    states = _states(free, parameters)
    return ProcessModel(
        name=f"chain of {masses} masses",
        x=states,
        u=tuple(Variable(f"v_end_{a}", "m/s", -1.0, 1.0, 0.0, "of the hand") for a in AXES),
        d=(),
        y=states,
        p=PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [_motion(x, u, p, free)]),
        h=ca.Function("h", [x, u, d, p], [x]),
        source=SOURCE,
    ).with_parameters(parameters)


def rest(masses: int = 5, **parameters: float) -> Vector:
    """The state at rest, (6 (masses - 2) + 3,), far end level with the wall."""
    values = {v.name: v.nominal for v in PARAMETERS} | parameters
    free = masses - 2
    end = np.array([values["length"] * (free + 1) * REST_STRETCH, 0.0, 0.0])
    p = np.array([values[v.name] for v in PARAMETERS])
    inner = ca.SX.sym("inner", 3 * free)
    still = ca.vertcat(inner, ca.DM(end), ca.DM.zeros(3 * free))
    balance = _motion(still, ca.SX.zeros(3), ca.SX(ca.DM(p)), free)[3 * free + 3 :]
    solve = ca.rootfinder("rest", "newton", {"x": inner, "g": balance})
    share = np.arange(1, free + 1) / (free + 1)
    # It hangs through: from a straight line the springs' directions would be singular.
    start = np.column_stack([share * end[0], 0.0 * share, -share * (1 - share) * end[0]])
    found = np.asarray(solve(start.ravel(), []), dtype=np.float64).ravel()
    return np.concatenate([found, end, np.zeros(3 * free)])


def _states(free: int, parameters: dict[str, float]) -> tuple[Variable, ...]:
    at_rest = rest(free + 2, **{k: v for k, v in parameters.items() if k in _KNOWN})
    labels = [f"{i}" for i in range(1, free + 1)]
    names = [f"p{i}_{a}" for i in (*labels, "_end") for a in AXES]
    names += [f"v{i}_{a}" for i in labels for a in AXES]
    units = ["m"] * (3 * free + 3) + ["m/s"] * (3 * free)
    return tuple(
        Variable(name, unit, value - 0.5, value + 0.5, value)
        for name, unit, value in zip(names, units, at_rest, strict=True)
    )


_KNOWN = frozenset(v.name for v in PARAMETERS)


def _motion(x: ca.SX, u: ca.SX, p: ca.SX, free: int) -> ca.SX:
    """dx/dt from Newton's law for every free ball, shape (6 free + 3,)."""
    mass, stiffness, length = ca.vertsplit(p)
    velocities = x[3 * free + 3 :]
    balls = [ca.SX.zeros(3), *(x[3 * i : 3 * i + 3] for i in range(free + 1))]
    pulls: list[ca.SX] = []
    for left, right in pairwise(balls):
        gap = right - left
        pulls.append(stiffness * (1 - length / ca.norm_2(gap)) * gap)
    weight = ca.DM([0.0, 0.0, -GRAVITY_M_S2])
    acceleration = [(pulls[i + 1] - pulls[i]) / mass + weight for i in range(free)]
    return ca.vertcat(velocities, u, *acceleration)
