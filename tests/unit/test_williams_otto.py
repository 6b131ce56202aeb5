"""The Williams–Otto plant and its wrong model give the published numbers."""

from __future__ import annotations

import math
import time
from functools import cache

import casadi as ca
import numpy as np
import pytest

from plant_models.process import ProcessModel, jacobian_x, steady_state
from plant_models.williams_otto import (
    Optimum,
    optimum,
    plant,
    plant_model,
    profit,
    steady_state_outputs,
    two_reaction_model,
)

LIMITS = {"xA": 0.12, "xG": 0.08}


@cache
def true_optimum(constrained: bool, f_a: float) -> Optimum:
    return optimum(limits=LIMITS if constrained else None, F_A=f_a)


@cache
def root_of_the_model() -> tuple[ProcessModel, ca.Function, ca.Function]:
    """The wrong model with CasADi's own root finder: independent of the optimizer's Newton."""
    model = two_reaction_model()
    x, u, d = ca.SX.sym("x", len(model.x)), ca.SX.sym("u", 2), ca.SX.sym("d", 1)
    p = ca.DM(model.p_nominal)
    root = ca.rootfinder(
        "root", "newton", {"x": x, "p": ca.vertcat(u, d), "g": model.f(x, u, d, p)}
    )
    return model, root, ca.Function("y", [x, u, d], [model.h(x, u, d, p)])


def believed(f_b: float, t_r: float, f_a: float) -> dict[str, float]:
    model, root, output = root_of_the_model()
    x = root(np.array([v.nominal for v in model.x]), np.array([f_b, t_r, f_a]))
    y = np.asarray(output(x, np.array([f_b, t_r]), f_a)).ravel()
    return {"F_A": f_a, **dict(zip((v.name for v in model.y), map(float, y), strict=True))}


@pytest.mark.parametrize(
    ("limits", "f_a", "f_b", "t_r", "money"),
    [
        (None, 1.8275, 4.2006, 85.943, 88.707),
        (LIMITS, 1.8275, 4.3894, 80.496, 75.811),
        (LIMITS, 2.0, 4.8385, 81.928, 73.638),
    ],
    ids=["unconstrained", "constrained", "more feed"],
)
def test_true_optimum(
    limits: dict[str, float] | None, f_a: float, f_b: float, t_r: float, money: float
) -> None:
    best = true_optimum(limits is not None, f_a)
    # As printed: half a unit of the last digit.
    found = (best.F_B, best.T_R, best.profit)
    assert found == (
        pytest.approx(f_b, abs=0.6e-4),
        pytest.approx(t_r, abs=0.6e-3),
        pytest.approx(money, abs=0.6e-3),
    )
    if limits is not None:
        assert (best.xA, best.xG) == pytest.approx((0.12, 0.08), abs=1e-6)


def test_wrong_model_believes_in_its_own_optimum() -> None:
    best = optimum(limits=LIMITS, outputs=believed)
    target = (best.F_B, best.T_R)
    assert target == pytest.approx((4.633, 76.233), abs=6e-4)
    assert best.profit == pytest.approx(82.09, abs=6e-3)


def test_plant_earns_half_at_the_wrong_optimum_and_violates_xa() -> None:
    y = steady_state_outputs(4.6331, 76.2331)
    assert profit(y) == pytest.approx(40.87, abs=6e-3)
    assert y["xA"] == pytest.approx(0.127, abs=6e-4)
    assert 1 - profit(y) / true_optimum(True, 1.8275).profit == pytest.approx(0.46, abs=6e-3)


def test_mass_is_conserved() -> None:
    y = steady_state_outputs(4.2, 85.0)
    assert sum(y[name] for name in ("xA", "xB", "xC", "xE", "xP", "xG")) == pytest.approx(1.0)


def test_dynamic_plant_rests_at_its_initial_point() -> None:
    reactor = plant()
    y0 = reactor.reset(1)
    y = y0
    for _ in range(100):
        y = reactor.advance(reactor.initial_inputs, 30.0)
    np.testing.assert_allclose(y, y0, rtol=1e-9)
    by_name = dict(zip((v.name for v in reactor.outputs), y0, strict=True))
    expected = steady_state_outputs(4.633, 76.233)
    assert {name: by_name[name] for name in expected} == pytest.approx(expected)


def test_step_in_the_jacket_settles_at_the_static_composition() -> None:
    reactor = plant()
    reactor.reset(0)
    u = reactor.initial_inputs + np.array([-3.0, 8.0, 0.1])
    for _ in range(1500):
        y = reactor.advance(u, 10.0)
    by_name = dict(zip((v.name for v in reactor.outputs), map(float, y), strict=True))
    expected = steady_state_outputs(by_name["F_B"], by_name["T_R"], by_name["F_A"])
    assert {name: by_name[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert by_name["F_B"] == pytest.approx(4.333)


def test_advance_does_not_depend_on_how_time_is_cut() -> None:
    first, second = plant(), plant()
    first.reset(0)
    second.reset(0)
    u = first.initial_inputs + np.array([5.0, -10.0, 0.0])
    one = first.advance(u, 60.0)
    many = np.array([second.advance(u, 0.5) for _ in range(120)])[-1]
    np.testing.assert_allclose(one, many, rtol=2e-5)


@pytest.mark.parametrize("f_a", [1.8, 2.0])
@pytest.mark.parametrize("f_b", [3.0, 6.0])
@pytest.mark.parametrize("t_r", [70.0, 100.0])
def test_every_operating_point_is_reachable_and_stable(f_a: float, f_b: float, t_r: float) -> None:
    model = plant_model()
    reactor = plant(initial_F_A=f_a, initial_F_B=f_b, initial_T_R=t_r)
    y = reactor.reset(0)
    by_name = dict(zip((v.name for v in reactor.outputs), y, strict=True))
    x = np.array([by_name[v.name] for v in model.x])
    u = reactor.initial_inputs
    slopes = np.asarray(jacobian_x(model)(x, u[:2], u[2:], model.p_nominal))
    assert float(np.max(np.linalg.eigvals(slopes).real)) < -1e-3


def test_a_pi_loop_with_rate_limits_holds_the_temperature() -> None:
    reactor = plant()
    y = reactor.reset(0)
    u = reactor.initial_inputs
    integral = u[1]
    for _ in range(3600):
        error = 82.0 - y[0]
        integral = min(max(integral + 3.0 * error * 2.0 / 150.0, 20.0), 180.0)
        u[1] = min(max(integral + 3.0 * error, 20.0), 180.0)
        y = reactor.advance(u, 2.0)
    assert y[0] == pytest.approx(82.0, abs=0.01)


def test_parameters_move_the_plant_and_unknown_ones_are_refused() -> None:
    reactor = plant(k1_factor=0.9)
    assert reactor.parameters["k1_factor"] == 0.9
    before = reactor.reset(0)
    reactor.set_parameter("k1_factor", 1.1)
    after = reactor.advance(reactor.initial_inputs, 600.0)
    assert after[3] < before[3] - 0.002
    with pytest.raises(KeyError, match="no parameter k9"):
        reactor.set_parameter("k9", 1.0)
    with pytest.raises(KeyError, match="k9"):
        plant(k9=1.0)
    with pytest.raises(ValueError, match="jacket"):
        plant(initial_T_R=140.0, UA=5.0)


def test_model_variables_carry_the_units_of_the_configuration() -> None:
    model = two_reaction_model(k1=2.0e8)
    assert dict(zip((v.name for v in model.p), model.p_nominal, strict=True))["k1"] == 2.0e8
    assert [(v.name, v.unit) for v in model.y] == [
        ("T_R", "degC"),
        ("F_B", "kg/s"),
        ("xA", "1"),
        ("xE", "1"),
        ("xP", "1"),
        ("xG", "1"),
    ]
    assert [(v.name, v.unit) for v in (*model.u, *model.d)] == [
        ("F_B_sp", "kg/s"),
        ("T_R_sp", "degC"),
        ("F_A", "kg/s"),
    ]
    with pytest.raises(KeyError, match="k9"):
        two_reaction_model(k9=1.0)


def test_nominal_state_is_the_steady_state_of_the_model() -> None:
    model = two_reaction_model()
    nominal = np.array([v.nominal for v in model.x])
    x = steady_state(model, np.array([4.633, 76.233]), np.array([1.8275]))
    np.testing.assert_allclose(nominal, x, rtol=2e-4)


def test_two_seconds_of_plant_cost_well_under_a_millisecond() -> None:
    reactor = plant()
    reactor.reset(0)
    u = reactor.initial_inputs
    best = math.inf
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(20):
            reactor.advance(u, 2.0)
        best = min(best, (time.perf_counter() - begin) / 20)
    assert best < 200e-6
