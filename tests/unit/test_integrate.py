"""The integrator has order 4, agrees with an independent one, and repeats itself bit for bit."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from plant_models import quadruple_tank, van_de_vusse
from plant_models.actuator import ActuatedPlant
from plant_models.integrate import ModelPlant, rk4
from plant_models.process import ProcessModel, Vector, nominal
from plant_models.variable import Variable


def reference(model: ProcessModel, x0: Vector, u: Vector, d: Vector, time_s: float) -> Vector:
    solution = solve_ivp(
        lambda _, x: np.asarray(model.f(x, u, d, model.p_nominal)).ravel(),
        (0.0, time_s),
        x0,
        method="DOP853",
        rtol=1e-13,
        atol=1e-13,
    )
    return solution.y[:, -1]


def discrete_model() -> ProcessModel:
    x, u, d, p = ca.SX.sym("x"), ca.SX.sym("u"), ca.SX.sym("d", 0), ca.SX.sym("p", 0)
    f = ca.Function("f", [x, u, d, p], [0.9 * x + u])
    h = ca.Function("h", [x, u, d, p], [x])
    v = Variable("x", "1", -10.0, 10.0, 0.0)
    return ProcessModel("discrete lag", (v,), (v,), (), (v,), (), f, h, dt_s=1.0)


def test_rk4_has_order_four() -> None:
    model = van_de_vusse.model()
    x0 = nominal(model.x) + np.array([0.5, -0.2, 4.0, -3.0])
    u, d = np.array([20.0, -3000.0]), nominal(model.d)
    exact = reference(model, x0, u, d, 120.0)
    steps = (16, 32, 64)
    errors = [
        float(
            np.max(
                np.abs(np.asarray(rk4(model, 120.0, n)(x0, u, d, model.p_nominal)).ravel() - exact)
            )
        )
        for n in steps
    ]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert orders == pytest.approx([4.0, 4.0], abs=0.25)
    assert errors[-1] < 1e-7


@pytest.mark.parametrize("module", [van_de_vusse, quadruple_tank])
def test_plant_follows_an_independent_integrator(module) -> None:
    plant = module.plant()
    plant.reset(0)
    model = plant.model
    u = nominal(model.u) * 1.1
    inputs = np.concatenate([u, nominal(model.d)])
    exact = reference(model, plant.x, u, nominal(model.d), 300.0)
    for _ in range(30):
        plant.advance(inputs, 10.0)
    assert plant.x == pytest.approx(exact, abs=1e-6)


def test_the_step_is_cut_to_the_longest_allowed_one() -> None:
    model = van_de_vusse.model()
    plant = ModelPlant(model, 5.0)
    inputs = np.concatenate([nominal(model.u) * 1.1, nominal(model.d)])
    start = plant.x
    plant.advance(inputs, 30.0)
    six_steps = rk4(model, 30.0, 6)(start, inputs[:2], inputs[2:], model.p_nominal)
    assert plant.x == pytest.approx(np.asarray(six_steps).ravel(), rel=1e-14)


def test_inputs_are_manipulated_then_measured_disturbances() -> None:
    plant = van_de_vusse.plant()
    assert [v.name for v in plant.inputs] == ["F", "Q", "cA0", "T0"]
    assert [v.name for v in plant.outputs] == ["cA", "cB", "T", "TK"]


def test_plant_rests_at_its_steady_state_and_repeats_bit_for_bit() -> None:
    plant = van_de_vusse.plant()
    rest = plant.reset(7)
    inputs = nominal(plant.inputs)
    assert plant.advance(inputs, 600.0) == pytest.approx(rest, rel=1e-9)
    inputs[0] = 18.0
    first = [plant.advance(inputs, 20.0) for _ in range(5)]
    plant.reset(7)
    plant.advance(nominal(plant.inputs), 600.0)
    second = [plant.advance(inputs, 20.0) for _ in range(5)]
    assert np.array_equal(first, second)


def test_no_time_changes_nothing_and_returned_arrays_are_ours() -> None:
    plant = van_de_vusse.plant()
    y = plant.reset(0)
    y[:] = 0.0
    assert np.array_equal(plant.advance(nominal(plant.inputs), 0.0), plant.x)
    assert plant.x[0] > 2.0


def test_parameters_make_the_plant_differ_from_the_model() -> None:
    fouled = ModelPlant(van_de_vusse.model(), 5.0, parameters={"kw": 3000.0})
    clean = ModelPlant(van_de_vusse.model(), 5.0)
    assert fouled.x[3] < clean.x[3] - 0.1  # less area, so a colder coolant for the same heat
    with pytest.raises(KeyError, match="no parameter kv"):
        ModelPlant(van_de_vusse.model(), 5.0, parameters={"kv": 1.0})


def test_initial_state_can_be_given() -> None:
    x0 = np.array([2.0, 1.0, 110.0, 109.0])
    plant = ModelPlant(van_de_vusse.model(), 5.0, x0=x0)
    plant.advance(nominal(plant.inputs), 60.0)
    assert np.array_equal(plant.reset(0), x0)
    with pytest.raises(ValueError, match=r"x0 must have shape \(4,\)"):
        ModelPlant(van_de_vusse.model(), 5.0, x0=x0[:2])


def test_programmer_errors_are_refused() -> None:
    plant = van_de_vusse.plant()
    with pytest.raises(ValueError, match="takes 4 inputs"):
        plant.advance(np.zeros(2), 1.0)
    with pytest.raises(ValueError, match="run backwards"):
        plant.advance(nominal(plant.inputs), -1.0)
    with pytest.raises(ValueError, match="not positive"):
        ModelPlant(van_de_vusse.model(), 0.0)
    with pytest.raises(ValueError, match="is not a step"):
        rk4(van_de_vusse.model(), 1.0, 0)
    with pytest.raises(ValueError, match="discrete"):
        rk4(discrete_model(), 1.0)


def test_a_state_that_explodes_is_an_error_and_not_a_reading() -> None:
    plant = van_de_vusse.plant()
    inputs = nominal(plant.inputs)
    inputs[0] = np.nan
    with pytest.raises(ArithmeticError, match="left the finite numbers"):
        plant.advance(inputs, 10.0)
    assert np.all(np.isfinite(plant.reset(0)))


class InArrays:
    """A plant that knows no plain numbers: another maker's, say."""

    def __init__(self) -> None:
        self._plant = van_de_vusse.plant()
        self.inputs, self.outputs = self._plant.inputs, self._plant.outputs

    def reset(self, seed: int) -> Vector:
        return self._plant.reset(seed)

    def advance(self, u: Vector, dt_s: float) -> Vector:
        return self._plant.advance(u, dt_s)


def test_plain_numbers_and_arrays_are_the_same_plant() -> None:
    plain, arrays = (ActuatedPlant(p, {"F": 8.0}) for p in (van_de_vusse.plant(), InArrays()))
    inputs = nominal(plain.inputs) * 1.05
    found: list[float] = []
    for _ in range(20):
        found = plain.advance_plain(inputs.tolist(), 3.0)
        assert found == arrays.advance(inputs, 3.0).tolist()
    assert len(found) == len(plain.outputs)
