"""The quadruple tank has the levels, time constants and zeros of Johansson (2000)."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest
from scipy.linalg import eigvals

from plant_models import quadruple_tank
from plant_models.process import Vector, nominal, steady_state

PHASES = pytest.mark.parametrize("minimum_phase", [True, False])


def linearised(minimum_phase: bool) -> tuple[Vector, Vector]:
    """df/dx and df/du at the published levels."""
    model = quadruple_tank.model(minimum_phase)
    x, u = ca.SX.sym("x", 4), ca.SX.sym("u", 2)
    rate = model.f(x, u, ca.SX(0, 1), model.p_nominal)
    jacobian = ca.Function("j", [x, u], [ca.jacobian(rate, x), ca.jacobian(rate, u)])
    a, b = jacobian(nominal(model.x), nominal(model.u))
    return np.asarray(a), np.asarray(b)


def zeros(minimum_phase: bool) -> list[float]:
    """Transmission zeros (1/s) from pumps to lower levels, by the Rosenbrock pencil."""
    a, b = linearised(minimum_phase)
    c = np.eye(2, 4)
    values = eigvals(np.block([[a, b], [c, np.zeros((2, 2))]]), np.diag([1.0] * 4 + [0.0] * 2))
    return sorted(values[np.isfinite(values) & (np.abs(values) < 1e3)].real)


@pytest.mark.parametrize(
    ("minimum_phase", "published"),
    [(True, (12.4, 12.7, 1.8, 1.4)), (False, (12.6, 13.0, 4.8, 4.9))],
)
def test_published_operating_points(minimum_phase: bool, published: tuple[float, ...]) -> None:
    """The paper prints the levels of the rig; its own model agrees within 0.2 cm, and so do we."""
    model = quadruple_tank.model(minimum_phase)
    assert steady_state(model, nominal(model.u)) == pytest.approx(published, abs=0.2)
    assert tuple(nominal(model.x)) == published
    assert tuple(nominal(model.u)) == ((3.00, 3.00) if minimum_phase else (3.15, 3.15))


@PHASES
def test_levels_at_rest_follow_bernoulli(minimum_phase: bool) -> None:
    model = quadruple_tank.model(minimum_phase)
    value = dict(zip([v.name for v in model.p], model.p_nominal, strict=True))
    q1, q2 = (value[f"k{i}"] * v.nominal for i, v in enumerate(model.u, start=1))
    flows = (
        value["gamma1"] * q1 + (1 - value["gamma2"]) * q2,
        value["gamma2"] * q2 + (1 - value["gamma1"]) * q1,
        (1 - value["gamma2"]) * q2,
        (1 - value["gamma1"]) * q1,
    )
    levels = [(q / value[f"a{i}"]) ** 2 / (2 * 981.0) for i, q in enumerate(flows, start=1)]
    assert steady_state(model, nominal(model.u)) == pytest.approx(levels, rel=1e-4)


@pytest.mark.parametrize(
    ("minimum_phase", "published"),
    [(True, (62.0, 90.0, 23.0, 30.0)), (False, (63.0, 91.0, 39.0, 56.0))],
)
def test_published_time_constants(minimum_phase: bool, published: tuple[float, ...]) -> None:
    a, _ = linearised(minimum_phase)
    assert -1.0 / np.diag(a) == pytest.approx(published, abs=1.0)  # printed without decimals


@pytest.mark.parametrize(
    ("minimum_phase", "published"), [(True, [-0.060, -0.018]), (False, [-0.057, 0.013])]
)
def test_published_zeros(minimum_phase: bool, published: list[float]) -> None:
    """The paper computes them from rounded time constants, so its digits agree within 5 %."""
    assert zeros(minimum_phase) == pytest.approx(published, rel=0.05)
    assert bool(zeros(minimum_phase)[1] < 0) is minimum_phase


@PHASES
def test_zeros_solve_the_equation_of_the_paper(minimum_phase: bool) -> None:
    """(1 + s T3)(1 + s T4) = (1 − γ1)(1 − γ2) / (γ1 γ2)"""
    t3, t4 = -1.0 / np.diag(linearised(minimum_phase)[0])[2:]
    settings = quadruple_tank.MINIMUM_PHASE if minimum_phase else quadruple_tank.NON_MINIMUM_PHASE
    g1, g2 = settings["gamma1"], settings["gamma2"]
    expected = np.roots([t3 * t4, t3 + t4, 1.0 - (1 - g1) * (1 - g2) / (g1 * g2)])
    assert zeros(minimum_phase) == pytest.approx(sorted(expected.real), rel=1e-6)


def test_non_minimum_phase_pairs_the_loops_the_other_way_round() -> None:
    for minimum_phase in (True, False):
        a, b = linearised(minimum_phase)
        gain = (-np.linalg.solve(a, b))[:2]
        relative_gain = gain[0, 0] * np.linalg.inv(gain)[0, 0]
        assert bool(relative_gain > 0) is minimum_phase


def test_an_empty_tank_stays_empty_and_finite() -> None:
    plant = quadruple_tank.plant()
    for _ in range(120):
        y = plant.advance(np.zeros(2), 10.0)
    assert np.all(np.abs(plant.x) < 1e-3)
    assert np.all(np.isfinite(y))


def test_parameters_override_the_settings_of_the_operating_point() -> None:
    model = quadruple_tank.model(minimum_phase=False, gamma1=0.5)
    value = dict(zip([v.name for v in model.p], model.p_nominal, strict=True))
    assert value["gamma1"] == 0.5
    assert value["gamma2"] == 0.34
    with pytest.raises(KeyError, match="no parameter gamma3"):
        quadruple_tank.plant(gamma3=0.5)
