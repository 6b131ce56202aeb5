"""The raw shape of a scenario file: what may stand where, before anything is resolved."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.settings.schema import Quantity, Text
from controller.signal import CommandKind
from hil.solver_faults import Rung, SolverFaultKind


class Section(BaseModel):
    """A section that takes no unknown key."""

    model_config = ConfigDict(extra="forbid")


class PlantSection(Section):
    """The plant: factory and arguments."""

    ref: Text
    arguments: dict[str, Any] = Field(default_factory=dict)


class LoopSection(Section):
    """A loop of the virtual PLC, named after the MV whose slave it is."""

    measures: Text
    drives: Text
    pv: Text
    output: str = ""
    gain: float = Field(gt=0)
    reset: Quantity
    rate_time: Quantity = 0.0
    action: Literal["reverse", "direct"] = "reverse"
    output_range: list[float] = Field(min_length=2, max_length=2)
    setpoint_range: list[Quantity] = Field(min_length=2, max_length=2)
    setpoint_rate: Quantity
    start: Quantity
    fallback: Quantity | None = None


class PlcSection(Section):
    """The virtual PLC."""

    kind: Literal["virtual"] = "virtual"
    scan: Quantity
    loops: dict[str, LoopSection]
    indicators: dict[str, str] = Field(default_factory=dict)
    noise: dict[str, Quantity] = Field(default_factory=dict)


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
    value: float | None = None
    text: str = ""


class FaultSection(Section):
    """A fault; see `hil.faults` for types and arguments."""

    at: Quantity
    until: Quantity
    target: Text
    type: Text
    args: dict[str, float] = Field(default_factory=dict)


class SolverFaultSection(Section):
    """A rung of the solve ladder that fails; see `hil.faulty_solvers` for what each kind does."""

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
    before: list[Quantity] = Field(min_length=2, max_length=2)
    end: list[Quantity] = Field(min_length=2, max_length=2)
    optimum: OptimumSection | None = None


class AssertionSection(Section):
    """A KPI and its limits."""

    kpi: Text
    low: float | None = None
    high: float | None = None
    severity: Literal["fail", "warn"] = "fail"


class ScenarioFile(Section):
    """The raw shape of a scenario file."""

    scenario: Literal[1]
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    title: Text
    tags: list[str] = Field(default_factory=list)
    requirements: list[str] = Field(default_factory=list)
    application: Text
    overrides: dict[str, Any] = Field(default_factory=dict)
    tier: Literal["virtual", "wire"] = "wire"
    duration: Quantity
    seed: int = 1
    plant: PlantSection
    plc: PlcSection
    profiles: list[ProfileSection] = Field(default_factory=list)
    lab: dict[str, LabSection] = Field(default_factory=dict)
    commands: list[CommandSection] = Field(default_factory=list)
    faults: list[FaultSection] = Field(default_factory=list)
    solver_faults: list[SolverFaultSection] = Field(default_factory=list)
    economics: EconomicsSection | None = None
    judge_from: Quantity = 0.0
    violation_tolerance: float = 0.0
    assertions: list[AssertionSection] = Field(min_length=1)
