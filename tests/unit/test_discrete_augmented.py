"""Discrete models in estimator and controller: samples counted, integrators told apart."""

from __future__ import annotations

import numpy as np
import pytest
from test_linear_models import DT_S, LEVEL, D, U, V, Y, matrix_model, single

from controller.errors import ModelError
from controller.estimation.augmented import (
    Disturbance,
    augment,
    fastest_rate,
    operating_point,
    require_detectable,
    substeps,
)
from plant_models.process import jacobian_x, nominal
from plant_models.state_space import discretized, matrices, state_space
from plant_models.step_response import step_response
from plant_models.transfer_function import FOPDT, Integrator, transfer_matrix

ON_INPUTS = (Disturbance("valve", "input", 1.0), Disturbance("steam", "input", 1.0))


def test_a_cycle_and_an_interval_are_whole_samples() -> None:
    model = matrix_model()
    assert [substeps(model, t) for t in (30.0, 90.0, 3000.0)] == [1, 3, 100]
    for dt_s, flow_dt_s, told in (
        (45.0, 90.0, "a cycle of 45 s .* of 30 s of model matrix"),
        (60.0, 100.0, "an MPC step of 100 s .* of 30 s of model matrix"),
        (10.0, 30.0, "a cycle of 10 s"),
    ):
        with pytest.raises(ModelError, match=told):
            augment(model, (), dt_s, flow_dt_s)


def test_advance_and_flow_take_their_samples() -> None:
    model = matrix_model()
    augmented = augment(model, ON_INPUTS, 2 * DT_S, 5 * DT_S)
    m, rng = matrices(model), np.random.default_rng(1)
    x = nominal(model.x) + rng.normal(size=len(model.x))
    u, d, w = np.array([50.0, 3.0]), np.array([4.0]), np.array([2.0, -1.0])
    expected, reached = x, []
    for _ in range(5):
        expected = m.x_0 + m.a @ (expected - m.x_0) + m.b @ (u + w - m.u_0) + m.bd @ (d - m.d_0)
        reached.append(expected)
    z, slope = (np.asarray(v) for v in augmented.advance(np.concatenate([x, w]), u, d, 2 * DT_S))
    assert z.ravel() == pytest.approx(np.concatenate([reached[1], w]), abs=1e-10)
    assert slope[: len(x), : len(x)] == pytest.approx(m.a @ m.a, abs=1e-12)
    flown = np.asarray(augmented.flow(x, u, d, w, 5 * DT_S)).ravel()
    assert flown == pytest.approx(reached[4], abs=1e-10)
    rate = np.asarray(augmented.derivative(x, u, d, w)).ravel()
    assert rate == pytest.approx((reached[0] - x) / DT_S, abs=1e-12)


def test_an_unknown_may_add_to_a_measured_disturbance() -> None:
    """An unmeasured part of the feed fills the level as the measured part does."""
    model = matrix_model()
    unknown = (Disturbance("valve", "input", 1.0), Disturbance("feed", "input", 1.0))
    augmented = augment(model, unknown, DT_S, DT_S)
    x, u = nominal(model.x), nominal(model.u)
    moved = augmented.flow(x, u, [5.0], [0.0, 0.7], DT_S)
    assert np.asarray(moved) == pytest.approx(np.asarray(model.f(x, u, [5.7], [])), abs=1e-12)
    require_detectable(augmented, ("T", "level"))
    with pytest.raises(ModelError, match="has the inputs valve, steam, feed"):
        augment(model, (Disturbance("T", "input", 1.0),), DT_S, DT_S)


def test_a_sampled_model_estimates_like_the_continuous_one() -> None:
    continuous = state_space(
        "lag", states=(Y,), inputs=(U,), outputs=(Y,), a=[[-0.01]], b=[[0.02]], c=[[1.0]]
    )
    unknown = (Disturbance("valve", "input", 1.0),)
    fine = augment(continuous, unknown, 10.0, 30.0)
    exact = augment(discretized(continuous, 5.0), unknown, 10.0, 30.0)
    for a, b in zip(
        fine.advance([90.0, 3.0], [50.0], [], 10.0),
        exact.advance([90.0, 3.0], [50.0], [], 10.0),
        strict=True,
    ):
        assert np.asarray(a) == pytest.approx(np.asarray(b), abs=1e-5)
    assert fastest_rate(exact.model) == pytest.approx(0.2)
    slope = float(jacobian_x(exact.model)([80.0], [40.0], [], []))
    assert slope == pytest.approx((np.exp(-0.05) - 1) / 5.0, abs=1e-12)


def test_an_integrating_output_is_told_apart_by_an_input_disturbance_only() -> None:
    model = matrix_model()
    require_detectable(augment(model, ON_INPUTS, DT_S, DT_S), ("T", "level"))
    mixed = (Disturbance("T", "output", 1.0), Disturbance("valve", "input", 1.0))
    require_detectable(augment(model, mixed, DT_S, DT_S), ("T", "level"))
    wrong = (Disturbance("T", "output", 1.0), Disturbance("level", "output", 1.0))
    with pytest.raises(ModelError, match="level integral, output disturbance on level") as caught:
        require_detectable(augment(model, wrong, DT_S, DT_S), ("T", "level"))
    assert "on an input" in caught.value.mend
    with pytest.raises(ModelError, match="cannot tell apart"):
        require_detectable(augment(model, ON_INPUTS, DT_S, DT_S), ("T",))


@pytest.mark.parametrize("tolerance", [None, 0.01])
def test_step_response_models_are_estimated_too(tolerance: float | None) -> None:
    k = np.arange(1, 31)
    responses = {
        ("T", "valve"): 1 - np.exp(-k / 5.0),
        ("T", "steam"): 2 - 2 * np.exp(-k / 9.0),
        ("level", "steam"): 0.01 * k,
    }
    model = step_response(
        "dmc", (U, V), (Y, LEVEL), responses, DT_S, integrating=("level",), tolerance=tolerance
    )
    require_detectable(augment(model, ON_INPUTS, DT_S, DT_S), ("T", "level"))
    wrong = (Disturbance("level", "output", 1.0),)
    with pytest.raises(ModelError, match="output disturbance on level"):
        require_detectable(augment(model, wrong, DT_S, DT_S), ("T", "level"))


def test_beside_an_integrator_everything_else_comes_to_rest() -> None:
    model = transfer_matrix(
        "tower", (U,), (D,), (Y, LEVEL),
        {
            ("T", "valve"): FOPDT(2.0, 100.0, 90.0),
            ("T", "feed"): FOPDT(1.0, 10.0),
            ("level", "valve"): Integrator(0.01, 60.0),
        },
        DT_S,
    )  # fmt: skip
    x, u, d = operating_point(model, np.array([45.0]), np.array([5.0]))
    by_name = dict(zip([v.name for v in model.x], x, strict=True))
    assert by_name["T<-valve"] == pytest.approx(10.0)
    assert by_name["T<-feed"] == pytest.approx(0.0, abs=1e-9)
    assert [by_name[f"valve delay {k}"] for k in (1, 2, 3)] == pytest.approx([45.0] * 3)
    assert by_name["level integral"] == pytest.approx(0.0, abs=1e-9)
    moved = np.asarray(model.f(x, u, d, [])).ravel() - x
    assert np.abs(np.delete(moved, [v.name for v in model.x].index("level integral"))).max() < 1e-9


def test_a_stable_model_keeps_its_true_steady_state() -> None:
    x, _, _ = operating_point(single(FOPDT(2.0, 100.0, 60.0)), np.array([45.0]))
    assert x == pytest.approx([10.0, 45.0, 45.0])
