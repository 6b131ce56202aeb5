"""The verbs through which people tell a running application something: command and lab."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import Any

from controller.clock import SystemClock
from controller.errors import SettingsError
from controller.signal import Command, CommandKind, QualityResult
from controller.terminal import Verb, iso, json_flag, print_json, results, time_of

# --- command ---------------------------------------------------------------------------------


def _configure_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="application file")
    parser.add_argument("kind", choices=[kind.value for kind in CommandKind])
    parser.add_argument("words", nargs="*", help="MV or CV and value; or off|manual|auto|on|hold")
    parser.add_argument("--at", default="", help="forecast: from when on, ISO 8601 with time zone")
    parser.add_argument("--who", default="", help="name for the audit")
    parser.add_argument("--why", default="", help="reason for the audit")
    parser.add_argument("--data", type=Path, help="data directory (default: from the file)")
    json_flag(parser)


_WORDS = {
    CommandKind.MODE: ("off", "manual", "auto"),
    CommandKind.OPTIMIZER: ("on", "hold"),
    CommandKind.REARM: (),
}


def _command(arguments: argparse.Namespace) -> int:
    from controller.historian.events import EventStore
    from controller.settings import load

    settings = load(arguments.config)
    kind, words = CommandKind(arguments.kind), list(arguments.words)
    target, value, text = "", None, ""
    if kind in _WORDS:
        allowed = _WORDS[kind]
        text = words[0] if words else ""
        if len(words) > 1 or ((text not in allowed) if allowed else bool(words)):
            raise SettingsError(
                f"{kind} does not take {' '.join(words) or 'nothing'}",
                where=f"command {kind}",
                mend=f"Write {kind} {'|'.join(allowed)}".strip(),
            )
    elif kind is CommandKind.FORECAST:
        target, value, text = _expected(words, arguments.at, settings)
    else:
        target, value = _target(kind, words, settings)
    command = Command(
        command_id=str(uuid.uuid4()),
        kind=kind,
        time_ns=SystemClock().time_ns(),
        target=target,
        value=value,
        text=text,
        who=arguments.who,
        why=arguments.why,
    )
    with EventStore(arguments.data or settings.data_dir) as store:
        event = store.add_command(command)
    _said(arguments, f"command {kind} {' '.join(words)} is kept as event {event}", event)
    return 0


def _expected(words: list[str], at: str, settings: Any) -> tuple[str, float | None, str]:
    """Disturbance, value and time of a forecast; without a value it is withdrawn."""
    known = {variable.name: variable for variable in settings.model.d}
    name = words[0] if words else ""
    if name not in known or len(words) > 2:
        raise SettingsError(
            f"forecast takes a disturbance and a value, not {' '.join(words) or 'nothing'}",
            where="command forecast",
            mend=f"Use one of: {', '.join(known) or 'none, the model has no measured disturbance'}",
        )
    if len(words) == 1:
        return name, None, ""
    variable = known[name]
    try:
        value = float(words[1])
    except ValueError:
        value = float("nan")
    if not variable.low <= value <= variable.high:
        raise SettingsError(
            f"{words[1]} is not inside [{variable.low:g}, {variable.high:g}] {variable.unit}",
            where=f"command forecast {name}",
            mend="Choose a value that the model knows",
        )
    return name, value, str(time_of(at, "--at"))


def _target(kind: CommandKind, words: list[str], settings: Any) -> tuple[str, float]:
    """Name and value of a command, refused here if the loop would refuse them."""
    outputs = {variable.name: variable for variable in settings.model.y}
    ranges = {
        cv.output: (max(cv.low, outputs[cv.output].low), min(cv.high, outputs[cv.output].high))
        for cv in settings.controlled
        if kind is not CommandKind.SETPOINT or cv.setpoint is not None
    }
    ranges |= {mv.name: (mv.low, mv.high) for mv in settings.manipulated}
    try:
        name, number = words
        value = float(number)
    except ValueError:
        raise SettingsError(
            f"{kind} takes a name and a number, not {' '.join(words) or 'nothing'}",
            where=f"command {kind}",
            mend=f"For example: {kind} {next(iter(ranges))} 4.5",
        ) from None
    if name not in ranges:
        raise SettingsError(
            f"there is no MV or CV {name} that takes a {kind}",
            where=f"command {kind}",
            mend=f"Use one of: {', '.join(ranges)}",
        )
    low, high = ranges[name]
    if not low <= value <= high:
        raise SettingsError(
            f"{number} is outside the engineering limits [{low:g}, {high:g}] of {name}",
            where=f"command {kind}",
            mend="Choose a value inside them",
        )
    return name, value


def _said(arguments: argparse.Namespace, text: str, event: int) -> None:
    if arguments.json:
        print_json({"event": event, "text": text})
    else:
        results().print(text, markup=False)


# --- lab -------------------------------------------------------------------------------------


def _configure_lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="application file")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (("add", "enter a result"), ("correct", "replace a result, keeping both")):
        action = actions.add_parser(name, help=what)
        action.add_argument("source", help="quality source, e.g. assay")
        action.add_argument("values", nargs="+", metavar="OUTPUT=VALUE", help="e.g. xA=0.118")
        action.add_argument("--sampled", required=True, help="when the SAMPLE was drawn, ISO 8601")
        action.add_argument("--id", required=name == "correct", help="number of the result")
        action.add_argument("--lot", default="", help="lot it belongs to")
        action.add_argument("--who", default="", help="name for the audit")
        action.add_argument("--why", default="", help="reason, for a correction")
        action.add_argument("--data", type=Path, help="data directory (default: from the file)")
        json_flag(action)
    listing = actions.add_parser("list", help="results entered so far")
    listing.add_argument("--data", type=Path, help="data directory (default: from the file)")
    json_flag(listing)


def _lab(arguments: argparse.Namespace) -> int:
    from controller.historian.events import EventStore
    from controller.settings import load

    settings = load(arguments.config)
    directory: Path = arguments.data or settings.data_dir
    if arguments.action == "list":
        return _lab_list(arguments, directory)
    result = _result(arguments, settings)
    with EventStore(directory) as store:
        if arguments.action == "add":
            event = store.add_quality_result(result)
        else:
            event = store.correct_quality_result(result, who=arguments.who, why=arguments.why)
    _said(arguments, f"result {result.result_id} is kept as event {event}", event)
    return 0


def _lab_list(arguments: argparse.Namespace, directory: Path) -> int:
    from controller.historian.lab_results import quality_results

    entries = quality_results(directory)
    if arguments.json:
        listed = [
            {
                "id": entry.current.result_id,
                "source": entry.current.source,
                "sampled": iso(entry.current.time_ns),
                "received": iso(entry.current.received_ns),
                "values": dict(entry.current.values),
                "corrected": entry.corrected,
            }
            for entry in entries
        ]
        print_json({"results": listed})
        return 0
    for entry in entries:
        values = ", ".join(f"{k} = {v:g}" for k, v in entry.current.values.items())
        mark = "  (corrected)" if entry.corrected else ""
        results().print(
            f"{iso(entry.current.time_ns)}  {entry.current.result_id}  {values}{mark}",
            markup=False,
        )
    return 0


def _result(arguments: argparse.Namespace, settings: Any) -> QualityResult:
    source = settings.quality.get(arguments.source)
    if source is None:
        raise SettingsError(
            f"there is no quality source {arguments.source}",
            where=settings.where("quality"),
            mend=f"Use one of: {', '.join(settings.quality) or 'none is configured'}",
        )
    values = _measured(arguments.values, settings, source)
    now_ns = SystemClock().time_ns()
    sampled_ns = time_of(arguments.sampled, "--sampled")
    if sampled_ns > now_ns:
        raise SettingsError(
            f"the sample would be drawn in the future ({iso(sampled_ns)})",
            where="--sampled",
            mend="Give the time at which it was drawn, with its time zone",
        )
    return QualityResult(
        result_id=arguments.id or f"{source.name}-{iso(sampled_ns)}",
        source=source.name,
        time_ns=sampled_ns,
        received_ns=now_ns,
        values=values,
        lot_id=arguments.lot,
    )


def _measured(pairs: list[str], settings: Any, source: Any) -> dict[str, float]:
    """The values of a result, each named once, measured by its source, and believable."""
    believable = {variable.name: variable for variable in settings.model.y}
    where = settings.where(f"quality.{source.name}.measures")
    values: dict[str, float] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise SettingsError(
                f"{pair!r} is not OUTPUT=VALUE", where="lab", mend="For example: xA=0.118"
            ) from None
        if name not in source.sigma:
            raise SettingsError(
                f"{source.name} does not measure {name}",
                where=where,
                mend=f"It measures {', '.join(source.sigma)}",
            )
        if name in values:
            raise SettingsError(f"{name} is given twice", where="lab", mend="Give it once")
        output = believable[name]
        if not output.low <= value <= output.high:
            raise SettingsError(
                f"{name} = {number} {output.unit} is outside [{output.low:g}, {output.high:g}]",
                where="lab",
                mend=f"Give {name} in {output.unit}, as the laboratory reported it",
            )
        values[name] = value
    return values


ENTRY_VERBS = (
    Verb(
        "command",
        "Tell a running application what to do: mode, setpoints, limits, re-arm.",
        "loopwright command plant.yaml mode auto --who 'M. Weber' --why 'start of shift'",
        _configure_command,
        _command,
    ),
    Verb(
        "lab",
        "Enter, correct and list lab results; kept before it answers.",
        "loopwright lab plant.yaml add assay xA=0.118 --sampled 2026-03-01T14:30:00+01:00",
        _configure_lab,
        _lab,
    ),
)
