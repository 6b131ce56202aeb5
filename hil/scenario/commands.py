"""Operators' commands of a scenario file: what each kind needs, and names that exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controller.errors import ScenarioError
from controller.settings import Settings
from controller.settings.problems import suggestion
from controller.signal import CommandKind
from hil.scenario.file import CommandSection, ScenarioFile
from hil.scenario.parts import ScheduledCommand
from hil.scenario.places import Places

_TEXTS: Final[Mapping[CommandKind, tuple[str, ...]]] = {
    CommandKind.MODE: ("off", "manual", "auto"),
    CommandKind.OPTIMIZER: ("on", "hold"),
}
"""What the text of a command may be."""

_KEYS: Final[Mapping[CommandKind, tuple[str, ...]]] = {
    CommandKind.MODE: ("text",),
    CommandKind.REARM: (),
    CommandKind.SETPOINT: ("target", "value"),
    CommandKind.LIMIT_LOW: ("target", "value"),
    CommandKind.LIMIT_HIGH: ("target", "value"),
    CommandKind.OPTIMIZER: ("text",),
    CommandKind.FORECAST: ("target", "value", "text"),
}
"""Which keys a command has beside `at` and `kind`."""


def resolve_commands(
    shape: ScenarioFile, settings: Settings, places: Places
) -> tuple[ScheduledCommand, ...]:
    """The commands in the order of their times.

    A value outside the range of its variable stays: it is what the controller must refuse, and
    the column `refused_commands` of the history tells that it did.

    Raises:
        ScenarioError: with file:line:column; a key that the kind lacks or does not have, a text,
            variable or unit that does not exist.
    """
    found: list[ScheduledCommand] = []
    for i, c in enumerate(shape.commands):
        at_s = places.seconds(c.at, "commands", i, "at")
        places.in_time(at_s, shape.duration, "commands", i, "at")
        _check_keys(c, i, places)
        value = _value(c, i, settings, places)
        found.append(ScheduledCommand(at_s, c.kind, c.target, value, c.text))
    return tuple(sorted(found, key=lambda command: command.at_s))


def _check_keys(command: CommandSection, number: int, places: Places) -> None:
    kind, here = command.kind, ("commands", number)
    keys = _KEYS[kind]
    given = {"target": command.target, "value": command.value, "text": command.text}
    has = f"It takes {' and '.join(keys)}" if keys else "It takes no further key"
    for key, content in given.items():
        if key not in keys and content not in ("", None):
            raise ScenarioError(
                f"the command {kind} has no {key}", where=places.where(*here, key), mend=has
            )
        optional = kind is CommandKind.FORECAST and key != "target"
        if key in keys and not optional and content in ("", None):
            raise ScenarioError(
                f"the command {kind} needs a {key}",
                where=places.where(*here),
                mend=f"Add {key}: {', '.join(_TEXTS[kind])}" if kind in _TEXTS else f"Add {key}",
            )
    if kind in _TEXTS and command.text not in _TEXTS[kind]:
        raise ScenarioError(
            f"there is no {kind} {command.text!r}",
            where=places.where(*here, "text"),
            mend=suggestion(command.text, _TEXTS[kind]),
        )
    wanted = kind is CommandKind.FORECAST and command.value is not None
    if wanted and not command.text.isdecimal():
        raise ScenarioError(
            "a forecast needs the time from which on its value is expected",
            where=places.where(*here, "text"),
            mend="Write it as text: nanoseconds since 1970-01-01T00:00:00Z",
        )


def _value(
    command: CommandSection, number: int, settings: Settings, places: Places
) -> float | None:
    """The value in the unit of the variable that the command is about, which must exist."""
    if not command.target:
        return None
    kind, here = command.kind, ("commands", number)
    units = _variables(kind, settings)
    if command.target not in units:
        zone = any(cv.output == command.target for cv in settings.controlled)
        raise ScenarioError(
            f"{command.target} has a zone, not a setpoint"
            if zone
            else f"{kind} knows no variable {command.target}",
            where=places.where(*here, "target"),
            mend="Change its limit_low or limit_high"
            if zone
            else suggestion(command.target, units),
        )
    if command.value is None:
        return None
    return places.value(command.value, units[command.target], *here, "value")


def _variables(kind: CommandKind, settings: Settings) -> Mapping[str, str]:
    """What a command of this kind may be about, with the unit of its value."""
    if kind is CommandKind.FORECAST:
        return {variable.name: variable.unit for variable in settings.model.d}
    outputs = {variable.name: variable.unit for variable in settings.model.y}
    found = {mv.name: settings.tags[mv.setpoint].unit for mv in settings.manipulated}
    for cv in settings.controlled:
        if kind is not CommandKind.SETPOINT or cv.setpoint is not None:
            found.setdefault(cv.output, outputs[cv.output])
    return found
