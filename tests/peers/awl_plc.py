"""A PLC that runs a STEP 7 Statement List program (awlsim) behind an S7 server, scan by scan."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

# awlsim's modules import each other in a circle, which closes only when its core comes first.
from awlsim.core.main import AwlSim

# isort: split
from awlsim.awlcompiler import AwlParser
from awlsim.core.datablocks import DB
from snap7.server import Server
from snap7.type import SrvArea

PROGRAM = Path(__file__).parents[2] / "config" / "awl" / "loopwright.awl"
INTERFACE_DB = 20
SETTINGS_DB = 21
DB_BYTES = 40
LAG = 0.1  # scan time over the time constant of the process, which rests where PV = OUT
FROM_CONTROLLER = slice(0, 12)
TO_CONTROLLER = slice(20, 40)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the PLC programmer sets; every field is the DB21 field of the same name.

    Times are counted in scans: `watchdog` scans without a new heartbeat, `step` the largest
    change of the setpoint in use per scan, `integral` the scan time over the reset time.
    """

    permit: bool = True
    use_fallback: bool = False
    watchdog: int = 3
    low: float = 70.0
    high: float = 100.0
    step: float = 5.0
    fallback: float = 75.0
    local_sp: float = 80.0
    gain: float = 2.0
    integral: float = 0.1
    out_low: float = 0.0
    out_high: float = 200.0


@dataclass(frozen=True, slots=True)
class Frame:
    """DB20.0–11: what the controller wrote last."""

    heartbeat: int
    sequence: int
    epoch: int
    request: int
    setpoint: float


@dataclass(slots=True)
class AwlPlc:
    """One slave loop in AWL, with the interface block DB20 on an S7 server on loopback.

    The block is laid out as the device `reactor` in config/williams_otto/williams-otto.yaml.
    Nothing happens between scans: `scan` copies the controller's part of DB20 into the program,
    runs OB 1 once and copies the PLC's part back, each copy under the server's lock.
    """

    settings: LoopSettings = field(default_factory=LoopSettings)
    _db: bytearray = field(init=False, default_factory=lambda: bytearray(DB_BYTES))
    _server: Server = field(init=False)
    _sim: AwlSim = field(init=False)
    _port: int = field(init=False, default=0)

    @property
    def port(self) -> int:
        """TCP port of the S7 server; 0 before `start`."""
        return self._port

    def start(self, port: int = 0) -> None:
        """Load the program, run OB 100 and listen; port 0 takes a free one."""
        parser = AwlParser()
        parser.parseText(PROGRAM.read_text(encoding="ascii"))
        self._sim = AwlSim()
        self._sim.reset()
        self._sim.load(parser.getParseTree())
        self._sim.build()
        for setting in fields(self.settings):
            self.set(setting.name, getattr(self.settings, setting.name))
        rest = self.settings.local_sp
        struct.pack_into(">3f", self._memory(INTERFACE_DB), 28, rest, rest, rest)
        self._sim.startup()
        self._db[TO_CONTROLLER] = self._memory(INTERFACE_DB)[TO_CONTROLLER]
        self._server = Server(log=False)
        self._server.host = "127.0.0.1"
        self._server.register_area(SrvArea.DB, INTERFACE_DB, self._db)
        self._server.start(port)
        listener = self._server.server_socket
        if listener is None:
            raise RuntimeError("the S7 server started without a listening socket")
        self._port = listener.getsockname()[1]

    def scan(self, pv: float | None = None) -> None:
        """One PLC cycle. `pv` is the process value from the field; None lets the process go on."""
        before = self.process_value
        self.set("pv_field", before + LAG * (self.output - before) if pv is None else pv)
        program = self._memory(INTERFACE_DB)
        self._server.lock_area(SrvArea.DB, INTERFACE_DB)
        program[FROM_CONTROLLER] = self._db[FROM_CONTROLLER]
        self._server.unlock_area(SrvArea.DB, INTERFACE_DB)
        self._sim.runCycle()
        self._server.lock_area(SrvArea.DB, INTERFACE_DB)
        self._db[TO_CONTROLLER] = program[TO_CONTROLLER]
        self._server.unlock_area(SrvArea.DB, INTERFACE_DB)

    def stop(self) -> None:
        """Close the server; clients should have disconnected."""
        self._server.stop()
        self._sim.shutdown()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def frame(self) -> Frame:
        """What stands in the controller's part of the block now, scanned or not."""
        self._server.lock_area(SrvArea.DB, INTERFACE_DB)
        written = bytes(self._db[FROM_CONTROLLER])
        self._server.unlock_area(SrvArea.DB, INTERFACE_DB)
        return Frame(*struct.unpack(">4Hf", written))

    @property
    def remote(self) -> bool:
        return bool(self._memory(INTERFACE_DB)[25] & 1)

    @property
    def setpoint_in_use(self) -> float:
        return self._real(28)

    @property
    def process_value(self) -> float:
        return self._real(32)

    @property
    def output(self) -> float:
        return self._real(36)

    def set(self, name: str, value: float) -> None:
        """What the operator or the field sets: a DB21 field by its name, in any case.

        Raises:
            AwlSimError: DB21 has no such field.
        """
        shape = self._block(SETTINGS_DB).struct
        assert shape is not None
        place = shape.getField(name.upper())
        memory, start = self._memory(SETTINGS_DB), place.offset.byteOffset
        if place.bitSize == 1:
            mask = 1 << place.offset.bitOffset
            memory[start] = memory[start] | mask if value else memory[start] & ~mask
        elif place.bitSize == 16:
            struct.pack_into(">h", memory, start, int(value))
        else:
            struct.pack_into(">f", memory, start, value)

    def _real(self, byte: int) -> float:
        return struct.unpack_from(">f", self._memory(INTERFACE_DB), byte)[0]

    def _memory(self, number: int) -> bytearray:
        """The live bytes of a data block: what is written here is what the program sees."""
        instance = self._block(number).structInstance
        assert instance is not None
        return instance.memory.getDataBytes()

    def _block(self, number: int) -> DB:
        block = self._sim.getCPU().getDB(number)
        if block is None:
            raise LookupError(f"the program {PROGRAM.name} has no DB {number}")
        return block
