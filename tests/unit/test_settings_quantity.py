"""Quantities: absolute values and differences, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.settings.quantity import QuantityError, affine, difference, seconds, value


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30 s", 30.0), ("300 ms", 0.3), ("10 min", 600.0), ("2 h", 7200.0), ("1.5e1s", 15.0), (7, 7)],
)
def test_times_become_seconds(text: str | float, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("76 degC", "degC", 76.0),
        ("350 K", "degC", 76.85),
        ("76 degC", "K", 349.15),
        ("100 degF", "degC", 340 / 9),
        ("5 %", "1", 0.05),
        ("5", "kg/s", 5.0),
        (5, "kg/s", 5.0),
        ("3.6 t/h", "kg/s", 1.0),
        ("1 m³/h", "l/s", 1 / 3.6),
        ("36 EUR/h", "EUR/s", 0.01),
    ],
)
def test_values_are_absolute(text: str | float, unit: str, expected: float) -> None:
    assert value(text, unit) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("text", "unit", "per", "expected"),
    [
        ("0.2 K", "degC", "", 0.2),
        ("0.2 degC", "K", "", 0.2),
        ("1.8 degF", "degC", "", 1.0),
        ("0.6 K/min", "degC", "s", 0.01),
        ("0.6 degC/min", "degC", "s", 0.01),
        ("0.1 kg/s/min", "kg/s", "s", 0.1 / 60),
        ("2 %/min", "percent", "s", 2 / 60),
        ("0.01 1/hour**0.5", "1", "hour**0.5", 0.01),
        ("1 K/min**0.5", "degC", "hour**0.5", 60**0.5),
        (0.5, "degC", "s", 0.5),
    ],
)
def test_differences_know_no_offset(
    text: str | float, unit: str, per: str, expected: float
) -> None:
    assert difference(text, unit, per) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("text", "unit", "what"),
    [
        ("3 K", "kg/s", "the value is in K, expected a unit that converts to kg/s"),
        ("3 kg", "1", "the value is in kg, expected a number without unit"),
        ("3 EUR", "USD", "the value is in EUR, expected a unit that converts to USD"),
        ("3 foo", "s", "'foo' is not a unit"),
        ("3 s +", "s", "'s +' is not a unit"),
        ("3 s(", "s", "'s(' is not a unit"),
        ("3 dBm", "W", "'dBm' is a logarithmic unit"),
        ("1e999 s", "s", "'1e999 s' is too large"),
        ("three", "s", "'three' is not a quantity"),
    ],
)
def test_what_is_refused(text: str, unit: str, what: str) -> None:
    with pytest.raises(QuantityError) as caught:
        value(text, unit)
    assert caught.value.what == what
    assert caught.value.mend


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "unit",
    ["9**9**9**9", "s**9**9**9", "9**99999999", "s**99²²²²²²²²²²²²²²", "s²²²²²²²²", "2*s", "m\\s"],
)
def test_a_unit_does_not_compute(unit: str) -> None:
    with pytest.raises(QuantityError):
        value(f"1 {unit}", "s")


@given(
    st.floats(-1e6, 1e6),
    st.sampled_from(
        [("degC", "K"), ("degF", "degC"), ("kg/h", "kg/s"), ("bar", "kPa"), ("%", "1")]
    ),
)
def test_there_and_back(number: float, units: tuple[str, str]) -> None:
    a, b = affine(*units)
    c, d = affine(*reversed(units))
    assert c * (a * number + b) + d == pytest.approx(number, rel=1e-12, abs=1e-9)


def test_the_same_unit_changes_nothing() -> None:
    assert affine("degC", "degC") == (1.0, 0.0)
    assert affine("degC", "K") == (1.0, 273.15)
