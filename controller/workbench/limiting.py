"""Why a CV cannot respond as fast as wanted: which limit is in the way, found by lifting each."""

from __future__ import annotations

import numpy as np

from controller.workbench.closed_loop import ClosedLoop, Lifted, Weights
from controller.workbench.ensemble import LinearPlant, Member
from plant_models.process import Vector

FASTER = 0.9
"""A limit is in the way when the response takes this part of the time without it, or less."""
DEAD_SHARE, ALIVE = 0.3, 0.01
"""Dead time is in the way when it is this part of the response; it lasts until an output has
done 1 % of what it will do."""
WRONG_WAY = 0.03
AT_LIMIT = 1e-6


def limiting(loop: ClosedLoop, cv: int, member: Member, response_s: float, weights: Weights) -> str:
    """What keeps this CV of the nominal plant from responding faster than response_s, in words."""
    application, window = loop.application, 2.0 * response_s
    base = loop.respond(cv, member, weights, window)
    for lifted, words in (
        (Lifted(rates=True), _rates(loop, base.u)),
        (Lifted(ranges=True), _ranges(loop, base.u)),
        (Lifted(approach=True), f"its own approach: {application.cvs[cv].approach_s:g} s"),
        (Lifted(rates=True, ranges=True), "the rates and ranges of the MVs together"),
    ):
        if loop.respond(cv, member, weights, window, lifted).response_s <= FASTER * base.response_s:
            return words
    dead_s = dead_time(loop, cv, member, window)
    if dead_s >= DEAD_SHARE * base.response_s:
        return f"the dead time of {dead_s:g} s"
    if base.wrong_way > WRONG_WAY:
        return (
            f"the inverse response: it first moves {base.wrong_way:.0%} of the step the wrong way "
            "(non-minimum phase)"
        )
    horizon = loop.application.ladder.stage.horizon
    if response_s <= 2.0 * max(horizon.step_s, horizon.cycle_s):
        return f"the cycle of {horizon.cycle_s:g} s and the MPC step of {horizon.step_s:g} s"
    return "the lags of the process within the horizon and its blocks"


def dead_time(loop: ClosedLoop, cv: int, member: Member, seconds: float) -> float:
    """Seconds before any MV shows in this CV."""
    application, point = loop.application, loop.point
    row, count = application.cvs[cv].output, max(8, round(seconds / application.cycle_s))
    found: list[float] = []
    for mv in application.mvs:
        plant, u = LinearPlant(point, member, application.cycle_s), point.u.copy()
        u[mv.input] += 0.01 * mv.span
        moved = np.abs([plant.hold(u)[row] - point.y[row] for _ in range(count)])
        if moved.max() > 0.0:
            # The first cycle ends with what the move did in it, so it is no dead time.
            found.append(float(np.argmax(moved > ALIVE * moved.max())) * application.cycle_s)
    return min(found, default=0.0)


def _rates(loop: ClosedLoop, u: Vector) -> str:
    """The MVs that move at their rates in this response."""
    application = loop.application
    busy: list[str] = []
    for i, mv in enumerate(application.mvs):
        moves = np.abs(np.diff(u[:, i], prepend=loop.point.u[mv.input]))
        reach = mv.rate_per_s * application.cycle_s
        if moves.max() >= reach * (1.0 - AT_LIMIT) - AT_LIMIT * mv.span:
            busy.append(f"{mv.name} ({60.0 * mv.rate_per_s:g} {mv.unit} a minute)")
    return f"the rate of {', '.join(busy) or 'the MVs'}"


def _ranges(loop: ClosedLoop, u: Vector) -> str:
    """The MVs that are at their limits in this response."""
    application = loop.application
    busy: list[str] = []
    for i, mv in enumerate(application.mvs):
        slack = AT_LIMIT * mv.span
        for edge, there in (
            (mv.low, u[:, i].min() <= mv.low + slack),
            (mv.high, u[:, i].max() >= mv.high - slack),
        ):
            if there:
                busy.append(f"{mv.name} at {edge:g} {mv.unit}")
    return f"the range of the MVs: {', '.join(busy) or 'one of them'}"
