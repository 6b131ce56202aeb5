"""One application as the rest of the controller sees it: every name checked, every number in place.

Plain data. Numbers that belong to a variable of the process model are in the unit of that
variable, times are in seconds, and a tag bound to a variable is scaled to the variable's unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from controller.mpc.tree import ParameterSet
from controller.signal import Tag
from plant_models.process import ProcessModel

ConnectionType = Literal["PG", "OP", "BASIC"]
Parity = Literal["N", "E", "O"]
DisturbanceKind = Literal["output", "input", "state"]
EstimatorKind = Literal["kalman", "ekf", "moving_horizon"]
Rearm = Literal["auto", "operator"]
Method = Literal["modifier_adaptation_gp"]
Currency = Literal["EUR", "USD", "GBP", "CHF", "JPY", "CNY"]

Position = tuple[int, int]
"""Line and column of a value in its file, both counted from 1."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """Tags by which controller and PLC watch each other, all on one device.

    The controller writes `heartbeat`, `sequence` and `epoch`; the PLC answers with the echoes.
    """

    heartbeat: str
    sequence: str
    heartbeat_echo: str
    epoch: str | None = None
    sequence_echo: str | None = None


@dataclass(frozen=True, slots=True)
class S7Device:
    """A Siemens PLC reached by classic S7 communication over TCP."""

    name: str
    host: str
    port: int = 102
    rack: int = 0
    slot: int = 1
    timeout_s: float = 0.3
    connection_type: ConnectionType = "PG"
    handshake: Handshake | None = None


@dataclass(frozen=True, slots=True)
class ModbusTcpDevice:
    """A Modbus TCP server.

    Attributes:
        max_gap: so many unused registers at most are read to save a request.
        forbidden: addresses first … last (0-based, included) that no request may touch.
    """

    name: str
    host: str
    port: int = 502
    unit: int = 1
    timeout_s: float = 0.3
    max_gap: int = 10
    forbidden: tuple[tuple[int, int], ...] = ()
    handshake: Handshake | None = None


@dataclass(frozen=True, slots=True)
class ModbusRtuDevice:
    """A Modbus server on a serial line; `port` is the path of the line, the rest as in TCP."""

    name: str
    port: str
    baudrate: int = 19200
    parity: Parity = "E"
    unit: int = 1
    timeout_s: float = 0.5
    max_gap: int = 10
    forbidden: tuple[tuple[int, int], ...] = ()
    handshake: Handshake | None = None


Device = S7Device | ModbusTcpDevice | ModbusRtuDevice


@dataclass(frozen=True, slots=True)
class Measured:
    """A model output that a tag measures every cycle; `sigma` is its noise, in its unit."""

    output: str
    tag: str
    sigma: float
    critical: bool


@dataclass(frozen=True, slots=True)
class Feedforward:
    """A measured disturbance of the model: read, never moved."""

    input: str
    tag: str
    critical: bool


@dataclass(frozen=True, slots=True)
class Manipulated:
    """A model input moved by writing the setpoint of a PLC loop. Limits in the input's unit.

    Attributes:
        input: name in `model.u`.
        setpoint, request: tags written.
        in_use, mode, saturation: tags read.
        low, high, rate_per_s: limits on the setpoint and on its change per second.
        move_suppression, target_weight: weights of a move and of the distance to the target.
        target: resting value, None where the MV may rest anywhere.
        price: per unit of the input and hour, in the currency of the application.
    """

    name: str
    input: str
    setpoint: str
    request: str
    in_use: str
    mode: str
    saturation: str
    low: float
    high: float
    rate_per_s: float
    move_suppression: float = 1.0
    target_weight: float = 1.0
    target: float | None = None
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Controlled:
    """A model output kept in a zone or at a setpoint, in the output's unit.

    `measured_by` names a tag (read every cycle) or a quality source. With a setpoint, `low` and
    `high` are infinite. Control keeps `margin` away from the limits of a zone. Tuning starts from
    `response_s`, time until 63 % of a step is done, and `gain_uncertainty`, a share.
    """

    output: str
    measured_by: str
    low: float
    high: float
    setpoint: float | None
    weight: float
    margin: float = 0.0
    rank: int = 1
    price: float = 0.0
    approach_s: float = 0.0
    ramp_s: float = 0.0
    on_failure: Literal["predict", "drop", "critical"] = "predict"
    predict_for_s: float = 0.0
    response_s: float | None = None
    gain_uncertainty: float = 0.2


@dataclass(frozen=True, slots=True)
class Lab:
    """A laboratory: which outputs it measures, how well (`sigma`, in their units), how late.

    When it is critical, control needs a result whose sample is younger than `stale_after_s`.
    """

    name: str
    kind: Literal["lab"]
    sigma: Mapping[str, float]
    delay_max_s: float
    gate: float
    stale_after_s: float
    critical: bool = True


@dataclass(frozen=True, slots=True)
class Disturbance:
    """An integrating disturbance; `walk` is its drift, in the variable's unit per √hour."""

    on: str
    kind: DisturbanceKind
    walk: float


@dataclass(frozen=True, slots=True)
class EstimatorSettings:
    """How the unknown is estimated.

    Attributes:
        states: process noise of named states, in their unit per √hour.
        disturbances: integrating ones.
        window, iterations: of the moving horizon, in cycles and in Gauss–Newton steps.
    """

    states: Mapping[str, float]
    disturbances: tuple[Disturbance, ...]
    kind: EstimatorKind = "ekf"
    window: int = 10
    iterations: int = 6


@dataclass(frozen=True, slots=True)
class RobustSettings:
    """A scenario tree over parameter sets, the nominal one among them where it counts; `horizon`:
    intervals at whose start it branches."""

    horizon: int
    sets: tuple[ParameterSet, ...]


@dataclass(frozen=True, slots=True)
class MpcSettings:
    """`horizon` intervals of `step_s`; solver budget in iterations: SQP, then IPOPT; `blocks`:
    intervals between the moves; `engine`: whether the first rung is compiled."""

    step_s: float
    horizon: int
    plan_age_max: int
    iterations: tuple[int, int]
    blocks: tuple[int, ...] = ()
    economics: float = 0.0
    terminal: Literal["none", "lqr"] = "none"
    engine: Literal["compiled", "portable"] = "compiled"
    robust: RobustSettings | None = None


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """The slow layer: what it maximises and how far it may step.

    Attributes:
        maximise: arithmetic expression in outputs, disturbances, inputs, parameters and MVs.
        unit: of the expression, for display.
        quality: the source whose results confirm a steady point.
        sigma: noise of the expression, in `unit`.
        backoff: by controlled output, distance kept from its limits, in its unit.
        trust_region, probe: by MV name, largest step and first probing step, in its unit.
        points: how many the Gaussian process remembers.
        settle_s: no sample counts as steady before that.
    """

    method: Method
    maximise: str
    unit: str
    quality: str
    sigma: float
    backoff: Mapping[str, float]
    trust_region: Mapping[str, float]
    probe: Mapping[str, float]
    points: int
    settle_s: float


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """How many cycles a doubt may last, and who may leave SHED."""

    watchdog_cycles: int = 3
    hold_cycles: int = 6
    ready_cycles: int = 4
    rearm: Rearm = "operator"


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """One application, resolved against its process model.

    Attributes:
        path, text: the file and its raw text; `overrides` were laid over it.
        positions: by path (`tags.TR.PV.address`, `measured[0].sigma`), line and column.
    """

    name: str
    path: Path
    text: str
    cycle_s: float
    data_dir: Path
    devices: Mapping[str, Device]
    tags: Mapping[str, Tag]
    model: ProcessModel
    model_ref: str
    measured: tuple[Measured, ...]
    feedforward: tuple[Feedforward, ...]
    manipulated: tuple[Manipulated, ...]
    controlled: tuple[Controlled, ...]
    quality: Mapping[str, Lab]
    estimator: EstimatorSettings
    mpc: MpcSettings
    optimizer: OptimizerSettings | None
    guard: GuardSettings
    currency: Currency = "EUR"
    overrides: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    positions: Mapping[str, Position] = field(default_factory=lambda: MappingProxyType({}))

    def where(self, path: str) -> str:
        """`file:line:column` of a value, or of the nearest section around it that is written."""
        while path and path not in self.positions:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        line, column = self.positions.get(path, (1, 1))
        return f"{self.path}:{line}:{column}"

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.devices)} devices, {len(self.tags)} tags, "
            f"{len(self.manipulated)} MVs, {len(self.controlled)} CVs, every {self.cycle_s:g} s; "
            f"{self.model}"
        )
