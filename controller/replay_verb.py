"""The verb `replay`: check a journal bit for bit, or ask what another configuration would do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from controller.errors import ReplayError
from controller.replay import Replayed, replay
from controller.terminal import (
    Verb,
    iso,
    json_flag,
    print_json,
    progress_bar,
    results,
    time_of,
)
from controller.what_if import Compared, Outcome, Outlook, WhatIf

OPEN_LOOP = (
    "Open loop: each cycle is decided from the kept snapshot, in which the plant followed the kept "
    "moves. A difference is what would have been done standing there; differences do not add up."
)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data directory of a run")
    parser.add_argument(
        "--config",
        type=Path,
        help="another application file: which moves would differ, and what would be planned?",
    )
    parser.add_argument("--from", dest="begin", help="compare from this time on, ISO 8601")
    parser.add_argument("--to", dest="end", help="compare up to this time, ISO 8601")
    json_flag(parser)


def _replay(arguments: argparse.Namespace) -> int:
    begin = time_of(arguments.begin, "--from") if arguments.begin else None
    end = time_of(arguments.end, "--to") if arguments.end else None
    if arguments.config:
        outcome = what_if(arguments.data, arguments.config, begin, end)
        if arguments.json:
            print_json(document(outcome, arguments.config))
        else:
            _show(outcome)
        return 0
    checked = _check(arguments.data, begin, end)
    if arguments.json:
        print_json(_check_document(checked))
    else:
        results().print(str(checked), markup=False)
        for difference in checked.differences[:20]:
            results().print(f"  {difference}", markup=False)
    return 0 if checked.passed else 1


# --- bit for bit -----------------------------------------------------------------------------


def _check(data: Path, begin: int | None, end: int | None) -> Replayed:
    from controller.app import application_of
    from controller.historian.reader import open_reader

    outcome = Replayed()
    with open_reader(data) as reader, progress_bar() as bar:
        task = bar.add_task("replay", total=max(1, reader.counts().records), numbers="")
        runs = replay(reader, lambda segment: application_of(segment, data), begin, end)
        for outcome in runs:
            bar.update(task, completed=outcome.cycles, numbers=f"{outcome.identical} identical")
    if not outcome.cycles:
        raise _nothing(data)
    return outcome


def _check_document(outcome: Replayed) -> dict[str, Any]:
    return {
        "passed": outcome.passed,
        "cycles": outcome.cycles,
        "identical": outcome.identical,
        "undecided": outcome.undecided,
        "differences": [
            {"segment": d.segment, "cycle": d.cycle, "fields": list(d.fields)}
            for d in outcome.differences
        ],
    }


def _nothing(data: Path) -> ReplayError:
    return ReplayError(
        "there is no decided cycle to replay",
        where=str(data),
        mend="Check the directory, and --from and --to",
    )


# --- what if ---------------------------------------------------------------------------------


def what_if(
    data: Path,
    config: Path,
    begin: int | None = None,
    end: int | None = None,
    tell: Callable[[Compared], None] | None = None,
) -> Outcome:
    """What the application in `config` would have decided in the cycles of `data`.

    Args:
        begin, end: compare only cycles in this time, ns since epoch.
        tell: called with every compared cycle.

    Raises:
        SettingsError: `config` is wrong, or does not fit the journal.
        ReplayError: there is no decided cycle in that time.
        JournalError: the journal is missing or damaged.
    """
    from controller.app import build_application, settings_of
    from controller.historian.reader import open_reader
    from controller.settings import load

    other = load(config)
    with open_reader(data) as reader, progress_bar() as bar:
        task = bar.add_task("what if", total=max(1, reader.counts().records), numbers="")
        asked = WhatIf(
            reader,
            lambda segment: settings_of(segment, data),
            other,
            lambda segment: build_application(other, segment.epoch),
            begin,
            end,
        )
        for compared in asked.advance():
            outcome = asked.outcome
            bar.update(task, completed=outcome.cycles, numbers=f"{outcome.differing} differ")
            if tell is not None:
                tell(compared)
    if not asked.outcome.cycles:
        raise _nothing(data)
    return asked.outcome


def document(outcome: Outcome, config: Path) -> dict[str, Any]:
    """A what-if as plain data, for JSON."""
    return {
        "config": str(config),
        "open_loop": OPEN_LOOP,
        "cycles": outcome.cycles,
        "differing": outcome.differing,
        "undecided": outcome.undecided,
        "overrides": outcome.overrides,
        "mvs": [change.plain() for change in outcome.mvs.values()],
        "states": [
            {
                "what": s.what,
                "kept": s.kept,
                "would": s.would,
                "cycles": s.cycles,
                "first_cycle": s.first_cycle,
                "first_ns": s.first_ns,
            }
            for s in outcome.states
        ],
        "first": [_case(compared) for compared in outcome.first],
        "most": [_case(compared) for compared in outcome.most],
    }


def _case(compared: Compared) -> dict[str, Any]:
    return {
        "segment": compared.segment,
        "cycle": compared.cycle,
        "time_ns": compared.time_ns,
        "kept": _plain(compared.kept),
        "would": _plain(compared.would),
    }


def _plain(outlook: Outlook) -> dict[str, Any]:
    return {
        "mode": outlook.mode,
        "rung": outlook.rung,
        "move": dict(outlook.move),
        "requested": dict(outlook.requested),
        "plan": {"step_s": outlook.step_s, "mv": outlook.moves, "cv": outlook.expected},
    }


def _show(outcome: Outcome) -> None:
    screen = results()
    screen.print(str(outcome), markup=False)
    screen.print(_moves_table(outcome))
    for change in outcome.states:
        since = f"first in cycle {change.first_cycle}, {iso(change.first_ns)}"
        screen.print(f"{change}, {since}", markup=False)
    for title, cases in (
        ("first cycles that differ", outcome.first),
        ("cycles that differ most", outcome.most),
    ):
        if cases:
            screen.print(_cases_table(title, cases, outcome))
    if outcome.undecided:
        screen.print(f"{outcome.undecided} snapshots have no kept record", markup=False)
    if outcome.note:
        screen.print(outcome.note, markup=False)
    screen.print(OPEN_LOOP, style="dim", markup=False)


def _moves_table(outcome: Outcome) -> Table:
    table = Table(title="moves (would-have minus kept)")
    table.add_column("MV")
    for column in ("differs in", "plan differs in", "first", "mean", "mean size", "largest", "at"):
        table.add_column(column, justify="right")
    for c in outcome.mvs.values():
        none = c.first_ns is None
        table.add_row(
            f"{c.name} [{c.unit}]".replace("[", r"\["),
            f"{c.differing} of {c.compared}",
            f"{c.planned}",
            "never" if c.first_ns is None else f"{c.first_cycle}, {iso(c.first_ns)[11:19]}",
            "" if none else f"{c.mean:+.4g}",
            "" if none else f"{c.mean_size:.4g}",
            "" if none else f"{c.largest:+.4g}",
            "" if none else f"{c.largest_cycle}",
        )
    return table


def _cases_table(title: str, cases: Sequence[Compared], outcome: Outcome) -> Table:
    table = Table(title=title)
    for column in ("cycle", "time", "", "kept", "would have"):
        table.add_column(column)
    for case in cases:
        place = (str(case.cycle), iso(case.time_ns)[11:19])
        kept, would = map(stance, _both(case))
        rows = [("mode, rung, plan", kept, would)]
        for name in outcome.mvs:
            kept, would = (f"{o.move[name]:.5g}" if name in o.move else "–" for o in _both(case))
            rows.append((f"{name} moved to", kept, would))
            kept, would = (course(o.moves.get(name, ())) for o in _both(case))
            rows.append((f"{name} planned", kept, would))
        for name in dict.fromkeys((*case.kept.expected, *case.would.expected)):
            kept, would = (course(o.expected.get(name, ())) for o in _both(case))
            rows.append((f"{name} expected", kept, would))
        for number, row in enumerate(rows):
            table.add_row(*(place if number == 0 else ("", "")), *row)
        table.add_section()
    return table


def _both(case: Compared) -> tuple[Outlook, Outlook]:
    return case.kept, case.would


def stance(outlook: Outlook) -> str:
    """Mode, rung, and how far the plan reaches."""
    intervals = max(map(len, outlook.moves.values()), default=0)
    reach = f"{intervals} × {outlook.step_s:g} s" if intervals else "no plan"
    return " ".join(filter(None, (outlook.mode, outlook.rung, reach)))


def course(values: Sequence[float]) -> str:
    """A trajectory in a few of its values, the first and the last among them."""
    if not values:
        return "–"
    places = sorted({0, *(round(k * (len(values) - 1) / 4) for k in range(1, 5))})
    return " → ".join(f"{values[i]:.4g}" for i in places)


REPLAY_VERBS = (
    Verb(
        "replay",
        "Decide every journalled cycle again, bit for bit, or with --config: what would change?",
        "loopwright replay data/williams-otto\n"
        "  loopwright replay data/williams-otto --config other.yaml",
        _configure,
        _replay,
    ),
)
