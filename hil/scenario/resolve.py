"""From the shape of a scenario file to its meaning: names resolved, times in seconds, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import normpath
from pathlib import Path

from controller.errors import ScenarioError, SettingsError
from controller.settings import Settings, load
from controller.settings.yaml_core import Document
from hil.lab import LabSettings
from hil.plc.pid import PidTuning
from hil.plc.virtual import SlaveLoop
from hil.scenario.commands import resolve_commands
from hil.scenario.events import (
    resolve_faults,
    resolve_profiles,
    resolve_solver_fault,
)
from hil.scenario.file import (
    EconomicsSection,
    LabSection,
    LoopSection,
    OptimumSection,
    ScenarioFile,
)
from hil.scenario.judgements import (
    resolve_assertions,
    resolve_budgets,
    resolve_golden,
    resolve_judgements,
)
from hil.scenario.parts import Economics, Scenario
from hil.scenario.places import Places
from hil.scenario.plc_kinds import check_plc, plant_section, resolve_awl, scan_time_s

CYCLES_MAX = 2_000_000
"""In one run: its history takes 1 to 2 kB a cycle."""


def resolve(shape: ScenarioFile, document: Document, text: str, variant: str = "") -> Scenario:
    """The scenario that a file of the right shape describes.

    Raises:
        ScenarioError: a name that nothing answers to, a quantity in a wrong unit, something that
            cannot be combined.
        SettingsError: the application's file is wrong.
    """
    places = Places(document)
    settings = _settings(shape, document, places)
    duration_s = _duration_s(shape, settings, places)
    bounds, temporal = resolve_judgements(shape, places)
    loops = tuple(
        _loop(name, section, settings, places) for name, section in shape.plc.loops.items()
    )
    check_plc(shape, settings, places)
    awl = resolve_awl(shape, settings, document.path.parent, places)
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
        duration_s=duration_s,
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
        commands=resolve_commands(shape, settings, places),
        faults=resolve_faults(shape, settings, places),
        solver_faults=tuple(
            resolve_solver_fault(i, section, places)
            for i, section in enumerate(shape.solver_faults)
        ),
        economics=resolve_economics(shape.economics, places),
        judge_from_s=places.seconds(shape.judge_from, "judge_from"),
        violation_tolerance=shape.violation_tolerance,
        assertions=(*resolve_assertions(shape, places), *resolve_budgets(shape.budgets, places)),
        bounds=bounds,
        temporal=temporal,
        mode_trace=tuple(shape.mode_trace),
        golden=resolve_golden(shape.golden, document.path, places),
        speed=shape.clock.speed,
        mismatch=plant.mismatch,
        x0=plant.x0,
        variant=variant,
        awl=awl,
    )


def _settings(shape: ScenarioFile, document: Document, places: Places) -> Settings:
    """The application, with the scenario's overrides; what is wrong in these is told here."""
    path = Path(normpath(document.path.parent / shape.application))
    if not path.is_file():
        raise ScenarioError(
            f"there is no application {path}",
            where=places.where("application"),
            mend="Write its path relative to this file",
        )
    try:
        return load(path, shape.overrides)
    except SettingsError as error:
        told = tuple(_placed(problem, path, shape.overrides, places) for problem in error.problems)
        first = told[0]
        raise SettingsError(
            first.what, where=first.where, mend=first.mend, problems=told if told[1:] else ()
        ) from error


def _placed(
    problem: SettingsError, path: Path, overrides: Mapping[str, object], places: Places
) -> SettingsError:
    """A problem of the application; one that an override made has its place in the scenario."""
    mark = f"{path} override "
    if not problem.where.startswith(mark):
        return problem
    named = problem.where.removeprefix(mark)
    # The settings count entries of lists that an override may have called by their names.
    last = named.rpartition(".")[2]
    written = next(
        (key for key in overrides if named == key or named.startswith((f"{key}.", f"{key}["))),
        next((key for key in overrides if key.rpartition(".")[2] == last), None),
    )
    place = ("overrides",) if written is None else ("overrides", written)
    what = problem.what if written == named else f"{problem.what} ({named})"
    return SettingsError(what, where=places.where(*place), mend=problem.mend)


def _duration_s(shape: ScenarioFile, settings: Settings, places: Places) -> float:
    duration_s = places.seconds(shape.duration, "duration")
    cycle_s, where = settings.cycle_s, places.where("duration")
    if not duration_s > 0.0:
        raise ScenarioError(
            f"no scenario lasts {duration_s:g} s", where=where, mend="Write a time above 0"
        )
    if round(duration_s / cycle_s) < 1:
        raise ScenarioError(
            f"{duration_s:g} s are no cycle of {cycle_s:g} s",
            where=where,
            mend="Let it last a cycle at least",
        )
    if duration_s / cycle_s > CYCLES_MAX:
        raise ScenarioError(
            f"{duration_s:g} s are {duration_s / cycle_s:.3g} cycles of {cycle_s:g} s, and no more "
            f"than {CYCLES_MAX} are kept in memory",
            where=where,
            mend="Correct its unit, or make several scenarios of it",
        )
    return duration_s


def check_clock(shape: ScenarioFile, document: Document) -> None:
    """Raises ScenarioError for a speed that the tier of the file does not have."""
    if shape.clock.speed != 1.0 and shape.tier != "realtime":
        raise ScenarioError(
            f"the {shape.tier} tier runs as fast as it can, so a speed means nothing there",
            where=Places(document).where("clock", "speed"),
            mend="Remove it, or write tier: realtime",
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
        with places.told_at("lab", name):
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


def resolve_economics(section: EconomicsSection | None, places: Places) -> Economics | None:
    """How money is counted; needs nothing else of the scenario."""
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
