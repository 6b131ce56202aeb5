"""Everything about an application that does not change between cycles, ready to compute with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.cycle.guard import GuardedDevice, GuardedMv
from controller.cycle.mode import ModeRules
from controller.estimation.delayed import DelayedFilter
from controller.mpc.ladder import Ladder
from controller.mpc.problem import ControlledVariable, ManipulatedVariable
from controller.mpc.target import TargetCalculation
from controller.signal import Tag
from plant_models.process import ProcessModel


@dataclass(frozen=True, slots=True)
class MeasuredOutput:
    """An output of the model that a tag measures every cycle."""

    output: int
    tag: str
    sigma: float
    critical: bool


@dataclass(frozen=True, slots=True)
class MeasuredDisturbance:
    """A measured disturbance of the model and its tag."""

    input: int
    tag: str
    critical: bool


@dataclass(frozen=True, slots=True)
class SlaveLoop:
    """The tags through which the PLC tells about an MV's slave loop; `target` is where it rests
    without a proposal, or None."""

    mv: str
    in_use: str
    mode: str
    saturation: str
    target: float | None


@dataclass(frozen=True, slots=True)
class QualitySource:
    """A late measurement: output indices and sigmas by the names that its results use.

    A critical one puts control in doubt when its newest usable sample is older than
    `stale_after_s`; missing results mean no information, never that all is well.
    """

    name: str
    outputs: Mapping[str, int]
    sigma: Mapping[str, float]
    delay_max_s: float
    gate: float
    stale_after_s: float
    critical: bool


@dataclass(frozen=True, slots=True)
class Link:
    """The heartbeat echo of a device that takes our frames."""

    device: str
    heartbeat_echo: str


@dataclass(frozen=True, slots=True, eq=False)
class Application:
    """The wiring and the compiled computations of one application; immutable.

    Attributes:
        tags: every tag that is read, validated each cycle.
        watchdog_cycles: heartbeat echo standing still that long puts the link in doubt.
        epoch: number of this start of the controller, sent to the PLC.
    """

    name: str
    cycle_s: float
    model: ProcessModel
    tags: tuple[Tag, ...]
    measured: tuple[MeasuredOutput, ...]
    disturbances: tuple[MeasuredDisturbance, ...]
    loops: tuple[SlaveLoop, ...]
    sources: Mapping[str, QualitySource]
    links: tuple[Link, ...]
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    guarded_mvs: tuple[GuardedMv, ...]
    guarded_devices: tuple[GuardedDevice, ...]
    rules: ModeRules
    watchdog_cycles: int
    filter: DelayedFilter
    target: TargetCalculation
    ladder: Ladder
    epoch: int

    @property
    def critical_tags(self) -> tuple[str, ...]:
        return tuple(m.tag for m in (*self.measured, *self.disturbances) if m.critical)

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.tags)} tags read every {self.cycle_s:g} s, "
            f"{len(self.mvs)} MVs, {len(self.cvs)} CVs; {self.ladder.transcription}"
        )
