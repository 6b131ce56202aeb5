"""The PLC's own base layer: a PID controller and the setpoint it follows in LOCAL and REMOTE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Action = Literal["reverse", "direct"]


@dataclass(frozen=True, slots=True)
class PidTuning:
    """Tuning of one loop, as a control engineer reads it off the faceplate.

    Attributes:
        gain: controller gain, output units per unit of the process value; positive.
        reset_s: integral time in seconds; infinity switches the integral off.
        rate_s: derivative time in seconds; acts on the process value, never on the setpoint.
        action: `reverse` raises the output when the process value is too low (heating, a feed
            valve); `direct` lowers it (cooling, a drain).
        output_low, output_high: range of the output, in its unit.
        filter_ratio: the derivative is filtered with rate_s / filter_ratio (Åström and Hägglund,
            "Advanced PID Control", 2006, recommend 8 to 20).
    """

    gain: float
    reset_s: float
    output_low: float
    output_high: float
    rate_s: float = 0.0
    action: Action = "reverse"
    filter_ratio: float = 10.0

    def __post_init__(self) -> None:
        if not self.gain > 0.0 or not self.reset_s > 0.0 or self.rate_s < 0.0:
            raise ValueError(
                f"PID tuning needs gain > 0, reset_s > 0 and rate_s ≥ 0, not gain {self.gain}, "
                f"reset_s {self.reset_s}, rate_s {self.rate_s}; use action for the sign"
            )
        if not self.output_low < self.output_high:
            raise ValueError(f"PID output range [{self.output_low}, {self.output_high}] is empty")


class Pid:
    """A position-form PID with conditional integration and bumpless tracking.

    The integral stands still while the output is at a limit and the error pushes further into
    it, so a long saturation leaves no windup to pay back (conditional integration, Åström and
    Hägglund 2006, section 3.5).
    """

    __slots__ = (
        "_derivative",
        "_gain",
        "_integral",
        "_last_pv",
        "_sign",
        "at_high",
        "at_low",
        "output",
        "tuning",
    )

    def __init__(self, tuning: PidTuning, output: float, setpoint: float, pv: float) -> None:
        self.tuning = tuning
        self._sign = 1.0 if tuning.action == "reverse" else -1.0
        self._gain = self._sign * tuning.gain
        self.track(output, setpoint, pv)

    def track(self, output: float, setpoint: float, pv: float) -> None:
        """Take over at `output` without a bump, whatever the error is at this moment."""
        tuning = self.tuning
        self.output = min(max(output, tuning.output_low), tuning.output_high)
        self._integral = self.output - self._gain * (setpoint - pv)
        self._derivative = 0.0
        self._last_pv = pv
        self.at_high = self.output >= tuning.output_high
        self.at_low = self.output <= tuning.output_low

    def update(self, setpoint: float, pv: float, dt_s: float) -> float:
        """The output after one scan of dt_s seconds. A process value that is no number holds it."""
        if not math.isfinite(pv):
            return self.output
        tuning = self.tuning
        error = setpoint - pv
        push = self._gain * error
        increment = push * dt_s / tuning.reset_s
        if tuning.rate_s > 0.0:
            filter_s = tuning.rate_s / tuning.filter_ratio
            slope = self._gain * tuning.rate_s * (self._last_pv - pv)
            self._derivative = (filter_s * self._derivative + slope) / (filter_s + dt_s)
            self._last_pv = pv
        wanted = push + self._derivative + self._integral + increment
        low, high = tuning.output_low, tuning.output_high
        self.at_high = at_high = wanted >= high
        self.at_low = at_low = wanted <= low
        if not (at_high and increment > 0.0) and not (at_low and increment < 0.0):
            self._integral += increment
        self.output = output = high if wanted > high else low if wanted < low else wanted
        return output


class SlaveSetpoint:
    """The setpoint in use of a slave loop: clamped, rate-limited and bumpless between its sources.

    In REMOTE it follows the supervisory controller, in LOCAL the operator's value. Whatever the
    source, it moves from where it is at no more than `rate_per_s`.
    """

    __slots__ = (
        "_last_remote",
        "_remote_high",
        "_remote_low",
        "_taken",
        "clamped",
        "high",
        "in_use",
        "local",
        "low",
        "rate_per_s",
        "refused",
        "remote",
        "wanted",
    )

    def __init__(self, start: float, low: float, high: float, rate_per_s: float) -> None:
        if not low < high or not rate_per_s > 0.0:
            raise ValueError(
                f"setpoint range [{low}, {high}] must not be empty and its rate {rate_per_s}/s "
                "must be positive (infinity for no limit)"
            )
        self.low = low
        self.high = high
        self.clamp_remote(low, high)
        self.rate_per_s = rate_per_s
        self.in_use = min(max(start, low), high)
        self.local = self.in_use
        self.wanted = self.in_use
        self.remote = False
        self.clamped = 0
        self.refused = 0
        self._last_remote = self.in_use

    def to_remote(self) -> None:
        """Follow the supervisory controller, starting from the setpoint in use."""
        self.remote = True
        self.wanted = self.in_use
        self._taken = math.nan

    def to_local(self, fallback: float | None = None) -> None:
        """Hold the setpoint in use, or ramp to `fallback` where the process asks for one."""
        self.remote = False
        self.set_local(self.in_use if fallback is None else fallback)

    def set_local(self, value: float) -> None:
        """The operator's setpoint, clamped; followed in LOCAL."""
        self.local = min(max(value, self.low), self.high)

    def clamp_remote(self, low: float, high: float) -> None:
        """Clamp what the controller writes to this part of the setpoint range."""
        self._remote_low, self._remote_high = max(low, self.low), min(high, self.high)
        self._taken = math.nan

    def update(self, remote: float, dt_s: float) -> float:
        """The setpoint in use after one scan; `remote` is what the controller last wrote.

        A remote value that is not finite is refused and the last good one kept; one outside the
        range is clamped. Each such value counts once, however many scans see it.
        """
        if self.remote:
            if remote != self._taken:
                self._accept(remote)
            target = self.wanted
        else:
            target = self.local
        step, move = self.rate_per_s * dt_s, target - self.in_use
        self.in_use += step if move > step else -step if move < -step else move
        return self.in_use

    def _accept(self, remote: float) -> None:
        self._taken = remote
        last, self._last_remote = self._last_remote, remote
        if not math.isfinite(remote):
            self.refused += remote != last and not math.isnan(last)
            return
        self.wanted = min(max(remote, self._remote_low), self._remote_high)
        if remote != last and self.wanted != remote:
            self.clamped += 1
