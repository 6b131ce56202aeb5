"""The verbs of the controller itself: check, schema, run."""

from __future__ import annotations

import argparse
from pathlib import Path

from controller.errors import SettingsError
from controller.terminal import Verb, json_flag, messages, print_json, results

# --- check -----------------------------------------------------------------------------------


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="+", type=Path, help="application files")
    json_flag(parser)


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
    json_flag(parser)


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
        json_flag,
        _schema,
    ),
    Verb(
        "run",
        "Run an application on its devices. Ctrl-C hands back to the PLC.",
        "loopwright run config/williams_otto/williams-otto.yaml --dry-run",
        _configure_run,
        _run,
    ),
)
