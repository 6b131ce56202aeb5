"""Williams–Otto reactor, the true plant: three reactions, a heat balance, a jacket, a feed valve.

    A + B → C,   C + B → P + E,   P + C → G        M = 2105 kg, F = F_A + F_B

Sources: T. J. Williams and R. E. Otto, AIEE Trans. 79 (1960) 458–473; J. F. Forbes, T. E. Marlin
and J. F. MacGregor, Computers chem. Engng 18 (1994) 497–510 (kinetics in SI units).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import casadi as ca
import numpy as np

from plant_models.process import NoSteadyStateError, ProcessModel, Vector, names, nominal, placed
from plant_models.variable import Variable

HOLD_UP_KG = 2105.0
KELVIN = 273.15
VALVE_KG_S_PER_PERCENT = 0.1
# Longest Runge–Kutta step: a quarter of the fastest time constant, the feed valve's 8 s.
STEP_MAX_S = 2.0


def mass_fraction(name: str, nominal: float, what: str) -> Variable:
    return Variable(name, "1", 0.0, 1.0, nominal, f"mass fraction of {what}")


_SHARES = (
    mass_fraction("xA", 0.12715, "feed A"),
    mass_fraction("xB", 0.43839, "feed B"),
    mass_fraction("xC", 0.02727, "intermediate C"),
    mass_fraction("xE", 0.24603, "by-product E"),
    mass_fraction("xP", 0.10395, "product P"),
    mass_fraction("xG", 0.05721, "waste G"),
)
FEED_A_FLOW = Variable("F_A", "kg/s", 0.5, 4.0, 1.8275, "feed of A, measured")
FEED_B_FLOW = Variable("F_B", "kg/s", 0.0, 10.0, 4.633, "feed of B")
REACTOR_TEMPERATURE = Variable("T_R", "degC", 0.0, 150.0, 76.233, "reactor temperature")
_T_J = Variable("T_J", "degC", 0.0, 200.0, 101.857, "jacket temperature")
_VALVE = Variable("F_B_valve", "percent", 0.0, 100.0, 46.33, "valve of feed B")
_T_J_SP = Variable("T_J_sp", "degC", 20.0, 180.0, 101.857, "jacket temperature demand")

_PLANT_PARAMETERS = (
    Variable("k1_factor", "1", 0.0, 10.0, 1.0, "multiplies k1 (catalyst, impurity)"),
    Variable("k2_factor", "1", 0.0, 10.0, 1.0, "multiplies k2"),
    Variable("k3_factor", "1", 0.0, 10.0, 1.0, "multiplies k3"),
    Variable("UA", "kW/K", 1.0, 60.0, 20.0, "jacket and coil, about 25 m2 at 0.8 kW/m2/K"),
    Variable("feed_temperature", "degC", 0.0, 80.0, 40.0, "of both feeds"),
    Variable("jacket_lag", "s", 1.0, 600.0, 40.0, "of the jacket behind its demand"),
    Variable("valve_lag", "s", 4.0, 60.0, 8.0, "of the flow of B behind its valve"),
)
_CP_KJ_KG_K = 4.18
# Williams & Otto (1960): 125, 50 and 143 Btu/lb, released per kg of A, B and C converted in
# reactions 1, 2 and 3.
_HEATS_KJ_KG = (290.0, 116.0, 333.0)


def _three_rates(
    xa: ca.SX, xb: ca.SX, xc: ca.SX, xp: ca.SX, t_degc: ca.SX
) -> tuple[ca.SX, ca.SX, ca.SX]:
    """Rates of the plant's three reactions in the whole reactor, kg/s."""
    t = t_degc + KELVIN
    r1 = 1.6599e6 * ca.exp(-6666.7 / t) * xa * xb * HOLD_UP_KG
    r2 = 7.2117e8 * ca.exp(-8333.3 / t) * xb * xc * HOLD_UP_KG
    r3 = 2.6745e12 * ca.exp(-11111.0 / t) * xc * xp * HOLD_UP_KG
    return r1, r2, r3


@cache
def plant_model() -> ProcessModel:
    """The true reactor with its heat balance, jacket and feed valve.

    u = (F_B_valve percent, T_J_sp degC), d = (F_A kg/s); nine states, ten outputs.
    """
    x = ca.SX.sym("x", 9)
    u = ca.SX.sym("u", 2)
    d = ca.SX.sym("d", 1)
    p = ca.SX.sym("p", len(_PLANT_PARAMETERS))
    xa, xb, xc, xe, xp, xg, t_r, t_j, f_b = ca.vertsplit(x)
    k1f, k2f, k3f, ua, t_feed, jacket_lag, valve_lag = ca.vertsplit(p)
    r1, r2, r3 = _three_rates(xa, xb, xc, xp, t_r)
    r1, r2, r3 = k1f * r1, k2f * r2, k3f * r3
    f_a = d[0]
    f = f_a + f_b
    reaction_heat = _HEATS_KJ_KG[0] * r1 + _HEATS_KJ_KG[1] * r2 + _HEATS_KJ_KG[2] * r3
    heat = f * _CP_KJ_KG_K * (t_feed - t_r) + ua * (t_j - t_r) + reaction_heat
    rhs = ca.vertcat(
        (f_a - r1 - f * xa) / HOLD_UP_KG,
        (f_b - r1 - r2 - f * xb) / HOLD_UP_KG,
        (2 * r1 - 2 * r2 - r3 - f * xc) / HOLD_UP_KG,
        (2 * r2 - f * xe) / HOLD_UP_KG,
        (r2 - 0.5 * r3 - f * xp) / HOLD_UP_KG,
        (1.5 * r3 - f * xg) / HOLD_UP_KG,
        heat / (HOLD_UP_KG * _CP_KJ_KG_K),
        (u[1] - t_j) / jacket_lag,
        (VALVE_KG_S_PER_PERCENT * u[0] - f_b) / valve_lag,
    )
    outputs = ca.vertcat(t_r, f_b, f_a, xa, xb, xc, xe, xp, xg, t_j)
    return ProcessModel(
        name="Williams–Otto reactor, three reactions",
        x=(*_SHARES, REACTOR_TEMPERATURE, _T_J, FEED_B_FLOW),
        u=(_VALVE, _T_J_SP),
        d=(FEED_A_FLOW,),
        y=(REACTOR_TEMPERATURE, FEED_B_FLOW, FEED_A_FLOW, *_SHARES, _T_J),
        p=_PLANT_PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [rhs]),
        h=ca.Function("h", [x, u, d, p], [outputs]),
        source="Williams & Otto 1960; Forbes et al. 1994",
    )


@cache
def _runge_kutta_step() -> ca.Function:
    """(x, u, d, p, step_s) -> x one classical Runge–Kutta step later."""
    model = plant_model()
    x = ca.SX.sym("x", len(model.x))
    u = ca.SX.sym("u", len(model.u))
    d = ca.SX.sym("d", len(model.d))
    p = ca.SX.sym("p", len(model.p))
    step = ca.SX.sym("step")
    s1 = model.f(x, u, d, p)
    s2 = model.f(x + step / 2 * s1, u, d, p)
    s3 = model.f(x + step / 2 * s2, u, d, p)
    s4 = model.f(x + step * s3, u, d, p)
    return ca.Function("step", [x, u, d, p, step], [x + step / 6 * (s1 + 2 * s2 + 2 * s3 + s4)])


class ReactorPlant:
    """The true reactor as a `Plant`: deterministic, its measurement noise belongs to the PLC.

    Inputs (F_B_valve percent, T_J_sp degC, F_A kg/s); outputs (T_R, F_B, F_A, xA, xB, xC, xE, xP,
    xG, T_J). Open-loop stable wherever T_R is 70–100 °C with F_A 1.8–2.0 and F_B 3–6 kg/s.
    """

    def __init__(self, initial: Vector, initial_inputs: Vector, parameters: Vector) -> None:
        model = plant_model()
        self._initial = initial
        self._initial_inputs = initial_inputs
        self._x = initial.copy()
        self._u = np.zeros(len(model.u))
        self._d = np.zeros(len(model.d))
        self._p = parameters.copy()
        self._step_s = np.zeros(1)
        self._next = np.zeros(len(model.x))
        # The buffer reads and writes these arrays in place: a call costs 5 µs, not 50.
        self._buffer, self._evaluate = _runge_kutta_step().buffer()
        for index, array in enumerate((self._x, self._u, self._d, self._p, self._step_s)):
            # The wheel's type stub asks for a size that the function does not take.
            self._buffer.set_arg(index, array.data)  # pyright: ignore[reportCallIssue]
        self._buffer.set_res(0, self._next.data)  # pyright: ignore[reportCallIssue]

    @property
    def inputs(self) -> tuple[Variable, ...]:
        return (_VALVE, _T_J_SP, FEED_A_FLOW)

    @property
    def outputs(self) -> tuple[Variable, ...]:
        return plant_model().y

    @property
    def initial_inputs(self) -> Vector:
        """Inputs (3,) that hold the initial steady state."""
        return self._initial_inputs.copy()

    @property
    def parameters(self) -> Mapping[str, float]:
        """Present parameter values by name."""
        return dict(zip(names(_PLANT_PARAMETERS), map(float, self._p), strict=True))

    def set_parameter(self, name: str, value: float) -> None:
        """Change one parameter while it runs: drift, fouling, a new catalyst.

        Raises:
            KeyError: an unknown parameter.
        """
        known = names(_PLANT_PARAMETERS)
        if name not in known:
            raise KeyError(f"the Williams–Otto plant has no parameter {name}: {', '.join(known)}")
        self._p[known.index(name)] = value

    @property
    def states(self) -> Mapping[str, float]:
        """The true state by name."""
        return dict(zip(names(plant_model().x), self._x.tolist(), strict=True))

    def place(self, states: Mapping[str, float]) -> Vector:
        """Move these states there, the others stay; outputs (10,). See `Placeable`."""
        self._x[:] = placed(self._x, names(plant_model().x), states, "the Williams–Otto plant")
        return self._measure(float(self._initial_inputs[2]))

    def reset(self, seed: int) -> Vector:
        """Back to the initial steady state; the seed is unused, nothing here is random."""
        del seed
        self._x[:] = self._initial
        return self._measure(float(self._initial_inputs[2]))

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold u (3,) for dt_s seconds, in equal Runge–Kutta steps of at most 2 s; y (10,)."""
        steps = max(1, math.ceil(dt_s / STEP_MAX_S - 1e-9))
        self._u[0] = min(max(float(u[0]), _VALVE.low), _VALVE.high)
        self._u[1] = min(max(float(u[1]), _T_J_SP.low), _T_J_SP.high)
        self._d[0] = min(max(float(u[2]), FEED_A_FLOW.low), FEED_A_FLOW.high)
        self._step_s[0] = dt_s / steps
        for _ in range(steps):
            self._evaluate()
            self._x[:] = self._next
        return self._measure(float(self._d[0]))

    def __str__(self) -> str:
        return f"plant of {plant_model()}"

    def _measure(self, f_a: float) -> Vector:
        x = self._x
        return np.array([x[6], x[8], f_a, x[0], x[1], x[2], x[3], x[4], x[5], x[7]])


def plant(
    *,
    initial_F_B: float = 4.633,
    initial_T_R: float = 76.233,
    initial_F_A: float = 1.8275,
    **parameters: float,
) -> ReactorPlant:
    """The true dynamic plant, at rest at the given F_B (kg/s), T_R (°C) and F_A (kg/s).

    `parameters` replace nominal ones of `plant_model`: k1_factor, UA, feed_temperature …

    Raises:
        KeyError: an unknown parameter.
        ValueError: the jacket cannot hold the initial temperature.
    """
    p = plant_model().with_parameters(parameters).p_nominal
    shares = composition(initial_F_B, initial_T_R, initial_F_A, (p[0], p[1], p[2]))
    demand = _jacket_demand(shares, initial_F_B, initial_T_R, initial_F_A, p)
    if not _T_J_SP.low <= demand <= _T_J_SP.high:
        raise ValueError(
            f"Williams–Otto plant: T_R = {initial_T_R} degC needs a jacket at {demand:.1f} degC, "
            f"outside [{_T_J_SP.low}, {_T_J_SP.high}]; choose another initial point, UA or feed "
            "temperature"
        )
    initial = np.concatenate([shares, [initial_T_R, demand, initial_F_B]])
    inputs = np.array([initial_F_B / VALVE_KG_S_PER_PERCENT, demand, initial_F_A])
    return ReactorPlant(initial, inputs, p)


def _jacket_demand(shares: Vector, f_b: float, t_r: float, f_a: float, p: Vector) -> float:
    """Jacket temperature (°C) that closes the heat balance; the balance is linear in it."""
    model = plant_model()

    def heating(t_j: float) -> float:
        x = np.concatenate([shares, [t_r, t_j, f_b]])
        return float(model.f(x, np.zeros(2), np.array([f_a]), p)[6])

    return -heating(0.0) / (heating(1.0) - heating(0.0))


@cache
def _composition_solver() -> tuple[ca.Function, ca.Function]:
    """Balance of the six shares and its Jacobian, at given (F_B, T_R, F_A, factors (3,))."""
    model = plant_model()
    shares = ca.SX.sym("shares", 6)
    point = ca.SX.sym("point", 6)
    f_b, t_r, f_a = point[0], point[1], point[2]
    p = ca.vertcat(point[3:], ca.DM(model.p_nominal[3:]))
    balance = model.f(ca.vertcat(shares, t_r, 0, f_b), ca.SX(2, 1), f_a, p)[:6]
    return (
        ca.Function("balance", [shares, point], [balance]),
        ca.Function("jacobian", [shares, point], [ca.jacobian(balance, shares)]),
    )


def composition(
    F_B: float, T_R: float, F_A: float = 1.8275, factors: tuple[float, float, float] = (1, 1, 1)
) -> Vector:
    """Steady mass fractions (xA, xB, xC, xE, xP, xG) of the true plant, shape (6,).

    Newton's method with steps that keep every share positive.

    Raises:
        NoSteadyStateError: it does not converge.
    """
    balance, jacobian = _composition_solver()
    point = np.array([F_B, T_R, F_A, *factors])
    x = nominal(_SHARES)
    for _ in range(100):
        residual = np.asarray(balance(x, point)).ravel()
        step = np.linalg.solve(np.asarray(jacobian(x, point)), -residual)
        shrinking = step < 0
        room = np.min(x[shrinking] / -step[shrinking]) if np.any(shrinking) else np.inf
        x = x + min(1.0, 0.9 * float(room)) * step
        if np.max(np.abs(step)) < 1e-13:
            return x
    raise NoSteadyStateError(
        f"Williams–Otto plant: no steady state at F_B = {F_B}, T_R = {T_R}, F_A = {F_A}"
    )


def steady_state_outputs(
    F_B: float, T_R: float, F_A: float = 1.8275, factors: tuple[float, float, float] = (1, 1, 1)
) -> dict[str, float]:
    """Steady outputs of the true plant by name: T_R, F_B, F_A, xA, xB, xC, xE, xP, xG."""
    shares = composition(F_B, T_R, F_A, factors)
    return {
        "T_R": T_R,
        "F_B": F_B,
        "F_A": F_A,
        **dict(zip(names(_SHARES), map(float, shares), strict=True)),
    }
