"""Whether a plant that nothing disturbs any more came back: in control, and within its spec."""

from __future__ import annotations

import numpy as np

from controller.settings import Controlled, Settings
from hil.history import History

STEADY_CYCLES = 10
"""So many cycles at the end must all be good."""
_SIGMAS = 6.0
_SETPOINT_SHARE = 0.02
_ZONE_SHARE = 0.02


def unrecovered(history: History, settings: Settings, quiet_s: float) -> str:
    """Why a run did not come back after `quiet_s` (seconds of scenario time); empty where it did.

    In the last cycles (but for the very last, which hands back) the controller must be ACTIVE, and
    the true value of every CV must be within its `spec`.
    """
    time_s = history.column("time_s")[:-1]
    last = slice(-STEADY_CYCLES, None)
    if time_s.size < STEADY_CYCLES or time_s[last][0] < quiet_s:
        return "the quiet is too short to judge"
    modes = history.texts["mode"][:-1][last]
    if any(mode != "ACTIVE" for mode in modes):
        return f"{modes[-1]} at the end, {time_s[-1] - quiet_s:g} s after the last fault"
    for cv in settings.controlled:
        name = f"y.{cv.output}"
        values = history.column(name if name in history.columns else f"cv.{cv.output}")[:-1][last]
        low, high = spec(cv, settings)
        if not np.all((low <= values) & (values <= high)):
            return f"{cv.output} is {values[-1]:g} at the end, wanted [{low:g}, {high:g}]"
    return ""


def spec(cv: Controlled, settings: Settings) -> tuple[float, float]:
    """Between which true values a CV is where it should be: 2 % of the setpoint or of the zone
    further out, or six standard deviations of the measurement where that is more."""
    sigma = max((m.sigma for m in settings.measured if m.output == cv.output), default=0.0)
    for lab in settings.quality.values():
        sigma = max(sigma, lab.sigma.get(cv.output, 0.0))
    if cv.setpoint is not None:
        tolerance = max(_SIGMAS * sigma, _SETPOINT_SHARE * abs(cv.setpoint))
        return cv.setpoint - tolerance, cv.setpoint + tolerance
    width = cv.high - cv.low
    tolerance = max(_SIGMAS * sigma, _ZONE_SHARE * width if np.isfinite(width) else 0.0)
    return cv.low - tolerance, cv.high + tolerance
