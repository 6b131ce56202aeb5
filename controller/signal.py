"""What crosses the border of the process: tags, samples, quality results, commands, proposals.

Everything that enters a decision is in a `Snapshot`, so any cycle can be decided again from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal

from msgspec import Struct

NS_PER_S = 1_000_000_000

Value = bool | int | float | str | None
Access = Literal["read", "write"]
ByteOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]


class Status(IntEnum):
    """OPC UA status codes (OPC 10000-4 and 10000-8). Bits 30–31 are the severity."""

    GOOD = 0x00000000
    UNCERTAIN_NO_COMMUNICATION_LAST_USABLE = 0x408F0000
    UNCERTAIN_LAST_USABLE = 0x40900000
    UNCERTAIN_SENSOR_NOT_ACCURATE = 0x40930000
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED = 0x40940000
    BAD = 0x80000000
    BAD_COMMUNICATION_ERROR = 0x80050000
    BAD_NO_COMMUNICATION = 0x80310000
    BAD_WAITING_FOR_INITIAL_DATA = 0x80320000
    BAD_OUT_OF_RANGE = 0x803C0000
    BAD_CONFIGURATION_ERROR = 0x80890000
    BAD_SENSOR_FAILURE = 0x808C0000
    BAD_OUT_OF_SERVICE = 0x808D0000

    @property
    def is_good(self) -> bool:
        return self >> 30 == 0

    @property
    def is_bad(self) -> bool:
        return self >> 30 == 2


@dataclass(frozen=True, slots=True)
class Tag:
    """One value in a PLC. Engineering value = raw · scale + offset, in `unit`.

    Attributes:
        name: unique in the application.
        device: name of the device that holds it.
        address: as the PLC programmer writes it, e.g. `DB10.DBD0:REAL`, `holding:100:float32`.
        type: bool, int8 … uint64, float32, float64 or string[n].
        byte_order: of a multi-register Modbus value; S7 is always ABCD.
        low, high: range of believable (read) or permitted (write) values, in `unit`.
        rate_max_per_s: fastest believable change, in `unit` per second; 0 means unchecked.
        stale_after_s: older than this is not trusted; 0 means one cycle is enough.
        frozen_after_s: a value without any change for this long is not trusted; 0: unchecked.
        write_tolerance: largest difference between written and read back, in `unit`.
    """

    name: str
    device: str
    address: str
    type: str
    byte_order: ByteOrder = "ABCD"
    scale: float = 1.0
    offset: float = 0.0
    unit: str = "1"
    low: float = float("-inf")
    high: float = float("inf")
    rate_max_per_s: float = 0.0
    stale_after_s: float = 0.0
    frozen_after_s: float = 0.0
    access: Access = "read"
    write_tolerance: float = 0.0


class Sample(Struct, frozen=True, gc=False):
    """A value with its status, its source time and the time it reached us (ns since epoch)."""

    value: Value
    status: Status
    time_ns: int
    received_ns: int


@dataclass(frozen=True, slots=True)
class QualityResult:
    """A late quality measurement: lab, inspection or soft sensor.

    `time_ns` is when the sample was drawn, `received_ns` when the result reached us. `values`
    and `sigma` are per measured output, in its unit. A missing result means no information.
    """

    result_id: str
    source: str
    time_ns: int
    received_ns: int
    values: Mapping[str, float]
    sigma: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    valid: bool = True
    lot_id: str = ""


class CommandKind(StrEnum):
    """What an operator or engineer may ask of the running controller."""

    MODE = "mode"  # text: off | manual | auto
    REARM = "rearm"  # leave SHED
    SETPOINT = "setpoint"  # target: CV or MV name; value
    LIMIT_LOW = "limit_low"  # target: CV or MV name; value (only inside engineering limits)
    LIMIT_HIGH = "limit_high"
    OPTIMIZER = "optimizer"  # text: on | hold
    FORECAST = "forecast"  # target: measured disturbance; value from text (ns since epoch) on;
    # no value: nothing is expected of it any more


@dataclass(frozen=True, slots=True)
class Command:
    """An operator's or engineer's request, with who and why for the audit."""

    command_id: str
    kind: CommandKind
    time_ns: int
    target: str = ""
    value: float | None = None
    text: str = ""
    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """New targets from the optimizer, per manipulated variable, with the reason in words."""

    proposal_id: str
    time_ns: int
    targets: Mapping[str, float]
    gain: float = 0.0
    why: str = ""


class WriteOutcome(StrEnum):
    """What became of the frame that the previous cycle decided for a device."""

    NONE = "none"  # nothing was to be written
    WRITTEN = "written"
    LATE = "late"  # the cycle overran: journalled, not written
    FAILED = "failed"  # the device did not confirm it; it may or may not have arrived
    REFUSED = "refused"  # the write table or the device said no


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that enters the decision of one cycle.

    Attributes:
        cycle: number of this cycle, rising; a gap means skipped cycles.
        time_ns: start of the cycle, ns since epoch, from the injected clock.
        samples: by tag name; a tag whose device did not answer is present with a Bad status.
        quality_results, commands, proposals: arrived since the previous snapshot.
        writes: by device, the outcome of the previous cycle's frame.
        skipped: cycles lost to an overrun just before this one.
    """

    cycle: int
    time_ns: int
    samples: Mapping[str, Sample]
    quality_results: tuple[QualityResult, ...] = ()
    commands: tuple[Command, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    writes: Mapping[str, WriteOutcome] = field(default_factory=lambda: dict[str, WriteOutcome]())
    skipped: int = 0
