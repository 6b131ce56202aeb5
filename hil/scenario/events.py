"""Faults and profiles of a scenario file, checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Final, get_args

from controller.errors import ScenarioError
from controller.settings import S7Device, Settings
from hil.faults.kinds import (
    HOST,
    KINDS,
    Driver,
    Fault,
    Lane,
    Where,
    check_driver,
    check_fault,
    check_overlaps,
    check_tier,
    kind_of,
)
from hil.faults.solver import SolverFault, SolverFaultKind
from hil.faults.span import Measure
from hil.names import unknown_name
from hil.scenario.file import FaultSection, ScenarioFile, SolverFaultSection
from hil.scenario.parts import Profile
from hil.scenario.places import Places

_COUNTED_IN: Final[Mapping[Measure, str]] = {
    "tag": ", in that of the plant output",
    "tag difference": ", in that of the plant output",
    "tag per s": ", in that of the plant output per second",
    "output": ", in that of the loop's output",
    "output per s": ", in that of the loop's output per second",
    "plant input": ", in that of the plant input",
}


def resolve_faults(shape: ScenarioFile, settings: Settings, places: Places) -> tuple[Fault, ...]:
    """The faults, with types, arguments, times and targets checked.

    Raises:
        ScenarioError: with file:line:column; what a plant parameter or input is called only the
            plant knows, and says when it is made.
    """
    targets = _targets(shape, settings)
    faults = tuple(
        _fault(i, f, shape, settings, places, targets) for i, f in enumerate(shape.faults)
    )
    try:
        check_overlaps(faults)
        check_tier(faults, shape.tier)
    except ScenarioError as error:
        number = int(error.where.partition("[")[2].partition("]")[0])
        raise ScenarioError(
            error.what, where=places.where("faults", number), mend=error.mend
        ) from error
    return faults


def _fault(
    number: int,
    section: FaultSection,
    shape: ScenarioFile,
    settings: Settings,
    places: Places,
    targets: Mapping[str, Collection[str]],
) -> Fault:
    here = ("faults", number)
    where: Where = partial(places.where, *here)
    lane = _lane(section, shape, where)
    if lane in targets and section.target not in targets[lane]:
        what = f"{lane} for {section.type}"
        raise unknown_name(what, section.target, targets[lane], where("target"))
    fault = Fault(
        places.seconds(section.at, *here, "at"),
        places.seconds(section.until, *here, "until"),
        section.target,
        section.type,
        {
            name: _amount(section, name, settings, places, *here, "args", name)
            for name in section.args
        },
    )
    check_fault(fault, where)
    if lane == "link":
        check_driver(fault.type, _driver_of(settings, fault.target), fault.target, where)
    places.in_time(fault.at_s, shape.duration, *here, "at")
    return fault


def _lane(section: FaultSection, shape: ScenarioFile, where: Where) -> Lane:
    """What the fault acts on, if there is one of this type."""
    if section.type in get_args(SolverFaultKind) and section.type not in KINDS:
        raise ScenarioError(
            f"{section.type} is a fault of a solver",
            where=where("type"),
            mend=f"Write it under solver_faults, with solver and kind: {section.type}",
        )
    lane = kind_of(section.type, where).lane
    if lane == "loop" and shape.plc.kind == "awlsim":
        raise ScenarioError(
            f"{section.type} is a fault of a virtual PLC's loop, and here the loops are the "
            "program's own",
            where=where("type"),
            mend="Break a transmitter, the link or the plant instead, or use a virtual PLC",
        )
    return lane


def _amount(
    section: FaultSection, name: str, settings: Settings, places: Places, *place: str | int
) -> float:
    """An argument as a number; what is written with a unit is converted to the one it has."""
    written = section.args[name]
    span = KINDS[section.type].arguments.get(name)
    if not isinstance(written, str) or span is None:
        return 0.0 if isinstance(written, str) else float(written)
    match span.measure:
        case "s" | "ms" as unit:
            return places.value(written, unit, *place)
        case "tag" | "tag difference" | "tag per s" if section.target in settings.tags:
            spread = {"tag": None, "tag difference": ""}.get(span.measure, "s")
            unit = settings.tags[section.target].unit
            return places.value(written, unit, *place, spread=spread)
        case "setpoint":
            mv = next(mv for mv in settings.manipulated if mv.name == section.target)
            return places.value(written, settings.tags[mv.setpoint].unit, *place)
        case measure:
            raise ScenarioError(
                f"{name} of {section.type} is a plain number, and this is {written!r}",
                where=places.where(*place),
                mend=f"Write it without a unit{_COUNTED_IN.get(measure, '')}",
            )


def resolve_profiles(shape: ScenarioFile, places: Places) -> tuple[Profile, ...]:
    found: list[Profile] = []
    for i, p in enumerate(shape.profiles):
        at_s = places.seconds(p.at, "profiles", i, "at")
        places.in_time(at_s, shape.duration, "profiles", i, "at")
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
