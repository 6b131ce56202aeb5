"""Builds the plant and the PLCs of a scenario once, to find what only they can tell of the file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final, Protocol, runtime_checkable

from controller.errors import ScenarioError
from controller.wiring import typed_tags
from hil.faults.schedule import check_in_world, check_plant_fault
from hil.names import unknown_name
from hil.plc.plant_side import PlantSide
from hil.plc_memory import DeviceMemory
from hil.scenario.file import ScenarioFile
from hil.scenario.parts import Scenario
from hil.scenario.places import Places
from hil.scenario.plant import made, plc_around
from hil.scenario.signals import check_assertions, signals_of
from plant_models.process import Adjustable, Placeable, Plant, names

_SOUND: Final[set[bytes]] = set()
"""What was rehearsed in this process: a campaign loads the same file for each of its jobs."""


@runtime_checkable
class _Closing(Protocol):
    """A plant that holds a process or a file until it is closed."""

    def close(self) -> None: ...


def rehearse(scenario: Scenario, shape: ScenarioFile, places: Places) -> None:
    """Refuse what names nothing of the plant, before anything runs.

    Raises:
        ScenarioError: with file:line:column; the plant cannot be made, or it has no such input,
            output, state or parameter; an assertion is about a signal that no run will have.
    """
    if scenario.external:
        outputs = [measured.output for measured in scenario.settings.measured]
        check_assertions(shape, signals_of(scenario, outputs, ()), places)
        return
    told = _told(scenario, shape)
    if told in _SOUND:
        return
    with places.told_at("plant"):
        # Without the mismatch: its parameters are those that a mismatch may name.
        plant = made(scenario, scenario.plant_arguments)
    try:
        _check_plant(_Rehearsal(scenario, shape, places, plant))
    finally:
        if isinstance(plant, _Closing):
            plant.close()
    _SOUND.add(told)


def _told(scenario: Scenario, shape: ScenarioFile) -> bytes:
    """A digest of all that a rehearsal looks at: no seed, and no size of a mismatch."""
    plant = shape.plant and shape.plant.model_copy(update={"mismatch": {}})
    said = repr(shape.model_copy(update={"seed": 0, "matrix": {}, "plant": plant}))
    parts = (str(scenario.path), said, *sorted(scenario.mismatch), scenario.settings.text)
    return sha256("\0".join(parts).encode()).digest()


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """A scenario, where it stands in its file, and its plant."""

    scenario: Scenario
    shape: ScenarioFile
    places: Places
    plant: Plant

    @property
    def outputs(self) -> tuple[str, ...]:
        return names(self.plant.outputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        return names(self.plant.inputs)

    def known(self, what: str, name: str, there: Collection[str], *place: str | int) -> None:
        if name not in there:
            raise unknown_name(what, name, there, self.places.where(*place))


def _check_plant(about: _Rehearsal) -> None:
    scenario, places, plant = about.scenario, about.places, about.plant
    _check_wiring(about)
    parameters = plant.parameters if isinstance(plant, Adjustable) else {}
    for name in scenario.mismatch:
        about.known("parameter of the plant", name, parameters, "plant", "mismatch", name)
    states = plant.states if isinstance(plant, Placeable) else {}
    for name in scenario.x0:
        about.known("state of the plant", name, states, "plant", "x0", name)
    for i, profile in enumerate(scenario.profiles):
        about.known("plant input", profile.input, about.inputs, "profiles", i, "input")
        if profile.input in _driven(scenario):
            raise ScenarioError(
                f"the plant input {profile.input} is driven by the PLC",
                where=places.where("profiles", i, "input"),
                mend="Change the setpoint of its loop, or take another input",
            )
    _check_faults(about)
    signals = signals_of(scenario, about.outputs, about.inputs)
    check_assertions(about.shape, signals, places)


def _driven(scenario: Scenario) -> set[str]:
    """Plant inputs that the PLCs drive."""
    if scenario.awl is not None:
        return {channel.signal for channel in scenario.awl.outputs}
    return {loop.drives for loop in scenario.loops}


def _check_wiring(about: _Rehearsal) -> None:
    scenario, here = about.scenario, ("plc", "loops")
    for loop in scenario.loops:
        about.known("plant output", loop.measures, about.outputs, *here, loop.name, "measures")
        about.known("plant input", loop.drives, about.inputs, *here, loop.name, "drives")
    for tag, output in scenario.indicators.items():
        about.known("plant output", output, about.outputs, "plc", "indicators", tag)
    if scenario.awl is not None:
        for channel in scenario.awl.inputs:
            about.known(
                "plant output", channel.signal, about.outputs, "plc", "inputs", channel.address
            )
        for channel in scenario.awl.outputs:
            about.known(
                "plant input", channel.signal, about.inputs, "plc", "outputs", channel.address
            )


def _check_faults(about: _Rehearsal) -> None:
    scenario, places = about.scenario, about.places
    if scenario.awl is not None:
        with places.told_at("plant"):
            upsets = PlantSide(about.plant, _driven(scenario), scenario.seed, scenario.x0).upsets
        for i, fault in enumerate(scenario.faults):
            if fault.lane == "plant":
                check_plant_fault(fault, upsets, partial(places.where, "faults", i))
        return
    tags = typed_tags(scenario.settings)
    memory = {name: DeviceMemory(name, tags.values()) for name in scenario.settings.devices}
    with places.told_at("plc"):
        plc = plc_around(about.plant, scenario, memory)
    for i, fault in enumerate(scenario.faults):
        check_in_world(fault, plc, plc.sensors, partial(places.where, "faults", i))
