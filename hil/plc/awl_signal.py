"""One signal between a plant and the memory of a Statement List program."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Final

from controller.errors import ScenarioError
from hil.names import unknown_name
from hil.plc.awl_wiring import Channel

if TYPE_CHECKING:
    from hil.plc.awl_cpu import AwlCpu

FULL_SCALE: Final = 27648
"""What an analogue module of SIMATIC S7 shows at the end of its range."""
_WORD_MIN, _WORD_MAX = -32768, 32767
_REAL = struct.Struct(">f")
_INT = struct.Struct(">h")
_KIND_OF: Final = {"REAL": "REAL", "INT": "WORD", "WORD": "WORD"}


class Signal:
    """A channel at its place in the program.

    Attributes:
        address: as the scenario writes it.
    """

    def __init__(self, cpu: AwlCpu, channel: Channel) -> None:
        """
        Raises:
            ScenarioError: the program has no such block or field, or its type carries no signal; a
                word without a range, or a REAL with one.
        """
        self.address = channel.address
        memory = cpu.memory(channel.terminal.area)
        if memory is None:
            raise ScenarioError(
                f"{cpu.program.name} has no {channel.terminal.area}",
                where=channel.where,
                mend="Correct the address, or add the data block",
            )
        self._memory, self._byte = memory, channel.terminal.byte
        kind: str = channel.terminal.kind
        if channel.terminal.field:
            self._byte, kind = _field(cpu, channel)
        self._code = _REAL if kind == "REAL" else _INT
        if channel.has_range == (kind == "REAL"):
            raise ScenarioError(
                f"{channel.address} is a {kind}, "
                + ("which needs no range" if kind == "REAL" else f"0 … {FULL_SCALE} of a range"),
                where=channel.where,
                mend="Leave the range out" if kind == "REAL" else "Add range: [low, high]",
            )
        if self._byte + self._code.size > len(memory):
            raise ScenarioError(
                f"{channel.address} lies beyond the {len(memory)} bytes of "
                f"{channel.terminal.area} in {cpu.program.name}",
                where=channel.where,
                mend="Correct the address",
            )
        self._low = channel.low
        self._per_step = (channel.high - channel.low) / FULL_SCALE

    def store(self, value: float) -> None:
        """Put a value, in the signal's unit, into the program's memory.

        A word shows an overflow (32767) for what is not a number, as for a broken wire.
        """
        if self._code is _INT:
            steps = (value - self._low) / self._per_step
            value = _WORD_MAX if math.isnan(steps) else min(max(steps, _WORD_MIN), _WORD_MAX)
            _INT.pack_into(self._memory, self._byte, round(value))
            return
        try:
            _REAL.pack_into(self._memory, self._byte, value)
        except OverflowError:
            _REAL.pack_into(self._memory, self._byte, math.copysign(math.inf, value))

    def load(self) -> float:
        """The value there, in the signal's unit."""
        (value,) = self._code.unpack_from(self._memory, self._byte)
        return self._low + value * self._per_step if self._code is _INT else value


def _field(cpu: AwlCpu, channel: Channel) -> tuple[int, str]:
    """First byte and kind of the field that the channel names."""
    area, name = channel.terminal.area, channel.terminal.field
    found = cpu.field(area, name)
    if found is None:
        what = f"field of {area} in {cpu.program.name}"
        raise unknown_name(what, name, cpu.fields(area), channel.where)
    byte, type_name = found
    if type_name not in _KIND_OF:
        raise ScenarioError(
            f"{channel.address} is a {type_name}, which carries no signal",
            where=channel.where,
            mend="Use a REAL, or an INT or WORD with a range",
        )
    return byte, _KIND_OF[type_name]
