"""The guard's promises, for every input that can be written down, NaN and infinity included."""

from __future__ import annotations

from math import isfinite

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cycle.guard import Authority, GuardedDevice, GuardedMv, MvFacts, guard

DEVICES = (GuardedDevice("a", "A.HB", "A.SEQ", "A.EPOCH"), GuardedDevice("b", "B.HB", "", ""))
ANY = st.one_of(
    st.none(),
    st.floats(),
    st.floats(-20.0, 120.0),
    st.sampled_from([0.0, 100.0, 50.0, -0.0, 1e-300, float("nan"), float("inf"), float("-inf")]),
)
NUMBERS = ANY.filter(lambda v: v is not None)


@st.composite
def mvs(draw: st.DrawFn) -> tuple[GuardedMv, ...]:
    found: list[GuardedMv] = []
    for number in range(draw(st.integers(1, 3))):
        low = draw(st.floats(-1000.0, 1000.0))
        high = low + draw(st.floats(1e-3, 1000.0))
        rate = draw(st.floats(1e-6, 100.0))
        name, device = f"MV{number}", draw(st.sampled_from("ab"))
        found.append(
            GuardedMv(name, device, "percent", low, high, rate, f"{name}.SP", f"{name}.REQ")
        )
    return tuple(found)


@st.composite
def facts(draw: st.DrawFn, mv: GuardedMv) -> MvFacts:
    inside = st.floats(mv.low, mv.high)
    return MvFacts(
        in_use=draw(inside | ANY),
        last_sent=draw(inside | ANY),
        remote=draw(st.booleans()),
        high=draw(st.booleans()),
        low=draw(st.booleans()),
        operator_low=draw(inside | NUMBERS),
        operator_high=draw(inside | NUMBERS),
        confirmed=draw(inside | ANY),
    )


@settings(max_examples=200, deadline=None)
@given(st.data(), mvs(), st.builds(Authority, st.booleans(), st.booleans(), st.booleans()))
def test_the_guard_keeps_its_promises(
    data: st.DataObject, mvs: tuple[GuardedMv, ...], authority: Authority
) -> None:
    known = {mv.name: data.draw(facts(mv)) for mv in mvs}
    wanted = {
        mv.name: value
        for mv in mvs
        if (value := data.draw(st.floats(mv.low - 10, mv.high + 10) | ANY)) is not None
    }
    cycle_s = data.draw(st.floats(0.01, 600.0))
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
            assert value == fact.confirmed
            continue
        if not mv.low <= base <= mv.high:  # the PLC is outside our limits: hands off
            assert not move.allowed[mv.name]
            continue
        rounding = 1e-12 * max(abs(mv.low), abs(mv.high), 1.0)
        assert abs(value - base) <= mv.rate_per_s * cycle_s + rounding
        if authority.hold or not authority.control or not fact.remote:
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
        fact = MvFacts(value, value, True, False, False, low, high)
        before = value
        authority = Authority(handshake=True, control=True, hold=False)
        move = guard((mv,), DEVICES[:1], authority, {"MV": wanted}, {"MV": fact}, 10.0, 1, 1, 1)
        value = move.values["MV"]
        assert abs(value - before) <= rate * 10.0 + 1e-9
    assert low <= value <= high
    assert value == min(max(wanted, low), high)
