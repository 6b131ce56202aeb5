"""Names that people write: the error for one that nothing answers to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from controller.errors import ScenarioError


def unknown_name(what: str, name: str, known: Iterable[str], where: str) -> ScenarioError:
    """The error for a name in a scenario that nothing answers to; it proposes the nearest."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    mend = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(choices) or 'none'}"
    return ScenarioError(f"there is no {what} called {name!r}", where=where, mend=mend)
