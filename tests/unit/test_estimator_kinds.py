"""The kind of estimator: chosen in the file, refused where it does not fit, made by the wiring."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import casadi as ca
import numpy as np
import pytest

from controller import wiring
from controller.errors import ModelError, SettingsError
from controller.estimation.augmented import augment
from controller.estimation.delayed import DelayedFilter, LateResult, Verdict
from controller.estimation.estimator import EstimatorKind, make_estimator
from controller.estimation.evaluation import LinearEvaluation, compiled
from controller.estimation.kalman import Belief, Measurement, correct, innovation, predict
from controller.estimation.moving_horizon import MovingHorizonEstimator
from controller.settings import application, load
from controller.signal import NS_PER_S
from plant_models import van_de_vusse
from plant_models.process import ProcessModel
from plant_models.variable import Variable
from tests.unit.small_application import CYCLE_S, augmented

CSTR = Path(__file__).parents[2] / "config" / "cstr" / "cstr.yaml"
NOISE = np.diag([4.0, 4.0, 400.0, 400.0])


def test_the_file_and_the_package_know_the_same_kinds() -> None:
    assert get_args(application.EstimatorKind) == get_args(EstimatorKind)


def test_by_default_it_is_the_extended_kalman_filter() -> None:
    settings = load(CSTR)
    assert settings.estimator.kind == "ekf"
    made = wiring.estimator(settings)
    assert isinstance(made, DelayedFilter)
    assert made.constant is None


def test_a_moving_horizon_with_its_numbers() -> None:
    chosen = {"estimator.kind": "moving_horizon", "estimator.window": 7, "estimator.iterations": 3}
    made = wiring.estimator(load(CSTR, chosen))
    assert isinstance(made, MovingHorizonEstimator)
    assert (made.window, made.iterations) == (7, 3)
    assert made.memory_s == wiring.estimator(load(CSTR)).memory_s
    plain = wiring.estimator(load(CSTR, {"estimator.kind": "moving_horizon"}))
    assert isinstance(plain, MovingHorizonEstimator)
    assert (plain.window, plain.iterations) == (10, 6)


def test_a_kalman_filter_refuses_a_nonlinear_model_at_its_place_in_the_file() -> None:
    settings = load(CSTR, {"estimator.kind": "kalman"})
    with pytest.raises(SettingsError, match="is not linear") as caught:
        wiring.estimator(settings)
    assert caught.value.where == settings.where("estimator.kind")
    nonlinear = augment(van_de_vusse.model(), (), 10.0, 10.0)
    with pytest.raises(ModelError, match="is not linear"):
        make_estimator("kalman", nonlinear, np.eye(4), 10.0, 10.0, 1, 1)


def test_a_kalman_filter_of_a_linear_model_has_constant_matrices() -> None:
    made = make_estimator("kalman", augmented(), NOISE, CYCLE_S, 100.0, 1, 1)
    assert isinstance(made, DelayedFilter)
    assert isinstance(made.constant, LinearEvaluation)


@pytest.mark.parametrize("key", ["window", "iterations"])
def test_numbers_of_the_moving_horizon_are_refused_elsewhere(key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key} is for kind moving_horizon") as caught:
        load(CSTR, {f"estimator.{key}": 5})
    assert "kind: moving_horizon" in caught.value.mend


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "particle"), ("window", 0), ("window", 201), ("iterations", 0)]
)
def test_nonsense_is_refused(key: str, value: object) -> None:
    with pytest.raises(SettingsError):
        load(CSTR, {"estimator.kind": "moving_horizon", f"estimator.{key}": value})


@pytest.mark.parametrize("kind", get_args(EstimatorKind))
def test_every_kind_tells_outputs_and_innovations(kind: EstimatorKind) -> None:
    made = make_estimator(kind, augmented(), NOISE, CYCLE_S, 300.0, 5, 5)
    u, d = np.full(2, 50.0), np.ones(1)
    state = made.start(0, np.array([50.0, 35.0, 0.0, 0.0]), np.eye(4), u, d)
    probe = Measurement((0, 1), (51.0, 35.0), (0.3, 0.3))
    state = made.advance(state, round(CYCLE_S * NS_PER_S), u, d, probe)
    newest = state.moments[-1]
    y, variance = made.outputs(newest)
    z, p = newest.posterior.z, newest.posterior.covariance
    c = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0.5, 0.5, 0, 0]])
    assert y == pytest.approx(c @ z)
    assert variance == pytest.approx(np.diag(c @ p @ c.T))
    found = made.innovation(newest, probe)
    assert made.surprise(newest, probe).tolist() == found.value.tolist()
    assert found.value == pytest.approx([1.0, 0.0], abs=1e-9)
    s = c[:2] @ newest.prior.covariance @ c[:2].T + 0.09 * np.eye(2)
    assert found.covariance == pytest.approx(s)
    assert found.chi_square == pytest.approx(found.value @ np.linalg.inv(s) @ found.value)


def test_a_correction_about_another_state_is_the_same_on_linear_outputs() -> None:
    made = make_estimator("ekf", augmented(), NOISE, CYCLE_S, 300.0, 5, 5)
    assert isinstance(made, DelayedFilter)
    u, d = np.full(2, 50.0), np.ones(1)
    state = made.start(0, np.array([50.0, 35.0, 0.0, 0.0]), np.eye(4), u, d)
    belief = state.moments[0].posterior
    probe = Measurement((0, 2), (51.0, 43.0), (0.3, 0.2))
    plain = correct(made.evaluation, belief, u, d, probe)
    about = correct(made.evaluation, belief, u, d, probe, about=belief.z + 7.0)
    assert about.z == pytest.approx(plain.z, abs=1e-12)
    assert about.covariance == pytest.approx(plain.covariance, abs=1e-12)
    assert innovation(made.evaluation, plain, u, d, probe).chi_square < 10.0


def test_a_curved_output_is_linearised_where_it_is_told_to() -> None:
    """y = x² linearised about 3 is 9 + 6 (x - 3), whatever is believed of x."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    side = Variable("x", "m", 0.0, 10.0, 1.0)
    model = ProcessModel(
        "square", (side,), (Variable("u", "1", -1.0, 1.0, 0.0),), (),
        (Variable("area", "m2", 0.0, 100.0, 1.0),), (),
        ca.Function("f", [x, u, d, p], [-x]), ca.Function("h", [x, u, d, p], [x**2]),
    )  # fmt: skip
    evaluation = compiled(augment(model, (), 1.0, 1.0))
    belief = Belief(np.array([2.0]), np.array([[0.5]]))
    probe = Measurement((0,), (8.0,), (0.1,))
    after = correct(evaluation, belief, np.zeros(1), np.zeros(0), probe, about=np.array([3.0]))
    gain = 0.5 * 6.0 / (36.0 * 0.5 + 0.01)
    assert after.z[0] == pytest.approx(2.0 + gain * (8.0 - (9.0 + 6.0 * (2.0 - 3.0))))
    assert after.covariance[0, 0] == pytest.approx(0.5 * (1.0 - 6.0 * gain))


def test_over_a_gap_the_noise_grows_cycle_by_cycle() -> None:
    evaluation, u, d = compiled(augmented()), np.full(2, 50.0), np.ones(1)
    once = Belief(np.array([50.0, 35.0, 3.0, -2.0]), np.diag([1.0, 2.0, 3.0, 4.0]))
    gap = predict(evaluation, NOISE, once, u, d, 3 * CYCLE_S, CYCLE_S)
    for _ in range(3):
        once = predict(evaluation, NOISE, once, u, d, CYCLE_S, CYCLE_S)
    assert gap.z == pytest.approx(once.z, abs=1e-12)
    assert gap.covariance == pytest.approx(once.covariance, abs=1e-12)
    assert abs(gap.covariance[0, 2]) > 0.1  # the disturbance's doubt has reached the state


@pytest.mark.parametrize("kind", get_args(EstimatorKind))
def test_a_result_that_leads_out_of_the_numbers_is_not_used(kind: EstimatorKind) -> None:
    made = make_estimator(kind, augmented(), NOISE, CYCLE_S, 300.0, 5, 5)
    u, d = np.full(2, 50.0), np.ones(1)
    state = made.start(0, np.array([50.0, 35.0, 0.0, np.nan]), np.eye(4), u, d)
    measured = Measurement((2,), (42.5,), (0.2,))
    after, fusion = made.fuse(state, LateResult("r", "lab", 0, measured, 0.999))
    assert fusion.verdict is Verdict.UNUSABLE
    assert after is state


def test_a_covariance_that_is_not_positive_gives_no_number() -> None:
    made = make_estimator("ekf", augmented(), NOISE, CYCLE_S, 300.0, 5, 5)
    assert isinstance(made, DelayedFilter)
    u, d = np.full(2, 50.0), np.ones(1)
    state = made.start(0, np.array([50.0, 35.0, 0.0, 0.0]), -np.eye(4), u, d)
    probe = Measurement((0,), (51.0,), (0.3,))
    after = correct(made.evaluation, state.moments[0].posterior, u, d, probe)
    assert np.isnan(after.z).all()
