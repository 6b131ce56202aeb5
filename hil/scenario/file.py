"""The raw shape of a scenario file: what may stand where, before anything is resolved."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.settings.schema import Quantity, Text
from controller.signal import CommandKind
from hil.faults.json_schema import add_fault_types
from hil.faults.solver import Rung, SolverFaultKind
from hil.seeds import SEED_MAX


class Section(BaseModel):
    """A section that takes no unknown key."""

    model_config = ConfigDict(extra="forbid")


class PlantSection(Section):
    """The plant: factory and arguments, factors on its parameters, states to begin in."""

    ref: Text
    arguments: dict[str, Any] = Field(default_factory=dict)
    mismatch: dict[str, float] = Field(default_factory=dict)
    x0: dict[str, float] = Field(default_factory=dict)


class LoopSection(Section):
    """A loop of the virtual PLC, named after the MV whose slave it is."""

    measures: Text
    drives: Text
    pv: Text
    output: str = ""
    gain: float = Field(gt=0, allow_inf_nan=False)
    reset: Quantity
    rate_time: Quantity = 0.0
    action: Literal["reverse", "direct"] = "reverse"
    output_range: list[float] = Field(min_length=2, max_length=2)
    setpoint_range: list[Quantity] = Field(min_length=2, max_length=2)
    setpoint_rate: Quantity
    start: Quantity
    fallback: Quantity | None = None


class AwlInputSection(Section):
    """What a Statement List program reads at an address; `range` is 0 … 27648 of a word."""

    measures: Text
    range: list[float] | None = Field(default=None, min_length=2, max_length=2)
    noise: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class AwlOutputSection(Section):
    """What a Statement List program drives at an address; `range` is 0 … 27648 of a word."""

    drives: Text
    range: list[float] | None = Field(default=None, min_length=2, max_length=2)


PlcKind = Literal["virtual", "awlsim", "external"]


class PlcSection(Section):
    """The PLC: a virtual one with these loops, one that runs a Statement List program with its
    inputs and outputs by address, or one that somebody else runs."""

    kind: PlcKind = "virtual"
    scan: Quantity
    loops: dict[str, LoopSection] = Field(default_factory=dict)
    indicators: dict[str, str] = Field(default_factory=dict)
    noise: dict[str, Quantity] = Field(default_factory=dict)
    program: str = ""
    symbols: str = ""
    inputs: dict[str, Text | AwlInputSection] = Field(default_factory=dict)
    outputs: dict[str, Text | AwlOutputSection] = Field(default_factory=dict)


class ProfileSection(Section):
    """A plant input that moves during the run."""

    input: Text
    at: Quantity
    to: float
    over: Quantity = 0.0


class LabSection(Section):
    """The laboratory behind a quality source."""

    every: Quantity
    first: Quantity = 0.0
    delay: list[Quantity] = Field(min_length=2, max_length=2)
    drop: float = Field(default=0.0, ge=0, le=1)
    outlier: float = Field(default=0.0, ge=0, le=1)


class CommandSection(Section):
    """An operator's command."""

    at: Quantity
    kind: CommandKind
    target: str = ""
    value: Quantity | None = None
    text: str = ""


class FaultSection(Section):
    """A fault; see `hil.faults.kinds` for types and arguments."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=add_fault_types)

    at: Quantity
    until: Quantity
    target: Text
    type: Text
    args: dict[str, Quantity] = Field(default_factory=dict)


class SolverFaultSection(Section):
    """A rung of the solve ladder that fails; `hil.faults.faulty_solvers` says how."""

    at: Quantity
    until: Quantity
    solver: Rung
    kind: SolverFaultKind
    delay: Quantity = 0.0


class OptimumSection(Section):
    """How the plant's true optimum is computed, for comparison only."""

    ref: Text
    arguments: dict[str, Any] = Field(default_factory=dict)
    inputs: list[str] = Field(default_factory=list)


class EconomicsSection(Section):
    """How money is counted."""

    profit: Text
    unit: Text
    throughput: str = ""
    energy: str = ""
    before: list[Quantity] = Field(min_length=2, max_length=2)
    end: list[Quantity] = Field(min_length=2, max_length=2)
    optimum: OptimumSection | None = None


class AssertionSection(Section):
    """A KPI and its limits; or a signal and its limits over a time; or a temporal formula."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    kpi: str = ""
    bound: str = ""
    temporal: str = ""
    low: float | None = None
    high: float | None = None
    begin: Quantity = Field(default=0.0, alias="from")
    until: Quantity | None = None
    severity: Literal["fail", "warn"] = "fail"


class ClockSection(Section):
    """The realtime tier's clock: how much faster than the wall everything lives."""

    speed: float = Field(default=1.0, gt=0, le=1000)


class BudgetsSection(Section):
    """Limits on real time: of solves, cycles and lateness in ms, of the whole run."""

    solve_ms_p99: float | None = Field(default=None, gt=0)
    cycle_ms_p99: float | None = Field(default=None, gt=0)
    jitter_ms_p99: float | None = Field(default=None, gt=0)
    wall: Quantity | None = None


class ToleranceSection(Section):
    """Tolerance around a golden signal or KPI."""

    abs: float = Field(default=0.0, ge=0)
    rel: float = Field(default=0.0, ge=0)
    lead: Quantity = 0.0
    lag: Quantity = 0.0


class GoldenSection(Section):
    """The golden run to be held against, and the tolerances."""

    file: Text
    signals: dict[str, ToleranceSection] = Field(default_factory=dict)
    kpis: dict[str, ToleranceSection] = Field(default_factory=dict)
    ignore: list[str] = Field(default_factory=list)


class ScenarioFile(Section):
    """The raw shape of a scenario file."""

    scenario: Literal[1]
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    title: Text
    tags: list[str] = Field(default_factory=list)
    requirements: list[str] = Field(default_factory=list)
    application: Text
    overrides: dict[str, Any] = Field(default_factory=dict)
    tier: Literal["virtual", "wire", "realtime"] = "wire"
    clock: ClockSection = Field(default_factory=ClockSection)
    duration: Quantity
    seed: int = Field(default=1, ge=0, le=SEED_MAX, strict=True)
    plant: PlantSection | None = None
    plc: PlcSection
    profiles: list[ProfileSection] = Field(default_factory=list)
    lab: dict[str, LabSection] = Field(default_factory=dict)
    commands: list[CommandSection] = Field(default_factory=list)
    faults: list[FaultSection] = Field(default_factory=list)
    solver_faults: list[SolverFaultSection] = Field(default_factory=list)
    economics: EconomicsSection | None = None
    judge_from: Quantity = 0.0
    violation_tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    assertions: list[AssertionSection] = Field(min_length=1)
    mode_trace: list[Literal["OFF", "MANUAL", "INIT", "READY", "ACTIVE", "SHED", "..."]] = Field(
        default_factory=list
    )
    budgets: BudgetsSection = Field(default_factory=BudgetsSection)
    golden: GoldenSection | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
