"""Modbus TCP and RTU: registers and coils in few large requests, written with FC16 or FC15."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.exceptions import (
    ConnectionException,
    ModbusException,
    ModbusIOException,
    NoSuchIdException,
    ParameterException,
)
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from controller.drivers.block_plan import Limits, Request, modbus_limits
from controller.drivers.connection import OwnedConnection
from controller.drivers.link import AddressRefused
from controller.errors import (
    DeviceError,
    DeviceProtocolError,
    DeviceRefused,
    DeviceTimeout,
    DeviceUnreachable,
    SettingsError,
)
from controller.ports import Clock
from controller.signal import Tag

Client = ModbusTcpClient | ModbusSerialClient

_EXCEPTIONS: dict[int, tuple[str, str]] = {
    1: ("illegal function", "The device does not offer this area: check holding against input"),
    2: ("illegal address", "Compare the address with the register list; many count from 1"),
    3: ("illegal value", "The device may allow shorter requests only: lower max_read"),
    4: ("device failure", "Look at the device itself"),
    5: ("acknowledge, still working", ""),
    6: ("device busy", "Poll more slowly, or set an inter-request delay"),
    7: ("negative acknowledge", ""),
    8: ("memory parity error", "Look at the device itself"),
    10: ("gateway path unavailable", "Check the gateway and the unit number"),
    11: ("gateway: no answer from the device", "Check the serial line and the unit number"),
}
_READ_FUNCTIONS = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_WRITE_FUNCTIONS = {"coil": 15, "holding": 16}
# A refusal of 3 is often the length of the request, so halving the block helps as well.
_ADDRESS_CODES = frozenset({2, 3})
# A line that never falls silent is a device that talks unasked; the next time-out will tell.
LATE_ANSWERS_MAX = 10
_NETWORK = "Check host, port, cable and firewall; Modbus TCP uses port 502"


class ModbusLink:
    """Requests to one Modbus unit through a synchronous pymodbus client.

    Args:
        make_client: a new client for every connection, so that nothing of the last one is left.
        where: host:port or serial port, for messages.
        unit: number of the unit, 0 to 255.
        limits: largest requests, gap and forbidden ranges.
        delay_s: silence before each request, for slow devices on a serial line.
    """

    def __init__(
        self,
        make_client: Callable[[], Client],
        where: str,
        unit: int,
        limits: Limits,
        delay_s: float = 0.0,
    ) -> None:
        if not 0 <= unit <= 255:
            raise SettingsError(f"unit {unit}", where=where, mend="Use 0 to 255")
        self._make_client = make_client
        self._where = where
        self._unit = unit
        self._limits = limits
        self._delay_s = delay_s
        self._client: Client | None = None
        self._owed = False  # an answer may still be on its way from the last connection

    def connect(self) -> Limits:
        self.close()
        client = self._make_client()
        with self._translated():
            if not client.connect():
                raise DeviceUnreachable("cannot connect", where=self._where, mend=_NETWORK)
        wire: Any = client.socket
        if isinstance(wire, socket.socket):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            wire.reset_input_buffer()
            if self._owed:
                _await_silence(wire)
            self._owed = False
        self._client = client
        return self._limits

    def read(self, request: Request) -> bytes:
        client, area, count = self._ready(), request.region.area, request.count
        read: dict[str, Callable[..., ModbusPDU]] = {
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
        }
        with self._translated():
            answer = read[area](request.start, count=count, device_id=self._unit)
            self._check(answer, request, _READ_FUNCTIONS[area])
            if request.region.unit_bytes == 1:
                return bytes(answer.bits[:count])
            if len(answer.registers) != count:
                raise DeviceProtocolError(
                    f"{len(answer.registers)} registers in the answer to {request}",
                    where=self._where,
                )
            return struct.pack(f">{count}H", *answer.registers)

    def write(self, request: Request, data: bytes) -> None:
        client = self._ready()
        with self._translated():
            if request.region.area == "coil":
                bits = [byte != 0 for byte in data]
                answer = client.write_coils(request.start, bits, device_id=self._unit)
            else:
                registers = list(struct.unpack(f">{request.count}H", data))
                answer = client.write_registers(request.start, registers, device_id=self._unit)
            self._check(answer, request, _WRITE_FUNCTIONS[request.region.area])
            if (answer.address, answer.count) != (request.start, request.count):
                raise DeviceProtocolError(
                    f"confirmed {answer.count} addresses from {answer.address} on, not {request}",
                    where=self._where,
                )

    def abort(self) -> None:
        client = self._client
        wire = client.socket if client else None
        if isinstance(wire, socket.socket):
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._owed = True
            with contextlib.suppress(OSError):
                client.close()

    def _ready(self) -> Client:
        """The client, after the silence that the device needs."""
        # pymodbus would reconnect by itself on a closed socket, behind the back of the backoff.
        if self._client is None or self._client.socket is None:
            raise DeviceUnreachable("not connected", where=self._where)
        if self._delay_s:
            time.sleep(self._delay_s)
        return self._client

    def _check(self, answer: ModbusPDU, request: Request, function: int) -> None:
        """Raise when the answer is an exception response, or one to another question."""
        if isinstance(answer, ExceptionResponse) and answer.function_code & 0x7F == function:
            code = answer.exception_code
            name, mend = _EXCEPTIONS.get(code, ("unknown exception", ""))
            kind = AddressRefused if code in _ADDRESS_CODES else DeviceRefused
            raise kind(f"{request}: {name} (exception {code})", where=self._where, mend=mend)
        if answer.isError() or answer.function_code != function:
            raise DeviceProtocolError(
                f"{request}: answered with function {answer.function_code}, not {function}",
                where=self._where,
            )

    @contextlib.contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except DeviceError:
            raise
        except (
            ModbusException,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            struct.error,
        ) as error:
            raise modbus_error(error, self._where) from error


def _await_silence(line: Any) -> None:
    """Let late answers pass: return when a serial line has been silent for two time-outs.

    RTU has no transaction number. Behind a device slower than the time-out every read would get
    the answer to the one before it, Good and for ever. A device may be three times as slow as
    the time-out before this can happen.
    """
    patience_s = line.timeout
    line.timeout = 2.0 * patience_s
    for _ in range(LATE_ANSWERS_MAX):
        if not line.read(1):
            break
        line.reset_input_buffer()
    line.timeout = patience_s


def modbus_error(error: Exception, where: str) -> DeviceError:
    """Our name for what pymodbus, pyserial or the socket raised.

    Args:
        error: any exception from below the link.
        where: `host:port` or the serial port.
    """
    what = str(error) or type(error).__name__
    if isinstance(error, ModbusIOException):
        # The same class tells a time-out and an answer to another request apart by text alone.
        if "No response" in what:
            return DeviceTimeout(what, where=where, mend=_NETWORK)
        return DeviceProtocolError(what, where=where)
    if isinstance(error, ConnectionException):
        return DeviceUnreachable(what, where=where, mend=_NETWORK)
    if isinstance(error, (ParameterException, NoSuchIdException)):
        return DeviceRefused(what, where=where)
    if isinstance(error, TimeoutError) or (
        isinstance(error, OSError) and error.errno == errno.ETIMEDOUT
    ):
        return DeviceTimeout(what, where=where, mend=_NETWORK)
    if isinstance(error, OSError):
        return DeviceUnreachable(what, where=where, mend=_NETWORK)
    return DeviceProtocolError(f"{type(error).__name__}: {what}", where=where)


def open_modbus_tcp(
    name: str,
    tags: Sequence[Tag],
    clock: Clock,
    *,
    host: str,
    port: int = 502,
    unit: int = 1,
    timeout_s: float = 0.3,
    max_gap: int = 10,
    forbidden: tuple[tuple[int, int], ...] = (),
    max_read: int = 125,
    max_write: int = 123,
    seed: int = 0,
) -> OwnedConnection:
    """A Modbus TCP device as a Transport. Does not connect yet.

    Args:
        name: of the device.
        tags: all tags of the device; its write tags must lie side by side in one area.
        clock: stamps samples, measures the backoff.
        host, port, unit: of the device.
        timeout_s: longest time for one read of all tags, or one verified write.
        max_gap: widest gap, in registers, that a request may bridge.
        forbidden: register ranges (first, last) that no request may touch.
        max_read, max_write: registers in one request.
        seed: of the reconnect jitter.

    Raises:
        SettingsError: a tag or an option is not usable.
    """
    limits = modbus_limits(
        max_gap=max_gap, forbidden=forbidden, max_read=max_read, max_write=max_write
    )

    def make_client() -> Client:
        return ModbusTcpClient(host, port=port, timeout=timeout_s, retries=0)

    link = ModbusLink(make_client, f"{host}:{port}", unit, limits)
    return OwnedConnection(
        name, "modbus", tags, clock, link, limits=limits, timeout_s=timeout_s, seed=seed
    )


def open_modbus_rtu(
    name: str,
    tags: Sequence[Tag],
    clock: Clock,
    *,
    port: str,
    baudrate: int = 9600,
    parity: str = "N",
    stopbits: int = 1,
    unit: int = 1,
    timeout_s: float = 0.5,
    delay_s: float = 0.0,
    max_gap: int = 10,
    forbidden: tuple[tuple[int, int], ...] = (),
    max_read: int = 125,
    max_write: int = 123,
    seed: int = 0,
) -> OwnedConnection:
    """A Modbus RTU device on a serial line as a Transport. Does not open the line yet.

    Args:
        name, tags, clock, unit, timeout_s, max_gap, forbidden, max_read, max_write, seed: as in
            `open_modbus_tcp`.
        port: serial port, e.g. /dev/ttyUSB0.
        baudrate, parity, stopbits: of the line; parity N, E or O.
        delay_s: silence before each request, for devices that need a rest.

    Raises:
        SettingsError: a tag or an option is not usable.
    """
    if parity not in ("N", "E", "O"):
        raise SettingsError(f"parity {parity!r}", where=name, mend="Use N, E or O")
    limits = modbus_limits(
        max_gap=max_gap, forbidden=forbidden, max_read=max_read, max_write=max_write
    )

    def make_client() -> Client:
        return ModbusSerialClient(
            port,
            baudrate=baudrate,
            parity=parity,
            stopbits=stopbits,
            timeout=timeout_s,
            retries=0,
        )

    link = ModbusLink(make_client, port, unit, limits, delay_s)
    return OwnedConnection(
        name, "modbus", tags, clock, link, limits=limits, timeout_s=timeout_s, seed=seed
    )
