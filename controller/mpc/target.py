"""Steady-state target: where the plant should rest, given today's disturbances and limits.

Solved every cycle with the current disturbance estimate, which is what removes offset (Muske &
Badgwell 2002). CVs come first, rank by rank; then prices and resting values of the MVs decide.

The balances are linearized at the present iterate, the ranked program is solved for it, and both
again until the nonlinear balances and limits are met (successive linear programming, Griffith &
Stewart 1961, with Newton steps for the states). What does not converge goes to an interior-point
method on the nonlinear program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from msgspec import structs

from controller.estimation.augmented import AugmentedModel
from controller.mpc.explain import Explainer, Shaped
from controller.mpc.linearization import Linearizer, linearizer
from controller.mpc.problem import (
    Constraint,
    ControlledVariable,
    ManipulatedVariable,
    Situation,
    Target,
)
from controller.mpc.ranked import (
    GIVEN_UP,
    RankedProgram,
    RankedSolution,
    Ranking,
    Stage,
    UnsolvedError,
    ranking,
    solve_ranked,
)
from controller.mpc.target_limits import Asked, Scales, require_consistent, scales_of
from controller.mpc.target_program import NonlinearTarget, nonlinear_target
from plant_models.process import Vector

# Newton and successive programming converge quadratically or not at all.
ITERATIONS = 25
# An optimum between the limits is found by second derivatives only, but a vertex sooner without.
CURVING = 3
SHRINK, GROW = 0.4, 2.0
# From the last target one looks nearby first, and does not believe a first step that long.
NEAR, JUMP = 0.1, 0.05
# A step is cut where it would carry a state further than this part of its span.
LONGEST_STEP = 0.5
# In spans of the states, and in scales of the limits: far below what any sensor resolves.
BALANCED, KEPT = 1e-7, 1e-6
# After a last step as short as this (in spans of the MVs), the derivatives are still the same.
SETTLED = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class TargetCalculation:
    """From situations to targets. Keeps nothing between calls."""

    augmented: AugmentedModel
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    linearizer: Linearizer
    ranking: Ranking
    nonlinear: NonlinearTarget
    explainer: Explainer
    scales: Scales
    iterations: int = ITERATIONS

    def __call__(self, situation: Situation, guess: Target | None = None) -> Target:
        """Target for this situation; `solved` is False (and it rests here) when none is found.

        Args:
            guess: where to begin, such as the last target; by default the present state.
        """
        asked = self.scales.asked(situation)
        try:
            return self._successive(situation, asked, guess)
        except UnsolvedError as first:
            reason = str(first)
        try:
            return self._interior_point(situation, asked)
        except UnsolvedError as second:
            return self._stay(situation, f"{reason}; interior point: {second}")

    def _successive(self, situation: Situation, asked: Asked, guess: Target | None) -> Target:
        """Linearize, solve the ranked program, move there, until nothing changes.

        Raises:
            UnsolvedError: it does not converge within the iterations, or leaves the numbers.
        """
        lin, at, scales = self.linearizer, self.linearizer.at, self.scales
        n, nx, point = lin.layout.n, lin.layout.nx, lin.point
        warm = guess is not None and guess.solved
        x = guess.x if guess is not None and warm else situation.x
        point[:nx] = (x - scales.x_nominal) / scales.x_span
        point[nx:] = scales.mvs(guess.u) if guess is not None and warm else asked.now
        longest = NEAR if warm else LONGEST_STEP
        self._ask(situation, asked)
        solution: RankedSolution | None = None
        before: Vector | None = None
        short, moved, radius = False, 0.0, NEAR if warm else 1.0
        for iteration in range(self.iterations):
            lin.evaluate()
            if not lin.usable():
                raise UnsolvedError("the balances cannot be linearized here")
            imbalance = at.figures[0]
            low, high = asked.low - at.position, asked.high - at.position
            if solution is not None and short and imbalance <= BALANCED:
                missed = np.maximum(low, -high)
                missed[n:] -= solution.slack
                kept = all(row <= KEPT for row in missed.tolist())  # NaN is not
                if not kept:
                    # What the play of a frozen slack, in spans of the MVs, does to a steep CV.
                    missed[n:] /= np.maximum(1.0, np.abs(at.rows).sum(axis=1))
                    kept = float(missed.max()) <= KEPT
                if kept:
                    return self._found(situation, asked, solution)
            program = RankedProgram(
                at.rows, low, high, asked.hessian, at.gradient, crossed=asked.crossed
            )
            curving = iteration >= CURVING or (warm and moved > JUMP**2)
            if solution is not None and curving and not lin.linear:
                # Steps that go back and forth are too long, those that go on are too short.
                reach = float(np.abs(solution.v).max())
                if before is not None and solution.v.dot(before) < 0.0:
                    radius = min(radius, SHRINK * reach)
                elif reach >= 0.99 * radius:
                    radius *= GROW
                before = solution.v
                program = self._curved(program, solution, radius)
            solution = solve_ranked(program, self.ranking)
            step = at.tangent.dot(solution.v)
            step += at.step
            moved = solution.v.dot(solution.v)
            far = step.dot(step)
            if far > longest**2 and not lin.linear:
                step *= longest / sqrt(far)
            point += step
            settled = SETTLED if not curving else SETTLED / 10.0
            short = lin.linear or moved <= min(settled, 0.9 * radius) ** 2
        raise UnsolvedError(f"no convergence in {self.iterations} linearizations")

    def _ask(self, situation: Situation, asked: Asked) -> None:
        """Put what the linearization takes besides the point where it expects it."""
        np.concatenate(
            (situation.d, situation.w, situation.u_now, asked.wish, asked.weight),
            out=self.linearizer.parameters,
        )

    def _curved(self, program: RankedProgram, last: RankedSolution, radius: float) -> RankedProgram:
        """The program with second derivatives, priced by the duals of the last iterate, and steps
        of at most `radius` spans."""
        k, scales = self.linearizer.layout.n_integrating, self.scales
        hessian = program.hessian
        curvature: list[Vector | None] = [None] * len(self.ranking.levels)
        for stage in last.stages:
            prices = np.zeros(scales.price_y.size)
            np.add.at(prices, scales.outputs, stage.rows[k:] / scales.cv)
            if stage.level is None:
                hessian = hessian + self.linearizer.curvature(prices + scales.price_y)
            else:
                curvature[stage.level] = self.linearizer.curvature(prices)
        n = hessian.shape[0]
        low, high = program.low.copy(), program.high.copy()
        np.clip(low[:n], -radius, radius, out=low[:n])
        np.clip(high[:n], -radius, radius, out=high[:n])
        return structs.replace(
            program, low=low, high=high, hessian=hessian, curvature=tuple(curvature)
        )

    def _found(self, situation: Situation, asked: Asked, solution: RankedSolution) -> Target:
        at, layout, scales = self.linearizer.at, self.linearizer.layout, self.scales
        n_mv, nx = layout.n_mv, layout.nx
        u = situation.u_now.copy()
        # Within rounding of a limit is at the limit: the guard knows no tolerance.
        mvs = np.maximum(
            np.minimum(self.linearizer.point[nx:], asked.high[:n_mv]), asked.low[:n_mv]
        )
        u[scales.index] = mvs * scales.span + scales.base
        x = (self.linearizer.point[:nx] + at.step[:nx]) * scales.x_span + scales.x_nominal
        slack = scales.nothing
        if len(solution.stages) > 1:
            of_cv = solution.slack[layout.n_integrating :]
            slack = np.where(of_cv > GIVEN_UP, of_cv, 0.0) * scales.cv
        reason = self._drift(solution.slack[: layout.n_integrating]) if layout.n_integrating else ""
        constraints = self._explained(situation, asked, slack, solution.stages)
        return Target(u, x, at.outputs.copy(), slack, True, reason, constraints)

    def _drift(self, rates: Vector) -> str:
        """What to say where integrating states cannot be brought to rest."""
        worst = float(rates.max(initial=0.0))
        if worst <= GIVEN_UP:
            return ""
        return f"no steady state: a level drifts by {worst:.2g} of its range an hour at best"

    def _explained(
        self, situation: Situation, asked: Asked, slack: Vector, stages: tuple[Stage, ...]
    ) -> tuple[Constraint, ...]:
        """The constraints of a target; the linearization is the one at the target."""
        at, n_mv = self.linearizer.at, self.linearizer.layout.n_mv
        held = asked.low[:n_mv] >= asked.high[:n_mv]
        shaped = Shaped(at.rows, asked.weight, held, stages, at.outputs_tangent)
        return self.explainer(situation, shaped, slack)

    def _interior_point(self, situation: Situation, asked: Asked) -> Target:
        """The same by interior-point solves of the nonlinear program, one per rank.

        Raises:
            UnsolvedError: one of them cannot be certified.
        """
        lin, scales = self.linearizer, self.scales
        answer = self.nonlinear(situation, asked.low, asked.high, asked.wish, asked.weight)
        self._ask(situation, asked)
        lin.point[:] = np.concatenate([answer.states, answer.mvs])
        lin.evaluate()
        u = situation.u_now.copy()
        u[scales.index] = answer.mvs * scales.span + scales.base
        x = answer.states * scales.x_span + scales.x_nominal
        slack = np.where(answer.slack > GIVEN_UP, answer.slack, 0.0) * scales.cv
        constraints: tuple[Constraint, ...] = ()
        if lin.usable():
            constraints = self._explained(situation, asked, slack, answer.stages)
        return Target(u, x, answer.y, slack, True, constraints=constraints)

    def _stay(self, situation: Situation, reason: str) -> Target:
        y = np.asarray(
            self.augmented.output(situation.x, situation.u_now, situation.d, situation.w)
        ).ravel()
        for cv, setpoint in zip(self.cvs, situation.setpoint, strict=True):
            if np.isfinite(setpoint):
                y[cv.output] = setpoint
        return Target(situation.u_now, situation.x, y, np.zeros(len(self.cvs)), False, reason)


def target_calculation(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    iterations: int = ITERATIONS,
    currency: str = "EUR",
) -> TargetCalculation:
    """Build the target problem once, for all situations.

    Raises:
        ModelError: limits that cross, a rank below 1, or numbers that are none, by name.
    """
    require_consistent(mvs, cvs)
    ny = len(augmented.model.y)
    price_u = np.array([mv.price * mv.span for mv in mvs])
    price_y = np.zeros(ny)
    for cv in cvs:
        price_y[cv.output] += cv.price
    # One unit of cost is the dearest variable over its whole span: prices weigh like wishes.
    dearest = max([0.0, *np.abs(price_u).tolist(), *(abs(cv.price) * cv.scale for cv in cvs)])
    unit = dearest or 1.0
    cost_of = (price_u / unit, price_y / unit)
    lin = linearizer(augmented, mvs, cvs, cost_of)
    k = lin.layout.n_integrating
    order = ranking([0] * k + [cv.rank for cv in cvs], [1.0] * k + [cv.weight for cv in cvs])
    return TargetCalculation(
        augmented,
        tuple(mvs),
        tuple(cvs),
        lin,
        order,
        nonlinear_target(augmented, mvs, cvs, cost_of, order, k),
        Explainer(tuple(mvs), tuple(cvs), order, k, price_u, price_y, currency, dearest),
        scales_of(augmented, mvs, cvs, lin.right, cost_of[1]),
        iterations,
    )
