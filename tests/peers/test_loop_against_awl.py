"""The production loop, driver and journal, against a PLC whose program runs in awlsim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from controller.app import build_application, open_devices
from controller.cycle.record import Record
from controller.historian.journal import SqliteJournal, open_journal
from controller.historian.reader import open_reader
from controller.loop import Loop
from controller.replay import replay
from controller.settings import Settings, changed, load
from controller.signal import NS_PER_S, Command, CommandKind, Snapshot
from hil.world import START_NS, LockstepClock
from tests.peers.awl_plc import AwlPlc, LoopSettings

pytestmark = pytest.mark.peer

APPLICATION = Path(__file__).parent / "awl" / "reactor.yaml"
SETPOINT = 90.0
STEP = 1.0 + 1e-4  # 6 K/min over a cycle of 10 s, and the rounding of REAL
WATCHDOG_SCANS = 3
HOLD_CYCLES = 3


@dataclass(slots=True)
class Bench:
    """Controller and PLC in lock-step: the PLC scans once whenever a cycle of time passes."""

    plc: AwlPlc
    directory: Path
    settings: Settings
    pv: float | None = None
    in_use: list[float] = field(default_factory=list[float])
    records: list[Record] = field(default_factory=list[Record])
    clock: LockstepClock = field(init=False)
    journal: SqliteJournal = field(init=False)
    loop: Loop = field(init=False)
    _scanned_ns: int = START_NS
    _said: int = 0

    def start(self, stack: ExitStack) -> None:
        self.clock = LockstepClock(self._run_until)
        self.journal = stack.enter_context(
            open_journal(
                self.directory,
                start_ns=START_NS,
                settings_text=self.settings.text,
                settings_path=self.settings.path,
            )
        )
        devices = open_devices(self.settings, self.clock)
        for device in devices:
            stack.callback(device.close)
        application = build_application(self.settings, self.journal.epoch)
        inbox = self.journal.inbox()
        self.loop = Loop(
            application, devices, self.journal, inbox, self.clock, observers=(self._watch,)
        )

    def ask(self, mode: str) -> None:
        self._said += 1
        command = Command(
            f"c{self._said}", CommandKind.MODE, self.clock.time_ns(), text=mode, who="test"
        )
        self.journal.events.add_command(command)

    def cycles(self, count: int) -> Record:
        for _ in range(count):
            self.loop.cycle()
        return self.records[-1]

    def silence(self, cycles: int) -> None:
        """The controller does nothing for so long; the PLC scans on."""
        cycle_ns = round(self.settings.cycle_s * NS_PER_S)
        self.clock.sleep_until(self.clock.monotonic_ns() + cycles * cycle_ns)

    def activate(self, ramp: int = 0) -> None:
        """To ACTIVE, and so many cycles on the way to the setpoint."""
        self.ask("auto")
        for _ in range(12):
            if self.cycles(1).mode == "ACTIVE":
                break
        assert self.records[-1].mode == "ACTIVE"
        self.cycles(1 + ramp)
        assert self.plc.remote

    def modes(self) -> list[str]:
        """Modes in order of appearance, without repetition in a row."""
        modes = [record.mode for record in self.records]
        return [b for a, b in zip(["", *modes], modes, strict=False) if a != b]

    def largest_step(self, since: int) -> float:
        return float(np.max(np.abs(np.diff(self.in_use[since:]))))

    def _run_until(self, time_ns: int) -> None:
        cycle_ns = round(self.settings.cycle_s * NS_PER_S)
        while self._scanned_ns + cycle_ns <= time_ns:
            self._scanned_ns += cycle_ns
            self.plc.scan(self.pv)
            self.in_use.append(self.plc.setpoint_in_use)

    def _watch(self, _: Snapshot, record: Record) -> None:
        self.records.append(record)


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        plc = stack.enter_context(AwlPlc(LoopSettings(watchdog=WATCHDOG_SCANS)))
        settings = changed(load(APPLICATION), {"devices.reactor.port": plc.port})
        bench = Bench(plc, tmp_path, settings)
        bench.start(stack)
        bench.plc.scan()
        yield bench


def test_from_manual_to_active_and_to_the_setpoint(bench: Bench) -> None:
    bench.ask("manual")
    bench.cycles(4)
    assert bench.records[-1].plan is not None  # it predicts …
    assert bench.plc.frame.heartbeat == 0  # … and has written nothing
    bench.ask("auto")
    while bench.cycles(1).mode in ("MANUAL", "INIT"):
        assert len(bench.records) < 20
        assert bench.plc.frame.heartbeat == 0
    assert bench.records[-1].mode == "READY"
    assert bench.plc.frame.heartbeat > 0  # it lives, but asks for nothing yet
    assert bench.plc.frame.request == 0
    start = len(bench.in_use)
    assert bench.cycles(2).mode == "ACTIVE"
    assert bench.modes() == ["MANUAL", "INIT", "READY", "ACTIVE"]
    bench.cycles(100)
    assert bench.plc.remote
    assert bench.records[-1].mv_status == {"T_loop": "ON"}
    assert bench.in_use[start] == pytest.approx(80.0, abs=STEP)
    assert 0.9 < bench.largest_step(start) <= STEP  # at the limit, never over it


def test_holds_the_setpoint_without_offset_though_its_model_is_wrong(bench: Bench) -> None:
    bench.activate(ramp=100)
    temperatures = []
    for _ in range(20):
        bench.cycles(1)
        temperatures.append(bench.plc.process_value)
    assert temperatures == pytest.approx([SETPOINT] * 20, abs=0.05)
    estimate = bench.records[-1].estimate
    assert estimate is not None
    # The model, with its gain of 0.7, would rest 3 K below: so much the estimator must carry.
    assert estimate.disturbance == pytest.approx([3.0], abs=0.1)


def test_a_silent_controller_loses_the_loop_and_gets_it_back_without_a_bump(bench: Bench) -> None:
    bench.activate(ramp=4)
    start = len(bench.in_use)
    before = bench.plc.setpoint_in_use
    assert 80.0 < before < SETPOINT
    bench.silence(WATCHDOG_SCANS)
    assert bench.plc.remote  # the last frame was new in the first of these scans
    last = bench.plc.setpoint_in_use
    bench.silence(WATCHDOG_SCANS)
    assert not bench.plc.remote
    assert bench.plc.setpoint_in_use == last
    record = bench.cycles(1)
    assert record.mv_status["T_loop"] == "LOCAL"
    assert bench.plc.frame.setpoint == last
    assert bench.loop.counters.skipped >= WATCHDOG_SCANS
    bench.cycles(12)
    assert bench.plc.remote
    assert bench.records[-1].mode == "ACTIVE"
    bench.cycles(60)
    assert bench.largest_step(start) <= STEP
    assert bench.plc.process_value == pytest.approx(SETPOINT, abs=0.1)


def test_the_operator_takes_the_loop_and_the_controller_goes_on(bench: Bench) -> None:
    bench.activate(ramp=4)
    start = len(bench.in_use)
    bench.plc.set("permit", False)
    bench.cycles(2)
    taken_at = bench.plc.setpoint_in_use
    record = bench.cycles(3)
    assert record.mode == "ACTIVE"
    assert record.mv_status == {"T_loop": "LOCAL"}
    assert record.doubts == ()
    assert record.plan is not None
    assert not bench.plc.remote
    assert bench.plc.setpoint_in_use == taken_at

    bench.plc.set("local_sp", taken_at - 3.0)  # the operator moves it, one PLC ramp step
    bench.cycles(2)
    assert bench.plc.frame.setpoint == pytest.approx(taken_at - 3.0, abs=1e-4)  # tracked
    beat = bench.plc.frame.heartbeat
    bench.cycles(5)
    assert bench.plc.frame.heartbeat == beat + 5

    given_back = len(bench.in_use)
    bench.plc.set("permit", True)
    bench.cycles(2)
    assert bench.plc.remote
    bench.cycles(60)
    assert bench.records[-1].mv_status == {"T_loop": "ON"}
    assert bench.largest_step(given_back - 1) <= STEP
    assert bench.in_use[start:given_back].count(taken_at - 3.0) >= 5
    assert bench.plc.process_value == pytest.approx(SETPOINT, abs=0.1)


def test_not_a_number_is_held_then_shed_and_comes_back(bench: Bench) -> None:
    bench.activate(ramp=4)
    healthy = bench.plc.process_value
    bench.pv = math.nan
    bench.cycles(1)
    start, held = len(bench.in_use) - 1, bench.plc.setpoint_in_use
    for _ in range(HOLD_CYCLES - 1):
        record = bench.cycles(1)
        assert record.mode == "ACTIVE"
        assert record.move.reasons["T_loop"].startswith("held")
        assert any(doubt.startswith("PV:") for doubt in record.doubts)
        assert bench.plc.frame.request == 1
        assert bench.plc.frame.setpoint == pytest.approx(held, abs=1e-4)
    shed = bench.cycles(1)
    assert shed.mode == "SHED"
    assert bench.plc.frame.request == 0  # handed back in so many words, not by silence
    frame = bench.plc.frame
    bench.cycles(3)
    assert bench.plc.frame == frame  # and after that, nothing more
    assert not bench.plc.remote
    assert bench.plc.setpoint_in_use == pytest.approx(held, abs=1e-4)

    bench.pv = healthy
    bench.cycles(1)
    bench.pv = None
    bench.cycles(12)
    assert bench.modes()[-4:] == ["SHED", "INIT", "READY", "ACTIVE"]
    bench.cycles(60)
    assert bench.largest_step(start) <= STEP
    assert bench.plc.process_value == pytest.approx(SETPOINT, abs=0.1)
    assert all(math.isfinite(value) for value in bench.in_use)


def test_stopping_hands_the_loop_back_and_the_journal_replays(bench: Bench) -> None:
    bench.activate(ramp=8)
    last = bench.plc.setpoint_in_use
    bench.loop.hand_back("end of test")
    assert bench.plc.frame.request == 0
    bench.silence(1)
    assert not bench.plc.remote
    assert bench.plc.setpoint_in_use == pytest.approx(last, abs=STEP)
    bench.journal.flush()
    with open_reader(bench.directory) as reader:
        application = bench.loop.application
        outcome = list(replay(reader, lambda _: application))[-1]
    assert outcome.passed
    assert outcome.cycles == len(bench.records) + 1  # the frame that handed back is one, too
