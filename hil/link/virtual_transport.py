"""A transport without a wire: the virtual tier's way into the PLC memory.

It implements the same port as the drivers, plans its requests and decodes the answers with their
code, and gives the same statuses for a disturbed line, so the loop above it cannot tell the
difference. What a driver does with a thread and a time-out, it does on the line's own account.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from controller.drivers.backoff import Backoff
from controller.drivers.block_plan import Limits, modbus_limits, place, s7_limits
from controller.drivers.block_read import BlockReader
from controller.errors import DeviceError, DeviceRefused, DeviceTimeout
from controller.ports import Clock, WriteReport
from controller.signal import NS_PER_S, Sample, Status, Tag, WriteOutcome
from hil.link.faults import link_fault
from hil.link.frames import WireWrite
from hil.link.virtual_line import MemoryLine
from hil.plc_memory import DeviceMemory

FrameWitness = Callable[[str, Sequence[WireWrite]], None]

_NO_ARGS: Final[Mapping[str, float]] = MappingProxyType({})
_S7_PDU_BYTES = 480  # what the server of the wire tier grants


class MemoryTransport:
    """One device, read and written in its memory.

    Args:
        memory: of the device; its areas tell the protocol.
        tags: all tags of the device.
        clock: stamps samples, measures the backoff, paces a reconnect storm.
        witness: sees every write that reaches the PLC as bytes, as the wire watch does.
        timeout_s: of one whole read, or one whole write with its read-back, as in the drivers.
        seed: of the reconnect jitter, as given to the driver.
        line_seed: of the faults of the line, as given to the proxy.
        limits: of requests, as in the driver; left out, its defaults.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        tags: Sequence[Tag],
        clock: Clock,
        witness: FrameWitness,
        *,
        timeout_s: float = 0.3,
        seed: int = 0,
        line_seed: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self._memory = memory
        self._tags = tuple(tags)
        self._clock = clock
        self._witness = witness
        self._line = MemoryLine(memory, clock, timeout_s, line_seed)
        driver = self._line.driver
        self._limits = limits or (
            modbus_limits() if driver == "modbus" else s7_limits(_S7_PDU_BYTES)
        )
        reads = [tag for tag in tags if tag.access == "read"]
        self._read_names = tuple(tag.name for tag in reads)
        self._reader = BlockReader(
            (place(driver, tag) for tag in reads),
            clock,
            timeout_s / 2.0,
            lambda: self._line.spent_ns / NS_PER_S,
        )
        self._writable = {tag.name: tag for tag in tags if tag.access == "write"}
        self._frames: dict[tuple[str, ...], _Frame] = {}
        rng = np.random.default_rng([seed, zlib.crc32(memory.device.encode())])
        self._backoff = Backoff(clock, rng)
        self._connected = False
        self._samples: Mapping[str, Sample] = {}
        self._report = WriteReport(WriteOutcome.NONE)

    @property
    def name(self) -> str:
        return self._memory.device

    @property
    def tags(self) -> Sequence[Tag]:
        return self._tags

    def begin(self, fault: str, args: Mapping[str, float] = _NO_ARGS) -> None:
        """Raise a link fault.

        Raises:
            ScenarioError: no such fault on this protocol, or a wrong argument
                (`hil.link.faults.checked_link_fault`).
        """
        self._line.begin(fault, args)

    def end(self, fault: str) -> None:
        """End a link fault; raises ScenarioError when there is no such fault."""
        self._line.end(link_fault(fault))

    def begin_read(self) -> None:
        self._line.start()
        self._samples = self._read() if self._connect() else self._bad(Status.BAD_NO_COMMUNICATION)

    def finish_read(self) -> Mapping[str, Sample]:
        return self._samples

    def begin_write(self, values: Mapping[str, float]) -> None:
        self._line.start()
        self._report = self._write(values) if values else WriteReport(WriteOutcome.NONE)

    def finish_write(self) -> WriteReport:
        return self._report

    def close(self) -> None:
        self._line.close()
        self._connected = False
        self._samples = {}

    def _connect(self) -> bool:
        """Whether a read can go out now, over the connection there is or a new one."""
        if self._connected:
            return True
        if not self._backoff.elapsed:
            return False
        try:
            self._line.connect()
        except DeviceError:
            self._drop()
            return False
        self._connected = True
        self._reader.plan(self._limits)
        if self._line.late:
            # Up, but too late for this read: the drivers keep such a connection for the next.
            self._backoff.failed()
            return False
        return True

    def _read(self) -> Mapping[str, Sample]:
        result = self._reader.read(self._line.read)
        if not result.dropped:
            self._backoff.succeeded()
            return result.samples
        self._drop()
        if isinstance(result.error, DeviceTimeout):
            # A read that is late is given up whole, with the blocks that were in time.
            return self._bad(Status.BAD_COMMUNICATION_ERROR)
        return result.samples

    def _write(self, values: Mapping[str, float]) -> WriteReport:
        if not self._connected:
            return WriteReport(WriteOutcome.FAILED, f"{self.name} is not connected")
        frame = self._frame(values)
        writes = frame.encode(values)

        def store() -> None:
            self._witness(self.name, writes)
            with self._memory.lock:
                frame.store(self._memory, writes, values)

        try:
            self._line.write(store)
        except DeviceRefused as error:
            return WriteReport(WriteOutcome.REFUSED, str(error))
        except DeviceError as error:
            self._drop()
            return WriteReport(WriteOutcome.FAILED, str(error))
        return self._verify(frame, writes)

    def _verify(self, frame: _Frame, writes: Sequence[WireWrite]) -> WriteReport:
        """Read the frame back: only what the PLC holds now counts as written."""
        try:
            read_back = self._line.read_back(writes)
        except DeviceError as error:
            if not isinstance(error, DeviceRefused):
                self._drop()
            return WriteReport(WriteOutcome.FAILED, f"cannot be read back: {error}")
        if read_back == [write.data for write in writes]:
            return WriteReport(WriteOutcome.WRITTEN)
        different = frame.differences(writes, read_back)
        if not different:
            return WriteReport(WriteOutcome.WRITTEN)
        return WriteReport(WriteOutcome.FAILED, "; ".join(different))

    def _frame(self, values: Mapping[str, float]) -> _Frame:
        names = tuple(values)
        frame = self._frames.get(names)
        if frame is None:
            # A loop writes the same tags for ever, in the same order.
            frame = _Frame(self.name, [self._writable[name] for name in names])
            self._frames[names] = frame
        return frame

    def _drop(self) -> None:
        """Give the connection up and wait before the next."""
        self._line.close()
        self._connected = False
        self._backoff.failed()

    def _bad(self, status: Status) -> Mapping[str, Sample]:
        now_ns = self._clock.time_ns()
        return dict.fromkeys(self._read_names, Sample(None, status, now_ns, now_ns))


class _Frame:
    """How the values of some write tags lie in one request."""

    def __init__(self, device: str, tags: Sequence[Tag]) -> None:
        image = DeviceMemory(device, tags)
        self._areas = image.areas
        self._block = image.block([tag.name for tag in tags])
        self._cells = tuple(image.cells.values())
        self._spans: list[tuple[str, int, int]] = []
        for spot in sorted({(c.place.area, c.place.byte, c.place.end) for c in self._cells}):
            area, byte, end = spot
            last = self._spans[-1] if self._spans else ("", 0, 0)
            if (area, byte) == (last[0], last[2]):
                self._spans[-1] = (area, last[1], end)
            else:
                self._spans.append(spot)
        self._bits = [cell for cell in self._cells if cell.place.letter == "?"]

    def encode(self, values: Mapping[str, float]) -> list[WireWrite]:
        """Values side by side in one write, as the write plan of a driver makes it.

        Raises:
            ScenarioError: a value does not fit the type of its tag.
        """
        self._block.write([*values.values()])
        return [
            WireWrite(area, byte, bytes(self._areas[area][byte:end]))
            for area, byte, end in self._spans
        ]

    def store(
        self, memory: DeviceMemory, writes: Sequence[WireWrite], values: Mapping[str, float]
    ) -> None:
        """Put the frame into the memory; to be called with its lock held."""
        bits = {cell.place: memory.areas[cell.place.area][cell.place.byte] for cell in self._bits}
        for write in writes:
            memory.areas[write.area][write.byte : write.byte + len(write.data)] = write.data
        # The other bits of a byte are not ours.
        for spot, byte in bits.items():
            memory.areas[spot.area][spot.byte] = byte
        for cell in self._bits:
            image = memory.areas[cell.place.area]
            cell.encode(image, cell.place.byte, values[cell.tag.name])

    def differences(self, writes: Sequence[WireWrite], read_back: Sequence[bytes]) -> list[str]:
        """In words, every tag that did not come back as it was written.

        Bits are compared by value: their byte holds neighbours.
        """
        found: list[str] = []
        for write, data in zip(writes, read_back, strict=True):
            for cell in self._cells:
                spot, start = cell.place, cell.place.byte - write.byte
                if spot.area != write.area or not 0 <= start < len(write.data):
                    continue
                before, after = cell.decode(write.data, start), cell.decode(data, start)
                span = slice(start, start + spot.size)
                if before != after if spot.letter == "?" else write.data[span] != data[span]:
                    found.append(f"{cell.tag.name}: wrote {before:g}, reads back {after:g}")
        return found
