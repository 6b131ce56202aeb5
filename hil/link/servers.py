"""Real S7 and Modbus TCP servers in front of the virtual PLC's memory, on loopback only."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import Self, cast

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from snap7.datatypes import S7Area
from snap7.server import Server
from snap7.type import SrvArea

from controller.errors import ScenarioError
from hil.plc_memory import DeviceMemory

LOOPBACK = "127.0.0.1"
_START_STOP_S = 10.0  # a server that needs longer than this on loopback is broken
_AREA_OF_FUNCTION = {3: "holding", 4: "input", 6: "holding", 16: "holding", 22: "holding"}
_REGISTER_AREAS = ("holding", "input")


class _ClosableServer(Server):
    """python-snap7's server, with client sockets that can be closed.

    Its own `stop` waits up to a second for each client thread, because they sit in `recv` until
    their own time-out.
    """

    def __init__(self) -> None:
        super().__init__(log=False)
        self.host = LOOPBACK
        self._sockets: set[socket.socket] = set()

    def _handle_client(self, client_socket: socket.socket, address: tuple[str, int]) -> None:
        self._sockets.add(client_socket)
        try:
            super()._handle_client(client_socket, address)
        finally:
            self._sockets.discard(client_socket)

    def stop(self) -> int:
        for client in tuple(self._sockets):
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it left by itself
        return super().stop()


class S7Server:
    """S7 over ISO-on-TCP (python-snap7) on the very bytearrays of `memory`.

    Every request holds the memory's lock while it copies, so that it sees a whole block.
    """

    def __init__(self, memory: DeviceMemory, port: int = 0) -> None:
        self._wanted_port = port
        self._port = 0
        self._server = _ClosableServer()
        for area, image in memory.areas.items():
            if area == "M":
                kind, number, key = SrvArea.MK, 0, (S7Area.MK, 0)
            elif area.startswith("DB"):
                kind, number, key = SrvArea.DB, int(area[2:]), (S7Area.DB, int(area[2:]))
            else:
                raise ScenarioError(
                    f"an S7 device has no area {area}", where=memory.device, mend="Use DB or M"
                )
            self._server.register_area(kind, number, image)
            self._server.area_locks[key] = memory.lock

    @property
    def port(self) -> int:
        """The port it listens on; 0 before `start`."""
        return self._port

    def start(self) -> None:
        self._server.start(self._wanted_port)
        listener = self._server.server_socket
        if listener is None:
            raise RuntimeError("the S7 server started without a listening socket")
        self._port = listener.getsockname()[1]

    def close(self) -> None:
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ModbusServer:
    """Modbus TCP (pymodbus, asyncio in a thread of its own) on the bytes of `memory`.

    pymodbus keeps registers in lists of its own; the device's action copies the memory into them
    before a read is answered and copies a write into the memory, both under the memory's lock.
    """

    def __init__(self, memory: DeviceMemory, unit: int = 1, port: int = 0) -> None:
        for area in memory.areas:
            if area not in _REGISTER_AREAS:
                raise ScenarioError(
                    f"a virtual Modbus device has no area {area}",
                    where=memory.device,
                    mend="Use holding or input registers",
                )
        self._memory = memory
        self._unit = unit
        self._wanted_port = port
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: ModbusTcpServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on; 0 before `start`."""
        return self._port

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"modbus-{self._memory.device}", daemon=True
        )
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_STOP_S)

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._shutdown(), self._loop).result(_START_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_STOP_S)
        self._loop.close()
        self._loop = self._thread = None

    async def _listen(self) -> None:
        spare_bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        device = SimDevice(
            id=self._unit,
            simdata=(spare_bits, list(spare_bits), self._registers("holding"),
                     self._registers("input")),
            action=self._access,
        )  # fmt: skip
        self._server = ModbusTcpServer(device, address=(LOOPBACK, self._wanted_port))
        await self._server.serve_forever(background=True)
        listener = cast(asyncio.Server, self._server.transport)
        self._port = listener.sockets[0].getsockname()[1]

    async def _shutdown(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
        # Let the closed transports leave the loop before it stops.
        pending = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await asyncio.sleep(0)

    def _registers(self, area: str) -> list[SimData]:
        """The registers that exist; the action refuses the spare one of an unused area."""
        first, end = self._memory.spans.get(area, (0, 2))
        count = (end + 1) // 2 - first // 2
        return [SimData(first // 2, count=count, values=0, datatype=DataType.REGISTERS)]

    async def _access(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        image = self._memory.areas.get(_AREA_OF_FUNCTION.get(function, ""))
        if image is None:
            return ExcCodes.ILLEGAL_ADDRESS
        with self._memory.lock:
            if values is None:
                registers[address - start : address - start + count] = struct.unpack_from(
                    f">{count}H", image, 2 * address
                )
            else:
                struct.pack_into(f">{len(values)}H", image, 2 * address, *values)
        return None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
