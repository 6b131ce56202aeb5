"""Scenarios in a tier that the command line asks for: those that it can run, and those left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from controller.errors import ScenarioError
from controller.settings import ModbusRtuDevice
from hil.scenario.changes import Changes, said
from hil.scenario.load import load_scenario, variants
from hil.scenario.parts import Scenario, Tier


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A scenario that is sound in its own tier and cannot be run in the one asked for.

    Attributes:
        scenario: with the tier that was asked for.
        why: what stands against it; `reason` says more, where it stands and what to do.
    """

    scenario: Scenario
    why: str
    reason: str


def in_tier(
    path: str | Path, changes: Changes, tier: Tier | None
) -> tuple[Sequence[Scenario], Sequence[LeftOut]]:
    """Every variant of the scenario's matrix in `tier`, and those which that tier cannot run.

    Args:
        changes: laid over all of them, as in `variants`.
        tier: None leaves each its own, in which nothing is left out.

    Raises:
        ScenarioError, SettingsError: as `variants`, for what is wrong whatever the tier.
    """
    if tier is None:
        return variants(path, changes), ()
    try:
        return _served(variants(path, {**changes, "tier": tier})), ()
    except ScenarioError:
        natural = variants(path, changes)  # says what is wrong in its own tier too
    fit: list[Scenario] = []
    left_out: list[LeftOut] = []
    for own in _apart_from_tier(natural, changes):
        forced = {**own.changes, "tier": tier}
        try:
            fit += _served([load_scenario(path, forced, variant=own.variant)])
        except ScenarioError as error:
            left_out.append(LeftOut(replace(own, tier=tier), error.what, str(error)))
    return fit, left_out


def _apart_from_tier(scenarios: Sequence[Scenario], changes: Changes) -> Iterator[Scenario]:
    """Each variant once, named without the tier; a matrix may vary that as well."""
    told: set[tuple[str, int]] = set()
    for scenario in scenarios:
        settled = {*changes, "seed", "tier"}
        name = said({p: v for p, v in scenario.changes.items() if p not in settled})
        if (name, scenario.seed) not in told:
            told.add((name, scenario.seed))
            yield replace(scenario, variant=name)


def _served(scenarios: Sequence[Scenario]) -> Sequence[Scenario]:
    """Raises ScenarioError for a device that the tier has no server for."""
    for scenario in scenarios:
        for device in scenario.settings.devices.values():
            if scenario.tier != "virtual" and isinstance(device, ModbusRtuDevice):
                raise serial_line(device.name, scenario)
    return scenarios


def serial_line(device: str, scenario: Scenario) -> ScenarioError:
    """No tier with sockets has serial lines."""
    return ScenarioError(
        f"{device} is on a serial line, which the {scenario.tier} tier does not serve",
        where=str(scenario.path),
        mend="Use a modbus device, or the virtual tier",
    )
