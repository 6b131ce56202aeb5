"""Runs a swarm: episode after episode on one built application, on several processes if wanted."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from controller.app import build_application
from controller.cycle.application import Application
from controller.errors import ProcessLost, ScenarioError, SettingsError
from controller.replay import Replayed
from hil.bundle import history_hash
from hil.invariants.judge import Invariant
from hil.runner import VERDICT_FILE, run_scenario
from hil.scenario import Scenario, Tier, load_scenario
from hil.swarm.aims import Turn
from hil.swarm.coverage import Begun, begun
from hil.swarm.draw import fault_choices
from hil.swarm.episode import Episode, draw_episode, staged
from hil.swarm.recovery import unrecovered
from hil.swarm.stage import Stage, stage_of
from hil.workers import in_turn

EPISODE_CYCLES = 400
QUIET_SHARE = 0.5
PATIENCE = 3
"""A plant that is not back when the quiet is over is watched on, up to so many times the quiet:
from far away the way takes its time, and what never comes back is known only then."""
REPLAYED_EVERY = 25
"""Of so many episodes one is replayed as well, which doubles its cost."""
_BREACH = re.compile(r"cycle (\d+), (\w+): ")
UNRECOVERED = "unrecovered"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an episode showed.

    Attributes:
        history_hash: of what was decided.
        violations: broken invariants, in words; unrecovered: why it did not come back, or empty.
        slow: it came back, but later than in the quiet of its episode.
        begun: how often each fault type began in each mode; offered: the types that its ground has.
    """

    scenario: str
    number: int
    cycles: int
    history_hash: str
    violations: tuple[str, ...]
    unrecovered: str
    elapsed_s: float
    begun: Begun
    offered: tuple[str, ...]
    slow: bool = False

    @property
    def failed(self) -> bool:
        return bool(self.violations or self.unrecovered)

    @property
    def kinds(self) -> frozenset[str]:
        """Names of the broken invariants, or that it did not recover."""
        found = (_BREACH.match(text) for text in self.violations)
        names = {match.group(2) for match in found if match is not None}
        return frozenset(names or ({UNRECOVERED} if self.unrecovered else ()))

    @property
    def first_cycle(self) -> int:
        """Of the first broken invariant; -1 where none is."""
        found = (_BREACH.match(text) for text in self.violations)
        return min((int(match.group(1)) for match in found if match is not None), default=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """A scenario ready for episodes: loaded, looked over, and its application built."""

    scenario: Scenario
    application: Application
    stage: Stage


@dataclass(frozen=True, slots=True)
class Swarm:
    """What is to be run; the same values give the same history.

    Attributes:
        scenarios: files that the episodes take turns with: in an order of chance, but none comes
            again before every other has come.
        cycles: of all episodes together.
        episode: cycles of one; the last takes what is left.
    """

    scenarios: tuple[str, ...]
    cycles: int
    seed: int
    tier: Tier = "virtual"
    episode: int = EPISODE_CYCLES

    @property
    def lengths(self) -> tuple[int, ...]:
        """Cycles of each episode."""
        count = max(1, self.cycles // self.episode)
        return (*[self.episode] * (count - 1), self.cycles - self.episode * (count - 1))

    def turn(self, number: int) -> Turn:
        """Which of the scenarios episode `number` is on, and how many were on it before."""
        time, place = divmod(number, len(self.scenarios))
        order = np.random.default_rng([self.seed, time]).permutation(len(self.scenarios))
        return Turn(int(order[place]), time)


def make_ground(path: str, tier: Tier) -> Ground:
    """Raises ScenarioError or SettingsError where the scenario cannot be run."""
    scenario = replace(load_scenario(path), tier=tier)
    application = build_application(scenario.settings, epoch=1)
    return Ground(scenario, application, stage_of(scenario, application))


def drawn(swarm: Swarm, number: int, ground: Ground) -> Episode:
    """Episode `number` of a swarm, on the ground whose turn it is."""
    cycles = swarm.lengths[number]
    quiet = round(QUIET_SHARE * min(cycles, swarm.episode))
    turn = swarm.turn(number)
    return draw_episode(ground.scenario, ground.stage, swarm.seed, number, turn, cycles, quiet)


def run_episode(
    ground: Ground, episode: Episode, directory: Path, *, check_replay: bool = False
) -> Outcome:
    """Run an episode into `directory` and judge it; a controller that raises has failed too.

    Where the plant does not come back in time, the same goes on with `PATIENCE` times the quiet.

    Raises:
        ScenarioError, SettingsError: the episode cannot be run.
    """
    outcome = _run_once(ground, episode, directory, check_replay=check_replay)
    if not outcome.unrecovered or outcome.violations:
        return outcome
    quiet = episode.cycles - round(episode.quiet_s / ground.scenario.settings.cycle_s)
    longer = replace(episode, cycles=episode.cycles + (PATIENCE - 1) * quiet)
    with tempfile.TemporaryDirectory(prefix="loopwright-swarm-") as folder:
        later = _run_once(ground, longer, Path(folder) / "run")
    if later.failed:
        return replace(outcome, violations=later.violations, unrecovered=later.unrecovered)
    return replace(outcome, unrecovered="", slow=True)


def _run_once(
    ground: Ground, episode: Episode, directory: Path, *, check_replay: bool = False
) -> Outcome:
    begun_s = perf_counter()
    scenario = staged(ground.scenario, episode)
    try:
        run = run_scenario(
            scenario, directory, check_replay=check_replay, application=ground.application
        )
    except (ScenarioError, SettingsError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is looked for
        what = f"cycle 0, {Invariant.ALIVE}: {type(error).__name__}: {error}"
        nothing = hashlib.sha256(what.encode()).hexdigest()
        return Outcome(
            scenario=scenario.id,
            number=episode.number,
            cycles=episode.cycles,
            history_hash=nothing,
            violations=(what,),
            unrecovered="",
            elapsed_s=perf_counter() - begun_s,
            begun={},
            offered=tuple(fault_choices(ground.stage)),
        )
    report: dict[str, Any] = msgspec.json.decode((directory / VERDICT_FILE).read_bytes())
    return Outcome(
        scenario=scenario.id,
        number=episode.number,
        cycles=len(run.history),
        history_hash=history_hash(directory),
        violations=(
            *(text for text in report["violations"] if _BREACH.match(text)),
            *_replay_breaches(run.replayed),
        ),
        unrecovered=unrecovered(run.history, scenario.settings, episode.quiet_s),
        elapsed_s=perf_counter() - begun_s,
        begun=begun(scenario, run.history),
        offered=tuple(fault_choices(ground.stage)),
    )


def _replay_breaches(replayed: Replayed | None) -> list[str]:
    if replayed is None or replayed.passed:
        return []
    found = [
        f"cycle {each.cycle}, {Invariant.REPLAY}: {', '.join(each.fields)} differ"
        for each in replayed.differences
    ]
    return found or [f"cycle 0, {Invariant.REPLAY}: {replayed}"]


def swarm_outcomes(swarm: Swarm, jobs: int = 1) -> Iterator[Outcome | ProcessLost]:
    """The outcomes of all episodes in order, whatever the number of processes; an episode whose
    process was killed has none."""
    numbers = range(len(swarm.lengths))
    if jobs == 1 or len(numbers) == 1:
        yield from map(partial(_run_number, swarm, {}), numbers)
        return
    for number, one in enumerate(in_turn(partial(_in_worker, swarm), numbers, jobs)):
        if isinstance(one, ProcessLost):
            one.where = f"episode {number}"
        yield one


def swarm_hash(outcomes: Sequence[Outcome]) -> str:
    """SHA-256 over the history hashes of the episodes, in order."""
    found = hashlib.sha256()
    for outcome in outcomes:
        found.update(bytes.fromhex(outcome.history_hash))
    return found.hexdigest()


def _run_number(swarm: Swarm, grounds: dict[str, Ground], number: int) -> Outcome:
    path = swarm.scenarios[swarm.turn(number).ground]
    if path not in grounds:
        grounds[path] = make_ground(path, swarm.tier)
    ground = grounds[path]
    with tempfile.TemporaryDirectory(prefix="loopwright-swarm-") as folder:
        return run_episode(
            ground,
            drawn(swarm, number, ground),
            Path(folder) / "run",
            check_replay=number % REPLAYED_EVERY == REPLAYED_EVERY - 1,
        )


_grounds_of_worker: dict[str, Ground] = {}
"""A worker process knows one swarm only, and builds everything once."""


def _in_worker(swarm: Swarm, number: int) -> Outcome:
    return _run_number(swarm, _grounds_of_worker, number)
