"""Faults, commands and profiles of a scenario file, checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from controller.errors import ScenarioError
from controller.settings import S7Device, Settings
from hil.faults.kinds import (
    HOST,
    Driver,
    Fault,
    Where,
    check_driver,
    check_fault,
    check_overlaps,
    check_tier,
)
from hil.faults.solver import SolverFault
from hil.names import unknown_name
from hil.scenario.file import ScenarioFile, SolverFaultSection
from hil.scenario.parts import Profile, ScheduledCommand
from hil.scenario.places import Places


def resolve_faults(shape: ScenarioFile, settings: Settings, places: Places) -> tuple[Fault, ...]:
    """The faults, with types, arguments, times and targets checked.

    Raises:
        ScenarioError: with file:line:column; what a plant parameter or input is called only the
            plant knows, and says when it is made.
    """
    faults = tuple(
        Fault(
            places.seconds(f.at, "faults", i, "at"),
            places.seconds(f.until, "faults", i, "until"),
            f.target,
            f.type,
            f.args,
        )
        for i, f in enumerate(shape.faults)
    )
    targets = _targets(shape, settings)
    for i, fault in enumerate(faults):
        where: Where = partial(places.where, "faults", i)
        check_fault(fault, where)
        lane = fault.lane
        if lane == "loop" and shape.plc.kind == "awlsim":
            raise ScenarioError(
                f"{fault.type} is a fault of a virtual PLC's loop, and here the loops are the "
                "program's own",
                where=where("type"),
                mend="Break a transmitter, the link or the plant instead, or use a virtual PLC",
            )
        if lane in targets and fault.target not in targets[lane]:
            what = f"{lane} for {fault.type}"
            raise unknown_name(what, fault.target, targets[lane], where("target"))
        if lane == "link":
            check_driver(fault.type, _driver_of(settings, fault.target), fault.target, where)
        _in_time(fault.at_s, shape, places, "faults", i, "at")
    try:
        check_overlaps(faults)
        check_tier(faults, shape.tier)
    except ScenarioError as error:
        number = int(error.where.partition("[")[2].partition("]")[0])
        raise ScenarioError(
            error.what, where=places.where("faults", number), mend=error.mend
        ) from error
    return faults


def resolve_commands(shape: ScenarioFile, places: Places) -> tuple[ScheduledCommand, ...]:
    found: list[ScheduledCommand] = []
    for i, c in enumerate(shape.commands):
        at_s = places.seconds(c.at, "commands", i, "at")
        _in_time(at_s, shape, places, "commands", i, "at")
        found.append(ScheduledCommand(at_s, c.kind, c.target, c.value, c.text))
    return tuple(sorted(found, key=lambda command: command.at_s))


def resolve_profiles(shape: ScenarioFile, places: Places) -> tuple[Profile, ...]:
    found: list[Profile] = []
    for i, p in enumerate(shape.profiles):
        at_s = places.seconds(p.at, "profiles", i, "at")
        _in_time(at_s, shape, places, "profiles", i, "at")
        over_s = places.seconds(p.over, "profiles", i, "over")
        found.append(Profile(p.input, at_s, p.to, over_s))
    return tuple(found)


def resolve_solver_fault(number: int, section: SolverFaultSection, places: Places) -> SolverFault:
    here = ("solver_faults", number)
    return SolverFault(
        places.seconds(section.at, *here, "at"),
        places.seconds(section.until, *here, "until"),
        section.solver,
        section.kind,
        places.seconds(section.delay, *here, "delay"),
        places.where(*here),
    )


def _targets(shape: ScenarioFile, settings: Settings) -> Mapping[str, Collection[str]]:
    """What a fault of each lane may act on, as far as the files say."""
    measured = [loop.pv for loop in shape.plc.loops.values()] + list(shape.plc.indicators)
    if shape.plc.kind == "awlsim":
        # At the program's input, which it sees itself, or behind it where it is published.
        measured = [*shape.plc.inputs, *(m.tag for m in settings.measured)]
    return {
        "sensor": measured,
        "quality": list(shape.lab),
        "loop": list(shape.plc.loops),
        "device": list(settings.devices),
        "link": list(settings.devices),
        "host": [HOST],
    }


def _driver_of(settings: Settings, device: str) -> Driver:
    return "s7" if isinstance(settings.devices[device], S7Device) else "modbus"


def _in_time(at_s: float, shape: ScenarioFile, places: Places, *place: str | int) -> None:
    """Refuses what would never happen: most likely a unit is wrong."""
    duration_s = places.seconds(shape.duration, "duration")
    if not 0.0 <= at_s < duration_s:
        raise ScenarioError(
            f"at {at_s:g} s nothing can happen in a scenario of {duration_s:g} s",
            where=places.where(*place),
            mend="Correct the time or the duration",
        )
