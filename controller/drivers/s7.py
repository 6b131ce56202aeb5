"""Siemens S7 over ISO-on-TCP: classic S7 protocol, non-optimized blocks, PUT/GET enabled."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Generator, Sequence
from typing import Any, Literal, cast

from snap7.connection import ISOTCPConnection
from snap7.datatypes import S7Area as WireArea
from snap7.datatypes import S7WordLen
from snap7.error import (
    S7AuthenticationError,
    S7ConnectionError,
    S7Error,
    S7ProtocolError,
    S7RateLimitError,
    S7TimeoutError,
)
from snap7.s7protocol import S7Protocol, get_return_code_description

from controller.drivers.block_plan import Limits, Request, s7_limits
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

ConnectionType = Literal["PG", "OP", "BASIC"]
# The PLC counts its free connections per type; OP leaves the one reserved for programming alone.
_CONNECTION_TYPES: dict[str, int] = {"PG": 1, "OP": 2, "BASIC": 3}
_LOCAL_TSAP = 0x0100
PDU_REQUESTED = 960  # an S7-1500 grants it, smaller PLCs answer with 480 or 240
_PDU_SMALLEST = 112  # below this no PLC negotiates: the answer is damaged

_AREAS: dict[str, WireArea] = {
    "DB": WireArea.DB,
    "M": WireArea.MK,
    "I": WireArea.PE,
    "Q": WireArea.PA,
}
_SUCCESS = 0xFF
# Return codes of an item that will not change by asking again: wrong address, wrong type, no
# such object. 0x03 (access denied) concerns the whole block, so there is nothing to bisect.
_ADDRESS_CODES = frozenset({0x05, 0x06, 0x07, 0x0A})
# Errors in the header of an answer, in the numbering of the S7 protocol.
_HEADER_ADDRESS_CODES = frozenset({0x8701, 0xD042, 0xD801})
_PUT_GET = (
    "In TIA Portal: CPU properties, Protection & Security, permit access with PUT/GET "
    "communication from remote partners"
)
_LENGTH = (
    "Compare the address with the length of the block, and switch 'Optimized block access' off "
    "in its attributes"
)
_NETWORK = "Check host, port, cable and firewall; S7 uses TCP port 102"
_SLOT = "Check rack and slot (S7-300: 0/2, S7-1200/1500: 0/1) and free connections of the CPU"


class S7Link:
    """Requests to one S7 CPU, on the framing and protocol layers of python-snap7.

    Args:
        host: name or IP address.
        port: TCP port, 102 by standard.
        rack, slot: of the CPU.
        timeout_s: of connecting, and of each piece of an answer.
        connection_type: which kind of connection to take up in the CPU.
    """

    def __init__(
        self,
        host: str,
        port: int,
        rack: int,
        slot: int,
        timeout_s: float,
        connection_type: str,
    ) -> None:
        if connection_type not in _CONNECTION_TYPES:
            raise SettingsError(f"connection type {connection_type!r}", mend="Use PG, OP or BASIC")
        if not 0 <= rack <= 7 or not 0 <= slot <= 31:
            raise SettingsError(f"rack {rack}, slot {slot}", mend="Use rack 0 to 7, slot 0 to 31")
        self._host, self._port = host, port
        self._remote_tsap = _CONNECTION_TYPES[connection_type] << 8 | rack << 5 | slot
        self._timeout_s = timeout_s
        self._where = f"{host}:{port}"
        self._protocol = S7Protocol()
        self._connection: ISOTCPConnection | None = None
        self._pdu_bytes = 0

    def connect(self) -> Limits:
        self.close()
        self._protocol = S7Protocol()
        connection = ISOTCPConnection(self._host, self._port, _LOCAL_TSAP, self._remote_tsap)
        with self._translated():
            connection.connect(timeout=self._timeout_s)
            self._connection = connection
            # Still under the time-out of connecting: a set-up that is not answered costs no more.
            answer = self._exchange(
                self._protocol.build_setup_communication_request(pdu_length=PDU_REQUESTED)
            )
            _set_timeout(connection, self._timeout_s)
        parameters = cast("dict[str, Any]", answer.get("parameters") or {})
        pdu_bytes = parameters.get("pdu_length", 0)
        if not _PDU_SMALLEST <= pdu_bytes <= PDU_REQUESTED:
            raise DeviceProtocolError(f"negotiated a PDU of {pdu_bytes} bytes", where=self._where)
        self._pdu_bytes = pdu_bytes
        return s7_limits(pdu_bytes)

    def read(self, request: Request) -> bytes:
        limits = s7_limits(self._pdu_bytes)
        if request.count > limits.read:
            raise AddressRefused(
                f"{request} needs {request.count} bytes, one request carries {limits.read}",
                where=self._where,
                mend="Use a shorter text",
            )
        with self._translated():
            answer = self._exchange(
                self._protocol.build_read_request(
                    _AREAS[request.region.area],
                    request.region.db,
                    request.start,
                    S7WordLen.BYTE,
                    request.count,
                )
            )
            self._check_item(answer, request)
            return bytes(self._protocol.extract_read_data(answer, S7WordLen.BYTE, request.count))

    def write(self, request: Request, data: bytes) -> None:
        with self._translated():
            answer = self._exchange(
                self._protocol.build_write_request(
                    _AREAS[request.region.area],
                    request.region.db,
                    request.start,
                    S7WordLen.BYTE,
                    data,
                )
            )
            self._check_item(answer, request)
            self._protocol.check_write_response(answer)

    def abort(self) -> None:
        connection = self._connection
        wire = connection.socket if connection else None
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _exchange(self, pdu: bytes) -> dict[str, Any]:
        """Send one PDU and take its answer; an answer to any other PDU is a protocol error."""
        if self._connection is None:
            raise S7ConnectionError("Not connected")
        self._connection.send_data(pdu)
        answer = self._protocol.parse_response(self._connection.receive_data())
        self._protocol.validate_pdu_reference(answer["sequence"])
        return answer

    def _check_item(self, answer: dict[str, Any], request: Request) -> None:
        """Raise DeviceRefused when the CPU refused the one item of the request."""
        code = (answer.get("data") or {}).get("return_code", _SUCCESS)
        if code == _SUCCESS:
            return
        what = f"{request}: {get_return_code_description(code)} (0x{code:02X})"
        if code in _ADDRESS_CODES:
            raise AddressRefused(what, where=self._where, mend=_LENGTH)
        raise DeviceRefused(what, where=self._where, mend=_PUT_GET if code == 0x03 else "")

    @contextlib.contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except DeviceError:
            raise
        except (S7Error, OSError, ValueError, LookupError, TypeError, struct.error) as error:
            raise s7_error(error, self._where) from error


def s7_error(error: Exception, where: str) -> DeviceError:
    """Our name for what python-snap7 or the socket raised.

    Args:
        error: any exception from below the link.
        where: `host:port`.
    """
    what = str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    if isinstance(error, S7TimeoutError):
        return DeviceTimeout(what, where=where, mend=_NETWORK)
    if isinstance(error, S7AuthenticationError):
        return DeviceRefused(what, where=where, mend="Set the protection level to full access")
    if isinstance(error, S7RateLimitError):
        return DeviceRefused(what, where=where)
    if isinstance(error, S7ConnectionError):
        return _connection_error(what, cause, where)
    if isinstance(error, S7ProtocolError) and error.error_code is not None:
        kind = AddressRefused if error.error_code in _HEADER_ADDRESS_CODES else DeviceRefused
        return kind(what, where=where, mend=_LENGTH if kind is AddressRefused else _PUT_GET)
    if isinstance(error, TimeoutError):
        return DeviceTimeout(what, where=where, mend=_NETWORK)
    if isinstance(error, OSError):
        return DeviceUnreachable(what, where=where, mend=_NETWORK)
    return DeviceProtocolError(f"{type(error).__name__}: {what}", where=where)


def _connection_error(what: str, cause: BaseException | None, where: str) -> DeviceError:
    """python-snap7 has one class for a dead network and for a damaged frame."""
    if "Expected COTP CC" in what:
        return DeviceRefused(f"the CPU refused the connection ({what})", where=where, mend=_SLOT)
    if not isinstance(cause, OSError) and what.startswith(("Invalid", "Expected")):
        return DeviceProtocolError(what, where=where)
    return DeviceUnreachable(what, where=where, mend=_NETWORK)


def _set_timeout(connection: ISOTCPConnection, timeout_s: float) -> None:
    # The connection cuts late answers itself; this is the backstop of the owner thread. It has
    # to be set on the socket after every connect: the library keeps no time-out of its own.
    connection.timeout = 2.0 * timeout_s
    if connection.socket is not None:
        connection.socket.settimeout(2.0 * timeout_s)


def open_s7(
    name: str,
    tags: Sequence[Tag],
    clock: Clock,
    *,
    host: str,
    port: int = 102,
    rack: int = 0,
    slot: int = 1,
    timeout_s: float = 0.3,
    connection_type: ConnectionType = "PG",
    seed: int = 0,
) -> OwnedConnection:
    """A Siemens S7 CPU as a Transport. Does not connect yet.

    Args:
        name: of the device.
        tags: all tags of the device; its write tags must lie side by side in one block.
        clock: stamps samples, measures the backoff.
        host, port, rack, slot: of the CPU.
        timeout_s: longest time for one read of all tags, or one verified write.
        connection_type: PG, OP or BASIC.
        seed: of the reconnect jitter.

    Raises:
        SettingsError: a tag or an option is not usable.
    """
    link = S7Link(host, port, rack, slot, timeout_s, connection_type)
    return OwnedConnection(
        name,
        "s7",
        tags,
        clock,
        link,
        limits=s7_limits(PDU_REQUESTED),
        timeout_s=timeout_s,
        seed=seed,
    )
