"""The modes that a run went through against those that a scenario expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hil.history import History
from hil.judge.verdict import Check

ANYTHING = "..."
"""In an expected sequence: any number of modes, or none."""


def mode_sequence(modes: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Each mode with the row in which it begins; rows of the same mode are one."""
    return tuple((i, mode) for i, mode in enumerate(modes) if i == 0 or modes[i - 1] != mode)


def mode_trace_check(
    history: History, expected: Sequence[str], severity: Literal["fail", "warn"] = "fail"
) -> Check:
    """Whether the run went through exactly these modes; `...` stands for any between.

    The value is the number of modes that fit, counted from the begin of the run.
    """
    name = f"modes {' → '.join(expected)}"
    entered = mode_sequence(history.texts.get("mode", ()))
    if not entered:
        return Check(name, None, None, None, "untested", severity, "the run has no cycle")
    wanted = [mode for i, mode in enumerate(expected) if i == 0 or expected[i - 1] != mode]
    gone = [mode for _, mode in entered]
    times_s = history.columns["time_s"]
    fits, wants = _match(wanted, gone)
    run = " → ".join(f"{mode} ({times_s[row]:g} s)" for row, mode in entered)
    if wants is None:
        return Check(name, float(fits), None, None, "passed", severity, f"run: {run}")
    if fits == len(gone):
        last = f"after {gone[-1]} at {times_s[entered[-1][0]]:g} s the run ends"
        detail = f"{last}, wanted {' or '.join(wants)}; run: {run}"
    else:
        row, mode = entered[fits]
        want = " or ".join(wants) or "no other mode"
        detail = f"at {times_s[row]:g} s: {mode}, wanted {want}; run: {run}"
    return Check(name, float(fits), None, None, "failed", severity, detail)


def _match(wanted: Sequence[str], gone: Sequence[str]) -> tuple[int, tuple[str, ...] | None]:
    """How many modes fit, and which could have come next; None where everything fits.

    Follows every place in the expected sequence at which the run may stand, like a
    nondeterministic automaton: `...` stays where it is or lets the next expected mode begin.
    """

    def reachable(places: set[int]) -> set[int]:
        # Only modes that are wanted stop a place; "..." may stand for nothing.
        found = set(places)
        for place in sorted(places):
            while place < len(wanted) and wanted[place] == ANYTHING:
                place += 1
                found.add(place)
        return found

    places = reachable({0})
    for count, mode in enumerate(gone):
        after = {p for p in places if p < len(wanted) and wanted[p] == ANYTHING}
        after |= {p + 1 for p in places if p < len(wanted) and wanted[p] == mode}
        if not after:
            return count, _next(wanted, places)
        places = reachable(after)
    if len(wanted) in places:
        return len(gone), None
    return len(gone), _next(wanted, places)


def _next(wanted: Sequence[str], places: set[int]) -> tuple[str, ...]:
    names = (wanted[p] for p in sorted(places) if p < len(wanted) and wanted[p] != ANYTHING)
    return tuple(dict.fromkeys(names))
