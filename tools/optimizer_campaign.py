"""How close the optimizer gets to the Williams–Otto plant's optimum, over many seeds.

python tools/optimizer_campaign.py --seeds 30 --case constrained
python tools/optimizer_campaign.py --seeds 10 --schedule demo --json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np

from controller.optimizer.advisor import Advisor, AdvisorState
from controller.optimizer.modifier_adaptation import OptimizerState, Visit, observe, propose
from controller.optimizer.problem import (
    Decision,
    Economics,
    Limit,
    OptimizerProblem,
    build_problem,
)
from controller.optimizer.steady import CycleRow
from controller.signal import NS_PER_S, QualityResult
from plant_models.williams_otto import (
    PRICES,
    optimum,
    profit,
    steady_state_outputs,
    two_reaction_model,
)

LIMITS = {"xA": 0.12, "xG": 0.08}
START = (4.633, 76.233)
FEED, MORE_FEED = 1.8275, 2.0
SIGMA_OBJECTIVE, SIGMA_SHARE = 0.5, 5e-4
LAB_SIGMA = {"xP": 7e-5, "xE": 5e-4, "xG": 5e-4, "xA": 5e-4}
# What counts as breaking a limit: twice the standard deviation of one lab value.
VIOLATION = 1e-3


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of many runs; gaps in percent of the true optimum, violations in percent of visits.

    `violating_late` counts violating visits among the last five of every run.
    """

    case: str
    schedule: str
    seeds: int
    gap_mean: float
    gap_median: float
    gap_max: float
    violating: float
    violating_late: int
    visits_mean: float
    gap_by_visit: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One visit of a run: its true profit, the best possible one, and the worst excess."""

    profit: float
    best: float
    excess: float

    @property
    def gap(self) -> float:
        """Percent of the best profit that is missing; 0 where a broken limit earns more."""
        return max(0.0, 100.0 * (1.0 - self.profit / self.best))


@cache
def best_profit(constrained: bool, feed: float) -> float:
    return optimum(limits=LIMITS if constrained else None, F_A=feed).profit


@cache
def williams_otto_problem(
    constrained: bool, backoff: float, beta: float
) -> tuple[OptimizerProblem, Economics]:
    """The problem with the two-reaction model as prior."""
    p1, p2, p3, p4 = PRICES
    limits = [Limit(n, v, backoff=backoff, sigma=SIGMA_SHARE) for n, v in LIMITS.items()]
    return build_problem(
        two_reaction_model(),
        f"(F_A + F_B) * ({p1} * xP + {p2} * xE) - {p3} * F_A - {p4} * F_B",
        {
            "F_B_sp": Decision("F_B", "kg/s", 3.0, 6.0, radius=0.3, probe=0.2),
            "T_R_sp": Decision("T_R", "degC", 70.0, 100.0, radius=3.0, probe=2.0),
        },
        limits if constrained else [],
        {"F_A": 0.3},
        sigma_objective=SIGMA_OBJECTIVE,
        beta=beta,
    )


def true_point(u: tuple[float, float], feed: float, constrained: bool) -> Point:
    y = steady_state_outputs(u[0], u[1], feed)
    excess = max(y[name] - limit for name, limit in LIMITS.items()) if constrained else -1.0
    return Point(profit(y), best_profit(constrained, feed), excess)


def static_run(
    problem: OptimizerProblem,
    economics: Economics,
    seed: int,
    iterations: int,
    feed_step_at: int | None = None,
) -> list[Point]:
    """Visit, learn, move, `iterations` times after the start; the plant is always settled."""
    constrained = bool(problem.constraints)
    rng = np.random.default_rng(seed)
    state, u, feed = OptimizerState(), START, FEED
    points: list[Point] = []
    for k in range(iterations + 1):
        if k == feed_step_at:
            feed = MORE_FEED
            state, u = _next_target(problem, state, u, feed, 2 * k)
        points.append(true_point(u, feed, constrained))
        y = steady_state_outputs(u[0], u[1], feed)
        noise = SIGMA_SHARE * rng.standard_normal(len(problem.constraints))
        constraints = np.array(economics.constraints(y)) + noise
        objective = points[-1].profit + SIGMA_OBJECTIVE * float(rng.standard_normal())
        visit = Visit(2 * k + 1, u, (feed,), objective, tuple(map(float, constraints)))
        state = observe(problem, state, visit)
        state, u = _next_target(problem, state, u, feed, 2 * k + 1)
    return points


def _next_target(
    problem: OptimizerProblem,
    state: OptimizerState,
    u: tuple[float, float],
    feed: float,
    time_ns: int,
) -> tuple[OptimizerState, tuple[float, float]]:
    state, proposal = propose(problem, state, (feed,), time_ns)
    if proposal is None:
        return state, u
    return state, (proposal.targets["F_B"], proposal.targets["T_R"])


@dataclass(frozen=True, slots=True)
class Schedule:
    """A day of the demo: lab every 30 min, late by 20–60 min, more feed at 13 h."""

    hours: float = 24.0
    start_h: float = 2.0
    feed_step_h: float = 13.0
    cycle_s: float = 60.0
    lab_every_s: float = 1800.0
    settle_s: float = 1500.0
    flow_rate: float = 0.1 / 60
    temperature_rate: float = 0.5 / 60
    lag_s: float = 330.0  # M / F, the residence time that the composition follows with


def demo_run(
    problem: OptimizerProblem, economics: Economics, seed: int, day: Schedule
) -> list[Point]:
    """The demo's timing on a first-order plant; one point per lab sample, then the end."""
    constrained = bool(problem.constraints)
    rng = np.random.default_rng(seed)
    advisor = Advisor(problem, economics, day.settle_s, day.lab_every_s)
    state = AdvisorState()
    target = np.array(START)
    u, feed = target.copy(), FEED
    keep = round(advisor.history_s / day.cycle_s) + 2
    rows: list[CycleRow] = []
    waiting: list[QualityResult] = []
    points: list[Point] = []
    shares = steady_state_outputs(*START, FEED)
    follow = 1.0 - float(np.exp(-day.cycle_s / day.lag_s))
    rates = day.cycle_s * np.array([day.flow_rate, day.temperature_rate])
    for cycle in range(round(day.hours * 3600 / day.cycle_s) + 1):
        now_s = cycle * day.cycle_s
        now = round(now_s * NS_PER_S)
        feed = MORE_FEED if now_s >= day.feed_step_h * 3600 else FEED
        u = u + np.clip(target - u, -rates, rates)
        steady = steady_state_outputs(float(u[0]), float(u[1]), feed)
        shares = {n: v + follow * (steady[n] - v) for n, v in shares.items()}
        noise = (0.01 * rng.standard_normal(), 0.1 * rng.standard_normal())
        measured = (float(u[0] + noise[0]), float(u[1] + noise[1]))
        rows = [*rows[-keep:], CycleRow(now, measured, (feed + 0.005 * rng.standard_normal(),))]
        if now_s % day.lab_every_s == 0:
            points.append(true_point((float(u[0]), float(u[1])), feed, constrained))
            values = {n: shares[n] + s * rng.standard_normal() for n, s in LAB_SIGMA.items()}
            received = now + round(rng.uniform(1200.0, 3600.0) * NS_PER_S)
            waiting.append(QualityResult(f"lab-{cycle}", "assay", now, received, values))
        arrived = [r for r in waiting if r.received_ns <= now]
        waiting = [r for r in waiting if r.received_ns > now]
        may_move = now_s >= day.start_h * 3600
        state, proposal = advisor.advance(state, rows, arrived, now, may_move=may_move)
        if proposal is not None:
            target = np.array([proposal.targets["F_B"], proposal.targets["T_R"]])
    return points


def summary(case: str, schedule: str, runs: list[list[Point]], excluded: int) -> Outcome:
    """Figures over all runs; the first `excluded` points of each are the given start."""
    gaps = np.array([[point.gap for point in run] for run in runs])
    broken = np.array([[point.excess > VIOLATION for point in run[excluded:]] for run in runs])
    last = gaps[:, -1]
    return Outcome(
        case=case,
        schedule=schedule,
        seeds=len(runs),
        gap_mean=float(np.mean(last)),
        gap_median=float(np.median(last)),
        gap_max=float(np.max(last)),
        violating=100.0 * float(np.mean(broken)),
        violating_late=int(np.sum(broken[:, -5:])),
        visits_mean=float(np.mean([len(run) for run in runs])),
        gap_by_visit=tuple(round(float(v), 2) for v in np.mean(gaps, axis=0)),
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument(
        "--case", choices=["constrained", "unconstrained", "feed", "all"], default="all"
    )
    parser.add_argument("--schedule", choices=["static", "demo"], default="static")
    parser.add_argument("--backoff", type=float, default=None, help="default 0, demo 5e-4")
    parser.add_argument("--beta", type=float, default=2.0)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(arguments)
    demo = given.schedule == "demo"
    backoff = given.backoff if given.backoff is not None else (5e-4 if demo else 0.0)
    cases = ["constrained", "unconstrained", "feed"] if given.case == "all" else [given.case]
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    outcomes: list[Outcome] = []
    for case in cases:
        problem, economics = williams_otto_problem(case != "unconstrained", backoff, given.beta)
        runs: list[list[Point]] = []
        for seed in seeds:
            if demo:
                day = Schedule()
                day = day if case == "feed" else replace(day, feed_step_h=day.hours + 1)
                runs.append(demo_run(problem, economics, seed, day))
            else:
                step = 12 if case == "feed" else None
                runs.append(static_run(problem, economics, seed, given.iterations, step))
            print(f"{case}: {len(runs)}/{given.seeds}", end="\r", file=sys.stderr, flush=True)
        outcomes.append(summary(case, given.schedule, runs, excluded=5 if demo else 1))
    print(file=sys.stderr)
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
        return 0
    for o in outcomes:
        print(
            f"{o.case} ({o.schedule}, {o.seeds} seeds): gap at the end {o.gap_mean:.2f} % mean, "
            f"{o.gap_median:.2f} % median, {o.gap_max:.2f} % worst; {o.violating:.2f} % of visits "
            f"violate, {o.violating_late} in the last five\n  gap by visit: {o.gap_by_visit}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
