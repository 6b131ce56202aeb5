"""A transport without a wire: the virtual tier's way into the PLC memory.

It implements the same port as the drivers, with the same statuses for a cable that is cut, so the
loop above it cannot tell the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from controller.ports import Clock, WriteReport
from controller.signal import Sample, Status, Tag, WriteOutcome
from hil.plc_memory import Cell, DeviceMemory
from hil.wire_frames import WireWrite

FrameWitness = Callable[[str, Sequence[WireWrite]], None]


class MemoryTransport:
    """One device, read and written in its memory.

    Args:
        witness: sees every write as bytes, as the wire watch does on a real wire.
    """

    def __init__(
        self, memory: DeviceMemory, tags: Sequence[Tag], clock: Clock, witness: FrameWitness
    ) -> None:
        self._memory = memory
        self._tags = tuple(tags)
        self._clock = clock
        self._witness = witness
        self._cells = {tag.name: Cell(tag) for tag in tags}
        self._readers = {tag.name: memory.reader(tag.name) for tag in tags if tag.access == "read"}
        self._writers = {tag.name: memory.writer(tag.name) for tag in tags if tag.access == "write"}
        self._faults: set[str] = set()
        self._samples: dict[str, Sample] = {}
        self._report = WriteReport(WriteOutcome.NONE)

    @property
    def name(self) -> str:
        return self._memory.device

    @property
    def tags(self) -> Sequence[Tag]:
        return self._tags

    def begin(self, fault: str, *, delay_ms: float = 0.0, jitter_ms: float = 0.0) -> None:
        """Raise a link fault; a delay has no meaning where the clock stands still."""
        self._faults.add(fault)

    def end(self, fault: str) -> None:
        self._faults.discard(fault)

    def begin_read(self) -> None:
        now = self._clock.time_ns()
        if self._faults & {"cable_cut", "refuse", "reset"}:
            lost = Sample(None, Status.BAD_COMMUNICATION_ERROR, now, now)
            self._samples = dict.fromkeys(self._readers, lost)
            return
        with self._memory.lock:
            self._samples = {
                name: Sample(read(), Status.GOOD, now, now) for name, read in self._readers.items()
            }

    def finish_read(self) -> Mapping[str, Sample]:
        return self._samples

    def begin_write(self, values: Mapping[str, float]) -> None:
        if self._faults & {"cable_cut", "refuse", "reset"}:
            self._report = WriteReport(WriteOutcome.FAILED, "the device does not answer")
            return
        writes: list[WireWrite] = []
        for tag, value in values.items():
            cell = self._cells[tag]
            image = bytearray(cell.place.size)
            cell.encode(image, 0, value)
            writes.append(WireWrite(cell.place.area, cell.place.byte, bytes(image)))
        self._witness(self.name, _one_request(writes))
        with self._memory.lock:
            for tag, value in values.items():
                self._writers[tag](value)
        self._report = WriteReport(WriteOutcome.WRITTEN)

    def finish_write(self) -> WriteReport:
        return self._report

    def close(self) -> None:
        self._samples = {}


def _one_request(writes: Sequence[WireWrite]) -> list[WireWrite]:
    """Writes side by side joined into one, as the write plan of a driver does."""
    joined: list[WireWrite] = []
    for write in sorted(writes, key=lambda w: (w.area, w.byte)):
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.area == write.area
            and last.byte + len(last.data) == write.byte
        ):
            joined[-1] = WireWrite(last.area, last.byte, last.data + write.data)
        else:
            joined.append(write)
    return joined
