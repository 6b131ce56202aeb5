"""From the shape of a scenario file to its meaning: names resolved, times in seconds, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import normpath
from pathlib import Path

from controller.errors import ScenarioError
from controller.settings import Settings, load
from controller.settings.problems import suggestion
from controller.settings.yaml_core import Document
from hil.kpi_names import KPI_NAMES
from hil.lab import LabSettings
from hil.plc.pid import PidTuning
from hil.plc.virtual import SlaveLoop
from hil.scenario.events import (
    resolve_commands,
    resolve_faults,
    resolve_profiles,
    resolve_solver_fault,
)
from hil.scenario.file import (
    AssertionSection,
    BudgetsSection,
    EconomicsSection,
    GoldenSection,
    LabSection,
    LoopSection,
    OptimumSection,
    ScenarioFile,
    ToleranceSection,
)
from hil.scenario.parts import (
    Assertion,
    Bound,
    Economics,
    Golden,
    Scenario,
    Temporal,
    Tube,
)
from hil.scenario.places import Places
from hil.scenario.plc_kinds import check_plc, plant_section, resolve_awl, scan_time_s
from hil.temporal.parser import parse


def resolve(shape: ScenarioFile, document: Document, text: str, variant: str = "") -> Scenario:
    """The scenario that a file of the right shape describes.

    Raises:
        ScenarioError: a name that nothing answers to, a quantity in a wrong unit, something that
            cannot be combined.
        SettingsError: the application's file is wrong.
    """
    places = Places(document)
    application = Path(normpath(document.path.parent / shape.application))
    settings = load(application, shape.overrides)
    bounds, temporal = _judgements(shape, places)
    loops = tuple(
        _loop(name, section, settings, places) for name, section in shape.plc.loops.items()
    )
    check_plc(shape, settings, places)
    plant = plant_section(shape)
    return Scenario(
        id=shape.id,
        title=shape.title,
        tags=tuple(shape.tags),
        requirements=tuple(shape.requirements),
        path=document.path,
        text=text,
        settings=settings,
        tier=shape.tier,
        duration_s=places.seconds(shape.duration, "duration"),
        seed=shape.seed,
        external=shape.plc.kind == "external",
        plant_ref=plant.ref,
        plant_arguments=plant.arguments,
        scan_s=scan_time_s(shape, places),
        loops=loops,
        indicators=shape.plc.indicators,
        noise={
            tag: places.value(sigma, _unit(settings, tag, places), "plc", "noise", tag, spread="")
            for tag, sigma in shape.plc.noise.items()
        },
        profiles=resolve_profiles(shape, places),
        labs=tuple(_labs(shape.lab, settings, places)),
        commands=resolve_commands(shape, places),
        faults=resolve_faults(shape, settings, places),
        solver_faults=tuple(
            resolve_solver_fault(i, section, places)
            for i, section in enumerate(shape.solver_faults)
        ),
        economics=_economics(shape.economics, places),
        judge_from_s=places.seconds(shape.judge_from, "judge_from"),
        violation_tolerance=shape.violation_tolerance,
        assertions=(*_assertions(shape, places), *_budgets(shape.budgets, places)),
        bounds=bounds,
        temporal=temporal,
        mode_trace=tuple(shape.mode_trace),
        golden=_golden(shape.golden, document.path, places),
        speed=shape.clock.speed,
        mismatch=plant.mismatch,
        x0=plant.x0,
        variant=variant,
        awl=resolve_awl(shape, settings, document.path.parent, places),
    )


def _assertions(shape: ScenarioFile, places: Places) -> list[Assertion]:
    """Those about KPIs."""
    found: list[Assertion] = []
    for i, assertion in enumerate(shape.assertions):
        if not assertion.kpi:
            continue
        known = any(
            assertion.kpi == name or (name.endswith((".", "_")) and assertion.kpi.startswith(name))
            for name in KPI_NAMES
        )
        if not known:
            raise ScenarioError(
                f"there is no KPI {assertion.kpi}",
                where=places.where("assertions", i, "kpi"),
                mend=suggestion(assertion.kpi, KPI_NAMES),
            )
        _something_asserted(assertion, assertion.kpi, i, places)
        found.append(Assertion(assertion.kpi, assertion.low, assertion.high, assertion.severity))
    return found


def _judgements(
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
            begin = places.seconds(assertion.begin, *here, "from")
            end = assertion.until
            until_s = float("inf") if end is None else places.seconds(end, *here, "until")
            bounds.append(
                Bound(
                    assertion.bound,
                    assertion.low,
                    assertion.high,
                    begin,
                    until_s,
                    assertion.severity,
                )
            )
        elif assertion.temporal:
            _formula(assertion.temporal, places.where(*here, "temporal"))
            formulas.append(Temporal(assertion.temporal, assertion.severity))
    return tuple(bounds), tuple(formulas)


def _something_asserted(
    assertion: AssertionSection, about: str, number: int, places: Places
) -> None:
    if assertion.low is None and assertion.high is None:
        raise ScenarioError(
            f"nothing is asserted of {about}",
            where=places.where("assertions", number),
            mend="Add low, high or both",
        )


def _formula(text: str, where: str) -> None:
    """Refuses a formula that cannot be read before anything runs."""
    try:
        parse(text)
    except ScenarioError as error:
        raise ScenarioError(error.what, where=f"{where} {error.where}", mend=error.mend) from error


def _budgets(section: BudgetsSection, places: Places) -> list[Assertion]:
    """Limits on time: each is an assertion on the KPI of that name."""
    wall = section.wall
    limits = {
        "solve_ms_p99": section.solve_ms_p99,
        "cycle_ms_p99": section.cycle_ms_p99,
        "jitter_ms_p99": section.jitter_ms_p99,
        "wall_s": None if wall is None else places.seconds(wall, "budgets", "wall"),
    }
    return [Assertion(kpi, None, high, "fail") for kpi, high in limits.items() if high is not None]


def _golden(section: GoldenSection | None, path: Path, places: Places) -> Golden | None:
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

    return Golden(
        file=Path(normpath(path.parent / section.file)),
        tubes=tubes("signals", section.signals),
        bands=tubes("kpis", section.kpis),
        ignore=tuple(section.ignore),
    )


def _unit(settings: Settings, tag: str, places: Places) -> str:
    if tag not in settings.tags:
        raise ScenarioError(
            f"the application has no tag {tag}",
            where=places.where("plc", "noise", tag),
            mend=f"Use one of: {', '.join(settings.tags)}",
        )
    return settings.tags[tag].unit


def _loop(name: str, section: LoopSection, settings: Settings, places: Places) -> SlaveLoop:
    mv = next((mv for mv in settings.manipulated if mv.name == name), None)
    if mv is None:
        raise ScenarioError(
            f"the application manipulates no {name}",
            where=places.where("plc", "loops", name),
            mend=f"It manipulates {', '.join(m.name for m in settings.manipulated)}",
        )
    here = ("plc", "loops", name)
    unit = settings.tags[mv.setpoint].unit
    low, high = (places.value(v, unit, *here, "setpoint_range") for v in section.setpoint_range)
    rate = places.value(section.setpoint_rate, unit, *here, "setpoint_rate", spread="s")
    tuning = _tuning(section, places, name)
    if not low < high or not rate > 0.0:
        raise ScenarioError(
            f"no setpoint moves in [{low:g}, {high:g}] {unit} at {rate:g} a second",
            where=places.where(*here, "setpoint_range" if not low < high else "setpoint_rate"),
            mend="Write the lower end first, and a rate above 0",
        )
    return SlaveLoop(
        name=name,
        setpoint=mv.setpoint,
        request=mv.request,
        in_use=mv.in_use,
        mode=mv.mode,
        saturation=mv.saturation,
        pv=section.pv,
        output=section.output,
        measures=section.measures,
        drives=section.drives,
        tuning=tuning,
        setpoint_low=low,
        setpoint_high=high,
        setpoint_rate_per_s=rate,
        start_setpoint=places.value(section.start, unit, *here, "start"),
        fallback=None
        if section.fallback is None
        else places.value(section.fallback, unit, *here, "fallback"),
    )


def _tuning(section: LoopSection, places: Places, name: str) -> PidTuning:
    here = ("plc", "loops", name)
    reset_s = places.seconds(section.reset, *here, "reset")
    rate_s = places.seconds(section.rate_time, *here, "rate_time")
    low, high = section.output_range
    try:
        return PidTuning(section.gain, reset_s, low, high, rate_s, section.action)
    except ValueError as error:
        raise ScenarioError(
            str(error), where=places.where(*here), mend="Correct the tuning of this loop"
        ) from error


def _labs(
    sections: Mapping[str, LabSection], settings: Settings, places: Places
) -> Sequence[LabSettings]:
    found: list[LabSettings] = []
    for name, section in sections.items():
        if name not in settings.quality:
            raise ScenarioError(
                f"the application has no quality source {name}",
                where=places.where("lab", name),
                mend=f"It has: {', '.join(settings.quality) or 'none'}",
            )
        low, high = (places.seconds(d, "lab", name, "delay") for d in section.delay)
        found.append(
            LabSettings(
                source=name,
                every_s=places.seconds(section.every, "lab", name, "every"),
                delay_s=(low, high),
                sigma=settings.quality[name].sigma,
                first_s=places.seconds(section.first, "lab", name, "first"),
                drop=section.drop,
                outlier=section.outlier,
            )
        )
    return found


def _economics(section: EconomicsSection | None, places: Places) -> Economics | None:
    if section is None:
        return None
    before = [places.seconds(v, "economics", "before") for v in section.before]
    end = [places.seconds(v, "economics", "end") for v in section.end]
    optimum = section.optimum or OptimumSection(ref="-")
    return Economics(
        profit=section.profit,
        unit=section.unit,
        throughput=section.throughput,
        before_s=(before[0], before[1]),
        end_s=(end[0], end[1]),
        optimum_ref="" if optimum.ref == "-" else optimum.ref,
        optimum_arguments=optimum.arguments,
        optimum_inputs=tuple(optimum.inputs),
        energy=section.energy,
    )
