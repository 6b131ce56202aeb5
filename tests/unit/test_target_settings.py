"""Ranks, prices and approach times: from the file to the variables of the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import wiring
from controller.errors import SettingsError
from controller.settings import Settings, parse

EXAMPLE = Path(__file__).parents[2] / "config" / "williams_otto" / "williams-otto.yaml"
ZONE = "zone: [0, 0.12],"
RATE = "    rate: 0.1 kg/s/min\n"
DEGREES = "    rate: 0.5 K/min\n"


def edited(*edits: tuple[str, str]) -> Settings:
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return parse(text, EXAMPLE, {})


def test_rank_and_times_reach_the_controlled_variable() -> None:
    settings = edited((ZONE, f"{ZONE} rank: 2, approach: 5 min, ramp: 1 h, price: -3 EUR/h,"))
    cv = wiring.controlled(settings)[0]
    assert (cv.rank, cv.approach_s, cv.ramp_s, cv.price) == (2, 300.0, 3600.0, -3.0)
    other = wiring.controlled(settings)[1]
    assert (other.rank, other.approach_s, other.ramp_s, other.price) == (1, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("price", "per_unit_and_hour"),
    [("0.3 EUR/kg", 1080.0), ("1080 EUR/h/(kg/s)", 1080.0), ("12.5", 12.5), ("-1 EUR/t", -3.6)],
)
def test_a_price_is_per_unit_and_hour(price: str, per_unit_and_hour: float) -> None:
    settings = edited((RATE, f"{RATE}    price: {price}\n"))
    mvs = wiring.manipulated(settings, wiring.typed_tags(settings))
    assert mvs[0].price == pytest.approx(per_unit_and_hour)
    assert mvs[1].price == 0.0


def test_a_price_of_a_temperature_is_per_degree() -> None:
    settings = edited((DEGREES, f"{DEGREES}    price: 2 EUR/K/h\n"))
    assert settings.manipulated[1].price == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("edit", "where", "what"),
    [
        ((RATE, f"{RATE}    price: 0.3 USD/kg\n"), "manipulated[0].price", "is in USD/kg"),
        ((RATE, f"{RATE}    price: 0.3 EUR\n"), "manipulated[0].price", "EUR/(kg/s)/hour"),
        ((ZONE, f"{ZONE} price: 3 EUR/kg,"), "controlled[0].price", "is in EUR/kg"),
        ((ZONE, f"{ZONE} rank: 0,"), "controlled[0].rank", "found 0, expected at least 1"),
        ((ZONE, f"{ZONE} rank: 1.5,"), "controlled[0].rank", "1.5"),
        ((ZONE, f"{ZONE} approach: -5 min,"), "controlled[0].approach", "zero or more"),
        ((ZONE, f"{ZONE} ramp: 5 kg,"), "controlled[0].ramp", "is in kg"),
        (("name: williams-otto", "name: williams-otto\ncurrency: DOGE"), "currency", "EUR"),
    ],
)
def test_what_does_not_fit_is_shown_at_its_place(
    edit: tuple[str, str], where: str, what: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        edited(edit)
    assert f" {where}: " in str(caught.value)
    assert what in str(caught.value)


def test_another_currency_prices_in_that_currency() -> None:
    settings = edited(
        ("name: williams-otto", "name: williams-otto\ncurrency: USD"),
        (RATE, f"{RATE}    price: 0.3 USD/kg\n"),
    )
    assert settings.manipulated[0].price == pytest.approx(1080.0)
