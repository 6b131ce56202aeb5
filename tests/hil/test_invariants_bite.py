"""For each invariant a deliberately broken controller is caught by exactly that invariant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace as changed

import controller.cycle.step as step_module
from controller.app import build_application
from controller.cycle.application import Application
from controller.cycle.guard import Authority, Move, guard
from controller.cycle.mode import Mode, ModeState, advance_mode
from controller.cycle.validate import Reading, validate
from controller.signal import Status
from hil.invariants.judge import Invariant, Invariants
from hil.link.frames import WireWrite
from hil.link.virtual_transport import MemoryTransport
from hil.runner import run_scenario
from hil.scenario import Scenario, load_scenario

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
LOST = {"at": 150, "until": 290, "target": "T.PV", "type": "nan"}
WISH = {"at": 140, "kind": "setpoint", "target": "cB", "value": 1.0}
AUTO = {"at": 0, "kind": "mode", "text": "auto"}
SHORT = {"duration": 1300, "profiles": [], "commands": [AUTO]}

Frames = dict[str, dict[str, float]]
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def application() -> Application:
    return build_application(load_scenario(SCENARIOS / "cstr-setpoint.yaml").settings, epoch=1)


def _scenario(**changes: object) -> Scenario:
    plain: dict[str, object] = {
        "tier": "virtual",
        "duration": 400,
        "profiles": [],
        "commands": [AUTO],
        "assertions": [{"kpi": "invariant_violations", "high": 0}],
    }
    return load_scenario(SCENARIOS / "cstr-setpoint.yaml", plain | changes)


def _broken(scenario: Scenario, application: Application | None, folder: Path) -> set[str]:
    """Names of the invariants that a run breaks."""
    run = run_scenario(scenario, folder / "data", check_replay=False, application=application)
    report = msgspec.json.decode((folder / "data" / "verdict.json").read_bytes())
    found = (re.match(r"cycle \d+, (\w+): ", text) for text in report["violations"])
    names = {match.group(1) for match in found if match is not None}
    assert bool(names) == (run.verdict.kpis["invariant_violations"] > 0)
    (check,) = (each for each in run.verdict.checks if each.name == "invariant_violations")
    assert check.outcome == ("failed" if names else "passed")
    return names


def _guarded(patch: Patch, spoil: Callable[[Frames, Authority, int], None]) -> None:
    """A guard whose frames are spoilt afterwards; the controller believes what it sent."""
    cycles = 0

    def broken(mvs: Any, devices: Any, authority: Authority, *rest: Any) -> Move:
        nonlocal cycles
        cycles += 1
        move = guard(mvs, devices, authority, *rest)
        frames: Frames = {device: dict(words) for device, words in move.frames.items()}
        spoil(frames, authority, cycles)
        values = dict(move.values)
        for mv in mvs:
            if mv.device in frames:
                values[mv.name] = frames[mv.device][mv.setpoint]
        return replace(move, frames=frames, values=values)

    patch.setattr(step_module, "guard", broken)


def _moded(patch: Patch, spoil: Callable[[ModeState, ModeState], ModeState]) -> None:
    """A mode machine whose answer (given the state before and after) is spoilt."""

    def broken(rules: Any, state: ModeState, *rest: Any) -> ModeState:
        return spoil(state, advance_mode(rules, state, *rest))

    patch.setattr(step_module, "advance_mode", broken)


# --- values --------------------------------------------------------------------------------------


class _Creeping:
    """Moves the cooling duty at an allowed rate, on and on."""

    def __init__(self) -> None:
        self.value: float | None = None

    def __call__(self, frames: Frames, authority: Authority, cycle: int) -> None:
        if "cooling" not in frames or not frames["cooling"]["Q.REQ"]:
            self.value = None
        else:
            start = frames["cooling"]["Q.SP"] if self.value is None else self.value
            self.value = start + (0.0 if self.value is None else 300.0)
            frames["cooling"]["Q.SP"] = self.value


def _jumping(frames: Frames, authority: Authority, cycle: int) -> None:
    if "feed" in frames and frames["feed"]["F.REQ"] and cycle in (20, 21):
        frames["feed"]["F.SP"] += 3.0 if cycle == 20 else 0.0


class _Bumping:
    """The first requested setpoint is not the one in use."""

    def __init__(self) -> None:
        self.begun = False

    def __call__(self, frames: Frames, authority: Authority, cycle: int) -> None:
        if not self.begun and "feed" in frames and frames["feed"]["F.REQ"]:
            self.begun = True
            frames["feed"]["F.SP"] += 0.5


def _no_number(frames: Frames, authority: Authority, cycle: int) -> None:
    if "feed" in frames and cycle == 30:
        frames["feed"]["F.SP"] = float("nan")


def _strange_request(frames: Frames, authority: Authority, cycle: int) -> None:
    if "feed" in frames and cycle == 30:
        frames["feed"]["F.REQ"] = 2


def _heartbeat_back(frames: Frames, authority: Authority, cycle: int) -> None:
    if "feed" in frames and cycle == 30:
        frames["feed"]["F.HB"] -= 5


def _never_released(frames: Frames, authority: Authority, cycle: int) -> None:
    if "feed" in frames and cycle == 40 and authority.handshake and not authority.control:
        frames["feed"]["F.REQ"] = 1


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (_Creeping(), Invariant.RANGE),
        (_jumping, Invariant.RATE),
        (_Bumping(), Invariant.BUMP),
        (_no_number, Invariant.NAN),
        (_strange_request, Invariant.REQUEST),
        (_heartbeat_back, Invariant.HEARTBEAT),
        (_never_released, Invariant.HAND_BACK),
    ],
)
def test_a_guard_that_lets_something_through(
    spoil: Callable[[Frames, Authority, int], None],
    invariant: Invariant,
    application: Application,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    _guarded(monkeypatch, spoil)
    assert _broken(_scenario(), application, tmp_path) == {invariant}


def test_a_guard_that_moves_in_doubt(
    application: Application, tmp_path: Path, monkeypatch: Patch
) -> None:
    def broken(mvs: Any, devices: Any, authority: Authority, *rest: Any) -> Move:
        return guard(mvs, devices, replace(authority, hold=False), *rest)

    monkeypatch.setattr(step_module, "guard", broken)
    scenario = _scenario(commands=[AUTO, WISH], faults=[LOST | {"until": 190}])
    assert _broken(scenario, application, tmp_path) == {Invariant.HELD_IN_DOUBT}


@pytest.mark.parametrize(
    ("forgets", "upset", "invariant"),
    [
        (
            {"operator_low": 5.0, "operator_high": 30.0},
            {"commands": [AUTO, {"at": 0, "kind": "limit_high", "target": "F", "value": 14.5}]},
            Invariant.OPERATOR_LIMIT,
        ),
        (
            {"high": False},
            {
                "faults": [
                    {
                        "at": 0,
                        "until": 390,
                        "target": "F",
                        "type": "saturation",
                        "args": {"low": 5, "high": 14},
                    }
                ]
            },
            Invariant.SATURATED,
        ),
    ],
)
def test_a_guard_that_forgets_where_it_may_not_go(
    forgets: Mapping[str, Any],
    upset: Mapping[str, object],
    invariant: Invariant,
    application: Application,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    def broken(mvs: Any, devices: Any, authority: Authority, wanted: Any, *rest: Any) -> Move:
        facts, *others = rest
        facts = {**facts, "F": replace(facts["F"], **forgets)}
        return guard(mvs, devices, authority, {**wanted, "F": 30.0}, facts, *others)

    monkeypatch.setattr(step_module, "guard", broken)
    assert _broken(_scenario(**upset), application, tmp_path / "forgets") == {invariant}

    def sound(mvs: Any, devices: Any, authority: Authority, wanted: Any, *rest: Any) -> Move:
        return guard(mvs, devices, authority, {**wanted, "F": 30.0}, *rest)

    monkeypatch.setattr(step_module, "guard", sound)
    assert _broken(_scenario(**upset), application, tmp_path / "sound") == set()


# --- permission ----------------------------------------------------------------------------------


def _ready_at_once(before: ModeState, after: ModeState) -> ModeState:
    return changed(after, mode=Mode.READY) if after.mode is Mode.INIT else after


def _active_at_once(before: ModeState, after: ModeState) -> ModeState:
    return changed(after, mode=Mode.ACTIVE) if after.mode is Mode.READY else after


def _never_sheds(before: ModeState, after: ModeState) -> ModeState:
    if after.mode is not Mode.SHED:
        return after
    return changed(after, mode=Mode.ACTIVE, hand_back=False)


def _rearms_itself(before: ModeState, after: ModeState) -> ModeState:
    return changed(after, rearmed=True)


def _keeps_writing(before: ModeState, after: ModeState) -> ModeState:
    return changed(after, hand_back=True) if after.mode is Mode.SHED else after


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (_ready_at_once, Invariant.BEFORE_READY),
        (_active_at_once, Invariant.UNLINKED),
        (_never_sheds, Invariant.SHED_IN_TIME),
        (_rearms_itself, Invariant.AFTER_SHED),
        (_keeps_writing, Invariant.AFTER_SHED),
    ],
)
def test_a_mode_machine_that_takes_what_it_may_not(
    spoil: Callable[[ModeState, ModeState], ModeState],
    invariant: Invariant,
    application: Application,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    _moded(monkeypatch, spoil)
    scenario = _scenario(faults=[LOST])
    assert _broken(scenario, application, tmp_path) == {invariant}


@pytest.mark.parametrize(
    ("fault", "trusted"),
    [
        ({"type": "nan", "target": "T.PV"}, 114.0),
        ({"type": "out_of_range", "target": "CB.PV", "args": {"value": 77.0}}, 1.0),
        ({"type": "stale_image", "target": "cooling"}, None),
    ],
)
def test_a_validation_that_trusts_too_much(
    fault: Mapping[str, object],
    trusted: float | None,
    application: Application,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    def broken(*arguments: Any) -> Any:
        memory, readings = validate(*arguments)
        for name, reading in readings.items():
            if not reading.good:
                value = reading.value if trusted is None else trusted
                readings[name] = Reading(value, Status.GOOD, reading.age_s)
        return memory, readings

    monkeypatch.setattr(step_module, "validate", broken)
    # The mode machine, which also looks at the echo, must not shed for another reason.
    _moded(monkeypatch, _never_sheds)
    scenario = _scenario(faults=[{"at": 150, "until": 290, **fault}])
    assert Invariant.SHED_IN_TIME in _broken(scenario, application, tmp_path)


# --- the wire ------------------------------------------------------------------------------------


def test_a_transport_that_sends_something_else(
    application: Application, tmp_path: Path, monkeypatch: Patch
) -> None:
    begin_write, frames = MemoryTransport.begin_write, 0

    def broken(self: MemoryTransport, values: Mapping[str, float]) -> None:
        nonlocal frames
        frames += self.name == "feed"
        other = {**values, "F.SP": values["F.SP"] + 0.3} if "F.SP" in values else values
        begin_write(self, other if frames == 25 else values)

    monkeypatch.setattr(MemoryTransport, "begin_write", broken)
    assert _broken(_scenario(), application, tmp_path) == {Invariant.JOURNALLED}


def test_a_transport_that_writes_more_than_it_is_told(
    application: Application, tmp_path: Path, monkeypatch: Patch
) -> None:
    check = Invariants.check

    def broken(self: Invariants, device: str, writes: Sequence[WireWrite]) -> None:
        check(self, device, writes)
        check(self, device, [WireWrite("holding", 900, b"\0\1")])

    monkeypatch.setattr(Invariants, "check", broken)
    # What is not on the list cannot have been decided either.
    expected = {Invariant.ALLOW_LIST, Invariant.JOURNALLED}
    assert _broken(_scenario(duration=100), application, tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cstr-setpoint", {**SHORT, "tier": "virtual", "faults": [LOST]}),
        ("cstr-setpoint", {**SHORT, "tier": "wire", "faults": [LOST]}),
        ("dropped-mv", {**SHORT, "tier": "virtual"}),
        ("reactor-faults", {"tier": "virtual"}),
    ],
)
def test_nothing_is_objected_to_in_a_sound_controller(
    name: str, changes: Mapping[str, object], tmp_path: Path
) -> None:
    quiet = {"assertions": [{"kpi": "invariant_violations", "high": 0}]}
    scenario = load_scenario(SCENARIOS / f"{name}.yaml", {**changes, **quiet})
    assert _broken(scenario, None, tmp_path) == set()
