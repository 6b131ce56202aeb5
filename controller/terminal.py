"""What verbs share: their shape, one JSON document on stdout, messages and progress on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from controller.errors import LoopwrightError, SettingsError
from controller.signal import NS_PER_S


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of the command line; `execute` returns the exit code."""

    name: str
    summary: str
    example: str
    configure: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], int]


def messages() -> Console:
    """Where humans read: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


_FILE_COLUMNS = 160
"""A file or a pipe has no width of its own: tables there are not cut to that of an old terminal."""


def results() -> Console:
    """Where the answer goes: stdout."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = None if known else _FILE_COLUMNS
    return Console(highlight=False, soft_wrap=True, emoji=False, width=width)


def print_json(document: Mapping[str, Any]) -> None:
    """The one JSON document of a verb, on stdout."""
    text = msgspec.json.encode(document)  # A number that is not finite becomes null.
    sys.stdout.write(msgspec.json.format(text, indent=2).decode() + "\n")


def json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def print_error(error: LoopwrightError, *, as_json: bool) -> None:
    """The error on stderr, and for --json also as the document on stdout."""
    console = messages()
    problems = error.problems if isinstance(error, SettingsError) else (error,)
    for problem in problems:
        console.print(f"error: {problem}", style="bold red", markup=False)
    if as_json:
        print_json(
            {
                "error": type(error).__name__,
                "problems": [{"what": p.what, "where": p.where, "mend": p.mend} for p in problems],
            }
        )


def progress_bar() -> Progress:
    """A progress bar that shows only on a terminal."""
    console = messages()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=console,
        disable=not console.is_terminal,
        refresh_per_second=4,
    )


@contextmanager
def building(what: str) -> Generator[None]:
    """A pulsing bar on a terminal while something is made whose end is not known."""
    with progress_bar() as progress:
        progress.add_task(what, total=None, numbers="")
        yield


@lru_cache
def notice(text: str) -> None:
    """A message for the person at the terminal; the same one is said once."""
    messages().print(f"notice: {text}", style="yellow", markup=False)


def time_of(text: str, option: str) -> int:
    """A time in ISO 8601 with its time zone, as ns since epoch.

    Raises:
        SettingsError: it is none, or has no time zone.
    """
    mend = "Write it with its time zone: 2026-03-01T14:30:00+01:00"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is not a time", where=option, mend=mend) from None
    if moment.tzinfo is None:
        raise SettingsError(f"{text!r} has no time zone", where=option, mend=mend)
    return round(moment.timestamp() * 1e6) * 1000


def iso(time_ns: int) -> str:
    """A time as UTC in ISO 8601, to the second."""
    return datetime.fromtimestamp(time_ns / NS_PER_S, UTC).isoformat(timespec="seconds")
