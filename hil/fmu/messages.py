"""What the harness and the process that holds an FMU say to each other, as MessagePack.

No pickle: a reply is decoded into the shapes below or refused, whatever the FMU did to its
process.
"""

from __future__ import annotations

import msgspec

MODEL = "model"
"""Folder of the unpacked FMU, in the private directory of its plant."""

Value = bool | int | float | str


class Facts(msgspec.Struct, frozen=True):
    """A scalar variable as modelDescription.xml declares it; None where it says nothing."""

    name: str
    causality: str
    variability: str
    initial: str | None
    type: str
    scalar: bool
    unit: str | None
    low: float | None
    high: float | None
    start: str | None
    nominal: float | None
    text: str


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Instantiate and initialise: start values, then the inputs (by name) and outputs wanted."""

    start: dict[str, Value]
    inputs: dict[str, float]
    outputs: list[str]


class Advance(msgspec.Struct, frozen=True, tag=True):
    """Hold the inputs for `count` communication steps of `step_s` seconds."""

    u: list[float]
    step_s: float
    count: int


class Adjust(msgspec.Struct, frozen=True, tag=True):
    """Set a tunable parameter."""

    name: str
    value: float


class Quit(msgspec.Struct, frozen=True, tag=True):
    """Terminate the FMU in order."""


Request = Begin | Advance | Adjust | Quit


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process is up, before it has looked at the FMU."""


class Interface(msgspec.Struct, frozen=True, tag=True):
    """The FMU's variables and how it may be stepped."""

    variables: list[Facts]
    preferred_step_s: float | None
    variable_step: bool


class Outputs(msgspec.Struct, frozen=True, tag=True):
    """The outputs wanted, and the FMU's own time in seconds."""

    y: list[float]
    time_s: float


class Done(msgspec.Struct, frozen=True, tag=True):
    """Done, nothing to say."""


class Failure(msgspec.Struct, frozen=True, tag=True):
    """The FMU did not do as asked."""

    what: str
    mend: str


Reply = Ready | Interface | Outputs | Done | Failure
