"""What limits are worth: shadow prices solved by hand, by finite differences, and in words."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from msgspec import structs

from controller.mpc.problem import Constraint, Situation, Target
from controller.mpc.target import TargetCalculation, target_calculation
from tests.unit.small_application import CVS, GAIN, MVS, augmented, situation

ZONES = np.full(2, np.nan)
PRICES = np.array([3.0, 5.0])
"""EUR per percent of heat and hour."""


@lru_cache(maxsize=4)
def priced(ranks: tuple[int, int] = (1, 1), earns: float = 0.0) -> TargetCalculation:
    """Two tanks whose heat costs money, and whose T1 may earn some."""
    mvs = tuple(
        replace(mv, price=p, target_weight=5.0) for mv, p in zip(MVS, PRICES.tolist(), strict=True)
    )
    cvs = tuple(replace(cv, rank=r, setpoint=None) for cv, r in zip(CVS, ranks, strict=True))
    return target_calculation(augmented(), mvs, (replace(cvs[0], price=-earns), cvs[1]))


def asked(**changes: object) -> Situation:
    return situation(setpoint=ZONES, **changes)


def cost(found: Target, earns: float = 0.0) -> float:
    return float(PRICES @ found.u) - earns * float(found.y[0])


def named(found: Target) -> dict[str, Constraint]:
    return {c.name: c for c in found.constraints}


def test_the_cheapest_heat_keeps_both_zones_at_their_low_limits() -> None:
    """u = G⁻¹ [55, 40] and the shadow prices are G⁻ᵀ [3, 5], solved by hand: 2.826 and 7.391."""
    found = priced()(asked(cv_low=np.array([55.0, 40.0])))
    assert found.u == pytest.approx(np.linalg.solve(GAIN, [55.0, 40.0]), abs=1e-4)
    # 0.8 a + 0.1 b = 3, 0.2 a + 0.6 b = 5  →  b = (5 − 0.75)/(0.6 − 0.025), a = (3 − 0.1 b)/0.8
    b = (5.0 - 0.75) / 0.575
    a = (3.0 - 0.1 * b) / 0.8
    constraints = named(found)
    assert constraints["T1"].shadow_price == pytest.approx(a, rel=1e-6)
    assert constraints["T2"].shadow_price == pytest.approx(b, rel=1e-6)
    assert constraints["T1"].bound == "low"
    assert constraints["T1"].sentence == (
        f"T1 (rank 1) is at its low limit of 55 degC; relaxing it by 1 degC is worth {a:.4g} EUR/h"
    )


def test_heat_that_earns_goes_to_its_maximum() -> None:
    """dJ/dQ1 = 3 − 10 · 0.8 and dJ/dQ2 = 5 − 10 · 0.2: Q1 wants up, Q2 down."""
    found = priced(earns=10.0)(asked(mv_high=np.array([80.0, 100.0])))
    assert found.u == pytest.approx([80.0, 0.0], abs=1e-6)
    constraints = named(found)
    assert constraints["Q1"].shadow_price == pytest.approx(5.0)
    # Below zero there is less to gain than the heat costs.
    assert constraints["Q2"].shadow_price == pytest.approx(3.0)
    assert constraints["Q1"].sentence == (
        "Q1 is at its maximum of 80 percent; relaxing it by 1 percent is worth 5 EUR/h"
    )


LIMITS = (
    ("Q1", "mv_low", 0, -1.0), ("Q1", "mv_high", 0, 1.0),
    ("Q2", "mv_low", 1, -1.0), ("Q2", "mv_high", 1, 1.0),
    ("T1", "cv_low", 0, -1.0), ("T1", "cv_high", 0, 1.0),
    ("T2", "cv_low", 1, -1.0), ("T2", "cv_high", 1, 1.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("ranks", "earns", "changes"),
    [
        ((1, 1), 0.0, {"cv_low": np.array([55.0, 40.0])}),
        ((1, 1), 10.0, {"mv_high": np.array([80.0, 70.0]), "cv_low": np.array([0.0, 30.0])}),
        ((1, 1), 10.0, {"cv_high": np.array([60.0, 100.0]), "cv_low": np.array([0.0, 35.0])}),
        # T1 cannot be kept: what forces it has a price, what it gave up has none.
        ((1, 2), 0.0, {"cv_low": np.array([85.0, 20.0]), "mv_high": np.array([80.0, 60.0])}),
        ((2, 1), 0.0, {"cv_high": np.array([15.0, 100.0]), "cv_low": np.array([0.0, 40.0])}),
        # A resting value holds Q2 in place against its price.
        ((1, 1), 0.0, {"cv_low": np.array([55.0, 0.0]), "resting": np.array([np.nan, 60.0])}),
    ],
)
def test_shadow_prices_are_the_finite_differences_of_the_cost(
    ranks: tuple[int, int], earns: float, changes: dict[str, np.ndarray]
) -> None:
    calculation, here = priced(ranks, earns), asked(**changes)
    found = calculation(here)
    assert found.solved
    constraints = named(found)
    relaxed = 0.01
    for name, field, index, outwards in LIMITS:
        limit = getattr(here, field).copy()
        limit[index] += outwards * relaxed
        after = calculation(structs.replace(here, **{field: limit}))
        worth = (cost(found, earns) - cost(after, earns)) / relaxed
        told = constraints.get(name)
        bound = field.removeprefix("mv_").removeprefix("cv_")
        if told is not None and told.bound == bound:
            assert told.shadow_price == pytest.approx(worth, abs=1e-3), (name, bound)
        else:
            assert worth == pytest.approx(0.0, abs=2e-3), (name, bound)


def test_a_setpoint_has_a_price_too() -> None:
    found = priced()(situation(setpoint=np.array([55.0, np.nan])))
    constraint = named(found)["T1"]
    after = priced()(situation(setpoint=np.array([54.0, np.nan])))
    assert constraint.bound == "setpoint"
    assert constraint.shadow_price == pytest.approx(cost(found) - cost(after), rel=1e-4)
    assert "T1 (rank 1) is at its setpoint of 55 degC; lowering it by 1 degC" in constraint.sentence


def test_a_cv_that_gives_way_says_to_whom_and_what_would_help() -> None:
    found = priced((2, 1))(asked(cv_high=np.array([15.0, 100.0]), cv_low=np.array([0.0, 55.0])))
    first = found.constraints[0]
    # T2 ≥ 55 wants Q2 = 91.67 with Q1 at its minimum; T1 is then 18.33.
    assert first.name == "T1"
    assert first.slack == pytest.approx(0.2 * 55.0 / 0.6 - 15.0, abs=1e-4)
    assert first.shadow_price == pytest.approx(0.0, abs=1e-9)
    assert first.sentence.startswith(
        "T1 (rank 2) gives 3.333 degC at its high limit of 15 degC because T2 (rank 1, low limit) "
        "needs Q1, which is at its minimum of 0 percent; relaxing the low limit of T2 by 1 degC "
        "is worth 8.333 EUR/h"
    )


def test_without_prices_nothing_is_worth_anything() -> None:
    plain = target_calculation(augmented(), MVS, CVS)
    found = plain(situation(setpoint=np.array([95.0, np.nan]), mv_high=np.array([80.0, 60.0])))
    assert [c.name for c in found.constraints] == ["T1", "Q1", "Q2"]
    assert all(c.shadow_price == 0.0 for c in found.constraints)
    assert found.constraints[0].sentence == (
        "T1 (rank 1) gives 19 degC at its setpoint of 95 degC because Q1 is at its maximum of 80 "
        "percent and Q2 is at its maximum of 60 percent"
    )


def test_an_mv_that_cannot_move_is_named_as_the_cause_and_not_as_a_limit() -> None:
    found = priced()(asked(cv_low=np.array([80.0, 0.0]), free=np.array([0.0, 1.0]),
                           blocked_up=np.array([0.0, 1.0])))  # fmt: skip
    assert found.constraints[0].sentence.startswith(
        "T1 (rank 1) gives 30 degC at its low limit of 80 degC because Q1 is not free to move and "
        "Q2 is blocked upwards by its saturated loop"
    )
    assert "Q1" not in named(found)


def test_prices_come_after_limits_and_with_resting_values() -> None:
    cheap = priced()(asked())
    assert cheap.u == pytest.approx([0.0, 0.0], abs=1e-6)
    assert priced()(asked(cv_low=np.array([55.0, 0.0]))).y[0] == pytest.approx(55.0, abs=1e-4)


def test_the_currency_is_that_of_the_application() -> None:
    mvs = (replace(MVS[0], price=1.0), MVS[1])
    cvs = (replace(CVS[0], setpoint=None), replace(CVS[1], setpoint=None))
    found = target_calculation(augmented(), mvs, cvs, currency="CHF")(asked())
    assert found.constraints[0].sentence == (
        "Q1 is at its minimum of 0 percent; relaxing it by 1 percent is worth 1 CHF/h"
    )
