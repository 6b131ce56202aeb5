"""One instance of the optimal control problem: a situation and its target as plain numbers.

Funnels, reference trajectories, ramped limits, forecasts, dropped MVs and CVs all end here as rows
of references, limits and weights over the horizon, so that no solver knows about any of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller.mpc.problem import Situation, Target
from controller.mpc.stage import Stage
from plant_models.process import Vector

# A zone violation costs `weight` per scale, linear and quadratic: the linear part makes the
# penalty exact (no violation while one can be avoided), the quadratic part spreads what cannot.
SLACK_QUADRATIC = 1.0
NO_ROOM = 1e-6
"""Limits closer than this share of an MV's span leave nothing to decide."""


Layout = Mapping[str, tuple[int, int, tuple[int, ...]]]
"""By name, where a part of an instance begins and ends, and its shape."""


class Instance:
    """Arguments of one solve, scaled as in `Stage`; rows are intervals, or the nodes they end in.

    Attributes:
        flat: all of the following, one after the other; they are views of it.
        s0: state now (ns,).
        rest, rest_weight, move_weight: per MV (n_mv,).
        terminal, terminal_at: weight (ns, ns) on the distance of the last node from a point (ns,).
        theta: (N, nt).
        wanted, track: references of the CVs and their weights, 0 where there is none (N, n_cv).
        price, curve: linear and quadratic price of leaving a zone (N, n_cv).
        v_low, v_high: moves (N, n_mv); u_low, u_high: setpoints after the move (N, n_mv).
        z_low, z_high: zones (N, n_cv), infinite where there is no limit.
    """

    __slots__ = ("_layout", "flat")

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

    def __init__(self, layout: Layout, flat: Vector) -> None:
        self._layout = layout
        self.flat = flat

    def __getattr__(self, name: str) -> Vector:
        # Views are cut when somebody asks: the compiled solver takes `flat` as it is.
        try:
            begin, end, shape = self._layout[name]
        except KeyError:
            raise AttributeError(name) from None
        return self.flat[begin:end].reshape(shape)


PARTS = tuple(Instance.__annotations__)


def layout_of(shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    """Parts one after the other, in the order of `PARTS`."""
    layout: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    begin = 0
    for name in PARTS:
        end = begin + int(np.prod(shapes[name]))
        layout[name] = begin, end, shapes[name]
        begin = end
    return layout


def gathered(**parts: Vector) -> Instance:
    """An instance of parts that were made one by one."""
    layout = layout_of({name: part.shape for name, part in parts.items()})
    return Instance(layout, np.concatenate([parts[name].ravel() for name in PARTS]))


class Instances:
    """Makes instances; what does not change from cycle to cycle is written once.

    Everything else is written anew by every call, into one buffer whose copy is the answer.
    """

    def __init__(self, stage: Stage, terminal: Vector | None = None) -> None:
        self._stage, self.terminal = stage, terminal
        n, n_mv, n_cv, ns = stage.horizon.intervals, len(stage.mvs), len(stage.cvs), stage.ns
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(PARTS, (n, n_cv))
        shapes |= dict.fromkeys(("rest", "rest_weight", "move_weight"), (n_mv,))
        shapes |= dict.fromkeys(("v_low", "v_high", "u_low", "u_high"), (n, n_mv))
        shapes |= {"s0": (ns,), "terminal_at": (ns,), "terminal": (ns, ns), "theta": (n, stage.nt)}
        self._layout = layout_of(shapes)
        self._buffer = np.zeros(max(end for _, end, _ in self._layout.values()))
        blank = Instance(self._layout, self._buffer)
        self._views = {name: getattr(blank, name) for name in PARTS}
        self._index = [mv.input for mv in stage.mvs]
        self._rows = [cv.output for cv in stage.cvs]
        self._u_scaling = tuple(zip(stage.u_offset.tolist(), stage.u_scale.tolist(), strict=True))
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
        always = self._views
        always["move_weight"][:] = [mv.move_suppression for mv in stage.mvs]
        always["rest_weight"][:] = [mv.target_weight for mv in stage.mvs]
        always["price"][:] = self._weight
        always["curve"][:] = SLACK_QUADRATIC * self._weight
        if terminal is not None:
            always["terminal"][:] = terminal

    def __call__(self, situation: Situation, target: Target) -> Instance:
        """The instance for what is true now and where to go."""
        stage, made, nx = self._stage, self._views, self._stage.augmented.nx
        free, now = self._write_mvs(situation)
        made["s0"][:nx] = (situation.x - stage.x_offset) / stage.x_scale
        made["s0"][nx:] = now
        made["terminal_at"][:nx] = (target.x - stage.x_offset) / stage.x_scale
        made["terminal_at"][nx:] = (target.u[self._index] - stage.u_offset) / stage.u_scale
        made["rest"][:] = made["terminal_at"][nx:]
        self._write_theta(situation, free)
        self._write_cvs(situation, target)
        return Instance(self._layout, self._buffer.copy())

    def _write_mvs(self, situation: Situation) -> tuple[list[float], list[float]]:
        """Limits of moves and setpoints; which MVs may move, and where they are, scaled."""
        free: list[float] = []
        here: list[float] = []
        low, high, down, up = ([0.0] * len(self._index) for _ in range(4))
        every = zip(
            self._u_scaling,
            situation.u_now[self._index].tolist(),
            situation.mv_low.tolist(),
            situation.mv_high.tolist(),
            situation.free.tolist(),
            situation.blocked_down.tolist(),
            situation.blocked_up.tolist(),
            strict=True,
        )
        for i, ((offset, scale), u, u_low, u_high, may, no_down, no_up) in enumerate(every):
            now = (u - offset) / scale
            # An MV outside its limits may come back at its rate: the limit gives way to where it
            # is.
            low[i], high[i] = (
                min((u_low - offset) / scale, now),
                max((u_high - offset) / scale, now),
            )
            down[i], up[i] = no_down - 1.0, 1.0 - no_up
            here.append(now)
            if may and not (no_down and no_up) and high[i] - low[i] > NO_ROOM:
                free.append(1.0)
                continue
            # Without room to move there is nothing to decide: a solver is told that the MV stays,
            # and gets bounds that leave it room.
            free.append(0.0)
            low[i], high[i], down[i], up[i] = now - 1.0, now + 1.0, -1.0, 1.0
        made = self._views
        np.multiply(self._reach, down, out=made["v_low"])
        np.multiply(self._reach, up, out=made["v_high"])
        made["u_low"][:] = low
        made["u_high"][:] = high
        return free, here

    def _write_theta(self, situation: Situation, free: list[float]) -> None:
        nw, nd, theta = situation.w.size, situation.d.size, self._views["theta"]
        theta[:] = np.concatenate([situation.w, situation.d, situation.u_now, free])
        if situation.forecast is not None:
            theta[:, nw : nw + nd] = situation.forecast

    def _write_cvs(self, situation: Situation, target: Target) -> None:
        made, scale = self._views, self._stage.cv_scale
        tracked = np.isfinite(situation.setpoint)
        z_low, z_high = situation.cv_low, situation.cv_high
        if situation.watched is not None:
            watched = situation.watched > 0.0
            tracked = tracked & watched
            z_low, z_high = np.where(watched, z_low, -np.inf), np.where(watched, z_high, np.inf)
        wanted = np.where(tracked, target.y[self._rows] / scale, 0.0)
        made["wanted"][:] = wanted
        made["track"][:] = self._weight * tracked
        crossed = z_low > z_high
        if crossed.any():
            # Nothing is inside limits that cross: half way between them each misses as little.
            middle = np.where(crossed, (z_low + z_high) / 2.0, 0.0)
            z_low, z_high = np.where(crossed, middle, z_low), np.where(crossed, middle, z_high)
        made["z_low"][:] = z_low / scale
        made["z_high"][:] = z_high / scale
        if situation.cv_low_now is not None and situation.cv_high_now is not None:
            self._ramp_zones(situation.cv_low_now / scale, situation.cv_high_now / scale)
        if target.solved and target.slack.max(initial=0.0) > 0.0:
            self._give_way(target)
        if situation.cv_now is not None:
            now = situation.cv_now / scale
            made["wanted"][:] += np.where(tracked, now - wanted, 0.0) * self._decay
            self._funnel(now)

    def _ramp_zones(self, low: Vector, high: Vector) -> None:
        """Limits on their way: by each node as far as their ramp has taken them."""
        made = self._views
        for zone, now in ((made["z_low"], low), (made["z_high"], high)):
            there = np.isfinite(now) & np.isfinite(zone)
            way = np.where(there, zone - np.where(there, now, 0.0), 0.0)
            moved = now + np.clip(way, -self._ramp, self._ramp)
            zone[:] = np.where(there, moved, zone)

    def _give_way(self, target: Target) -> None:
        """A limit that the target had to give up is not fought for on the way: in steady state no
        rank may pull against a higher one."""
        made, rest = self._views, target.y[self._rows] / self._stage.cv_scale
        gave = target.slack > 0.0
        made["z_low"][:] = np.where(gave, np.minimum(made["z_low"], rest), made["z_low"])
        made["z_high"][:] = np.where(gave, np.maximum(made["z_high"], rest), made["z_high"])

    def _funnel(self, now: Vector) -> None:
        """A violated zone is entered again along a funnel (Qin & Badgwell 2003, section 3.4)."""
        made = self._views
        below, above = made["z_low"] - now, now - made["z_high"]
        made["z_low"][:] -= np.where(np.isfinite(below), np.maximum(below, 0.0), 0.0) * self._decay
        made["z_high"][:] += np.where(np.isfinite(above), np.maximum(above, 0.0), 0.0) * self._decay
