"""Limits on their way: a changed limit of a CV moves there at its ramp, never at once."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np
from msgspec import structs

from controller.cycle.application import Application
from controller.mpc.problem import ControlledVariable, Situation

Limits = Mapping[str, tuple[float, float]]


def ramp(
    application: Application, before: Limits, situation: Situation | None
) -> tuple[Limits, Situation | None]:
    """The limits in force after this cycle, and the situation that knows of them.

    The first cycle begins at the wanted limits. A limit that comes into being or is lifted changes
    at once: there is nothing to ramp from or to.
    """
    cvs = application.cvs
    if situation is None or not any(cv.ramp_s for cv in cvs):
        return {}, situation
    now = {
        cv.name: (
            _moved(cv, before.get(cv.name, (low, high))[0], low, application.cycle_s),
            _moved(cv, before.get(cv.name, (low, high))[1], high, application.cycle_s),
        )
        for cv, low, high in zip(
            cvs, situation.cv_low.tolist(), situation.cv_high.tolist(), strict=True
        )
    }
    low, high = (np.array([limits[i] for limits in now.values()]) for i in (0, 1))
    return now, structs.replace(situation, cv_low_now=low, cv_high_now=high)


def _moved(cv: ControlledVariable, before: float, wanted: float, cycle_s: float) -> float:
    if not cv.ramp_s or not isfinite(before) or not isfinite(wanted):
        return wanted
    reach = cv.scale * cycle_s / cv.ramp_s
    return min(max(wanted, before - reach), before + reach)
