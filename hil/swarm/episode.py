"""An episode: one random story of mismatch, faults and commands, and then quiet to recover in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from controller.settings import Controlled
from controller.signal import CommandKind
from hil.faults.schedule import Fault
from hil.faults.solver import SolverFault
from hil.scenario.parts import Assertion, Scenario, ScheduledCommand
from hil.swarm.draw import Chance, digits, draw_faults, draw_solver_faults
from hil.swarm.stage import Stage

FAULTS_MEAN = 3.0
SOLVER_FAULT_SHARE = 0.3
NOISE_FACTOR = (0.5, 2.0)
_REARM_CYCLES = (0, 5, 10, 20, 40)
"""After the faults, the operator re-arms; again, in case a doubt only then became a shed."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A story drawn by a seed.

    Attributes:
        cycles: of the whole; from `quiet_s` on (seconds of scenario time) nothing breaks any more
            and the operator asks for normal operation.
        mismatch: factors on plant parameters, beside those of the scenario.
        noise: factor on the measurement noise of the scenario.
        commands: before the quiet; those of the quiet are always the same.
    """

    number: int
    seed: int
    cycles: int
    quiet_s: float
    mismatch: Mapping[str, float]
    noise: float
    commands: tuple[ScheduledCommand, ...]
    faults: tuple[Fault, ...]
    solver_faults: tuple[SolverFault, ...]

    def __str__(self) -> str:
        return (
            f"episode {self.number}: {len(self.mismatch)} parameters off, noise ×{self.noise:g}, "
            f"{len(self.commands)} commands, {len(self.faults)} faults, "
            f"{len(self.solver_faults)} solver faults"
        )


def draw_episode(
    base: Scenario, stage: Stage, seed: int, number: int, cycles: int, quiet: int
) -> Episode:
    """Episode `number` of the swarm with this seed; the last `quiet` of its cycles are quiet."""
    chance = np.random.default_rng([seed, number])
    cycle_s = base.settings.cycle_s
    quiet_s = (cycles - quiet) * cycle_s
    low, high = NOISE_FACTOR
    solver_count = int(chance.integers(1, 3)) if chance.random() < SOLVER_FAULT_SHARE else 0
    return Episode(
        number=number,
        seed=int(chance.integers(1, 2**31)),
        cycles=cycles,
        quiet_s=quiet_s,
        mismatch=_mismatch(chance, stage),
        noise=digits(low * (high / low) ** float(chance.random()), 3),
        commands=_commands(chance, base, quiet_s),
        faults=draw_faults(chance, stage, 1 + int(chance.poisson(FAULTS_MEAN)), quiet_s),
        solver_faults=draw_solver_faults(chance, stage, solver_count, quiet_s),
    )


def staged(base: Scenario, episode: Episode) -> Scenario:
    """The scenario of an episode: the base's plant and PLC with this story and nothing else of
    the base's own."""
    mismatch = {name: base.mismatch.get(name, 1.0) * f for name, f in episode.mismatch.items()}
    duration_s = episode.cycles * base.settings.cycle_s
    commands = (*_asking(0.0), *episode.commands, *calm(base, episode))
    return replace(
        base,
        duration_s=duration_s,
        seed=episode.seed,
        mismatch={**base.mismatch, **mismatch},
        noise={tag: sigma * episode.noise for tag, sigma in base.noise.items()},
        profiles=(),
        commands=tuple(command for command in commands if command.at_s < duration_s),
        faults=episode.faults,
        solver_faults=episode.solver_faults,
        economics=None,
        judge_from_s=0.0,
        assertions=(Assertion("unsafe_writes", None, 0.0, "fail"),),
        bounds=(),
        temporal=(),
        mode_trace=(),
        golden=None,
    )


def cut(episode: Episode, cycle: int, cycle_s: float) -> Episode:
    """The story up to shortly after a cycle, where something broke; without a quiet."""
    cycles = cycle + 4
    quiet_s = (cycles - 2) * cycle_s
    if quiet_s >= episode.quiet_s:
        return replace(episode, cycles=min(cycles, episode.cycles))
    return replace(
        episode,
        cycles=cycles,
        quiet_s=quiet_s,
        commands=tuple(c for c in episode.commands if c.at_s < quiet_s),
        faults=tuple(
            replace(f, until_s=min(f.until_s, quiet_s)) for f in episode.faults if f.at_s < quiet_s
        ),
        solver_faults=tuple(
            replace(f, until_s=min(f.until_s, quiet_s))
            for f in episode.solver_faults
            if f.at_s < quiet_s
        ),
    )


def calm(base: Scenario, episode: Episode) -> tuple[ScheduledCommand, ...]:
    """What the operator does when all is mended: everything as it was, automatic, re-armed."""
    at_s, cycle_s = episode.quiet_s, base.settings.cycle_s
    return (
        *(
            ScheduledCommand(at_s, CommandKind.SETPOINT, cv.output, cv.setpoint, "")
            for cv in base.settings.controlled
            if cv.setpoint is not None
        ),
        *(
            ScheduledCommand(at_s, kind, mv.name, value, "")
            for mv in base.settings.manipulated
            for kind, value in (
                (CommandKind.LIMIT_LOW, mv.low),
                (CommandKind.LIMIT_HIGH, mv.high),
            )
        ),
        *_asking(at_s),
        *(
            ScheduledCommand(at_s + cycles * cycle_s, CommandKind.REARM, "", None, "")
            for cycles in _REARM_CYCLES
        ),
    )


def _asking(at_s: float) -> tuple[ScheduledCommand, ...]:
    return (ScheduledCommand(at_s, CommandKind.MODE, "", None, "auto"),)


def _mismatch(chance: Chance, stage: Stage) -> dict[str, float]:
    names = sorted(stage.gentle)
    count = min(len(names), int(chance.integers(0, 4)))
    chosen = sorted(str(name) for name in chance.choice(names, count, replace=False))
    return {
        name: digits(1.0 + float(chance.uniform(-1.0, 1.0)) * stage.gentle[name], 5)
        for name in chosen
    }


def _reach(base: Scenario, cv: Controlled) -> float:
    """How far a setpoint is moved: a tenth of it, but not beyond what the plant can follow."""
    variable = next(v for v in base.settings.model.y if v.name == cv.output)
    return min(0.1 * abs(cv.setpoint or 0.0), 0.02 * variable.span)


def _commands(chance: Chance, base: Scenario, quiet_s: float) -> tuple[ScheduledCommand, ...]:
    """What operators do meanwhile: setpoints, limits, modes, re-arming."""
    settings, found = base.settings, list[ScheduledCommand]()
    for _ in range(int(chance.poisson(1.5))):
        at_s = round(float(chance.uniform(0.0, quiet_s)) / base.scan_s) * base.scan_s
        kind = CommandKind(str(chance.choice(["setpoint", "limit_low", "limit_high", "mode"])))
        if chance.random() < 0.3:
            kind = CommandKind.REARM
        target, text = "", ""
        value: float | None = None
        if kind is CommandKind.MODE:
            text = str(chance.choice(["off", "manual", "auto"]))
        elif kind is CommandKind.SETPOINT:
            wanted = [cv for cv in settings.controlled if cv.setpoint is not None]
            if not wanted:
                continue
            cv = wanted[int(chance.integers(len(wanted)))]
            target = cv.output
            value = digits((cv.setpoint or 0.0) + float(chance.uniform(-1, 1)) * _reach(base, cv))
        elif kind is not CommandKind.REARM:
            mv = settings.manipulated[int(chance.integers(len(settings.manipulated)))]
            part = float(chance.uniform(0.0, 0.3)) * (mv.high - mv.low)
            target = mv.name
            value = digits(mv.low + part if kind is CommandKind.LIMIT_LOW else mv.high - part)
        found.append(ScheduledCommand(digits(at_s, 9), kind, target, value, text))
    return tuple(sorted(found, key=lambda command: command.at_s))
