"""The base layer: no offset, no windup, no bump."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.plc.pid import Action, Pid, PidTuning, SlaveSetpoint


def _settle(pid: Pid, setpoint: float, gain: float, seconds: int, pv: float = 20.0) -> list[float]:
    """Process values of a first-order process (50 s, 20 at zero output) under the loop."""
    trend: list[float] = []
    for _ in range(seconds):
        output = pid.update(setpoint, pv, 1.0)
        pv += (20.0 + gain * output - pv) / 50.0
        trend.append(pv)
    return trend


@pytest.mark.parametrize(("action", "process_gain"), [("reverse", 1.0), ("direct", -1.0)])
@pytest.mark.parametrize("rate_s", [0.0, 5.0])
def test_setpoint_step_settles_without_offset(
    action: Action, process_gain: float, rate_s: float
) -> None:
    setpoint = 20.0 + 40.0 * process_gain
    pid = Pid(PidTuning(2.0, 40.0, 0.0, 100.0, rate_s, action), 0.0, 20.0, 20.0)
    trend = _settle(pid, setpoint, process_gain, 600)
    assert trend[-1] == pytest.approx(setpoint, abs=0.01)
    assert max(abs(pv - 20.0) for pv in trend) < 50.0


def test_saturation_leaves_no_windup() -> None:
    pid = Pid(PidTuning(2.0, 10.0, 0.0, 100.0), 50.0, 70.0, 70.0)
    for _ in range(10_000):
        pid.update(200.0, 70.0, 1.0)
    assert pid.at_high
    assert pid.output == 100.0
    pid.update(69.0, 70.0, 1.0)
    assert not pid.at_high
    assert pid.output < 100.0
    for _ in range(10_000):
        pid.update(-100.0, 70.0, 1.0)
    assert pid.at_low
    assert pid.update(80.0, 70.0, 1.0) > 0.0


@given(
    output=st.floats(0, 100),
    setpoint=st.floats(-500, 500),
    pv=st.floats(-500, 500),
    gain=st.floats(0.01, 100),
)
def test_tracking_takes_over_without_a_bump(
    output: float, setpoint: float, pv: float, gain: float
) -> None:
    pid = Pid(PidTuning(gain, math.inf, 0.0, 100.0), 0.0, 0.0, 0.0)
    pid.track(output, setpoint, pv)
    assert pid.update(setpoint, pv, 1.0) == pytest.approx(output, abs=1e-6)


def test_a_process_value_that_is_no_number_holds_the_output() -> None:
    pid = Pid(PidTuning(2.0, 10.0, 0.0, 100.0), 42.0, 70.0, 70.0)
    assert pid.update(70.0, math.nan, 1.0) == 42.0
    assert pid.update(70.0, 70.0, 1.0) == 42.0


def test_setpoint_is_bumpless_and_rate_limited_in_both_directions() -> None:
    setpoint = SlaveSetpoint(4.0, 3.0, 6.0, 0.1)
    setpoint.to_remote()
    assert setpoint.update(5.0, 1.0) == pytest.approx(4.1)
    assert setpoint.update(5.0, 1.0) == pytest.approx(4.2)
    setpoint.to_local()
    assert setpoint.update(5.0, 100.0) == pytest.approx(4.2)
    setpoint.to_local(fallback=3.5)
    assert setpoint.update(5.0, 1.0) == pytest.approx(4.1)
    assert setpoint.update(5.0, 100.0) == pytest.approx(3.5)


def test_setpoint_is_clamped_and_refused_once_per_value() -> None:
    setpoint = SlaveSetpoint(4.0, 3.0, 6.0, math.inf)
    setpoint.to_remote()
    for _ in range(3):
        assert setpoint.update(9.0, 1.0) == 6.0
    assert (setpoint.clamped, setpoint.refused) == (1, 0)
    for _ in range(3):
        assert setpoint.update(math.nan, 1.0) == 6.0
    assert setpoint.update(math.inf, 1.0) == 6.0
    assert (setpoint.clamped, setpoint.refused) == (1, 1)
    assert setpoint.update(5.0, 1.0) == 5.0


@pytest.mark.parametrize(
    "wrong", [{"gain": -1.0}, {"reset_s": 0.0}, {"rate_s": -1.0}, {"output_high": 0.0}]
)
def test_tuning_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    fields = {"gain": 1.0, "reset_s": 10.0, "output_low": 0.0, "output_high": 100.0, **wrong}
    with pytest.raises(ValueError, match="PID"):
        PidTuning(**fields)


@pytest.mark.parametrize(("low", "high", "rate"), [(6.0, 3.0, 1.0), (3.0, 6.0, 0.0)])
def test_setpoint_range_that_cannot_work_is_refused(low: float, high: float, rate: float) -> None:
    with pytest.raises(ValueError, match="setpoint range"):
        SlaveSetpoint(4.0, low, high, rate)


def test_a_setpoint_of_an_earlier_remote_is_forgotten() -> None:
    setpoint = SlaveSetpoint(4.0, 3.0, 6.0, math.inf)
    setpoint.to_remote()
    setpoint.update(5.0, 1.0)
    setpoint.to_local(fallback=3.5)
    setpoint.update(5.0, 1.0)
    setpoint.to_remote()
    assert setpoint.update(math.nan, 1.0) == 3.5
