"""A plant with real actuators: valves and heaters that follow their demand with a lag.

What the actuator delivers becomes an output, as a flow meter behind a valve would show it, so that
a base-layer loop in the PLC can control it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp

import numpy as np

from plant_models.process import Adjustable, Placeable, Plain, Plant, Vector, nominal
from plant_models.variable import Variable

DEMAND = "_demand"


class ActuatedPlant:
    """`plant` behind first-order actuators; satisfies `plant_models.process.Plant`.

    An input `F` with an actuator is renamed `F_demand`, and the delivered `F` becomes an output.

    Args:
        lags_s: time constant per input that has an actuator, in seconds.
        gains: delivered over demanded at steady state, per input; 1 where absent.
    """

    def __init__(
        self,
        plant: Plant,
        lags_s: Mapping[str, float],
        gains: Mapping[str, float] | None = None,
    ) -> None:
        known = [v.name for v in plant.inputs]
        for name, lag_s in lags_s.items():
            if name not in known or not lag_s > 0.0:
                raise ValueError(
                    f"an actuator on {name} with a lag of {lag_s} s: inputs are "
                    f"{', '.join(known)}, and a lag is positive"
                )
        self._plant = plant
        self._plain = plant if isinstance(plant, Plain) else None
        self._acting = [i for i, name in enumerate(known) if name in lags_s]
        self._lag_s = [lags_s[known[i]] for i in self._acting]
        self._gain = [(gains or {}).get(known[i], 1.0) for i in self._acting]
        self._kept_s, self._kept = 0.0, [1.0] * len(self._acting)
        self._inputs = tuple(
            replace(v, name=v.name + DEMAND, description=f"demand of {v.name}")
            if i in self._acting
            else v
            for i, v in enumerate(plant.inputs)
        )
        self._outputs = (*plant.outputs, *(plant.inputs[i] for i in self._acting))
        self._start = nominal(plant.inputs)
        self._delivered: list[float] = self._start[self._acting].tolist()

    @property
    def inputs(self) -> tuple[Variable, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[Variable, ...]:
        return self._outputs

    @property
    def initial_inputs(self) -> Vector:
        """Demands and inputs (nu,) that hold the initial point."""
        demanded = self._start.copy()
        demanded[self._acting] /= self._gain
        return demanded

    @property
    def parameters(self) -> Mapping[str, float]:
        """Parameters of the plant behind the actuators; empty where it offers none."""
        return self._plant.parameters if isinstance(self._plant, Adjustable) else {}

    def set_parameter(self, name: str, value: float) -> None:
        """Change a parameter of the plant; KeyError where it has no such parameter."""
        if not isinstance(self._plant, Adjustable):
            raise KeyError(f"{self} has no parameter {name}: none can be set")
        self._plant.set_parameter(name, value)

    @property
    def states(self) -> Mapping[str, float]:
        """States of the plant behind the actuators; empty where it shows none."""
        return self._plant.states if isinstance(self._plant, Placeable) else {}

    def place(self, states: Mapping[str, float]) -> Vector:
        """Move states of the plant, the actuators stay; outputs. See `Placeable`."""
        if not isinstance(self._plant, Placeable):
            raise KeyError(f"{self} has no state {', '.join(states)}: none can be placed")
        return np.concatenate([self._plant.place(states), self._delivered])

    def reset(self, seed: int) -> Vector:
        """Initial point; outputs of the plant, then what the actuators deliver."""
        y = self._plant.reset(seed)
        self._delivered = self._start[self._acting].tolist()
        return np.concatenate([y, self._delivered])

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold demands and inputs u (nu,) for dt_s seconds; the lag is exact for a step."""
        return np.array(self.advance_plain(np.asarray(u).tolist(), dt_s))

    def advance_plain(self, u: Sequence[float], dt_s: float) -> list[float]:
        """The same in plain numbers; see `Plain`."""
        if dt_s != self._kept_s:  # scans are of one length, and an exponential takes its time
            self._kept_s, self._kept = dt_s, [exp(-dt_s / lag) for lag in self._lag_s]
        real = [*u]
        for number, column in enumerate(self._acting):
            wanted = real[column] * self._gain[number]
            delivered = wanted + (self._delivered[number] - wanted) * self._kept[number]
            self._delivered[number] = real[column] = delivered
        if self._plain is not None:
            y = self._plain.advance_plain(real, dt_s)
        else:
            y = self._plant.advance(np.array(real), dt_s).tolist()
        y += self._delivered
        return y

    def __str__(self) -> str:
        acting = ", ".join(v.name for v in self._outputs[len(self._plant.outputs) :])
        return f"{self._plant} behind actuators on {acting}"
