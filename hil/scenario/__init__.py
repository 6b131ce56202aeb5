"""Scenarios: one file that says plant, PLC, laboratory, what goes wrong, and what must hold."""

from hil.scenario.forced_tier import LeftOut, in_tier
from hil.scenario.load import load_scenario, variants
from hil.scenario.parts import (
    TIERS,
    Assertion,
    Bound,
    Economics,
    Golden,
    Profile,
    Scenario,
    ScheduledCommand,
    Severity,
    Temporal,
    Tier,
    Tube,
)

__all__ = [
    "TIERS",
    "Assertion",
    "Bound",
    "Economics",
    "Golden",
    "LeftOut",
    "Profile",
    "Scenario",
    "ScheduledCommand",
    "Severity",
    "Temporal",
    "Tier",
    "Tube",
    "in_tier",
    "load_scenario",
    "variants",
]
