"""What must hold in every cycle of every run, whatever breaks: checked from outside the controller.

Nothing here is shared with the guard, the mode machine or the validation that it checks. Doubts
are judged anew from the samples, permissions follow from what operators asked for, and what was
written is taken from the wire. The controller's own word (the mode in its record) only ever takes
a permission away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from controller.cycle.record import Record
from controller.settings import Handshake, Manipulated, S7Device, Settings
from controller.signal import NS_PER_S, Command, CommandKind, Snapshot, WriteOutcome
from controller.wiring import typed_tags
from hil.faults.kinds import Driver
from hil.invariants.block import CommandBlock
from hil.invariants.direction import OperatorLimits, into_saturation
from hil.invariants.doubt import DoubtJudge
from hil.link.frames import UndecodableFrame, WireWrite, writes_in
from hil.link.watch import Rule, WireWatch

_COMMAND_AGE_S = 600.0
"""A command older than this (and than three cycles) is none any more."""
_UNCONFIRMED_FRAMES = 5
_SAME = 1e-6
"""Share of an MV's range within which two setpoints are the same."""

_LAG_CYCLES = 5
"""Without lock-step, a frame that no cycle has claimed for that long was never decided."""

Frames = Mapping[str, Mapping[str, float]]
_Seen = tuple[str, Sequence[WireWrite]]


class Invariant(StrEnum):
    """What holds always."""

    RANGE = "range"  # no value on the wire outside its range
    RATE = "rate"  # no setpoint faster than its rate
    BUMP = "bump"  # control is taken over where the PLC is
    ALLOW_LIST = "allow_list"  # only what is on the list, and whole values
    NAN = "nan"  # never anything but numbers
    REQUEST = "request"  # 0 or 1, and a setpoint behind it
    HEARTBEAT = "heartbeat"  # rises from frame to frame
    BEFORE_READY = "before_ready"  # nothing before auto is asked for and signals have been good
    UNLINKED = "unlinked"  # no request before every PLC echoes the heartbeat
    SHED_IN_TIME = "shed_in_time"  # a doubt that lasts hands control back
    HAND_BACK = "hand_back"  # the frame that ends control withdraws every request
    AFTER_SHED = "after_shed"  # nothing after a shed until re-armed
    HELD_IN_DOUBT = "held_in_doubt"  # no MV moves while anything is in doubt
    OPERATOR_LIMIT = "operator_limit"  # no MV leaves the limits that operators have set
    SATURATED = "saturated"  # no MV moves further into a saturated output
    JOURNALLED = "journalled"  # every frame on the wire is the one that was decided
    REPLAY = "replay"  # the journal, decided again, gives the run
    ALIVE = "alive"  # whatever comes in, a cycle is decided


_OF_RULE: Mapping[Rule, Invariant] = {
    Rule.UNDECODABLE: Invariant.ALLOW_LIST,
    Rule.ALLOW_LIST: Invariant.ALLOW_LIST,
    Rule.TORN: Invariant.ALLOW_LIST,
    Rule.NOT_FINITE: Invariant.NAN,
    Rule.RANGE: Invariant.RANGE,
    Rule.STEP: Invariant.RATE,
    Rule.BUMP: Invariant.BUMP,
    Rule.REQUEST: Invariant.REQUEST,
    Rule.HEARTBEAT: Invariant.HEARTBEAT,
}


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that did not hold: which, in which cycle, when (ns since epoch), in words."""

    invariant: Invariant
    cycle: int
    time_ns: int
    what: str

    def __str__(self) -> str:
        return f"cycle {self.cycle}, {self.invariant}: {self.what}"


class Invariants:
    """Watches one run. Call `observe` after every cycle (it is an observer of the loop), and let
    everything that goes to the PLCs pass through `check` or `listener`.

    Attributes:
        violations: every breach so far, in order.
    """

    def __init__(
        self,
        settings: Settings,
        start_ns: int,
        watch: WireWatch | None = None,
        *,
        lockstep: bool = True,
    ) -> None:
        """Before the first cycle.

        Args:
            start_ns: scenario time zero, ns since epoch.
            watch: checks each value on the wire and is told of it by `check` and `listener`.
            lockstep: the wire is still while a cycle is observed. Otherwise cycles are told of
                later than their frames are seen, and frames wait for them for a while.
        """
        tags = typed_tags(settings)
        self.violations: list[Breach] = []
        self._settings = settings
        self._tags = tags
        self._start_ns = start_ns
        self._watch = watch
        self._watched = 0
        self._lockstep = lockstep
        self._command_age_ns = round(max(_COMMAND_AGE_S, 3 * settings.cycle_s) * NS_PER_S)
        self._handshakes = {
            device.name: device.handshake
            for device in settings.devices.values()
            if device.handshake is not None
        }
        self._mvs = tuple((tags[mv.setpoint].device, mv) for mv in settings.manipulated)
        self._blocks: dict[str, CommandBlock] = {}
        self._seen: list[_Seen] = []
        self._restart()

    # --- what goes to the PLCs -------------------------------------------------------------------

    def check(self, device: str, writes: Sequence[WireWrite]) -> None:
        """One write request that was decoded elsewhere (a transport without a wire)."""
        if self._watch is not None:
            self._watch.check(device, writes)
        self._seen.append((device, writes))

    def listener(self, device: str) -> Callable[[str, bytes], None]:
        """A frame listener (direction, frame) for the connection to `device`."""
        of_watch = self._watch.listener(device) if self._watch is not None else None
        is_s7 = isinstance(self._settings.devices[device], S7Device)
        driver: Driver = "s7" if is_s7 else "modbus"

        def hear(direction: str, frame: bytes) -> None:
            if of_watch is not None:
                of_watch(direction, frame)
            if direction != "to_plc":
                return
            try:
                writes = writes_in(driver, frame)
            except UndecodableFrame:
                return  # the watch objects to it
            if writes:
                self._seen.append((device, writes))

        return hear

    # --- every cycle -----------------------------------------------------------------------------

    def observe(self, snapshot: Snapshot, record: Record) -> None:
        """Judge one cycle, after its frames have gone out."""
        if snapshot.cycle <= self._cycle:
            self._restart()
        self._cycle, self._time_ns = snapshot.cycle, snapshot.time_ns
        frames = record.move.frames
        seen, self._seen = self._seen, []
        if not self._lockstep:
            seen = self._waited_for(seen, frames)
        if self._watch is not None:
            self._told_by_watch(self._watch)
        if snapshot.commands:
            self._hear(snapshot.commands, snapshot.time_ns)
        self._look_at_answers(snapshot)
        doubt = self._judge.doubt(snapshot) or self._link_doubt()
        self._bad = self._bad + 1 if doubt else 0
        self._good = 0 if doubt else self._good + 1
        self._check_permission(record, frames, seen, doubt)
        if doubt and self._open:
            self._check_held(snapshot, frames, doubt)
        elif self._requested:
            self._check_direction(snapshot, frames)
        for device, writes in seen:
            self._check_journalled(device, writes, frames)
        self._remember(record, frames)

    def restarted(self) -> None:
        """A control process begins: what the one before wrote last, nobody can account for.

        Its values have been judged on the wire all the same.
        """
        self._seen = []

    def _restart(self) -> None:
        """A controller that starts knows nothing and may do nothing."""
        self._judge = DoubtJudge(self._settings, self._tags)
        self._cycle = -1
        self._time_ns = 0
        self._wanted = "off"
        self._good = self._bad = 0
        self._open = self._locked = self._rearmed = False
        self._active = self._planless = self._requested = False
        self._limits = OperatorLimits(self._settings.manipulated)
        self._frames: Frames = {}
        self._written: dict[str, float] = {}
        self._silent = dict.fromkeys(self._handshakes, 0)
        self._unconfirmed: list[tuple[str, Mapping[str, float]]] = []
        self._waiting: list[tuple[int, str, Sequence[WireWrite]]] = []
        if not self._lockstep:
            self._seen.clear()  # frames of a process that died before it could tell of them

    def _told_by_watch(self, watch: WireWatch) -> None:
        found = watch.violations
        if len(found) > self._watched:
            # In order of time, and none is older than the last cycle.
            for violation in found[self._watched :]:
                where = f"{violation.device} {violation.tag}".rstrip()
                self._breach(_OF_RULE[violation.rule], f"{where}: {violation.what}")
            self._watched = len(found)

    def _hear(self, commands: Sequence[Command], now_ns: int) -> None:
        for command in commands:
            if command.time_ns < now_ns - self._command_age_ns:
                continue
            if command.kind is CommandKind.REARM:
                self._rearmed = True
            elif command.kind is CommandKind.MODE and command.text in ("off", "manual", "auto"):
                if command.text == "auto" and self._wanted != "auto":
                    self._locked = False  # the operator has taken over from the shed, and is back
                self._wanted = command.text
            elif command.kind in (CommandKind.LIMIT_LOW, CommandKind.LIMIT_HIGH):
                self._limits.hear(command)

    def _look_at_answers(self, snapshot: Snapshot) -> None:
        """What became of the frames of the cycle before: their outcome and the echoes."""
        for device, words in self._frames.items():
            if snapshot.writes.get(device) is not WriteOutcome.WRITTEN:
                self._unconfirmed = [*self._unconfirmed, (device, words)][-_UNCONFIRMED_FRAMES:]
        for device, mv in self._mvs:
            if device in self._frames and snapshot.writes.get(device) is WriteOutcome.WRITTEN:
                self._written[mv.name] = self._frames[device][mv.setpoint]
        for device, words in self._handshakes.items():
            echoed = device not in self._frames or self._echoes(snapshot, device, words)
            self._silent[device] = 0 if echoed else self._silent[device] + 1

    def _echoes(self, snapshot: Snapshot, device: str, words: Handshake) -> bool:
        sample = snapshot.samples.get(words.heartbeat_echo)
        return (
            sample is not None
            and sample.status.is_good
            and sample.value == self._frames[device].get(words.heartbeat)
        )

    def _link_doubt(self) -> str:
        """Doubts about what the controller itself did in the cycle before."""
        if self._planless:
            return "no verified plan"
        if not (self._open and self._active):
            return ""
        if not self._frames:
            return "no frame could be sent"
        for device, cycles in self._silent.items():
            if cycles >= self._settings.guard.watchdog_cycles:
                return f"{device} has not echoed for {cycles} cycles"
        return ""

    def _waited_for(self, seen: list[_Seen], frames: Frames) -> list[_Seen]:
        """Those that belong to this cycle, and those that no cycle has claimed for too long."""
        due = [(self._cycle, device, writes) for device, writes in seen]
        mine: list[_Seen] = []
        waiting: list[tuple[int, str, Sequence[WireWrite]]] = []
        for since, device, writes in (*self._waiting, *due):
            claimed = device in frames and self._block_of(device).shows(frames[device], writes)
            if claimed or self._cycle - since >= _LAG_CYCLES:
                mine.append((device, writes))
            else:
                waiting.append((since, device, writes))
        self._waiting = waiting
        return mine

    # --- permission ------------------------------------------------------------------------------

    def _check_permission(
        self, record: Record, frames: Frames, seen: Sequence[object], doubt: str
    ) -> None:
        """Frames are allowed from READY on until control ends, and in the frame that ends it."""
        claims = record.mode in ("READY", "ACTIVE")
        requests = [
            mv.name for device, mv in self._mvs if frames.get(device, {}).get(mv.request, 0) != 0
        ]
        if not self._open:
            why = self._why_not()
            if (frames or seen) and why:
                locked = Invariant.AFTER_SHED if self._locked else Invariant.BEFORE_READY
                self._breach(locked, f"a frame although {why}")
            if not claims or why:
                return
            self._open, self._locked, self._requested = True, False, False
        must_shed = self._bad > self._settings.guard.hold_cycles
        if requests and (must_shed or not claims or self._wanted != "auto"):
            still = f"{', '.join(requests)} requested in {record.mode}"
            if must_shed:
                self._breach(Invariant.SHED_IN_TIME, f"{still}; {self._bad} cycles of {doubt}")
            else:
                self._breach(Invariant.HAND_BACK, f"{still}, {self._wanted} is wanted")
        elif claims and must_shed:
            what = f"still {record.mode} after {self._bad} cycles of {doubt}"
            self._breach(Invariant.SHED_IN_TIME, what)
        elif requests and not self._requested:
            self._check_linked(requests)
        self._requested = self._requested or bool(requests)
        if not claims:
            self._open, self._locked, self._rearmed = False, record.mode == "SHED", False

    def _why_not(self) -> str:
        """Why no frame may be sent, empty where one may."""
        if self._wanted != "auto":
            return f"{self._wanted} is wanted"
        if self._good < self._settings.guard.ready_cycles:
            return f"signals have been good for {self._good} cycles only"
        if self._locked and self._settings.guard.rearm != "auto" and not self._rearmed:
            return "nobody has re-armed"
        return ""

    def _check_linked(self, requests: Sequence[str]) -> None:
        silent = [device for device, cycles in self._silent.items() if cycles]
        if silent or not self._frames:
            who = ", ".join(silent) or "nobody"
            self._breach(Invariant.UNLINKED, f"{', '.join(requests)} requested, no echo of {who}")

    # --- values ----------------------------------------------------------------------------------

    def _check_held(self, snapshot: Snapshot, frames: Frames, doubt: str) -> None:
        """A requested setpoint is the one in use, or one that was sent before."""
        for device, mv in self._mvs:
            words = frames.get(device)
            if words is None or words[mv.request] == 0:
                continue
            value, near = words[mv.setpoint], _SAME * (mv.high - mv.low)
            for known in self._standing(snapshot, device, mv):
                if abs(value - known) <= near:
                    break
            else:
                if isfinite(value):  # NaN is another breach
                    what = f"{mv.name} moves to {value:g} in spite of {doubt}"
                    self._breach(Invariant.HELD_IN_DOUBT, what)

    def _check_direction(self, snapshot: Snapshot, frames: Frames) -> None:
        """A requested setpoint does not go where operators or the PLC do not let it."""
        for device, mv in self._mvs:
            words = frames.get(device)
            if words is None or words[mv.request] == 0 or not isfinite(words[mv.setpoint]):
                continue
            value, standing = words[mv.setpoint], self._standing(snapshot, device, mv)
            if not standing:
                continue
            left = self._limits.left(mv, value, standing)
            if left:
                self._breach(Invariant.OPERATOR_LIMIT, left)
            if self._silent.get(device, 0) == 0:
                into = into_saturation(mv, snapshot.samples.get(mv.saturation), value, standing)
                if into:
                    self._breach(Invariant.SATURATED, into)

    def _standing(self, snapshot: Snapshot, device: str, mv: Manipulated) -> list[float]:
        found: list[float] = []
        if device in self._frames:
            found.append(self._frames[device][mv.setpoint])
        if mv.name in self._written:
            found.append(self._written[mv.name])
        sample = snapshot.samples.get(mv.in_use)
        if sample is not None and sample.status.is_good and isinstance(sample.value, (int, float)):
            found.append(float(sample.value))
        return found

    def _check_journalled(self, device: str, writes: Sequence[WireWrite], frames: Frames) -> None:
        """The bytes are those of this cycle's frame, or of an earlier one that was held up."""
        block = self._block_of(device)
        if device in frames and block.shows(frames[device], writes):
            return
        late = [words for name, words in self._unconfirmed if name == device]
        if not any(block.shows(words, writes) for words in late):
            decided = "another frame was decided" if device in frames else "no frame was decided"
            self._breach(Invariant.JOURNALLED, f"a write to {device}, but {decided}")

    def _block_of(self, device: str) -> CommandBlock:
        if device not in self._blocks:
            self._blocks[device] = CommandBlock(device, self._tags)
        return self._blocks[device]

    def _remember(self, record: Record, frames: Frames) -> None:
        self._frames = frames
        self._active = record.mode == "ACTIVE"
        held = record.plan is None or record.plan.rung == "hold"
        self._planless = record.mode != "OFF" and held

    def _breach(self, invariant: Invariant, what: str) -> None:
        self.violations.append(Breach(invariant, self._cycle, self._time_ns, what))
