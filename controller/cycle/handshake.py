"""The handshake seen from here: what each slave loop does, and what became of our last frames."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from controller.cycle.application import Application, SlaveLoop
from controller.cycle.guard import GuardedMv, MvFacts
from controller.cycle.state import HandshakeState, LoopState, Wishes
from controller.cycle.validate import Reading
from controller.signal import Snapshot, WriteOutcome

REMOTE_BIT = 1
SATURATED_HIGH_BIT, SATURATED_LOW_BIT = 1, 2
# The PLC may ramp towards a setpoint for some cycles; after that many it is clamping.
ASTRAY_CYCLES = 5
_WRITTEN = WriteOutcome.WRITTEN
_NOT_CONFIRMED = (WriteOutcome.FAILED, WriteOutcome.REFUSED)
_WORD = 0x1_0000


def mv_facts(
    application: Application,
    state: LoopState,
    wishes: Wishes,
    readings: Mapping[str, Reading],
    snapshot: Snapshot,
) -> tuple[dict[str, MvFacts], HandshakeState]:
    """What is known of each slave loop, and how far the PLC is from what was sent."""
    handshake = state.handshake
    facts: dict[str, MvFacts] = {}
    astray: dict[str, int] = {}
    confirmed: dict[str, float] = {}
    blind: dict[str, int] = {}
    asked = _asked(application, handshake, snapshot)
    echoed, strange = _echoed(application, handshake, readings)
    silent, unconfirmed = _unanswered(application, handshake, readings, snapshot)
    for mv, loop in application.layout.loops:
        name, in_use = mv.name, readings[loop.in_use]
        odd = mv.device in strange
        jumped = not odd and _jumped(application, mv, loop, handshake, readings)
        mistaken = odd or jumped
        known = in_use.good and not mistaken
        written = snapshot.writes.get(mv.device) is _WRITTEN
        remote = known and bool(_word(readings, loop.mode) & REMOTE_BIT)
        sent = handshake.sent.get(name) if written and remote else None
        tolerance = 1e-4 * (mv.high - mv.low)
        apart = sent is not None and abs(in_use.value - sent) > tolerance
        astray[name] = handshake.astray.get(name, 0) + 1 if apart else 0
        if sent is not None:
            confirmed[name] = sent
        elif not known and name in handshake.confirmed and not jumped:
            blind[name] = handshake.blind.get(name, 0) + 1
            seen_local = (
                not mistaken
                and readings[loop.mode].good
                and not _word(readings, loop.mode) & REMOTE_BIT
            )
            if blind[name] <= application.rules.hold_cycles and not seen_local:
                told = handshake.sent.get(name) if written else None
                confirmed[name] = handshake.confirmed[name] if told is None else told
        high, low = _saturated(readings, loop.saturation)
        facts[name] = MvFacts(
            in_use=in_use.value if known else None,
            last_sent=None if astray[name] >= ASTRAY_CYCLES else sent,
            remote=remote,
            high=high,
            low=low,
            operator_low=wishes.low.get(name, mv.low),
            operator_high=wishes.high.get(name, mv.high),
            confirmed=confirmed.get(name),
            parked=handshake.sent.get(name, in_use.value) if mistaken else in_use.value,
            told=asked.get(name),
            echoing=not silent.get(mv.device),
            unconfirmed=unconfirmed.get(mv.device, 0) > 0,
        )
    return facts, replace(
        handshake,
        astray=astray,
        confirmed=confirmed,
        blind=blind,
        silent=silent,
        echoed=echoed,
        unconfirmed=unconfirmed,
        told=asked,
    )


def _asked(
    application: Application, handshake: HandshakeState, snapshot: Snapshot
) -> dict[str, float]:
    """Per MV, the last request that went out: not one whose frame came too late to be written."""
    asked: dict[str, float] = {}
    for mv in application.guarded_mvs:
        late = snapshot.writes.get(mv.device) is WriteOutcome.LATE
        value = (handshake.told if late else handshake.sent).get(mv.name)
        if value is not None:
            asked[mv.name] = value
    return asked


def _unanswered(
    application: Application,
    handshake: HandshakeState,
    readings: Mapping[str, Reading],
    snapshot: Snapshot,
) -> tuple[dict[str, int], dict[str, int]]:
    """Per device, for how many frames in a row the echo has been missing, and the read-back."""
    silent: dict[str, int] = {}
    unconfirmed: dict[str, int] = {}
    for link in application.links:
        device, echo = link.device, link.heartbeat_echo
        answered = not handshake.sending or _echoes(readings, echo, handshake.heartbeat)
        silent[device] = 0 if answered else handshake.silent.get(device, 0) + 1
        lost = snapshot.writes.get(device) in _NOT_CONFIRMED
        unconfirmed[device] = handshake.unconfirmed.get(device, 0) + 1 if lost else 0
    return silent, unconfirmed


def _echoed(
    application: Application, handshake: HandshakeState, readings: Mapping[str, Reading]
) -> tuple[dict[str, int], set[str]]:
    """The last believable echo per device, and the devices whose echo nobody can have sent.

    An echo may be late, but it never runs ahead of what was sent: a device that shows such a one
    shows another image of itself (swapped bytes, another PLC's block), and nothing in it counts.
    """
    echoed, strange = dict(handshake.echoed), set[str]()
    if not handshake.sending:
        return {}, strange
    for link in application.links:
        reading = readings[link.heartbeat_echo]
        if not reading.good:
            continue
        echo, last = int(reading.value), echoed.get(link.device)
        if last is None or (echo - last) % _WORD <= (handshake.heartbeat - last) % _WORD:
            echoed[link.device] = echo
        else:
            strange.add(link.device)
    return echoed, strange


def _jumped(
    application: Application,
    mv: GuardedMv,
    loop: SlaveLoop,
    handshake: HandshakeState,
    readings: Mapping[str, Reading],
) -> bool:
    """A loop that followed us a cycle ago shows LOCAL, and a setpoint where no ramp could be.

    It may be true: an operator has taken the loop and typed, or the PLC fell back. For one cycle it
    is not believed, and the request is withdrawn: if it is true nothing is lost, and if the image
    is wrong we do not follow it.
    """
    name, in_use = mv.name, readings[loop.in_use]
    if name not in handshake.confirmed or not in_use.good:
        return False
    if _word(readings, loop.mode) & REMOTE_BIT:
        return False
    reach = mv.rate_per_s * application.cycle_s + 1e-4 * (mv.high - mv.low)
    return abs(in_use.value - handshake.confirmed[name]) > reach


def linked(application: Application, handshake: HandshakeState) -> bool:
    """Every device echoes the heartbeat that was sent last."""
    return handshake.sending and all(
        handshake.silent.get(link.device, 0) == 0 for link in application.links
    )


def _echoes(readings: Mapping[str, Reading], tag: str, heartbeat: int) -> bool:
    echo = readings[tag]
    return echo.good and int(echo.value) == heartbeat


def _saturated(readings: Mapping[str, Reading], tag: str) -> tuple[bool, bool]:
    """Output at its high and at its low limit; both, when it should be known and is not."""
    if not tag:
        return False, False
    if tag not in readings or not readings[tag].good:
        return True, True
    word = int(readings[tag].value)
    return bool(word & SATURATED_HIGH_BIT), bool(word & SATURATED_LOW_BIT)


def _word(readings: Mapping[str, Reading], tag: str) -> int:
    reading = readings.get(tag)
    return int(reading.value) if reading is not None and reading.good else 0
