"""Which way of each key performance indicator is the better one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Better = Literal["lower", "higher", "neither"]

_LOWER: tuple[str, ...] = (
    "iae.",
    "ise.",
    "itae.",
    "offset_end.",
    "settling_s.",
    "overshoot.",
    "travel.",
    "reversals.",
    "violation_max.",
    "violation_integral.",
    "violation_share",
    "lab_violations",
    "lab_violation_share",
    "off_spec_kg",
    "energy_per_in_spec_kg",
    "gap_end",
    "share_shed",
    "share_absent",
    "sheds",
    "fallback_s",
    "time_in.shed",
    "time_in.absent",
    "rung_shifted",
    "rung_lqr",
    "rung_hold",
    "mv_local.",
    "cv_predicted.",
    "cv_dropped.",
    "given_up.",
    "late_writes",
    "deadline_misses",
    "jitter_ms_",
    "solve_failures.",
    "watchdog_trips",
    "plc_clamped_writes",
    "unsafe_writes",
    "invariant_violations",
    "control_endings",
    "control_unready",
    "cycle_ms_",
    "solve_ms_",
    "step_ms_",
    "busy_ms_",
    "wall_s",
)
_HIGHER: tuple[str, ...] = (
    "active_share",
    "share_active",
    "time_in.active",
    "cpk.",
    "ppk.",
    "profit_end",
    "product_kg",
    "replay_identical",
)
_NEITHER: tuple[str, ...] = (
    # Facts of the run, or of what was there before control was taken.
    "cycles",
    "replayed_cycles",
    "wire_writes",
    "lab_samples",
    "profit_before",
    "profit_optimum",
    "gap_before",
    # Good or bad only together with others.
    "activations",
    "control_starts",
    "time_in.",
    # In a zone, what is given away less at one limit is given away more at the other.
    "giveaway_low.",
    "giveaway_high.",
    "largest_move.",
    "mv_limited.",
    "share_",
    "rung_",
)
_TABLE: Mapping[str, Better] = {
    **dict.fromkeys(_LOWER, "lower"),
    **dict.fromkeys(_HIGHER, "higher"),
    **dict.fromkeys(_NEITHER, "neither"),
}
_MACHINE = (
    "cycle_ms_",
    "solve_ms_",
    "step_ms_",
    "busy_ms_",
    "jitter_ms_",
    "deadline_misses",
    "wall_s",
)


def known(kpi: str) -> bool:
    """Whether the table tells the direction of a KPI, or of a family of them."""
    return _entry(kpi) is not None


def better(kpi: str) -> Better:
    """The better way of a KPI; neither where it is not known."""
    entry = _entry(kpi)
    return "neither" if entry is None else _TABLE[entry]


def of_the_machine(kpi: str) -> bool:
    """A time that depends on the computer and what else it does, not on the loop."""
    return kpi.startswith(_MACHINE)


def _entry(kpi: str) -> str | None:
    """The longest name or beginning in the table that fits."""
    fitting = [entry for entry in _TABLE if kpi.startswith(entry)]
    return max(fitting, key=len, default=None)
