"""The `plc:` section of a scenario: who runs the PLCs, and what goes together with that."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan
from os.path import normpath
from pathlib import Path
from typing import Final, Literal

from controller.errors import ScenarioError
from controller.settings import S7Device, Settings
from hil.plc.awl_wiring import AwlWiring, Channel, terminal
from hil.scenario.file import (
    AwlInputSection,
    AwlOutputSection,
    PlantSection,
    PlcKind,
    ScenarioFile,
)
from hil.scenario.places import Places

_KEYS_OF: Final[Mapping[PlcKind, tuple[str, ...]]] = {
    "virtual": ("loops", "indicators", "noise"),
    "awlsim": ("program", "symbols", "inputs", "outputs"),
    "external": (),
}
"""Keys of the section that only one kind of PLC has."""


def check_plc(shape: ScenarioFile, settings: Settings, places: Places) -> None:
    """
    Raises:
        ScenarioError: plant, PLC and tier do not go together, or a key belongs to another kind.
    """
    kind = shape.plc.kind
    if kind == "external":
        _check_external(shape, places)
    for other, keys in _KEYS_OF.items():
        for key in keys:
            if other != kind and getattr(shape.plc, key):
                raise ScenarioError(
                    f"{key} means nothing to a PLC of the kind {kind}",
                    where=places.where("plc", key),
                    mend=f"Leave it out, or use kind: {other}",
                )
    if kind == "external":
        return
    if shape.plant is None:
        raise ScenarioError(
            f"a PLC of the kind {kind} needs a plant",
            where=places.where("plc"),
            mend="Add plant: {ref: package.module:factory}",
        )
    if kind == "virtual":
        _check_loops(shape, settings, places)


def plant_section(shape: ScenarioFile) -> PlantSection:
    """The plant; an empty one behind external PLCs."""
    return shape.plant or PlantSection(ref="-")


def scan_time_s(shape: ScenarioFile, places: Places) -> float:
    """
    Raises:
        ScenarioError: no PLC scans so fast, or ever.
    """
    scan_s = places.seconds(shape.plc.scan, "plc", "scan")
    if not 1e-3 <= scan_s < float("inf"):
        raise ScenarioError(
            f"no PLC scans every {scan_s:g} s",
            where=places.where("plc", "scan"),
            mend="Write 1 ms or more, such as 1 s",
        )
    return scan_s


def resolve_awl(
    shape: ScenarioFile, settings: Settings, folder: Path, places: Places
) -> AwlWiring | None:
    """The Statement List program and its wiring; None where another kind of PLC is wanted.

    Args:
        folder: of the scenario file, where a relative program is looked for.

    Raises:
        ScenarioError: the program is missing, the application has other devices than one S7, or a
            signal is wired to no address, or two to one.
    """
    plc = shape.plc
    if plc.kind != "awlsim":
        return None
    if not plc.program:
        raise ScenarioError(
            "a PLC of the kind awlsim needs a program",
            where=places.where("plc"),
            mend="Add program: file.awl, relative to this file",
        )
    program = _existing(folder / plc.program, places.where("plc", "program"))
    symbols = None
    if plc.symbols:
        symbols = _existing(folder / plc.symbols, places.where("plc", "symbols"))
    devices = list(settings.devices.values())
    if len(devices) != 1 or not isinstance(devices[0], S7Device):
        have = ", ".join(
            f"{d.name} ({'s7' if isinstance(d, S7Device) else 'modbus'})" for d in devices
        )
        raise ScenarioError(
            f"a Statement List program runs in one S7 PLC, and the application has {have}",
            where=places.where("plc", "kind"),
            mend="Use a virtual PLC, or an application with one device of the driver s7",
        )
    return AwlWiring(
        program=program,
        symbols=symbols,
        scan_s=scan_time_s(shape, places),
        inputs=_channels(plc.inputs, "inputs", places),
        outputs=_channels(plc.outputs, "outputs", places),
        where=places.where("plc", "program"),
    )


def _existing(path: Path, where: str) -> Path:
    path = Path(normpath(path))
    if not path.is_file():
        raise ScenarioError(
            f"there is no file {path}", where=where, mend="Write its path relative to this file"
        )
    return path


def _channels(
    wired: Mapping[str, str | AwlInputSection] | Mapping[str, str | AwlOutputSection],
    side: Literal["inputs", "outputs"],
    places: Places,
) -> tuple[Channel, ...]:
    if not wired:
        raise ScenarioError(
            f"no signal of the plant is wired to the {side} of the PLC",
            where=places.where("plc"),
            mend=f"Add {side}: {{DB21.DBD28: name}}, with a name of the plant's",
        )
    found: dict[object, Channel] = {}
    for address, given in wired.items():
        where = places.where("plc", side, address)
        channel = _channel(address, given, side, where)
        key: object = channel.terminal if side == "inputs" else channel.signal
        if key in found:
            raise ScenarioError(
                f"{found[key].address} and {address} are the same"
                + (" place" if side == "inputs" else f" plant input, {channel.signal}"),
                where=where,
                mend="Leave one of them out",
            )
        found[key] = channel
    return tuple(found.values())


def _channel(
    address: str,
    given: str | AwlInputSection | AwlOutputSection,
    side: Literal["inputs", "outputs"],
    where: str,
) -> Channel:
    place = terminal(address, side, where)
    if isinstance(given, str):
        return Channel(address, place, given, nan, nan, 0.0, where)
    low, high = given.range or (nan, nan)
    if given.range and not (isfinite(high - low) and low < high):
        raise ScenarioError(
            f"no signal has the range [{low:g}, {high:g}]",
            where=where,
            mend="Write the value at 0 first, then the greater one at 27648",
        )
    if isinstance(given, AwlInputSection):
        return Channel(address, place, given.measures, low, high, given.noise, where)
    return Channel(address, place, given.drives, low, high, 0.0, where)


def _check_external(shape: ScenarioFile, places: Places) -> None:
    too_much = [
        name
        for name, given in (
            ("plant", shape.plant is not None),
            *((f"plc.{key}", bool(getattr(shape.plc, key))) for key in _KEYS_OF["virtual"]),
            ("profiles", bool(shape.profiles)),
            ("lab", bool(shape.lab)),
        )
        if given
    ]
    if too_much:
        raise ScenarioError(
            f"an external PLC has its own plant, so {', '.join(too_much)} means nothing",
            where=places.where("plc", "kind"),
            mend="Leave it out, or use a virtual PLC",
        )
    if shape.tier != "realtime" or shape.clock.speed != 1.0:
        raise ScenarioError(
            f"an external PLC keeps its own time, not that of the {shape.tier} tier",
            where=places.where("plc", "kind"),
            mend="Use the realtime tier at speed 1",
        )


def _check_loops(shape: ScenarioFile, settings: Settings, places: Places) -> None:
    missing = [mv.name for mv in settings.manipulated if mv.name not in shape.plc.loops]
    if missing:
        raise ScenarioError(
            f"the PLC has no loop for the manipulated variable {', '.join(missing)}",
            where=places.where("plc", "loops"),
            mend="Add one of that name",
        )
