"""The memory of the virtual PLC: byte orders, scales, bits, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.data())
def test_a_block_is_the_same_bytes_and_values_as_its_tags_one_by_one(data: st.DataObject) -> None:
    """Any mixture of types, byte orders, scales, bits, gaps and orders of tags."""
    tags: list[Tag] = []
    register = 0
    for number in range(data.draw(st.integers(1, 8))):
        register += data.draw(st.integers(0, 2))
        kind = data.draw(st.sampled_from(["uint16", "int32", "float32", "float64"]))
        order = data.draw(st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
        scale = data.draw(st.sampled_from([1.0, 0.5]))
        address = f"holding:{register}:{kind}"
        tags.append(Tag(f"T{number}", "skid", address, kind, order, scale, 2.0 * (scale != 1.0)))
        register += {"uint16": 1, "int32": 2, "float32": 2, "float64": 4}[kind]
    tags += [Tag(f"B{bit}", "skid", f"coil:{bit}", "bool") for bit in range(2)]
    shuffled = data.draw(st.permutations(tags))
    values = [float(data.draw(st.integers(2, 1000))) for _ in shuffled]
    one_by_one, together = DeviceMemory("skid", tags), DeviceMemory("skid", tags)
    block = together.block([tag.name for tag in shuffled])
    for tag, value in zip(shuffled, values, strict=True):
        one_by_one.set(tag.name, value)
    block.write(values)
    assert together.areas == one_by_one.areas
    assert block.read() == [one_by_one.get(tag.name) for tag in shuffled]


def test_a_block_of_bits_of_one_byte_leaves_the_others_alone() -> None:
    tags = [Tag(f"M{bit}", "plc", f"M0.{bit}:BOOL", "bool") for bit in range(4)]
    memory = DeviceMemory("plc", tags)
    memory.set("M0", 1)
    memory.block(["M3", "M1"]).write([1.0, 1.0])
    assert memory.areas["M"][0] == 0b1011
    memory.block(["M0", "M2"]).write([0.0, 1.0])
    assert memory.areas["M"][0] == 0b1110


@pytest.mark.parametrize("value", [70000.0, math.nan, math.inf])
def test_a_block_names_the_tag_whose_value_does_not_fit(value: float) -> None:
    tags = [Tag(name, "skid", f"holding:{i}:uint16", "uint16") for i, name in enumerate("AB")]
    with pytest.raises(ScenarioError, match="does not fit") as caught:
        DeviceMemory("skid", tags).block(["A", "B"]).write([1.0, value])
    assert caught.value.where == "B"
