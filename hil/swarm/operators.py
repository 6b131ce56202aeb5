"""What operators ask for while everything breaks, and how they put it right afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np

from controller.settings import Manipulated
from controller.signal import NS_PER_S, CommandKind
from hil.scenario.parts import Scenario, ScheduledCommand
from hil.swarm.draw import Chance, digits
from hil.swarm.stage import Stage
from hil.world import START_NS

REQUESTS_MEAN = 2.5
_REARM_CYCLES = (0, 5, 10, 20, 40)
"""After the faults, the operator re-arms; again, in case a doubt only then became a shed."""
_SMALL_SHARE, _SMALL = 0.5, 0.05
"""Half of all setpoint changes are small ones: this share of what can be reached."""
_RAMP_SHARE = 0.4
_RAMP_STEPS, _RAMP_CYCLES = (3, 9), (5, 40)
_MISTAKE = 10.0
"""A mistyped value is off by so many ranges at most."""

Commands = list[ScheduledCommand]
_Choice = TypeVar("_Choice")


def draw_commands(
    chance: Chance, base: Scenario, stage: Stage, until_s: float
) -> tuple[ScheduledCommand, ...]:
    """Requests before `until_s`: setpoints at once and in ramps, over all that the plant can
    reach; resting values, limits, forecasts, modes, re-arming; and mistakes."""
    found: Commands = []
    for _ in range(int(chance.poisson(REQUESTS_MEAN))):
        draw = _REQUESTS[int(chance.integers(len(_REQUESTS)))]
        found += draw(chance, base, stage, float(chance.uniform(0.0, until_s)))
    return tuple(
        sorted((c for c in found if 0.0 <= c.at_s < until_s), key=lambda command: command.at_s)
    )


def asking(at_s: float) -> tuple[ScheduledCommand, ...]:
    """Automatic control is asked for."""
    return (ScheduledCommand(at_s, CommandKind.MODE, "", None, "auto"),)


def calm(
    base: Scenario, asked: Sequence[ScheduledCommand], at_s: float
) -> tuple[ScheduledCommand, ...]:
    """What the operator does when all is mended: everything as it was before `asked`, automatic,
    re-armed."""
    settings, cycle_s = base.settings, base.settings.cycle_s
    touched = {(command.kind, command.target) for command in asked}
    limits = [(mv.name, mv.low, mv.high) for mv in settings.manipulated]
    limits += [
        (cv.output, cv.low, cv.high)
        for cv in settings.controlled
        if (CommandKind.LIMIT_LOW, cv.output) in touched
        or (CommandKind.LIMIT_HIGH, cv.output) in touched
    ]
    wanted = {cv.output: cv.setpoint for cv in settings.controlled if cv.setpoint is not None}
    wanted |= {
        mv.name: _resting(base, mv)
        for mv in settings.manipulated
        if (CommandKind.SETPOINT, mv.name) in touched
    }
    found = [ScheduledCommand(at_s, CommandKind.SETPOINT, k, v, "") for k, v in wanted.items()]
    for name, low, high in limits:
        found.append(ScheduledCommand(at_s, CommandKind.LIMIT_LOW, name, low, ""))
        found.append(ScheduledCommand(at_s, CommandKind.LIMIT_HIGH, name, high, ""))
    for kind, name in sorted(touched):
        if kind is CommandKind.FORECAST:
            found.append(ScheduledCommand(at_s, kind, name, None, ""))
    if (CommandKind.OPTIMIZER, "") in touched:
        found.append(ScheduledCommand(at_s, CommandKind.OPTIMIZER, "", None, "on"))
    return (
        *found,
        *asking(at_s),
        *(
            ScheduledCommand(at_s + cycles * cycle_s, CommandKind.REARM, "", None, "")
            for cycles in _REARM_CYCLES
        ),
    )


def _resting(base: Scenario, mv: Manipulated) -> float:
    """Where an MV rests: where the scenario's own commands say last, or its file, or its loop."""
    asked = [
        c.value
        for c in base.commands
        if c.kind is CommandKind.SETPOINT and c.target == mv.name and c.value is not None
    ]
    if asked:
        return asked[-1]
    starts = {loop.setpoint: loop.start_setpoint for loop in base.loops}
    return mv.target if mv.target is not None else starts[mv.setpoint]


# --- requests ----------------------------------------------------------------------------------


def _setpoint(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    """A CV's setpoint, at once or as operators do it, step by step."""
    wanted = {cv.output: cv.setpoint for cv in base.settings.controlled if cv.setpoint is not None}
    if not wanted:
        return []
    name = str(chance.choice(sorted(wanted)))
    low, high = stage.reach[name]
    start = wanted[name]
    if chance.random() < _SMALL_SHARE:
        to = start + float(chance.uniform(-1.0, 1.0)) * _SMALL * (high - low)
    else:
        to = float(chance.uniform(low, high))
    steps, cycles = 1, 0.0
    if chance.random() < _RAMP_SHARE:
        steps = int(chance.integers(*_RAMP_STEPS))
        cycles = float(chance.uniform(*_RAMP_CYCLES))
    return [
        _request(
            stage,
            at_s + cycles * stage.cycle_s * number / steps,
            CommandKind.SETPOINT,
            name,
            min(max(start + (to - start) * (number + 1) / steps, low), high),
        )
        for number in range(steps)
    ]


def _target(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    """Where an MV is to rest."""
    mv = _one(chance, base.settings.manipulated)
    value = float(chance.uniform(mv.low, mv.high))
    return [_request(stage, at_s, CommandKind.SETPOINT, mv.name, value)]


def _limit(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    """A tighter limit of an MV or of a zone."""
    ranges = {mv.name: (mv.low, mv.high) for mv in base.settings.manipulated}
    zones = {cv.output: (cv.low, cv.high) for cv in base.settings.controlled}
    ranges |= {name: zone for name, zone in zones.items() if np.isfinite(zone).all()}
    name = str(chance.choice(sorted(ranges)))
    low, high = ranges[name]
    part = float(chance.uniform(0.0, 0.45)) * (high - low)
    if chance.random() < 0.5:
        return [_request(stage, at_s, CommandKind.LIMIT_LOW, name, low + part)]
    return [_request(stage, at_s, CommandKind.LIMIT_HIGH, name, high - part)]


def _mode(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    """Off or manual; most come back to automatic after a while, some forget it."""
    text = str(chance.choice(["off", "manual", "auto"]))
    found = [_request(stage, at_s, CommandKind.MODE, text=text)]
    if chance.random() < 0.7:
        back_s = at_s + float(chance.uniform(0.2, 30.0)) * stage.cycle_s
        found.append(_request(stage, back_s, CommandKind.MODE, text="auto"))
    return found


def _rearm(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    return [_request(stage, at_s, CommandKind.REARM)]


def _forecast(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    """A disturbance that is announced, whether it comes or not."""
    if not base.settings.model.d:
        return []
    feed = _one(chance, base.settings.model.d)
    value = min(
        max(feed.nominal + float(chance.uniform(-0.2, 0.2)) * feed.span, feed.low), feed.high
    )
    begins_s = at_s + float(chance.uniform(1.0, 40.0)) * stage.cycle_s
    text = str(START_NS + round(begins_s * NS_PER_S))
    return [_request(stage, at_s, CommandKind.FORECAST, feed.name, value, text)]


def _optimizer(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    return [_request(stage, at_s, CommandKind.OPTIMIZER, text=str(chance.choice(["hold", "on"])))]


def _mistake(chance: Chance, base: Scenario, stage: Stage, at_s: float) -> Commands:
    """A value that was mistyped, far outside what the variable may be."""
    mv = _one(chance, base.settings.manipulated)
    off = float(chance.uniform(0.01, _MISTAKE)) * (mv.high - mv.low)
    value = mv.high + off if chance.random() < 0.5 else mv.low - off
    kind = _one(chance, (CommandKind.SETPOINT, CommandKind.LIMIT_LOW, CommandKind.LIMIT_HIGH))
    return [_request(stage, at_s, kind, mv.name, value)]


_REQUESTS: Final[tuple[Callable[[Chance, Scenario, Stage, float], Commands], ...]] = (
    _setpoint,
    _setpoint,
    _target,
    _limit,
    _mode,
    _rearm,
    _forecast,
    _optimizer,
    _mistake,
)


def _one(chance: Chance, choices: Sequence[_Choice]) -> _Choice:
    return choices[int(chance.integers(len(choices)))]


def _request(
    stage: Stage,
    at_s: float,
    kind: CommandKind,
    target: str = "",
    value: float | None = None,
    text: str = "",
) -> ScheduledCommand:
    """A command at a whole scan, with a value that people can read."""
    at_s = digits(round(at_s / stage.scan_s) * stage.scan_s, 9)
    return ScheduledCommand(at_s, kind, target, None if value is None else digits(value), text)
