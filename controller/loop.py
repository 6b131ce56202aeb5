"""The only loop: sleep until the deadline, read, journal, step, write, journal.

It knows time, devices, journal and inbox only through its ports, so what is tested is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from controller.cycle.application import Application
from controller.cycle.guard import release
from controller.cycle.mode import Mode
from controller.cycle.record import Record, Timing, encode_record
from controller.cycle.state import LoopState
from controller.cycle.step import step
from controller.errors import JournalError
from controller.ports import Clock, Inbox, Journal, Messages, Transport
from controller.signal import (
    NS_PER_S,
    Command,
    CommandKind,
    Sample,
    Snapshot,
    WriteOutcome,
)

Observer = Callable[[Snapshot, Record], None]

NS_PER_MS = 1_000_000
UNLOGGED_MAX = 100
"""Events that may wait for the event log before the loop gives up."""


@dataclass(slots=True)
class Counters:
    """What happened since the start; shown to operators, never decided on."""

    cycles: int = 0
    skipped: int = 0
    late_frames: int = 0
    failed_frames: int = 0


@dataclass(slots=True)
class Loop:
    """One application on its devices.

    Attributes:
        dry_run: frames are decided and journalled but never handed to a device.
        observers: called with every snapshot and record after the cycle is done.
    """

    application: Application
    devices: Sequence[Transport]
    journal: Journal
    inbox: Inbox
    clock: Clock
    state: LoopState = field(default_factory=LoopState)
    dry_run: bool = False
    observers: Sequence[Observer] = ()
    counters: Counters = field(default_factory=Counters)
    _writes: Mapping[str, WriteOutcome] = field(default_factory=lambda: dict[str, WriteOutcome]())
    _frames: Mapping[str, Mapping[str, float]] = field(
        default_factory=lambda: dict[str, Mapping[str, float]]()
    )
    _unlogged: list[tuple[Record, str]] = field(default_factory=lambda: list[tuple[Record, str]]())
    _deadline_ns: int = -1
    _stopping: bool = False

    def stop(self) -> None:
        """Ask the loop to hand back to the PLC and end with the next cycle."""
        self._stopping = True

    def run(self, cycles: int | None = None) -> None:
        """Cycle until stopped, or for a number of cycles; hands back to the PLC on the way out.

        With a number of cycles the last one hands back; when stopped, a further one does at once.

        Raises:
            JournalError: what was decided can no longer be kept; control has been handed back.
        """
        try:
            while not self._stopping and (cycles is None or self.counters.cycles < cycles):
                skipped = self._wait()
                last = cycles is not None and self.counters.cycles == cycles - 1
                if not self._stopping:
                    self._decide(skipped, "the last cycle of this run" if last else "")
        finally:
            self.hand_back("the controller was stopped")

    def cycle(self) -> Record:
        """One cycle at its deadline. A missed deadline skips whole cycles, it never bursts."""
        return self._decide(self._wait())

    def _decide(self, skipped: int, leaving: str = "") -> Record:
        """One cycle now; with a reason for `leaving` it hands back."""
        started_ns = self.clock.monotonic_ns()
        time_ns = self.clock.time_ns()
        samples = self._read()
        messages = self.inbox.poll(time_ns)
        if leaving:
            commands = (*messages.commands, self._off(time_ns, leaving))
            messages = replace(messages, commands=commands)
        snapshot = self._snapshot(time_ns, samples, messages, skipped)
        snapshot_digest = self.journal.append_snapshot(snapshot)
        read_ns = self.clock.monotonic_ns()
        self.state, record = step(self.application, self.state, snapshot)
        stepped_ns = self.clock.monotonic_ns()
        self._writes = self._write(record)
        written_ns = self.clock.monotonic_ns()
        timing = Timing(
            lateness_ms=(started_ns - self._deadline_ns) / NS_PER_MS,
            read_ms=(read_ns - started_ns) / NS_PER_MS,
            step_ms=(stepped_ns - read_ns) / NS_PER_MS,
            write_ms=(written_ns - stepped_ns) / NS_PER_MS,
        )
        # Written down only now: the frames are on their way already.
        kept = encode_record(record, snapshot_digest, timing)
        self.journal.append_record(record.cycle, record.time_ns, kept)
        self._log(record)
        self.counters.cycles += 1
        for observer in self.observers:
            observer(snapshot, record)
        return record

    def _log(self, record: Record) -> None:
        """Put the events of a record into the event log too; kept for later while it is locked.

        They are safe in the record already, so another process that holds the event log for a
        while (a backup) is no reason to give up the plant.
        """
        self._unlogged += [(record, text) for text in record.events]
        try:
            while self._unlogged:
                source, text = self._unlogged[0]
                body = {"cycle": source.cycle, "text": text}
                self.journal.append_event(source.time_ns, "cycle", body)
                self._unlogged.pop(0)
        except JournalError:
            if len(self._unlogged) > UNLOGGED_MAX:
                raise

    def _off(self, time_ns: int, reason: str) -> Command:
        return Command(
            command_id=f"stop-{self.application.epoch}",
            kind=CommandKind.MODE,
            time_ns=time_ns,
            text="off",
            who="controller",
            why=reason,
        )

    def hand_back(self, reason: str) -> None:
        """Give every MV back to the PLC, if any is held, with one last frame per device."""
        mode = self.state.mode
        if mode.mode not in (Mode.READY, Mode.ACTIVE):
            return
        time_ns = self.clock.time_ns()
        command = self._off(time_ns, reason)
        samples = self._read()
        snapshot = self._snapshot(time_ns, samples, Messages(commands=(command,)), 0)
        # Handing back comes before keeping books: a broken journal must not prevent it, and the
        # error that broke it is already on its way up.
        snapshot_digest = ""
        with suppress(JournalError):
            snapshot_digest = self.journal.append_snapshot(snapshot)
        try:
            self.state, record = step(self.application, self.state, snapshot)
        except Exception:
            # Deciding itself is broken: withdraw the requests of the last frames, then let it show.
            application = self.application
            self._send(release(application.guarded_mvs, application.guarded_devices, self._frames))
            raise
        self._writes = self._write(record, in_time=True)
        with suppress(JournalError):
            kept = encode_record(record, snapshot_digest)
            self.journal.append_record(record.cycle, time_ns, kept)
            text = f"handed back: {reason}"
            self.journal.append_event(time_ns, "cycle", {"cycle": record.cycle, "text": text})

    def _wait(self) -> int:
        """Sleep until the next deadline; how many deadlines have been missed before it."""
        period_ns = round(self.application.cycle_s * NS_PER_S)
        now_ns = self.clock.monotonic_ns()
        if self._deadline_ns < 0:
            self._deadline_ns = now_ns
            return 0
        next_ns = self._deadline_ns + period_ns
        # More than half a period late counts as missed, or two cycles would follow at once.
        skipped = max(0, (now_ns - next_ns + period_ns // 2) // period_ns)
        self._deadline_ns = next_ns + skipped * period_ns
        self.counters.skipped += skipped
        self.journal.rest(self._deadline_ns)
        self.clock.sleep_until(self._deadline_ns)
        return skipped

    def _read(self) -> dict[str, Sample]:
        """Every tag of every device; the devices are read side by side."""
        for device in self.devices:
            device.begin_read()
        samples: dict[str, Sample] = {}
        for device in self.devices:
            samples |= device.finish_read()
        return samples

    def _snapshot(
        self, time_ns: int, samples: Mapping[str, Sample], messages: Messages, skipped: int
    ) -> Snapshot:
        return Snapshot(
            cycle=self.state.cycle + 1 + skipped,
            time_ns=time_ns,
            samples=samples,
            quality_results=messages.quality_results,
            commands=messages.commands,
            proposals=messages.proposals,
            writes=self._writes,
            skipped=skipped,
        )

    def _write(self, record: Record, in_time: bool = False) -> dict[str, WriteOutcome]:
        """Hand the guard's frames to their devices, unless the cycle is already over."""
        frames = record.move.frames
        if not frames or self.dry_run:
            return {}
        period_ns = round(self.application.cycle_s * NS_PER_S)
        if not in_time and self.clock.monotonic_ns() >= self._deadline_ns + period_ns:
            self.counters.late_frames += len(frames)
            return dict.fromkeys(frames, WriteOutcome.LATE)
        self._frames = frames
        return self._send(frames)

    def _send(self, frames: Mapping[str, Mapping[str, float]]) -> dict[str, WriteOutcome]:
        """Write frames, all devices at once."""
        outcome: dict[str, WriteOutcome] = {}
        addressed = [device for device in self.devices if device.name in frames]
        for device in addressed:
            device.begin_write(frames[device.name])
        for device in addressed:
            report = device.finish_write()
            outcome[device.name] = report.outcome
            if report.outcome is not WriteOutcome.WRITTEN:
                self.counters.failed_frames += 1
        return outcome
