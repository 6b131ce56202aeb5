"""The shape of an application file: which keys there are, what they mean, what they may hold.

The JSON Schema for editors is generated from these models, so the docstrings of the fields are
what an engineer reads while typing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.settings.application import (
    ConnectionType,
    Currency,
    DisturbanceKind,
    EstimatorKind,
    Method,
    Parity,
    Rearm,
)
from controller.settings.model_sections import ModelSection
from controller.settings.schema_types import (
    STRICT,
    AddressPair,
    Count,
    Number,
    Pair,
    Port,
    Quantity,
    Text,
    UnitId,
    Weight,
)
from controller.signal import Access, ByteOrder


class Section(BaseModel):
    """One section of the file."""

    model_config = STRICT


class HandshakeSection(Section):
    """Tags by which controller and PLC watch each other. All on this device."""

    heartbeat: Text
    """Written: +1 every cycle. When it stands still, the PLC takes its loops back."""
    sequence: Text
    """Written: number of the frame."""
    heartbeat_echo: Text
    """Read: the heartbeat that the PLC saw last."""
    epoch: Text | None = None
    """Written: number of the run of the controller."""
    sequence_echo: Text | None = None
    """Read: the sequence that the PLC took last."""


class S7Section(Section):
    """A Siemens PLC by classic S7 communication (PUT/GET, non-optimized data blocks)."""

    driver: Literal["s7"]
    """The protocol."""
    host: Text
    """Name or IP address."""
    port: Port = 102
    """TCP port."""
    rack: Annotated[int, Field(ge=0, le=7)] = 0
    """Rack of the CPU."""
    slot: Annotated[int, Field(ge=0, le=31)] = 1
    """Slot of the CPU: 1 for S7-1200/1500, 2 for S7-300."""
    timeout: Quantity = "300 ms"
    """Longest wait for one answer."""
    connection_type: ConnectionType = "PG"
    """Kind of connection resource that the PLC spends on us."""
    handshake: HandshakeSection | None = None
    """Heartbeat and echoes; needed where an MV is written."""


class ModbusSection(Section):
    """A device by Modbus TCP."""

    driver: Literal["modbus"]
    """The protocol."""
    host: Text
    """Name or IP address."""
    port: Port = 502
    """TCP port."""
    unit: UnitId = 1
    """Unit identifier."""
    timeout: Quantity = "300 ms"
    """Longest wait for one answer."""
    max_gap: Annotated[int, Field(ge=0, le=120)] = 10
    """Unused registers that may be read to save a request."""
    forbidden: list[AddressPair] = []
    """Addresses [first, last], counted from 0, that no request may touch."""
    handshake: HandshakeSection | None = None
    """Heartbeat and echoes; needed where an MV is written."""


class ModbusRtuSection(Section):
    """A device by Modbus RTU on a serial line."""

    driver: Literal["modbus-rtu"]
    """The protocol."""
    port: Text
    """The serial line, e.g. /dev/ttyUSB0."""
    baudrate: Annotated[int, Field(ge=300, le=4_000_000)] = 19200
    """Bits per second."""
    parity: Parity = "E"
    """N none, E even, O odd."""
    unit: UnitId = 1
    """Address of the device on the line."""
    timeout: Quantity = "500 ms"
    """Longest wait for one answer."""
    max_gap: Annotated[int, Field(ge=0, le=120)] = 10
    """Unused registers that may be read to save a request."""
    forbidden: list[AddressPair] = []
    """Addresses [first, last], counted from 0, that no request may touch."""
    handshake: HandshakeSection | None = None
    """Heartbeat and echoes; needed where an MV is written."""


DeviceSection = Annotated[
    S7Section | ModbusSection | ModbusRtuSection, Field(discriminator="driver")
]


class TagSection(Section):
    """One value in a PLC. Engineering value = raw · scale + offset, in `unit`."""

    device: Text
    """Name of the device that holds it."""
    address: Text
    """As the PLC programmer writes it: DB10.DBD0:REAL, holding:100:float32."""
    byte_order: ByteOrder = "ABCD"
    """Order of the bytes of a Modbus value of several registers."""
    scale: Number = 1.0
    """Factor from raw to engineering value."""
    offset: Number = 0.0
    """Added after the factor."""
    unit: str = "1"
    """Engineering unit, 1 for none."""
    range: Pair | None = None
    """Believable (read) or permitted (write) values: [low, high]."""
    rate_max: Quantity | None = None
    """Fastest believable change, per time; not checked where it is missing."""
    stale_after: Quantity = 0.0
    """Older values are not trusted. 0: one cycle."""
    frozen_after: Quantity = 0.0
    """A value that does not change at all for so long is not trusted. 0: not checked."""
    access: Access = "read"
    """read, or write (the controller owns the value)."""
    write_tolerance: Quantity = 0.0
    """Largest difference between the written value and the value read back."""


class MeasuredSection(Section):
    """A model output that a tag measures every cycle."""

    output: Text
    """Output of the model."""
    tag: Text
    """The tag read."""
    sigma: Quantity
    """Standard deviation of the noise."""
    critical: bool = True
    """Its loss sheds the application."""


class FeedforwardSection(Section):
    """A measured disturbance: an input of the model that we read but do not move."""

    input: Text
    """Disturbance of the model."""
    tag: Text
    """The tag read."""
    critical: bool = False
    """Its loss sheds the application."""


class ManipulatedSection(Section):
    """An MV: an input of the model that we move by writing the setpoint of a PLC loop."""

    name: Text
    """Name of the MV."""
    input: Text
    """Input of the model."""
    setpoint: Text
    """Tag written: the setpoint."""
    request: Text
    """Tag written: 1 asks for REMOTE, 0 hands back."""
    in_use: Text
    """Tag read: the setpoint that the loop uses."""
    mode: Text
    """Tag read: bit 0 REMOTE, bit 1 permit."""
    saturation: Text
    """Tag read: bit 0 output at its high limit, bit 1 at its low limit."""
    range: Pair
    """Engineering limits [low, high] of the setpoint."""
    rate: Quantity
    """Fastest change of the setpoint, per time."""
    move_suppression: Weight = 1.0
    """Weight of a move; larger is calmer."""
    target_weight: Weight = 1.0
    """Weight of the distance to the target."""
    target: Quantity | None = None
    """Where the MV rests when nothing else asks for it."""
    price: Quantity = 0.0
    """What it costs: 0.3 EUR/kg of a flow in kg/s, or per unit and hour. Negative: it earns."""


class ControlledSection(Section):
    """A CV: a model output kept in a zone or at a setpoint."""

    output: Text
    """Output of the model."""
    measured_by: Text
    """A tag listed in `measured`, or a source in `quality`."""
    zone: Pair | None = None
    """Limits [low, high]; instead of a setpoint."""
    setpoint: Quantity | None = None
    """Setpoint; instead of a zone."""
    margin: Quantity = 0.0
    """Distance that control keeps from the limits of the zone, in the output's unit."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """A larger weight gives way later, among CVs of one rank."""
    rank: Count = 1
    """1 is kept first; no rank is made worse for the sake of one with a larger number."""
    price: Quantity = 0.0
    """What it costs, as for an MV. Negative: it earns."""
    approach: Quantity = 0.0
    """Time constant on which a setpoint is approached, or a violated zone entered. 0: at once."""
    ramp: Quantity = 0.0
    """Time in which changed limits move over the zone's width (or the range). 0: at once."""
    on_failure: Literal["predict", "drop", "critical"] = "predict"
    """When nothing measures it for longer than predict_for: go on with the prediction, leave it out
    until it is measured again, or shed."""
    predict_for: Quantity = 0.0
    """Time for which the prediction stands in for a failed measurement."""
    response: Quantity | None = None
    """For `tune`: wanted closed-loop response time, from a setpoint step (or a violated zone) until
    63 % of the way is done, dead time included."""
    gain_uncertainty: Quantity = "20 %"
    """For `tune`: by which share the model's gains to this CV may be wrong, below 100 %."""


class QualitySection(Section):
    """A late quality measurement."""

    kind: Literal["lab"]
    """Where it comes from."""
    measures: Annotated[dict[str, Quantity], Field(min_length=1)]
    """By output: standard deviation."""
    delay_max: Quantity
    """Older results are refused."""
    stale_after: Quantity | None = None
    """Without a usable result for so long, control is in doubt; default: twice delay_max."""
    critical: bool = True
    """Whether control may not be active without a recent result."""
    gate: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Chi-square probability of the innovation gate."""


class DisturbanceSection(Section):
    """An integrating disturbance: an unknown that the estimator follows."""

    on: Text
    """The output or input it adds to."""
    kind: DisturbanceKind
    """output, input, or state: adds to the state's rate of change, per hour."""
    walk: Quantity
    """How fast it may drift: standard deviation, per square root of an hour."""


class EstimatorSection(Section):
    """The state and disturbance estimator."""

    kind: EstimatorKind = "ekf"
    """kalman (linear models only), ekf (extended Kalman filter) or moving_horizon."""
    window: Annotated[int, Field(ge=1, le=200)] | None = None
    """moving_horizon: cycles that are explained together; default: 10."""
    iterations: Annotated[int, Field(ge=1, le=50)] | None = None
    """moving_horizon: budget of Gauss-Newton steps a cycle; default: 6."""
    states: dict[str, Quantity] = {}
    """By state: process noise, standard deviation per square root of an hour."""
    disturbances: list[DisturbanceSection] | None = None
    """Integrating disturbances; by default one on every measured or controlled output."""


class ParameterSetSection(Section):
    """One way the process may be: besides name and weight, parameters of the model and their
    values, as in `k10: 1.35e12 1/h`."""

    model_config = ConfigDict(STRICT, extra="allow")
    __pydantic_extra__: dict[str, Quantity]  # pyright: ignore[reportIncompatibleVariableOverride]

    name: Text
    """Name of the set."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How much this case counts; the model's own parameters count 1."""

    @property
    def parameters(self) -> Mapping[str, float | str]:
        return self.__pydantic_extra__


class RobustSection(Section):
    """Robust control: one move that suits several parameter sets (scenario tree)."""

    horizon: Count = 1
    """Number of intervals at whose start the tree branches."""
    nominal: bool = True
    """Whether the model's own parameters are one of the sets."""
    sets: Annotated[list[ParameterSetSection], Field(min_length=1)]
    """The other ways the process may be."""


class MpcSection(Section):
    """The model-predictive controller."""

    step: Quantity
    """Length of one interval of the horizon; at least one cycle."""
    horizon: Annotated[int, Field(ge=1, le=1000)]
    """Number of intervals."""
    plan_age_max: Annotated[int, Field(ge=0)] = 10
    """Cycles that a shifted old plan may still be used."""
    iterations: Annotated[list[Count], Field(min_length=2, max_length=2)] = [12, 100]
    """Budgets of the two solvers below the first rung: SQP, then IPOPT."""
    blocks: list[Count] = []
    """Lengths, in intervals, of the blocks over which the MVs stay put; after the last one they do
    not move any more. Empty: they may move in every interval."""
    economics: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of what the prices of MVs and CVs add up to over the horizon; 0: prices move the
    steady-state target only."""
    terminal: Literal["none", "lqr"] = "none"
    """Cost of where the horizon ends; lqr: what an unconstrained controller would still spend."""
    engine: Literal["compiled", "portable"] = "compiled"
    """compiled: C code made for this problem; portable: without a compiler, slower."""
    robust: RobustSection | None = None
    """Plans that suit several parameter sets of the model."""


class OptimizerSection(Section):
    """The slow layer that moves the targets."""

    method: Method = "modifier_adaptation_gp"
    """How it learns the difference between plant and model."""
    maximise: Text
    """Arithmetic expression in outputs, disturbances, inputs, parameters and MVs."""
    unit: Text
    """Unit of the expression, for display."""
    quality: Text
    """Source in `quality` whose results confirm a steady point."""
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Noise of the expression, from repeated samples."""
    backoff: dict[str, Quantity] = {}
    """By controlled output: distance kept from its limits."""
    trust_region: Annotated[dict[str, Quantity], Field(min_length=1)]
    """By MV: largest step."""
    probe: dict[str, Quantity]
    """By MV: size of the first, probing steps."""
    points: Annotated[int, Field(ge=4, le=200)] = 25
    """How many points the Gaussian process remembers."""
    settle: Quantity
    """No sample counts as steady before that."""


class GuardSection(Section):
    """How long a doubt may last."""

    watchdog_cycles: Count = 3
    """Heartbeat standing still that long: the PLC takes over."""
    hold_cycles: Count = 6
    """In doubt, hold that long, then hand back."""
    ready_cycles: Count = 4
    """All critical signals good that long before ACTIVE."""
    rearm: Rearm = "operator"
    """Who may leave SHED: auto or operator."""


class ApplicationFile(Section):
    """One application of Loopwright."""

    loopwright: Literal[1]
    """Version of this format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
    """Name of the application."""
    cycle: Quantity
    """Length of one control cycle."""
    currency: Currency = "EUR"
    """Currency of prices and shadow prices."""
    data_dir: Text | None = None
    """Where journal and archive are kept, relative to this file; by default data/<name>."""
    devices: Annotated[dict[str, DeviceSection], Field(min_length=1)]
    """PLCs and skids, by name."""
    tags: Annotated[dict[str, TagSection], Field(min_length=1)]
    """Values in the PLCs, by name."""
    model: ModelSection
    """The controller's model of the process."""
    measured: Annotated[list[MeasuredSection], Field(min_length=1)]
    """Model outputs that a tag measures every cycle."""
    feedforward: list[FeedforwardSection] = []
    """Measured disturbances."""
    manipulated: Annotated[list[ManipulatedSection], Field(min_length=1)]
    """MVs: setpoints that the controller writes."""
    controlled: Annotated[list[ControlledSection], Field(min_length=1)]
    """CVs: outputs kept in a zone or at a setpoint."""
    quality: dict[str, QualitySection] = {}
    """Late quality measurements, by name."""
    estimator: EstimatorSection = EstimatorSection()
    """The state and disturbance estimator."""
    mpc: MpcSection
    """The model-predictive controller."""
    optimizer: OptimizerSection | None = None
    """The slow layer that moves the targets."""
    guard: GuardSection = GuardSection()
    """How long a doubt may last."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of an application file."""
    schema = ApplicationFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
