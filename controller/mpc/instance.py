"""One instance of the optimal control problem: a situation and its target as plain numbers.

Funnels, reference trajectories, ramped limits, forecasts, dropped MVs and CVs all end here as rows
of references, limits and weights over the horizon, so that no solver knows about any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import gt

import numpy as np
from numpy.typing import NDArray

from controller.estimation.augmented import PLAUSIBLE_SPANS
from controller.estimation.evaluation import augmented_spans
from controller.mpc.problem import Situation, Target
from controller.mpc.stage import Stage
from plant_models.process import Vector, nominal

# A zone violation costs `weight` per scale, linear and quadratic: the linear part makes the
# penalty exact (no violation while one can be avoided), the quadratic part spreads what cannot.
SLACK_QUADRATIC = 1.0
NO_ROOM = 1e-6
"""Limits closer than this share of an MV's span leave nothing to decide."""


Indices = NDArray[np.intp]

Layout = Mapping[str, tuple[int, int, tuple[int, ...]]]
"""By name, where a part of an instance begins and ends, and its shape."""


class Instance:
    """Arguments of one solve, scaled as in `Stage`; rows are intervals, or the nodes they end in.

    Attributes:
        flat: all of the following, one after the other; they are views of it.
        ordinary: nothing in the situation is far from where the model makes sense.
        s0: state now (ns,).
        rest, rest_weight, move_weight: per MV (n_mv,).
        terminal, terminal_at: weight (ns, ns) on the distance of the last node from a point (ns,).
        theta: (N, nt).
        wanted, track: references of the CVs and their weights, 0 where there is none (N, n_cv).
        price, curve: linear and quadratic price of leaving a zone (N, n_cv).
        v_low, v_high: moves (N, n_mv); u_low, u_high: setpoints after the move (N, n_mv).
        z_low, z_high: zones (N, n_cv), infinite where there is no limit.
    """

    __slots__ = ("_layout", "flat", "ordinary")

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

    def __init__(self, layout: Layout, flat: Vector, ordinary: bool = True) -> None:
        self._layout = layout
        self.flat = flat
        self.ordinary = ordinary

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

    A cycle begins with cold caches, so few operations count more than short ones: what varies is
    gathered into one row of numbers, scaled at once, and dealt out to its places at once.
    """

    def __init__(self, stage: Stage, terminal: Vector | None = None) -> None:
        self._stage, self.terminal = stage, terminal
        n, n_mv, n_cv, ns = stage.horizon.intervals, len(stage.mvs), len(stage.cvs), stage.ns
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(PARTS, (n, n_cv))
        shapes |= dict.fromkeys(("rest", "rest_weight", "move_weight"), (n_mv,))
        shapes |= dict.fromkeys(("v_low", "v_high", "u_low", "u_high"), (n, n_mv))
        shapes |= {"s0": (ns,), "terminal_at": (ns,), "terminal": (ns, ns), "theta": (n, stage.nt)}
        self._layout = layout_of(shapes)
        self.mv_inputs = np.array([mv.input for mv in stage.mvs], dtype=np.intp)
        self._rows = np.array([cv.output for cv in stage.cvs], dtype=np.intp)
        self._weight = np.array([cv.weight for cv in stage.cvs])
        self._row = _Row(stage, self._constant(terminal))
        self._from = self._row.dealt(self._layout)
        self._moves = slice(self._layout["v_low"][0], self._layout["v_high"][1])
        horizon = stage.horizon
        seconds = np.full(n, horizon.step_s)
        seconds[0] = horizon.cycle_s
        rate = np.array([mv.rate_per_s for mv in stage.mvs]) / stage.u_scale
        self._reach = np.tile((seconds[:, None] * rate[None, :]).ravel(), 2)
        ends_s = horizon.step_s * np.arange(1, n + 1)[:, None]
        approach_s = np.array([cv.approach_s for cv in stage.cvs])
        ramp_s = np.array([cv.ramp_s for cv in stage.cvs])
        with np.errstate(divide="ignore"):
            self._decay = np.where(approach_s > 0.0, np.exp(-ends_s / approach_s), 0.0)
            self._ramp = np.where(ramp_s > 0.0, ends_s / ramp_s, np.inf)

    def _constant(self, terminal: Vector | None) -> Mapping[str, Vector]:
        """The weights: what is the same in every cycle, and in every interval."""
        ns = self._stage.ns
        return {
            "move_weight": np.array([mv.move_suppression for mv in self._stage.mvs]),
            "rest_weight": np.array([mv.target_weight for mv in self._stage.mvs]),
            "price": self._weight,
            "curve": SLACK_QUADRATIC * self._weight,
            "terminal": np.zeros(ns * ns) if terminal is None else terminal.ravel(),
        }

    def __call__(self, situation: Situation, target: Target) -> Instance:
        """The instance for what is true now and where to go."""
        row = self._row.gathered(situation, target, self.mv_inputs, self._rows)
        part = self._row.part
        ordinary = self._row.is_ordinary(row)
        tracked = np.isfinite(situation.setpoint)
        if situation.watched is not None:
            unwatched = situation.watched <= 0.0
            tracked &= ~unwatched
            row[part["z_low"]][unwatched], row[part["z_high"]][unwatched] = -np.inf, np.inf
        row[part["track"]] = self._weight * tracked
        row[part["wanted"]][~tracked] = 0.0
        self._limit_mvs(row)
        self._limit_cvs(row)
        flat = row.take(self._from)
        flat[self._moves] *= self._reach
        made = Instance(self._layout, flat, ordinary)
        if situation.forecast is not None:
            begin = situation.w.size
            made.theta[:, begin : begin + situation.d.size] = situation.forecast
        if situation.cv_low_now is not None and situation.cv_high_now is not None:
            scale = self._stage.cv_scale
            self._ramp_zones(made, situation.cv_low_now / scale, situation.cv_high_now / scale)
        if target.solved and any(target.slack.tolist()):
            self._give_way(made, target)
        if situation.cv_now is not None:
            now = situation.cv_now / self._stage.cv_scale
            made.wanted[:] += np.where(tracked, now - row[part["wanted"]], 0.0) * self._decay
            self._funnel(made, now)
        return made

    def _limit_mvs(self, row: Vector) -> None:
        """Limits of moves, as shares of their reach, and of setpoints; which MVs may move."""
        part = self._row.part
        low, high, now = row[part["u_low"]], row[part["u_high"]], row[part["now"]]
        down, up, free = row[part["v_low"]], row[part["v_high"]], row[part["free"]]
        # Plain numbers tell in a tenth of the time that all MVs are as they mostly are.
        each = zip(*(limit.tolist() for limit in (low, now, high, free, down, up)), strict=True)
        if all(
            lo <= at <= hi and hi - lo > NO_ROOM and may and not (no_down or no_up)
            for lo, at, hi, may, no_down, no_up in each
        ):
            down[:], up[:] = -1.0, 1.0
            return
        # An MV outside its limits may come back at its rate: the limit gives way to where it is.
        np.minimum(low, now, out=low)
        np.maximum(high, now, out=high)
        # From 1 for a blocked direction to the share of its reach that is left.
        down -= 1.0
        np.subtract(1.0, up, out=up)
        stays = (free == 0.0) | (up == down) | (high - low <= NO_ROOM)
        # Without room to move there is nothing to decide: a solver is told that the MV stays, and
        # gets bounds that leave it room.
        free[stays], down[stays], up[stays] = 0.0, -1.0, 1.0
        low[stays], high[stays] = now[stays] - 1.0, now[stays] + 1.0

    def _limit_cvs(self, row: Vector) -> None:
        part = self._row.part
        low, high = row[part["z_low"]], row[part["z_high"]]
        if any(map(gt, low.tolist(), high.tolist())):
            crossed = low > high
            # Nothing is inside limits that cross: half way between them each misses as little.
            middle = (low[crossed] + high[crossed]) / 2.0
            low[crossed] = high[crossed] = middle

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


class _Row:
    """The numbers that vary from cycle to cycle, one after the other: what they are scaled by, and
    to which places of an instance they are dealt."""

    def __init__(self, stage: Stage, constants: Mapping[str, Vector]) -> None:
        """`constants` are parts that never vary; they stand at the end of every row."""
        model, n_mv, n_cv = stage.augmented.model, len(stage.mvs), len(stage.cvs)
        none, one = np.zeros(0), np.ones(0)
        u, x = (stage.u_offset, stage.u_scale), (stage.x_offset, stage.x_scale)
        z = (np.zeros(n_cv), stage.cv_scale)
        plain = {"w": stage.augmented.nw, "d": len(model.d), "inputs": len(model.u)}
        plain |= dict.fromkeys(("free", "v_low", "v_high"), n_mv)
        scaling = {"x": x, "now": u, "target": x, "rest": u, "u_low": u, "u_high": u}
        scaling |= {"z_low": z, "z_high": z, "wanted": z}
        scaling |= {name: (np.zeros(size), np.ones(size)) for name, size in plain.items()}
        scaling["track"] = (np.zeros(n_cv), np.ones(n_cv))
        scaling |= {name: (np.zeros(c.size), np.ones(c.size)) for name, c in constants.items()}
        self.part: dict[str, slice] = {}
        begin = 0
        for name, (offset, _) in scaling.items():
            self.part[name] = slice(begin, begin + offset.size)
            begin += offset.size
        self._offset = np.concatenate([none, *(offset for offset, _ in scaling.values())])
        self._scale = np.concatenate([one, *(scale for _, scale in scaling.values())])
        self._end = np.concatenate([np.zeros(n_cv), *constants.values()])
        self._middle, self._reach = self._believable(stage)

    def _believable(self, stage: Stage) -> tuple[Vector, Vector]:
        """Middle and half width of what each number may be; infinite where it does not matter."""
        augmented, model = stage.augmented, stage.augmented.model
        middle, reach = np.zeros(self._offset.size), np.full(self._offset.size, np.inf)
        spans = augmented_spans(augmented)
        reach[self.part["x"]] = PLAUSIBLE_SPANS
        reach[self.part["w"]] = PLAUSIBLE_SPANS * spans[augmented.nx :]
        for name, variables in (("d", model.d), ("inputs", model.u)):
            middle[self.part[name]] = nominal(variables)
            reach[self.part[name]] = [PLAUSIBLE_SPANS * v.span for v in variables]
        return middle, reach

    def is_ordinary(self, row: Vector) -> bool:
        """Whether states, disturbances and inputs are where the model makes sense; NaN is not."""
        return all((np.abs(row - self._middle) <= self._reach).tolist())

    def gathered(
        self, situation: Situation, target: Target, index: Indices, rows: Indices
    ) -> Vector:
        """The row of a situation, scaled, in the order of `part`."""
        row = np.concatenate(
            (
                situation.x,
                situation.u_now.take(index),
                target.x,
                target.u.take(index),
                situation.mv_low,
                situation.mv_high,
                situation.cv_low,
                situation.cv_high,
                target.y.take(rows),
                situation.w,
                situation.d,
                situation.u_now,
                situation.free,
                situation.blocked_down,
                situation.blocked_up,
                self._end,
            )
        )
        row -= self._offset
        row /= self._scale
        return row

    def dealt(self, layout: Layout) -> Indices:
        """Where in the row each number of an instance comes from."""
        sources = {
            "s0": ("x", "now"),
            "terminal_at": ("target", "rest"),
            "theta": ("w", "d", "inputs", "free"),
        }
        taken: list[Indices] = []
        for name, (begin, end, _) in layout.items():
            names = sources.get(name, (name,))
            one = np.concatenate([np.arange(self.part[n].start, self.part[n].stop) for n in names])
            taken.append(np.tile(one, (end - begin) // one.size if one.size else 0))
        return np.concatenate(taken)
