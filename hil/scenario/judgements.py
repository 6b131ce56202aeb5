"""What a scenario file demands of its run: assertions, budgets, the golden run."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import normpath
from pathlib import Path

from controller.errors import ScenarioError
from controller.settings.problems import suggestion
from hil.kpi_names import KPI_NAMES
from hil.scenario.file import (
    AssertionSection,
    BudgetsSection,
    GoldenSection,
    ScenarioFile,
    ToleranceSection,
)
from hil.scenario.parts import Assertion, Bound, Golden, Temporal, Tube
from hil.scenario.places import Places
from hil.temporal.parser import parse


def resolve_assertions(shape: ScenarioFile, places: Places) -> list[Assertion]:
    """Those about KPIs."""
    found: list[Assertion] = []
    for i, assertion in enumerate(shape.assertions):
        if not assertion.kpi:
            continue
        _check_kpi(assertion.kpi, places.where("assertions", i, "kpi"))
        _something_asserted(assertion, assertion.kpi, i, places)
        found.append(Assertion(assertion.kpi, assertion.low, assertion.high, assertion.severity))
    return found


def _check_kpi(kpi: str, where: str) -> None:
    known = any(
        kpi == name or (name.endswith((".", "_")) and kpi.startswith(name)) for name in KPI_NAMES
    )
    if not known:
        raise ScenarioError(f"there is no KPI {kpi}", where=where, mend=suggestion(kpi, KPI_NAMES))


def resolve_judgements(
    shape: ScenarioFile, places: Places
) -> tuple[tuple[Bound, ...], tuple[Temporal, ...]]:
    """Assertions about signals: bounds and formulas; and that every assertion is of one kind."""
    bounds: list[Bound] = []
    formulas: list[Temporal] = []
    for i, assertion in enumerate(shape.assertions):
        here = ("assertions", i)
        given = [n for n in ("kpi", "bound", "temporal") if getattr(assertion, n)]
        if len(given) != 1:
            raise ScenarioError(
                f"an assertion is about one thing, this one about {' and '.join(given) or 'none'}",
                where=places.where(*here),
                mend="Give it one of kpi, bound, temporal",
            )
        if not assertion.bound and (assertion.begin != 0.0 or assertion.until is not None):
            raise ScenarioError(
                f"{assertion.kpi or assertion.temporal} has no times of its own here",
                where=places.where(*here),
                mend="Use judge_from for KPIs, and windows inside a formula",
            )
        if assertion.bound:
            _something_asserted(assertion, assertion.bound, i, places)
            bounds.append(_bound(assertion, i, shape, places))
        elif assertion.temporal:
            with places.told_inside(*here, "temporal"):
                parse(assertion.temporal)
            formulas.append(Temporal(assertion.temporal, assertion.severity))
    return tuple(bounds), tuple(formulas)


def _bound(assertion: AssertionSection, number: int, shape: ScenarioFile, places: Places) -> Bound:
    here = ("assertions", number)
    from_s = places.seconds(assertion.begin, *here, "from")
    places.in_time(from_s, shape.duration, *here, "from")
    until_s = float("inf")
    if assertion.until is not None:
        until_s = places.seconds(assertion.until, *here, "until")
        if not from_s < until_s:
            raise ScenarioError(
                f"the bound ends at {until_s:g} s, and begins at {from_s:g} s",
                where=places.where(*here, "until"),
                mend="Let it end later",
            )
    return Bound(
        assertion.bound, assertion.low, assertion.high, from_s, until_s, assertion.severity
    )


def _something_asserted(
    assertion: AssertionSection, about: str, number: int, places: Places
) -> None:
    if assertion.low is None and assertion.high is None:
        raise ScenarioError(
            f"nothing is asserted of {about}",
            where=places.where("assertions", number),
            mend="Add low, high or both",
        )
    low, high = assertion.low, assertion.high
    for key, limit in (("low", low), ("high", high)):
        if limit is not None and limit != limit:
            raise ScenarioError(
                f"the limit of {about} is no number",
                where=places.where("assertions", number, key),
                mend="Write a number",
            )
    if low is not None and high is not None and low > high:
        raise ScenarioError(
            f"nothing lies from {low:g} up to {high:g}",
            where=places.where("assertions", number, "low"),
            mend="Write the lower limit as low, the higher as high",
        )


def resolve_budgets(section: BudgetsSection, places: Places) -> list[Assertion]:
    """Limits on time: each is an assertion on the KPI of that name."""
    wall = section.wall
    limits = {
        "solve_ms_p99": section.solve_ms_p99,
        "cycle_ms_p99": section.cycle_ms_p99,
        "jitter_ms_p99": section.jitter_ms_p99,
        "wall_s": None if wall is None else places.seconds(wall, "budgets", "wall"),
    }
    return [Assertion(kpi, None, high, "fail") for kpi, high in limits.items() if high is not None]


def resolve_golden(section: GoldenSection | None, path: Path, places: Places) -> Golden | None:
    if section is None:
        return None

    def tubes(name: str, sections: Mapping[str, ToleranceSection]) -> dict[str, Tube]:
        return {
            signal: Tube(
                tube.abs,
                tube.rel,
                places.seconds(tube.lead, "golden", name, signal, "lead"),
                places.seconds(tube.lag, "golden", name, signal, "lag"),
            )
            for signal, tube in sections.items()
        }

    for kpi in section.kpis:
        if "*" not in kpi:
            _check_kpi(kpi, places.where("golden", "kpis", kpi))
    return Golden(
        file=Path(normpath(path.parent / section.file)),
        tubes=tubes("signals", section.signals),
        bands=tubes("kpis", section.kpis),
        ignore=tuple(section.ignore),
        where=places.where("golden", "file"),
    )
