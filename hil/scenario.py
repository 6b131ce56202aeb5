"""A scenario: plant, PLC, laboratory, faults, story and verdict of one hardware-in-the-loop run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from controller.errors import ScenarioError, SettingsError
from controller.settings import Settings, load
from controller.settings.problems import suggestion
from controller.settings.yaml_core import Document, decode, read, written
from controller.signal import CommandKind
from hil.faults import Fault
from hil.kpi_names import KPI_NAMES
from hil.lab import LabSettings
from hil.pid import PidTuning
from hil.scenario_file import (
    EconomicsSection,
    LabSection,
    LoopSection,
    OptimumSection,
    ScenarioFile,
    SolverFaultSection,
)
from hil.scenario_places import Places
from hil.solver_faults import SolverFault
from hil.virtual_plc import SlaveLoop

Tier = Literal["virtual", "wire", "realtime"]
TIERS: tuple[Tier, ...] = ("virtual", "wire")


@dataclass(frozen=True, slots=True)
class Profile:
    """A plant input that goes to a new value, from at_s on within over_s."""

    input: str
    at_s: float
    to: float
    over_s: float


@dataclass(frozen=True, slots=True)
class ScheduledCommand:
    at_s: float
    kind: CommandKind
    target: str
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Economics:
    """How money is counted: expressions over true plant outputs and inputs.

    `before` and `end` are the windows, in scenario seconds, over which profit is averaged.
    `optimum_inputs` are plant inputs handed to the optimum by name.
    """

    profit: str
    unit: str
    throughput: str
    before_s: tuple[float, float]
    end_s: tuple[float, float]
    optimum_ref: str
    optimum_arguments: Mapping[str, Any]
    optimum_inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assertion:
    """A KPI and the limits it must keep; `warn` does not fail the verdict."""

    kpi: str
    low: float | None
    high: float | None
    severity: Literal["fail", "warn"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, checked and with every time in seconds."""

    id: str
    title: str
    tags: tuple[str, ...]
    requirements: tuple[str, ...]
    path: Path
    text: str
    settings: Settings
    tier: Tier
    duration_s: float
    seed: int
    plant_ref: str
    plant_arguments: Mapping[str, Any]
    scan_s: float
    loops: tuple[SlaveLoop, ...]
    indicators: Mapping[str, str]
    noise: Mapping[str, float]
    profiles: tuple[Profile, ...]
    labs: tuple[LabSettings, ...]
    commands: tuple[ScheduledCommand, ...]
    faults: tuple[Fault, ...]
    solver_faults: tuple[SolverFault, ...]
    economics: Economics | None
    judge_from_s: float
    violation_tolerance: float
    assertions: tuple[Assertion, ...]

    @property
    def cycles(self) -> int:
        return round(self.duration_s / self.settings.cycle_s)

    def __str__(self) -> str:
        faults = len(self.faults) + len(self.solver_faults)
        return (
            f"{self.id}: {self.title}; {self.duration_s / 3600:g} h in {self.cycles} cycles, "
            f"tier {self.tier}, seed {self.seed}, {faults} faults"
        )


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario and the application it names.

    Raises:
        ScenarioError: the file is missing or wrong, with file:line:column and the mend.
        SettingsError: the application's file is wrong.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ScenarioError(
            f"cannot be read: {error.strerror}", where=str(path), mend="Check the path"
        ) from error
    try:
        text = decode(path, raw)
        document = read(path, text)
    except SettingsError as error:
        raise ScenarioError(error.what, where=error.where, mend=error.mend) from error
    try:
        shape = ScenarioFile.model_validate(document.data)
    except ValidationError as error:
        raise _shape_error(document, error) from error
    return _resolve(shape, document, text)


def _shape_error(document: Document, error: ValidationError) -> ScenarioError:
    found = error.errors(include_url=False)
    # A misspelt key is both unknown and missing: it is told as what was written.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    place = first["loc"]
    missing = first["type"] == "missing"
    line, column = document.position(place[:-1] if missing else place, of_key=True)
    where = f"{document.path}:{line}:{column} {written(place)}"
    if missing:
        return ScenarioError("a value is missing", where=where, mend=f"Add {place[-1]}")
    if first["type"] == "extra_forbidden":
        return ScenarioError("unknown key", where=where, mend="Remove it, or correct its name")
    return ScenarioError(
        f"found {first['input']!r}, which does not fit here ({first['msg'].lower()})",
        where=where,
        mend="Correct the value",
    )


def _resolve(shape: ScenarioFile, document: Document, text: str) -> Scenario:
    places = Places(document)
    application = Path(normpath(document.path.parent / shape.application))
    settings = load(application, shape.overrides)
    _check_assertions(shape, places)
    loops = tuple(
        _loop(name, section, settings, places) for name, section in shape.plc.loops.items()
    )
    missing = [mv.name for mv in settings.manipulated if mv.name not in shape.plc.loops]
    if missing:
        raise ScenarioError(
            f"the PLC has no loop for the manipulated variable {', '.join(missing)}",
            where=places.where("plc", "loops"),
            mend="Add one of that name",
        )
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
        plant_ref=shape.plant.ref,
        plant_arguments=shape.plant.arguments,
        scan_s=places.seconds(shape.plc.scan, "plc", "scan"),
        loops=loops,
        indicators=shape.plc.indicators,
        noise={
            tag: places.value(sigma, _unit(settings, tag, places), "plc", "noise", tag, spread="")
            for tag, sigma in shape.plc.noise.items()
        },
        profiles=tuple(
            Profile(
                p.input,
                places.seconds(p.at, "profiles", i, "at"),
                p.to,
                places.seconds(p.over, "profiles", i, "over"),
            )
            for i, p in enumerate(shape.profiles)
        ),
        labs=tuple(_labs(shape.lab, settings, places)),
        commands=tuple(
            ScheduledCommand(
                places.seconds(c.at, "commands", i, "at"), c.kind, c.target, c.value, c.text
            )
            for i, c in enumerate(shape.commands)
        ),
        faults=tuple(
            Fault(
                places.seconds(f.at, "faults", i, "at"),
                places.seconds(f.until, "faults", i, "until"),
                f.target,
                f.type,
                f.args,
            )
            for i, f in enumerate(shape.faults)
        ),
        solver_faults=tuple(
            _solver_fault(i, section, places) for i, section in enumerate(shape.solver_faults)
        ),
        economics=_economics(shape.economics, places),
        judge_from_s=places.seconds(shape.judge_from, "judge_from"),
        violation_tolerance=shape.violation_tolerance,
        assertions=tuple(Assertion(a.kpi, a.low, a.high, a.severity) for a in shape.assertions),
    )


def _check_assertions(shape: ScenarioFile, places: Places) -> None:
    for i, assertion in enumerate(shape.assertions):
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
        if assertion.low is None and assertion.high is None:
            raise ScenarioError(
                f"nothing is asserted of {assertion.kpi}",
                where=places.where("assertions", i),
                mend="Add low, high or both",
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
        tuning=PidTuning(
            gain=section.gain,
            reset_s=places.seconds(section.reset, *here, "reset"),
            output_low=section.output_range[0],
            output_high=section.output_range[1],
            rate_s=places.seconds(section.rate_time, *here, "rate_time"),
            action=section.action,
        ),
        setpoint_low=low,
        setpoint_high=high,
        setpoint_rate_per_s=places.value(
            section.setpoint_rate, unit, *here, "setpoint_rate", spread="s"
        ),
        start_setpoint=places.value(section.start, unit, *here, "start"),
        fallback=None
        if section.fallback is None
        else places.value(section.fallback, unit, *here, "fallback"),
    )


def _solver_fault(number: int, section: SolverFaultSection, places: Places) -> SolverFault:
    here = ("solver_faults", number)
    return SolverFault(
        places.seconds(section.at, *here, "at"),
        places.seconds(section.until, *here, "until"),
        section.solver,
        section.kind,
        places.seconds(section.delay, *here, "delay"),
        places.where(*here),
    )


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
    )
