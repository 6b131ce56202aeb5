"""One instance of the optimal control problem: a situation and its target as plain numbers.

Funnels, reference trajectories, ramped limits, forecasts, dropped MVs and CVs all end here as rows
of references, limits and weights over the horizon, so that no solver knows about any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.mpc.problem import Situation, Target
from controller.mpc.stage import Stage
from plant_models.process import Vector

# A zone violation costs `weight` per scale, linear and quadratic: the linear part makes the
# penalty exact (no violation while one can be avoided), the quadratic part spreads what cannot.
SLACK_QUADRATIC = 1.0
NO_ROOM = 1e-6
"""Limits closer than this share of an MV's span leave nothing to decide."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """Arguments of one solve, scaled as in `Stage`; rows are intervals, or the nodes they end in.

    Attributes:
        s0: state now (ns,).
        rest, rest_weight, move_weight: per MV (n_mv,).
        terminal, terminal_at: weight (ns, ns) on the distance of the last node from a point (ns,).
        theta: (N, nt).
        wanted, track: references of the CVs and their weights, 0 where there is none (N, n_cv).
        price, curve: linear and quadratic price of leaving a zone (N, n_cv).
        v_low, v_high: moves (N, n_mv); u_low, u_high: setpoints after the move (N, n_mv).
        z_low, z_high: zones (N, n_cv), infinite where there is no limit.
    """

    s0: Vector
    rest: Vector
    rest_weight: Vector
    move_weight: Vector
    terminal: Vector
    terminal_at: Vector
    theta: Vector
    wanted: Vector
    track: Vector
    price: Vector
    curve: Vector
    v_low: Vector
    v_high: Vector
    u_low: Vector
    u_high: Vector
    z_low: Vector
    z_high: Vector

    flat: Vector
    """All of them in this order, one after the other: the others are views of it."""


class Instances:
    """Makes instances; what does not change from cycle to cycle is written once."""

    def __init__(self, stage: Stage, terminal: Vector | None = None) -> None:
        self._stage = stage
        n, n_mv, n_cv = stage.horizon.intervals, len(stage.mvs), len(stage.cvs)
        ns, per_cv, per_mv = stage.ns, (n, n_cv), (n, n_mv)
        self._shapes = (
            *((ns,), (n_mv,), (n_mv,), (n_mv,), (ns, ns), (ns,), (n, stage.nt)),
            *(per_cv, per_cv, per_cv, per_cv, per_mv, per_mv, per_mv, per_mv, per_cv, per_cv),
        )
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        self._places = tuple(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
        self._template = np.zeros(int(ends[-1]))
        self._index = [mv.input for mv in stage.mvs]
        self._rows = [cv.output for cv in stage.cvs]
        horizon = stage.horizon
        seconds = np.full(n, horizon.step_s)
        seconds[0] = horizon.cycle_s
        rate = np.array([mv.rate_per_s for mv in stage.mvs]) / stage.u_scale
        self._reach = seconds[:, None] * rate[None, :]
        self._weight = np.array([cv.weight for cv in stage.cvs])
        ends_s = horizon.step_s * np.arange(1, n + 1)[:, None]
        approach_s = np.array([cv.approach_s for cv in stage.cvs])
        ramp_s = np.array([cv.ramp_s for cv in stage.cvs])
        with np.errstate(divide="ignore"):
            self._decay = np.where(approach_s > 0.0, np.exp(-ends_s / approach_s), 0.0)
            self._ramp = np.where(ramp_s > 0.0, ends_s / ramp_s, np.inf)
        always = self._cut(self._template)
        always.move_weight[:] = [mv.move_suppression for mv in stage.mvs]
        always.rest_weight[:] = [mv.target_weight for mv in stage.mvs]
        always.price[:] = self._weight
        always.curve[:] = SLACK_QUADRATIC * self._weight
        if terminal is not None:
            always.terminal[:] = terminal

    def _cut(self, flat: Vector) -> Instance:
        parts = [
            flat[begin:end].reshape(shape)
            for (begin, end), shape in zip(self._places, self._shapes, strict=True)
        ]
        return Instance(*parts, flat)  # pyright: ignore[reportCallIssue]

    def __call__(self, situation: Situation, target: Target) -> Instance:
        """The instance for what is true now and where to go."""
        stage, nx = self._stage, self._stage.augmented.nx
        made = self._cut(self._template.copy())
        now = (situation.u_now[self._index] - stage.u_offset) / stage.u_scale
        made.s0[:nx] = (situation.x - stage.x_offset) / stage.x_scale
        made.s0[nx:] = now
        made.terminal_at[:nx] = (target.x - stage.x_offset) / stage.x_scale
        made.terminal_at[nx:] = (target.u[self._index] - stage.u_offset) / stage.u_scale
        made.rest[:] = made.terminal_at[nx:]
        # An MV outside its limits may come back at its rate: the limit gives way to where it is.
        u_low = np.minimum((situation.mv_low - stage.u_offset) / stage.u_scale, now)
        u_high = np.maximum((situation.mv_high - stage.u_offset) / stage.u_scale, now)
        # Without room to move there is nothing to decide: a solver is told that the MV stays.
        both = situation.blocked_up * situation.blocked_down
        free = situation.free * (1.0 - both) * (u_high - u_low > NO_ROOM)
        stays = free == 0.0
        made.v_low[:] = self._reach * np.where(stays, -1.0, situation.blocked_down - 1.0)
        made.v_high[:] = self._reach * np.where(stays, 1.0, 1.0 - situation.blocked_up)
        made.u_low[:] = np.where(stays, now - 1.0, u_low)
        made.u_high[:] = np.where(stays, now + 1.0, u_high)
        self._write_theta(made, situation, free)
        self._write_cvs(made, situation, target)
        return made

    def _write_theta(self, made: Instance, situation: Situation, free: Vector) -> None:
        nw, nd = situation.w.size, situation.d.size
        made.theta[:] = np.concatenate([situation.w, situation.d, situation.u_now, free])
        if situation.forecast is not None:
            made.theta[:, nw : nw + nd] = situation.forecast

    def _write_cvs(self, made: Instance, situation: Situation, target: Target) -> None:
        scale, tracked = self._stage.cv_scale, np.isfinite(situation.setpoint)
        z_low, z_high = situation.cv_low, situation.cv_high
        if situation.watched is not None:
            watched = situation.watched > 0.0
            tracked = tracked & watched
            z_low, z_high = np.where(watched, z_low, -np.inf), np.where(watched, z_high, np.inf)
        wanted = np.where(tracked, target.y[self._rows] / scale, 0.0)
        made.wanted[:] = wanted
        made.track[:] = self._weight * tracked
        crossed = z_low > z_high
        if crossed.any():
            # Nothing is inside limits that cross: half way between them each misses as little.
            middle = np.where(crossed, (z_low + z_high) / 2.0, 0.0)
            z_low, z_high = np.where(crossed, middle, z_low), np.where(crossed, middle, z_high)
        made.z_low[:] = z_low / scale
        made.z_high[:] = z_high / scale
        if situation.cv_low_now is not None and situation.cv_high_now is not None:
            self._ramp_zones(made, situation.cv_low_now / scale, situation.cv_high_now / scale)
        if target.solved and target.slack.max(initial=0.0) > 0.0:
            self._give_way(made, target)
        if situation.cv_now is not None:
            now = situation.cv_now / scale
            made.wanted[:] += np.where(tracked, now - wanted, 0.0) * self._decay
            self._funnel(made, now)

    def _ramp_zones(self, made: Instance, low: Vector, high: Vector) -> None:
        """Limits on their way: by each node as far as their ramp has taken them."""
        for zone, now in ((made.z_low, low), (made.z_high, high)):
            there = np.isfinite(now) & np.isfinite(zone)
            way = np.where(there, zone - np.where(there, now, 0.0), 0.0)
            moved = now + np.clip(way, -self._ramp, self._ramp)
            zone[:] = np.where(there, moved, zone)

    def _give_way(self, made: Instance, target: Target) -> None:
        """A limit that the target had to give up is not fought for on the way: in steady state no
        rank may pull against a higher one."""
        rest = target.y[self._rows] / self._stage.cv_scale
        gave = target.slack > 0.0
        made.z_low[:] = np.where(gave, np.minimum(made.z_low, rest), made.z_low)
        made.z_high[:] = np.where(gave, np.maximum(made.z_high, rest), made.z_high)

    def _funnel(self, made: Instance, now: Vector) -> None:
        """A violated zone is entered again along a funnel (Qin & Badgwell 2003, section 3.4)."""
        below, above = made.z_low - now, now - made.z_high
        made.z_low[:] -= np.where(np.isfinite(below), np.maximum(below, 0.0), 0.0) * self._decay
        made.z_high[:] += np.where(np.isfinite(above), np.maximum(above, 0.0), 0.0) * self._decay
