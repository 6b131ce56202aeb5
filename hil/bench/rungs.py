"""Every solver of the ladder on the same instances: what the next rung costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter_ns

import numpy as np
from msgspec import structs

from controller.mpc.instance import Instance
from controller.mpc.ladder import PlannerState
from controller.mpc.solvers import Answer, Solver, Trajectory
from hil.bench.case import BenchCase
from hil.bench.ladder_side import build_ladder, situation, target
from hil.bench.plant import BenchPlant

BUDGETS = (("sqp", 12), ("ipopt", 150))
STEPS = 20


@dataclass(frozen=True, slots=True)
class RungTimes:
    """Solve times of one rung over a case's instances; refused: answers without a certificate."""

    case: str
    rung: str
    median_ms: float
    max_ms: float
    refused: int


def measure_rungs(
    case: BenchCase, told: Callable[[int, int], None] | None = None
) -> list[RungTimes]:
    """Record the instances of a closed loop under the first rung, then solve them by each."""
    ladder = build_ladder(case, BUDGETS)
    asked: list[tuple[Instance, Trajectory]] = []
    name, first = ladder.solvers[0]

    def recording(instance: Instance, begin: Trajectory) -> Answer:
        asked.append((instance, begin))
        return first(instance, begin)

    spied = replace(ladder, solvers=((name, recording), *ladder.solvers[1:]))
    plant, state, u = BenchPlant(case, case.seed), PlannerState(), case.u0
    for _ in range(STEPS + 1):
        here = structs.replace(situation(case, plant.x, u), u_now=u)
        state, plan = spied(state, here, target(case))
        u = plan.moves[0]
        plant.advance(u)
    found: list[RungTimes] = []
    for number, (rung, solver) in enumerate(ladder.solvers):
        found.append(_timed(case, rung, solver, asked[1:]))
        if told is not None:
            told(number + 1, len(ladder.solvers))
    return found


def _timed(
    case: BenchCase, rung: str, solver: Solver, asked: list[tuple[Instance, Trajectory]]
) -> RungTimes:
    times: list[float] = []
    refused = 0
    for instance, begin in asked:
        begun = perf_counter_ns()
        answer = solver(instance, begin)
        times.append((perf_counter_ns() - begun) * 1e-6)
        refused += bool(answer.certificate.fault)
    return RungTimes(case.name, rung, float(np.median(times)), float(np.max(times)), refused)
