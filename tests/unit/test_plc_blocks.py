"""The blocks we ship for the PLC, run statement by statement, keep their promises.

SCL and Structured Text share a small grammar here (assignments, IF, calls), which is translated
line by line to Python. What is tested is the text in config/plc itself, not a copy of its logic.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = Path(__file__).parents[2] / "config"
SOURCES = {
    "scl": (CONFIG / "plc/s7/loopwright.scl").read_text(encoding="utf-8"),
    "st": (CONFIG / "plc/iec61131/loopwright.st").read_text(encoding="utf-8"),
}
LANGUAGES = pytest.mark.parametrize("language", sorted(SOURCES))
WATCHDOG_S, SCAN_S = 3.0, 0.5
LOW, HIGH, RATE = 70.0, 100.0, 2.0
STEP = RATE * SCAN_S


def bits(value: float) -> int:
    return struct.unpack(">I", struct.pack(">f", value))[0]


def with_bit(word: int, number: int, value: bool) -> int:
    return word | 1 << number if value else word & ~(1 << number)


@dataclass
class Real:
    """The union LoopwrightReal."""

    bits: int = 0

    @property
    def value(self) -> float:
        return struct.unpack(">f", struct.pack(">I", self.bits))[0]


@dataclass
class Ton:
    """On-delay timer of IEC 61131-3, at one call per scan."""

    elapsed_s: float = 0.0
    Q: bool = False

    def __call__(self, IN: bool, PT: float) -> None:
        self.elapsed_s = self.elapsed_s + SCAN_S if IN else 0.0
        self.Q = IN and self.elapsed_s >= PT


INITIAL: dict[str, Any] = {
    "BOOL": False, "WORD": 0, "DWORD": 0, "UINT": 0, "UDINT": 0, "REAL": 0.0, "TIME": WATCHDOG_S,
    "TON": Ton, "TON_TIME": Ton, "LOOPWRIGHTREAL": Real,
}  # fmt: skip


def expression(text: str) -> str:
    """An expression of SCL or ST as one of Python."""
    text = re.sub(r"\b(?:MN|IN|MX) := ", "", text) if "LIMIT" in text else text
    text = re.sub(r"([a-z]\w*)\.(?:%X)?(\d)\b", r"bool(\1 >> \2 & 1)", text)
    text = re.sub(r"(\w+) AND 16#([0-9A-F_]+)", r"\1 & 0x\2", text)
    text = re.sub(r"16#([0-9A-F_]+)", r"0x\1", text)
    text = text.replace("<>", "!=").replace(":=", "=:")
    text = re.sub(r"(?<![<>=!])=(?![=:])", "==", text).replace("=:", "=")
    text = re.sub(r"\bMOD\b", "%", text)
    for word in ("AND", "OR", "NOT"):
        text = re.sub(rf"\b{word}\b", word.lower(), text)
    return text


def translate(body: str) -> str:
    """Statements of SCL or ST as Python source."""
    lines: list[str] = []
    depth = 0
    for raw in re.findall(r"\s*(?:IF\b.*?\bTHEN|ELSE|END_IF;|[^;]+;)", body, re.DOTALL):
        statement = " ".join(raw.split())
        if statement in ("ELSE", "END_IF;"):
            depth -= 1
            if statement == "ELSE":
                lines.append("    " * depth + "else:")
                depth += 1
        elif found := re.fullmatch(r"IF (.*) THEN", statement):
            lines.append("    " * depth + f"if {expression(found[1])}:")
            depth += 1
        elif found := re.fullmatch(r"(\w+)\.(?:%X)?(\d) := (.*);", statement):
            name, bit, value = found.groups()
            lines.append("    " * depth + f"{name} = with_bit({name}, {bit}, {expression(value)})")
        elif found := re.fullmatch(r"([\w.]+) := (.*);", statement):
            lines.append("    " * depth + f"{found[1]} = {expression(found[2])}")
        else:
            lines.append("    " * depth + expression(statement[:-1]))
    assert depth == 0
    return "\n".join(lines)


class Block:
    """One instance of a function block of the shipped source; call it once per scan."""

    def __init__(self, language: str, name: str) -> None:
        source = re.sub(r"//[^\n]*", "", SOURCES[language]).replace("#", "@")
        source = source.replace("16@", "16#").replace("T@90", "T#90").replace("UDINT@", "")
        source = source.replace("@", "")
        found = re.search(rf'FUNCTION_BLOCK "?{name}"?\s(.*?)END_FUNCTION_BLOCK', source, re.DOTALL)
        assert found
        head, body = found[1].rsplit("END_VAR", 1)
        self.variables: dict[str, Any] = {
            "LIMIT": lambda low, value, high: min(max(value, low), high),
            "REAL_TO_DWORD": bits,
            "UINT_TO_UDINT": int,
            "with_bit": with_bit,
            "TRUE": True,
            "FALSE": False,
        }
        declaration = re.compile(
            r"^\s*(\w+)\s*(?:\{[^}]*\})?\s*:\s*(\w+)\s*(?::=\s*([\d.]+))?", re.M
        )
        for variable, kind, value in declaration.findall(re.sub(r"VERSION :.*", "", head)):
            start = INITIAL[kind.upper()]
            self.variables[variable] = start() if isinstance(start, type) else start
            if value and kind.upper() == "REAL":
                self.variables[variable] = float(value)
        self.declared = set(self.variables)
        self.program = compile(
            translate(body.replace("BEGIN", "", 1)), f"{name}.{language}", "exec"
        )

    def __call__(self, **inputs: Any) -> None:
        assert set(inputs) <= self.declared
        self.variables.update(inputs)
        exec(self.program, self.variables)  # our own shipped text
        assert set(self.variables) - {"__builtins__"} == self.declared

    def __getattr__(self, name: str) -> Any:
        return self.variables[name]


@dataclass
class Plc:
    """LoopwrightLink and one LoopwrightMV, wired as in the examples we ship."""

    language: str
    local: float = 80.0
    use_fallback: bool = False
    permit: bool = True
    heartbeat: int = 0
    sequence: int = 0
    epoch: int = 1
    setpoint: float = 0.0
    request: int = 0
    link: Block = field(init=False)
    mv: Block = field(init=False)

    def __post_init__(self) -> None:
        self.link = Block(self.language, "LoopwrightLink")
        self.mv = Block(self.language, "LoopwrightMV")
        self.scan()

    def scan(self, count: int = 1) -> float:
        wanted = "setpoint" if self.language == "scl" else "setpointBits"
        for _ in range(count):
            self.link(
                heartbeat=self.heartbeat,
                sequence=self.sequence,
                epoch=self.epoch,
                watchdog=WATCHDOG_S,
            )
            self.mv(
                alive=self.link.alive, stale=self.link.stale, permit=self.permit,
                request=self.request,
                low=LOW, high=HIGH, ratePerS=RATE, scanS=SCAN_S,
                useFallback=self.use_fallback, fallback=72.0, localSetpoint=self.local,
                output=50.0, outputLow=0.0, outputHigh=100.0,
                **{wanted: self.setpoint if self.language == "scl" else bits(self.setpoint)},
            )  # fmt: skip
            self.local = self.mv.localSetpoint
        return self.mv.setpointInUse

    def frame(self, setpoint: float, request: int = 1) -> float:
        """A new frame of the controller and two scans, after which it has been acted on."""
        self.heartbeat = (self.heartbeat + 1) % 65536
        self.sequence = (self.sequence + 1) % 65536
        self.setpoint, self.request = setpoint, request
        return self.scan(2)


@LANGUAGES
def test_follows_in_remote_within_rate_and_range(language: str) -> None:
    plc = Plc(language)
    assert not plc.mv.remote
    assert plc.frame(82.0) <= 80.0 + 2 * STEP
    assert plc.mv.remote
    assert plc.mv.mode == 3
    plc.frame(82.0)
    assert plc.scan(2) == 82.0
    for _ in range(30):
        plc.frame(140.0)
    assert plc.mv.setpointInUse == HIGH
    for _ in range(60):
        plc.frame(-140.0)
    assert plc.mv.setpointInUse == LOW


@LANGUAGES
def test_watchdog_trips_in_time_and_holds(language: str) -> None:
    plc = Plc(language)
    for _ in range(4):
        plc.frame(84.0)
    assert plc.scan(int(WATCHDOG_S / SCAN_S) - 2) == 84.0
    assert plc.mv.remote
    assert plc.scan(1) == 84.0
    assert not plc.mv.remote
    assert plc.scan(100) == 84.0
    plc.local = 83.0  # the operator takes over
    plc.scan(5)
    assert plc.frame(83.0) == 83.0
    assert plc.mv.remote


@LANGUAGES
def test_fallback_only_after_a_watchdog_trip(language: str) -> None:
    plc = Plc(language, use_fallback=True)
    for _ in range(4):
        plc.frame(84.0)
    plc.frame(84.0, request=0)
    assert plc.scan(50) == 84.0
    for _ in range(4):
        plc.frame(84.0)
    assert plc.scan(100) == 72.0


@LANGUAGES
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_no_number_is_refused(language: str, garbage: float) -> None:
    plc = Plc(language)
    assert plc.frame(garbage) == 80.0
    assert plc.mv.remote
    assert plc.mv.refused
    for _ in range(4):
        plc.frame(84.0)
    assert not plc.mv.refused
    assert plc.frame(garbage) == 84.0


@LANGUAGES
def test_one_scan_of_a_torn_frame_is_not_acted_on(language: str) -> None:
    plc = Plc(language)
    for _ in range(4):
        plc.frame(84.0)
    plc.setpoint, plc.request = 99.0, 0
    assert plc.scan(1) == 84.0
    assert plc.mv.remote


@LANGUAGES
def test_needs_permit_and_a_heartbeat_that_moves(language: str) -> None:
    plc = Plc(language, heartbeat=4711, request=1, setpoint=90.0)  # left from before a restart
    assert plc.scan(10) == 80.0
    assert not plc.link.alive
    plc.permit = False
    plc.frame(90.0)
    assert not plc.mv.remote
    assert plc.mv.mode == 0
    plc.permit = True
    plc.frame(90.0, request=2)
    assert not plc.mv.remote
    plc.frame(90.0)
    assert plc.mv.remote


@LANGUAGES
def test_echo_comes_when_the_frame_has_been_acted_on(language: str) -> None:
    plc = Plc(language, heartbeat=65534, sequence=65533)
    plc.frame(80.0)
    plc.heartbeat, plc.sequence = 0, 0  # both wrap around
    plc.scan(1)
    assert (plc.link.heartbeatEcho, plc.link.sequenceEcho) == (65535, 65534)
    plc.scan(1)
    assert (plc.link.heartbeatEcho, plc.link.sequenceEcho) == (0, 0)


@LANGUAGES
def test_an_old_frame_that_comes_late_is_not_acted_on(language: str) -> None:
    plc = Plc(language, sequence=3)
    for _ in range(4):
        plc.frame(84.0)
    newest = plc.sequence
    for age in (1, 5, 32768):
        plc.sequence = (newest - age) % 65536
        plc.heartbeat += 1
        plc.setpoint, plc.request = 90.0, 0
        assert plc.scan(1) == 84.0
        assert plc.link.stale
        assert plc.mv.remote
        assert plc.link.sequenceEcho == newest
    plc.scan(int(WATCHDOG_S / SCAN_S))  # it does not feed the watchdog either
    assert not plc.mv.remote
    plc.sequence = newest
    assert plc.frame(84.0) == 84.0
    assert plc.mv.remote


@LANGUAGES
def test_a_restarted_controller_waits_in_local_until_its_heartbeat_moves(language: str) -> None:
    plc = Plc(language, sequence=500)
    for _ in range(4):
        plc.frame(84.0)
    plc.epoch, plc.heartbeat, plc.sequence = 2, 0, 0
    assert plc.scan(3) == 84.0
    assert not plc.mv.remote
    assert plc.frame(85.0) == 85.0
    assert plc.mv.remote


@LANGUAGES
def test_saturation_bits(language: str) -> None:
    plc = Plc(language)
    for output, word in ((100.0, 1), (0.0, 2), (50.0, 0)):
        plc.mv(output=output)
        assert plc.mv.saturation == word


WORLD = st.tuples(
    st.sampled_from(["frame", "silence", "torn"]),
    st.one_of(st.floats(width=32), st.floats(60.0, 110.0, width=32)),
    st.integers(0, 3),
    st.booleans(),
    st.one_of(st.none(), st.floats(50.0, 120.0, width=32)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORLD, min_size=1, max_size=25), st.booleans())
def test_never_jumps_whatever_comes_and_both_languages_agree(
    world: list[tuple[str, float, int, bool, float | None]], use_fallback: bool
) -> None:
    plcs = [Plc(language, use_fallback=use_fallback) for language in sorted(SOURCES)]
    for event, setpoint, request, permit, operator in world:
        seen: list[tuple[float, int]] = []
        for plc in plcs:
            plc.permit = permit
            if operator is not None:
                plc.local = operator
            before = plc.mv.setpointInUse
            if event == "frame":
                plc.heartbeat = (plc.heartbeat + 1) % 65536
                plc.sequence = (plc.sequence + 1) % 65536
            if event != "silence":
                plc.setpoint, plc.request = setpoint, request
            now = plc.scan(1)
            assert abs(now - before) <= STEP * (1 + 1e-12)
            assert LOW <= now <= HIGH
            assert not plc.mv.remote or (plc.link.alive and permit)
            seen.append((now, plc.mv.mode))
        assert seen[0] == seen[1]
