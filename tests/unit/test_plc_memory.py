"""The memory of the virtual PLC: byte orders, scales, bits, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.errors import ScenarioError
from controller.signal import Tag
from hil.plc_memory import DeviceMemory, byte_permutation


@pytest.mark.parametrize(
    ("order", "expected"),
    [("ABCD", "42a00001"), ("CDAB", "000142a0"), ("BADC", "a0420100"), ("DCBA", "0100a042")],
)
def test_byte_orders(order: str, expected: str) -> None:
    tag = Tag("X", "skid", "holding:2:float32", "float32", byte_order=order)  # type: ignore[arg-type]
    memory = DeviceMemory("skid", [tag])
    value = float(np.frombuffer(bytes.fromhex("42a00001"), ">f4")[0])
    memory.set("X", value)
    assert memory.areas["holding"][4:].hex() == expected
    assert memory.get("X") == value
    assert len(byte_permutation(8, "CDAB")) == 8


def test_memory_scales_and_refuses_what_does_not_fit() -> None:
    tags = [
        Tag("X", "skid", "40011", "int16", scale=0.1, offset=5.0),
        Tag("B", "skid", "holding:0:uint16", "uint16"),
        Tag("M", "plc", "M3.5:BOOL", "bool"),
    ]
    memory = DeviceMemory("skid", tags)
    memory.set("X", 7.3)
    assert memory.areas["holding"][20:22] == (23).to_bytes(2, "big")
    assert memory.get("X") == pytest.approx(7.3)
    with pytest.raises(ScenarioError, match="does not fit"):
        memory.set("B", 70000)
    with pytest.raises(ScenarioError, match="does not fit"):
        memory.set("B", math.nan)
    with pytest.raises(ScenarioError, match="no tag of skid"):
        memory.get("Y")
    bits = DeviceMemory("plc", tags)
    bits.set("M", 1)
    assert (bits.areas["M"][3], bits.get("M")) == (0b100000, 1)
    with pytest.raises(ScenarioError, match="cannot hold the address"):
        DeviceMemory("skid", [Tag("X", "skid", "register five", "int16")])
