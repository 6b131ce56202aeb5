"""The solve ladder: the best verified plan that the iteration budget allows, and never none.

Rungs in order: condensed (linear models) or rti → sqp → ipopt → shifted plan → lqr → hold.
Every refusal is kept with its reason. What follows after holding too long, handing back to the PLC,
is the mode machine's decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct, structs

from controller.mpc.instance import Instance, Instances
from controller.mpc.problem import Plan, Situation, Target
from controller.mpc.regulator import Regulator, regulator
from controller.mpc.solvers import Answer, Solver, Trajectory, make_solver
from controller.mpc.stage import Stage
from controller.mpc.transcription import transcribe
from plant_models.process import Vector

LIMIT_TOLERANCE = 1e-6
"""Share of an MV's span by which a plan may miss a hard limit (solver tolerance)."""


class PlannerState(Struct, frozen=True, eq=False):
    """What planning remembers: the last solved plan, its age in cycles, and the warm start."""

    plan: Plan | None = None
    age: int = 0
    warm: Trajectory | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """The rungs, ready to be climbed down.

    Attributes:
        solvers: (name, solver), tried in order.
        plan_age_max: cycles that a shifted plan may be used for.
        regulator: the rung that needs no solver, or why there is none.
    """

    stage: Stage
    instances: Instances
    solvers: tuple[tuple[str, Solver], ...]
    plan_age_max: int
    regulator: Regulator | str = "there is none"

    def __call__(
        self, state: PlannerState, situation: Situation, target: Target
    ) -> tuple[PlannerState, Plan]:
        """A plan for this situation, from the highest rung whose answer is verified."""
        refused: list[str] = []
        instance = self.instances(situation, target)
        strange = "" if instance.ordinary else self.implausible(situation)
        if strange:
            refused.append(f"solvers: {strange}")
            return self._without_solution(state, situation, None, refused)
        begin = self._begin(state, instance)
        for name, solver in self.solvers:
            outcome = self._attempt(solver, instance, begin)
            if isinstance(outcome, str):
                refused.append(f"{name}: {outcome}")
                continue
            plan = _plan(name, outcome, refused)
            fault = self._outside(plan, situation)
            if fault:
                refused.append(f"{name}: {fault}")
                continue
            return PlannerState(plan, 0, outcome.trajectory), plan
        return self._without_solution(
            state, situation, instance if target.solved else None, refused
        )

    def implausible(self, situation: Situation) -> str:
        """What in this situation no solver should be given; empty: nothing."""
        return self.stage.augmented.implausible(
            situation.x, situation.w, situation.u_now, situation.d
        )

    def _begin(self, state: PlannerState, instance: Instance) -> Trajectory:
        """The last answer, one interval on where a cycle is one; else: stay where we are."""
        horizon = self.stage.horizon
        warm = state.warm
        if warm is None:
            s = np.tile(instance.s0, (horizon.intervals + 1, 1))
            return Trajectory(s, np.zeros((horizon.intervals, len(self.stage.mvs))))
        if horizon.cycle_s != horizon.step_s or horizon.blocks:
            return warm
        s, v, inner = warm.s, warm.v, warm.inner
        return Trajectory(
            np.concatenate((s[1:], s[-1:])),
            np.concatenate((v[1:], np.zeros_like(v[:1]))),
            warm.iterate,
            warm.active,
            None if inner is None else np.concatenate((inner[1:], inner[-1:])),
        )

    def _attempt(self, solver: Solver, instance: Instance, begin: Trajectory) -> Answer | str:
        """The verified answer, or why there is none."""
        try:
            answer = solver(instance, begin)
        except RuntimeError as error:  # CasADi reports every plugin failure as this type.
            return f"broke: {(str(error).splitlines() or ['without a word'])[0]}"
        if answer.certificate.fault:
            return f"{answer.certificate.fault}; it said {answer.status}"
        return answer

    def _without_solution(
        self,
        state: PlannerState,
        situation: Situation,
        instance: Instance | None,
        refused: list[str],
    ) -> tuple[PlannerState, Plan]:
        """The last plan, then the regulator (where there is a target), then hold."""
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
        if instance is not None:
            regulated = self._regulated(instance, refused)
            fault = self._outside(regulated, situation) if regulated is not None else ""
            if regulated is not None and not fault:
                return PlannerState(state.plan, age, None), regulated
            if fault:
                refused.append(f"lqr: {fault}")
        return PlannerState(state.plan, age, None), self._hold(situation, refused)

    def _regulated(self, instance: Instance, refused: list[str]) -> Plan | None:
        if isinstance(self.regulator, str):
            refused.append(f"lqr: {self.regulator}")
            return None
        try:
            found = self.regulator(instance)
        except RuntimeError as error:  # As above: CasADi reports every failure as this type.
            found = f"broke: {(str(error).splitlines() or ['without a word'])[0]}"
        if isinstance(found, str):
            refused.append(f"lqr: {found}")
            return None
        moves, prediction = found
        return Plan(moves, prediction, "not solved", "lqr", tuple(refused), float("nan"), 0,
                    float("nan"))  # fmt: skip

    def _shifted(self, plan: Plan, age: int, situation: Situation, refused: Sequence[str]) -> Plan:
        """The old plan as it would be by now; its last row repeats. MVs not free stay."""
        horizon = self.stage.horizon
        begun = int(age * horizon.cycle_s // horizon.step_s)
        rows = np.minimum(np.arange(horizon.intervals) + begun, horizon.intervals - 1)
        now = self._now(situation)
        moves = np.where(situation.free > 0, plan.moves[rows], now)
        return structs.replace(
            plan,
            moves=moves,
            prediction=plan.prediction[rows],
            rung="shifted",
            refused=tuple(refused),
            status="not solved",
            age=age,
        )

    def _hold(self, situation: Situation, refused: Sequence[str]) -> Plan:
        horizon = self.stage.horizon
        ny = len(self.stage.augmented.model.y)
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
        """Which MV would leave its limits with the move that is to be made now, or nothing."""
        now = self._now(situation)
        limits = situation.mv_low.tolist(), situation.mv_high.tolist(), now.tolist()
        moves = plan.moves[0].tolist()
        for mv, mv_low, mv_high, here, move in zip(self.stage.mvs, *limits, moves, strict=True):
            slack = LIMIT_TOLERANCE * mv.span
            low, high = min(mv_low, here) - slack, max(mv_high, here) + slack
            if not low <= move <= high:
                return f"{mv.name} would go to {move:g} {mv.unit}, allowed is [{low:g}, {high:g}]"
        return ""

    def _now(self, situation: Situation) -> Vector:
        return situation.u_now.take(self.instances.mv_inputs)


def _plan(name: str, answer: Answer, refused: Sequence[str]) -> Plan:
    return Plan(
        moves=answer.moves,
        prediction=answer.prediction,
        status=answer.status,
        rung=name,
        refused=tuple(refused),
        cost=answer.cost,
        iterations=answer.iterations,
        kkt_residual=answer.certificate.residual,
    )


def make_ladder(
    stage: Stage,
    budgets: Sequence[tuple[str, int]],
    plan_age_max: int,
    compiled: Sequence[tuple[str, Solver]] = (),
    terminal: Vector | None = None,
) -> Ladder:
    """A ladder for one problem.

    Args:
        budgets: nonlinear-programming rungs and their iterations, tried in order.
        compiled: faster rungs above them.
        terminal: weight (ns, ns) on the distance of the last node from the target.
    """
    transcription = transcribe(stage)
    rungs = tuple((name, make_solver(name, transcription, n)) for name, n in budgets)
    made = Instances(stage, terminal)
    return Ladder(stage, made, (*compiled, *rungs), plan_age_max, regulator(stage))
