"""The solve ladder: the best verified plan that the iteration budget allows, and never none.

Rungs in order: sqp → fatrop → ipopt → shifted plan → hold. Every refusal is kept with its reason.
What follows after holding too long, handing back to the PLC, is the mode machine's decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.mpc.problem import Plan, Situation, Target
from controller.mpc.solvers import Answer, Arguments, Iterate, Solver, make_solver
from controller.mpc.transcription import Transcription
from plant_models.process import Vector

LIMIT_TOLERANCE = 1e-6
"""Share of an MV's span by which a plan may miss a hard limit (solver tolerance)."""


@dataclass(frozen=True, slots=True, eq=False)
class PlannerState:
    """What planning remembers: the last solved plan, its age in cycles, and the warm start."""

    plan: Plan | None = None
    age: int = 0
    warm: Iterate | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """The rungs, ready to be climbed down.

    Attributes:
        solvers: (name, solver), tried in order.
        plan_age_max: cycles that a shifted plan may be used for.
    """

    transcription: Transcription
    solvers: tuple[tuple[str, Solver], ...]
    plan_age_max: int

    def __call__(
        self, state: PlannerState, situation: Situation, target: Target
    ) -> tuple[PlannerState, Plan]:
        """A plan for this situation, from the highest rung whose answer is verified."""
        refused: list[str] = []
        strange = self.implausible(situation)
        if strange:
            refused.append(f"solvers: {strange}")
        else:
            arguments = Arguments(
                self.transcription.parameters(situation, target),
                *self.transcription.bounds(situation),
            )
            for name, solver in self.solvers:
                guess = state.warm or self._cold(situation)
                outcome = self._attempt(solver, arguments, guess)
                if isinstance(outcome, str):
                    refused.append(f"{name}: {outcome}")
                    continue
                plan = self._plan(name, outcome, arguments, refused)
                fault = self._outside(plan, situation)
                if fault:
                    refused.append(f"{name}: {fault}")
                    continue
                return PlannerState(plan, 0, outcome.iterate), plan
        return self._without_solution(state, situation, refused)

    def implausible(self, situation: Situation) -> str:
        """What in this situation no solver should be given; empty: nothing."""
        return self.transcription.augmented.implausible(
            situation.x, situation.w, situation.u_now, situation.d
        )

    def _attempt(self, solver: Solver, arguments: Arguments, guess: Iterate) -> Answer | str:
        """The verified answer, or why there is none."""
        try:
            answer = solver(arguments, guess)
        except RuntimeError as error:  # CasADi reports every plugin failure as this type.
            return f"broke: {(str(error).splitlines() or ['without a word'])[0]}"
        if answer.certificate.fault:
            return f"{answer.certificate.fault}; it said {answer.status}"
        return answer

    def _plan(
        self, name: str, answer: Answer, arguments: Arguments, refused: Sequence[str]
    ) -> Plan:
        moves, prediction = self.transcription.read(answer.iterate.x, arguments.p)
        return Plan(
            moves=np.asarray(moves, dtype=np.float64),
            prediction=np.asarray(prediction, dtype=np.float64),
            status=answer.status,
            rung=name,
            refused=tuple(refused),
            cost=answer.cost,
            iterations=answer.iterations,
            kkt_residual=answer.certificate.residual,
        )

    def _without_solution(
        self, state: PlannerState, situation: Situation, refused: list[str]
    ) -> tuple[PlannerState, Plan]:
        age = state.age + 1
        if state.plan is not None and age <= self.plan_age_max:
            shifted = self._shifted(state.plan, age, situation, refused)
            fault = self._outside(shifted, situation)
            if not fault:
                return PlannerState(state.plan, age, None), shifted
            refused.append(f"shifted: {fault}")
        elif state.plan is not None:
            refused.append(
                f"shifted: the last plan is {age} cycles old, {self.plan_age_max} allowed"
            )
        return PlannerState(state.plan, age, None), self._hold(situation, refused)

    def _shifted(self, plan: Plan, age: int, situation: Situation, refused: Sequence[str]) -> Plan:
        """The old plan as it would be by now; its last row repeats. MVs not free stay."""
        horizon = self.transcription.horizon
        begun = int(age * horizon.cycle_s // horizon.step_s)
        rows = np.minimum(np.arange(horizon.intervals) + begun, horizon.intervals - 1)
        now = self._now(situation)
        moves = np.where(situation.free > 0, plan.moves[rows], now)
        return replace(
            plan,
            moves=moves,
            prediction=plan.prediction[rows],
            rung="shifted",
            refused=tuple(refused),
            status="not solved",
            age=age,
        )

    def _hold(self, situation: Situation, refused: Sequence[str]) -> Plan:
        horizon = self.transcription.horizon
        ny = len(self.transcription.augmented.model.y)
        return Plan(
            moves=np.tile(self._now(situation), (horizon.intervals, 1)),
            prediction=np.full((horizon.intervals, ny), np.nan),
            status="not solved",
            rung="hold",
            refused=tuple(refused),
            cost=float("nan"),
            iterations=0,
            kkt_residual=float("nan"),
        )

    def _outside(self, plan: Plan, situation: Situation) -> str:
        """Which MV leaves its limits in this plan, or nothing."""
        now = self._now(situation)
        for i, mv in enumerate(self.transcription.mvs):
            slack = LIMIT_TOLERANCE * mv.span
            low = min(situation.mv_low[i], now[i]) - slack
            high = max(situation.mv_high[i], now[i]) + slack
            column = plan.moves[:, i]
            if not np.all(np.isfinite(column)) or column.min() < low or column.max() > high:
                return (
                    f"{mv.name} would go to [{column.min():g}, {column.max():g}] {mv.unit}, "
                    f"allowed is [{low:g}, {high:g}]"
                )
        return ""

    def _now(self, situation: Situation) -> Vector:
        return situation.u_now[[mv.input for mv in self.transcription.mvs]]

    def _cold(self, situation: Situation) -> Iterate:
        nlp = self.transcription.nlp
        x = self.transcription.guess(situation)
        return Iterate(x, np.zeros(x.size), np.zeros(int(nlp["g"].numel())))


def make_ladder(
    transcription: Transcription, budgets: Sequence[tuple[str, int]], plan_age_max: int
) -> Ladder:
    """A ladder with the given solver rungs and iteration budgets, tried in order."""
    solvers = tuple((name, make_solver(name, transcription, n)) for name, n in budgets)
    return Ladder(transcription, solvers, plan_age_max)
