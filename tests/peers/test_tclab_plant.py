"""The simulated lab rig is repeatable, needs no wall clock, and resembles its model."""

from __future__ import annotations

import time

import numpy as np
import pytest

from plant_models.integrate import ModelPlant
from plant_models.process import nominal, steady_state
from tests.peers.tclab_plant import AMBIENT, controller_model, plant

pytestmark = pytest.mark.peer


def run(seed: int) -> np.ndarray:
    lab = plant()
    lab.reset(seed)
    return np.array([lab.advance(np.array([60.0, 20.0]), 10.0) for _ in range(60)])


def test_same_seed_same_run_and_another_seed_another_noise() -> None:
    assert np.array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_wall_time_does_not_move_it() -> None:
    lab = plant(q1=50.0)
    started = time.perf_counter()
    lab.advance(np.array([50.0, 0.0]), 1800.0)
    assert time.perf_counter() - started < 5.0
    rest = np.median([lab.advance(np.array([50.0, 0.0]), 0.0) for _ in range(50)], axis=0)
    assert rest[0] > AMBIENT + 20.0


def test_readings_come_in_the_steps_of_the_converter() -> None:
    readings = run(1).ravel()
    assert readings / 0.3223 == pytest.approx(np.round(readings / 0.3223), abs=1e-9)


def test_starts_cold_or_warmed_up() -> None:
    assert plant().reset(0) == pytest.approx([AMBIENT, AMBIENT], abs=0.5)
    warm = plant(q1=40.0, q2=40.0, warm_up_s=2400.0)
    first = warm.reset(0)
    later = warm.advance(np.array([40.0, 40.0]), 600.0)
    assert later == pytest.approx(first, abs=0.5)
    assert first[0] > first[1] > AMBIENT + 10.0


def test_heaters_are_clipped_as_in_the_firmware() -> None:
    lab, full = plant(), plant()
    over = lab.advance(np.array([300.0, -50.0]), 600.0)
    assert over == pytest.approx(full.advance(np.array([100.0, 0.0]), 600.0), abs=1e-9)


def test_model_rests_at_ambient_and_is_like_the_rig_within_a_third() -> None:
    model = controller_model()
    cold = steady_state(model, np.zeros(2))
    assert cold == pytest.approx([AMBIENT] * 4, abs=1e-6)
    u = np.array([50.0, 30.0])
    lab = plant()
    twin = ModelPlant(model, 1.0, x0=nominal(model.x))
    inputs = np.append(u, AMBIENT)
    for _ in range(4):
        rig = lab.advance(u, 300.0)
        ours = twin.advance(inputs, 300.0)
        assert ours - AMBIENT == pytest.approx(rig - AMBIENT, rel=0.34)
