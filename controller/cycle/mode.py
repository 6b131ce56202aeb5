"""The application mode: OFF → MANUAL → INIT → READY → ACTIVE, and SHED in any doubt.

OFF     reads only
MANUAL  estimates and plans, writes nothing
INIT    MVs track the setpoint in use; waits for good critical signals
READY   good for ready_cycles; heartbeat runs, nothing is requested yet
ACTIVE  moves setpoints; in doubt it holds, and after hold_cycles it sheds
SHED    control handed back; leaves by itself or by the operator, as configured
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from controller.signal import Command, CommandKind


class Mode(StrEnum):
    OFF = "OFF"
    MANUAL = "MANUAL"
    INIT = "INIT"
    READY = "READY"
    ACTIVE = "ACTIVE"
    SHED = "SHED"


Wanted = Literal["off", "manual", "auto"]


@dataclass(frozen=True, slots=True)
class ModeRules:
    """Counts of cycles: good before READY, held before SHED; who may leave SHED."""

    ready_cycles: int
    hold_cycles: int
    rearm: Literal["auto", "operator"]


class ModeState(Struct, frozen=True):
    """Where the machine stands.

    Attributes:
        wanted: what the operator asked for.
        good, doubtful: cycles in a row without and with doubt.
        linked: the PLCs echo our heartbeat.
        hand_back: this cycle sends the frame that gives control back.
    """

    mode: Mode = Mode.OFF
    wanted: Wanted = "off"
    good: int = 0
    doubtful: int = 0
    rearmed: bool = False
    hand_back: bool = False
    reason: str = "started"

    @property
    def holding(self) -> bool:
        return self.mode is Mode.ACTIVE and self.doubtful > 0


def advance_mode(
    rules: ModeRules,
    state: ModeState,
    commands: tuple[Command, ...],
    doubts: tuple[str, ...],
    linked: bool,
) -> ModeState:
    """The mode of this cycle.

    Args:
        doubts: what is wrong with critical signals, estimate, plan, clock or link, in words.
        linked: every PLC with an MV echoes our heartbeat (only meaningful in READY and ACTIVE).
    """
    state = _heard(state, commands)
    good = 0 if doubts else state.good + 1
    doubtful = state.doubtful + 1 if doubts else 0
    state = replace(state, good=good, doubtful=doubtful, hand_back=False)
    if state.wanted != "auto":
        return _leave(state, Mode.OFF if state.wanted == "off" else Mode.MANUAL)
    match state.mode:
        case Mode.OFF | Mode.MANUAL:
            return _enter(state, Mode.INIT, "automatic control requested")
        case Mode.INIT if good >= rules.ready_cycles:
            return _enter(state, Mode.READY, f"critical signals good for {good} cycles")
        case Mode.READY if doubts:
            return replace(_enter(state, Mode.INIT, doubts[0]), hand_back=True)
        case Mode.READY if linked:
            return _enter(state, Mode.ACTIVE, "the PLCs echo the heartbeat")
        case Mode.ACTIVE if doubtful > rules.hold_cycles:
            shed = _enter(state, Mode.SHED, f"{doubts[0]}, for {doubtful} cycles")
            return replace(shed, hand_back=True, rearmed=False, good=0)
        case Mode.SHED if good >= rules.ready_cycles and (rules.rearm == "auto" or state.rearmed):
            return _enter(state, Mode.INIT, "re-armed")
        case _:
            return state


def _heard(state: ModeState, commands: tuple[Command, ...]) -> ModeState:
    for command in commands:
        if command.kind is CommandKind.MODE and command.text in ("off", "manual", "auto"):
            state = replace(state, wanted=command.text)
        elif command.kind is CommandKind.REARM:
            state = replace(state, rearmed=True)
    return state


def _leave(state: ModeState, to: Mode) -> ModeState:
    if state.mode is to:
        return state
    was_writing = state.mode in (Mode.READY, Mode.ACTIVE)
    return replace(_enter(state, to, "requested by the operator"), hand_back=was_writing)


def _enter(state: ModeState, mode: Mode, reason: str) -> ModeState:
    return replace(state, mode=mode, reason=reason)
