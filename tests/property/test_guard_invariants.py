"""The guard's promises, for every input that can be written down, NaN and infinity included."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cycle.guard import Authority, GuardedDevice, GuardedMv, MvFacts, guard, release

DEVICES = (GuardedDevice("a", "A.HB", "A.SEQ", "A.EPOCH"), GuardedDevice("b", "B.HB", "", ""))
ANY = st.one_of(
    st.none(),
    st.floats(),
    st.floats(-20.0, 120.0),
    st.sampled_from([0.0, 100.0, 50.0, -0.0, 1e-300, float("nan"), float("inf"), float("-inf")]),
)
NUMBERS = ANY.filter(lambda v: v is not None)


@dataclass(frozen=True)
class Place:
    """A value near the range of an MV: 0 is its low limit, 1 its high one."""

    share: float

    def of(self, mv: GuardedMv) -> float:
        if self.share in (0.0, 1.0):
            return mv.high if self.share else mv.low
        return mv.low + self.share * (mv.high - mv.low)


# Made once: a strategy that depends on an MV already drawn would be built anew for each example.
INSIDE = st.builds(Place, st.floats(0.0, 1.0))
FACTS = st.fixed_dictionaries(
    {
        "in_use": INSIDE | ANY,
        "last_sent": INSIDE | ANY,
        "remote": st.booleans(),
        "high": st.booleans(),
        "low": st.booleans(),
        "operator_low": INSIDE | NUMBERS,
        "operator_high": INSIDE | NUMBERS,
        "confirmed": INSIDE | ANY,
        "parked": INSIDE | ANY,
        "told": INSIDE | ANY,
        "echoing": st.booleans(),
        "unconfirmed": st.booleans(),
    }
)
LOOPS = st.tuples(
    st.sampled_from("ab"),
    st.floats(-1000.0, 1000.0),  # low limit
    st.floats(1e-3, 1000.0),  # range
    st.floats(1e-6, 100.0),  # rate
    FACTS,
    st.builds(Place, st.floats(-0.5, 1.5)) | ANY,  # wanted
)


def resolve(value: object, mv: GuardedMv) -> Any:
    return value.of(mv) if isinstance(value, Place) else value


@settings(max_examples=200, deadline=None)
@given(
    st.lists(LOOPS, min_size=1, max_size=3),
    st.builds(Authority, st.booleans(), st.booleans(), st.booleans()),
    st.floats(0.01, 600.0),
)
def test_the_guard_keeps_its_promises(
    loops: list[tuple[str, float, float, float, dict[str, object], object]],
    authority: Authority,
    cycle_s: float,
) -> None:
    known: dict[str, MvFacts] = {}
    wanted: dict[str, float] = {}
    found: list[GuardedMv] = []
    for number, (device, low, span, rate, facts, plan) in enumerate(loops):
        name = f"MV{number}"
        mv = GuardedMv(name, device, "percent", low, low + span, rate, f"{name}.SP", f"{name}.REQ")
        found.append(mv)
        known[name] = MvFacts(**{key: resolve(value, mv) for key, value in facts.items()})
        if (value := resolve(plan, mv)) is not None:
            wanted[name] = value
    mvs = tuple(found)
    move = guard(mvs, DEVICES, authority, wanted, known, cycle_s, 11, 12, 13)

    assert set(move.allowed) == {mv.name for mv in mvs}
    for mv in mvs:
        fact = known[mv.name]
        if mv.name not in move.values:
            assert not move.allowed[mv.name]
            assert move.reasons[mv.name]
            continue
        value = move.values[mv.name]
        base = fact.last_sent if fact.remote and fact.last_sent is not None else fact.in_use
        assert isfinite(value)
        assert mv.low <= value <= mv.high
        if base is None or not isfinite(base):  # blind: only what the PLC was told already
            if move.allowed[mv.name]:
                assert value == fact.confirmed
            assert fact.confirmed is not None or fact.parked is not None
            continue
        told = fact.told
        if told is not None and not (isfinite(told) and mv.low <= told <= mv.high):
            told = None  # such a setpoint can never have been sent by us
        if told is None and (authority.hold or not fact.echoing):  # no taking over in doubt
            assert not move.allowed[mv.name]
        if authority.control and fact.remote and told is not None:
            if authority.hold or fact.unconfirmed:  # what was sent stands
                assert value == told
                assert move.allowed[mv.name]
                continue
        else:
            told = None
        if not mv.low <= base <= mv.high:  # the PLC is outside our limits: hands off
            assert not move.allowed[mv.name]
            continue
        rounding = 1e-12 * max(abs(mv.low), abs(mv.high), 1.0)
        step = mv.rate_per_s * cycle_s * (1.0 + 2e-9) + rounding
        if told is not None and isfinite(wanted.get(mv.name, inf)):
            saturated = (fact.high or fact.low) and value == base
            assert abs(value - told) <= step or saturated
        else:
            assert abs(value - base) <= step
        if authority.hold or not authority.control or not fact.remote:
            assert value == base
        if told is None:  # nothing was asked for yet: the first request moves nothing
            assert value == base
        if fact.high:
            assert value <= base
        if fact.low:
            assert value >= base
        if move.allowed[mv.name]:
            assert authority.control
        if value != wanted.get(mv.name):
            assert move.reasons[mv.name]

    if not authority.handshake:
        assert move.frames == {}
    for name, frame in move.frames.items():
        own = [mv for mv in mvs if mv.device == name]
        words = {"A.HB", "A.SEQ", "A.EPOCH"} if name == "a" else {"B.HB"}
        assert set(frame) == words | {t for mv in own for t in (mv.setpoint, mv.request)}
        assert frame[f"{name.upper()}.HB"] == 11
        for mv in own:
            assert frame[mv.setpoint] == move.values[mv.name]
            assert frame[mv.request] == int(move.allowed[mv.name])
            if not authority.control:
                assert frame[mv.request] == 0

    released = release(mvs, DEVICES, move.frames)
    assert set(released) == set(move.frames)
    for name, frame in released.items():
        assert set(frame) == set(move.frames[name])
        assert frame[f"{name.upper()}.HB"] == 12
        for mv in mvs:
            if mv.device == name:
                assert frame[mv.request] == 0
                assert frame[mv.setpoint] == move.frames[name][mv.setpoint]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 100.0),
    ANY,
    st.fixed_dictionaries({"high": st.booleans(), "low": st.booleans(),
                           "operator_low": NUMBERS, "operator_high": NUMBERS}),
    st.sampled_from([None, nan, inf, -inf, -1e-9, 100.1]),
    st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_the_first_request_moves_nothing_whatever_the_plan_and_the_limits(
    in_use: float,
    wanted: float | None,
    facts: dict[str, Any],
    told: float | None,
    echoing: bool,
    unconfirmed: bool,
) -> None:
    mv = GuardedMv("MV", "a", "percent", 0.0, 100.0, 1.0, "SP", "REQ")
    fact = MvFacts(in_use, None, True, told=told, echoing=echoing, unconfirmed=unconfirmed, **facts)
    plan = {} if wanted is None else {"MV": wanted}
    authority = Authority(handshake=True, control=True, hold=False)
    move = guard((mv,), DEVICES[:1], authority, plan, {"MV": fact}, 10.0, 1, 1, 1)
    assert move.frames["a"]["SP"] == move.values["MV"] == in_use
    assert move.allowed["MV"] is echoing
    assert move.reasons["MV"]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 100.0),
    st.floats(0.0, 100.0),
    st.floats(0.0, 100.0),
    st.floats(0.0, 100.0),
    st.floats(0.01, 1.0),
)
def test_limits_moved_past_the_mv_are_reached_at_the_rate(
    start: float, one: float, other: float, wanted: float, rate: float
) -> None:
    low, high = min(one, other), max(one, other)
    mv = GuardedMv("MV", "a", "percent", 0.0, 100.0, rate, "SP", "REQ")
    value = start
    for _ in range(round(100.0 / rate / 10.0) + 2):
        fact = MvFacts(value, value, True, False, False, low, high, told=value)
        before = value
        authority = Authority(handshake=True, control=True, hold=False)
        move = guard((mv,), DEVICES[:1], authority, {"MV": wanted}, {"MV": fact}, 10.0, 1, 1, 1)
        value = move.values["MV"]
        assert abs(value - before) <= rate * 10.0 + 1e-9
    assert low <= value <= high
    assert value == min(max(wanted, low), high)
