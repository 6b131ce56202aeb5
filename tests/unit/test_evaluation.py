"""The augmented model in numbers: the same as CasADi says, pure, and refused where not linear."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest

from controller.errors import ModelError
from controller.estimation.augmented import AugmentedModel, Disturbance, augment, operating_point
from controller.estimation.delayed import DelayedFilter
from controller.estimation.evaluation import augmented_spans, compiled, linear
from controller.estimation.kalman import Measurement
from controller.signal import NS_PER_S
from plant_models import van_de_vusse
from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable
from tests.unit.small_application import CYCLE_S, augmented


@pytest.fixture(scope="module")
def reactor() -> AugmentedModel:
    disturbances = (Disturbance("F", "input", 1.0), Disturbance("cB", "output", 0.1))
    return augment(van_de_vusse.model(), disturbances, 10.0, 40.0)


def point(model: AugmentedModel) -> tuple[Vector, Vector, Vector]:
    x, u, d = operating_point(model.model)
    return np.concatenate([x, 0.01 * augmented_spans(model)[model.nx :]]), u, d


def plain(function: ca.Function, *arguments: object) -> list[np.ndarray]:
    return [np.asarray(m, dtype=np.float64) for m in function(*arguments)]


def test_the_buffers_say_what_casadi_says(reactor: AugmentedModel) -> None:
    z, u, d = point(reactor)
    evaluation = compiled(reactor)
    z_next, a = evaluation.advance(z, u, d, 10.0)
    y, c = evaluation.observe(z, u, d)
    for found, wanted in zip((z_next, a), plain(reactor.advance, z, u, d, 10.0), strict=True):
        assert found == pytest.approx(np.squeeze(wanted), abs=1e-12)
    for found, wanted in zip((y, c), plain(reactor.observe, z, u, d), strict=True):
        assert found == pytest.approx(np.squeeze(wanted), abs=1e-12)
    # Rows and columns are not mixed up: input disturbance and temperature act one way only.
    assert a.shape == (reactor.nz, reactor.nz)
    assert not np.allclose(a, a.T)


def test_an_answer_is_not_changed_by_the_next_question(reactor: AugmentedModel) -> None:
    z, u, d = point(reactor)
    evaluation = compiled(reactor)
    first, slope = evaluation.advance(z, u, d, 10.0)
    kept = first.copy(), slope.copy()
    evaluation.advance(1.1 * z, u, d, 3.0)
    assert np.array_equal(first, kept[0])
    assert np.array_equal(slope, kept[1])
    again, _ = evaluation.advance(z, u, d, 10.0)
    assert np.array_equal(again, kept[0])


def test_functions_of_matrix_symbols_are_taken_too() -> None:
    """Models with an implicit equation come as MX functions."""
    small = augmented()
    z, u, d, dt = ca.MX.sym("z", 4), ca.MX.sym("u", 2), ca.MX.sym("d", 1), ca.MX.sym("dt")
    advance = ca.Function("advance", [z, u, d, dt], small.advance(z, u, d, dt))
    again = AugmentedModel(
        **{
            name: getattr(small, name)
            for name in AugmentedModel.__dataclass_fields__
            if name != "advance"
        },
        advance=advance,
    )
    at = np.array([50.0, 35.0, 1.0, -1.0]), np.full(2, 50.0), np.ones(1), CYCLE_S
    for found, wanted in zip(
        compiled(again).advance(*at), compiled(small).advance(*at), strict=True
    ):
        assert found == pytest.approx(wanted, abs=1e-12)


def test_a_linear_model_becomes_constant_matrices() -> None:
    model = augmented()
    found, exact = linear(model, CYCLE_S), compiled(model)
    chance = np.random.default_rng(4)
    for _ in range(5):
        z, u = 50.0 * chance.standard_normal(4), 50.0 * chance.standard_normal(2)
        d = chance.standard_normal(1)
        for constant, true in zip(
            (*found.advance(z, u, d, CYCLE_S), *found.observe(z, u, d)),
            (*exact.advance(z, u, d, CYCLE_S), *exact.observe(z, u, d)),
            strict=True,
        ):
            assert constant == pytest.approx(true, abs=1e-9)
    assert found.advance(z, u, d, CYCLE_S)[1] is found.advance(0 * z, u, d, 1.005 * CYCLE_S)[1]


def test_a_cycle_of_another_length_is_not_taken_for_the_usual_one() -> None:
    model = augmented()
    found, exact = linear(model, CYCLE_S), compiled(model)
    z, u, d = np.array([50.0, 35.0, 3.0, 1.0]), np.full(2, 50.0), np.ones(1)
    for dt_s in (0.9 * CYCLE_S, 1.4 * CYCLE_S):
        assert found.advance(z, u, d, dt_s)[0] == pytest.approx(exact.advance(z, u, d, dt_s)[0])


def test_a_model_that_is_not_linear_is_refused_by_name(reactor: AugmentedModel) -> None:
    with pytest.raises(
        ModelError, match=r"is not linear: the effect of .* on .* changes"
    ) as caught:
        linear(reactor, 10.0)
    assert "moving_horizon" in caught.value.mend


def test_a_product_of_an_input_and_a_measured_disturbance_is_not_linear() -> None:
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 1), ("p", 0)))
    level = Variable("level", "m", 0.0, 10.0, 5.0)
    model = ProcessModel(
        "valve",
        (level,),
        (Variable("opening", "1", 0.0, 1.0, 0.5),),
        (Variable("pressure", "bar", 0.0, 4.0, 2.0),),
        (level,),
        (),
        ca.Function("f", [x, u, d, p], [0.1 * u * d - 0.1 * x]),
        ca.Function("h", [x, u, d, p], [x]),
    )
    with pytest.raises(ModelError, match=r"opening on level|pressure on level"):
        linear(augment(model, (), 1.0, 1.0), 1.0)


def test_with_constant_matrices_no_function_is_called() -> None:
    class Forbidden:
        def advance(self, *_: object) -> tuple[Vector, np.ndarray]:
            raise AssertionError("CasADi in the cycle")

        observe = advance

    constant = linear(augmented(), CYCLE_S)
    parts = {name: getattr(constant, name) for name in type(constant).__dataclass_fields__}
    constant = type(constant)(**(parts | {"exact": Forbidden()}))
    noise = np.diag([4.0, 4.0, 400.0, 400.0])
    filter_ = DelayedFilter(augmented(), noise, CYCLE_S, 600.0, constant)
    u, d = np.full(2, 50.0), np.ones(1)
    state = filter_.start(0, np.array([50.0, 35.0, 0.0, 0.0]), np.eye(4), u, d)
    for cycle in range(1, 5):
        now_ns = round((cycle * CYCLE_S + 0.02) * NS_PER_S)  # a little late
        state = filter_.advance(state, now_ns, u, d, Measurement((0,), (50.0,), (1.0,)))
    assert filter_.outputs(state.moments[-1])[0] == pytest.approx([50.0, 35.0, 42.5], abs=1e-6)
