"""Matrices of transfer functions with dead time: what step tests of a plant usually end in.

Every cell says how one output answers one input: a first- or second-order lag with dead time, or
an integration with dead time. The model is sampled, so dead time is exact at the sample instants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plant_models.dead_time import DelayedStep, Matrix, delay_chain, delayed_step, shift
from plant_models.process import ProcessModel, names
from plant_models.state_space import state_space
from plant_models.variable import Variable


@dataclass(frozen=True, slots=True)
class FOPDT:
    """gain · exp(-delay s) / (tau s + 1); gain in output units per input unit, times in s."""

    gain: float
    tau_s: float
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SOPDT:
    """gain · (lead s + 1) exp(-delay s) / ((tau1 s + 1)(tau2 s + 1)); a negative lead answers
    in the wrong direction first."""

    gain: float
    tau1_s: float
    tau2_s: float
    delay_s: float = 0.0
    lead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Integrator:
    """gain_per_s · exp(-delay s) / s; gain in output units per input unit and second."""

    gain_per_s: float
    delay_s: float = 0.0


Cell = FOPDT | SOPDT | Integrator
Cells = Mapping[tuple[str, str], Cell]


@dataclass(slots=True)
class _Lag:
    """States of one output that share their time constants, whatever inputs drive them."""

    output: Variable
    times_s: tuple[float, ...]
    steps: dict[str, DelayedStep]

    @property
    def order(self) -> int:
        return max(len(self.times_s), 1)

    def states(self) -> tuple[Variable, ...]:
        y, driven = self.output, f"{self.output.name}<-{'+'.join(self.steps)}"
        low, high = y.low - y.nominal, y.high - y.nominal
        labels = [driven, f"{driven} second lag"] if self.times_s else [f"{y.name} integral"]
        tails = [f"lag {tau:g} s" for tau in self.times_s] or ["integrated"]
        return tuple(
            Variable(label, y.unit, low, high, 0.0, f"share of {y.name} from its inputs, {tail}")
            for label, tail in zip(labels[: self.order], tails, strict=True)
        )


def transfer_matrix(
    name: str,
    inputs: Sequence[Variable],
    disturbances: Sequence[Variable],
    outputs: Sequence[Variable],
    cells: Cells,
    dt_s: float,
    source: str = "",
) -> ProcessModel:
    """A sampled model of transfer functions, around the nominal values of its variables.

    Outputs share one chain of past values per input, and cells of one output that have the same
    time constants share their states; all integrations of one output are one state.

    Args:
        cells: by (output, input or disturbance); a missing cell is no effect.
        dt_s: sample time in seconds; inputs are held over it.

    Raises:
        ValueError: a cell names what is not there, a time is negative or zero, a gain is not
            finite or zero, a dead time is too long for the sample time, or nothing acts on an
            output. Names the cell.
    """
    if not 0.0 < dt_s < float("inf"):
        raise ValueError(f"model {name}: a sample time of {dt_s} s is not a time")
    sources = (*inputs, *disturbances)
    _check_cells(name, names(outputs), names(sources), cells)
    lags = [lag for y in outputs for lag in _lags(name, y, sources, cells, dt_s)]
    memory = {
        v.name: max((lag.steps[v.name].memory for lag in lags if v.name in lag.steps), default=0)
        for v in sources
    }
    chains = [delay_chain(v, memory[v.name], dt_s) for v in sources]
    states = [v for lag in lags for v in lag.states()]
    n_lags, n = len(states), len(states) + sum(map(len, chains))
    a, b = np.zeros((n, n)), np.zeros((n, len(sources)))
    c = np.zeros((len(outputs), n))
    firsts: list[int] = []
    at = n_lags
    for column, chain in enumerate(chains):
        shift(a, b, at, len(chain), column)
        firsts.append(at)
        at += len(chain)
    at = 0
    for lag in lags:
        rows = slice(at, at + lag.order)
        c[list(outputs).index(lag.output), at] = 1.0
        for column, v in enumerate(sources):
            if v.name in lag.steps:
                _drive(a, b, rows, lag.steps[v.name], column, firsts[column])
        at += lag.order
    nu = len(inputs)
    return state_space(
        name,
        states=[*states, *(v for chain in chains for v in chain)],
        inputs=inputs,
        outputs=outputs,
        disturbances=disturbances,
        a=a,
        b=b[:, :nu],
        bd=b[:, nu:],
        c=c,
        dt_s=dt_s,
        source=source,
    )


def _drive(a: Matrix, b: Matrix, rows: slice, step: DelayedStep, column: int, first: int) -> None:
    """Let an input act on the states `rows`; its past values stand from `first` on."""
    a[rows, rows] = step.phi
    for samples, gamma in ((step.samples, step.newer), (step.samples + 1, step.older)):
        if not gamma.any():
            continue
        if samples == 0:
            b[rows, column] += gamma[:, 0]
        else:
            a[rows, first + samples - 1] += gamma[:, 0]


def _lags(
    model: str, output: Variable, sources: Sequence[Variable], cells: Cells, dt_s: float
) -> list[_Lag]:
    found: dict[tuple[float, ...], _Lag] = {}
    for v in sources:
        cell = cells.get((output.name, v.name))
        if cell is None:
            continue
        times_s, a, b = _continuous(cell)
        try:
            step = delayed_step(a, b, dt_s, cell.delay_s)
        except ValueError as error:
            raise ValueError(f"model {model}, cell {output.name} <- {v.name}: {error}") from None
        found.setdefault(times_s, _Lag(output, times_s, {})).steps[v.name] = step
    return list(found.values())


def _continuous(cell: Cell) -> tuple[tuple[float, ...], Matrix, Matrix]:
    """Time constants, and a (n, n) and b (n, 1) whose first state is the answer of the output.

    The second lag feeds the first; a lead is an input that goes past the second lag.
    """
    match cell:
        case FOPDT(gain, tau):
            return (tau,), np.array([[-1.0 / tau]]), np.array([[gain / tau]])
        case SOPDT(gain, tau1, tau2, _, lead):
            past = gain * lead / tau2
            a = np.array([[-1.0 / tau1, 1.0 / tau1], [0.0, -1.0 / tau2]])
            return (tau1, tau2), a, np.array([[past / tau1], [(gain - past) / tau2]])
        case Integrator(gain):
            return (), np.zeros((1, 1)), np.array([[gain]])


def _check_cells(model: str, outputs: Sequence[str], sources: Sequence[str], cells: Cells) -> None:
    for (output, source), cell in cells.items():
        where = f"model {model}, cell {output} <- {source}"
        if output not in outputs:
            raise ValueError(f"{where}: no output {output}; there are {', '.join(outputs)}")
        if source not in sources:
            raise ValueError(f"{where}: no input {source}; there are {', '.join(sources)}")
        match cell:
            case FOPDT(gain, tau):
                lags = {"time constant": tau}
            case SOPDT(gain, tau1, tau2, _, lead):
                lags = {"first time constant": tau1, "second time constant": tau2}
                if not math.isfinite(lead):
                    raise ValueError(f"{where}: a lead of {lead} s is not finite")
            case Integrator(gain):
                lags = {}
        if gain == 0.0 or not math.isfinite(gain):
            raise ValueError(f"{where}: a gain of {gain}; leave out a cell without effect")
        for label, tau in lags.items():
            if not 0.0 < tau < float("inf"):
                raise ValueError(f"{where}: the {label} of {tau} s is not above zero")
    for kind, known, place in (("output", outputs, 0), ("input", sources, 1)):
        idle = [n for n in known if n not in {key[place] for key in cells}]
        if idle:
            raise ValueError(f"model {model}: {kind} {', '.join(idle)} has no cell")
