"""The blocks we ship for the PLC lie at the addresses that our configuration reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[2] / "config"
BLOCKS = (CONFIG / "plc/s7/loopwright.scl").read_text(encoding="utf-8")
SIZE = {"UInt": 2, "Word": 2, "Real": 4}


def offsets(structure: str, types: dict[str, str], start: int = 0) -> dict[str, int]:
    """Byte offsets of a non-optimized structure: everything here is aligned to words."""
    found: dict[str, int] = {}
    for name, first, last, kind in re.findall(
        r'(\w+) : (?:Array\[(\d+)\.\.(\d+)\] of )?"?(\w+)"?;', structure
    ):
        if kind in types:
            inner = offsets(types[kind], types, start)
            found |= {f"{name}.{member}": offset for member, offset in inner.items()}
            start = inner["end"]
            continue
        found[name] = start
        start += SIZE[kind] * (int(last) - int(first) + 1 if last else 1)
    return found | {"end": start}


def test_data_block_is_laid_out_as_the_configuration_says() -> None:
    types = dict(re.findall(r'TYPE "(\w+)".*?STRUCT(.*?)END_STRUCT', BLOCKS, re.DOTALL))
    example = (CONFIG / "plc/s7/reactor.scl").read_text(encoding="utf-8")
    block = re.search(r"DATA_BLOCK.*?STRUCT(.*?)END_STRUCT", example, re.DOTALL)
    assert block
    at = offsets(block[1], types)
    document = yaml.safe_load(
        (CONFIG / "williams_otto/williams-otto.yaml").read_text(encoding="utf-8")
    )
    expected = {
        "R.HB": "heartbeat", "R.SEQ": "sequence", "R.EPOCH": "epoch", "TR.REQ": "tr.request",
        "TR.SP": "tr.setpoint", "R.HBE": "heartbeatEcho", "R.SEQE": "sequenceEcho",
        "TR.MODE": "trBack.mode", "TR.SAT": "trBack.saturation",
        "TR.SPU": "trBack.setpointInUse", "TR.PV": "trBack.pv", "TR.OUT": "trBack.output",
    }  # fmt: skip
    addresses = {
        name: int(re.search(r"DB20\.DB[WD](\d+)", tag["address"])[1])  # type: ignore[index]
        for name, tag in document["tags"].items()
        if tag["device"] == "reactor"
    }
    assert addresses == {name: at[member] for name, member in expected.items()}


def test_registers_are_laid_out_as_the_configuration_says() -> None:
    example = (CONFIG / "plc/iec61131/feed_skid.st").read_text(encoding="utf-8")
    used = {int(n) for n in re.findall(r"(?:registers\[|PutReal\()(\d+)[,\]]", example)}
    document = yaml.safe_load(
        (CONFIG / "williams_otto/williams-otto.yaml").read_text(encoding="utf-8")
    )
    addresses = {
        int(tag["address"].split(":")[1])
        for tag in document["tags"].values()
        if tag["device"] == "feed_skid"
    }
    assert addresses == used - {105}  # the high word of the REAL at 104
