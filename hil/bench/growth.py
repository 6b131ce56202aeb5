"""How the solve time grows: with the horizon at fixed size, with the states at fixed horizon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from hil.bench.case import BenchCase, Input, Tracked, Zone
from hil.bench.measure import ClosedLoop, times_of
from hil.bench.plant import BenchPlant
from hil.bench.side import Side
from plant_models.process import ProcessModel
from plant_models.variable import Variable

HORIZONS = (10, 20, 50, 100, 200)
STATES = (4, 10, 20, 50, 100)
STATES_HELD, HORIZON_HELD = 10, 20
STEPS = 25


@dataclass(frozen=True, slots=True)
class Growth:
    """Median solve times over one size, and the exponent of the power law through them.

    Attributes:
        rungs: per size, every solver that answered; more than one kind spoils the exponent.
    """

    over: str
    sizes: tuple[int, ...]
    median_ms: tuple[float, ...]
    built_s: tuple[float, ...]
    rungs: tuple[str, ...]

    @property
    def exponent(self) -> float:
        """Slope of log time over log size, least squares."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.median_ms), 1)[0])


def reactors_in_series(count: int) -> ProcessModel:
    """A chain of `count` first-order lags with a second-order reaction in each.

    dc_i/dt = (c_i-1 - c_i) F / V - k c_i^2; inputs are the flow F / V and what enters, c_0.
    """
    c, u = ca.SX.sym("c", count), ca.SX.sym("u", 2)
    d, p = ca.SX.sym("d", 0), ca.SX.sym("p", 1)
    before = ca.vertcat(u[1], c[:-1])
    rate = (before - c) * u[0] - p[0] * c**2
    states = tuple(Variable(f"c{i + 1}", "mol/l", 0.0, 2.0, 0.5) for i in range(count))
    return ProcessModel(
        name=f"{count} reactors in series",
        x=states,
        u=(
            Variable("F", "1/s", 0.05, 0.3, 0.2, "flow over volume"),
            Variable("c0", "mol/l", 0.0, 2.0, 1.0, "concentration in the feed"),
        ),
        d=(),
        y=(states[-1], states[0]),
        p=(Variable("k", "l/mol/s", 0.0, 1.0, 0.1 / count, "rate constant"),),
        f=ca.Function("f", [c, u, d, p], [rate]),
        h=ca.Function("h", [c, u, d, p], [ca.vertcat(c[-1], c[0])]),
        source="made for the measurement of growth",
    )


def growth_case(states: int, intervals: int) -> BenchCase:
    """Track the last concentration of a chain, the first one inside a zone."""
    model = reactors_in_series(states)
    return BenchCase(
        name=f"{states} states, {intervals} intervals",
        title="reactors in series",
        model=model,
        step_s=2.0,
        intervals=intervals,
        d=np.zeros(0),
        x0=np.full(states, 0.5),
        u0=np.array([0.2, 1.0]),
        inputs=(Input(0.05, 0.3, 0.1), Input(0.0, 2.0, 0.1)),
        tracked=(Tracked(0, 0.7, 1.0, 0.1),),
        zones=(Zone(1, 0.0, 1.2, 1.0, 0.1),),
        kick=np.full(states, 0.01),
    )


def measure_growth(
    build: Callable[[BenchCase], Side],
    over: str,
    sizes: Sequence[int],
    told: Callable[[int, int], None] | None = None,
) -> Growth:
    """Solve times over `horizon` or `states`, in closed loop on the chain of reactors."""
    medians: list[float] = []
    built: list[float] = []
    rungs: list[str] = []
    for number, size in enumerate(sizes):
        states, intervals = (STATES_HELD, size) if over == "horizon" else (size, HORIZON_HELD)
        case = growth_case(states, intervals)
        loop = ClosedLoop(build(case), BenchPlant(case, case.seed), case, case.u0)
        for _ in range(STEPS):
            loop.step()
        medians.append(times_of(loop.times_ms).median_ms)
        built.append(loop.side.built_s)
        rungs.append(" ".join(f"{rung} {count}" for rung, count in loop.rungs.items()))
        if told is not None:
            told(number + 1, len(sizes))
    return Growth(over, tuple(sizes), tuple(medians), tuple(built), tuple(rungs))
