"""The shape of an application file: which keys there are, what they mean, what they may hold.

The JSON Schema for editors is generated from these models, so the docstrings of the fields are
what an engineer reads while typing.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from controller.settings.application import (
    ConnectionType,
    DisturbanceKind,
    Method,
    Parity,
    Rearm,
)
from controller.signal import Access, ByteOrder

NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
QUANTITY = rf"^\s*{NUMBER}\s*($|[A-Za-z%°µμΩ(/].*$|1\s*/.*$)"
_QUANTITY = re.compile(QUANTITY)


def _quantity(value: Any) -> float | str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value):
        return value  # unchanged: a factory may count with whole numbers
    if isinstance(value, str) and _QUANTITY.match(value):
        return value
    raise PydanticCustomError("quantity", "a number, or a number and its unit")


Quantity = Annotated[
    float | str,
    PlainValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": QUANTITY},
            ]
        }
    ),
]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pair = Annotated[list[Quantity], Field(min_length=2, max_length=2)]
Address = Annotated[int, Field(ge=0, le=65535)]
AddressPair = Annotated[list[Address], Field(min_length=2, max_length=2)]
Port = Annotated[int, Field(ge=1, le=65535)]
UnitId = Annotated[int, Field(ge=0, le=255)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """One section of the file."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


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


class ModelSection(Section):
    """The controller's model of the process."""

    plant: Text
    """module:factory, file.py:factory, or an entry point in `loopwright.plants`."""
    parameters: dict[str, Quantity] = {}
    """Parameters of the model that differ from its nominal ones."""


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
    """A larger weight gives way later."""


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
    """output or input."""
    walk: Quantity
    """How fast it may drift: standard deviation, per square root of an hour."""


class EstimatorSection(Section):
    """The state and disturbance estimator."""

    states: dict[str, Quantity] = {}
    """By state: process noise, standard deviation per square root of an hour."""
    disturbances: list[DisturbanceSection] | None = None
    """Integrating disturbances; by default one on every measured or controlled output."""


class MpcSection(Section):
    """The model-predictive controller."""

    step: Quantity
    """Length of one interval of the horizon; at least one cycle."""
    horizon: Annotated[int, Field(ge=1, le=1000)]
    """Number of intervals."""
    plan_age_max: Annotated[int, Field(ge=0)] = 10
    """Cycles that a shifted old plan may still be used."""
    iterations: Annotated[list[Count], Field(min_length=2, max_length=2)] = [40, 100]
    """Budget of fatrop, then of IPOPT."""


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
