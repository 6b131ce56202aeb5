"""Where a value lives in a PLC, read from the address as the PLC programmer writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from controller.errors import SettingsError

S7Area = Literal["DB", "M", "I", "Q"]
ModbusArea = Literal["holding", "input", "coil", "discrete"]

BITS: dict[str, int] = {
    "bool": 1,
    "int8": 8,
    "uint8": 8,
    "int16": 16,
    "uint16": 16,
    "int32": 32,
    "uint32": 32,
    "int64": 64,
    "uint64": 64,
    "float32": 32,
    "float64": 64,
}
"""Width of every fixed-width type, in bits; `string[n]` is n characters wide."""

S7_TYPES: dict[str, str] = {
    "BOOL": "bool",
    "BYTE": "uint8",
    "USINT": "uint8",
    "SINT": "int8",
    "INT": "int16",
    "UINT": "uint16",
    "WORD": "uint16",
    "DINT": "int32",
    "UDINT": "uint32",
    "DWORD": "uint32",
    "LINT": "int64",
    "ULINT": "uint64",
    "LWORD": "uint64",
    "REAL": "float32",
    "LREAL": "float64",
}
"""IEC 61131-3 keyword to Tag.type."""

_S7_KEYWORD = {
    "bool": "BOOL",
    "uint8": "BYTE",
    "int8": "SINT",
    "int16": "INT",
    "uint16": "UINT",
    "int32": "DINT",
    "uint32": "UDINT",
    "int64": "LINT",
    "uint64": "ULINT",
    "float32": "REAL",
    "float64": "LREAL",
}
# German mnemonics (Eingang, Ausgang, Merker) name the same areas; both are in daily use.
_S7_AREAS: dict[str, S7Area] = {"I": "I", "E": "I", "Q": "Q", "A": "Q", "M": "M"}
_WIDTH_LETTER = {1: "B", 2: "W", 4: "D"}
_LARGEST_DB = 65535
_LARGEST_BYTE = 65535
_LARGEST_S7_STRING = 254
_LARGEST_MODBUS_STRING = 246  # 123 registers: the most that one request may write

_S7_MEND = (
    "Write for example DB10.DBD4:REAL, DB10.DBW20:UINT, DB10.DBX2.3:BOOL, DB10.DBB8:LREAL, "
    "DB10,REAL4, MW20:INT or IW64:INT"
)
_MODBUS_MEND = (
    "Write for example holding:100:float32 (counted from 0), 40101:float32 or 400101:float32 "
    "(counted from 1), input:7:int16, coil:3, discrete:12 or holding:100.3:bool"
)
_S7_DB = re.compile(r"DB(\d+)\.DB([XBWDL])(\d+)(?:\.(\d+))?(?::(.+))?")
_S7_COMMA = re.compile(r"DB(\d+),([A-Z]+(?:\[\d+\])?)(\d+)(?:\.(\d+))?")
_S7_MEMORY = re.compile(r"([MIEQA])([XBWDL]?)(\d+)(?:\.(\d+))?(?::(.+))?")
_STRING = re.compile(r"STRING\[(\d+)\]", re.IGNORECASE)
_MODBUS_NAMED = re.compile(r"(holding|input|coil|discrete):(\d+)(?:\.(\d+))?(?::(.+))?")
_MODBUS_NUMBERED = re.compile(r"([0134])(\d{4,5})(?:\.(\d+))?(?::(.+))?")
_NUMBERED_AREAS: dict[str, ModbusArea] = {
    "0": "coil",
    "1": "discrete",
    "3": "input",
    "4": "holding",
}


@dataclass(frozen=True, slots=True)
class S7Address:
    """A value in a Siemens PLC.

    Attributes:
        area: DB, M (flags), I (inputs) or Q (outputs).
        db: number of the data block, 0 in the other areas.
        byte: offset of the first byte.
        bit: 0 to 7 of a bool, 0 otherwise.
        type: as in Tag.type.
        size: bytes that the value occupies; a string[n] has two bytes of lengths before its text.
    """

    area: S7Area
    db: int
    byte: int
    bit: int
    type: str
    size: int

    @property
    def canonical(self) -> str:
        """The one spelling by which equal addresses compare equal."""
        text = string_length(self.type)
        keyword = f"STRING[{text}]" if text else _S7_KEYWORD[self.type]
        letter = "X" if self.type == "bool" else _WIDTH_LETTER.get(self.size, "B")
        if text:
            letter = "B"
        place = f"{letter}{self.byte}" + (f".{self.bit}" if self.type == "bool" else "")
        area = f"DB{self.db}.DB" if self.area == "DB" else self.area
        return f"{area}{place}:{keyword}"


@dataclass(frozen=True, slots=True)
class ModbusAddress:
    """A value in a Modbus device.

    Attributes:
        area: holding, input (registers of 16 bits), coil or discrete (bits).
        register: address on the wire, counted from 0.
        bit: of a bool in a register, 0 the least significant; 0 otherwise.
        type: as in Tag.type.
        size: registers, or bits in the areas coil and discrete, that the value occupies.
    """

    area: ModbusArea
    register: int
    bit: int
    type: str
    size: int

    @property
    def is_bit_area(self) -> bool:
        return self.area in ("coil", "discrete")

    @property
    def canonical(self) -> str:
        """The one spelling by which equal addresses compare equal."""
        bit = f".{self.bit}" if self.type == "bool" and not self.is_bit_area else ""
        return f"{self.area}:{self.register}{bit}:{self.type}"


def string_length(type_: str) -> int:
    """Characters of a `string[n]`, 0 of every other type."""
    match = _STRING.fullmatch(type_)
    return int(match.group(1)) if match else 0


def parse_s7(text: str) -> S7Address:
    """Read an S7 address. Raises SettingsError that names what is wrong with it."""
    plain = text.strip().upper().replace(" ", "")
    if match := _S7_DB.fullmatch(plain):
        db, letter, byte, bit, keyword = match.groups()
        return _s7_address(text, "DB", int(db), letter, int(byte), bit, keyword)
    if match := _S7_COMMA.fullmatch(plain):
        db, keyword, byte, bit = match.groups()
        return _s7_address(text, "DB", int(db), "", int(byte), bit, keyword)
    if match := _S7_MEMORY.fullmatch(plain):
        area, letter, byte, bit, keyword = match.groups()
        return _s7_address(text, _S7_AREAS[area], 0, letter or "X", int(byte), bit, keyword)
    raise SettingsError(f"{text!r} is not an S7 address", mend=_S7_MEND)


def _s7_address(
    text: str, area: S7Area, db: int, letter: str, byte: int, bit: str | None, keyword: str | None
) -> S7Address:
    if keyword is None:
        if letter != "X" or bit is None:
            # A bare DBD may be REAL, DINT or DWORD: a guess would show a plausible wrong number.
            raise SettingsError(f"{text!r} does not say the type of the value", mend=_S7_MEND)
        keyword = "BOOL"
    type_, size = _s7_type(text, keyword)
    if area == "DB" and not 1 <= db <= _LARGEST_DB:
        raise SettingsError(f"{text!r}: DB numbers run from 1 to {_LARGEST_DB}", mend=_S7_MEND)
    if byte + size - 1 > _LARGEST_BYTE:
        raise SettingsError(f"{text!r} ends behind byte {_LARGEST_BYTE}", mend=_S7_MEND)
    number = int(bit) if bit is not None else 0
    if type_ == "bool":
        if bit is None or number > 7 or letter not in ("X", ""):
            raise SettingsError(
                f"{text!r}: a BOOL needs a byte and a bit from 0 to 7", mend=_S7_MEND
            )
        return S7Address(area, db, byte, number, type_, size)
    if number:
        raise SettingsError(f"{text!r}: a {keyword} starts at bit 0 of a byte", mend=_S7_MEND)
    if letter == "X" and bit is None:
        raise SettingsError(f"{text!r} does not say B, W or D before the offset", mend=_S7_MEND)
    _check_width(text, letter, keyword, size, is_string=string_length(type_) > 0)
    return S7Address(area, db, byte, 0, type_, size)


def _s7_type(text: str, keyword: str) -> tuple[str, int]:
    """Tag.type and size in bytes of an IEC 61131-3 keyword."""
    if match := _STRING.fullmatch(keyword):
        length = int(match.group(1))
        if not 1 <= length <= _LARGEST_S7_STRING:
            raise SettingsError(
                f"{text!r}: a STRING has 1 to {_LARGEST_S7_STRING} characters", mend=_S7_MEND
            )
        return f"string[{length}]", length + 2
    if keyword not in S7_TYPES:
        known = ", ".join(S7_TYPES)
        raise SettingsError(
            f"{text!r}: {keyword} is not a known S7 type", mend=f"Use {known} or STRING[n]"
        )
    type_ = S7_TYPES[keyword]
    return type_, max(1, BITS[type_] // 8)


def _check_width(text: str, letter: str, keyword: str, size: int, *, is_string: bool) -> None:
    """DBB, DBW and DBD are 1, 2 and 4 bytes; longer values are named by their first byte."""
    width = {"B": 1, "W": 2, "D": 4, "L": 8}.get(letter, size)
    first_byte = letter in ("B", "X", "") and (is_string or size == 8)
    if letter == "X" and not first_byte:
        raise SettingsError(f"{text!r}: X names a bit, and {keyword} is no BOOL", mend=_S7_MEND)
    if (width != size or is_string) and not first_byte:
        unit = "byte" if size == 1 else "bytes"
        raise SettingsError(
            f"{text!r}: {letter} is {width} bytes wide, {keyword} needs {size} {unit}",
            mend=_S7_MEND,
        )


def parse_modbus(text: str) -> ModbusAddress:
    """Read a Modbus address. Raises SettingsError that names what is wrong with it."""
    plain = text.strip().lower().replace(" ", "")
    if match := _MODBUS_NAMED.fullmatch(plain):
        area, register, bit, type_ = match.groups()
        return _modbus_address(text, _named_area(area), int(register), bit, type_)
    if match := _MODBUS_NUMBERED.fullmatch(plain):
        prefix, number, bit, type_ = match.groups()
        if int(number) == 0:
            raise SettingsError(
                f"{text!r}: numbers of this form count from 1, so {prefix}{'0' * len(number)} "
                "does not exist",
                mend=_MODBUS_MEND,
            )
        return _modbus_address(text, _NUMBERED_AREAS[prefix], int(number) - 1, bit, type_)
    raise SettingsError(f"{text!r} is not a Modbus address", mend=_MODBUS_MEND)


def _named_area(text: str) -> ModbusArea:
    areas: dict[str, ModbusArea] = {area: area for area in _NUMBERED_AREAS.values()}
    return areas[text]


def _modbus_address(
    text: str, area: ModbusArea, register: int, bit: str | None, type_: str | None
) -> ModbusAddress:
    if area in ("coil", "discrete"):
        if bit is not None or type_ not in (None, "bool"):
            raise SettingsError(f"{text!r}: a {area} is a single bool", mend=_MODBUS_MEND)
        type_, size = "bool", 1
    else:
        type_ = type_ or ("bool" if bit is not None else "uint16")
        size = _registers(text, type_)
        if (type_ == "bool") != (bit is not None) or (bit is not None and int(bit) > 15):
            raise SettingsError(
                f"{text!r}: a bool in a register needs its bit, 0 to 15, and only a bool has one",
                mend=_MODBUS_MEND,
            )
    if register + size > 65536:
        raise SettingsError(f"{text!r} ends behind register 65535", mend=_MODBUS_MEND)
    return ModbusAddress(area, register, int(bit or 0), type_, size)


def _registers(text: str, type_: str) -> int:
    """Registers of 16 bits that a type occupies."""
    if characters := string_length(type_):
        if characters > _LARGEST_MODBUS_STRING:
            raise SettingsError(
                f"{text!r}: a string has 1 to {_LARGEST_MODBUS_STRING} characters",
                mend=_MODBUS_MEND,
            )
        return (characters + 1) // 2
    if type_ not in BITS:
        known = ", ".join(BITS)
        raise SettingsError(
            f"{text!r}: {type_} is not a known type", mend=f"Use {known} or string[n]"
        )
    return max(1, BITS[type_] // 16)


def parse_address(driver: str, text: str) -> S7Address | ModbusAddress:
    """Read an address of the named driver, `s7` or `modbus`. Raises SettingsError."""
    if driver == "s7":
        return parse_s7(text)
    if driver == "modbus":
        return parse_modbus(text)
    raise SettingsError(f"there is no driver {driver!r}", mend="Use s7 or modbus")


def describe_type(driver: str, address: str) -> str:
    """The Tag.type (`float32`, `uint16`, `bool`, `string[20]` …) that an address stands for."""
    return parse_address(driver, address).type
