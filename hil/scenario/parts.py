"""What a scenario consists of, checked and with every time in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from controller.settings import Settings
from controller.signal import CommandKind
from hil.faults.schedule import KINDS, Fault
from hil.faults.solver import SolverFault
from hil.lab import LabSettings
from hil.plc.awl_wiring import AwlWiring
from hil.plc.virtual import SlaveLoop

Tier = Literal["virtual", "wire", "realtime"]
TIERS: tuple[Tier, ...] = ("virtual", "wire", "realtime")
Severity = Literal["fail", "warn"]
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


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
    `optimum_inputs` are plant inputs handed to the optimum by name. `energy` is the power used,
    whose integral is divided by the mass of in-spec product.
    """

    profit: str
    unit: str
    throughput: str
    before_s: tuple[float, float]
    end_s: tuple[float, float]
    optimum_ref: str
    optimum_arguments: Mapping[str, Any]
    optimum_inputs: tuple[str, ...]
    energy: str = ""


@dataclass(frozen=True, slots=True)
class Assertion:
    """A KPI and the limits it must keep; `warn` does not fail the verdict."""

    kpi: str
    low: float | None
    high: float | None
    severity: Severity


@dataclass(frozen=True, slots=True)
class Bound:
    """A signal of the history that stays between low and high from from_s until until_s."""

    signal: str
    low: float | None
    high: float | None
    from_s: float
    until_s: float
    severity: Severity


@dataclass(frozen=True, slots=True)
class Temporal:
    """A formula of signal temporal logic over the history, see `hil.temporal.evaluate`."""

    formula: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Tube:
    """How far a signal may be from the golden run's: the wider of abs and rel of the value.

    Anywhere between lead_s before and lag_s after counts, so that a shift in time is no error.
    """

    absolute: float = 0.0
    relative: float = 0.0
    lead_s: float = 0.0
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden run that this one is held against.

    Attributes:
        file: where it lies.
        tubes: per signal of the history.
        bands: per KPI, absolute and relative tolerance.
        ignore: signals and KPIs that are kept in the file and not compared.
        where: the file is named in the scenario.
    """

    file: Path
    tubes: Mapping[str, Tube]
    bands: Mapping[str, Tube]
    ignore: tuple[str, ...]
    where: str = field(default="golden", compare=False)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, checked and with every time in seconds.

    Attributes:
        external: somebody else runs the PLCs; there is no plant here.
        awl: the Statement List program that is the PLC; None where it is another kind of PLC.
        text: of the file it can be run from again: as read, or as changed.
        speed: how much faster than the wall clock plant and controller live in the realtime tier.
        mismatch: factors on the nominal parameters of the plant.
        x0: states in which the plant begins, where not at rest.
        mode_trace: modes that are gone through, in this order.
        variant: which values of the matrix these are, without the seed.
        changes: what was laid over the file, by dotted path.
    """

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
    external: bool
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
    bounds: tuple[Bound, ...] = ()
    temporal: tuple[Temporal, ...] = ()
    mode_trace: tuple[str, ...] = ()
    golden: Golden | None = None
    speed: float = 1.0
    mismatch: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    x0: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    variant: str = ""
    awl: AwlWiring | None = None
    changes: Mapping[str, object] = field(default_factory=lambda: _NOTHING)

    @property
    def has_host_faults(self) -> bool:
        """Whether the control process itself is disturbed, so that it must be a process."""
        return any(KINDS[fault.type].lane == "host" for fault in self.faults)

    @property
    def name(self) -> str:
        """Its id, and which variant of its matrix it is."""
        return f"{self.id}[{self.variant}]" if self.variant else self.id

    @property
    def cycles(self) -> int:
        return round(self.duration_s / self.settings.cycle_s)

    def __str__(self) -> str:
        faults = len(self.faults) + len(self.solver_faults)
        return (
            f"{self.name}: {self.title}; {self.duration_s / 3600:g} h in {self.cycles} cycles, "
            f"tier {self.tier}, seed {self.seed}, {faults} faults"
        )
