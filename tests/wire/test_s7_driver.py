"""The S7 driver against a real S7 server over real sockets, with the faults of a real network."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from snap7.server import Server
from snap7.type import SrvArea, SrvEvent

from controller.drivers.block_plan import Request
from controller.drivers.connection import OwnedConnection
from controller.drivers.s7 import S7Link, open_s7
from controller.errors import DeviceRefused, DeviceTimeout, DeviceUnreachable
from controller.ports import Transport
from controller.signal import Sample, Status, Tag, WriteOutcome

LONG_S = 20.0  # far longer than any step of these tests needs, so it only ends a hanging test
SHORT_S = 0.25
READS = tuple(Tag(f"PV{i}", "plc", f"DB1.DBD{20 + 4 * i}:REAL", "float32") for i in range(10))
WRITES = (
    Tag("HB", "plc", "DB1.DBW0:UINT", "uint16", access="write"),
    Tag("SEQ", "plc", "DB1.DBW2:UINT", "uint16", access="write"),
    Tag("SP", "plc", "DB1.DBD4:REAL", "float32", access="write", low=0.0, high=100.0),
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


class Plc:
    """An S7 server with DB1, which counts the reads and can be told to keep silent."""

    def __init__(self, size: int = 1024) -> None:
        self.db = bytearray(size)
        self.reads = 0
        self.silent = threading.Event()
        self.asked = threading.Event()
        self.speak = threading.Event()
        self.server = Server(log=False)
        self.server.register_area(SrvArea.DB, 1, self.db)
        self.server.register_area(SrvArea.MK, 0, bytearray(range(32)))
        self.server.set_read_events_callback(self._on_read)
        self.port = free_port()
        self.server.start_to("127.0.0.1", self.port)

    def _on_read(self, event: SrvEvent) -> None:
        self.reads += 1
        if self.silent.is_set():
            self.asked.set()
            self.speak.wait(LONG_S)

    def stop(self) -> None:
        self.speak.set()
        self.server.stop()


class Cable:
    """Carries bytes between controller and PLC until it is cut; plugged in again, it works."""

    def __init__(self, plc_port: int) -> None:
        self.plc_port = plc_port
        self.ends: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.plugged = True
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *ends: socket.socket) -> None:
        thread = threading.Thread(target=target, args=ends, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.plugged:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.plc_port))
                self.ends += [near, far]
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self.plugged = False
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(LONG_S)
        for end in (*self.ends, self.listener):
            end.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def plc() -> Iterator[Plc]:
    one = Plc()
    yield one
    one.stop()


@contextmanager
def connected(
    port: int,
    tags: tuple[Tag, ...] = (*READS, *WRITES),
    clock: TestClock | None = None,
    timeout_s: float = LONG_S,
) -> Iterator[OwnedConnection]:
    transport = open_s7(
        "plc", tags, clock or TestClock(), host="127.0.0.1", port=port, timeout_s=timeout_s
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


def test_neighbouring_tags_come_in_one_request(plc: Plc) -> None:
    struct.pack_into(">10f", plc.db, 20, *(1.5 * i for i in range(10)))
    with connected(plc.port) as transport:
        values = {name: sample.value for name, sample in read(transport).items()}
        assert values == {f"PV{i}": 1.5 * i for i in range(10)}
        assert plc.reads == 1
        assert transport.statistics.requests == 1


def test_every_type_and_area_is_read(plc: Plc) -> None:
    struct.pack_into(">bBhHiIqQfd", plc.db, 100, -1, 2, -3, 4, -5, 6, -7, 8, 9.5, 10.25)
    plc.db[150] = 0b1000
    plc.db[160:166] = b"\x04\x03abc\0"
    offsets = {
        "SINT": "B100",
        "BYTE": "B101",
        "INT": "W102",
        "UINT": "W104",
        "DINT": "D106",
        "UDINT": "D110",
        "LINT": "B114",
        "ULINT": "B122",
        "REAL": "D130",
        "LREAL": "B134",
    }
    types = [
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float32",
        "float64",
    ]
    tags = [
        Tag(word, "plc", f"DB1.DB{place}:{word}", type_)
        for (word, place), type_ in zip(offsets.items(), types, strict=True)
    ]
    tags += [
        Tag("bit", "plc", "DB1.DBX150.3", "bool"),
        Tag("text", "plc", "DB1,STRING[4]160", "string[4]"),
        Tag("flag", "plc", "MW2:INT", "int16"),
        Tag("scaled", "plc", "DB1.DBW102:INT", "int16", scale=0.5, offset=10.0),
    ]
    with connected(plc.port, tuple(tags)) as transport:
        values = [sample.value for sample in read(transport).values()]
        named = {name: sample.value for name, sample in read(transport).items()}
    assert len(values) == len(tags)
    assert [named[word] for word in offsets] == [-1, 2, -3, 4, -5, 6, -7, 8, 9.5, 10.25]
    assert (named["bit"], named["text"], named["flag"]) == (True, "abc", 0x0203)
    assert named["scaled"] == 8.5


def test_nan_on_the_wire_stays_nan_and_good(plc: Plc) -> None:
    struct.pack_into(">f", plc.db, 20, math.nan)
    with connected(plc.port) as transport:
        sample = read(transport)["PV0"]
    assert sample.status is Status.GOOD
    assert isinstance(sample.value, float)
    assert math.isnan(sample.value)


def test_a_large_device_is_split_at_the_pdu_and_cuts_no_value() -> None:
    plc = Plc(size=4096)
    struct.pack_into(">1000f", plc.db, 0, *range(1000))
    tags = tuple(Tag(f"t{i}", "plc", f"DB1.DBD{4 * i}:REAL", "float32") for i in range(1000))
    try:
        with connected(plc.port, tags) as transport:
            samples = read(transport)
            assert [samples[f"t{i}"].value for i in range(1000)] == list(range(1000))
            # The server negotiates a PDU of 480: 462 bytes a request hold 115 values.
            assert plc.reads == 9
    finally:
        plc.stop()


def test_a_write_arrives_as_one_block_and_is_verified(plc: Plc) -> None:
    with connected(plc.port) as transport:
        read(transport)
        frame = {"HB": 1.0, "SEQ": 2.0, "SP": 42.5}
        assert write(transport, frame) == (WriteOutcome.WRITTEN, "")
        assert bytes(plc.db[:8]) == struct.pack(">HHf", 1, 2, 42.5)
        # One read, one write, one read-back.
        assert transport.statistics.requests == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 100.5])
def test_nan_and_out_of_range_never_reach_the_plc(plc: Plc, value: float) -> None:
    with connected(plc.port) as transport:
        read(transport)
        outcome, detail = write(transport, {"HB": 1.0, "SEQ": 2.0, "SP": value})
        assert outcome is WriteOutcome.REFUSED
        assert "SP" in detail
        assert bytes(plc.db[:8]) == bytes(8)
        assert transport.statistics.requests == 1


def test_a_tag_beyond_the_block_does_not_spoil_its_neighbours() -> None:
    plc = Plc(size=48)  # PV0 to PV6 fit, PV7 to PV9 do not
    try:
        with connected(plc.port) as transport:
            expected = {
                f"PV{i}": Status.GOOD if i < 7 else Status.BAD_CONFIGURATION_ERROR
                for i in range(10)
            }
            assert {name: s.status for name, s in read(transport).items()} == expected
            assert transport.connected
            assert isinstance(transport.last_error, DeviceRefused)
            assert "Optimized block access" in str(transport.last_error)
            before = transport.statistics.requests
            assert {name: s.status for name, s in read(transport).items()} == expected
            assert transport.statistics.requests - before <= 3
    finally:
        plc.stop()


def test_a_block_that_does_not_exist_is_a_configuration_error(plc: Plc) -> None:
    tags = (*READS, Tag("X", "plc", "DB7.DBD0:REAL", "float32"))
    with connected(plc.port, tags) as transport:
        samples = read(transport)
        assert samples.pop("X").status is Status.BAD_CONFIGURATION_ERROR
        assert {sample.status for sample in samples.values()} == {Status.GOOD}


def test_a_cut_connection_comes_back_and_replays_nothing(plc: Plc) -> None:
    clock, cable = TestClock(), Cable(plc.port)
    with contextlib.closing(cable), connected(cable.port, clock=clock) as transport:
        assert statuses(transport) == {Status.GOOD}
        assert write(transport, {"HB": 1.0, "SEQ": 1.0, "SP": 5.0})[0] is WriteOutcome.WRITTEN
        cable.cut()
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert not transport.connected
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        assert write(transport, {"HB": 2.0, "SEQ": 2.0, "SP": 6.0})[0] is WriteOutcome.FAILED
        clock.pass_s(10.0)
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        assert isinstance(transport.last_error, DeviceUnreachable)
        plc.db[:8] = bytes(8)
        cable.plugged = True
        clock.pass_s(10.0)
        assert statuses(transport) == {Status.GOOD}
        assert transport.statistics.reconnects == 1
        assert bytes(plc.db[:8]) == bytes(8)


def test_a_cut_in_the_middle_of_a_request_is_noticed_at_once(plc: Plc) -> None:
    cable = Cable(plc.port)
    with contextlib.closing(cable), connected(cable.port) as transport:
        assert statuses(transport) == {Status.GOOD}
        plc.silent.set()
        transport.begin_read()
        assert plc.asked.wait(LONG_S)
        cable.cut()
        assert {s.status for s in transport.finish_read().values()} == {
            Status.BAD_COMMUNICATION_ERROR
        }
        assert transport.statistics.timeouts == 0


def test_a_plc_that_is_switched_off_is_unreachable() -> None:
    with connected(free_port()) as transport:
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        assert isinstance(transport.last_error, DeviceUnreachable)
        assert "TCP port 102" in str(transport.last_error)


def test_a_plc_that_falls_silent_is_given_up_in_time(plc: Plc) -> None:
    clock = TestClock()
    with connected(plc.port, clock=clock, timeout_s=SHORT_S) as transport:
        assert statuses(transport) == {Status.GOOD}
        plc.silent.set()
        started_s = time.monotonic()
        assert statuses(transport) == {Status.BAD_COMMUNICATION_ERROR}
        assert time.monotonic() - started_s < LONG_S / 2
        assert isinstance(transport.last_error, DeviceTimeout)
        assert transport.statistics.timeouts == 1
        assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
        plc.silent.clear()
        struct.pack_into(">f", plc.db, 20, 99.0)
        plc.speak.set()
        clock.pass_s(10.0)
        # The answer to the lost request must not be taken for the answer to this one.
        assert read(transport)["PV0"].value == 99.0


def test_a_half_open_server_costs_no_more_than_the_time_out() -> None:
    clock = TestClock()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with connected(port, clock=clock, timeout_s=SHORT_S) as transport:
            for attempt in range(2):
                started_s = time.monotonic()
                assert statuses(transport) == {Status.BAD_NO_COMMUNICATION}
                assert time.monotonic() - started_s < LONG_S / 2
                assert not transport.connected
                assert transport.statistics.timeouts == attempt + 1
                clock.pass_s(10.0)


class MeetingLink(S7Link):
    """Holds every read until the other device's read has been sent as well."""

    meeting: threading.Barrier

    def read(self, request: Request) -> bytes:
        self.meeting.wait(LONG_S)
        return super().read(request)


def test_two_devices_are_read_at_the_same_time(plc: Plc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MeetingLink, "meeting", threading.Barrier(2), raising=False)
    monkeypatch.setattr("controller.drivers.s7.S7Link", MeetingLink)
    with connected(plc.port) as one, connected(plc.port) as other:
        one.begin_read()
        other.begin_read()
        # Neither could finish if the second request waited for the first one's answer.
        assert {s.status for s in one.finish_read().values()} == {Status.GOOD}
        assert {s.status for s in other.finish_read().values()} == {Status.GOOD}


@pytest.mark.parametrize(("connection_type", "code"), [("PG", 1), ("OP", 2), ("BASIC", 3)])
def test_the_connection_type_reaches_the_cpu(connection_type: str, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        link = S7Link("127.0.0.1", port, 0, 2, SHORT_S, connection_type)
        with pytest.raises(DeviceTimeout):
            link.connect()
        peer, _ = listener.accept()
        with peer:
            request = peer.recv(64)
    assert struct.pack(">BBBB", 0xC2, 2, code, 2) in request
