"""Why the target is where it is: one sentence per limit that shapes it, with its shadow price.

The shadow price of a limit is the derivative of the sum of prices with respect to it, by the
sensitivity of the optimality conditions (Fiacco 1983) to the limits that hold in any rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from controller.mpc.problem import Constraint, ControlledVariable, ManipulatedVariable, Situation
from controller.mpc.ranked import Ranking, Stage
from plant_models.process import Vector

Bound = Literal["low", "high", "setpoint"]
# A dual beyond rounding: the limit holds something. Duals are of the order of the weights.
HOLDS = 1e-9
# Below this part of what the dearest variable is worth over its span, a limit is worth nothing.
WORTHLESS = 1e-7


class Shaped(Struct, frozen=True, eq=False):
    """A solved ranked program: rows (m, n), weights of the wishes (n,), which MVs cannot move at
    all (n_mv,), the stages, and the derivative of y in the variables (ny, n)."""

    rows: Vector
    weight: Vector
    held: NDArray[np.bool_]
    stages: tuple[Stage, ...]
    outputs_tangent: Vector


class _Limit(Struct, frozen=True):
    """A limit that holds: `row` counts variables, then rows; `worth` per unit and hour."""

    row: int
    name: str
    unit: str
    bound: Bound
    place: str
    worth: float
    raising: bool


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """Turns duals into constraints. Prices per hour: of each MV over its span, of each output per
    unit, and of the dearest of all over its span."""

    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    ranking: Ranking
    integrating: int
    price_u: Vector
    price_y: Vector
    currency: str
    dearest: float

    def __call__(
        self, situation: Situation, shaped: Shaped, slack: Vector
    ) -> tuple[Constraint, ...]:
        """The constraints of a target: CVs that give way first, then the limits that hold.

        Args:
            slack: by how much each CV gives way, in its unit, (n_cv,).
        """
        first = shaped.stages[0]
        signs = [*first.bounds.tolist(), *first.rows.tolist()]
        for stage in shaped.stages[1:]:
            for i, dual in enumerate([*stage.bounds.tolist(), *stage.rows.tolist()]):
                signs[i] = signs[i] if abs(signs[i]) > HOLDS else dual
        active = [i for i, dual in enumerate(signs) if abs(dual) > HOLDS]
        n_mv, first_cv = len(self.mvs), shaped.weight.size + self.integrating
        gave = [first_cv + i for i, amount in enumerate(slack.tolist()) if amount > 0.0]
        # Between limits that cross, the duals of both cancel.
        active += [row for row in gave if row not in active]
        if not active:
            return ()
        worth = self._worth(shaped, active, gave) if self.dearest > 0.0 else {}
        limits: dict[int, _Limit] = {}
        for row in active:
            price = worth.get(row, 0.0)
            if row < n_mv:
                limits[row] = self._of_mv(situation, shaped, row, signs[row], price)
            elif row >= first_cv:
                limits[row] = self._of_cv(situation, row, row - first_cv, signs[row], price)
        found = [
            self._given_up(situation, shaped, limits, row, float(slack[row - first_cv]), gave)
            for row in gave
        ]
        found += [
            Constraint(x.name, x.bound, 0.0, x.worth, self._holding(x))
            for row, x in limits.items()
            if row not in gave
            and not (row < n_mv and shaped.held[row])
            and not (x.bound == "setpoint" and self._worthless(x))
        ]
        return tuple(found)

    def _worth(
        self, shaped: Shaped, active: Sequence[int], gave: Sequence[int]
    ) -> dict[int, float]:
        """By row, derivative of the sum of prices (currency per hour) in the scaled limit."""
        n, n_mv = shaped.weight.size, len(self.mvs)
        price = shaped.outputs_tangent.T.dot(self.price_y)
        price[:n_mv] += self.price_u
        every = np.concatenate([np.eye(n), shaped.rows])
        holding = [row for row in active if row not in gave]
        for row in gave:
            # What was given up follows from the limits that force it, unless nothing forces it.
            if len(holding) < n and np.linalg.matrix_rank(every[[*holding, row]]) > len(holding):
                holding.append(row)
        if not holding:
            return {}
        k = len(holding)
        system = np.zeros((n + k, n + k))
        system[:n, :n] = np.diag(shaped.weight)
        system[n:, :n] = every[holding]
        system[:n, n:] = every[holding].T
        right = np.concatenate([price, np.zeros(k)])
        try:
            sensitivity = np.linalg.solve(system, right)
        except np.linalg.LinAlgError:  # More limits meet here than there are variables.
            sensitivity = np.linalg.lstsq(system, right, rcond=None)[0]
        return {row: float(sensitivity[n + i]) for i, row in enumerate(holding) if row not in gave}

    def _of_mv(
        self, situation: Situation, shaped: Shaped, row: int, sign: float, worth: float
    ) -> _Limit:
        mv = self.mvs[row]
        up = sign > 0
        at = float(situation.mv_high[row] if up else situation.mv_low[row])
        if shaped.held[row]:
            place = "not free to move"
        elif (situation.blocked_up if up else situation.blocked_down)[row]:
            place = f"blocked {'upwards' if up else 'downwards'} by its saturated loop"
        else:
            place = f"at its {'maximum' if up else 'minimum'} of {_amount(at, mv.unit)}"
        per_unit = (-worth if up else worth) / mv.span + 0.0
        return _Limit(row, mv.name, mv.unit, "high" if up else "low", place, per_unit, up)

    def _of_cv(
        self, situation: Situation, row: int, number: int, sign: float, worth: float
    ) -> _Limit:
        cv, up = self.cvs[number], sign > 0
        setpoint = float(situation.setpoint[number])
        per_unit = worth / cv.scale
        if isfinite(setpoint):
            place = f"setpoint of {_amount(setpoint, cv.unit)}"
            return _Limit(row, cv.name, cv.unit, "setpoint", place, abs(per_unit), per_unit <= 0.0)
        at = float((situation.cv_high if up else situation.cv_low)[number])
        bound: Bound = "high" if up else "low"
        place = f"{bound} limit of {_amount(at, cv.unit)}"
        return _Limit(
            row, cv.name, cv.unit, bound, place, (-per_unit if up else per_unit) + 0.0, up
        )

    def _worthless(self, limit: _Limit) -> bool:
        n_mv = len(self.mvs)
        span = self.mvs[limit.row].span if limit.row < n_mv else self._cv(limit.row).scale
        return abs(limit.worth) * span <= WORTHLESS * self.dearest

    def _cv(self, row: int) -> ControlledVariable:
        return self.cvs[row - len(self.mvs) - 2 * self.integrating]

    def _holding(self, limit: _Limit) -> str:
        its = "" if limit.row < len(self.mvs) else f" (rank {self._rank(limit.row)})"
        at = limit.place if not its else f"at its {limit.place}"
        text = f"{limit.name}{its} is {at}"
        return text + self._clause(limit, "it")

    def _clause(self, limit: _Limit, what: str) -> str:
        """What relaxing the limit is worth, or nothing where nothing has a price."""
        if self._worthless(limit):
            return ""
        does = "is worth" if limit.worth > 0 else "costs"
        how = "relaxing"
        if limit.bound == "setpoint":
            how = "raising" if limit.raising else "lowering"
        amount = f"{abs(limit.worth):.4g} {self.currency}/h"
        return f"; {how} {what} by {_amount(1.0, limit.unit)} {does} {amount}"

    def _rank(self, row: int) -> int:
        return self._cv(row).rank

    def _given_up(
        self,
        situation: Situation,
        shaped: Shaped,
        limits: dict[int, _Limit],
        row: int,
        slack: float,
        gave: Sequence[int],
    ) -> Constraint:
        limit, rank = limits[row], self._rank(row)
        number = row - len(self.mvs) - 2 * self.integrating
        level = self.ranking.ranks.index(rank)
        stage = next((s for s in shaped.stages if s.level == level), shaped.stages[-1])
        dual = np.concatenate([stage.bounds, stage.rows])
        forcing = [x for i, x in limits.items() if i not in gave and abs(float(dual[i])) > HOLDS]
        text = f"{limit.name} (rank {rank}) gives {_amount(slack, limit.unit)} at its {limit.place}"
        if situation.cv_low[number] > situation.cv_high[number]:
            why = (
                f"its limits cross: low {situation.cv_low[number]:.4g} is above high "
                f"{situation.cv_high[number]:.4g}"
            )
        else:
            why = self._why(forcing, rank)
        text += f" because {why}"
        dearest = max(forcing, key=lambda x: abs(x.worth), default=None)
        if dearest is not None:
            text += self._clause(dearest, f"the {_word(dearest, len(self.mvs))} of {dearest.name}")
        return Constraint(limit.name, limit.bound, slack, limit.worth, text)

    def _why(self, forcing: Sequence[_Limit], rank: int) -> str:
        moved = [x for x in forcing if x.row < len(self.mvs)]
        kept = [x for x in forcing if x.row >= len(self.mvs)]
        names = [f"{x.name} (rank {self._rank(x.row)}, {_word(x, len(self.mvs))})" for x in kept]
        if kept and moved:
            need = "needs" if len(kept) == 1 else "need"
            which = _and([f"{x.name}, which is {x.place}" for x in moved])
            return f"{_and(names)} {need} {which}"
        if kept:
            earlier = all(self._rank(x.row) < rank for x in kept)
            verb = "comes" if len(kept) == 1 else "come"
            return f"{_and(names)} {verb} first" if earlier else f"{_and(names)} would give more"
        if moved:
            return _and([f"{x.name} is {x.place}" for x in moved])
        return "no steady state comes nearer"


@lru_cache(maxsize=4096)
def _amount(value: float, unit: str) -> str:
    """A number and its unit, which 1 is not; 0 and -0 are one number, here as for the cache."""
    text = f"{value + 0.0:.4g}"
    return text if unit in ("", "1") else f"{text} {unit}"


def _word(limit: _Limit, n_mv: int) -> str:
    if limit.bound == "setpoint":
        return "setpoint"
    if limit.row < n_mv:
        return "maximum" if limit.bound == "high" else "minimum"
    return f"{limit.bound} limit"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
