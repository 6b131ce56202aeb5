"""What a verdict tells of the course of its run: how long it was, what broke, what ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hil.report.series import Span


class Ending(NamedTuple):
    """How the control process ended, and when; seconds of scenario time, None where unknown."""

    time_s: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Story:
    """The course of a run, seconds of scenario time.

    Attributes:
        end_s: when it was over; None where that is not known.
        faults: what was broken, over all of its time; None where only the history knows.
        folder: where the scenario lay; None where that is not known.
    """

    end_s: float | None = None
    faults: tuple[Span, ...] | None = None
    endings: tuple[Ending, ...] = ()
    folder: Path | None = None


def story_of(verdict: Mapping[str, Any] | None, directory: Path) -> Story:
    """The story that the verdict in a directory tells; an older verdict tells less of it."""
    if verdict is None:
        return Story()
    faults = verdict.get("faults")
    folder = verdict.get("scenario_folder")
    return Story(
        end_s=verdict.get("duration_s"),
        faults=None
        if faults is None
        else tuple(Span(f["begin_s"], f["end_s"], str(f["what"])) for f in faults),
        endings=tuple(_ending(str(text)) for text in verdict.get("control_endings", [])),
        folder=None if folder is None else directory / folder,
    )


def _ending(text: str) -> Ending:
    """From `600 s: it was killed`."""
    at, found, how = text.partition(" s: ")
    try:
        return Ending(float(at), how) if found else Ending(None, text)
    except ValueError:
        return Ending(None, text)
