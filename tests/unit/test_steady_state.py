"""Newton's method finds the steady state that exists and says so when there is none."""

from __future__ import annotations

from collections.abc import Callable

import casadi as ca
import numpy as np
import pytest

from plant_models import van_de_vusse
from plant_models.process import NoSteadyStateError, ProcessModel, nominal, steady_state
from plant_models.variable import Variable


def scalar(rate: Callable[[ca.SX, ca.SX, ca.SX, ca.SX], ca.SX]) -> ProcessModel:
    """One state in [−10, 10] with the given rate of change; d and p are scalars of nominal 1."""
    symbols = [ca.SX.sym(name) for name in "xudp"]
    state = Variable("x", "1", -10.0, 10.0, 0.5)
    one = Variable("one", "1", -10.0, 10.0, 1.0)
    f = ca.Function("f", symbols, [rate(*symbols)])
    h = ca.Function("h", symbols, [symbols[0]])
    return ProcessModel("scalar", (state,), (one,), (one,), (state,), (one,), f, h)


def test_linear_model_is_solved_exactly() -> None:
    model = scalar(lambda x, u, d, p: -2.0 * x + u + d + p)
    assert steady_state(model, np.array([1.0])) == pytest.approx([1.5], abs=1e-12)


def test_disturbances_and_parameters_given_are_the_ones_used() -> None:
    model = scalar(lambda x, u, d, p: -2.0 * x + u + d + p)
    x = steady_state(model, np.array([1.0]), d=np.array([3.0]), p=np.array([-1.0]))
    assert x == pytest.approx([1.5], abs=1e-12)
    assert steady_state(model, np.array([0.0]), d=np.zeros(1), p=np.zeros(1)) == pytest.approx(
        [0.0]
    )


def test_residual_is_zero_far_from_the_start() -> None:
    model = van_de_vusse.model()
    u, d = np.array([30.0, -8000.0]), nominal(model.d)
    x = steady_state(model, u, d, guess=np.array([4.0, 0.2, 140.0, 140.0]))
    assert np.asarray(model.f(x, u, d, model.p_nominal)).ravel() == pytest.approx(0.0, abs=1e-9)


def test_guess_chooses_among_several_steady_states() -> None:
    model = scalar(lambda x, u, d, p: x * (4.0 - x**2))
    u = np.array([0.0])
    assert steady_state(model, u, guess=np.array([1.8])) == pytest.approx([2.0])
    assert steady_state(model, u, guess=np.array([-1.8])) == pytest.approx([-2.0])
    assert steady_state(model, u, guess=np.array([0.1])) == pytest.approx([0.0], abs=1e-12)


def test_the_guess_is_not_changed() -> None:
    guess = np.array([1.8])
    steady_state(scalar(lambda x, u, d, p: x * (4.0 - x**2)), np.array([0.0]), guess=guess)
    assert guess[0] == 1.8


def test_an_integrator_has_no_isolated_steady_state() -> None:
    with pytest.raises(NoSteadyStateError, match="it integrates"):
        steady_state(scalar(lambda x, u, d, p: u), np.array([1.0]))


def test_no_steady_state_at_all() -> None:
    with pytest.raises(NoSteadyStateError, match="no steady state near"):
        steady_state(scalar(lambda x, u, d, p: x**2 + 1.0), np.array([1.0]))


def test_numbers_that_are_not_finite() -> None:
    with pytest.raises(NoSteadyStateError, match="no steady state near"):
        steady_state(scalar(lambda x, u, d, p: ca.log(x) - 5.0), np.array([1.0]), guess=-np.ones(1))
