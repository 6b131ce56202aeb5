"""The production Modbus drivers against Modbus servers that we did not write."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyModbusTCP.constants import EXP_ILLEGAL_FUNCTION, EXP_SLAVE_DEVICE_BUSY
from pyModbusTCP.server import DataBank, DataHandler, ModbusServer

from controller.drivers.connection import OwnedConnection
from controller.drivers.modbus import open_modbus_rtu, open_modbus_tcp
from controller.errors import DeviceError, DeviceTimeout, DeviceUnreachable
from controller.ports import Transport
from controller.signal import Sample, Status, Tag, WriteOutcome
from hil.world import LockstepClock
from tests.peers.serial_line import BAUDRATE, LONG_S, RtuSlave, SerialLine

pytestmark = [
    pytest.mark.peer,
    # modbus_tk still asks its events by their old name.
    pytest.mark.filterwarnings("ignore:isSet:DeprecationWarning"),
]

SHORT_S = 0.8  # a time-out that is waited for, and still long for a loaded machine
READS = tuple(
    Tag(f"PV{i}", "skid", f"holding:{20 + 2 * i}:float32", "float32", "CDAB") for i in range(10)
)
WRITES = (
    Tag("HB", "skid", "holding:0:uint16", "uint16", access="write"),
    Tag("SEQ", "skid", "holding:1:uint16", "uint16", access="write"),
    Tag("SP", "skid", "holding:2:float32", "float32", "CDAB", low=0.0, high=9.0, access="write"),
)
FRAME = {"HB": 1.0, "SEQ": 2.0, "SP": 4.5}
# pyModbusTCP as somebody would start it, in a process that can be killed.
SERVER = (
    "import sys; from pyModbusTCP.server import DataBank, ModbusServer\n"
    "bank = DataBank(); bank.set_holding_registers(20, [int(sys.argv[2])] * 20)\n"
    "ModbusServer('127.0.0.1', int(sys.argv[1]), data_bank=bank).start()"
)


class Skid(DataHandler):
    """What happens inside the pyModbusTCP server: counts, refuses and spoils requests."""

    def __init__(self) -> None:
        super().__init__(DataBank(h_regs_size=40))
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.refuse = 0
        self.spoil = 0

    def read_h_regs(
        self, address: int, count: int, srv_info: ModbusServer.ServerInfo
    ) -> DataHandler.Return:
        self.reads.append((address, count))
        if self.refuse:
            return DataHandler.Return(exp_code=self.refuse)
        return super().read_h_regs(address, count, srv_info)

    def write_h_regs(
        self, address: int, words_l: list[int], srv_info: ModbusServer.ServerInfo
    ) -> DataHandler.Return:
        self.writes.append((address, len(words_l)))
        if self.refuse:
            return DataHandler.Return(exp_code=self.refuse)
        words_l[-1] ^= self.spoil
        return super().write_h_regs(address, words_l, srv_info)


def still() -> LockstepClock:
    """A clock that moves only when told, so that no back-off depends on the machine."""
    return LockstepClock(lambda _: None)


def wait(clock: LockstepClock, seconds: float = 10.0) -> None:
    clock.sleep_until(clock.monotonic_ns() + int(seconds * 1e9))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def connected(
    port: int,
    clock: LockstepClock,
    tags: tuple[Tag, ...] = (*READS, *WRITES),
    timeout_s: float = LONG_S,
) -> Generator[OwnedConnection]:
    transport = open_modbus_tcp(
        "skid", tags, clock, host="127.0.0.1", port=port, timeout_s=timeout_s
    )
    try:
        yield transport
    finally:
        transport.close()


@pytest.fixture(name="skid")
def _skid() -> Skid:
    return Skid()


@pytest.fixture(name="transport")
def _transport(skid: Skid) -> Iterator[OwnedConnection]:
    server = ModbusServer("127.0.0.1", free_port(), no_block=True, data_hdl=skid)
    server.start()
    try:
        with connected(server.port, still()) as transport:
            yield transport
    finally:
        server.stop()


def read(transport: Transport) -> dict[str, Sample]:
    transport.begin_read()
    return dict(transport.finish_read())


def statuses(transport: Transport) -> set[Status]:
    return {sample.status for sample in read(transport).values()}


def write(transport: Transport, values: dict[str, float]) -> tuple[WriteOutcome, str]:
    transport.begin_write(values)
    report = transport.finish_write()
    return report.outcome, report.detail


def cdab(value: float) -> list[int]:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return [low, high]


def test_ten_values_come_in_one_request(skid: Skid, transport: OwnedConnection) -> None:
    for i in range(10):
        skid.data_bank.set_holding_registers(20 + 2 * i, cdab(1.5 * i))
    samples = read(transport)
    assert {name: s.value for name, s in samples.items()} == {f"PV{i}": 1.5 * i for i in range(10)}
    assert {s.status for s in samples.values()} == {Status.GOOD}
    assert skid.reads == [(20, 20)]


def test_a_frame_arrives_in_one_request_and_is_read_back(
    skid: Skid, transport: OwnedConnection
) -> None:
    read(transport)
    skid.reads.clear()
    assert write(transport, FRAME) == (WriteOutcome.WRITTEN, "")
    assert skid.writes == [(0, 4)]
    assert skid.reads == [(0, 4)]
    assert skid.data_bank.get_holding_registers(0, 4) == [1, 2, *cdab(4.5)]


def test_a_device_that_keeps_something_else_is_found_out(
    skid: Skid, transport: OwnedConnection
) -> None:
    read(transport)
    skid.spoil = 0x0080
    outcome, detail = write(transport, FRAME)
    assert outcome is WriteOutcome.FAILED
    assert "SP" in detail
    assert "HB" not in detail


def test_a_register_that_is_not_there_spoils_only_its_own_tag() -> None:
    skid = Skid()  # has 40 registers: PV9 lies at 38 and 39, PV10 beyond the end
    server = ModbusServer("127.0.0.1", free_port(), no_block=True, data_hdl=skid)
    server.start()
    beyond = Tag("PV10", "skid", "holding:40:float32", "float32", "CDAB")
    try:
        with connected(server.port, still(), (*READS, beyond)) as transport:
            found = {name: sample.status for name, sample in read(transport).items()}
            assert found.pop("PV10") is Status.BAD_CONFIGURATION_ERROR
            assert set(found.values()) == {Status.GOOD}
            assert "illegal address (exception 2)" in str(transport.last_error)
            assert transport.connected
    finally:
        server.stop()


def test_exceptions_for_everything_pass_without_a_new_connection(
    skid: Skid, transport: OwnedConnection
) -> None:
    assert statuses(transport) == {Status.GOOD}
    for code, name in ((EXP_SLAVE_DEVICE_BUSY, "busy"), (EXP_ILLEGAL_FUNCTION, "function")):
        skid.refuse = code
        assert statuses(transport).isdisjoint({Status.GOOD})
        assert f"{name} (exception {code})" in str(transport.last_error)
        outcome, detail = write(transport, FRAME)
        assert outcome is WriteOutcome.REFUSED
        assert f"exception {code}" in detail
    skid.refuse = 0
    assert statuses(transport) == {Status.GOOD}
    assert transport.statistics.reconnects == 0


@contextmanager
def served(port: int, word: int) -> Generator[subprocess.Popen[bytes]]:
    """pyModbusTCP in a process of its own, with `word` in registers 20–39; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(word)])
    try:
        until_s = time.monotonic() + LONG_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=LONG_S).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until_s, "the server does not listen"
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait(LONG_S)


def test_a_killed_server_shows_at_once_and_is_found_again() -> None:
    port, clock = free_port(), still()
    tags = (Tag("a", "skid", "holding:20:uint16", "uint16"), *WRITES)
    with connected(port, clock, tags) as transport:
        with served(port, 7):
            assert read(transport)["a"].value == 7
            assert write(transport, FRAME)[0] is WriteOutcome.WRITTEN
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        outcome, detail = write(transport, FRAME)
        assert outcome is WriteOutcome.FAILED
        assert "not connected" in detail
        wait(clock)
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        assert isinstance(transport.last_error, DeviceUnreachable)
        with served(port, 8):
            assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}  # not before its time
            wait(clock)
            assert read(transport)["a"].value == 8
            assert transport.last_error is None
            assert transport.statistics.reconnects >= 1
            assert write(transport, FRAME)[0] is WriteOutcome.WRITTEN


# --- RTU over a serial line ------------------------------------------------------------------

RTU_TAGS = (
    Tag("a", "drive", "holding:10:uint16", "uint16"),
    Tag("b", "drive", "holding:12:int32", "int32", "CDAB"),
    Tag("hb", "drive", "holding:20:uint16", "uint16", access="write"),
    Tag("sp", "drive", "holding:21:uint16", "uint16", access="write"),
)


@pytest.fixture(name="slave")
def _slave(tmp_path: Path) -> Iterator[RtuSlave]:
    with SerialLine(tmp_path) as line, RtuSlave(line) as slave:
        yield slave


@contextmanager
def on_line(
    slave: RtuSlave, clock: LockstepClock, timeout_s: float = LONG_S
) -> Generator[OwnedConnection]:
    transport = open_modbus_rtu(
        "drive", RTU_TAGS, clock, port=str(slave.near), baudrate=BAUDRATE, timeout_s=timeout_s
    )
    try:
        yield transport
    finally:
        transport.close()


def recovered(transport: Transport, clock: LockstepClock) -> dict[str, Sample]:
    """The first reading that is good again, however many attempts the line needs."""
    until_s = time.monotonic() + LONG_S
    while True:
        wait(clock)
        samples = read(transport)
        if all(sample.status is Status.GOOD for sample in samples.values()):
            return samples
        assert time.monotonic() < until_s, "never recovered"


def test_rtu_reads_and_writes(slave: RtuSlave) -> None:
    with on_line(slave, still()) as transport:
        slave.set(10, 5, 0, 2, 1)
        values = {name: sample.value for name, sample in read(transport).items()}
        assert values == {"a": 5, "b": 0x0001_0002}
        assert write(transport, {"hb": 1.0, "sp": 777.0}) == (WriteOutcome.WRITTEN, "")
        assert slave.get(20, 2) == (1, 777)
        assert slave.asked == [(3, 10, 4), (16, 20, 2), (3, 20, 2)]


def test_rtu_exception_of_a_missing_register(slave: RtuSlave) -> None:
    missing = Tag("c", "drive", "holding:100:uint16", "uint16")
    transport = open_modbus_rtu(
        "drive",
        (*RTU_TAGS, missing),
        still(),
        port=str(slave.near),
        baudrate=BAUDRATE,
        timeout_s=LONG_S,
    )
    try:
        found = {name: sample.status for name, sample in read(transport).items()}
        assert found == {
            "a": Status.GOOD,
            "b": Status.GOOD,
            "c": Status.BAD_CONFIGURATION_ERROR,
        }
        assert "exception 2" in str(transport.last_error)
    finally:
        transport.close()


def test_a_silent_slave_times_out_and_its_late_answer_is_never_used(slave: RtuSlave) -> None:
    clock = still()
    with on_line(slave, clock, SHORT_S) as transport:
        slave.set(10, 1)
        assert read(transport)["a"].value == 1
        late: list[bytes] = []
        slave.answer = lambda response: late.append(response) or b""
        started_s = time.monotonic()
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert time.monotonic() - started_s >= SHORT_S
        assert isinstance(transport.last_error, DeviceTimeout)
        assert not transport.connected
        assert write(transport, {"hb": 1.0, "sp": 1.0})[0] is WriteOutcome.FAILED
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}  # the line has its rest

        slave.send_late(late[0])
        slave.answer = lambda response: response
        slave.set(10, 2)
        assert recovered(transport, clock)["a"].value == 2
        for value in range(3, 6):
            slave.set(10, value)
            assert read(transport)["a"].value == value
        assert slave.get(20, 2) == (0, 0)  # the write that failed was not kept for later
        assert transport.statistics.reconnects >= 1
        assert transport.statistics.timeouts >= 1
        assert transport.last_error is None
        assert write(transport, {"hb": 2.0, "sp": 3.0})[0] is WriteOutcome.WRITTEN
        assert slave.get(20, 2) == (2, 3)


def test_a_slave_slower_than_the_time_out_never_delivers_old_values(slave: RtuSlave) -> None:
    """In real time, a cycle of 0.5 s: each answer comes in the middle of the next cycle."""
    timers: list[threading.Timer] = []

    def late(response: bytes) -> bytes:
        timers.append(threading.Timer(0.6, slave.send, [response]))
        timers[-1].start()
        return b""

    clock = still()
    slave.answer = late
    with on_line(slave, clock, timeout_s=0.25) as transport:
        started_s = time.monotonic()
        for cycle in range(6):
            time.sleep(max(0.0, started_s + 0.5 * cycle - time.monotonic()))
            slave.set(10, cycle)
            assert read(transport)["a"].value is None
            wait(clock)
        for timer in timers:
            timer.join(LONG_S)
        assert len(timers) >= 2


def test_a_late_answer_glued_to_the_right_one_is_not_carried_along(slave: RtuSlave) -> None:
    """RTU numbers no answers: one that comes in the place of another cannot be told from it.

    But the answer left over must not stand in for that of the next request, and so on for ever.
    """
    with on_line(slave, still()) as transport:
        slave.set(10, 1)
        assert read(transport)["a"].value == 1
        old: list[bytes] = []
        slave.answer = lambda response: old.append(response) or response
        read(transport)
        slave.answer = lambda response: old[0] + response
        slave.set(10, 2)
        read(transport)
        slave.answer = lambda response: response
        for value in range(3, 7):
            slave.set(10, value)
            assert read(transport)["a"].value == value


def test_a_damaged_answer_is_not_believed(slave: RtuSlave) -> None:
    clock = still()
    with on_line(slave, clock, SHORT_S) as transport:
        slave.set(10, 1)
        assert read(transport)["a"].value == 1
        slave.answer = lambda response: response[:4] + bytes([response[4] ^ 4]) + response[5:]
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert isinstance(transport.last_error, DeviceError)
        slave.answer = lambda response: response
        assert recovered(transport, clock)["a"].value == 1
