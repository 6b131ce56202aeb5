"""What an episode aims at: fault types that begin in one mode, walked through pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from controller.cycle.mode import Mode
from controller.signal import CommandKind
from hil.faults.schedule import Fault
from hil.scenario.parts import Scenario, ScheduledCommand
from hil.swarm.draw import Chance, digits, draw_fault, fault_choices
from hil.swarm.stage import Stage

KINDS_AT_ONCE: Final = 3
"""So many fault types begin in the mode that an episode aims at."""
_WINDOW: Final = 12
_ANSWER: Final = 6
"""Cycles that a story waits for an answer of controller and PLCs, beside those of the guard."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is in an episode: a ground of the swarm by its number, for which time."""

    ground: int
    time: int


@dataclass(frozen=True, slots=True)
class Aim:
    """Fault types that are to begin while the controller is in a mode."""

    mode: Mode
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approach:
    """How a story is brought into a mode, and between which times (s) it stays there."""

    commands: tuple[ScheduledCommand, ...]
    faults: tuple[Fault, ...]
    starts_s: float
    begin_s: float
    end_s: float

    def holds(self, at_s: float) -> bool:
        """Whether the mode is this story's own matter at this time."""
        return self.starts_s <= at_s <= self.end_s


def aim_of(stage: Stage, seed: int, turn: Turn) -> Aim:
    """The aim of an episode: it depends on the seed and the turn alone, so on no other episode.

    In as many turns as there are modes every mode has its turn, in an order of chance; and in each
    mode every type has had its turn before one comes again. So all pairs of a ground are tried in
    modes × types / `KINDS_AT_ONCE` episodes.
    """
    lap, place = divmod(turn.time, len(Mode))
    modes = list(Mode)
    number = int(np.random.default_rng([seed, turn.ground, lap]).permutation(len(modes))[place])
    known = sorted(fault_choices(stage))
    order = np.random.default_rng([seed, turn.ground, number, 1]).permutation(len(known)).tolist()
    first = lap * KINDS_AT_ONCE
    chosen = [known[order[(first + i) % len(known)]] for i in range(KINDS_AT_ONCE) if known]
    return Aim(modes[number], tuple(dict.fromkeys(chosen)))


def approach(
    chance: Chance, base: Scenario, stage: Stage, mode: Mode, known_s: float, until_s: float
) -> Approach | None:
    """A way into `mode` that begins after `known_s` and is over before `until_s`, if there is one.

    A mode that passes by itself is held: INIT and SHED by a critical signal that is lost, READY by
    a PLC that does not answer the heartbeat.

    Args:
        known_s: when the controller can have everything that it needs to become ACTIVE.
    """
    guard, cycle_s = base.settings.guard, stage.cycle_s
    active = guard.ready_cycles + _ANSWER
    wait = {
        Mode.OFF: 2,
        Mode.MANUAL: 2,
        Mode.INIT: 3,
        Mode.READY: active,
        Mode.ACTIVE: active,
        Mode.SHED: active + guard.hold_cycles + 3,
    }[mode]
    earliest, latest = round(known_s / cycle_s), int(until_s / cycle_s) - wait - _WINDOW - 2
    if latest < earliest:
        return None
    start = int(chance.integers(earliest, latest + 1))
    begin, end = start + wait, start + wait + _WINDOW
    held: tuple[Fault, ...] = ()
    if mode in (Mode.INIT, Mode.SHED):
        lost = [m.tag for m in base.settings.measured if m.critical and m.tag in stage.sensors]
        if not lost:
            return None
        first = start if mode is Mode.INIT else start + active
        held = (_fault(stage, first, end, str(chance.choice(lost)), "nan"),)
    elif mode is Mode.READY:
        silent = str(chance.choice(stage.handshakes))
        held = (_fault(stage, start, end, silent, "heartbeat_freeze"),)
    texts = {
        Mode.OFF: ((start, "off"), (end, "auto")),
        Mode.MANUAL: ((start, "manual"), (end, "auto")),
        Mode.INIT: ((start, "off"), (start + 1, "auto")),
        # Long enough off for the signals to have been good, so that READY follows at once.
        Mode.READY: ((start, "off"), (begin - 3, "auto")),
    }.get(mode, ((start, "auto"),))
    commands = [_command(stage, at, CommandKind.MODE, text) for at, text in texts]
    if mode in (Mode.ACTIVE, Mode.SHED):
        commands.append(_command(stage, start, CommandKind.REARM, ""))
    if mode is Mode.READY:
        end = begin + 1  # what begins first may end READY
    return Approach(tuple(commands), held, start * cycle_s, begin * cycle_s, end * cycle_s)


def aimed_faults(
    chance: Chance, stage: Stage, aim: Aim, way: Approach, until_s: float
) -> tuple[Fault, ...]:
    """The faults that the approach needs, and those aimed at, which begin in its window."""
    found = list(way.faults)
    for kind in aim.kinds:
        begin_s = float(chance.uniform(way.begin_s, way.end_s - stage.scan_s))
        draw_fault(chance, stage, kind, begin_s, until_s, found)
    return tuple(found)


def _fault(stage: Stage, first: int, end: int, target: str, kind: str) -> Fault:
    return Fault(digits(first * stage.cycle_s, 9), digits(end * stage.cycle_s, 9), target, kind)


def _command(stage: Stage, cycle: int, kind: CommandKind, text: str) -> ScheduledCommand:
    return ScheduledCommand(digits(cycle * stage.cycle_s, 9), kind, "", None, text)
