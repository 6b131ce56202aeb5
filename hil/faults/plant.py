"""A process that changes: parameters that drift, feeds that change, effects that turn round."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType

from controller.errors import ScenarioError
from plant_models.process import Adjustable, Placeable, Plant, Vector
from plant_models.variable import Variable


class PlantFaults:
    """Faults of the plant behind the PLC: of its parameters, and of the way its inputs act.

    Args:
        u: inputs (nu,) as the loops and profiles set them; read here, never changed.
        driven: inputs that a loop drives.
    """

    def __init__(self, plant: Plant, u: Vector, driven: Collection[str]) -> None:
        self._plant = plant
        self._u = u
        self._column = {v.name: i for i, v in enumerate(plant.inputs)}
        self.inputs: Mapping[str, Variable] = MappingProxyType({v.name: v for v in plant.inputs})
        self.free_inputs = tuple(name for name in self.inputs if name not in driven)
        self.active = False
        self._changed: dict[int, float] = {}
        self._flipped: dict[int, tuple[float, float, float]] = {}

    @property
    def plant_name(self) -> str:
        return plant_name(self._plant)

    @property
    def parameters(self) -> Mapping[str, float]:
        """Present parameter values by name; empty where the plant offers none."""
        return self._plant.parameters if isinstance(self._plant, Adjustable) else {}

    def set_parameter(self, name: str, value: float) -> None:
        """Change a parameter while the plant runs, in the parameter's unit.

        Raises:
            ScenarioError: the plant has no such parameter.
        """
        if not isinstance(self._plant, Adjustable) or name not in self._plant.parameters:
            raise not_offered(self.plant_name, "parameter", name, self.parameters, name)
        self._plant.set_parameter(name, value)

    def begin(self, target: str, fault: str, args: Mapping[str, float]) -> None:
        """Raise feed_change or gain_flip on the plant input `target`."""
        column = self._column[target]
        if fault == "feed_change":
            self._changed[column] = args["to"]
        else:
            at = float(self.in_force()[column])
            spec = self.inputs[target]
            # A mirrored input stays where the model makes sense.
            self._flipped[column] = (2.0 * at, min(spec.low, at), max(spec.high, at))
        self.active = True

    def end(self, target: str, fault: str) -> None:
        """The input is again what the loops and profiles set it to."""
        (self._changed if fault == "feed_change" else self._flipped).pop(self._column[target], None)
        self.active = bool(self._changed or self._flipped)

    def in_force(self) -> Vector:
        """Inputs (nu,) as the plant feels them."""
        if not self.active:
            return self._u
        felt = self._u.copy()
        for column, value in self._changed.items():
            felt[column] = value
        for column, (twice, low, high) in self._flipped.items():
            felt[column] = min(max(twice - felt[column], low), high)
        return felt


def start(plant: Plant, seed: int, states: Mapping[str, float]) -> Vector:
    """Reset a plant, then move the named states; outputs (ny,).

    Raises:
        ScenarioError: the plant has no such states to set.
    """
    y = plant.reset(seed)
    if not states:
        return y
    offered = plant.states if isinstance(plant, Placeable) else {}
    for name in states:
        if name not in offered:
            raise not_offered(plant_name(plant), "state", name, offered, "plant.x0")
    return plant.place(states) if isinstance(plant, Placeable) else y


def plant_name(plant: Plant) -> str:
    """What the plant calls itself, or else its type."""
    kind = type(plant)
    return kind.__name__ if kind.__str__ is object.__str__ else str(plant)


def not_offered(
    plant: str, what: str, name: str, offered: Collection[str], where: str
) -> ScenarioError:
    """The error for something of a plant that nobody can change; it tells what can be changed."""
    near = difflib.get_close_matches(name, offered, n=1, cutoff=0.4)
    mend = f"Did you mean {near[0]}? " if near else ""
    return ScenarioError(
        f"{plant} has no {what} {name} that can be changed",
        where=where,
        mend=mend + (f"It offers: {', '.join(offered)}" if offered else "It offers none"),
    )
