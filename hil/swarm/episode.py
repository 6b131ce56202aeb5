"""An episode: one random story of mismatch, faults and commands, and then quiet to recover in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from controller.signal import CommandKind
from hil.faults.schedule import Fault
from hil.faults.solver import SolverFault
from hil.lab import LabSettings
from hil.scenario.parts import Assertion, Scenario, ScheduledCommand
from hil.swarm.aims import Turn, aim_of, aimed_faults, approach
from hil.swarm.draw import Chance, digits, draw_faults, draw_solver_faults
from hil.swarm.operators import asking, calm, draw_commands
from hil.swarm.stage import Stage

FAULTS_MEAN = 1.5
"""Beside those that the episode aims at."""
STORM_SHARE, STORM_FAULTS_MEAN = 0.1, 10.0
"""In some episodes nearly everything breaks at once."""
SOLVER_FAULT_SHARE = 0.3
NOISE_FACTOR = (0.5, 2.0)
LAB_DROP_MAX, LAB_OUTLIER_MAX = 0.3, 0.2


@dataclass(frozen=True, slots=True)
class Episode:
    """A story drawn by a seed.

    Attributes:
        cycles: of the whole; from `quiet_s` on (seconds of scenario time) nothing breaks any more
            and the operator asks for normal operation.
        mismatch: factors on plant parameters, beside those of the scenario.
        noise: factor on the measurement noise of the scenario.
        labs: by source, how the laboratories work.
        commands: before the quiet; those of the quiet are always the same.
    """

    number: int
    seed: int
    cycles: int
    quiet_s: float
    mismatch: Mapping[str, float]
    noise: float
    labs: Mapping[str, LabSettings]
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
    base: Scenario, stage: Stage, seed: int, number: int, turn: Turn, cycles: int, quiet: int
) -> Episode:
    """Episode `number` of the swarm with this seed; the last `quiet` of its cycles are quiet."""
    chance = np.random.default_rng([seed, number])
    cycle_s = base.settings.cycle_s
    quiet_s = (cycles - quiet) * cycle_s
    low, high = NOISE_FACTOR
    solver_count = int(chance.integers(1, 3)) if chance.random() < SOLVER_FAULT_SHARE else 0
    labs = _lab_chaos(chance, stage)
    known_s = max((lab.first_s + lab.delay_s[1] for lab in labs.values()), default=0.0)
    mean = STORM_FAULTS_MEAN if chance.random() < STORM_SHARE else FAULTS_MEAN
    aim = aim_of(stage, seed, turn)
    way = approach(chance, base, stage, aim.mode, known_s, quiet_s)
    commands = draw_commands(chance, base, stage, quiet_s)
    aimed: tuple[Fault, ...] = ()
    if way is not None:
        aimed = aimed_faults(chance, stage, aim, way, quiet_s)
        undisturbed = [c for c in commands if not (_changes_mode(c) and way.holds(c.at_s))]
        commands = tuple(sorted((*undisturbed, *way.commands), key=lambda c: c.at_s))
    return Episode(
        number=number,
        seed=int(chance.integers(1, 2**31)),
        cycles=cycles,
        quiet_s=quiet_s,
        mismatch=_mismatch(chance, stage),
        noise=digits(low * (high / low) ** float(chance.random()), 3),
        labs=labs,
        commands=commands,
        faults=draw_faults(chance, stage, int(chance.poisson(mean)), quiet_s, aimed),
        solver_faults=draw_solver_faults(chance, stage, solver_count, quiet_s),
    )


def staged(base: Scenario, episode: Episode) -> Scenario:
    """The scenario of an episode: the base's plant and PLC with this story and nothing else of
    the base's own."""
    mismatch = {name: base.mismatch.get(name, 1.0) * f for name, f in episode.mismatch.items()}
    duration_s = episode.cycles * base.settings.cycle_s
    back = calm(base, episode.commands, episode.quiet_s)
    commands = (*asking(0.0), *episode.commands, *back)
    return replace(
        base,
        duration_s=duration_s,
        seed=episode.seed,
        mismatch={**base.mismatch, **mismatch},
        noise={tag: sigma * episode.noise for tag, sigma in base.noise.items()},
        profiles=(),
        labs=tuple(episode.labs.get(lab.source, lab) for lab in base.labs),
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


def _changes_mode(command: ScheduledCommand) -> bool:
    return command.kind in (CommandKind.MODE, CommandKind.REARM)


def _mismatch(chance: Chance, stage: Stage) -> dict[str, float]:
    names = sorted(stage.gentle)
    count = min(len(names), int(chance.integers(0, 4)))
    chosen = sorted(str(name) for name in chance.choice(names, count, replace=False))
    return {
        name: digits(1.0 + float(chance.uniform(-1.0, 1.0)) * stage.gentle[name], 5)
        for name in chosen
    }


def _lab_chaos(chance: Chance, stage: Stage) -> dict[str, LabSettings]:
    """Laboratories that are slower or faster than the scenario's, and err more."""
    found: dict[str, LabSettings] = {}
    for name, lab in sorted(stage.labs.items()):
        slower, drop, outlier = chance.random(3).tolist()
        low_s, high_s = (digits(delay_s * 2.0 ** (2.0 * slower - 1.0)) for delay_s in lab.delay_s)
        found[name] = replace(
            lab,
            delay_s=(low_s, high_s),
            drop=digits(LAB_DROP_MAX * drop, 2),
            outlier=digits(LAB_OUTLIER_MAX * outlier, 2),
        )
    return found
