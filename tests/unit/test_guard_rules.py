"""The guard, rule by rule: which setpoint is sent, why not the plan's, what it imports."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import MappingProxyType

import pytest

import controller.cycle.guard as guard_module
from controller.cycle.guard import (
    Authority,
    GuardedDevice,
    GuardedMv,
    Move,
    MvFacts,
    guard,
    release,
)

CYCLE_S = 10.0
MV = GuardedMv("FB", "skid", "kg/s", 3.0, 6.0, 0.01, "FB.SP", "FB.REQ")
TR = GuardedMv("TR", "reactor", "degC", 60.0, 100.0, 0.1, "TR.SP", "TR.REQ")
SKID = GuardedDevice("skid", "HB", "SEQ", "EPOCH")
REACTOR = GuardedDevice("reactor", "R.HB", "", "")
CONTROL = Authority(handshake=True, control=True, hold=False)
FACT = MvFacts(
    4.0, 4.0, remote=True, high=False, low=False, operator_low=3.0, operator_high=6.0, told=4.0
)

TR_FACT = replace(
    FACT, in_use=80.0, last_sent=80.0, told=80.0, operator_low=60.0, operator_high=100.0
)


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
    "at the low limit": (3.05, {"last_sent": 3.0}, 3.05, ""),
    "at the high limit": (5.95, {"last_sent": 6.0}, 5.95, ""),
    "low limit wider than ours": (
        2.5,
        {"operator_low": 1, "last_sent": 3},
        3.0,
        "limited to [3, 6]",
    ),
    "limits that cross": (4.0, {"operator_low": 4.05, "operator_high": 3.95}, 4.05, "[4.05, 4.05]"),
    "limit wider than ours": (6.5, {"operator_high": 9, "last_sent": 6}, 6.0, "limited to [3, 6]"),
    "limit moved above us": (3.5, {"operator_low": 5.0}, 4.1, "limited to 0.6 kg/s/min"),
    "limit moved below us": (4.5, {"operator_high": 3.5}, 3.9, "limited to 0.6 kg/s/min"),
    "limit just above us": (3.5, {"operator_low": 4.03}, 4.03, "limited to [4.03, 6] kg/s"),
    "saturated high, up": (4.05, {"high": True}, 4.0, "held: the output is saturated high"),
    "saturated high, down": (3.95, {"high": True}, 3.95, ""),
    "saturated low, down": (3.95, {"low": True}, 4.0, "held: the output is saturated low"),
    "saturated low, up": (4.05, {"low": True}, 4.05, ""),
    "saturated both, no move": (4.0, {"high": True, "low": True}, 4.0, ""),
    "saturated both": (4.05, {"high": True, "low": True}, 4.0, "held: the output is saturated"),
    "local": (4.05, {"remote": False, "in_use": 4.5}, 4.5, "not in REMOTE"),
    "not following": (4.05, {"last_sent": None, "in_use": 4.02, "told": 4.0}, 4.05, ""),
    "following": (4.05, {"in_use": 3.5}, 4.05, ""),
    "no plan": (None, {}, 4.0, "held: the plan asks for None"),
    "not a number": (float("nan"), {}, 4.0, "held: the plan asks for nan"),
    "infinite": (float("inf"), {}, 4.0, "held: the plan asks for inf"),
    "first request": (4.05, {"last_sent": None}, 4.0, "tracking: the first request moves nothing"),
    "first request, out of what the operator allows": (
        4.05, {"last_sent": None, "operator_high": 3.95}, 4.0, "the first request moves nothing",
    ),
    "first request, without a plan": (None, {"told": None}, 4.0, "first request moves nothing"),
    "first request, in local": (4.05, {"told": None, "remote": False}, 4.0, "not in REMOTE"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rule(case: str) -> None:
    wanted, facts, expected, reason = CASES[case]
    # Unless the case says otherwise, the loop follows what it was told.
    told = facts.get("told", facts.get("last_sent", FACT.told))
    move = decide(wanted, replace(FACT, **facts | {"told": told}))
    assert move.values["FB"] == pytest.approx(expected, abs=1e-12)
    assert reason in move.reasons.get("FB", "")
    assert ("FB" in move.reasons) == bool(reason)
    assert move.allowed == {"FB": True}
    assert move.frames["skid"]["FB.REQ"] == 1


def test_a_step_of_exactly_the_rate_is_not_limited() -> None:
    mv = replace(MV, rate_per_s=0.0125)  # 0.125 in a cycle, which a float holds exactly
    for wanted in (4.125, 3.875):
        move = guard((mv,), (SKID,), CONTROL, {"FB": wanted}, {"FB": FACT}, CYCLE_S, 1, 2, 3)
        assert move.values == {"FB": wanted}
        assert move.reasons == {}


def test_the_request_is_a_number_as_the_plc_wants_it() -> None:
    assert type(decide(4.05).frames["skid"]["FB.REQ"]) is int


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"in_use": None, "last_sent": None}, "not known"),
        ({"in_use": float("nan"), "last_sent": None}, "not known"),
        ({"last_sent": float("inf")}, "not known"),
        ({"in_use": None, "last_sent": None, "confirmed": 2.9}, "not known"),
        ({"in_use": None, "last_sent": None, "confirmed": 6.1}, "not known"),
        ({"in_use": None, "last_sent": None, "confirmed": float("nan")}, "not known"),
        ({"in_use": None, "last_sent": None, "parked": float("nan")}, "not known"),
        ({"in_use": None, "last_sent": None, "parked": float("inf")}, "not known"),
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


@pytest.mark.parametrize("told", [3.0, 3.7, 6.0])
def test_a_setpoint_in_use_that_cannot_be_read_repeats_what_the_plc_was_told(told: float) -> None:
    blind = replace(FACT, in_use=None, last_sent=None, confirmed=told, parked=5.0)
    move = decide(4.2, blind)
    assert move.allowed == {"FB": True}
    assert move.frames["skid"]["FB.SP"] == told
    assert move.frames["skid"]["FB.REQ"] == 1
    assert move.reasons["FB"] == "held: the setpoint in use is not known"
    # The guard would go on holding; the mode machine may have taken control away meanwhile.
    move = decide(4.2, blind, Authority(handshake=True, control=False, hold=False))
    assert move.allowed == {"FB": False}
    assert move.frames["skid"]["FB.SP"] == told
    assert move.frames["skid"]["FB.REQ"] == 0


@pytest.mark.parametrize("told", ["confirmed", "in_use", "parked"])
def test_a_limit_that_does_not_exist_lets_no_infinity_through(told: str) -> None:
    mv = replace(MV, high=float("inf"))
    fact = replace(FACT, in_use=None, last_sent=None)
    fact = replace(fact, **{told: float("inf")})
    move = guard((mv,), (SKID,), CONTROL, {"FB": 4.0}, {"FB": fact}, CYCLE_S, 1, 2, 3)
    assert move.values == {}
    assert move.frames == {}


@pytest.mark.parametrize(("parked", "sent"), [(3.7, 3.7), (2.0, 3.0), (7.0, 6.0)])
def test_with_nothing_to_repeat_the_block_is_filled_and_the_request_withdrawn(
    parked: float, sent: float
) -> None:
    move = decide(4.2, replace(FACT, in_use=None, last_sent=None, parked=parked))
    assert move.values == {"FB": sent}
    assert move.allowed == {"FB": False}
    assert move.frames["skid"]["FB.SP"] == sent
    assert move.frames["skid"]["FB.REQ"] == 0
    assert move.reasons["FB"] == "not requested: the setpoint in use is not known"


def test_nothing_is_told_confirmed_or_parked_unless_it_is_said() -> None:
    fact = MvFacts(
        4.0, 4.0, remote=True, high=False, low=False, operator_low=3.0, operator_high=6.0
    )
    assert (fact.told, fact.confirmed, fact.parked) == (None, None, None)
    assert (fact.echoing, fact.unconfirmed) == (True, False)


def test_the_frame_carries_the_handshake_words_and_every_mv() -> None:
    assert decide(4.05).frames == {
        "skid": {"HB": 17, "SEQ": 18, "EPOCH": 19, "FB.REQ": 1, "FB.SP": 4.05}
    }


def test_words_that_the_plc_does_not_have_are_left_out() -> None:
    facts = {"TR": TR_FACT}
    move = guard((TR,), (REACTOR,), CONTROL, {"TR": 80.5}, facts, CYCLE_S, 1, 2, 3)
    assert move.frames == {"reactor": {"R.HB": 1, "TR.REQ": 1, "TR.SP": 80.5}}


def test_an_unreadable_device_does_not_stop_the_other() -> None:
    facts = {"FB": replace(FACT, in_use=None, last_sent=None), "TR": TR_FACT}
    wanted = {"FB": 4.0, "TR": 80.5}
    move = guard((MV, TR), (SKID, REACTOR), CONTROL, wanted, facts, CYCLE_S, 1, 2, 3)
    assert set(move.frames) == {"reactor"}
    assert move.allowed == {"FB": False, "TR": True}


def test_a_block_of_two_mvs_is_sent_whole_or_not_at_all() -> None:
    second = GuardedMv("FC", "skid", "kg/s", 3.0, 6.0, 0.01, "FC.SP", "FC.REQ")
    facts = {"FB": FACT, "FC": replace(FACT, in_use=None, last_sent=None)}
    wanted = {"FB": 4.05, "FC": 4.05}
    for mvs in ((MV, second), (second, MV)):
        move = guard(mvs, (SKID,), CONTROL, wanted, facts, CYCLE_S, 1, 2, 3)
        assert move.values == {"FB": 4.05}
        assert move.frames == {}
        known = {"FB": FACT, "FC": FACT}
        move = guard(mvs, (SKID,), CONTROL, wanted, known, CYCLE_S, 1, 2, 3)
        assert move.frames["skid"]["FC.SP"] == move.frames["skid"]["FB.SP"] == 4.05


@pytest.mark.parametrize(
    ("authority", "told", "request_bit", "reason"),
    [
        (Authority(handshake=True, control=False, hold=False), 4.0, 0, "tracking"),
        (Authority(handshake=True, control=False, hold=False), None, 0, "tracking"),
        (Authority(handshake=True, control=False, hold=True), 4.0, 0, "tracking"),
        (Authority(handshake=True, control=False, hold=True), None, 0, "tracking"),
        (Authority(handshake=True, control=True, hold=True), 4.0, 1, "held: in doubt"),
        (Authority(handshake=True, control=True, hold=True), None, 0, "not requested: in doubt"),
    ],
)
def test_authority(authority: Authority, told: float | None, request_bit: int, reason: str) -> None:
    move = decide(4.05, replace(FACT, told=told), authority)
    assert move.allowed == {"FB": bool(request_bit)}
    assert move.frames["skid"]["FB.SP"] == 4.0
    assert move.frames["skid"]["FB.REQ"] == request_bit
    assert move.reasons["FB"] == reason


HOLD = replace(CONTROL, hold=True)
NO_CONTROL = replace(CONTROL, control=False)
UNANSWERED = "not requested: the PLC has not answered to the last frame"
FIRST = "tracking: the first request moves nothing"
TOLD = {
    # facts, authority → setpoint, request, reason; the plan asks for 4.05, the PLC uses 4.0
    "hold": ({"told": 4.02}, HOLD, 4.02, True, "held: in doubt"),
    "hold, misread": ({"told": 4.02, "last_sent": 2.0}, HOLD, 4.02, True, "held: in doubt"),
    "hold in local, not told": (
        {"told": None, "remote": False}, HOLD, 4.0, False, "not requested: in doubt"
    ),
    "hold in local": ({"told": 4.02, "remote": False}, HOLD, 4.0, True, "held: in doubt"),
    "hold, not told": ({"told": None}, HOLD, 4.0, False, "not requested: in doubt"),
    "unconfirmed": (
        {"told": 4.02, "unconfirmed": True}, CONTROL, 4.02, True,
        "held: the last frame was not confirmed",
    ),
    "not told": ({"told": None}, CONTROL, 4.0, True, FIRST),
    "unconfirmed, not told": ({"told": None, "unconfirmed": True}, CONTROL, 4.0, True, FIRST),
    "no control": ({"told": 4.02, "unconfirmed": True}, NO_CONTROL, 4.0, False, "tracking"),
    "told, no answer": ({"told": 4.0, "echoing": False}, CONTROL, 4.05, True, ""),
    "not told, no answer": ({"told": None, "echoing": False}, CONTROL, 4.0, False, UNANSWERED),
    "hold, not told, no answer": (
        {"told": None, "echoing": False}, HOLD, 4.0, False, "not requested: in doubt"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_what_the_plc_was_told_stands_in_doubt(case: str) -> None:
    facts, authority, expected, request, reason = TOLD[case]
    move = decide(4.05, replace(FACT, **facts), authority)
    assert move.values == {"FB": pytest.approx(expected, abs=1e-12)}
    assert move.allowed == {"FB": request}
    assert move.reasons == ({"FB": reason} if reason else {})


@pytest.mark.parametrize("told", [float("nan"), float("inf"), 2.999, 6.001])
def test_what_can_never_have_been_sent_does_not_stand(told: float) -> None:
    for fact in (replace(FACT, told=told), replace(FACT, told=told, unconfirmed=True)):
        move = decide(4.05, fact)
        assert move.values == {"FB": 4.0}
        assert move.allowed == {"FB": True}
        assert move.reasons == {"FB": FIRST}
    move = decide(4.05, replace(FACT, told=told), HOLD)
    assert move.values == {"FB": 4.0}
    assert move.allowed == {"FB": False}


@pytest.mark.parametrize("told", [3.0, 6.0])
def test_what_was_told_stands_up_to_the_limits_themselves(told: float) -> None:
    for authority, unconfirmed in ((HOLD, False), (CONTROL, True)):
        move = decide(4.05, replace(FACT, told=told, unconfirmed=unconfirmed), authority)
        assert move.values == {"FB": told}
        assert move.allowed == {"FB": True}


def test_after_the_first_request_the_plan_is_followed_from_where_the_plc_was() -> None:
    fact = replace(FACT, in_use=4.02, last_sent=None, told=None)
    first = decide(4.05, fact)
    assert first.frames["skid"]["FB.SP"] == 4.02
    assert first.frames["skid"]["FB.REQ"] == 1
    second = decide(4.05, replace(fact, last_sent=4.02, told=4.02))
    assert second.values == {"FB": 4.05}
    assert second.reasons == {}


@pytest.mark.parametrize(
    ("saturated", "told", "expected"),
    [("high", 4.5, 4.0), ("low", 3.5, 4.0), ("low", 4.5, 4.4), ("high", 3.5, 3.6)],
)
def test_a_saturated_output_is_not_pushed_further_by_what_was_told(
    saturated: str, told: float, expected: float
) -> None:
    move = decide(4.05, replace(FACT, told=told, **{saturated: True}))
    assert move.values == {"FB": pytest.approx(expected, abs=1e-12)}


@pytest.mark.parametrize(("told", "expected"), [(4.5, 4.4), (3.5, 3.6)])
def test_another_setpoint_than_was_sent_is_approached_at_the_rate(
    told: float, expected: float
) -> None:
    move = decide(4.05, replace(FACT, told=told))
    assert move.values == {"FB": pytest.approx(expected, abs=1e-12)}
    assert move.allowed == {"FB": True}
    assert move.reasons == {"FB": "limited: the setpoint in use is not the one that was sent"}


@pytest.mark.parametrize(
    ("steps", "limited"), [(1.0, False), (1.0 + 5e-10, False), (1.0 + 1e-9, False), (1.01, True)]
)
def test_a_step_may_be_longer_than_a_step_by_the_rounding_of_a_real(
    steps: float, limited: bool
) -> None:
    mv = replace(MV, low=0.0, rate_per_s=0.0125)
    step = mv.rate_per_s * CYCLE_S
    fact = replace(FACT, in_use=step / 2, last_sent=None, operator_low=0.0, told=0.0)
    move = guard((mv,), (SKID,), CONTROL, {"FB": step * steps}, {"FB": fact}, CYCLE_S, 1, 2, 3)
    assert move.values == {"FB": step if limited else step * steps}
    assert ("FB" in move.reasons) is limited


@pytest.mark.parametrize("control", [True, False])
def test_without_the_handshake_nothing_is_written(control: bool) -> None:
    assert decide(4.05, authority=Authority(False, control, False)).frames == {}


FRAMES = {
    "skid": {"HB": 17, "SEQ": 18, "EPOCH": 19, "FB.REQ": 1, "FB.SP": 4.05},
    "reactor": {"R.HB": 65535, "TR.REQ": 1, "TR.SP": 80.5},
}


def test_a_release_repeats_the_frames_with_every_request_withdrawn() -> None:
    frames = MappingProxyType({name: MappingProxyType(words) for name, words in FRAMES.items()})
    assert release((MV, TR), (SKID, REACTOR), frames) == {
        "skid": {"HB": 18, "SEQ": 19, "EPOCH": 19, "FB.REQ": 0, "FB.SP": 4.05},
        "reactor": {"R.HB": 1, "TR.REQ": 0, "TR.SP": 80.5},
    }


def test_a_release_sends_nothing_to_a_device_that_was_sent_nothing() -> None:
    frames = {"reactor": FRAMES["reactor"]}
    released = release((MV, TR), (SKID, REACTOR), frames)
    assert released == {"reactor": {"R.HB": 1, "TR.REQ": 0, "TR.SP": 80.5}}
    assert release((MV, TR), (SKID, REACTOR), {}) == {}


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), (65533, 65534), (65534, 65535), (65535, 1), (0, 1), (7.0, 8)]
)
def test_the_counters_of_a_release_go_on_from_1_and_leave_out_0(before: float, after: int) -> None:
    words = release((MV,), (SKID,), {"skid": {**FRAMES["skid"], "HB": before, "SEQ": before}})
    assert (words["skid"]["HB"], words["skid"]["SEQ"]) == (after, after)
    assert type(words["skid"]["HB"]) is int


@pytest.mark.parametrize("value", [MV, SKID, FACT, CONTROL, Move({}, {}, {}, {})])
def test_a_decision_and_what_it_rests_on_cannot_be_altered(value: object) -> None:
    names = tuple(type(value).__dataclass_fields__)  # type: ignore[attr-defined]
    assert not hasattr(value, "__dict__")
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, getattr(value, name))


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
