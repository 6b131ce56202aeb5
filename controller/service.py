"""`loopwright run`: the loop on real devices, the slow layer in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing as mp
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import Any

from controller.advice import Advice
from controller.app import build_advice, build_application, open_devices
from controller.clock import SystemClock
from controller.cycle.record import (
    Record,
    decode_record,
    decode_snapshot,
    encode_wishes,
    last_wishes,
)
from controller.cycle.state import LoopState, Wishes
from controller.drivers.connection import OwnedConnection
from controller.errors import ClockError, DeviceError, DeviceRefused, DeviceUnreachable
from controller.historian.events import EventStore
from controller.historian.journal import open_journal
from controller.historian.reader import CycleRow, open_reader
from controller.historian.samples import SAMPLES_FILE
from controller.loop import Loop, Observer
from controller.ports import Clock
from controller.settings import Settings, load, parse
from controller.signal import NS_PER_S, Command, CommandKind, Proposal, Snapshot, Status
from controller.terminal import messages

# The slow layer looks for new records that often; it is in no hurry.
POLL_S = 2.0
EARLIEST_NS = 1_767_225_600 * NS_PER_S
"""2026-01-01T00:00:00Z: no real clock shows less."""
# A slow layer that dies is started again, but not more often than this.
RESTART_S = 30.0


def run_application(
    config: Path,
    *,
    data_dir: Path | None = None,
    dry_run: bool = False,
    cycles: int | None = None,
    mode: str = "manual",
) -> dict[str, Any]:
    """Run until Ctrl-C, SIGTERM or `cycles`; hands back to the PLC first. Returns counters.

    Raises:
        SettingsError: the file is wrong.
        DeviceError: a PLC cannot be reached, or refuses to be read; nothing has been written.
        JournalError: the data directory cannot be used, or filled up on the way.
    """
    settings = load(config)
    clock = SystemClock()
    _require_time(clock)
    devices = open_devices(settings, clock)
    try:
        probe(settings, devices)
        directory = data_dir or settings.data_dir
        wishes = kept_wishes(directory)
        with open_journal(
            directory,
            start_ns=clock.time_ns(),
            settings_text=settings.text,
            settings_path=settings.path,
            initial_state=encode_wishes(wishes),
            monotonic_ns=clock.monotonic_ns,
        ) as journal:
            application = build_application(settings, journal.epoch)
            _ask_for(journal.events, mode, journal.epoch, clock)
            slow = SlowLayer(settings, directory)
            loop = Loop(
                application,
                devices,
                journal,
                journal.inbox(),
                clock,
                state=LoopState(wishes=wishes),
                dry_run=dry_run,
                observers=(_Harmless(_Display()), _Harmless(slow.watch)),
            )
            _stop_on_signals(loop, clock)
            slow.start()
            try:
                # What was built so far stays: the collector need not look at it in the cycles.
                gc.collect()
                gc.freeze()
                loop.run(cycles)
            finally:
                slow.stop()
            return {
                "cycles": loop.counters.cycles,
                "skipped": loop.counters.skipped,
                "late_frames": loop.counters.late_frames,
                "failed_frames": loop.counters.failed_frames,
                "mode": loop.state.mode.mode.value,
                "data": str(directory),
            }
    finally:
        for device in devices:
            device.close()


def kept_wishes(directory: Path) -> Wishes:
    """Limits, setpoints and holds that operators had set when the last controller ended."""
    if not (directory / SAMPLES_FILE).exists():
        return Wishes()
    with open_reader(directory) as reader:
        last = reader.last_record()
    return Wishes() if last is None or last.record is None else last_wishes(last.record)


def _require_time(clock: Clock) -> None:
    """Lab samples and journals are useless on a clock that has never been set."""
    if clock.time_ns() < EARLIEST_NS:
        raise ClockError(
            "the clock of this machine has not been set: it shows a time before this software was "
            "written",
            where="system clock",
            mend="Set it, and let NTP or PTP keep it",
        )


def probe(settings: Settings, devices: Sequence[OwnedConnection]) -> None:
    """Read every device once before anything starts.

    Raises:
        DeviceError: a device does not answer, or refuses some of its tags.
    """
    for device in devices:
        device.begin_read()
    for device in devices:
        samples = device.finish_read()
        where = settings.where(f"devices.{device.name}")
        refused = [
            name for name, s in samples.items() if s.status is Status.BAD_CONFIGURATION_ERROR
        ]
        error = device.last_error
        if refused:
            detail = f": {error.what}" if error is not None else ""
            raise DeviceRefused(
                f"{device.name} does not have the tags {', '.join(refused)}{detail}",
                where=settings.where(f"tags.{refused[0]}"),
                mend=error.mend if error is not None and error.mend else "Correct their addresses",
            )
        if any(sample.status.is_bad for sample in samples.values()):
            raise _unanswered(device.name, where, error)


def _unanswered(name: str, where: str, error: DeviceError | None) -> DeviceError:
    if error is None:
        return DeviceUnreachable(
            f"{name} does not answer within its time-out",
            where=where,
            mend="Check host, port and cable, or allow a longer timeout",
        )
    place = f" ({error.where})" if error.where and error.where != name else ""
    return type(error)(f"{name}{place}: {error.what}", where=where, mend=error.mend)


def _ask_for(store: EventStore, mode: str, epoch: int, clock: Clock) -> None:
    """The mode wanted at the start goes the way of every command, so that replay sees it."""
    store.add_command(
        Command(
            command_id=f"start-{clock.time_ns()}-{epoch}",
            kind=CommandKind.MODE,
            time_ns=clock.time_ns(),
            text=mode,
            who="loopwright run",
            why="--mode",
        )
    )


def _stop_on_signals(loop: Loop, clock: SystemClock) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        loop.stop()
        clock.wake()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


class _Harmless:
    """An observer that can never stop control: when it fails, it is not called again."""

    def __init__(self, observer: Observer) -> None:
        self._observer: Observer | None = observer
        self.error: Exception | None = None

    def __call__(self, snapshot: Snapshot, record: Record) -> None:
        if self._observer is None:
            return
        try:
            self._observer(snapshot, record)
        except Exception as error:  # noqa: BLE001  whatever it is, the plant matters more
            self._observer, self.error = None, error


class _Display:
    """One line on stderr for every change, so that a log of months stays readable."""

    def __init__(self) -> None:
        self._console = messages()
        self._last: tuple[object, ...] = ()

    def __call__(self, snapshot: Snapshot, record: Record) -> None:
        shown = (record.mode, record.doubts, tuple(record.mv_status.items()))
        if shown == self._last and not record.events:
            return
        self._last = shown
        mvs = ", ".join(f"{name} {status}" for name, status in record.mv_status.items())
        self._console.print(f"cycle {record.cycle}  {record.mode}  {mvs}", markup=False)
        for text in (*record.doubts, *record.events):
            self._console.print(f"    {text}", markup=False)


@dataclass(slots=True)
class SlowLayer:
    """The optimizer's process: started, watched, and started again when it dies.

    It only reads the journal and only writes proposals, so its death delays no cycle.
    """

    settings: Settings
    directory: Path
    _process: SpawnProcess | None = None
    _stop: Event | None = None
    _started_ns: int = 0

    def start(self) -> None:
        if self.settings.optimizer is None:
            return
        context = mp.get_context("spawn")
        self._stop = context.Event()
        process = context.Process(
            target=slow_layer,
            args=(str(self.settings.path), str(self.directory), self._stop),
            name="loopwright-optimizer",
            daemon=True,
        )
        process.start()
        self._process = process

    def watch(self, snapshot: Snapshot, record: Record) -> None:
        """An observer of the loop: restarts the process if it has died."""
        if self._process is None or self._process.is_alive():
            return
        if snapshot.time_ns - self._started_ns < RESTART_S * NS_PER_S:
            return
        messages().print("the optimizer's process ended; starting it again", markup=False)
        self._started_ns = snapshot.time_ns
        self.start()

    def stop(self) -> None:
        if self._process is None or self._stop is None:
            return
        self._stop.set()
        self._process.join(2 * POLL_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(POLL_S)


def slow_layer(config: str, directory: str, stop: Event) -> None:
    """Body of the optimizer's process: follow the journal, add proposals to the inbox.

    It learns from every start that had the settings of the running one, and proposes only for the
    running one. `config` is where its relative paths start.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the loop; it will tell us.
    with open_reader(directory) as reader, EventStore(directory) as store:
        running = reader.segments()[-1]
        advice = build_advice(parse(running.settings_text, Path(config), running.overrides))
        if advice is None:
            return
        newest: dict[int, int] = {}
        loop = mp.parent_process()
        # Nobody tells it to stop when the loop was killed.
        while not stop.wait(POLL_S) and (loop is None or loop.is_alive()):
            for segment in reader.segments():
                if segment.settings_text != running.settings_text:
                    continue
                begin = newest.get(segment.segment, -1) + 1
                for row in reader.cycles(segment.segment, from_cycle=begin):
                    if row.record is None:
                        break  # Not decided yet: it will be there at the next look.
                    proposal = _considered(advice, row)
                    newest[segment.segment] = row.cycle
                    if proposal is not None and segment.segment == running.segment:
                        name = f"{running.segment}-{proposal.proposal_id}-{row.cycle}"
                        store.add_proposal(replace(proposal, proposal_id=name))


def _considered(advice: Advice, row: CycleRow) -> Proposal | None:
    record = decode_record(row.record or b"")
    return advice.consider(decode_snapshot(row.snapshot), record["mode"], record["readings"])
