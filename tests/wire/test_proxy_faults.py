"""Every link fault on both protocols: the production drivers on a real wire, and without one.

The same script runs twice, through the drivers, the proxy and the servers, and through the virtual
tier's transport; statuses, values, outcomes and the writes that reached the PLC have to be equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

import pytest

from controller.drivers.modbus import open_modbus_tcp
from controller.drivers.s7 import open_s7
from controller.errors import ScenarioError
from controller.ports import Transport
from controller.signal import NS_PER_S, Sample, Status, Tag, WriteOutcome
from hil.faults.kinds import KINDS, Driver, LinkFault
from hil.link.frames import WireWrite, writes_in
from hil.link.proxy import FaultProxy
from hil.link.servers import ModbusServer, S7Server
from hil.link.virtual_transport import MemoryTransport
from hil.plc_memory import DeviceMemory

SEED, LINE_SEED = 3, 11
PATIENT_S = 10.0  # for faults that never let a request wait: no slow machine runs into it
HASTY_S = 0.3  # for faults that do
CYCLE_S = 10.0  # longer than the longest backoff

TAGS: Mapping[Driver, Sequence[Tag]] = {
    "s7": (
        Tag("HB", "plc", "DB20.DBW0:UINT", "uint16", access="write"),
        Tag("SEQ", "plc", "DB20.DBW2:UINT", "uint16", access="write"),
        Tag("SP", "plc", "DB20.DBD4:REAL", "float32", access="write"),
        Tag("MODE", "plc", "DB20.DBW20:UINT", "uint16"),
        Tag("PV", "plc", "DB20.DBD22:REAL", "float32"),
        Tag("RUN", "plc", "DB20.DBX26.3:BOOL", "bool"),
        Tag("LEVEL", "plc", "DB20.DBD60:REAL", "float32", scale=0.5),  # a second request
    ),
    "modbus": (
        Tag("HB", "plc", "holding:0:uint16", "uint16", access="write"),
        Tag("SEQ", "plc", "holding:1:uint16", "uint16", access="write"),
        Tag("SP", "plc", "holding:2:float32", "float32", "CDAB", access="write"),
        Tag("MODE", "plc", "holding:20:uint16", "uint16"),
        Tag("PV", "plc", "holding:21:float32", "float32", "CDAB"),
        Tag("LEVEL", "plc", "holding:60:float32", "float32", scale=0.5),  # a second request
    ),
}


class StepClock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * NS_PER_S

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        self.now_ns = max(self.now_ns, monotonic_ns)


@dataclass(frozen=True)
class Cycle:
    """What the controller saw in one cycle."""

    reads: Mapping[str, tuple[Status, str]]
    outcome: WriteOutcome

    @property
    def statuses(self) -> set[Status]:
        return {status for status, _ in self.reads.values()}

    @property
    def is_good(self) -> bool:
        return self.statuses == {Status.GOOD} and self.outcome is WriteOutcome.WRITTEN


@dataclass
class Side:
    """One way to the PLC: its memory, the transport, and what raises faults."""

    driver: Driver
    memory: DeviceMemory
    transport: Transport
    begin: Callable[[str, Mapping[str, float]], None]
    end: Callable[[str], None]
    clock: StepClock
    settle_s: float = 0.0
    writes: list[WireWrite] = field(default_factory=lambda: list[WireWrite]())
    number: int = 0

    def cycle(self, cycle_s: float = CYCLE_S) -> Cycle:
        self.clock.now_ns += round(cycle_s * NS_PER_S)
        self.number += 1
        self.memory.set("MODE", self.number)
        self.memory.set("PV", 20.25 + self.number)
        self.memory.set("LEVEL", 0.5 * self.number)
        self.transport.begin_read()
        samples = self.transport.finish_read()
        assert all(isinstance(s, Sample) and isinstance(s.status, Status) for s in samples.values())
        assert {s.received_ns for s in samples.values()} == {self.clock.now_ns}
        self.transport.begin_write(
            {"HB": self.number, "SEQ": 7 * self.number, "SP": 50.5 + self.number}
        )
        outcome = self.transport.finish_write().outcome
        if Status.BAD_NO_COMMUNICATION in {s.status for s in samples.values()}:
            # A cycle of a plant outlasts the time-out, so the next finds no connecting under way.
            time.sleep(self.settle_s)
        seen = {name: (s.status, repr(_plain(s.value))) for name, s in sorted(samples.items())}
        return Cycle(seen, outcome)


def _plain(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


@contextmanager
def wire(
    driver: Driver, timeout_s: float, seed: int = LINE_SEED, tags: Sequence[Tag] = ()
) -> Iterator[Side]:
    memory, clock, tags = DeviceMemory("plc", TAGS[driver]), StepClock(), tags or TAGS[driver]
    with ExitStack() as stack:
        server = S7Server(memory) if driver == "s7" else ModbusServer(memory)
        stack.enter_context(server)
        writes: list[WireWrite] = []

        def hear(direction: str, frame: bytes) -> None:
            if direction == "to_plc":
                writes.extend(writes_in(driver, frame))

        proxy = stack.enter_context(
            FaultProxy(
                driver,
                server.port,
                seed=seed,
                on_frame=hear,
                layout=[cell.place for cell in memory.cells.values()],
                storm_clock_ns=clock.monotonic_ns,
            )
        )
        dial = open_s7 if driver == "s7" else open_modbus_tcp
        transport = dial(
            "plc", tags, clock, host="127.0.0.1", port=proxy.port, timeout_s=timeout_s, seed=SEED
        )
        stack.enter_context(closing(transport))
        settle_s = 2.2 * timeout_s if timeout_s < 1.0 and driver == "s7" else 0.0
        yield Side(driver, memory, transport, proxy.begin, proxy.end, clock, settle_s, writes)


@contextmanager
def virtual(
    driver: Driver, timeout_s: float, seed: int = LINE_SEED, tags: Sequence[Tag] = ()
) -> Iterator[Side]:
    memory, clock, tags = DeviceMemory("plc", TAGS[driver]), StepClock(), tags or TAGS[driver]
    writes: list[WireWrite] = []
    transport = MemoryTransport(
        memory,
        tags,
        clock,
        lambda _, seen: writes.extend(seen),
        timeout_s=timeout_s,
        seed=SEED,
        line_seed=seed,
    )
    with closing(transport):
        yield Side(driver, memory, transport, transport.begin, transport.end, clock, writes=writes)


def run(
    side: Side, fault: str, args: Mapping[str, float], cycles: int, after: int, cycle_s: float
) -> list[Cycle]:
    seen = [side.cycle(cycle_s), side.cycle(cycle_s)]
    assert all(cycle.is_good for cycle in seen)
    side.begin(fault, args)
    seen += [side.cycle(cycle_s) for _ in range(cycles)]
    side.end(fault)
    return seen + [side.cycle(cycle_s) for _ in range(after)]


NONE: Mapping[str, float] = {}
BAD = {Status.BAD_COMMUNICATION_ERROR, Status.BAD_NO_COMMUNICATION}
# Driver, fault, arguments, time-out, cycles under the fault, statuses seen under it, outcomes.
F, R, W = WriteOutcome.FAILED, WriteOutcome.REFUSED, WriteOutcome.WRITTEN
COMM, CONF, GOOD = Status.BAD_COMMUNICATION_ERROR, Status.BAD_CONFIGURATION_ERROR, Status.GOOD
LOST = Status.BAD_NO_COMMUNICATION
CASES = [
    ("s7", "cable_cut", NONE, HASTY_S, 2, {COMM, LOST}, {F}),
    ("modbus", "cable_cut", NONE, HASTY_S, 2, {COMM, LOST}, {F}),
    ("s7", "half_open", NONE, HASTY_S, 2, {COMM, GOOD}, {F, W}),
    ("modbus", "half_open", NONE, HASTY_S, 2, {COMM, GOOD}, {F, W}),
    ("s7", "reset", NONE, PATIENT_S, 4, {COMM, LOST}, {F}),
    ("modbus", "reset", NONE, PATIENT_S, 4, {COMM}, {F}),
    ("s7", "refuse", NONE, PATIENT_S, 4, {COMM, LOST}, {F}),
    ("modbus", "refuse", NONE, PATIENT_S, 4, {COMM, LOST}, {F}),
    ("s7", "delay", {"delay_ms": 2, "jitter_ms": 2}, PATIENT_S, 4, {GOOD}, {W}),
    ("modbus", "delay", {"delay_ms": 2, "jitter_ms": 2}, PATIENT_S, 4, {GOOD}, {W}),
    ("s7", "delay", {"delay_ms": 200}, HASTY_S, 2, {COMM, LOST}, {F}),
    ("modbus", "delay", {"delay_ms": 200}, HASTY_S, 2, {COMM}, {F}),
    ("s7", "drop", {"probability": 1}, HASTY_S, 2, {COMM, LOST}, {F}),
    ("modbus", "drop", {"probability": 1}, HASTY_S, 2, {COMM}, {F}),
    ("s7", "drop", {"probability": 0.15}, HASTY_S, 8, {COMM, LOST, GOOD}, {F, W}),
    ("modbus", "drop", {"probability": 0.2}, HASTY_S, 12, {COMM, GOOD}, {F, W}),
    ("modbus", "modbus_exception", {"code": 2}, PATIENT_S, 5, {CONF}, {R}),
    ("modbus", "modbus_exception", {"code": 4}, PATIENT_S, 5, {COMM}, {R}),
    ("modbus", "modbus_exception", {"code": 6}, PATIENT_S, 5, {COMM}, {R}),
    ("modbus", "modbus_exception", {"code": 2, "probability": 0.3}, PATIENT_S, 40,
     {GOOD, CONF}, {F, R, W}),
    ("modbus", "modbus_exception", {"code": 6, "probability": 0.3}, PATIENT_S, 40,
     {GOOD, COMM}, {F, R, W}),
    ("s7", "s7_error", NONE, PATIENT_S, 5, {COMM}, {R}),
    ("s7", "s7_error", {"code": 0x03}, PATIENT_S, 5, {COMM}, {R}),
    ("s7", "s7_error", {"code": 0x05}, PATIENT_S, 5, {CONF}, {R}),
    ("s7", "s7_error", {"code": 0x0A}, PATIENT_S, 5, {CONF}, {R}),
    ("s7", "s7_error", {"code": 0x8701}, PATIENT_S, 5, {CONF}, {R}),
    ("s7", "s7_error", {"probability": 0.3}, PATIENT_S, 40, {GOOD, COMM}, {F, R, W}),
    ("s7", "byte_order", NONE, PATIENT_S, 4, {GOOD}, {F}),
    ("modbus", "byte_order", NONE, PATIENT_S, 4, {GOOD}, {F}),
    ("s7", "word_order", NONE, PATIENT_S, 4, {GOOD}, {F}),
    ("modbus", "word_order", NONE, PATIENT_S, 4, {GOOD}, {F}),
    ("s7", "stale_image", NONE, PATIENT_S, 4, {GOOD}, {F}),
    ("modbus", "stale_image", NONE, PATIENT_S, 4, {GOOD}, {F}),
    ("s7", "reconnect_storm", {"period_ms": 25_000}, PATIENT_S, 12, {GOOD, COMM}, {F, W}),
    ("modbus", "reconnect_storm", {"period_ms": 25_000}, PATIENT_S, 12, {GOOD, COMM}, {F, W}),
    ("s7", "reconnect_storm", {"period_ms": 400}, PATIENT_S, 12, {GOOD, COMM}, {F, W}),
    ("modbus", "reconnect_storm", {"period_ms": 400}, PATIENT_S, 12, {GOOD, COMM}, {F, W}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "fault", "args", "timeout_s", "cycles", "statuses", "outcomes"), CASES
)
def test_the_wire_and_the_virtual_line_agree(
    driver: Driver,
    fault: str,
    args: Mapping[str, float],
    timeout_s: float,
    cycles: int,
    statuses: set[Status],
    outcomes: set[WriteOutcome],
) -> None:
    after = 9 if CONF in statuses else 4  # a refused address is tried again after 60 s at last
    with wire(driver, timeout_s) as real, virtual(driver, timeout_s) as line:
        on_wire = run(real, fault, args, cycles, after, CYCLE_S)
        without = run(line, fault, args, cycles, after, CYCLE_S)
        assert on_wire == without
        assert real.writes == line.writes, "the same frames reached the PLC, unaltered"
        assert real.memory.areas == line.memory.areas
    disturbed = on_wire[2 : 2 + cycles]
    if fault == "drop":
        assert all(len(cycle.statuses) == 1 for cycle in disturbed), "a late read is late whole"
    assert set[Status]().union(*(cycle.statuses for cycle in disturbed)) == statuses
    assert {cycle.outcome for cycle in disturbed} == outcomes
    assert all(cycle.is_good for cycle in on_wire[-2:]), "it recovers by itself"


def test_every_fault_is_tried_on_every_protocol_it_can_befall() -> None:
    drivers: tuple[Driver, ...] = ("s7", "modbus")
    wanted = {
        (driver, fault) for fault in LinkFault for driver in drivers
        if KINDS[fault].driver in (None, driver)
    }  # fmt: skip
    assert {(driver, fault) for driver, fault, *_ in CASES} == wanted


@pytest.mark.parametrize(("lasting", "second"), [("half_open", "reset"), ("cable_cut", "refuse")])
def test_two_faults_at_a_time_are_the_same_with_and_without_a_wire(
    lasting: str, second: str
) -> None:
    stories: list[list[Cycle]] = []
    for side in (wire("modbus", HASTY_S), virtual("modbus", HASTY_S)):
        with side as plc:
            seen = [plc.cycle()]
            for fault in (lasting, second):
                plc.begin(fault, NONE)
                seen += [plc.cycle(), plc.cycle()]
            for fault in (lasting, second):
                plc.end(fault)
                seen += [plc.cycle(), plc.cycle()]
            stories.append(seen)
    assert stories[0] == stories[1]
    assert [cycle.is_good for cycle in stories[0]][-1]
    assert not any(cycle.is_good for cycle in stories[0][3:7])


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_a_short_cycle_waits_for_the_same_backoff(driver: Driver) -> None:
    with wire(driver, PATIENT_S) as real, virtual(driver, PATIENT_S) as line:
        on_wire = run(real, "refuse", NONE, 60, 60, 0.1)
        assert on_wire == run(line, "refuse", NONE, 60, 60, 0.1)
    dark = [cycle.statuses == {LOST} for cycle in on_wire[62:]]
    assert 0 < sum(dark) < 60, "it comes back when the backoff has elapsed, not at once"


def test_a_connection_that_came_up_late_is_kept() -> None:
    # Two exchanges of 2 × 80 ms to connect are too late for the read that began it; the read
    # itself needs only one.
    tags = [tag for tag in TAGS["s7"] if tag.name in ("MODE", "PV")]
    for side in (wire("s7", HASTY_S, tags=tags), virtual("s7", HASTY_S, tags=tags)):
        with side as plc:
            plc.begin("delay", {"delay_ms": 80})
            seen: list[set[Status]] = []
            for _ in range(2):
                plc.clock.now_ns += NS_PER_S
                plc.transport.begin_read()
                seen.append({s.status for s in plc.transport.finish_read().values()})
                time.sleep(plc.settle_s / 2)
            assert seen == [{LOST}, {GOOD}]


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_equal_seeds_give_equal_faults_and_others_do_not(driver: Driver) -> None:
    fault = "s7_error" if driver == "s7" else "modbus_exception"
    args = {"code": 0x03 if driver == "s7" else 6, "probability": 0.5}

    def story(seed: int) -> list[Cycle]:
        with wire(driver, PATIENT_S, seed) as plc:
            return run(plc, fault, args, 20, 0, CYCLE_S)

    assert story(1) == story(1) != story(2)


def test_swapped_values_are_wrong_in_the_way_that_was_asked_for() -> None:
    for side in (wire("s7", PATIENT_S), virtual("s7", PATIENT_S)):
        with side as plc:
            plc.cycle()
            plc.begin("word_order", NONE)
            seen = plc.cycle().reads
            assert seen["MODE"] == (GOOD, "2"), "a single word has no order"
            assert seen["PV"] != (GOOD, "22.25")
            plc.end("word_order")
            plc.begin("byte_order", NONE)
            assert plc.cycle().reads["MODE"] == (GOOD, str(3 << 8))
            plc.end("byte_order")
            assert plc.cycle().reads["PV"] == (GOOD, "24.25")


@pytest.mark.parametrize("driver", ["s7", "modbus"])
def test_a_stale_image_repeats_the_last_cycle_before_it(driver: Driver) -> None:
    for side in (wire(driver, PATIENT_S), virtual(driver, PATIENT_S)):
        with side as plc:
            plc.cycle()
            before = plc.cycle().reads
            plc.begin("stale_image", NONE)
            assert [plc.cycle().reads for _ in range(3)] == [before] * 3
            plc.end("stale_image")
            assert plc.cycle().reads["PV"] == (GOOD, "26.25")


@pytest.mark.parametrize(
    ("driver", "fault", "args"),
    [
        ("s7", "modbus_exception", {"code": 2}),
        ("modbus", "s7_error", NONE),
        ("modbus", "drop", NONE),
        ("modbus", "modbus_exception", {"code": 3}),
        ("modbus", "gremlins", NONE),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_both(
    driver: Driver, fault: str, args: Mapping[str, float]
) -> None:
    for side in (wire(driver, PATIENT_S), virtual(driver, PATIENT_S)):
        with side as plc:
            with pytest.raises(ScenarioError):
                plc.begin(fault, args)
            assert plc.cycle().is_good
