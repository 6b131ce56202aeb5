"""Radau collocation: published coefficients, order, accuracy, and when it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import casadi as ca
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from controller.mpc import collocation as module
from controller.mpc.collocation import (
    DIFFERENCES,
    POINTS,
    Collocation,
    collocate,
    radau_steps,
    solved_interval,
)
from controller.mpc.stage import Stage
from controller.mpc.transcription import transcribe
from plant_models import van_de_vusse
from plant_models.process import Vector
from tests.unit import small_application as small
from tests.unit.implicit_problems import (
    drained_tank,
    jacketed,
    jacketed_model,
    pendulum,
    resting,
    swinging,
    tank_model,
)


def test_the_coefficients_are_those_of_radau_iia_of_order_5() -> None:
    """Hairer & Wanner (1996), table IV.5.6."""
    root = np.sqrt(6.0)
    published = np.array(
        [
            [(88 - 7 * root) / 360, (296 - 169 * root) / 1800, (-2 + 3 * root) / 225],
            [(296 + 169 * root) / 1800, (88 + 7 * root) / 360, (-2 - 3 * root) / 225],
            [(16 - root) / 36, (16 + root) / 36, 1 / 9],
        ]
    )
    assert np.linalg.inv(DIFFERENCES[:, 1:]) == pytest.approx(published, abs=1e-13)
    assert DIFFERENCES.sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)
    assert published.sum(axis=1) == pytest.approx(POINTS)


def alone(change: ca.SX, x: ca.SX, steps: int) -> Collocation:
    """A collocation of one state; its MV does nothing."""
    u, theta = ca.SX.sym("u"), ca.SX.sym("theta")
    return collocate(ca.Function("rate", [x, u, theta], [change]), ca.SX, steps, 1)


def end(collocation: Collocation, begin: float) -> float:
    return float(solved_interval(collocation)([begin, 0.0], 0.0, 0.0)[0])


@pytest.mark.parametrize("z", [-1e6, -50.0, -12.0, -3.0, -0.5, 0.5])
def test_a_single_mode_follows_the_stability_function(z: float) -> None:
    x = ca.SX.sym("x")
    wanted = (1 + 2 * z / 5 + z**2 / 20) / (1 - 3 * z / 5 + 3 * z**2 / 20 - z**3 / 60)
    assert end(alone(z * x, x, 1), 1.0) == pytest.approx(wanted, abs=1e-9)
    assert abs(wanted - np.exp(z)) <= module.MODE_ERROR


def test_the_error_falls_with_the_fifth_power_of_the_step() -> None:
    x = ca.SX.sym("x")
    exact = 1.0 / (1.0 + np.exp(-1.5) * 4.0)  # logistic growth from 1/5
    errors = [abs(end(alone(1.5 * x * (1 - x), x, n), 0.2) - exact) for n in (1, 2)]
    assert errors[0] < 2e-4
    assert np.log2(errors[0] / errors[1]) == pytest.approx(5.0, abs=0.5)


def test_where_there_is_no_end_it_is_not_a_number() -> None:
    """dx/dt = 10 (1 + x^2) is infinite long before the interval ends."""
    x = ca.SX.sym("x")
    assert np.isnan(end(alone(10.0 * (1.0 + x**2), x, 1), 0.0))


@pytest.mark.parametrize("moves", [(0.05, 0.0), (0.0, -0.04), (-0.1, 0.05)])
def test_a_stiff_interval_ends_where_an_integrator_arrives(moves: tuple[float, float]) -> None:
    stage, model = jacketed(), jacketed_model()
    assert stage.collocation is not None
    start = resting(stage)
    u = start.u_now + np.array(moves) * stage.u_scale

    def change(_: float, x: Vector) -> Vector:
        return np.asarray(model.f(x, u, [], []), dtype=np.float64).ravel()

    arrived = solve_ivp(
        change,
        (0.0, stage.horizon.step_s),
        start.x,
        method="Radau",
        rtol=1e-9,
        atol=1e-9,
    ).y[:, -1]
    begin = (start.x - stage.x_offset) / stage.x_scale
    now = (start.u_now - stage.u_offset) / stage.u_scale
    theta = np.concatenate([start.u_now, np.ones(2)])
    reached = np.asarray(stage.interval(np.concatenate([begin, now]), moves, theta)).ravel()
    error = np.abs(reached[:4] - (arrived - stage.x_offset) / stage.x_scale)
    assert error[:2].max() < 1e-4
    # What is left of transients that are over within a twentieth of the interval.
    assert error[2:].max() < 0.01
    assert reached[4:] == pytest.approx(now + np.array(moves))


def test_radau_is_used_where_it_pays() -> None:
    slow = van_de_vusse.model()
    assert radau_steps(slow, 20.0) == 0
    assert radau_steps(jacketed_model(), 10.0) == 1
    assert radau_steps(tank_model(), 10.0) == 1
    # The same two tanks, however long the interval: linear models are condensed beforehand.
    assert radau_steps(small.two_tanks(), 1e5) == 0
    assert radau_steps(replace(slow, dt_s=1.0), 100.0) == 0
    # A swing must be followed, not damped away: more steps for more of its periods.
    steps = [radau_steps(pendulum(), seconds) for seconds in (12.0, 30.0)]
    assert 1 < steps[0] < steps[1] <= module.STEPS_MAX


def test_what_is_implicit_says_so() -> None:
    assert str(jacketed()).endswith("6 intervals of 10 s, 1 Radau steps each")
    assert str(small.stage()).endswith("12 intervals of 30 s")
    assert (jacketed().symbol, drained_tank().symbol, small.stage().symbol) == (
        ca.MX,
        ca.MX,
        ca.SX,
    )


@pytest.mark.parametrize("made", [jacketed, swinging, drained_tank])
def test_the_program_begins_on_straight_lines(made: Callable[[], Stage]) -> None:
    stage = made()
    program, collocation = transcribe(stage), stage.collocation
    assert collocation is not None
    n, nx = stage.horizon.intervals, stage.augmented.nx
    assert len(program.inner) == n
    s = np.linspace(0.0, 1.0, n + 1)[:, None] * np.ones(stage.ns)
    x = program.variables(s, np.zeros((n, len(stage.mvs))))
    inner = np.array([x[part] for part in program.inner]).reshape(n, -1, nx)
    steps = np.arange(n * collocation.steps).reshape(n, -1)[:, :, None] + np.array(POINTS)
    assert inner[:, :, 0] * n * collocation.steps == pytest.approx(steps.reshape(n, -1))
    assert program.trajectory(x)[0] == pytest.approx(s)
