"""Everything that is remembered between cycles, warm starts included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.cycle.mode import ModeState
from controller.cycle.validate import TagMemory
from controller.estimation.delayed import DelayedFilterState
from controller.mpc.ladder import PlannerState


@dataclass(frozen=True, slots=True)
class Wishes:
    """What operator and optimizer asked for and what still holds.

    Attributes:
        resting: resting value per MV; limits and setpoints per MV or CV name.
        listening: proposals of the optimizer are followed.
    """

    resting: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    low: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    high: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    setpoint: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    listening: bool = True


@dataclass(frozen=True, slots=True)
class HandshakeState:
    """Words of the handshake and what became of the setpoints sent last.

    Attributes:
        heartbeat, sequence: last values sent.
        sent: per MV, setpoint of the last frame (sent or not); astray: cycles in a row in which
            the PLC used another setpoint than the one sent.
        confirmed: per MV, the setpoint written when the loop was last seen following us; blind:
            cycles in a row since then without a readable setpoint in use.
        silent: per device, cycles in a row without the echo of our heartbeat.
    """

    heartbeat: int = 0
    sequence: int = 0
    sent: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    astray: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    confirmed: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    blind: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    silent: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    sending: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LoopState:
    """The state of the loop between two cycles; starts empty.

    `sampled_ns` is, per quality source, when the newest fused sample was drawn; `planless` tells
    that the last cycle found no verified plan.
    """

    cycle: int = -1
    time_ns: int = 0
    memory: Mapping[str, TagMemory] = field(default_factory=lambda: dict[str, TagMemory]())
    mode: ModeState = field(default_factory=ModeState)
    wishes: Wishes = field(default_factory=Wishes)
    handshake: HandshakeState = field(default_factory=HandshakeState)
    estimator: DelayedFilterState | None = None
    sampled_ns: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    planner: PlannerState = field(default_factory=PlannerState)
    planless: bool = False
