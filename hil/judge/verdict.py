"""The verdict over a run: each assertion with what was measured and what was allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

from hil.scenario.parts import Assertion, Scenario

Outcome = Literal["passed", "failed", "untested"]


@dataclass(frozen=True, slots=True)
class Check:
    """One assertion: the KPI, its limits, what it was, and what follows.

    Attributes:
        name: of the KPI, the signal, the formula or the golden signal.
        detail: where and why, in words, where numbers do not say it.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    outcome: Outcome
    severity: Literal["fail", "warn"] = "fail"
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        limits = " and ".join(
            text
            for text in (
                f"≥ {self.low:g}" if self.low is not None else "",
                f"≤ {self.high:g}" if self.high is not None else "",
            )
            if text
        )
        if self.value is not None and not isfinite(self.value):
            # Words decided: a formula about modes alone has no margin.
            return f"{self.name}: {self.outcome}{detail}"
        value = "not measured" if self.value is None else f"{self.value:.6g}"
        wanted = f", wanted {limits}" if limits else ""
        return f"{self.name} = {value}{wanted}: {self.outcome}{detail}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of one run, with what makes it repeatable."""

    scenario: str
    title: str
    tier: str
    seed: int
    version: str
    checks: tuple[Check, ...]
    kpis: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """No check failed, and every one of severity `fail` could be measured."""
        return all(c.outcome == "passed" or c.severity == "warn" for c in self.checks)

    @property
    def word(self) -> str:
        """passed, FAILED, or untested where no check could be measured."""
        if self.checks and all(check.outcome == "untested" for check in self.checks):
            return "untested"
        return "passed" if self.passed else "FAILED"

    def with_check(self, check: Check) -> Verdict:
        """The verdict with one more check."""
        return replace(self, checks=(*self.checks, check))

    def plain(self) -> dict[str, Any]:
        """For JSON; a number that is not finite becomes null."""
        return {
            "scenario": self.scenario,
            "title": self.title,
            "seed": self.seed,
            "tier": self.tier,
            "version": self.version,
            "passed": self.passed,
            "checks": [
                {
                    "name": c.name,
                    "value": _finite(c.value),
                    "low": c.low,
                    "high": c.high,
                    "outcome": c.outcome,
                    "severity": c.severity,
                    "detail": c.detail,
                }
                for c in self.checks
            ],
            "kpis": {k: (v if isfinite(v) else None) for k, v in self.kpis.items()},
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


ALWAYS = (
    Assertion("unsafe_writes", None, 0.0, "fail"),
    Assertion("invariant_violations", None, 0.0, "fail"),
    Assertion("replay_identical", 1.0, None, "fail"),
)
"""What no scenario may leave out."""


def judge(
    scenario: Scenario,
    assertions: Sequence[Assertion],
    kpis: Mapping[str, float],
    version: str,
    further: Sequence[Check] = (),
) -> Verdict:
    """Hold every assertion against the KPIs. A run that never reached ACTIVE proves nothing.

    Args:
        further: checks of signals, modes and golden runs.
    """
    reached = kpis.get("active_share", 0.0) > 0.0
    named = {assertion.kpi for assertion in assertions}
    always = [a for a in ALWAYS if a.kpi not in named and a.kpi in kpis]
    checks = [_check(assertion, kpis, reached) for assertion in (*assertions, *always)]
    return Verdict(
        scenario=scenario.name,
        title=scenario.title,
        tier=scenario.tier,
        seed=scenario.seed,
        version=version,
        checks=(*checks, *further),
        kpis=kpis,
    )


def _check(assertion: Assertion, kpis: Mapping[str, float], reached_active: bool) -> Check:
    value = kpis.get(assertion.kpi)
    common = (assertion.kpi, value, assertion.low, assertion.high)
    if value is None or not isfinite(value):
        return Check(assertion.kpi, None, *common[2:], "untested", assertion.severity)
    low, high = assertion.low, assertion.high
    inside = (low is None or value >= low) and (high is None or value <= high)
    if inside and not reached_active and assertion.kpi != "active_share":
        return Check(*common, "untested", assertion.severity)
    return Check(*common, "passed" if inside else "failed", assertion.severity)
