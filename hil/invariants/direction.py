"""Which way an MV may not move: away from what operators allow, and into a saturated output."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite

from controller.settings import Manipulated
from controller.signal import Command, CommandKind, Sample

_AT_HIGH, _AT_LOW = 0b01, 0b10
"""Bits of a saturation word (`config/plc`)."""
_SAME = 1e-6
"""Share of an MV's range within which two setpoints are the same."""


class OperatorLimits:
    """The limits that operators have set, heard anew and not taken from the controller."""

    def __init__(self, mvs: Sequence[Manipulated]) -> None:
        self._mvs = {mv.name: mv for mv in mvs}
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}

    def hear(self, command: Command) -> None:
        """What is no limit of an MV, or none that it may have, changes nothing."""
        mv, value = self._mvs.get(command.target), command.value
        if mv is None or value is None or not (isfinite(value) and mv.low <= value <= mv.high):
            return
        if command.kind is CommandKind.LIMIT_LOW and value < self._high.get(mv.name, mv.high):
            self._low[mv.name] = value
        elif command.kind is CommandKind.LIMIT_HIGH and value > self._low.get(mv.name, mv.low):
            self._high[mv.name] = value

    def left(self, mv: Manipulated, value: float, standing: Sequence[float]) -> str:
        """How a setpoint goes away from them; empty where it does not.

        Args:
            standing: setpoints that it may have come from.
        """
        low, high = self._low.get(mv.name, -inf), self._high.get(mv.name, inf)
        near = _SAME * (mv.high - mv.low)
        if value > max(high, *standing) + near or value < min(low, *standing) - near:
            return f"{mv.name} goes to {value:g}, operators want [{low:g}, {high:g}]"
        return ""


def into_saturation(
    mv: Manipulated, word: Sample | None, value: float, standing: Sequence[float]
) -> str:
    """How a setpoint goes further into a saturated output; empty where it does not.

    Args:
        word: saturation word of the loop.
        standing: setpoints that it may have come from; at least one.
    """
    if word is None or not word.status.is_good or not isinstance(word.value, (int, float)):
        return ""
    bits, near = int(word.value), _SAME * (mv.high - mv.low)
    if bits & _AT_HIGH and value > max(standing) + near:
        return f"{mv.name} goes up to {value:g}, and its output is at its high limit"
    if bits & _AT_LOW and value < min(standing) - near:
        return f"{mv.name} goes down to {value:g}, and its output is at its low limit"
    return ""
