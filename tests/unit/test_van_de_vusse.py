"""The Van de Vusse reactor rests where the papers say and shows what makes it a benchmark."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest
from scipy.linalg import eigvals

from plant_models import van_de_vusse
from plant_models.integrate import ModelPlant
from plant_models.process import Vector, nominal, steady_state

MODEL = van_de_vusse.model()


def at_rest(flow: float, heat: float = -1113.5, feed_temperature: float = 104.9) -> Vector:
    return steady_state(MODEL, np.array([flow, heat]), np.array([5.10, feed_temperature]))


def slopes(flow: float) -> tuple[Vector, Vector]:
    """df/dx and df/dF at rest at this flow."""
    x, u = ca.SX.sym("x", 4), ca.SX.sym("u", 2)
    d, p = nominal(MODEL.d), MODEL.p_nominal
    rate = MODEL.f(x, u, d, p)
    jacobian = ca.Function("j", [x, u], [ca.jacobian(rate, x), ca.jacobian(rate, u)])
    a, b = jacobian(at_rest(flow), np.array([flow, -1113.5]))
    return np.asarray(a), np.asarray(b)[:, 0]


def test_published_operating_point_of_the_maximum_yield() -> None:
    """The paper prints F = 14.19; its other digits belong to 14.1926, which rounds to it."""
    c_a, c_b, t, t_k = at_rest(14.1926)
    assert round(c_a, 4) == 2.1404
    assert round(c_b, 4) == 1.0903
    assert round(t, 2) == 114.19
    assert round(t_k, 2) == 112.91
    assert at_rest(14.19) == pytest.approx([2.1404, 1.0903, 114.19, 112.91], abs=5e-3)


def test_published_operating_point_of_chen_kremling_allgower() -> None:
    c_a, c_b, t, t_k = at_rest(18.83, -4495.7, 130.0)
    assert round(c_a, 3) == 1.235
    assert round(c_b, 2) == 0.90
    assert round(t, 2) == 134.14
    assert round(t_k, 2) == 128.95


def test_the_gain_from_flow_to_product_changes_its_sign() -> None:
    flows = np.arange(5.0, 35.0, 0.5)
    yields = np.array([at_rest(flow)[1] for flow in flows])
    best = int(np.argmax(yields))
    assert 13.0 <= flows[best] <= 15.5
    assert yields[best] == pytest.approx(1.0903, abs=1e-3)
    assert np.all(np.diff(yields[: best + 1]) > 0)
    assert np.all(np.diff(yields[best:]) < 0)


def test_the_zero_from_flow_to_product_crosses_into_the_right_half_plane_with_the_gain() -> None:
    for flow, right_half_plane in ((8.0, True), (25.0, False)):
        a, b = slopes(flow)
        c = np.array([0.0, 1.0, 0.0, 0.0])
        # Zeros are where the Rosenbrock pencil [[A − sI, b], [c, 0]] loses rank.
        pencil = np.block([[a, b[:, None]], [c[None, :], np.zeros((1, 1))]])
        mass = np.diag([1.0, 1.0, 1.0, 1.0, 0.0])
        values = eigvals(pencil, mass)
        zeros = values[np.isfinite(values)].real
        assert bool(np.any(zeros > 1e-6)) is right_half_plane
        gain = float(-c @ np.linalg.solve(a, b))
        assert (gain > 0) is right_half_plane


def test_below_the_maximum_more_flow_first_lowers_the_product() -> None:
    x0 = at_rest(8.0)
    plant = ModelPlant(MODEL, van_de_vusse.DT_MAX_S, x0=x0)
    inputs = np.array([10.0, -1113.5, 5.10, 104.9])
    c_b = np.array([plant.advance(inputs, 20.0)[1] for _ in range(360)])
    assert c_b[0] < x0[1] - 1e-3
    assert c_b[-1] > x0[1] + 1e-2


def test_open_loop_is_stable_over_the_whole_range_of_flow() -> None:
    for flow in (3.0, 14.19, 35.0):
        a, _ = slopes(flow)
        assert np.all(np.linalg.eigvals(a).real < 0)


def test_time_is_in_seconds_and_units_are_declared() -> None:
    rate = np.asarray(
        MODEL.f([5.10, 0.0, 104.9, 104.9], [10.0, 0.0], [5.10, 104.9], MODEL.p_nominal)
    )
    # No heat to the jacket and no temperature difference: it stands still.
    assert rate[3, 0] == 0.0
    hotter = np.asarray(
        MODEL.f([0.0, 0.0, 104.9, 104.9], [10.0, -3600.0], [0.0, 104.9], MODEL.p_nominal)
    )
    assert hotter[3, 0] == pytest.approx(-0.1)  # −3600 kJ/h = −1 kW into 10 kJ/K
    assert {v.name: v.unit for v in MODEL.u + MODEL.d + MODEL.y} == {
        "F": "1/h",
        "Q": "kJ/h",
        "cA0": "mol/l",
        "T0": "degC",
        "cA": "mol/l",
        "cB": "mol/l",
        "T": "degC",
        "TK": "degC",
    }


def test_parameters_by_name() -> None:
    assert van_de_vusse.model(kw=3500.0).p_nominal[11] == 3500.0
    with pytest.raises(KeyError, match="no parameter k40"):
        van_de_vusse.plant(k40=1.0)
