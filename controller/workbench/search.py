"""The search for weights: first fast enough with the model, then well damped with every plant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np

from controller.errors import ModelError
from controller.workbench.closed_loop import ClosedLoop, StepTest, Weights
from controller.workbench.ensemble import Member

OVERSHOOT_MAX, UNDERSHOOT_MAX = 0.25, 0.125
"""Well damped: the overshoot of a damping ratio of 0.4, and half of it on the way back."""
FACTORS = (1e-6, 1e6)
"""Move suppression is searched between these factors on the configured one."""
LIVELIEST = (FACTORS[0], 1e-3, 1.0)
"""Factors tried for the fastest response; some loops do not work without suppression."""
LONGER = (1.0, 4.0, 16.0)
"""Windows in which it is looked for, as factors on the wanted ones."""
GRID = 16
"""Steps per decade in which suppression is raised until the worst plant is well damped: 15 % each,
a few per cent of the response time."""
CLOSE = 1.02
"""A response this much slower than wanted is as wanted."""
REACHABLE = 1.05
"""The fastest response counts as met within this factor: the last bit costs wild moves."""
FAST, REFINEMENTS = 0.75, 10
"""CVs faster than this part of what is wanted get a smaller weight, refined so many times."""
WINDOW, SHORT_WINDOW = 4.0, 2.0
"""Simulated time in responses: to judge damping, to read the response time alone."""
HALVINGS, SAME = 12, 0.97
"""Bisections, which end early with a response between this part and CLOSE of what is wanted."""
WORST, ROUNDS = 4, 6

Progress = Callable[[], None]
"""Is called before every simulated response."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What the search is about: stepped CVs by index with their wanted times, the plants, and the
    smallest factor on the suppressions."""

    loop: ClosedLoop
    wanted: Mapping[int, float]
    members: tuple[Member, ...]
    progress: Progress
    liveliest: float

    @property
    def nominal(self) -> Member:
        return self.members[0]

    @property
    def slowest_s(self) -> float:
        return max(self.wanted.values())

    @property
    def pairs(self) -> list[tuple[int, Member]]:
        """Every CV on every plant, the nominal one first."""
        return [(cv, member) for member in self.members for cv in self.wanted]

    def times(self, weights: Weights, longer: float = 1.0) -> dict[int, float]:
        """Nominal response times, by CV; infinite beyond the window."""
        seconds, times = SHORT_WINDOW * longer * self.slowest_s, dict[int, float]()
        for cv in self.wanted:
            self.progress()
            test = self.loop.respond(cv, self.nominal, weights, seconds, whole=False)
            times[cv] = test.response_s
        return times

    def window_s(self, weights: Weights) -> float:
        """How long to look at responses with these weights, so that an overshoot is seen."""
        for longer in LONGER:
            slowest_s = max(self.times(weights, longer).values())
            if np.isfinite(slowest_s):
                return WINDOW * max(slowest_s, self.slowest_s)
        return WINDOW * LONGER[-1] * self.slowest_s

    def tests(self, weights: Weights, pairs: Sequence[tuple[int, Member]]) -> Iterator[StepTest]:
        """Whole responses of CVs on plants, one after the other."""
        seconds = self.window_s(weights)
        for cv, member in pairs:
            self.progress()
            yield self.loop.respond(cv, member, weights, seconds)


def fastest(task: Task) -> tuple[float, dict[int, float]]:
    """The liveliest factor that works, and the response times with it: the fastest there are.

    Raises:
        ModelError: a CV does not respond within 32 times what is wanted.
    """
    even = (1.0,) * len(task.loop.application.cvs)
    times: dict[int, float] = {}
    for longer in LONGER:
        for factor in LIVELIEST:
            times = task.times(Weights(factor, even), longer)
            if all(np.isfinite(seconds) for seconds in times.values()):
                return factor, times
    late = [task.loop.application.cvs[cv].name for cv, s in times.items() if not np.isfinite(s)]
    raise ModelError(
        f"{', '.join(late)} does not follow its setpoint or zone even in {2 * LONGER[-1]:g} times "
        "the wanted response time",
        mend="Check the unit of `response`, the rates of the MVs, and the horizon of the MPC",
    )


def fast_enough(task: Task) -> Weights:
    """The calmest weights with which every nominal response is fast enough.

    Only CVs at setpoints change their weights: that of a zone is the price of leaving it.
    """
    even = Weights(1.0, (1.0,) * len(task.loop.application.cvs))
    weights = _calmest(task, even)
    times = task.times(weights)
    cvs = task.loop.application.cvs
    tracked = {cv: s for cv, s in task.wanted.items() if cvs[cv].setpoint is not None}
    if len(tracked) < 2 or all(times[cv] >= FAST * s for cv, s in tracked.items()):
        return weights
    return _calmest(task, _balanced(task, tracked, weights, times))


def _calmest(task: Task, weights: Weights) -> Weights:
    """The largest common factor on the suppressions that is fast enough, by bisection."""
    low, high = log10(task.liveliest), log10(FACTORS[1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        times = task.times(Weights(10.0**middle, weights.cv))
        slowest = max(times[cv] / wanted for cv, wanted in task.wanted.items())
        low, high = (middle, high) if slowest <= CLOSE else (low, middle)
        if SAME <= slowest <= CLOSE:
            break
    return Weights(10.0**low, weights.cv)


def _balanced(
    task: Task, tracked: Mapping[int, float], weights: Weights, times: Mapping[int, float]
) -> Weights:
    """Smaller weights for CVs that are faster than wanted: a fixed point in logarithms."""
    best, ways = weights, dict.fromkeys(tracked, 0.0)
    least = _mismatch(tracked, times)
    for _ in range(REFINEMENTS):
        for cv, wanted in tracked.items():
            # Of a first-order process the response time goes with the root of the weight.
            ratio = 2.0 * log10(min(times[cv], 1e3 * wanted) / wanted)
            ways[cv] = max(ways[cv] + min(max(ratio, -1.0), 1.0), -4.0)
        top = max(ways.values())
        ways = {cv: way - top for cv, way in ways.items()}
        cvs = tuple(10.0 ** ways.get(i, 0.0) for i in range(len(weights.cv)))
        tried = Weights(weights.suppression * 10.0**-top, cvs)
        weights = Weights(min(max(tried.suppression, task.liveliest), FACTORS[1]), cvs)
        times = task.times(weights)
        if _mismatch(tracked, times) < least:
            best, least = weights, _mismatch(tracked, times)
    return best


def _mismatch(tracked: Mapping[int, float], times: Mapping[int, float]) -> float:
    """The furthest that a response is from what is wanted, as a logarithm."""
    return max(abs(log10(max(times[cv], 1e-9) / wanted)) for cv, wanted in tracked.items())


def written(weights: Weights, loop: ClosedLoop) -> Weights:
    """The same with CV weights of three digits, as they will be written."""
    cvs = loop.application.cvs
    factors = tuple(
        digits(cv.weight * factor) / cv.weight for cv, factor in zip(cvs, weights.cv, strict=True)
    )
    return Weights(weights.suppression, factors)


def digits(value: float) -> float:
    return float(f"{value:.3g}")


def well_damped(test: StepTest) -> bool:
    """Whether a response overshoots and oscillates no more than is bearable."""
    return test.overshoot <= OVERSHOOT_MAX and test.undershoot <= UNDERSHOOT_MAX


def severity(test: StepTest) -> float:
    """How far a response is from well damped; above 1 it is not."""
    return max(test.overshoot / OVERSHOOT_MAX, test.undershoot / UNDERSHOOT_MAX)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Weights, the responses with them (members, then CVs), whether all are well damped, and the
    plant that kept the suppression from being smaller."""

    weights: Weights
    tests: list[StepTest]
    damped: bool
    critical: str


def robust(task: Task, weights: Weights) -> Outcome:
    """The smallest suppression, on a grid above the nominal one, that damps all of the ensemble.

    Only the worst plants are simulated while it is raised; all of them at the end, and again with
    the new worst ones among them when they are not well damped yet (a cutting plane).
    """
    start, steps = weights.suppression, 0
    most = floor(GRID * (log10(FACTORS[1] / start))) if start < FACTORS[1] else 0
    active: list[tuple[int, Member]] = []

    def at(step: int) -> Weights:
        return Weights(start * 10.0 ** (step / GRID), weights.cv)

    def bearable(step: int) -> bool:
        return all(well_damped(test) for test in task.tests(at(step), active))

    tests = list(task.tests(weights, task.pairs))
    for _ in range(ROUNDS):
        if all(well_damped(test) for test in tests):
            return Outcome(at(steps), tests, True, active[0][1].name if active else "")
        pairs = task.pairs
        order = sorted(range(len(tests)), key=lambda i: -severity(tests[i]))
        active += [pairs[i] for i in order[:WORST] if pairs[i] not in active]
        below, stride = steps, 4
        while below + stride < most and not bearable(below + stride):
            below, stride = below + stride, 2 * stride
        above = min(below + stride, most)
        if above <= below or (above == most and not bearable(most)):
            break
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (below, middle) if bearable(middle) else (middle, above)
        steps = above
        tests = list(task.tests(at(steps), task.pairs))
    # Nothing helps: what is wanted is shown as it would be.
    tests = list(task.tests(weights, task.pairs))
    return Outcome(weights, tests, all(well_damped(test) for test in tests), "")
