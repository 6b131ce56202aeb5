"""The application's own estimator, target and plan, in closed loop with a plant of the ensemble.

Everything starts at rest at the operating point; then one setpoint is moved, or one zone so that
its CV is outside. There is no noise: what is judged is the response itself. Laboratories are taken
to answer after half of their longest delay, and to draw a sample that often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs

from controller.cycle.application import Application
from controller.errors import ModelError
from controller.estimation.augmented import operating_point
from controller.estimation.delayed import DelayedFilterState, LateResult
from controller.estimation.kalman import Measurement
from controller.mpc.instance import Instances
from controller.mpc.ladder import Ladder, PlannerState
from controller.mpc.problem import Situation
from controller.signal import NS_PER_S
from controller.workbench.ensemble import LinearPlant, Member, OperatingPoint, linearize
from plant_models.process import Vector

STEP_SHARE, SMALLEST = 0.05, 6
"""A step is this part of the CV's scale, halved up to so many times until limits allow it."""
SETTLING_CYCLES = 200
"""The estimator's covariance is steady after that."""
REACHED = 1.0 - float(np.exp(-1.0))
"""Part of the way at which the response time is read: that of one time constant."""
DIVERGED = 20.0
"""So many steps away, the loop is unstable."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What tuning varies: factors on every move suppression, and on the weight per CV (n_cv,)."""

    suppression: float
    cv: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Lifted:
    """Which limits are taken away, to see whether they are what slows the response down."""

    rates: bool = False
    ranges: bool = False
    approach: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class StepTest:
    """The response to one step of one CV.

    Attributes:
        cv: index of the CV; size: of the step, in its unit.
        time_s: (n,); y: CVs at these times (n, n_cv); u: MVs from them on (n, n_mv).
        response_s: from the step until 63 % of it is done; infinite where it never is.
        overshoot: furthest beyond the setpoint, or beyond the other limit of the zone, as a share
            of the step; undershoot: furthest back afterwards; wrong_way: in the other direction.
        diverged: it left all bounds, or the controller found no plan.
    """

    cv: int
    member: str
    size: float
    time_s: Vector
    y: Vector
    u: Vector
    response_s: float
    overshoot: float
    undershoot: float
    wrong_way: float
    diverged: bool


class ClosedLoop:
    """The controller of an application around its operating point.

    Raises:
        ModelError: there is no steady state to begin at.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        augmented = application.filter.augmented
        x, u, d = operating_point(application.model)
        start = self._situation(x, np.zeros(augmented.nw), u, d)
        target = application.target(start)
        if not target.solved:
            raise ModelError(
                f"there is no steady state to tune at: {target.reason}",
                mend="Correct zones, setpoints or ranges, or the nominal values of the model",
            )
        self.point: OperatingPoint = linearize(application.model, target.x, target.u, d)
        self._rest = target
        self._settled = self._settle()
        self._ladders: dict[tuple[Weights, Lifted], Ladder] = {}
        self._steps: dict[int, tuple[Situation, float]] = {}

    def _situation(self, x: Vector, w: Vector, u: Vector, d: Vector) -> Situation:
        layout = self.application.layout
        return Situation(
            x=x,
            w=w,
            d=d,
            u_now=u,
            mv_low=layout.mv_low,
            mv_high=layout.mv_high,
            cv_low=layout.cv_low,
            cv_high=layout.cv_high,
            setpoint=layout.setpoint,
            free=layout.every,
            blocked_up=layout.none,
            blocked_down=layout.none,
            resting=layout.resting,
        )

    def _measured(self, y: Vector) -> Measurement:
        layout = self.application.layout
        return Measurement(layout.measured, tuple(y[list(layout.measured)]), layout.sigmas)

    def _settle(self) -> DelayedFilterState:
        """The estimator after a long time at rest."""
        filter_, point = self.application.filter, self.point
        z = np.concatenate([point.x, np.zeros(filter_.augmented.nw)])
        state = filter_.start(0, z, filter_.noise_per_hour, point.u, point.d)
        history = [point.y] * (SETTLING_CYCLES + 1)
        for k in range(1, SETTLING_CYCLES + 1):
            state = self._estimate(state, k, point.u, history)
        return state

    def _estimate(
        self, state: DelayedFilterState, k: int, u: Vector, history: list[Vector]
    ) -> DelayedFilterState:
        """The estimate in cycle k, with the late results that arrive in it; `history` holds the
        outputs of every cycle so far."""
        application = self.application
        cycle_ns = round(application.cycle_s * NS_PER_S)
        measured = self._measured(history[k])
        state = application.filter.advance(state, k * cycle_ns, u, self.point.d, measured)
        for source in application.sources.values():
            late = max(1, round(source.delay_max_s / 2.0 / application.cycle_s))
            if k % late or k < late:
                continue
            outputs = tuple(source.outputs.values())
            result = LateResult(
                f"{source.name}-{k}",
                source.name,
                (k - late) * cycle_ns,
                Measurement(
                    outputs,
                    tuple(history[k - late][list(outputs)]),
                    tuple(source.sigma[name] for name in source.outputs),
                ),
                source.gate,
            )
            state, _ = application.filter.fuse(state, result)
        return state

    def ladder(self, weights: Weights, lifted: Lifted = Lifted()) -> Ladder:
        """The application's solve ladder with other weights; nothing is compiled again."""
        found = self._ladders.get((weights, lifted))
        if found is not None:
            return found
        ladder = self.application.ladder
        stage = ladder.stage
        mvs = tuple(
            replace(
                mv,
                move_suppression=mv.move_suppression * weights.suppression,
                rate_per_s=mv.rate_per_s * (1e6 if lifted.rates else 1.0),
            )
            for mv in stage.mvs
        )
        cvs = tuple(
            replace(
                cv,
                weight=cv.weight * factor,
                approach_s=0.0 if lifted.approach else cv.approach_s,
            )
            for cv, factor in zip(stage.cvs, weights.cv, strict=True)
        )
        instances = Instances(replace(stage, mvs=mvs, cvs=cvs), ladder.instances.terminal)
        found = replace(ladder, instances=instances)
        self._ladders = {(weights, lifted): found}
        return found

    def step(self, cv: int) -> tuple[Situation, float]:
        """The situation that asks for a step of this CV, and the size of the step, in its unit.

        Raises:
            ModelError: limits allow no step at all in either direction.
        """
        if cv not in self._steps:
            self._steps[cv] = self._find_step(cv)
        return self._steps[cv]

    def _find_step(self, cv: int) -> tuple[Situation, float]:
        known, point = self.application.cvs[cv], self.point
        w = self._settled.moments[-1].posterior.z[point.x.size :]
        rest = self._situation(point.x, w, point.u, point.d)
        y = float(point.y[known.output])
        reason = ""
        for halved in range(SMALLEST + 1):
            for direction in (1.0, -1.0):
                size = direction * STEP_SHARE * known.scale / 2.0**halved
                asked = _moved(rest, cv, y, size)
                if asked is None:
                    continue
                target = self.application.target(asked, self._rest)
                gone = float(target.y[known.output]) - y
                kept = bool((target.slack <= self._rest.slack + 1e-3 * abs(size)).all())
                if target.solved and kept and gone / size > 0.99:
                    return asked, size
                reason = target.reason or "; ".join(c.sentence for c in target.constraints)
        raise ModelError(
            f"{known.name} cannot be moved from {y:g} {known.unit}: {reason or 'limits forbid it'}",
            mend="Widen the ranges of the MVs or the zones, or take `response` away from this CV",
        )

    def respond(
        self,
        cv: int,
        member: Member,
        weights: Weights,
        seconds: float,
        lifted: Lifted = Lifted(),
        *,
        whole: bool = True,
    ) -> StepTest:
        """A step of one CV, on one plant, for that many seconds; where it need not be the `whole`
        response, until its time is known."""
        application, point = self.application, self.point
        asked, size = self.step(cv)
        if lifted.ranges:
            span = asked.mv_high - asked.mv_low
            asked = structs.replace(asked, mv_low=asked.mv_low - span, mv_high=asked.mv_high + span)
        ladder, nx = self.ladder(weights, lifted), point.x.size
        rows, index = [c.output for c in application.cvs], list(application.layout.mv_inputs)
        plant = LinearPlant(point, member, application.cycle_s)
        state, planner, target = self._settled, PlannerState(), self._rest
        u, y = point.u.copy(), point.y
        history: list[Vector] = [point.y] * (SETTLING_CYCLES + 1)
        moved: list[Vector] = []
        count = max(8, round(seconds / application.cycle_s))
        diverged = False
        for k in range(count):
            if k:
                state = self._estimate(state, SETTLING_CYCLES + k, u, history)
            z = state.moments[-1].posterior.z
            situation = structs.replace(asked, x=z[:nx], w=z[nx:], u_now=u)
            if application.layout.funnelled:
                estimated, _ = application.filter.outputs(state.moments[-1])
                situation = structs.replace(situation, cv_now=estimated[rows])
            after = application.target(situation, target)
            target = after if after.solved else target
            planner, plan = ladder(planner, situation, after)
            u = u.copy()
            u[index] = plan.moves[0]
            moved.append(u[index])
            y = plant.hold(u)
            history.append(y)
            away = abs(y[rows[cv]] - point.y[rows[cv]])
            if not whole and (y[rows[cv]] - point.y[rows[cv]]) / size >= REACHED:
                moved.append(u[index])  # Nothing is decided any more in the cycle that sees it.
                break
            if plan.rung == "hold" or not away < DIVERGED * abs(size):
                diverged = True
                break
        done = np.array(history[SETTLING_CYCLES : SETTLING_CYCLES + len(moved)])[:, rows]
        progress = (done[:, cv] - point.y[rows[cv]]) / size
        beyond = progress - 1.0
        if not np.isfinite(asked.setpoint[cv]):
            other = asked.cv_high[cv] if size > 0.0 else asked.cv_low[cv]
            beyond = (done[:, cv] - other) / size
        return StepTest(
            cv=cv,
            member=member.name,
            size=float(size),
            time_s=np.arange(len(done), dtype=np.float64) * application.cycle_s,
            y=done,
            u=np.array(moved),
            response_s=float(np.inf if diverged else _first(progress) * application.cycle_s),
            overshoot=np.inf if diverged else max(0.0, float(beyond.max())),
            undershoot=np.inf if diverged else _short(progress),
            wrong_way=max(0.0, -float(progress.min())),
            diverged=diverged,
        )


def _moved(rest: Situation, cv: int, y: float, size: float) -> Situation | None:
    """The setpoint moved by `size` from y, or the zone so that its CV is that far outside."""
    setpoint, low, high = rest.setpoint.copy(), rest.cv_low.copy(), rest.cv_high.copy()
    if np.isfinite(setpoint[cv]):
        setpoint[cv] = y + size
    elif size > 0.0 and y + size < high[cv]:
        low[cv] = y + size
    elif size < 0.0 and y + size > low[cv]:
        high[cv] = y + size
    else:
        return None
    return structs.replace(rest, setpoint=setpoint, cv_low=low, cv_high=high)


def _first(progress: Vector) -> float:
    """Cycles until 63 % of the way is done, between two of them by a straight line."""
    there = np.flatnonzero(progress >= REACHED)
    if not there.size:
        return np.inf
    k = int(there[0])
    if k == 0:
        return 0.0
    return k - 1 + (REACHED - progress[k - 1]) / (progress[k] - progress[k - 1])


def _short(progress: Vector) -> float:
    """How far the response falls short of the step again after it was beyond it."""
    peak = int(progress.argmax())
    if progress[peak] <= 1.0:
        return 0.0
    return max(0.0, 1.0 - float(progress[peak:].min()))
