"""The owner thread: bounded waiting, backoff, bisection, verified writes, mapped errors."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pymodbus.exceptions
import pytest
import serial
import snap7.error
from pymodbus.exceptions import ModbusException, ModbusIOException
from snap7.error import S7ConnectionError, S7Error, S7ProtocolError, S7TimeoutError

from controller.drivers.block_plan import Limits, Request, s7_limits
from controller.drivers.connection import OwnedConnection, Statistics
from controller.drivers.link import AddressRefused
from controller.drivers.modbus import modbus_error, open_modbus_rtu, open_modbus_tcp
from controller.drivers.s7 import open_s7, s7_error
from controller.errors import (
    DeviceError,
    DeviceProtocolError,
    DeviceRefused,
    DeviceTimeout,
    DeviceUnreachable,
    SettingsError,
)
from controller.ports import Transport
from controller.signal import Status, Tag, WriteOutcome

LONG_S = 20.0  # far longer than any step of these tests needs, so it only ends a hanging test


class TestClock:
    """Stands still until told; `step_ns` lets it run a little on every look."""

    __test__ = False

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000
        self.step_ns = 0

    def time_ns(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        self.now_ns = max(self.now_ns, monotonic_ns)

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class MemoryLink:
    """A PLC with one data block of 64 bytes, and faults on demand."""

    def __init__(self) -> None:
        self.memory = bytearray(64)
        self.refused: set[int] = set()
        self.connect_error: DeviceError | None = None
        self.read_error: DeviceError | None = None
        self.write_error: DeviceError | None = None
        self.clamp: Callable[[bytes], bytes] = lambda data: data
        self.log: list[str] = []
        self.stuck = False
        self.entered = threading.Event()
        self.released = threading.Event()

    def connect(self) -> Limits:
        self.log.append("connect")
        if self.connect_error:
            raise self.connect_error
        return s7_limits(480)

    def read(self, request: Request) -> bytes:
        self.log.append(f"read {request}")
        if self.stuck:
            self.entered.set()
            self.released.wait(LONG_S)
        if self.read_error:
            raise self.read_error
        if self.refused & set(range(request.start, request.stop)):
            raise AddressRefused("no such address")
        return bytes(self.memory[request.start : request.stop])

    def write(self, request: Request, data: bytes) -> None:
        self.log.append(f"write {request}")
        if self.write_error:
            raise self.write_error
        self.memory[request.start : request.stop] = self.clamp(data)

    def abort(self) -> None:
        self.log.append("abort")
        self.released.set()

    def close(self) -> None:
        self.log.append("close")


TAGS = (
    Tag("HB", "plc", "DB1.DBW0:UINT", "uint16", access="write"),
    Tag("SP", "plc", "DB1.DBD2:REAL", "float32", access="write", low=0.0, high=100.0),
    *(Tag(f"PV{i}", "plc", f"DB1.DBW{20 + 2 * i}:INT", "int16") for i in range(8)),
)
FRAME = {"HB": 7.0, "SP": 42.5}


@contextmanager
def opened(
    link: MemoryLink, clock: TestClock, timeout_s: float = LONG_S, seed: int = 1
) -> Iterator[OwnedConnection]:
    connection = OwnedConnection(
        "plc", "s7", TAGS, clock, link, limits=s7_limits(960), timeout_s=timeout_s, seed=seed
    )
    try:
        yield connection
    finally:
        link.released.set()
        connection.close()


def read(connection: Transport) -> dict[str, Status]:
    connection.begin_read()
    return {name: sample.status for name, sample in connection.finish_read().items()}


def write(connection: Transport, values: dict[str, float]) -> tuple[WriteOutcome, str]:
    connection.begin_write(values)
    report = connection.finish_write()
    return report.outcome, report.detail


def all_of(status: Status) -> dict[str, Status]:
    return {f"PV{i}": status for i in range(8)}


def test_opening_does_not_connect_and_the_first_read_does() -> None:
    link = MemoryLink()
    with opened(link, TestClock()) as connection:
        assert link.log == []
        assert read(connection) == all_of(Status.GOOD)
        assert link.log == ["connect", "read DB1 20–35"]
        assert connection.connected
        assert connection.last_error is None
        assert connection.statistics == Statistics(requests=1, reconnects=0, timeouts=0)
        assert connection.tags == TAGS


def test_the_source_time_is_the_middle_of_the_request() -> None:
    link, clock = MemoryLink(), TestClock()
    with opened(link, clock) as connection:
        clock.step_ns = 1000
        connection.begin_read()
        sample = connection.finish_read()["PV0"]
        assert sample.received_ns - sample.time_ns == 500


def test_a_verified_write_is_written_and_read_back() -> None:
    link = MemoryLink()
    with opened(link, TestClock()) as connection:
        read(connection)
        assert write(connection, FRAME) == (WriteOutcome.WRITTEN, "")
        assert link.log[-2:] == ["write DB1 0–5", "read DB1 0–5"]
        assert link.memory[:6] == struct.pack(">Hf", 7, 42.5)


def test_a_write_that_reads_back_differently_has_failed_and_says_where() -> None:
    link = MemoryLink()
    link.clamp = lambda data: data[:2] + struct.pack(">f", 40.0)
    with opened(link, TestClock()) as connection:
        read(connection)
        outcome, detail = write(connection, FRAME)
        assert outcome is WriteOutcome.FAILED
        assert detail == "SP: wrote 42.5, reads back 40.0"
        assert connection.connected


@pytest.mark.parametrize(
    "values",
    [
        {"HB": 7.0, "SP": float("nan")},
        {"HB": 7.0, "SP": 100.5},
        {"HB": 70000.0, "SP": 1.0},
        {"SP": 1.0},
        {"HB": 1.0, "SP": 1.0, "PV0": 1.0},
    ],
)
def test_a_frame_with_a_bad_value_never_reaches_the_wire(values: dict[str, float]) -> None:
    link = MemoryLink()
    with opened(link, TestClock()) as connection:
        read(connection)
        outcome, detail = write(connection, values)
        assert outcome is WriteOutcome.REFUSED
        assert detail
        assert not any(line.startswith("write") for line in link.log)
        assert write(connection, {})[0] is WriteOutcome.NONE


def test_nothing_is_written_before_a_connection_was_read() -> None:
    link = MemoryLink()
    with opened(link, TestClock()) as connection:
        assert write(connection, FRAME)[0] is WriteOutcome.FAILED
        assert link.log == []


def test_a_refused_write_keeps_the_connection_and_a_broken_one_drops_it() -> None:
    link, clock = MemoryLink(), TestClock()
    with opened(link, clock) as connection:
        read(connection)
        link.write_error = DeviceRefused("write protected")
        assert write(connection, FRAME) == (WriteOutcome.REFUSED, "write protected")
        assert connection.connected
        link.write_error = DeviceTimeout("silence")
        assert write(connection, FRAME) == (WriteOutcome.FAILED, "silence")
        assert not connection.connected
        link.write_error = None
        clock.pass_s(10.0)
        before = len(link.log)
        assert read(connection) == all_of(Status.GOOD)
        # Read again, and the old frame is not replayed.
        assert link.log[before:] == ["connect", "read DB1 20–35"]
        assert connection.statistics.reconnects == 1
        assert connection.statistics.timeouts == 1


def test_backoff_grows_from_a_tenth_to_five_seconds_and_is_reproducible() -> None:
    def attempts(seed: int) -> list[int]:
        link, clock = MemoryLink(), TestClock()
        link.connect_error = DeviceUnreachable("refused")
        found: list[int] = []
        with opened(link, clock, seed=seed) as connection:
            for step in range(3000):
                before = len(link.log)
                assert read(connection) == all_of(Status.BAD_NO_COMMUNICATION)
                if "connect" in link.log[before:]:
                    found.append(step)
                clock.pass_s(0.01)
            assert connection.last_error is link.connect_error
        return found

    one = attempts(1)
    gaps = [later - earlier for earlier, later in pairwise(one)]
    assert 5 <= gaps[0] <= 11
    assert gaps[1] > 9
    assert max(gaps) > 250
    assert max(gaps) <= 501
    assert attempts(1) == one
    assert attempts(2) != one


def test_backoff_starts_over_only_after_a_good_read() -> None:
    link, clock = MemoryLink(), TestClock()
    link.read_error = DeviceProtocolError("nonsense")
    with opened(link, clock) as connection:
        for _ in range(12):
            clock.pass_s(5.0)
            assert read(connection) == all_of(Status.BAD_COMMUNICATION_ERROR)
        clock.pass_s(2.4)
        assert read(connection) == all_of(Status.BAD_NO_COMMUNICATION)
        clock.pass_s(2.7)
        link.read_error = None
        assert read(connection) == all_of(Status.GOOD)
        link.read_error = DeviceProtocolError("nonsense")
        assert read(connection) == all_of(Status.BAD_COMMUNICATION_ERROR)
        clock.pass_s(0.11)
        link.read_error = None
        assert read(connection) == all_of(Status.GOOD)


def test_a_late_answer_is_discarded_and_the_socket_dropped() -> None:
    link, clock = MemoryLink(), TestClock()
    with opened(link, clock, timeout_s=0.05) as connection:
        read(connection)
        link.stuck = True
        assert read(connection) == all_of(Status.BAD_COMMUNICATION_ERROR)
        assert "abort" in link.log
        assert not connection.connected
        assert isinstance(connection.last_error, DeviceTimeout)
        assert connection.statistics.timeouts == 1
        assert write(connection, FRAME)[0] is WriteOutcome.FAILED
        assert read(connection) == all_of(Status.BAD_NO_COMMUNICATION)
        link.stuck = False
        clock.pass_s(1.0)
        assert read(connection) == all_of(Status.GOOD)
        dropped = link.log.index("close", link.log.index("abort"))
        assert link.log[dropped + 1] == "connect"


class SecondAnswerLost(MemoryLink):
    """Notices by itself, before the caller does, that the second of two answers is late."""

    def read(self, request: Request) -> bytes:
        if request.start:
            raise DeviceTimeout("no answer")
        return super().read(request)


def test_a_read_that_is_late_is_given_up_whole_whichever_thread_notices_first() -> None:
    tags = [Tag("A", "plc", "DB1.DBW0:INT", "int16"), Tag("B", "plc", "DB1.DBW60:INT", "int16")]
    connection = OwnedConnection(
        "plc", "s7", tags, TestClock(), SecondAnswerLost(), limits=s7_limits(960), timeout_s=LONG_S
    )
    bad = Status.BAD_COMMUNICATION_ERROR
    assert read(connection) == {"A": bad, "B": bad}
    assert not connection.connected
    connection.close()


def test_a_late_confirmation_is_a_failed_write() -> None:
    link = MemoryLink()
    with opened(link, TestClock(), timeout_s=0.05) as connection:
        read(connection)
        link.stuck = True
        outcome, detail = write(connection, FRAME)
        assert outcome is WriteOutcome.FAILED
        assert "may have arrived" in detail
        assert not connection.connected


def test_one_refused_address_leaves_its_neighbours_good_and_is_remembered() -> None:
    link, clock = MemoryLink(), TestClock()
    link.refused = {26, 27}
    expected = {**all_of(Status.GOOD), "PV3": Status.BAD_CONFIGURATION_ERROR}
    with opened(link, clock) as connection:
        assert read(connection) == expected
        assert isinstance(connection.last_error, DeviceRefused)
        before = len(link.log)
        assert read(connection) == expected
        later = link.log[before:]
        assert "read DB1 26–27" not in later
        assert len(later) == 3
        assert connection.connected
        # The block was made longer in the PLC: one try finds out, the whole plan comes back.
        link.refused = set()
        clock.pass_s(6.0)
        before = len(link.log)
        assert read(connection) == all_of(Status.GOOD)
        assert link.log[before:] == ["read DB1 26–27", "read DB1 20–35"]
        assert connection.last_error is None


def test_a_hole_between_two_tags_is_found_too() -> None:
    link = MemoryLink()
    link.refused = {30}
    tags = (
        Tag("A", "plc", "DB1.DBW20:INT", "int16"),
        Tag("B", "plc", "DB1.DBW32:INT", "int16"),
    )
    connection = OwnedConnection(
        "plc", "s7", tags, TestClock(), link, limits=s7_limits(960), timeout_s=LONG_S
    )
    assert read(connection) == {"A": Status.GOOD, "B": Status.GOOD}
    before = len(link.log)
    assert read(connection) == {"A": Status.GOOD, "B": Status.GOOD}
    assert link.log[before:] == ["read DB1 20–21", "read DB1 32–33"]
    connection.close()


class HurriedClock(TestClock):
    """A plant that lives so fast that ten seconds go by between two looks."""

    def monotonic_ns(self) -> int:
        self.pass_s(10.0)
        return self.now_ns


def test_the_search_for_a_refused_address_is_as_patient_as_the_sockets_are() -> None:
    link = MemoryLink()
    link.refused = {24}
    with opened(link, HurriedClock()) as connection:
        statuses = read(connection)
    assert statuses.pop("PV2") is Status.BAD_CONFIGURATION_ERROR
    assert set(statuses.values()) == {Status.GOOD}


def test_a_passing_refusal_does_not_change_the_plan() -> None:
    link = MemoryLink()
    with opened(link, TestClock()) as connection:
        link.read_error = DeviceRefused("busy")
        assert read(connection) == all_of(Status.BAD_COMMUNICATION_ERROR)
        assert connection.connected
        link.read_error = None
        assert read(connection) == all_of(Status.GOOD)
        assert link.log == ["connect", "read DB1 20–35", "read DB1 20–35"]


def test_a_short_answer_is_a_protocol_error() -> None:
    link = MemoryLink()
    link.memory = bytearray(21)
    with opened(link, TestClock()) as connection:
        assert read(connection) == all_of(Status.BAD_COMMUNICATION_ERROR)
        assert isinstance(connection.last_error, DeviceProtocolError)
        assert not connection.connected


def test_a_bug_below_shows_as_a_dead_device_not_a_dead_thread() -> None:
    link, clock = MemoryLink(), TestClock()

    def broken() -> Limits:
        raise ZeroDivisionError("surprise")

    working, link.connect = link.connect, broken  # type: ignore[method-assign]
    with opened(link, clock) as connection:
        assert set(read(connection).values()) == {Status.BAD_COMMUNICATION_ERROR}
        assert "surprise" in str(connection.last_error)
        link.connect = working  # type: ignore[method-assign]
        clock.pass_s(1.0)
        assert read(connection) == all_of(Status.GOOD)


def test_a_closed_connection_stays_closed() -> None:
    link = MemoryLink()
    with opened(link, TestClock()) as connection:
        read(connection)
        connection.close()
        connection.close()
        assert link.log[-1] == "close"
        assert read(connection) == all_of(Status.BAD_NO_COMMUNICATION)
        assert write(connection, FRAME)[0] is WriteOutcome.FAILED
    assert not any(thread.name == "device-plc" for thread in threading.enumerate())


def test_calls_out_of_order_are_a_programming_error() -> None:
    with opened(MemoryLink(), TestClock()) as connection:
        with pytest.raises(RuntimeError):
            connection.finish_read()
        with pytest.raises(RuntimeError):
            connection.finish_write()
        connection.begin_read()
        with pytest.raises(RuntimeError):
            connection.begin_read()
        connection.finish_read()


@pytest.mark.parametrize(
    "make",
    [
        lambda clock: open_s7("d", (), clock, host="x", timeout_s=0.0),
        lambda clock: open_s7("d", (), clock, host="x", connection_type="XX"),
        lambda clock: open_s7("d", (), clock, host="x", slot=99),
        lambda clock: open_modbus_tcp("d", (), clock, host="x", unit=300),
        lambda clock: open_modbus_tcp("d", (), clock, host="x", max_read=126),
        lambda clock: open_modbus_rtu("d", (), clock, port="x", parity="Z"),
    ],
)
def test_impossible_options_are_settings_errors(
    make: Callable[[TestClock], OwnedConnection],
) -> None:
    with pytest.raises(SettingsError) as caught:
        make(TestClock())
    assert caught.value.mend


def subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(found for child in kind.__subclasses__() for found in subclasses(child))]


OS_ERRORS = [
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), DeviceUnreachable),
    (ConnectionResetError(errno.ECONNRESET, "reset"), DeviceUnreachable),
    (BrokenPipeError(errno.EPIPE, "pipe"), DeviceUnreachable),
    (OSError(errno.EHOSTUNREACH, "no route"), DeviceUnreachable),
    (OSError(errno.ENETUNREACH, "no network"), DeviceUnreachable),
    (socket.gaierror(-2, "unknown name"), DeviceUnreachable),
    (TimeoutError("timed out"), DeviceTimeout),
    (OSError(errno.ETIMEDOUT, "timed out"), DeviceTimeout),
]


@pytest.mark.parametrize("translate", [s7_error, modbus_error])
@pytest.mark.parametrize(("error", "kind"), OS_ERRORS)
def test_every_kind_of_os_error_has_its_name(
    translate: Callable[[Exception, str], DeviceError],
    error: OSError,
    kind: type[DeviceError],
) -> None:
    translated = translate(error, "10.0.0.1:102")
    assert type(translated) is kind
    assert "10.0.0.1:102" in str(translated)


S7_EXPECTED: dict[str, type[DeviceError]] = {
    "S7Error": DeviceProtocolError,
    "S7ConnectionError": DeviceUnreachable,
    "S7TimeoutError": DeviceTimeout,
    "S7ProtocolError": DeviceProtocolError,
    "S7StalePacketError": DeviceProtocolError,
    "S7PacketLostError": DeviceProtocolError,
    "S7AuthenticationError": DeviceRefused,
    "S7RateLimitError": DeviceRefused,
}
MODBUS_EXPECTED: dict[str, type[DeviceError]] = {
    "ModbusException": DeviceProtocolError,
    "ModbusIOException": DeviceProtocolError,
    "ParameterException": DeviceRefused,
    "NoSuchIdException": DeviceRefused,
    "NotImplementedException": DeviceProtocolError,
    "ConnectionException": DeviceUnreachable,
    "MessageRegisterException": DeviceProtocolError,
}


def test_every_exception_of_the_s7_library_is_mapped() -> None:
    own = [kind for kind in subclasses(S7Error) if kind.__module__ == snap7.error.__name__]
    assert {kind.__name__ for kind in own} == set(S7_EXPECTED)
    for kind in own:
        assert type(s7_error(kind("boom"), "plc")) is S7_EXPECTED[kind.__name__]


def test_every_exception_of_the_modbus_library_is_mapped() -> None:
    module = pymodbus.exceptions.__name__
    own = [kind for kind in subclasses(ModbusException) if kind.__module__ == module]
    assert {kind.__name__ for kind in own} == set(MODBUS_EXPECTED)
    for kind in own:
        assert type(modbus_error(kind("boom"), "skid")) is MODBUS_EXPECTED[kind.__name__]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (S7ConnectionError("Expected COTP CC, got 0x80"), DeviceRefused, "rack and slot"),
        (S7ConnectionError("Invalid TPKT version: 9"), DeviceProtocolError, "TPKT"),
        (S7ProtocolError("not available", error_code=0x8104), DeviceRefused, "PUT/GET"),
        (S7ProtocolError("area length", error_code=0x8701), AddressRefused, "Optimized"),
        (S7TimeoutError("Receive timeout"), DeviceTimeout, "Receive timeout"),
        (struct.error("short"), DeviceProtocolError, "short"),
        (IndexError("short"), DeviceProtocolError, "short"),
    ],
)
def test_what_the_s7_library_says_becomes_what_the_user_can_do(
    error: Exception, kind: type[DeviceError], words: str
) -> None:
    translated = s7_error(error, "plc")
    assert type(translated) is kind
    assert words in str(translated)


def test_a_modbus_timeout_is_told_from_a_wrong_answer() -> None:
    silent = ModbusIOException("No response received after 0 retries")
    wrong = ModbusIOException("request uses transaction id=4 but received 3")
    assert type(modbus_error(silent, "skid")) is DeviceTimeout
    assert type(modbus_error(wrong, "skid")) is DeviceProtocolError
    assert type(modbus_error(serial.SerialException("gone"), "tty")) is DeviceUnreachable
