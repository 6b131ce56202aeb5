"""Tuning from two numbers per CV: how fast it should respond, and how wrong its gains may be.

The move suppressions get one common factor, the calmest with which every nominal response is as
fast as wanted. CVs that are then much faster than wanted get a smaller weight. Where the worst
plant of the ensemble is not well damped, the factor is raised until it is, whatever that does to
the response. What cannot be reached is named, with the limit that prevents it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from controller.errors import SettingsError
from controller.settings import Settings
from controller.workbench.closed_loop import ClosedLoop, StepTest, Weights
from controller.workbench.ensemble import ensemble
from controller.workbench.limiting import limiting
from controller.workbench.search import (
    CLOSE,
    FACTORS,
    REACHABLE,
    Outcome,
    Progress,
    Task,
    digits,
    fast_enough,
    fastest,
    robust,
    severity,
    well_damped,
    written,
)


@dataclass(frozen=True, slots=True, eq=False)
class TunedCv:
    """One CV that states a response time.

    Attributes:
        wanted_s, nominal_s, worst_s: response time asked for, of the model, and the slowest of
            the ensemble; slowest: the member that has it.
        overshoot, worst_overshoot: of the model, and the largest of the ensemble, as shares of the
            step; worst: the member that has it.
        weight: suggested.
        limit: what keeps it from responding as wanted; empty: it does.
        nominal, tests: the responses, of the model and of every member.
    """

    name: str
    unit: str
    wanted_s: float
    gain_uncertainty: float
    nominal_s: float
    worst_s: float
    slowest: str
    overshoot: float
    worst_overshoot: float
    worst: str
    weight: float
    limit: str
    nominal: StepTest
    tests: tuple[StepTest, ...]


@dataclass(frozen=True, slots=True)
class TunedMv:
    """One MV: configured and suggested move suppression; activity: the sum of its moves in the
    liveliest of all responses, in its unit, of the model and of the worst plant."""

    name: str
    unit: str
    configured: float
    move_suppression: float
    activity: float
    worst_activity: float


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """What is suggested, and what it does. `damped`: the worst plant is well damped."""

    cvs: tuple[TunedCv, ...]
    mvs: tuple[TunedMv, ...]
    weights: Weights
    members: int
    damped: bool
    linearized: bool

    @property
    def reached(self) -> bool:
        """Whether every CV responds as wanted, and the worst plant is well damped."""
        return self.damped and not any(cv.limit for cv in self.cvs)


def tune(
    settings: Settings, loop: ClosedLoop, seed: int = 0, progress: Progress = lambda: None
) -> Tuning:
    """Suggest move suppressions and weights for the response times that the CVs state.

    Raises:
        SettingsError: no CV states a response time, one states less than two cycles, or no MV
            has a move suppression to scale.
        ModelError: a CV cannot be moved at its operating point.
    """
    wanted = wanted_responses(settings)
    application = loop.application
    if not any(mv.move_suppression > 0.0 for mv in application.mvs):
        raise SettingsError(
            "every move_suppression is 0, so there is nothing to scale",
            where=settings.where("manipulated"),
            mend="Write move_suppression: 1 for every MV",
        )
    shares = {
        cv.output: given.gain_uncertainty
        for cv, given in zip(application.cvs, settings.controlled, strict=True)
    }
    labels = {cv.output: cv.name for cv in application.cvs}
    inputs = {mv.input: mv.name for mv in application.mvs}
    members = ensemble(loop.point, shares, inputs, labels, seed)
    liveliest, possible = fastest(Task(loop, wanted, members, progress, FACTORS[0]))
    aims = {
        cv: seconds if possible[cv] <= CLOSE * seconds else REACHABLE * possible[cv]
        for cv, seconds in wanted.items()
    }
    task = Task(loop, aims, members, progress, liveliest)
    return _suggestion(settings, task, wanted, robust(task, written(fast_enough(task), loop)))


def wanted_responses(settings: Settings) -> dict[int, float]:
    """Wanted response times, by index of the CV.

    Raises:
        SettingsError: there is none, or one is shorter than two cycles.
    """
    wanted: dict[int, float] = {}
    for i, cv in enumerate(settings.controlled):
        if cv.response_s is None:
            continue
        if cv.response_s < 2.0 * settings.cycle_s:
            raise SettingsError(
                f"{cv.output} should respond in {cv.response_s:g} s, but a move is decided only "
                f"every {settings.cycle_s:g} s",
                where=settings.where(f"controlled[{i}].response"),
                mend=f"Write {2.0 * settings.cycle_s:g} s or more, or shorten the cycle",
            )
        wanted[i] = cv.response_s
    if not wanted:
        raise SettingsError(
            "no controlled variable states a response time, so there is nothing to tune for",
            where=settings.where("controlled"),
            mend="Add `response: 10 min` (and `gain_uncertainty: 20 %`) to a CV under controlled",
        )
    return wanted


def _suggestion(
    settings: Settings,
    task: Task,
    wanted: Mapping[int, float],
    found: Outcome,
) -> Tuning:
    weights, tests = found.weights, found.tests
    application = task.loop.application
    return Tuning(
        cvs=tuple(_tuned_cv(settings, task, wanted, found, cv) for cv in wanted),
        mvs=tuple(
            TunedMv(
                mv.name,
                mv.unit,
                mv.move_suppression,
                _up(mv.move_suppression * weights.suppression),
                _activity(task, tests[: len(wanted)], i),
                _activity(task, tests, i),
            )
            for i, mv in enumerate(application.mvs)
        ),
        weights=weights,
        members=len(task.members),
        damped=found.damped,
        linearized=application.ladder.solvers[0][0] != "condensed",
    )


def _up(value: float) -> float:
    """Three digits, rounded up: calmer rather than livelier, and never the wrong way round."""
    if value <= 0.0:
        return value
    digit = 10.0 ** (floor(log10(value)) - 2)
    return float(f"{ceil(value / digit - 1e-9) * digit:.3g}")


def _activity(task: Task, tests: Sequence[StepTest], mv: int) -> float:
    """The largest sum of moves among these responses."""
    rest = task.loop.point.u[task.loop.application.mvs[mv].input]
    return max(float(np.abs(np.diff(test.u[:, mv], prepend=rest)).sum()) for test in tests)


def _tuned_cv(
    settings: Settings,
    task: Task,
    wanted: Mapping[int, float],
    found: Outcome,
    cv: int,
) -> TunedCv:
    tests = tuple(test for test in found.tests if test.cv == cv)
    nominal, known = tests[0], task.loop.application.cvs[cv]
    slowest = max(tests, key=lambda test: test.response_s)
    worst = max(tests, key=severity)
    share = settings.controlled[cv].gain_uncertainty
    limit = ""
    if not found.damped and not well_damped(worst):
        limit = (
            f"no move suppression makes all plants well damped: overshoot {worst.overshoot:.0%}, "
            f"then {worst.undershoot:.0%} short, with {worst.member}"
        )
    elif task.wanted[cv] > wanted[cv]:
        liveliest = Weights(task.liveliest, (1.0,) * len(found.weights.cv))
        limit = limiting(task.loop, cv, task.nominal, task.wanted[cv], liveliest)
    elif nominal.response_s > REACHABLE * wanted[cv]:
        limit = f"the gain uncertainty: faster, it is not well damped with {found.critical}"
    return TunedCv(
        name=known.name,
        unit=known.unit,
        wanted_s=wanted[cv],
        gain_uncertainty=share,
        nominal_s=nominal.response_s,
        worst_s=slowest.response_s,
        slowest=slowest.member,
        overshoot=nominal.overshoot,
        worst_overshoot=worst.overshoot,
        worst=worst.member,
        weight=digits(known.weight * found.weights.cv[cv]),
        limit=limit,
        nominal=nominal,
        tests=tests,
    )
