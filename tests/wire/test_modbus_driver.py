"""The Modbus driver against a real Modbus server over real sockets and a serial line."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pty
import socket
import struct
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from controller.drivers.block_plan import Limits, Region, Request, modbus_limits
from controller.drivers.connection import OwnedConnection
from controller.drivers.modbus import ModbusLink, open_modbus_rtu, open_modbus_tcp
from controller.errors import DeviceError, DeviceProtocolError, DeviceTimeout, DeviceUnreachable
from controller.ports import Transport
from controller.signal import Sample, Status, Tag, WriteOutcome

LONG_S = 20.0  # far longer than any step of these tests needs, so it only ends a hanging test
SHORT_S = 0.25
READS = tuple(
    Tag(f"PV{i}", "skid", f"holding:{20 + 2 * i}:float32", "float32", "CDAB") for i in range(10)
)
WRITES = (
    Tag("HB", "skid", "holding:0:uint16", "uint16", access="write"),
    Tag("SEQ", "skid", "holding:1:uint16", "uint16", access="write"),
    Tag("SP", "skid", "holding:2:float32", "float32", "CDAB", low=0.0, high=9.0, access="write"),
)


class TestClock:
    """Stands still until told, so that no result depends on how fast the machine is."""

    __test__ = False

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        self.now_ns = max(self.now_ns, monotonic_ns)

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class Skid:
    """A Modbus server: holding 0–`registers`, but for one hole; coils 0–15; input 0–9."""

    def __init__(self, registers: int = 200, hole: int | None = None) -> None:
        self.requests: list[tuple[int, int, int]] = []
        self.exception: ExcCodes | None = None
        self.silent = False
        self.asked = threading.Event()
        self.speak = threading.Event()
        self._ready = threading.Event()
        holding = [SimData(0, count=registers, values=0, datatype=DataType.REGISTERS)]
        if hole is not None:
            holding = [
                SimData(0, count=hole, values=0, datatype=DataType.REGISTERS),
                SimData(
                    hole + 1,
                    count=registers - hole - 1,
                    values=0,
                    datatype=DataType.REGISTERS,
                ),
            ]
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        inputs = [SimData(0, values=list(range(10)), datatype=DataType.REGISTERS)]
        self.device = SimDevice(id=1, simdata=(bits, bits, holding, inputs), action=self._act)
        self.registers: list[int] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(LONG_S)

    async def _act(
        self,
        function_code: int,
        start_address: int,
        address: int,
        count: int,
        current_registers: list[int],
        set_values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        self.requests.append((function_code, address, count))
        if function_code in (3, 16):
            self.registers = current_registers
        while self.silent and not self.speak.is_set():
            self.asked.set()
            await asyncio.sleep(0.005)
        return self.exception

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = ModbusTcpServer(self.device, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        transport = server.transport
        assert isinstance(transport, asyncio.Server)
        self.port = int(transport.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stop.wait()
        await server.shutdown()

    def stop(self) -> None:
        self.speak.set()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(LONG_S)


@pytest.fixture
def skid() -> Iterator[Skid]:
    one = Skid()
    yield one
    one.stop()


@contextmanager
def connected(
    port: int,
    tags: tuple[Tag, ...] = (*READS, *WRITES),
    clock: TestClock | None = None,
    timeout_s: float = LONG_S,
    max_gap: int = 10,
    forbidden: tuple[tuple[int, int], ...] = (),
) -> Iterator[OwnedConnection]:
    transport = open_modbus_tcp(
        "skid",
        tags,
        clock or TestClock(),
        host="127.0.0.1",
        port=port,
        timeout_s=timeout_s,
        max_gap=max_gap,
        forbidden=forbidden,
    )
    try:
        yield transport
    finally:
        transport.close()


def read(transport: Transport) -> dict[str, Sample]:
    transport.begin_read()
    return dict(transport.finish_read())


def statuses(transport: Transport) -> set[Status]:
    return {sample.status for sample in read(transport).values()}


def write(transport: Transport, values: dict[str, float]) -> tuple[WriteOutcome, str]:
    transport.begin_write(values)
    report = transport.finish_write()
    return report.outcome, report.detail


FRAME = {"HB": 1.0, "SEQ": 2.0, "SP": 4.5}


def test_neighbouring_tags_come_in_one_request(skid: Skid) -> None:
    with connected(skid.port) as transport:
        assert {sample.value for sample in read(transport).values()} == {0.0}
        assert skid.requests == [(3, 20, 20)]


def test_a_write_arrives_as_one_block_and_is_verified(skid: Skid) -> None:
    with connected(skid.port) as transport:
        read(transport)
        skid.requests.clear()
        assert write(transport, FRAME) == (WriteOutcome.WRITTEN, "")
        assert skid.requests == [(16, 0, 4), (3, 0, 4)]
        high, low = struct.unpack(">HH", struct.pack(">f", 4.5))
        assert skid.registers[:4] == [1, 2, low, high]


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5, 9.5])
def test_nan_and_out_of_range_never_reach_the_device(skid: Skid, value: float) -> None:
    with connected(skid.port) as transport:
        read(transport)
        skid.requests.clear()
        outcome, detail = write(transport, {**FRAME, "SP": value})
        assert outcome is WriteOutcome.REFUSED
        assert "SP" in detail
        assert skid.requests == []


def test_every_area_is_read_and_coils_are_written(skid: Skid) -> None:
    tags = (
        Tag("in", "skid", "30004", "uint16"),
        Tag("di", "skid", "discrete:3", "bool"),
        Tag("c9", "skid", "coil:9", "bool"),
        Tag("c7", "skid", "coil:7", "bool", access="write"),
        Tag("c8", "skid", "coil:8", "bool", access="write"),
        Tag("back", "skid", "coil:8", "bool"),
    )
    with connected(skid.port, tags) as transport:
        values = {name: sample.value for name, sample in read(transport).items()}
        assert values == {"in": 3, "di": False, "c9": False, "back": False}
        assert write(transport, {"c7": 0.0, "c8": 1.0}) == (WriteOutcome.WRITTEN, "")
        values = {name: sample.value for name, sample in read(transport).items()}
        assert values == {"in": 3, "di": False, "c9": False, "back": True}


def test_a_large_device_is_split_at_125_registers_and_cuts_no_value() -> None:
    skid = Skid(registers=2000)
    tags = tuple(Tag(f"t{i}", "skid", f"holding:{2 * i}:float32", "float32") for i in range(200))
    try:
        with connected(skid.port, tags) as transport:
            assert statuses(transport) == {Status.GOOD}
            assert skid.requests == [(3, 0, 124), (3, 124, 124), (3, 248, 124), (3, 372, 28)]
    finally:
        skid.stop()


def test_gaps_are_bridged_as_far_as_allowed(skid: Skid) -> None:
    tags = (Tag("a", "skid", "holding:10", "uint16"), Tag("b", "skid", "holding:21", "uint16"))
    with connected(skid.port, tags) as transport:
        assert statuses(transport) == {Status.GOOD}
    with connected(skid.port, tags, max_gap=9) as transport:
        assert statuses(transport) == {Status.GOOD}
    with connected(skid.port, tags, forbidden=((15, 15),)) as transport:
        assert statuses(transport) == {Status.GOOD}
    assert skid.requests == [(3, 10, 12), *[(3, 10, 1), (3, 21, 1)] * 2]


def test_an_illegal_address_does_not_spoil_its_neighbours() -> None:
    skid = Skid(hole=27)  # in the middle of PV3
    expected = {
        f"PV{i}": Status.BAD_CONFIGURATION_ERROR if i == 3 else Status.GOOD for i in range(10)
    }
    try:
        with connected(skid.port) as transport:
            assert {name: s.status for name, s in read(transport).items()} == expected
            assert "exception 2" in str(transport.last_error)
            before = transport.statistics.requests
            assert {name: s.status for name, s in read(transport).items()} == expected
            assert transport.statistics.requests - before <= 4
            assert transport.connected
    finally:
        skid.stop()


def test_an_exception_for_everything_passes_when_it_is_over(skid: Skid) -> None:
    clock = TestClock()
    with connected(skid.port, clock=clock) as transport:
        assert statuses(transport) == {Status.GOOD}
        skid.exception = ExcCodes.DEVICE_BUSY
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert write(transport, FRAME)[0] is WriteOutcome.REFUSED
        skid.exception = ExcCodes.ILLEGAL_ADDRESS
        assert statuses(transport) == {Status.BAD_CONFIGURATION_ERROR}
        skid.exception = None
        clock.pass_s(6.0)
        skid.requests.clear()
        assert statuses(transport) == {Status.GOOD}
        assert skid.requests[-1] == (3, 20, 20)
        assert transport.connected
        assert transport.statistics.reconnects == 0


def test_a_switched_off_device_is_unreachable_and_comes_back() -> None:
    skid, clock = Skid(), TestClock()
    with connected(skid.port, clock=clock) as transport:
        assert statuses(transport) == {Status.GOOD}
        skid.stop()
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert write(transport, FRAME)[0] is WriteOutcome.FAILED
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        clock.pass_s(10.0)
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        assert isinstance(transport.last_error, DeviceUnreachable)


def test_a_device_that_falls_silent_is_given_up_and_its_late_answer_never_used(
    skid: Skid,
) -> None:
    clock = TestClock()
    with connected(skid.port, clock=clock, timeout_s=SHORT_S) as transport:
        assert statuses(transport) == {Status.GOOD}
        skid.silent = True
        started_s = time.monotonic()
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert time.monotonic() - started_s < LONG_S / 2
        assert isinstance(transport.last_error, DeviceTimeout)
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        skid.silent = False
        skid.registers[20:22] = [0, 0x4000]  # 2.0 in CDAB
        clock.pass_s(10.0)
        assert read(transport)["PV0"].value == 2.0
        assert transport.statistics.reconnects == 1


def test_a_half_open_server_costs_no_more_than_the_time_out() -> None:
    clock = TestClock()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with connected(port, clock=clock, timeout_s=SHORT_S) as transport:
            for attempt in range(2):
                started_s = time.monotonic()
                assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
                assert time.monotonic() - started_s < LONG_S / 2
                assert not transport.connected
                assert transport.statistics.timeouts == attempt + 1
                clock.pass_s(10.0)


class MeetingLink(ModbusLink):
    """Holds every read until the other device's read has been sent as well."""

    meeting: threading.Barrier

    def read(self, request: Request) -> bytes:
        self.meeting.wait(LONG_S)
        return super().read(request)


def test_two_devices_are_read_at_the_same_time(skid: Skid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MeetingLink, "meeting", threading.Barrier(2), raising=False)
    monkeypatch.setattr("controller.drivers.modbus.ModbusLink", MeetingLink)
    with connected(skid.port) as one, connected(skid.port) as other:
        one.begin_read()
        other.begin_read()
        # Neither could finish if the second request waited for the first one's answer.
        assert {s.status for s in one.finish_read().values()} == {Status.GOOD}
        assert {s.status for s in other.finish_read().values()} == {Status.GOOD}


def answering(answer: bytes) -> tuple[socket.socket, threading.Thread]:
    """A server that gives the same answer to whatever is asked, with our transaction number."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            asked = peer.recv(64)
            peer.sendall(asked[:2] + answer)
            peer.recv(64)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener, thread


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("0000 0005 01 03 02 0007", DeviceProtocolError),  # one register instead of two
        ("0000 0007 09 03 04 0007 0007", DeviceError),  # another unit answers
        ("0000 0007 01 04 04 0007 0007", DeviceProtocolError),  # another function answers
        ("0001 0007 01 03 04 0007 0007", DeviceError),  # another protocol
    ],
)
def test_an_answer_to_another_question_is_not_believed(
    answer: str, kind: type[DeviceError]
) -> None:
    listener, thread = answering(bytes.fromhex(answer))
    tags = (Tag("a", "skid", "holding:10:float32", "float32"),)
    try:
        with connected(listener.getsockname()[1], tags, timeout_s=0.2) as transport:
            assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
            assert isinstance(transport.last_error, kind)
            assert not transport.connected
    finally:
        listener.close()
        thread.join(LONG_S)


def crc16(data: bytes) -> bytes:
    """Modbus RTU check sum, low byte first (Modbus over Serial Line V1.02, 6.2.2)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


def test_rtu_reads_and_writes_over_a_serial_line() -> None:
    near, far = pty.openpty()
    tty.setraw(near)
    tty.setraw(far)
    registers = list(range(64))

    def device() -> None:
        pending = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(near, 256):
                pending += chunk
                size = 8 if pending[1:2] != b"\x10" else 9 + (pending + bytes(7))[6]
                if len(pending) < size:
                    continue
                frame, pending = pending[: size - 2], b""
                start, count = struct.unpack(">HH", frame[2:6])
                if frame[1] == 16:
                    registers[start : start + count] = struct.unpack(f">{count}H", frame[7:])
                    answer = frame[:6]
                else:
                    values = struct.pack(f">{count}H", *registers[start : start + count])
                    answer = bytes((frame[0], 3, len(values))) + values
                os.write(near, answer + crc16(answer))

    thread = threading.Thread(target=device, daemon=True)
    thread.start()
    tags = (
        Tag("a", "skid", "holding:10", "uint16"),
        Tag("b", "skid", "holding:14:int32", "int32", "CDAB"),
        Tag("sp", "skid", "holding:20:uint16", "uint16", access="write"),
    )
    transport = open_modbus_rtu(
        "skid", tags, TestClock(), port=os.ttyname(far), baudrate=115200, timeout_s=5.0
    )
    try:
        values = {name: sample.value for name, sample in read(transport).items()}
        assert values == {"a": 10, "b": 15 << 16 | 14}
        assert write(transport, {"sp": 777.0}) == (WriteOutcome.WRITTEN, "")
        assert registers[20] == 777
    finally:
        transport.close()
        os.close(far)
        thread.join(LONG_S)
        os.close(near)


def test_a_link_does_not_reconnect_by_itself(skid: Skid) -> None:
    def make_client() -> ModbusTcpClient:
        return ModbusTcpClient("127.0.0.1", port=skid.port, timeout=LONG_S, retries=0)

    link = ModbusLink(make_client, "skid", 1, modbus_limits())
    request = Request(Region("holding", 0, 2), 0, 2)
    with pytest.raises(DeviceUnreachable):
        link.read(request)
    limits = link.connect()
    assert isinstance(limits, Limits)
    assert link.read(request) == bytes(4)
    link.abort()
    with pytest.raises(DeviceError):
        link.read(request)
    with pytest.raises(DeviceUnreachable):
        link.read(request)
    link.close()
