"""The Temperature Control Lab: simulated twin of a real rig, and a first-principles model of it.

The twin is `tclab.TCLabModel` (Kantor, CBE30338): somebody else's plant, with its own equations,
sensor noise and the steps of an A/D converter. The model comes from the energy balances of
Hedengren's course and was not fitted to the twin, so that a controller meets an honest mismatch.
"""

from __future__ import annotations

import contextlib
import io

import casadi as ca
import numpy as np
import tclab

from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable

SOURCE = (
    "Hedengren, Dynamics and Control, Temperature Control Lab (apmonitor.com/pdc): two-heater "
    "energy balance with convection, radiation and sensor lag; as taught also in Park, Martin, "
    "Kelly & Hedengren (2020), Benchmark temperature microcontroller for process dynamics and "
    "control, Comput. Chem. Eng. 135"
)
KELVIN = 273.15
AMBIENT = 21.0

HEATERS = tuple(
    Variable(f"Q{i}", "percent", 0.0, 100.0, 0.0, f"power of heater {i}") for i in (1, 2)
)
SENSORS = tuple(
    Variable(f"T{i}", "degC", -50.0, 132.2, AMBIENT, f"temperature of sensor {i}") for i in (1, 2)
)
DRIVES = tuple(
    Variable(f"D{i}", "percent", 0.0, 100.0, 0.0, f"drive of the power element {i}") for i in (1, 2)
)
POWERS = tuple(
    Variable(f"P{i}", "percent", 0.0, 100.0, 0.0, f"power that reaches heater {i}") for i in (1, 2)
)


class _SeededLab(tclab.TCLabModel):
    """The twin without its wall clock and without the process-wide random numbers.

    `synced=False` is tclab's own switch for a clock that the caller drives through `update(t)`;
    only the start of that clock has to be set to zero. The noise is tclab's, drawn from a
    generator of our own.
    """

    def __init__(self, seed: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it greets on stdout, where JSON may go
            super().__init__(synced=False)
        self.tstart = self.tlast = 0.0
        self._noise = np.random.default_rng(seed)

    def measurement(self, T: float) -> float:
        return float(self.quantize(T + self._noise.normal(0.0, 0.043)))


class TclabPlant:
    """The twin as a plant: heaters Q1, Q2 in percent, sensors T1, T2 in degC, simulated time.

    Args:
        q1, q2: heater powers in percent held during the warm-up.
        warm_up_s: seconds simulated at those powers before the run; 0 starts cold, at ambient.
    """

    inputs = HEATERS
    outputs = SENSORS

    def __init__(self, q1: float = 0.0, q2: float = 0.0, warm_up_s: float = 0.0) -> None:
        self._warm_up = np.array([q1, q2]), warm_up_s
        self.reset(0)

    def reset(self, seed: int) -> Vector:
        """A new rig, warmed up; `seed` fixes its sensor noise. Outputs (2,)."""
        self._lab = _SeededLab(seed)
        self._time_s = 0.0
        u, duration_s = self._warm_up
        return self.advance(u, duration_s)

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold the heaters u (2,) for dt_s simulated seconds; outputs (2,) at the end."""
        self._lab.Q1(float(u[0]))
        self._lab.Q2(float(u[1]))
        self._time_s += dt_s
        self._lab.update(self._time_s)
        return np.array([self._lab.T1, self._lab.T2])


class PoweredLab:
    """The twin behind two power controllers' final elements: a rig as it would stand in a plant.

    The firmware sets the power at once, so a loop would have nothing to control. Here the power
    follows its drive with a lag, as behind a thyristor and a filtered power meter; the meter's
    reading is what reaches the heater.

    Inputs D1, D2 (drives, percent), outputs T1, T2 (degC) and P1, P2 (powers, percent).

    Args:
        lab: the twin.
        lag_s: time constant from drive to power, seconds.
    """

    inputs = DRIVES
    outputs = SENSORS + POWERS

    def __init__(self, lab: TclabPlant, lag_s: float) -> None:
        self._lab = lab
        self._lag_s = lag_s
        self._power = np.zeros(2)

    def reset(self, seed: int) -> Vector:
        """Heaters off. Outputs (4,)."""
        self._power = np.zeros(2)
        return np.append(self._lab.reset(seed), self._power)

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold the drives u (2,) for dt_s simulated seconds; outputs (4,) at the end."""
        self._power = u + (self._power - u) * np.exp(-dt_s / self._lag_s)
        return np.append(self._lab.advance(self._power, dt_s), self._power)


def plant(q1: float = 0.0, q2: float = 0.0, warm_up_s: float = 0.0) -> TclabPlant:
    """Factory to be named in a scenario: `tests/peers/tclab_plant.py:plant`."""
    return TclabPlant(q1, q2, warm_up_s)


def powered_plant(lag_s: float = 3.0) -> PoweredLab:
    """Factory to be named in a scenario: the cold twin with a power loop's lag per heater."""
    return PoweredLab(TclabPlant(), lag_s)


STATES = (
    *(Variable(f"TH{i}", "degC", 0.0, 200.0, AMBIENT, f"heater {i}") for i in (1, 2)),
    *(Variable(f"TC{i}", "degC", 0.0, 200.0, AMBIENT, f"sensor {i}") for i in (1, 2)),
)
AIR = (Variable("Ta", "degC", 0.0, 40.0, AMBIENT, "ambient temperature"),)
PARAMETERS = (
    Variable("mcp", "J/K", 0.1, 20.0, 2.0, "heat capacity of a heater: 4 g of 500 J/kg/K"),
    Variable("U", "W/m^2/K", 1.0, 50.0, 10.0, "heat transfer coefficient to the air"),
    Variable("A", "m^2", 1e-4, 1e-2, 1.0e-3, "area of a heater towards the air"),
    Variable("As", "m^2", 1e-5, 1e-3, 2.0e-4, "area of a heater towards the other one"),
    Variable("emissivity", "1", 0.0, 1.0, 0.9, "emissivity"),
    Variable("alpha1", "W/percent", 0.0, 0.1, 0.0100, "power of heater 1"),
    Variable("alpha2", "W/percent", 0.0, 0.1, 0.0075, "power of heater 2"),
    Variable("tau", "s", 1.0, 200.0, 20.0, "lag from heater to sensor"),
)
STEFAN_BOLTZMANN = 5.67e-8  # W/m²/K⁴


def controller_model(**parameters: float) -> ProcessModel:
    """Two-heater energy balance: 4 states, inputs Q1 and Q2, measured disturbance Ta.

    Raises:
        KeyError: a parameter is not one of `PARAMETERS`.

    Source: `SOURCE`.
    """
    x, u = ca.SX.sym("x", 4), ca.SX.sym("u", 2)
    d, p = ca.SX.sym("d", 1), ca.SX.sym("p", len(PARAMETERS))
    mcp, transfer, area, shared, emissivity, alpha1, alpha2, tau = ca.vertsplit(p)
    heater1, heater2 = x[0], x[1]

    def flow(hot: ca.SX, cold: ca.SX, through: ca.SX) -> ca.SX:
        """Convection and radiation from hot to cold, W."""
        radiation = STEFAN_BOLTZMANN * ((hot + KELVIN) ** 4 - (cold + KELVIN) ** 4)
        return through * (transfer * (hot - cold) + emissivity * radiation)

    across = flow(heater1, heater2, shared)
    rate = ca.vertcat(
        (alpha1 * u[0] - flow(heater1, d, area) - across) / mcp,
        (alpha2 * u[1] - flow(heater2, d, area) + across) / mcp,
        (heater1 - x[2]) / tau,
        (heater2 - x[3]) / tau,
    )
    return ProcessModel(
        name="Temperature Control Lab",
        x=STATES,
        u=HEATERS,
        d=AIR,
        y=SENSORS,
        p=PARAMETERS,
        f=ca.Function("f", [x, u, d, p], [rate]),
        h=ca.Function("h", [x, u, d, p], [x[2:4]]),
        source=SOURCE,
    ).with_parameters(parameters)
