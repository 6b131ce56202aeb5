"""The line to a PLC without a wire: requests that reach its memory, faults permitting.

It asks the same `LineFaults` as the proxy, request by request, so that equal seeds lose, refuse
and distort the same requests in both tiers. Errors are the ones that the drivers raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from controller.drivers.block_plan import Request
from controller.drivers.link import AddressRefused
from controller.errors import DeviceRefused, DeviceTimeout, DeviceUnreachable
from controller.ports import Clock
from controller.signal import NS_PER_S
from hil.faults.kinds import Driver, LinkFault
from hil.link.answers import ReadSpan
from hil.link.faults import Chance, LineFaults
from hil.link.frames import WireWrite
from hil.plc_memory import DeviceMemory

_State = Literal["closed", "up", "dead"]
_REGISTERS: Final = frozenset(("holding", "input", "coil", "discrete"))
_SILENT: Final = frozenset((LinkFault.CABLE_CUT, LinkFault.HALF_OPEN))
# Which refusals mean the address, so that a driver halves the block: exceptions of Modbus;
# return codes of an S7 item, then error words of an S7 header (no such object, wrong length).
_ADDRESS_CODES: Final[Mapping[Driver, frozenset[int]]] = {
    "modbus": frozenset((2, 3)),
    "s7": frozenset((0x05, 0x06, 0x07, 0x0A, 0x8701, 0xD042, 0xD801)),
}


class MemoryLine:
    """One device behind a line that can be disturbed; never more than one connection is open.

    Args:
        memory: of the device; its areas tell the protocol.
        clock: paces a reconnect storm.
        timeout_s: of connecting, as in the drivers.
        seed: of the faults, as given to the proxy of the device.

    Attributes:
        driver: `s7` or `modbus`.
        spent_ns: time that the requests since `start` have taken.
    """

    def __init__(self, memory: DeviceMemory, clock: Clock, timeout_s: float, seed: int) -> None:
        self.driver: Driver = "modbus" if memory.areas.keys() & _REGISTERS else "s7"
        self.spent_ns = 0
        self._memory = memory
        self._clock = clock
        self._timeout_ns = round(timeout_s * NS_PER_S)
        layout = (cell.place for cell in memory.cells.values())
        self._faults = LineFaults(self.driver, seed, layout)
        self._state: _State = "closed"
        self._connections = 0
        self._chance: Chance = self._faults.chance(0)

    def begin(self, fault: str, args: Mapping[str, float]) -> None:
        """Raise a link fault; raises ScenarioError as `hil.link.faults.checked_link_fault`."""
        kind = self._faults.begin(fault, args, self._clock.monotonic_ns())
        if kind in _SILENT and self._state == "up":
            self._state = "dead"
        elif kind in (LinkFault.RESET, LinkFault.REFUSE):
            self._break()

    def end(self, fault: LinkFault) -> None:
        """End a link fault. A connection that went dead under it is closed."""
        was_active = fault in self._faults.active
        self._faults.end(fault)
        if was_active and fault in _SILENT and not self._faults.active.keys() & _SILENT:
            self._state = "closed" if self._state == "dead" else self._state

    @property
    def late(self) -> bool:
        """Whether the requests since `start` took the whole time-out."""
        return self.spent_ns >= self._timeout_ns

    def start(self) -> None:
        """Begin to count the time of one read or one write."""
        self.spent_ns = 0

    def close(self) -> None:
        """Hang up."""
        self._state = "closed"

    def connect(self) -> None:
        """Open a connection; raises DeviceUnreachable or DeviceTimeout."""
        active = self._faults.active
        self._storm()
        if LinkFault.CABLE_CUT in active:
            raise self._late(self._timeout_ns)
        if LinkFault.REFUSE in active:
            raise DeviceUnreachable("connection refused", where=self._memory.device)
        self._connections += 1
        self._chance = self._faults.chance(self._connections)
        self._state = "closed" if LinkFault.RESET in active else "up"
        if self.driver == "s7":
            # TCP comes up on any line that is not cut; the S7 handshake needs two exchanges.
            self._exchange(_no_data, self._timeout_ns)
            self._exchange(_no_data, self._timeout_ns)

    def read(self, request: Request) -> bytes:
        """The bytes of one read request, as `controller.drivers.link.Link.read`."""
        unit = request.region.unit_bytes
        return self._read(ReadSpan(str(request.region), request.start * unit, request.size))

    def read_back(self, writes: Sequence[WireWrite]) -> list[bytes]:
        """What the PLC answers when it is asked for what was just written."""
        return [self._read(ReadSpan(w.area, w.byte, len(w.data))) for w in writes]

    def write(self, store: Callable[[], None]) -> None:
        """One write request; `store` is called when it reaches the PLC, confirmed or not."""

        def act() -> bytes:
            store()
            return b""

        self._ask(act)

    def _read(self, span: ReadSpan) -> bytes:
        def act() -> bytes:
            with self._memory.lock:
                return bytes(self._memory.areas[span.area][span.byte : span.byte + span.size])

        return self._faults.seen(span, self._ask(act))

    def _ask(self, act: Callable[[], bytes]) -> bytes:
        """One request that may be refused, in what is left of the time-out."""
        return self._exchange(act, self._timeout_ns - self.spent_ns, refusable=True)

    def _exchange(
        self, act: Callable[[], bytes], patience_ns: int, *, refusable: bool = False
    ) -> bytes:
        """One request and its answer; `act` is what the PLC does when the request arrives."""
        faults, chance = self._faults, self._chance
        self._storm()
        if self._state == "closed":
            raise DeviceUnreachable("connection reset by peer", where=self._memory.device)
        if self._state == "up" and not faults.active:
            return act()
        if self._state == "dead" or chance.loses("to_plc"):
            raise self._late(patience_ns)
        if refusable and (code := chance.refusal()) is not None:
            self._spend(chance.delay_ns("from_plc"), patience_ns)
            kind = AddressRefused if code in _ADDRESS_CODES[self.driver] else DeviceRefused
            raise kind(f"refused with code {code:#x}", where=self._memory.device)
        there_ns = chance.delay_ns("to_plc")
        if there_ns >= patience_ns:
            raise self._late(patience_ns)
        data = act()
        if chance.loses("from_plc"):
            raise self._late(patience_ns)
        self._spend(there_ns + chance.delay_ns("from_plc"), patience_ns)
        return data

    def _spend(self, time_ns: int, patience_ns: int) -> None:
        if time_ns >= patience_ns:
            raise self._late(patience_ns)
        self.spent_ns += time_ns

    def _late(self, patience_ns: int) -> DeviceTimeout:
        self.spent_ns += patience_ns
        return DeviceTimeout("no complete answer in time", where=self._memory.device)

    def _storm(self) -> None:
        if self._faults.active and self._faults.breaks(self._clock.monotonic_ns()):
            self._break()

    def _break(self) -> None:
        """The connection is reset; a dead one does not hear of it."""
        if self._state == "up":
            self._state = "closed"


def _no_data() -> bytes:
    return b""
