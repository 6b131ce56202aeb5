"""A STEP 7 CPU that runs a Statement List program (awlsim), one scan at a time, on given time.

Import this module only where such a PLC is wanted: awlsim is an extra of its own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

# awlsim's modules import each other in a circle, which closes only when its core comes first.
from awlsim.core.main import S7CPU, AwlSimError, MaintenanceRequest

# isort: split
from awlsim.awlcompiler import AwlParser
from awlsim.core.symbolparser import SymTabParser

from controller.errors import ScenarioError
from controller.signal import NS_PER_S

__all__ = ["AwlCpu"]

_PERIPHERY_BYTES: Final = 2048
"""Of inputs and of outputs: analogue modules of an S7-300 begin at 256."""
_LOOKS_MAX: Final = 20_000
"""awlsim looks at the clock every 32 instructions or more; a scan with more looks does not end."""
_RESTART, _SCAN = "OB 100", "OB 1"


class _TimedCpu(S7CPU):
    """awlsim's CPU on the time it is given, and with inputs and outputs that are always there.

    Timers, clocks and the limit on the length of a scan would otherwise follow the wall clock, and
    no run would be like another.
    """

    time_ns = 0
    begun_ns = 0
    looks = 0

    def updateTimestamp(self, _getTime: object = None) -> None:
        self.now = (self.time_ns - self.begun_ns) / NS_PER_S
        self.looks += 1
        if self.looks > _LOOKS_MAX:
            raise AwlSimError("the scan does not end: endless loop in the program", cpu=self)

    def makeCurrentDateAndTime(self, byteArray: bytearray, offset: int) -> None:
        """DATE_AND_TIME, BCD: year to second, milliseconds, weekday with Sunday = 1; UTC."""
        seconds, ns = divmod(self.time_ns, NS_PER_S)
        now = datetime.fromtimestamp(seconds, UTC)
        digits = f"{now:%y%m%d%H%M%S}{ns // 1_000_000:03d}{now.isoweekday() % 7 + 1}"
        byteArray[offset : offset + 8] = bytes.fromhex(digits)


class AwlCpu:
    """One CPU with its program, from power-up until the end of the run.

    Attributes:
        program: the source, for messages.
    """

    def __init__(self, program: Path, time_ns: int, symbols: Path | None = None) -> None:
        """Translate the program; nothing of it runs yet.

        Args:
            time_ns: of power-up, ns since epoch.
            symbols: symbol table, as STEP 7 exports it (.asc), or awlsim's own.

        Raises:
            ScenarioError: a file cannot be read or translated; awlsim's words, and the line.
        """
        self.program = program
        text = _source(program)
        self._cpu: Any = _TimedCpu()
        self._cpu.time_ns = self._cpu.begun_ns = time_ns
        self._cpu.specs.setNrInputs(_PERIPHERY_BYTES)
        self._cpu.specs.setNrOutputs(_PERIPHERY_BYTES)
        self._cpu.setPeripheralReadCallback(self._read_periphery)
        self._cpu.setPeripheralWriteCallback(self._write_periphery)
        if symbols is not None:
            self._load_symbols(symbols)
        try:
            parser: Any = AwlParser()
            parser.parseText(text)
            self._cpu.load(parser.getParseTree())
            self._cpu.build()
            self._cpu.staticSanityChecks()
        except AwlSimError as error:
            raise _wrong(error, program, "cannot be translated") from error
        if len(self._cpu.getOB(1).insns) <= 1:
            raise ScenarioError(
                "the program has no OB 1, or an empty one, and so nothing to run in a scan",
                where=str(program),
                mend="Call your blocks in OB 1; no other cyclic or timed block is run",
            )

    def memory(self, area: str) -> bytearray | None:
        """The live bytes of `DB20`, `M`, `I` or `Q`, in place for ever; None for a DB there is not.

        What is written here is what the program sees.
        """
        if area in ("M", "I", "Q"):
            memory = {"M": self._cpu.flags, "I": self._cpu.inputs, "Q": self._cpu.outputs}[area]
            return memory.getDataBytes()
        block = self._block(area)
        return None if block is None else block.structInstance.memory.getDataBytes()

    def field(self, area: str, name: str) -> tuple[int, str] | None:
        """First byte and type of a field of a data block; None where there is no such field."""
        block = self._block(area)
        found = None if block is None else block.struct.name2field.get(name)
        return None if found is None else (found.offset.byteOffset, str(found.dataType))

    def fields(self, area: str) -> list[str]:
        """Names of the fields of a data block, those inside of structures left out."""
        block = self._block(area)
        names = [] if block is None else [str(field.name) for field in block.struct.fields]
        return [name for name in names if name.isidentifier()]

    def restart(self, time_ns: int) -> None:
        """Warm restart: OB 100. Data blocks, markers and timers keep what they hold.

        Raises:
            ScenarioError: the program stopped the CPU.
        """
        self._run(_RESTART, time_ns)

    def scan(self, time_ns: int) -> None:
        """Run OB 1 once, at `time_ns`, ns since epoch; no time passes meanwhile.

        Raises:
            ScenarioError: as `restart`.
        """
        self._run(_SCAN, time_ns)

    def _run(self, block: Literal["OB 100", "OB 1"], time_ns: int) -> None:
        self._cpu.time_ns = time_ns
        self._cpu.looks = 0
        try:
            if block == _RESTART:
                self._cpu.startup()
            else:
                self._cpu.runCycle()
        except (AwlSimError, MaintenanceRequest) as error:
            raise _wrong(error, self.program, f"stops in {block}") from error

    def _load_symbols(self, path: Path) -> None:
        try:
            parser: Any = SymTabParser
            self._cpu.loadSymbolTable(parser.parseText(_source(path)))
        except AwlSimError as error:
            raise _wrong(error, path, "has a wrong symbol table") from error

    def _block(self, area: str) -> Any:
        block: Any = self._cpu.getDB(int(area.removeprefix("DB")))
        return None if block is None or block.structInstance is None else block

    def _read_periphery(self, _: object, width: int, byte: int) -> bytearray:
        self._check_periphery(byte + width // 8)
        return self._cpu.inputs.getDataBytes()[byte : byte + width // 8]

    def _write_periphery(self, _: object, width: int, byte: int, value: bytearray) -> bool:
        self._check_periphery(byte + width // 8)
        self._cpu.outputs.getDataBytes()[byte : byte + width // 8] = value
        return True

    def _check_periphery(self, end: int) -> None:
        if end > _PERIPHERY_BYTES:
            raise AwlSimError(f"the periphery ends at byte {_PERIPHERY_BYTES}", cpu=self._cpu)


def _source(path: Path) -> str:
    try:
        # STEP 7 writes sources in the code page of Windows; only comments are not ASCII.
        return path.read_bytes().decode("cp1252", "replace")
    except OSError as error:
        raise ScenarioError(
            f"it cannot be read: {error.strerror}", where=str(path), mend="Check the path"
        ) from error


def _wrong(error: Any, path: Path, what: str) -> ScenarioError:
    """awlsim's own words, in one line, at the line of the source."""
    located = isinstance(error, AwlSimError)
    said = re.sub(r"\s+", " ", str(error.getMessage() if located else error)).strip()
    line = error.getLineNr() if located else None
    return ScenarioError(
        f"the program {what}: {said}",
        where=str(path) if line is None else f"{path}:{line}",
        mend="Correct it; awlsim knows the Statement List of S7-300 and S7-400",
    )
