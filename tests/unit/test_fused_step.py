"""The filter's cycle in one evaluation: the same as predict and correct, one after the other."""

from __future__ import annotations

from functools import lru_cache

import casadi as ca
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.estimation.augmented import AugmentedModel, Disturbance, augment, operating_point
from controller.estimation.delayed import DelayedFilter, outputs
from controller.estimation.evaluation import augmented_spans, compiled, linear
from controller.estimation.fused import STATES_MAX, FusedStep, fused_step
from controller.estimation.kalman import Belief, Measurement, correct, predict, surprise
from controller.signal import NS_PER_S
from plant_models import quadruple_tank, van_de_vusse, wood_berry
from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable
from tests.unit.small_application import CYCLE_S, augmented

DT_S = 10.0
AGREE = 1e-9


@lru_cache
def reactor() -> AugmentedModel:
    disturbances = (Disturbance("F", "input", 1.0), Disturbance("cB", "output", 0.1))
    return augment(van_de_vusse.model(), disturbances, DT_S, 40.0)


def noise_of(model: AugmentedModel) -> np.ndarray:
    return np.diag((0.02 * augmented_spans(model)) ** 2)


@lru_cache
def fused_reactor() -> FusedStep:
    found = fused_step(reactor(), None, noise_of(reactor()))
    assert found is not None
    return found


def somewhere(model: AugmentedModel, seed: int) -> tuple[Belief, Vector, Vector]:
    """A belief about the operating point, correlated, and the inputs there."""
    rng = np.random.default_rng(seed)
    x, u, d = operating_point(model.model)
    spans = augmented_spans(model)
    z = np.concatenate([x, np.zeros(model.nw)]) + 0.02 * spans * rng.standard_normal(model.nz)
    root = 0.02 * rng.standard_normal((model.nz, model.nz))
    return Belief(z, spans[:, None] * (root @ root.T) * spans), u, d


def said(model: AugmentedModel, belief: Belief, rows: list[int], seed: int) -> Measurement:
    rng = np.random.default_rng(seed)
    y, _ = compiled(model).observe(belief.z, *operating_point(model.model)[1:])
    spans = np.array([v.span for v in model.model.y])[rows]
    values = y[rows] + 0.01 * spans * rng.standard_normal(len(rows))
    return Measurement(tuple(rows), tuple(values.tolist()), tuple((0.003 * spans).tolist()))


def near(found: Belief, wanted: Belief, spans: Vector) -> None:
    assert found.z / spans == pytest.approx(wanted.z / spans, abs=AGREE)
    scale = spans[:, None] * spans
    assert found.covariance / scale == pytest.approx(wanted.covariance / scale, abs=AGREE)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.lists(st.integers(0, 3), unique=True, max_size=4),
    dt_s=st.floats(1.0, 14.9),
)
def test_one_evaluation_is_predict_and_correct(seed: int, rows: list[int], dt_s: float) -> None:
    model = reactor()
    belief, u, d = somewhere(model, seed)
    measured, spans = said(model, belief, rows, seed), augmented_spans(model)
    found = fused_reactor()(belief, u, d, d, dt_s, measured)
    prior = predict(compiled(model), noise_of(model), belief, u, d, dt_s, DT_S)
    near(found.prior, prior, spans)
    near(found.posterior, correct(compiled(model), prior, u, d, measured), spans)
    # Symmetric to the last bit, for months.
    for part in (found.prior.covariance, found.posterior.covariance):
        assert np.array_equal(part, part.T)


def test_it_shows_what_the_beliefs_show() -> None:
    model = reactor()
    belief, u, d = somewhere(model, 3)
    measured = said(model, belief, [3, 0], 3)
    filter_ = DelayedFilter(model, noise_of(model), DT_S, 600.0)
    state = filter_.advance(filter_.start(0, *_of(belief), u, d), 10 * NS_PER_S, u, d, measured)
    newest = state.moments[-1]
    assert newest.shown is not None
    y, variance = filter_.outputs(newest)
    wanted_y, wanted_variance = outputs(filter_.evaluation, newest)
    assert y == pytest.approx(wanted_y, rel=1e-12)
    assert variance == pytest.approx(wanted_variance, rel=1e-9)
    wanted = surprise(filter_.evaluation, newest.prior, u, d, measured)
    assert filter_.surprise(newest, measured) == pytest.approx(wanted, abs=1e-9)


def _of(belief: Belief) -> tuple[Vector, np.ndarray]:
    return belief.z, belief.covariance


def test_constant_matrices_are_taken_as_they_are() -> None:
    small = augmented()
    constant = linear(small, CYCLE_S)
    fused = fused_step(small, constant, noise_of(small))
    assert fused is not None
    belief, u, d = somewhere(small, 5)
    measured = said(small, belief, [0], 5)
    found = fused(belief, u, d, d, CYCLE_S, measured)
    prior = predict(constant, noise_of(small), belief, u, d, CYCLE_S, CYCLE_S)
    near(found.prior, prior, augmented_spans(small))
    near(found.posterior, correct(constant, prior, u, d, measured), augmented_spans(small))


def test_what_was_measured_before_changes_nothing() -> None:
    belief, u, d = somewhere(reactor(), 7)
    few, all_ = (said(reactor(), belief, rows, 7) for rows in ([2], [0, 1, 2, 3]))
    fused = fused_reactor()
    first = fused(belief, u, d, d, DT_S, few)
    kept = first.posterior.z.copy(), first.posterior.covariance.copy()
    fused(belief, 1.1 * u, d, d, 3.0, all_)
    again = fused(belief, u, d, d, DT_S, few)
    assert np.array_equal(first.posterior.z, kept[0])  # no answer is overwritten by the next
    assert np.array_equal(again.posterior.z, kept[0])
    assert np.array_equal(again.posterior.covariance, kept[1])


def test_a_covariance_that_is_none_shows() -> None:
    belief, u, d = somewhere(reactor(), 9)
    negative = Belief(belief.z, -1e6 * np.eye(reactor().nz))
    found = fused_reactor()(negative, u, d, d, DT_S, said(reactor(), belief, [0], 9))
    assert np.isnan(found.posterior.z).all()


def advanced(measured: Measurement, elapsed_s: float) -> tuple[DelayedFilter, Belief, bool]:
    """Where the filter is after one step, and whether it took the fused one."""
    model = reactor()
    belief, u, d = somewhere(model, 11)
    filter_ = DelayedFilter(model, noise_of(model), DT_S, 600.0)
    begun = filter_.start(0, *_of(belief), u, d)
    newest = filter_.advance(begun, round(elapsed_s * NS_PER_S), u, d, measured).moments[-1]
    prior = predict(filter_.evaluation, noise_of(model), belief, u, d, elapsed_s, DT_S)
    near(
        newest.posterior, correct(filter_.evaluation, prior, u, d, measured), augmented_spans(model)
    )
    return filter_, newest.posterior, newest.shown is not None


def test_two_sensors_on_one_output_and_long_gaps_go_the_long_way() -> None:
    belief, _, _ = somewhere(reactor(), 11)
    once = said(reactor(), belief, [0, 2], 11)
    twice = Measurement((0, 0), (once.values[0], once.values[0] + 0.01), once.sigmas[:1] * 2)
    assert advanced(once, 10.0)[2]
    assert not advanced(twice, 10.0)[2]
    assert not advanced(once, 31.0)[2]


def test_small_explicit_models_only() -> None:
    tank = augment(quadruple_tank.model(), (), DT_S, DT_S)
    assert fused_step(tank, None, noise_of(tank)) is not None
    column = augment(wood_berry.model(), (), 60.0, 60.0)
    assert column.nz > STATES_MAX
    assert fused_step(column, None, noise_of(column)) is None


@lru_cache
def draining_tank() -> AugmentedModel:
    """Level and temperature are measured; of what flows out, a root of the level, nothing is."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 1), ("d", 0), ("p", 0)))
    level, temperature = (Variable(n, "1", 0.0, 100.0, 20.0) for n in ("level", "T"))
    model = ProcessModel(
        "tank", (level, temperature), (Variable("feed", "1", 0.0, 2.0, 1.0),), (),
        (level, temperature, Variable("outflow", "1", 0.0, 10.0, 4.5)), (),
        ca.Function("f", [x, u, d, p], [ca.vertcat(u - 0.05 * x[0], 20.0 - x[1]) / 100.0]),
        ca.Function("h", [x, u, d, p], [ca.vertcat(x, ca.sqrt(x[0]))]),
    )  # fmt: skip
    return augment(model, (), DT_S, DT_S)


@pytest.mark.parametrize("level", [0.0, -0.05])
def test_what_is_not_measured_may_be_no_number(level: float) -> None:
    model, u, d = draining_tank(), np.zeros(1), np.zeros(0)
    noise = np.eye(2)
    belief = Belief(np.array([level, 21.0]), 0.1 * np.eye(2))
    measured = Measurement((0, 1), (0.3, 21.2), (0.1, 0.1))
    fused = fused_step(model, None, noise)
    assert fused is not None
    found = fused(belief, u, d, d, DT_S, measured)
    prior = predict(compiled(model), noise, belief, u, d, DT_S, DT_S)
    near(found.posterior, correct(compiled(model), prior, u, d, measured), np.ones(2))


def test_a_sensor_that_knows_nothing_is_left_out() -> None:
    belief, u, d = somewhere(reactor(), 13)
    one, both = (said(reactor(), belief, rows, 13) for rows in ([2], [2, 0]))
    vague = Measurement(both.outputs, (one.values[0], both.values[1]), (one.sigmas[0], 1e200))
    without = fused_reactor()(belief, u, d, d, DT_S, one)
    found = fused_reactor()(belief, u, d, d, DT_S, vague)
    near(found.posterior, without.posterior, augmented_spans(reactor()))
