"""The plant and the virtual PLCs that a scenario describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from controller.errors import LoopwrightError, ScenarioError
from controller.settings.plant_reference import accepted_names, call_factory, find_factory
from hil.plc.virtual import VirtualPlc
from hil.plc_memory import DeviceMemory
from hil.scenario.parts import Scenario
from plant_models.process import Adjustable, Plant


def make_plant(scenario: Scenario) -> Plant:
    """The plant that the scenario names, as unlike its model as the scenario's mismatch says.

    Raises:
        ScenarioError: there is no such factory, it refuses its arguments, or the plant has no
            such parameter.
    """
    plant = made(scenario, scenario.plant_arguments)
    if not scenario.mismatch:
        return plant
    known = plant.parameters if isinstance(plant, Adjustable) else {}
    for name in scenario.mismatch:
        if name not in known:
            raise ScenarioError(
                f"{scenario.plant_ref} has no parameter {name}",
                where=f"{scenario.path} plant.mismatch.{name}",
                mend=f"It has: {', '.join(known) or 'none'}",
            )
    # Made anew, so that it is at rest with these parameters.
    factors = {name: known[name] * factor for name, factor in scenario.mismatch.items()}
    return made(scenario, {**scenario.plant_arguments, **factors})


def made(scenario: Scenario, arguments: Mapping[str, Any]) -> Plant:
    """The plant with these arguments, whatever the mismatch.

    Raises:
        ScenarioError: as `make_plant`.
    """
    where = f"{scenario.path} plant"
    try:
        factory = find_factory(scenario.plant_ref, scenario.path.parent)
        if "folder" in accepted_names(factory):
            # Files that it names lie where the scenario lies.
            arguments = {"folder": str(scenario.path.parent), **arguments}
        plant = call_factory(factory, scenario.plant_ref, arguments)
    except ScenarioError as error:
        raise ScenarioError(
            error.what, where=f"{where} {error.where}".strip(), mend=error.mend
        ) from error
    except LoopwrightError as error:
        raise ScenarioError(
            f"the plant {scenario.plant_ref} cannot be made: {error.what}",
            where=where,
            mend=error.mend or "Correct its reference or its arguments",
        ) from error
    if not (hasattr(plant, "advance") and hasattr(plant, "reset") and hasattr(plant, "outputs")):
        raise ScenarioError(
            f"{scenario.plant_ref} made a {type(plant).__name__}, which is no plant",
            where=f"{scenario.path} plant.ref",
            mend="A plant has inputs, outputs, reset(seed) and advance(u, dt_s)",
        )
    return cast("Plant", plant)


def plc_around(plant: Plant, scenario: Scenario, memory: Mapping[str, DeviceMemory]) -> VirtualPlc:
    """The virtual PLCs of a scenario around its plant, at power-up.

    Raises:
        ScenarioError: the plant does not fit the loops.
    """
    settings = scenario.settings
    handshakes = {
        device.name: device.handshake
        for device in settings.devices.values()
        if device.handshake is not None
    }
    return VirtualPlc(
        plant,
        scenario.loops,
        scenario.indicators,
        memory,
        handshakes,
        cycle_s=settings.cycle_s,
        watchdog_cycles=settings.guard.watchdog_cycles,
        seed=scenario.seed,
        noise=scenario.noise,
        x0=scenario.x0,
    )
