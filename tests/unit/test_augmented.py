"""The model with integrating disturbances: dynamics, Jacobians, and what can be told apart."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest

from controller.errors import ModelError
from controller.estimation.augmented import (
    Disturbance,
    augment,
    fastest_rate,
    operating_point,
    require_detectable,
    substeps,
)
from plant_models.process import ProcessModel
from plant_models.variable import Variable
from tests.unit.small_application import GAIN, TIME_CONSTANTS_S, augmented, two_tanks

Z = np.array([52.0, 33.0, 4.0, -3.0])
U = np.array([40.0, 60.0])
D = np.array([1.1])


def exact(seconds: float) -> np.ndarray:
    rest = GAIN @ (U + Z[2:]) - 5.0 * (D[0] - 1.0)
    return rest + (Z[:2] - rest) * np.exp(-seconds / np.array(TIME_CONSTANTS_S))


def test_advance_is_the_exact_solution_to_the_error_of_one_step() -> None:
    z, _ = augmented().advance(Z, U, D, 10.0)
    assert np.asarray(z).ravel()[:2] == pytest.approx(exact(10.0), abs=1e-4)
    assert np.asarray(z).ravel()[2:] == pytest.approx(Z[2:])


def test_flow_of_the_controller_agrees_with_the_estimator() -> None:
    flown = np.asarray(augmented().flow(Z[:2], U, D, Z[2:], 30.0)).ravel()
    assert flown == pytest.approx(exact(30.0), abs=2e-2)


def test_the_jacobians_are_those_of_finite_differences() -> None:
    model = augmented()
    _, a = (np.asarray(m) for m in model.advance(Z, U, D, 10.0))
    _, c = (np.asarray(m) for m in model.observe(Z, U, D))
    for column in range(4):
        ahead, behind = Z.copy(), Z.copy()
        ahead[column] += 1e-4
        behind[column] -= 1e-4
        for matrix, function in (
            (a, lambda z: model.advance(z, U, D, 10.0)[0]),
            (c, lambda z: model.observe(z, U, D)[0]),
        ):
            slope = (np.asarray(function(ahead)) - np.asarray(function(behind))) / 2e-4
            assert matrix[:, column] == pytest.approx(slope.ravel(), abs=1e-6)


def test_an_output_disturbance_adds_to_its_output_alone() -> None:
    model = augment(two_tanks(), (Disturbance("T2", "output", 1.0),), 10.0, 30.0)
    y = np.asarray(model.output([50.0, 35.0], U, D, [2.5])).ravel()
    assert y == pytest.approx([50.0, 37.5, 42.5])


def test_a_state_disturbance_drives_its_state_by_its_amount_per_hour() -> None:
    drift = 36.0  # degC per hour on T1
    model = augment(two_tanks(), (Disturbance("T1", "state", 1.0),), 10.0, 30.0)
    z = np.array([52.0, 33.0, drift])
    without, _ = model.advance(np.array([52.0, 33.0, 0.0]), U, D, 10.0)
    driven, slope = model.advance(z, U, D, 10.0)
    moved = np.asarray(driven - without).ravel()
    tau = TIME_CONSTANTS_S[0]
    assert moved[0] == pytest.approx(drift / 3600.0 * tau * (1.0 - np.exp(-10.0 / tau)), rel=1e-5)
    assert moved[1:].tolist() == [0.0, drift]
    assert np.asarray(slope)[0, 2] * drift == pytest.approx(moved[0], rel=1e-9)
    assert float(model.derivative(z[:2], U, D, z[2:])[0]) == pytest.approx(
        float(model.derivative(z[:2], U, D, np.zeros(1))[0]) + drift / 3600.0
    )
    require_detectable(model, ("T1", "T2"))


@pytest.mark.parametrize("disturbance", [
    Disturbance("T1", "input", 1.0), Disturbance("Q1", "output", 1.0),
    Disturbance("Q9", "input", 1.0),
])  # fmt: skip
def test_a_disturbance_on_what_does_not_exist(disturbance: Disturbance) -> None:
    with pytest.raises(ModelError, match=disturbance.on):
        augment(two_tanks(), (disturbance,), 10.0, 30.0)


def test_substeps_follow_the_fastest_mode() -> None:
    assert fastest_rate(two_tanks()) == pytest.approx(1 / 60)
    assert [substeps(two_tanks(), t) for t in (1.0, 90.0, 91.0, 900.0)] == [1, 1, 2, 10]


def test_the_operating_point_is_steady() -> None:
    x, u, d = operating_point(two_tanks(), U, D)
    assert x == pytest.approx(GAIN @ U - 0.5)
    assert (u is U, d is D) == (True, True)


def integrator() -> ProcessModel:
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    level = Variable("level", "m", 0.0, 2.0, 1.0)
    return ProcessModel(
        "level", (level,), (Variable("flow", "m3/s", -1.0, 1.0, 0.0),), (), (level,), (),
        ca.Function("f", [x, u, d, p], [u / 100]), ca.Function("h", [x, u, d, p], [x]),
    )  # fmt: skip


def test_an_integrator_starts_at_its_nominal_point() -> None:
    assert operating_point(integrator())[0] == pytest.approx([1.0])


def test_as_many_disturbances_as_measurements_are_told_apart() -> None:
    require_detectable(augmented(), ("T1", "T2"))
    require_detectable(
        augment(integrator(), (Disturbance("flow", "input", 1.0),), 10.0, 30.0), ("level",)
    )


@pytest.mark.parametrize(
    ("disturbances", "measured", "culprit"),
    [
        ((("Q1", "input"), ("Q2", "input")), ("T1",), "input disturbance on Q"),
        ((("T1", "output"), ("Q1", "input")), ("T1",), "output disturbance on T1"),
        ((("mean", "output"),), ("T1", "T2"), "output disturbance on mean"),
    ],
)
def test_what_cannot_be_told_apart_is_named(
    disturbances: tuple[tuple[str, str], ...], measured: tuple[str, ...], culprit: str
) -> None:
    unknown = tuple(Disturbance(on, kind, 1.0) for on, kind in disturbances)  # type: ignore[arg-type]
    model = augment(two_tanks(), unknown, 10.0, 30.0)
    with pytest.raises(ModelError, match=culprit):
        require_detectable(model, measured)


def test_an_output_disturbance_cannot_be_told_from_an_integrating_state() -> None:
    model = augment(integrator(), (Disturbance("level", "output", 1.0),), 10.0, 30.0)
    with pytest.raises(ModelError, match="cannot tell apart"):
        require_detectable(model, ("level",))
