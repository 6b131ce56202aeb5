"""What a situation permits and wishes, in the scaled variables of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import is_

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from controller.errors import ModelError
from controller.estimation.augmented import AugmentedModel
from controller.mpc.problem import ControlledVariable, ManipulatedVariable, Situation
from controller.mpc.ranked import Indices
from plant_models.process import Vector, nominal

# Without any wish, an MV rests where it is: just enough weight to make the answer unique.
INERTIA = 1e-4


class Asked(Struct, frozen=True, eq=False):
    """One situation in scaled variables: limits (n + m,), wishes (n,) and their weights (n,).

    `hessian` has the weights on its diagonal; `now` is where the MVs are; `crossed` tells that a
    CV's low limit is above its high one.
    """

    low: Vector
    high: Vector
    wish: Vector
    weight: Vector
    hessian: Vector
    now: Vector
    crossed: bool


class _Lasting(Struct, frozen=True, eq=False):
    """What limits and wishes come to, whatever the plant does.

    `source` are the arrays it was made of; `rest` and `rests` (n_mv,): where MVs are wished to
    rest, and which; `some_crossed`: some limits of an MV or a CV cross.
    """

    source: tuple[Vector | None, ...]
    low: Vector
    high: Vector
    weight: Vector
    hessian: Vector
    rest: Vector
    rests: NDArray[np.bool_]
    any_rests: bool
    crossed: NDArray[np.bool_]
    some_crossed: bool
    cv_crossed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """Constants of the target: from units to scaled variables, and what is compared often.

    Attributes:
        index: input of each MV; base, span: MV = base + span · scaled; cv: scale per CV.
        offset, unit: of the limits (n + m,), scaled = (limit - offset) / unit.
        anywhere, still: low limits of integrating coordinates and of their rates, (k,).
        inertia: weights (n,) without any wish; target_weight: with one, (n_mv,).
        right: from states to integrating coordinates, (k, nx).
        outputs: of the CVs in y; price_y: dimensionless cost per unit of each output.
        kept: the lasting part of the last situation; a memory, no state.
    """

    index: Indices
    base: Vector
    span: Vector
    cv: Vector
    offset: Vector
    unit: Vector
    anywhere: Vector
    still: Vector
    inertia: Vector
    target_weight: Vector
    x_span: Vector
    x_nominal: Vector
    nothing: Vector
    outputs: Indices
    price_y: Vector
    right: Vector
    all_free: bytes
    none_blocked: bytes
    kept: list[_Lasting] = field(default_factory=lambda: list[_Lasting]())

    def asked(self, situation: Situation) -> Asked:
        """Limits and wishes of a situation."""
        n_mv = self.span.size
        lasting = self._lasting(situation)
        low, high = lasting.low, lasting.high
        now = self.mvs(situation.u_now)
        hindered = (
            situation.free.tobytes() != self.all_free
            or situation.blocked_up.tobytes() != self.none_blocked
            or situation.blocked_down.tobytes() != self.none_blocked
        )
        if hindered or lasting.some_crossed:
            low, high = low.copy(), high.copy()
            _hold(situation, now, low[:n_mv], high[:n_mv], lasting.crossed[:n_mv])
        wish = now
        if lasting.any_rests:
            wish = now.copy()
            np.copyto(wish, lasting.rest, where=lasting.rests)
        if self.still.size:
            wish = np.concatenate([wish, self.right @ situation.x])
        return Asked(low, high, wish, lasting.weight, lasting.hessian, now, lasting.cv_crossed)

    def _lasting(self, situation: Situation) -> _Lasting:
        """What follows from limits and wishes, which stay the same for hours.

        It is kept for as long as a situation brings the very same arrays, and those may not be
        written to: so this is a function of its arguments all the same.
        """
        source = (
            situation.mv_low,
            situation.mv_high,
            situation.cv_low,
            situation.cv_high,
            situation.setpoint,
            situation.resting,
            situation.watched,
        )
        kept = self.kept[-1] if self.kept else None
        if kept is not None and all(map(is_, source, kept.source)):
            return kept
        made = self._made(source, situation)
        if not any(array is not None and array.flags.writeable for array in source):
            self.kept[:] = [made]
        return made

    def _made(self, source: tuple[Vector | None, ...], situation: Situation) -> _Lasting:
        n_mv, k = self.span.size, self.still.size
        n = n_mv + k
        low = np.concatenate([situation.mv_low, self.anywhere, self.still, situation.cv_low])
        high = np.concatenate([situation.mv_high, -self.anywhere, self.still, situation.cv_high])
        low -= self.offset
        high -= self.offset
        low /= self.unit
        high /= self.unit
        tracked = np.isfinite(situation.setpoint)
        if tracked.any():
            cv_low, cv_high = low[n + k :], high[n + k :]
            wanted = np.minimum(np.maximum(situation.setpoint / self.cv, cv_low), cv_high)
            np.copyto(cv_low, wanted, where=tracked)
            np.copyto(cv_high, wanted, where=tracked)
        if situation.watched is not None:
            dropped = situation.watched <= 0
            low[n + k :][dropped], high[n + k :][dropped] = -np.inf, np.inf
        crossed = low > high
        rests = np.isfinite(situation.resting)
        weight = self.inertia.copy()
        np.copyto(weight[:n_mv], self.target_weight, where=rests)
        return _Lasting(
            source,
            low,
            high,
            weight,
            np.diag(weight),
            (situation.resting - self.base) / self.span,
            rests,
            bool(rests.any()),
            crossed,
            bool(crossed.any()),
            bool(crossed[n + k :].any()),
        )

    def mvs(self, u: Vector) -> Vector:
        """Scaled MVs (n_mv,) of inputs u (nu,)."""
        return (u.take(self.index) - self.base) / self.span


def _hold(
    situation: Situation, now: Vector, low: Vector, high: Vector, crossed: NDArray[np.bool_]
) -> None:
    """Narrow the limits (in place) to what each MV can do.

    A limit gives way to an MV that cannot go there: one that is not free, or blocked that way.
    Between limits that cross an MV stays; from outside it goes to the nearer one.
    """
    low[crossed] = high[crossed] = np.minimum(np.maximum(now, high), low)[crossed]
    for blocked, narrower in (
        (situation.blocked_up > 0, np.minimum),
        (situation.blocked_down > 0, np.maximum),
    ):
        low[blocked], high[blocked] = narrower(low, now)[blocked], narrower(high, now)[blocked]
    held = situation.free <= 0
    low[held] = high[held] = now[held]


def scales_of(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    right: Vector,
    price_y: Vector,
) -> Scales:
    """Constants of a target problem; `right` (k, nx) as of its linearizer."""
    k = right.shape[0]
    nothing = np.zeros(len(cvs))
    nothing.flags.writeable = False  # It is the slack of most targets, and shared by them.
    base, span = np.array([mv.low for mv in mvs]), np.array([mv.span for mv in mvs])
    cv, none = np.array([cv.scale for cv in cvs]), np.zeros(len(mvs))
    return Scales(
        index=np.array([mv.input for mv in mvs], dtype=np.intp),
        base=base,
        span=span,
        cv=cv,
        offset=np.concatenate([base, np.zeros(2 * k + len(cvs))]),
        unit=np.concatenate([span, np.ones(2 * k), cv]),
        anywhere=np.full(k, -np.inf),
        still=np.zeros(k),
        inertia=np.full(len(mvs) + k, INERTIA),
        target_weight=np.maximum(2.0 * np.array([mv.target_weight for mv in mvs]), INERTIA),
        x_span=np.array([v.span for v in augmented.model.x]),
        x_nominal=nominal(augmented.model.x),
        nothing=nothing,
        outputs=np.array([cv.output for cv in cvs], dtype=np.intp),
        price_y=price_y,
        right=right,
        all_free=(none + 1.0).tobytes(),
        none_blocked=none.tobytes(),
    )


def require_consistent(
    mvs: Sequence[ManipulatedVariable], cvs: Sequence[ControlledVariable]
) -> None:
    """Check what can be known before any situation.

    Raises:
        ModelError: limits that cross, a rank below 1, or numbers that are none, by name.
    """
    for mv in mvs:
        here = f"MV {mv.name}"
        if not mv.low < mv.high or not np.isfinite(mv.span):
            raise ModelError(
                f"{here}: its limits cross or leave no room: low {mv.low:g} {mv.unit}, high "
                f"{mv.high:g} {mv.unit}",
                mend="Give it a low limit below its high limit.",
            )
        if not np.isfinite(mv.price) or not mv.target_weight >= 0.0:
            raise ModelError(
                f"{here}: price {mv.price:g} and target weight {mv.target_weight:g} are not usable",
                mend="Give a finite price and a target weight of zero or more.",
            )
    for cv in cvs:
        here = f"CV {cv.name}"
        if cv.rank < 1:
            raise ModelError(f"{here}: there is no rank {cv.rank}", mend="The first rank is 1.")
        if not cv.low <= cv.high:
            raise ModelError(
                f"{here}: its limits cross: low {cv.low:g} {cv.unit} is above high {cv.high:g} "
                f"{cv.unit}",
                mend="Give it a low limit below its high limit.",
            )
        if cv.setpoint is not None and not cv.low <= cv.setpoint <= cv.high:
            raise ModelError(
                f"{here}: setpoint {cv.setpoint:g} {cv.unit} is outside its limits {cv.low:g} … "
                f"{cv.high:g} {cv.unit}",
                mend="Move the setpoint inside, or widen the limits.",
            )
        if not (cv.weight > 0 and cv.scale > 0 and np.isfinite([cv.weight, cv.scale]).all()):
            raise ModelError(
                f"{here}: weight {cv.weight:g} and scale {cv.scale:g} {cv.unit} must be positive",
                mend="Give positive, finite numbers.",
            )
        if not np.isfinite(cv.price):
            raise ModelError(f"{here}: price {cv.price:g} is no price", mend="Give a number.")
