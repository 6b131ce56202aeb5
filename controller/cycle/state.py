"""Everything that is remembered between cycles, warm starts included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec import field as struct_field

from controller.cycle.application import Layout
from controller.cycle.mode import ModeState
from controller.cycle.validate import TagMemory
from controller.estimation.delayed import DelayedFilterState
from controller.mpc.ladder import PlannerState
from controller.mpc.problem import Target
from plant_models.process import Vector


@dataclass(frozen=True, slots=True)
class Wishes:
    """What operator and optimizer asked for and what still holds.

    Attributes:
        resting: resting value per MV; limits and setpoints per MV or CV name.
        forecast: per measured disturbance, the times (ns since epoch) from which on a value is
            expected, in order.
        listening: proposals of the optimizer are followed.
    """

    resting: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    low: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    high: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    setpoint: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    forecast: Mapping[str, tuple[tuple[int, float], ...]] = field(
        default_factory=lambda: dict[str, tuple[tuple[int, float], ...]]()
    )
    listening: bool = True


class Standing(Struct, frozen=True, eq=False):
    """What the layout says and the wishes change: constant arrays, for as long as both last.

    That they are the same arrays from cycle to cycle lets the target calculation see at a glance
    that nothing was asked for anew.

    Attributes:
        layout, wishes: what it was made of.
        mv_low, mv_high, resting: per MV; cv_low, cv_high, setpoint: per CV (NaN: none).
        setpoints: the same by name, of the CVs that have one.
    """

    layout: Layout
    wishes: Wishes
    mv_low: Vector
    mv_high: Vector
    cv_low: Vector
    cv_high: Vector
    setpoint: Vector
    resting: Vector
    setpoints: Mapping[str, float]


class HandshakeState(Struct, frozen=True):
    """Words of the handshake and what became of the setpoints sent last.

    Attributes:
        heartbeat, sequence: last values sent.
        sent: per MV, setpoint of the last frame that asked for control; astray: cycles in a row in
            which the PLC used another setpoint than the one sent.
        confirmed: per MV, the setpoint written when the loop was last seen following us; blind:
            cycles in a row since then without a readable setpoint in use.
        silent: per device, cycles in a row without the echo of our heartbeat; echoed: the last
            echo that can have been ours; unconfirmed: frames in a row that were not read back as
            written.
        told: per MV, the setpoint of the last request that went out.
    """

    heartbeat: int = 0
    sequence: int = 0
    sent: Mapping[str, float] = {}
    astray: Mapping[str, int] = {}
    confirmed: Mapping[str, float] = {}
    blind: Mapping[str, int] = {}
    silent: Mapping[str, int] = {}
    echoed: Mapping[str, int] = {}
    told: Mapping[str, float] = {}
    unconfirmed: Mapping[str, int] = {}
    sending: bool = False


class CvFailure(Struct, frozen=True):
    """A CV that nothing measured: since when, whether it was dropped for that, and for how many
    cycles in a row it has been measured again."""

    since_ns: int
    dropped: bool = False
    good: int = 0


class LoopState(Struct, frozen=True, eq=False):
    """The state of the loop between two cycles; starts empty.

    `sampled_ns` is, per quality source, when the newest fused sample was drawn; `failures` are the
    CVs that are not measured; `standing` is what the wishes came to; `limits` are those in force
    per CV, on their way to the wanted ones; `target` is the last one that was found; `planless`
    tells that the last cycle found no verified plan.
    """

    cycle: int = -1
    time_ns: int = 0
    memory: Mapping[str, TagMemory] = {}
    mode: ModeState = struct_field(default_factory=ModeState)
    wishes: Wishes = struct_field(default_factory=Wishes)
    handshake: HandshakeState = struct_field(default_factory=HandshakeState)
    estimator: DelayedFilterState | None = None
    sampled_ns: Mapping[str, int] = {}
    failures: Mapping[str, CvFailure] = {}
    standing: Standing | None = None
    limits: Mapping[str, tuple[float, float]] = {}
    target: Target | None = None
    planner: PlannerState = struct_field(default_factory=PlannerState)
    planless: bool = False
