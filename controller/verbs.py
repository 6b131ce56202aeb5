"""The verbs of the controller itself: check, schema, run, command, lab, replay."""

from __future__ import annotations

import argparse
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.clock import SystemClock
from controller.errors import ReplayError, SettingsError
from controller.signal import NS_PER_S, Command, CommandKind, QualityResult
from controller.terminal import Verb, messages, print_json, progress_bar, results


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


# --- check -----------------------------------------------------------------------------------


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="+", type=Path, help="application files")
    _json_flag(parser)


def _check(arguments: argparse.Namespace) -> int:
    from controller.app import check_application

    problems: list[SettingsError] = []
    sound: list[str] = []
    for path in arguments.config:
        try:
            sound.append(f"{path}: {check_application(path)}")
        except SettingsError as error:
            problems.extend(error.problems)
    if arguments.json:
        listed = [{"what": p.what, "where": p.where, "mend": p.mend} for p in problems]
        print_json({"passed": not problems, "sound": sound, "problems": listed})
    else:
        for line in sound:
            results().print(f"ok  {line}", markup=False, soft_wrap=True)
        for problem in problems:
            messages().print(f"error: {problem}", style="bold red", markup=False)
    return 2 if problems else 0


# --- schema ----------------------------------------------------------------------------------


def _schema(arguments: argparse.Namespace) -> int:
    from controller.settings import json_schema

    print_json(json_schema())
    return 0


# --- run -------------------------------------------------------------------------------------


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="application file")
    parser.add_argument("--dry-run", action="store_true", help="decide and journal, write nothing")
    parser.add_argument("--data", type=Path, help="data directory (default: from the file)")
    parser.add_argument("--cycles", type=int, help="stop after that many cycles")
    parser.add_argument(
        "--mode",
        choices=("off", "manual", "auto"),
        help="mode to ask for at the start (default: manual, which writes nothing)",
        default="manual",
    )
    _json_flag(parser)


def _run(arguments: argparse.Namespace) -> int:
    from controller.service import run_application

    summary = run_application(
        arguments.config,
        data_dir=arguments.data,
        dry_run=arguments.dry_run,
        cycles=arguments.cycles,
        mode=arguments.mode,
    )
    if arguments.json:
        print_json(summary)
    return 0


# --- command ---------------------------------------------------------------------------------


def _configure_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="application file")
    parser.add_argument("kind", choices=[kind.value for kind in CommandKind])
    parser.add_argument("words", nargs="*", help="MV or CV and value; or off|manual|auto|on|hold")
    parser.add_argument("--who", default="", help="name for the audit")
    parser.add_argument("--why", default="", help="reason for the audit")
    parser.add_argument("--data", type=Path, help="data directory (default: from the file)")
    _json_flag(parser)


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
        _json_flag(action)
    listing = actions.add_parser("list", help="results entered so far")
    listing.add_argument("--data", type=Path, help="data directory (default: from the file)")
    _json_flag(listing)


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
                "sampled": _iso(entry.current.time_ns),
                "received": _iso(entry.current.received_ns),
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
            f"{_iso(entry.current.time_ns)}  {entry.current.result_id}  {values}{mark}",
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
    sampled_ns = _time_ns(arguments.sampled, "--sampled")
    if sampled_ns > now_ns:
        raise SettingsError(
            f"the sample would be drawn in the future ({_iso(sampled_ns)})",
            where="--sampled",
            mend="Give the time at which it was drawn, with its time zone",
        )
    return QualityResult(
        result_id=arguments.id or f"{source.name}-{_iso(sampled_ns)}",
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


def _time_ns(text: str, option: str) -> int:
    mend = "Write it with its time zone: 2026-03-01T14:30:00+01:00"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is not a time", where=option, mend=mend) from None
    if moment.tzinfo is None:
        raise SettingsError(f"{text!r} has no time zone", where=option, mend=mend)
    return round(moment.timestamp() * 1e6) * 1000


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / NS_PER_S, UTC).isoformat(timespec="seconds")


# --- replay ----------------------------------------------------------------------------------


def _configure_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data directory of a run")
    parser.add_argument("--config", type=Path, help="another application file: what would differ?")
    parser.add_argument("--from", dest="begin", help="compare from this time on, ISO 8601")
    parser.add_argument("--to", dest="end", help="compare up to this time, ISO 8601")
    _json_flag(parser)


def _replay(arguments: argparse.Namespace) -> int:
    from controller.app import application_of, build_application
    from controller.historian.reader import open_reader
    from controller.replay import Replayed, replay
    from controller.settings import load

    outcome = Replayed(0, 0, 0, ())
    with open_reader(arguments.data) as reader, progress_bar() as bar:
        task = bar.add_task("replay", total=max(1, reader.counts().records), numbers="")
        other = load(arguments.config) if arguments.config else None
        runs = replay(
            reader,
            lambda segment: (
                application_of(segment, arguments.data)
                if other is None
                else build_application(other, segment.epoch)
            ),
            _time_ns(arguments.begin, "--from") if arguments.begin else None,
            _time_ns(arguments.end, "--to") if arguments.end else None,
        )
        for outcome in runs:
            bar.update(task, completed=outcome.cycles, numbers=f"{outcome.identical} identical")
    if not outcome.cycles:
        raise ReplayError(
            "there is no decided cycle to replay",
            where=str(arguments.data),
            mend="Check the directory, and --from and --to",
        )
    if arguments.json:
        print_json(
            {
                "passed": outcome.passed,
                "cycles": outcome.cycles,
                "identical": outcome.identical,
                "undecided": outcome.undecided,
                "differences": [
                    {"segment": d.segment, "cycle": d.cycle, "fields": list(d.fields)}
                    for d in outcome.differences
                ],
            }
        )
    else:
        results().print(str(outcome), markup=False)
        for difference in outcome.differences[:20]:
            results().print(f"  {difference}", markup=False)
    return 0 if outcome.passed or arguments.config else 1


CORE_VERBS = (
    Verb(
        "check",
        "Check application files; touches no device.",
        "loopwright check config/williams_otto/williams-otto.yaml",
        _configure_check,
        _check,
    ),
    Verb(
        "schema",
        "Print the JSON Schema of application files.",
        "loopwright schema > loopwright.schema.json",
        _json_flag,
        _schema,
    ),
    Verb(
        "run",
        "Run an application on its devices. Ctrl-C hands back to the PLC.",
        "loopwright run config/williams_otto/williams-otto.yaml --dry-run",
        _configure_run,
        _run,
    ),
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
    Verb(
        "replay",
        "Decide every journalled cycle again and compare, bit for bit.",
        "loopwright replay data/williams-otto",
        _configure_replay,
        _replay,
    ),
)
