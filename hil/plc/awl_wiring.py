"""What a scenario says of a PLC that runs a Statement List program: the program and its wiring."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controller.errors import ScenarioError

_FIELD = re.compile(r"DB(?P<db>\d+)\.(?P<field>[A-Za-z_]\w*)$", re.IGNORECASE)
_ABSOLUTE = re.compile(r"DB(?P<db>\d+)\.DB(?P<width>[A-Z]) ?(?P<byte>\d+)(?:\.\d)?$", re.IGNORECASE)
_PERIPHERY = re.compile(r"P?(?P<area>[IEQA])W ?(?P<byte>\d+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where a signal of the plant meets the program.

    Attributes:
        area: `DB21`, or `I` and `Q` of the periphery.
        field: of the data block, by name; "" where `byte` says it.
        kind: `REAL` in units of the plant, or `WORD`, a channel of 0 … 27648; "" is what the field
            turns out to be.
    """

    area: str
    field: str
    byte: int
    kind: Literal["", "REAL", "WORD"]


@dataclass(frozen=True, slots=True)
class Channel:
    """One signal between plant and program.

    Attributes:
        address: as the scenario writes it: `DB21.DBD28`, `DB21.PV_FIELD`, `PIW256`.
        signal: plant output that is read here, or plant input that is driven.
        low, high: value at 0 and at 27648 of a WORD, in the signal's unit; NaN for a REAL.
        noise: standard deviation of the transmitter, in the signal's unit.
        where: the place in the scenario.
    """

    address: str
    terminal: Terminal
    signal: str
    low: float
    high: float
    noise: float
    where: str

    @property
    def has_range(self) -> bool:
        return self.low == self.low


@dataclass(frozen=True, slots=True)
class AwlWiring:
    """The program, and every signal of the plant that it reads or drives.

    Attributes:
        symbols: symbol table of the program, where it has one.
        where: the place of the program in the scenario.
    """

    program: Path
    symbols: Path | None
    scan_s: float
    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    where: str


def terminal(address: str, side: Literal["inputs", "outputs"], where: str) -> Terminal:
    """Read an address in the notation of STEP 7, English or German.

    Raises:
        ScenarioError: it is none, or one that the plant cannot be wired to.
    """
    text = address.strip()
    if found := _PERIPHERY.match(text):
        area = "I" if found["area"].upper() in "IE" else "Q"
        if (area == "I") == (side == "inputs"):
            return Terminal(area, "", int(found["byte"]), "WORD")
        raise ScenarioError(
            f"{address} is no address for {side} of the PLC",
            where=where,
            mend="Inputs have PIW, outputs PQW",
        )
    if found := _ABSOLUTE.match(text):
        kind = {"D": "REAL", "W": "WORD"}.get(found["width"].upper())
        if kind == "REAL" or kind == "WORD":
            return Terminal(f"DB{int(found['db'])}", "", int(found["byte"]), kind)
    elif found := _FIELD.match(text):
        return Terminal(f"DB{int(found['db'])}", found["field"].upper(), 0, "")
    raise ScenarioError(
        f"no signal of the plant can be wired to {address!r}",
        where=where,
        mend="Write a REAL such as DB21.DBD28 or DB21.PV_FIELD, or a word such as PIW256",
    )
