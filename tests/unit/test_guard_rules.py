"""The guard, rule by rule: which setpoint is sent, why not the plan's, what it imports."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

import controller.cycle.guard as guard_module
from controller.cycle.guard import Authority, GuardedDevice, GuardedMv, Move, MvFacts, guard

CYCLE_S = 10.0
MV = GuardedMv("FB", "skid", "kg/s", 3.0, 6.0, 0.01, "FB.SP", "FB.REQ")
TR = GuardedMv("TR", "reactor", "degC", 60.0, 100.0, 0.1, "TR.SP", "TR.REQ")
SKID = GuardedDevice("skid", "HB", "SEQ", "EPOCH")
REACTOR = GuardedDevice("reactor", "R.HB", "", "")
CONTROL = Authority(handshake=True, control=True, hold=False)
FACT = MvFacts(4.0, 4.0, remote=True, high=False, low=False, operator_low=3.0, operator_high=6.0)


def decide(wanted: float | None, fact: MvFacts = FACT, authority: Authority = CONTROL) -> Move:
    plan = {} if wanted is None else {"FB": wanted}
    return guard((MV,), (SKID,), authority, plan, {"FB": fact}, CYCLE_S, 17, 18, 19)


CASES = {
    "as planned": (4.05, {}, 4.05, ""),
    "rate up": (5.0, {}, 4.1, "limited to 0.6 kg/s/min"),
    "rate down": (3.0, {}, 3.9, "limited to 0.6 kg/s/min"),
    "limit": (6.5, {"last_sent": 5.95}, 6.0, "limited to [3, 6] kg/s"),
    "operator's limit": (4.05, {"operator_high": 4.02}, 4.02, "limited to [3, 4.02] kg/s"),
    "operator's low limit": (3.95, {"operator_low": 3.98}, 3.98, "limited to [3.98, 6] kg/s"),
    "limit wider than ours": (6.5, {"operator_high": 9, "last_sent": 6}, 6.0, "limited to [3, 6]"),
    "limit moved above us": (3.5, {"operator_low": 5.0}, 4.1, "limited to 0.6 kg/s/min"),
    "limit moved below us": (4.5, {"operator_high": 3.5}, 3.9, "limited to 0.6 kg/s/min"),
    "limit just above us": (3.5, {"operator_low": 4.03}, 4.03, "limited to [4.03, 6] kg/s"),
    "saturated high, up": (4.05, {"high": True}, 4.0, "held: the output is saturated high"),
    "saturated high, down": (3.95, {"high": True}, 3.95, ""),
    "saturated low, down": (3.95, {"low": True}, 4.0, "held: the output is saturated low"),
    "saturated low, up": (4.05, {"low": True}, 4.05, ""),
    "saturated both": (4.05, {"high": True, "low": True}, 4.0, "held: the output is saturated"),
    "local": (4.05, {"remote": False, "in_use": 4.5}, 4.5, "not in REMOTE"),
    "not following": (4.05, {"last_sent": None, "in_use": 4.02}, 4.05, ""),
    "following": (4.05, {"in_use": 3.5}, 4.05, ""),
    "no plan": (None, {}, 4.0, "held: the plan asks for None"),
    "not a number": (float("nan"), {}, 4.0, "held: the plan asks for nan"),
    "infinite": (float("inf"), {}, 4.0, "held: the plan asks for inf"),
}


@pytest.mark.parametrize("case", CASES)
def test_rule(case: str) -> None:
    wanted, facts, expected, reason = CASES[case]
    move = decide(wanted, replace(FACT, **facts))
    assert move.values["FB"] == pytest.approx(expected, abs=1e-12)
    assert reason in move.reasons.get("FB", "")
    assert ("FB" in move.reasons) == bool(reason)
    assert move.allowed == {"FB": True}
    assert move.frames["skid"]["FB.REQ"] == 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"in_use": None, "last_sent": None}, "not known"),
        ({"in_use": float("nan"), "last_sent": None}, "not known"),
        ({"last_sent": float("inf")}, "not known"),
        ({"in_use": None, "last_sent": None, "confirmed": 2.9}, "not known"),
        ({"in_use": None, "last_sent": None, "confirmed": float("nan")}, "not known"),
    ],
)
def test_without_a_sound_setpoint_in_use_the_device_gets_no_frame(
    facts: dict[str, float | None], reason: str
) -> None:
    move = decide(4.0, replace(FACT, **facts))  # type: ignore[arg-type]
    assert move.frames == {}
    assert move.values == {}
    assert move.allowed == {"FB": False}
    assert reason in move.reasons["FB"]


@pytest.mark.parametrize(("in_use", "parked"), [(2.9, 3.0), (6.1, 6.0)])
def test_a_plc_outside_our_limits_is_not_taken_over_and_its_neighbours_go_on(
    in_use: float, parked: float
) -> None:
    move = decide(4.0, replace(FACT, in_use=in_use, last_sent=None))
    assert move.allowed == {"FB": False}
    assert move.frames["skid"]["FB.REQ"] == 0
    assert move.frames["skid"]["FB.SP"] == parked
    assert f"{in_use} kg/s, is outside [3, 6]" in move.reasons["FB"]


def test_a_setpoint_in_use_that_cannot_be_read_repeats_what_the_plc_was_told() -> None:
    move = decide(4.2, replace(FACT, in_use=None, last_sent=None, confirmed=3.7))
    assert move.allowed == {"FB": True}
    assert move.frames["skid"]["FB.SP"] == 3.7
    assert move.reasons["FB"] == "held: the setpoint in use is not known"


def test_the_frame_carries_the_handshake_words_and_every_mv() -> None:
    assert decide(4.05).frames == {
        "skid": {"HB": 17, "SEQ": 18, "EPOCH": 19, "FB.REQ": 1, "FB.SP": 4.05}
    }


def test_words_that_the_plc_does_not_have_are_left_out() -> None:
    fact = replace(FACT, in_use=80.0, last_sent=80.0, operator_low=60.0, operator_high=100.0)
    move = guard((TR,), (REACTOR,), CONTROL, {"TR": 80.5}, {"TR": fact}, CYCLE_S, 1, 2, 3)
    assert move.frames == {"reactor": {"R.HB": 1, "TR.REQ": 1, "TR.SP": 80.5}}


def test_an_unreadable_device_does_not_stop_the_other() -> None:
    facts = {"FB": replace(FACT, in_use=None, last_sent=None), "TR": replace(FACT, in_use=80.0,
             last_sent=80.0, operator_low=60.0, operator_high=100.0)}  # fmt: skip
    wanted = {"FB": 4.0, "TR": 80.5}
    move = guard((MV, TR), (SKID, REACTOR), CONTROL, wanted, facts, CYCLE_S, 1, 2, 3)
    assert set(move.frames) == {"reactor"}
    assert move.allowed == {"FB": False, "TR": True}


@pytest.mark.parametrize(
    ("authority", "request_bit", "reason"),
    [
        (Authority(handshake=True, control=False, hold=False), 0, "tracking"),
        (Authority(handshake=True, control=False, hold=True), 0, "tracking"),
        (Authority(handshake=True, control=True, hold=True), 1, "held: in doubt"),
    ],
)
def test_authority(authority: Authority, request_bit: int, reason: str) -> None:
    move = decide(4.05, authority=authority)
    assert move.frames["skid"]["FB.SP"] == 4.0
    assert move.frames["skid"]["FB.REQ"] == request_bit
    assert move.reasons["FB"] == reason


@pytest.mark.parametrize("control", [True, False])
def test_without_the_handshake_nothing_is_written(control: bool) -> None:
    assert decide(4.05, authority=Authority(False, control, False)).frames == {}


def test_the_guard_imports_at_most_signal() -> None:
    tree = ast.parse(Path(guard_module.__file__ or "").read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names] if isinstance(node, ast.Import) else []
        )
    }  # fmt: skip
    assert imported <= {
        "__future__", "collections.abc", "dataclasses", "math", "typing", "controller.signal"
    }  # fmt: skip
