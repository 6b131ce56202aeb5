"""The mode machine: every transition, and what it never does whatever happens."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cycle.mode import Mode, ModeRules, ModeState, advance_mode
from controller.signal import Command, CommandKind

RULES = ModeRules(ready_cycles=3, hold_cycles=2, rearm="auto")
BY_OPERATOR = replace(RULES, rearm="operator")
DOUBT = ("T1.PV: not a number",)


def command(text: str) -> Command:
    kind = CommandKind.REARM if text == "rearm" else CommandKind.MODE
    return Command(f"c-{text}", kind, 0, text="" if text == "rearm" else text)


def at(mode: Mode, wanted: str = "auto", **more: object) -> ModeState:
    return ModeState(mode, wanted, **more)  # type: ignore[arg-type]


def go(
    state: ModeState,
    text: str = "",
    doubts: tuple[str, ...] = (),
    linked: bool = False,
    rules: ModeRules = RULES,
) -> ModeState:
    return advance_mode(rules, state, (command(text),) if text else (), doubts, linked)


TABLE = {
    # from state, command, doubts, linked → mode, hand back
    "off stays off": (at(Mode.OFF, "off"), "", (), True, Mode.OFF, False),
    "off to manual": (at(Mode.OFF, "off"), "manual", (), True, Mode.MANUAL, False),
    "off to init": (at(Mode.OFF, "off", good=99), "auto", (), True, Mode.INIT, False),
    "off to init in doubt": (at(Mode.OFF, "off"), "auto", DOUBT, False, Mode.INIT, False),
    "manual to off": (at(Mode.MANUAL, "manual"), "off", (), True, Mode.OFF, False),
    "manual stays": (at(Mode.MANUAL, "manual"), "", DOUBT, True, Mode.MANUAL, False),
    "manual to init": (at(Mode.MANUAL, "manual"), "auto", (), True, Mode.INIT, False),
    "init waits": (at(Mode.INIT, good=1), "", (), True, Mode.INIT, False),
    "init to ready": (at(Mode.INIT, good=2), "", (), False, Mode.READY, False),
    "init after a long good time": (at(Mode.INIT, good=99), "", (), False, Mode.READY, False),
    "init in doubt": (at(Mode.INIT, good=2), "", DOUBT, True, Mode.INIT, False),
    "init to manual": (at(Mode.INIT, good=2), "manual", (), True, Mode.MANUAL, False),
    "init to off": (at(Mode.INIT, good=2), "off", (), True, Mode.OFF, False),
    "ready waits for the link": (at(Mode.READY, good=9), "", (), False, Mode.READY, False),
    "ready to active": (at(Mode.READY, good=3), "", (), True, Mode.ACTIVE, False),
    "ready in doubt": (at(Mode.READY, good=9), "", DOUBT, True, Mode.INIT, True),
    "ready to manual": (at(Mode.READY, good=9), "manual", (), True, Mode.MANUAL, True),
    "ready to off": (at(Mode.READY, good=9), "off", (), True, Mode.OFF, True),
    "active stays": (at(Mode.ACTIVE, good=9), "", (), True, Mode.ACTIVE, False),
    "active without link stays": (at(Mode.ACTIVE, good=9), "", (), False, Mode.ACTIVE, False),
    "active holds": (at(Mode.ACTIVE, doubtful=1), "", DOUBT, True, Mode.ACTIVE, False),
    "active sheds": (at(Mode.ACTIVE, doubtful=2), "", DOUBT, True, Mode.SHED, True),
    "active to manual": (at(Mode.ACTIVE), "manual", (), True, Mode.MANUAL, True),
    "active to off": (at(Mode.ACTIVE), "off", (), True, Mode.OFF, True),
    "active to off in doubt": (at(Mode.ACTIVE, doubtful=2), "off", DOUBT, True, Mode.OFF, True),
    "shed waits": (at(Mode.SHED, good=1), "", (), True, Mode.SHED, False),
    "shed re-arms": (at(Mode.SHED, good=2), "", (), True, Mode.INIT, False),
    "shed in doubt": (at(Mode.SHED, good=2), "", DOUBT, True, Mode.SHED, False),
    "shed to manual": (at(Mode.SHED), "manual", (), True, Mode.MANUAL, False),
    "shed to off": (at(Mode.SHED), "off", (), True, Mode.OFF, False),
    "unknown command": (at(Mode.ACTIVE), "full speed", (), True, Mode.ACTIVE, False),
}


@pytest.mark.parametrize("case", TABLE)
def test_transition(case: str) -> None:
    state, text, doubts, linked, mode, hand_back = TABLE[case]
    after = go(state, text, doubts, linked)
    assert (after.mode, after.hand_back) == (mode, hand_back)
    if after.mode is not state.mode:
        assert after.reason


REASONS = {
    "off to init": "automatic control requested",
    "init to ready": "critical signals good for 3 cycles",
    "ready in doubt": "T1.PV: not a number",
    "ready to active": "the PLCs echo the heartbeat",
    "active sheds": "T1.PV: not a number, for 3 cycles",
    "active to off": "requested by the operator",
    "shed re-arms": "re-armed",
}


@pytest.mark.parametrize("case", REASONS)
def test_the_reason_is_told(case: str) -> None:
    state, text, doubts, linked, _, _ = TABLE[case]
    assert go(state, text, doubts, linked).reason == REASONS[case]
    if doubts:  # The first one is the reason: it is the one that the operator should look at.
        assert go(state, text, (*doubts, "another"), linked).reason == REASONS[case]


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.MANUAL])
def test_to_ask_again_for_the_mode_that_is_there_changes_nothing(mode: Mode) -> None:
    wanted = "off" if mode is Mode.OFF else "manual"
    before = at(mode, wanted, good=4, reason="started")
    assert go(before, wanted) == msgspec.structs.replace(before, good=5)


def test_it_starts_switched_off() -> None:
    assert ModeState() == ModeState(
        Mode.OFF, "off", good=0, doubtful=0, rearmed=False, hand_back=False, reason="started"
    )


def test_the_names_of_the_modes_are_those_of_journals_and_pages() -> None:
    names = ["OFF", "MANUAL", "INIT", "READY", "ACTIVE", "SHED"]
    assert [mode.value for mode in Mode] == names
    state = at(Mode.ACTIVE, good=3, reason="the PLCs echo the heartbeat")
    assert msgspec.json.decode(msgspec.json.encode(state), type=ModeState) == state


def test_rules_and_state_cannot_be_altered() -> None:
    assert not hasattr(RULES, "__dict__")
    with pytest.raises(FrozenInstanceError):
        RULES.hold_cycles = 99  # type: ignore[misc]
    state = ModeState()
    with pytest.raises(AttributeError):
        state.mode = Mode.ACTIVE  # type: ignore[misc]


@pytest.mark.parametrize("kind", [k for k in CommandKind if k not in ("mode", "rearm")])
@pytest.mark.parametrize("text", ["off", "manual", "auto", ""])
def test_commands_of_other_kinds_are_none_of_its_business(kind: CommandKind, text: str) -> None:
    for before in (at(Mode.ACTIVE), at(Mode.SHED), at(Mode.OFF, "off")):
        after = advance_mode(BY_OPERATOR, before, (Command("c", kind, 0, text=text),), (), True)
        assert (after.mode, after.wanted, after.rearmed) == (before.mode, before.wanted, False)


def test_a_request_for_re_arming_carries_no_mode() -> None:
    both = Command("c", CommandKind.REARM, 0, text="off")
    after = advance_mode(BY_OPERATOR, at(Mode.SHED), (both,), (), True)
    assert (after.wanted, after.rearmed) == ("auto", True)


def test_the_table_leaves_every_mode_by_every_way() -> None:
    assert {row[0].mode for row in TABLE.values()} == set(Mode)
    assert {row[4] for row in TABLE.values()} == set(Mode)


def test_a_doubt_holds_at_once_and_sheds_after_hold_cycles() -> None:
    state = at(Mode.ACTIVE, good=9)
    for _ in range(RULES.hold_cycles):
        state = go(state, doubts=DOUBT)
        assert state.mode is Mode.ACTIVE
        assert state.holding
    state = go(state, doubts=DOUBT)
    assert state.mode is Mode.SHED
    assert state.reason == "T1.PV: not a number, for 3 cycles"
    assert (state.good, state.doubtful) == (0, 3)
    assert not go(state, doubts=DOUBT).hand_back


def test_a_doubt_that_passes_ends_the_hold() -> None:
    state = go(go(at(Mode.ACTIVE), doubts=DOUBT))
    assert state.mode is Mode.ACTIVE
    assert not state.holding
    assert state.doubtful == 0


def test_the_operator_re_arms() -> None:
    state = at(Mode.ACTIVE, doubtful=2, rearmed=True)
    state = go(state, doubts=DOUBT, rules=BY_OPERATOR)
    assert state.mode is Mode.SHED
    for _ in range(10):
        state = go(state, rules=BY_OPERATOR)
        assert state.mode is Mode.SHED
    assert go(state, "rearm", rules=BY_OPERATOR).mode is Mode.INIT


def test_re_arming_waits_until_the_doubt_is_gone() -> None:
    state = go(at(Mode.SHED), "rearm", DOUBT, rules=BY_OPERATOR)
    seen = [state := go(state, rules=BY_OPERATOR) for _ in range(RULES.ready_cycles)]
    assert [s.mode for s in seen] == [Mode.SHED, Mode.SHED, Mode.INIT]


def test_an_old_re_arm_does_not_count_for_the_next_shed() -> None:
    state = go(at(Mode.ACTIVE, doubtful=2), "rearm", DOUBT, rules=BY_OPERATOR)
    for _ in range(5):
        state = go(state, rules=BY_OPERATOR)
    assert state.mode is Mode.SHED


def test_the_last_of_several_commands_counts() -> None:
    commands = (command("off"), command("auto"))
    assert advance_mode(RULES, at(Mode.ACTIVE), commands, (), True).mode is Mode.ACTIVE


STEPS = st.tuples(
    st.sampled_from(["", "", "", "", "off", "manual", "auto", "auto", "rearm"]),
    st.sampled_from([(), (), (), DOUBT]),
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(STEPS, max_size=60),
    st.builds(
        ModeRules, st.integers(1, 4), st.integers(0, 4), st.sampled_from(["auto", "operator"])
    ),
)
def test_whatever_happens(steps: list[tuple[str, tuple[str, ...], bool]], rules: ModeRules) -> None:
    state = ModeState()
    doubtful, operator_acted = 0, True
    for text, doubts, linked in steps:
        before = state
        state = go(state, text, doubts, linked, rules)
        doubtful = doubtful + 1 if doubts else 0
        if state.mode is Mode.ACTIVE and before.mode is not Mode.ACTIVE:
            assert before.mode is Mode.READY
            assert not doubts
            assert linked
        if state.mode is Mode.READY and before.mode is not Mode.READY:
            assert before.mode is Mode.INIT
            assert state.good >= rules.ready_cycles
        # The one frame that gives control back follows a cycle that could have taken it.
        leaving = before.mode in (Mode.READY, Mode.ACTIVE) and state.mode not in (
            Mode.READY, Mode.ACTIVE
        )  # fmt: skip
        assert state.hand_back == leaving
        assert (state.doubtful, state.good == 0) == (doubtful, bool(doubts))
        assert state.holding == (state.mode is Mode.ACTIVE and bool(doubts))
        if state.mode is Mode.ACTIVE:
            assert doubtful <= rules.hold_cycles
            assert state.wanted == "auto"
        if state.mode is Mode.SHED and before.mode is not Mode.SHED:
            operator_acted = False
        operator_acted = operator_acted or text in ("rearm", "off", "manual")
        if before.mode is Mode.SHED and state.mode is Mode.INIT and rules.rearm == "operator":
            assert operator_acted
