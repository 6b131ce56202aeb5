"""The certificate: right answers pass, every kind of wrong answer is named."""

from __future__ import annotations

import numpy as np
import pytest

from controller.mpc.verify import Certificate, certify

# min (x0 - 2)^2 + (x1 + 1)^2, 0 <= x <= 1, g = x0 + x1 >= 0.5: x* = (1, 0), both at a bound.
LOW, HIGH = np.array([0.0, 0.0, 0.5]), np.array([1.0, 1.0, np.inf])
BEST, PRICES = np.array([1.0, 0.0]), np.array([2.0, -2.0, 0.0])


def judged(x: np.ndarray, prices: np.ndarray = PRICES) -> Certificate:
    gradient = 2 * (x - np.array([2.0, -1.0])) + prices[:2] + prices[2] * np.ones(2)
    return certify(np.array([*x, x.sum()]), gradient, LOW, HIGH, prices)


def test_the_solution_passes() -> None:
    certificate = judged(BEST)
    assert certificate.fault == ""
    assert certificate.primal == 0.0
    assert certificate.residual == 0.0


@pytest.mark.parametrize(
    ("x", "prices", "fault"),
    [
        (np.array([1.1, 0.0]), PRICES, "constraints are violated"),
        (np.array([1.0, -0.1]), PRICES, "constraints are violated"),
        (np.array([0.1, 0.1]), PRICES, "constraints are violated"),
        (np.array([0.5, 0.0]), PRICES, "not stationary"),
        (BEST, np.zeros(3), "not stationary"),
        # Prices invented to make any point stationary sit on constraints that are not active.
        (np.array([0.5, 0.5]), np.array([3.0, -3.0, 0.0]), "carries a price"),
        # The right size at the wrong end: a price that pushes away from the bound.
        (np.array([0.0, 1.0]), np.array([4.0, -4.0, 0.0]), "carries a price"),
        (np.array([np.nan, 0.0]), PRICES, "not finite"),
        (np.array([np.inf, 0.0]), PRICES, "not finite"),
        (BEST, np.array([2.0, -2.0, np.nan]), "not finite"),
    ],
)
def test_a_wrong_answer_is_named(x: np.ndarray, prices: np.ndarray, fault: str) -> None:
    assert fault in judged(x, prices).fault


def test_multipliers_alone_may_be_broken() -> None:
    certificate = certify(np.array([0.5]), np.zeros(1), np.zeros(1), np.ones(1), np.array([np.inf]))
    assert certificate.fault == "the multipliers are not finite"


@pytest.mark.parametrize(("violation", "ok"), [(0.9e-5, True), (1.1e-5, False)])
def test_the_tolerance_of_feasibility(violation: float, ok: bool) -> None:
    certificate = certify(
        np.array([1.0 + violation]), np.zeros(1), np.zeros(1), np.ones(1), np.zeros(1)
    )
    assert (certificate.fault == "") is ok


def test_a_free_variable_may_not_carry_a_price() -> None:
    unbounded = np.array([-np.inf]), np.array([np.inf])
    assert certify(np.zeros(1), np.zeros(1), *unbounded, np.array([0.01])).fault
