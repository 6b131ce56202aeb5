"""A plant with real actuators: valves and heaters that follow their demand with a lag.

What the actuator delivers becomes an output, as a flow meter behind a valve would show it, so that
a base-layer loop in the PLC can control it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp

import numpy as np

from plant_models.process import Plant, Vector, nominal
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
        self._acting = [i for i, name in enumerate(known) if name in lags_s]
        self._lag_s = np.array([lags_s[known[i]] for i in self._acting])
        self._gain = np.array([(gains or {}).get(known[i], 1.0) for i in self._acting])
        self._inputs = tuple(
            replace(v, name=v.name + DEMAND, description=f"demand of {v.name}")
            if i in self._acting
            else v
            for i, v in enumerate(plant.inputs)
        )
        self._outputs = (*plant.outputs, *(plant.inputs[i] for i in self._acting))
        self._start = nominal(plant.inputs)
        self._delivered = self._start[self._acting].copy()
        self._real = self._start.copy()

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

    def reset(self, seed: int) -> Vector:
        """Initial point; outputs of the plant, then what the actuators deliver."""
        y = self._plant.reset(seed)
        self._delivered = self._start[self._acting].copy()
        return np.concatenate([y, self._delivered])

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold demands and inputs u (nu,) for dt_s seconds; the lag is exact for a step."""
        wanted = u[self._acting] * self._gain
        kept = np.array([exp(-dt_s / lag) for lag in self._lag_s])
        self._delivered = wanted + (self._delivered - wanted) * kept
        self._real[:] = u
        self._real[self._acting] = self._delivered
        y = self._plant.advance(self._real, dt_s)
        return np.concatenate([y, self._delivered])
