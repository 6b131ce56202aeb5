"""However TCP cuts a byte stream, the same frames come out, and nothing is lost or invented."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.faults.kinds import Driver
from hil.link.frames import Framer

bodies = st.binary(min_size=2, max_size=254)


def framed(driver: Driver, number: int, body: bytes) -> bytes:
    if driver == "modbus":
        return struct.pack(">HHH", number, 0, len(body)) + body
    return struct.pack(">BBH", 3, 0, 7 + len(body)) + b"\x02\xf0\x80" + body


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("driver", ["s7", "modbus"])
@given(
    contents=st.lists(bodies, min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 3000), max_size=30),
)
def test_any_split_gives_the_same_frames(
    driver: Driver, contents: list[bytes], cuts: list[int]
) -> None:
    frames = [framed(driver, number, body) for number, body in enumerate(contents)]
    framer = Framer(driver)
    found = [frame for chunk in cut(b"".join(frames), cuts) for frame in framer.frames(chunk)]
    assert found == frames


@pytest.mark.parametrize("driver", ["s7", "modbus"])
@given(stream=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=10))
def test_no_byte_of_any_stream_is_lost_or_doubled(
    driver: Driver, stream: bytes, cuts: list[int]
) -> None:
    framer = Framer(driver)
    passed = b"".join(f for chunk in cut(stream, cuts) for f in framer.frames(chunk))
    assert stream.startswith(passed)
