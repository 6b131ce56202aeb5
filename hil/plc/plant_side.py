"""The plant behind a PLC: inputs that it drives, inputs that the world sets, true outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from controller.errors import ScenarioError
from hil.faults.plant import PlantFaults, start
from hil.names import unknown_name
from plant_models.process import Plain, Plant, Vector, names, nominal


@runtime_checkable
class _StartsAtRest(Protocol):
    """A plant that knows the inputs which hold its initial point."""

    @property
    def initial_inputs(self) -> Vector: ...


class PlantSide:
    """A plant at its initial point, and what goes in and out of it.

    Attributes:
        upsets: faults of the plant; they act on what is in force, not on what is set.
    """

    def __init__(
        self, plant: Plant, driven: Collection[str], seed: int, x0: Mapping[str, float]
    ) -> None:
        """Reset the plant.

        Args:
            driven: inputs that the PLC drives.
            x0: states that start elsewhere than at the plant's own initial point.

        Raises:
            ScenarioError: the plant has no such state.
        """
        self.plant = plant
        self._plain = plant if isinstance(plant, Plain) else None
        self._outputs, self._inputs = names(plant.outputs), names(plant.inputs)
        self._y: list[float] = start(plant, seed, x0).tolist()
        rest = plant.initial_inputs if isinstance(plant, _StartsAtRest) else nominal(plant.inputs)
        self._u: Vector = rest.copy()
        self.upsets = PlantFaults(plant, self._u, driven)

    def outputs(self) -> dict[str, float]:
        """True plant outputs by name, in their units: what no transmitter sees exactly."""
        return dict(zip(self._outputs, self._y, strict=True))

    def inputs(self) -> dict[str, float]:
        """Plant inputs in force, by name, in their units: behind faulty valves and upsets."""
        return dict(zip(self._inputs, self.upsets.in_force().tolist(), strict=True))

    def commanded_inputs(self) -> dict[str, float]:
        """Plant inputs as PLC and profiles set them, by name: what is in force without upsets."""
        return dict(zip(self._inputs, self._u.tolist(), strict=True))

    def set_input(self, name: str, value: float) -> None:
        """Set a plant input that the PLC does not drive: a disturbance profile.

        Raises:
            ScenarioError: there is no such input, or the PLC drives it.
        """
        column = self._column(name, name)
        if name not in self.upsets.free_inputs:
            raise ScenarioError(
                f"the plant input {name} is driven by the PLC",
                where=name,
                mend="Change the setpoint of its loop, or one of: "
                f"{', '.join(self.upsets.free_inputs) or 'there is no other'}",
            )
        self._u[column] = value

    def _go_on(self, dt_s: float) -> None:
        """Let the plant go on for dt_s seconds."""
        felt = self.upsets.in_force() if self.upsets.active else self._u
        if self._plain is not None:
            self._y = self._plain.advance_plain(felt.tolist(), dt_s)
        else:
            self._y = self.plant.advance(felt, dt_s).tolist()

    def _column(self, name: str, where: str) -> int:
        """Which input it is; ScenarioError where there is none of this name."""
        return _index(self._inputs, name, "plant input", where)

    def _row(self, name: str, where: str) -> int:
        """Which output it is; ScenarioError where there is none of this name."""
        return _index(self._outputs, name, "plant output", where)


def _index(known: tuple[str, ...], name: str, what: str, where: str) -> int:
    if name not in known:
        raise unknown_name(what, name, known, where)
    return known.index(name)
