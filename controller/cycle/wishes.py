"""What operators and the optimizer ask for, checked against the engineering limits."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import get_args

from controller.cycle.application import Application
from controller.cycle.mode import Wanted
from controller.cycle.state import Wishes
from controller.signal import NS_PER_S, Command, CommandKind, Proposal, Snapshot

# What was asked for longer ago than this (and three cycles) was asked for another situation.
MAX_AGE_S = 600.0
# More expected values than that of one disturbance are a mistake of whoever sends them.
MAX_POINTS = 1000


def timely(application: Application, snapshot: Snapshot) -> tuple[Snapshot, tuple[str, ...]]:
    """The snapshot without commands and proposals that waited too long, and which those were."""
    if not (snapshot.commands or snapshot.proposals):
        return snapshot, ()
    max_age_s = max(MAX_AGE_S, 3 * application.cycle_s)
    oldest_ns = snapshot.time_ns - round(max_age_s * NS_PER_S)
    commands = tuple(c for c in snapshot.commands if c.time_ns >= oldest_ns)
    proposals = tuple(p for p in snapshot.proposals if p.time_ns >= oldest_ns)
    late = [f"{c.kind} {c.target}{c.text}" for c in snapshot.commands if c.time_ns < oldest_ns]
    late += [f"proposal {p.proposal_id}" for p in snapshot.proposals if p.time_ns < oldest_ns]
    refused = tuple(f"refused: {what}: more than {max_age_s:g} s old" for what in late)
    return replace(snapshot, commands=commands, proposals=proposals), refused


def hear(
    application: Application, wishes: Wishes, snapshot: Snapshot
) -> tuple[Wishes, tuple[str, ...]]:
    """Wishes after the commands and proposals of this snapshot, and what was done, in words."""
    events: list[str] = []
    for command in snapshot.commands:
        if command.kind is CommandKind.FORECAST:
            wishes, event = _forecast(application, wishes, command, snapshot.time_ns)
        else:
            wishes, event = _command(application, wishes, command)
        if event:
            events.append(event)
    for proposal in snapshot.proposals:
        wishes, event = _proposal(application, wishes, proposal)
        events.append(event)
    return wishes, tuple(events)


def _command(application: Application, wishes: Wishes, command: Command) -> tuple[Wishes, str]:
    by = f" by {command.who}" if command.who else ""
    if command.kind is CommandKind.MODE and command.text not in get_args(Wanted):
        return wishes, f"refused: mode {command.text}{by}: off, manual or auto"
    if command.kind in (CommandKind.MODE, CommandKind.REARM):
        return wishes, f"{command.kind} {command.text}".strip() + by
    if command.kind is CommandKind.OPTIMIZER:
        return replace(wishes, listening=command.text == "on"), f"optimizer {command.text}{by}"
    value, name = command.value, command.target
    ranges = {mv.name: (mv.low, mv.high) for mv in application.mvs}
    for cv in application.cvs:
        believable = application.model.y[cv.output]
        low, high = max(cv.low, believable.low), min(cv.high, believable.high)
        ranges.setdefault(cv.name, (low, high))
    if name not in ranges or value is None or not isfinite(value):
        return wishes, f"refused: {command.kind} {name} {value}: no such MV or CV, or no number"
    low, high = ranges[name]
    if not low <= value <= high:
        return wishes, (
            f"refused: {command.kind} {name} {value:g}: outside the engineering limits "
            f"[{low:g}, {high:g}]"
        )
    done = f"{command.kind} {name} {value:g}{by}"
    match command.kind:
        case CommandKind.LIMIT_LOW:
            if value >= wishes.high.get(name, high):
                return wishes, f"refused: {done}: not below the high limit"
            return replace(wishes, low={**wishes.low, name: value}), done
        case CommandKind.LIMIT_HIGH:
            if value <= wishes.low.get(name, low):
                return wishes, f"refused: {done}: not above the low limit"
            return replace(wishes, high={**wishes.high, name: value}), done
        case _:
            if name in {mv.name for mv in application.mvs}:
                return replace(wishes, resting={**wishes.resting, name: value}), done
            if all(cv.setpoint is None for cv in application.cvs if cv.name == name):
                return wishes, f"refused: {done}: {name} has a zone, not a setpoint"
            return replace(wishes, setpoint={**wishes.setpoint, name: value}), done


def _forecast(
    application: Application, wishes: Wishes, command: Command, now_ns: int
) -> tuple[Wishes, str]:
    """One more expected value of a measured disturbance; what has passed is forgotten."""
    by, name, value = f" by {command.who}" if command.who else "", command.target, command.value
    known = {variable.name: variable for variable in application.model.d}
    if name not in known:
        return wishes, f"refused: forecast {name}{by}: no such measured disturbance"
    if value is None:
        rest = {other: points for other, points in wishes.forecast.items() if other != name}
        return replace(wishes, forecast=rest), f"forecast {name} withdrawn{by}"
    low, high = known[name].low, known[name].high
    if not (command.text.isdigit() and low <= value <= high):
        return wishes, (
            f"refused: forecast {name} {value:g}{by}: outside [{low:g}, {high:g}] "
            f"{known[name].unit}, or its time is none"
        )
    points = {at_ns: v for at_ns, v in wishes.forecast.get(name, ()) if at_ns > now_ns}
    points[int(command.text)] = value
    later = tuple(sorted(points.items()))[-MAX_POINTS:]
    done = f"forecast {name} {value:g} {(int(command.text) - now_ns) / NS_PER_S / 60:.1f} min ahead"
    return replace(wishes, forecast={**wishes.forecast, name: later}), done + by


def _proposal(application: Application, wishes: Wishes, proposal: Proposal) -> tuple[Wishes, str]:
    label = f"proposal {proposal.proposal_id}"
    if not wishes.listening:
        return wishes, f"{label} ignored: the optimizer is on hold"
    limits = {mv.name: (mv.low, mv.high) for mv in application.mvs}
    for name, value in proposal.targets.items():
        if name not in limits:
            return wishes, f"{label} refused: {name} is not an MV"
        low, high = limits[name]
        if not (isfinite(value) and low <= value <= high):
            return wishes, f"{label} refused: {name} = {value:g} is outside [{low:g}, {high:g}]"
    accepted = ", ".join(f"{name} → {value:.4g}" for name, value in proposal.targets.items())
    return (
        replace(wishes, resting={**wishes.resting, **proposal.targets}),
        f"{label} accepted: {accepted}. {proposal.why}".strip(),
    )
