"""The command block of a device as bytes, laid out by the harness and not by a driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.errors import ScenarioError
from controller.signal import Tag
from hil.link.frames import WireWrite
from hil.plc_memory import Cell


class CommandBlock:
    """The command block of a device as bytes, laid out by the harness's own code."""

    def __init__(self, device: str, tags: Mapping[str, Tag]) -> None:
        cells = [Cell(t) for t in tags.values() if t.device == device and t.access == "write"]
        self._cells = {cell.tag.name: cell for cell in cells}
        self._area = cells[0].place.area if cells else ""
        self._start = min((cell.place.byte for cell in cells), default=0)
        self._end = max((cell.place.end for cell in cells), default=0)

    def shows(self, words: Mapping[str, float], writes: Sequence[WireWrite]) -> bool:
        """Whether a request stores exactly this frame, every value of it."""
        image = bytearray(self._end - self._start)
        try:
            for name, value in words.items():
                cell = self._cells[name]
                cell.encode(image, cell.place.byte - self._start, value)
        except (KeyError, ScenarioError):
            return False
        if len(writes) == 1 and writes[0].bit is None:
            only = writes[0]
            return (only.area, only.byte) == (self._area, self._start) and only.data == bytes(image)
        stored = bytearray(len(image))
        for write in writes:
            first = write.byte - self._start
            if write.area != self._area or first < 0 or first + len(write.data) > len(image):
                return False
            if write.bit is None:
                stored[first : first + len(write.data)] = write.data
            else:
                stored[first] |= (write.data[0] & 1) << write.bit
        return stored == image
