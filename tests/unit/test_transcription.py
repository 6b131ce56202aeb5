"""The problem as numbers and as a program: sizes, dynamics, bounds, units."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from controller.mpc.instance import Instance, Instances
from controller.mpc.problem import Horizon, Situation
from controller.mpc.stage import make_stage
from controller.mpc.transcription import transcribe
from tests.unit.small_application import (
    CVS,
    HORIZON,
    MVS,
    augmented,
    situation,
    stage,
    target,
    transcription,
)

N = HORIZON.intervals


def instance(here: Situation) -> Instance:
    return Instances(stage())(here, target()(here))


def resting(here: Situation) -> np.ndarray:
    """The variables of staying where we are."""
    s = np.tile(instance(here).s0, (N + 1, 1))
    return transcription().variables(s, np.zeros((N, 2)))


def constraints(here: Situation, x: np.ndarray) -> np.ndarray:
    t = transcription()
    nothing = np.zeros(t.nlp["g"].numel()), np.zeros(t.nlp["x"].numel())
    return np.asarray(t.check(x, t.parameters(instance(here)), *nothing)[1]).ravel()


def test_its_size() -> None:
    t = transcription()
    # States, moves, a slack per CV and node, and the one behind the last node.
    assert t.nlp["x"].numel() == (N + 1) * 4 + N * 2 + N * 2 + 1
    assert "12 intervals of 30 s" in str(t)


def test_bounds_and_parameters_fit_the_program() -> None:
    t, here = transcription(), instance(situation())
    lbx, ubx, lbg, ubg = t.bounds(here)
    assert lbx.size == ubx.size == t.nlp["x"].numel()
    assert lbg.size == ubg.size == t.nlp["g"].numel()
    assert np.all(lbx <= ubx)
    assert np.all(lbg <= ubg)
    # The dynamics, where it begins, and the node behind the last one.
    assert np.sum(lbg == ubg) == (N + 1) * 4 + 1
    assert t.parameters(here).size == t.nlp["p"].numel()


def test_the_rate_counts_a_cycle_first_and_an_interval_later() -> None:
    made = instance(situation())
    assert made.v_high[0] == pytest.approx([0.05, 0.05])  # 0.5 %/s for 10 s, of a span of 100 %
    assert made.v_high[1:] == pytest.approx(np.full((N - 1, 2), 0.15))
    assert np.all(made.v_low == -made.v_high)


def test_a_saturated_output_blocks_its_direction() -> None:
    made = instance(situation(blocked_up=np.array([1.0, 0.0]), blocked_down=np.array([0.0, 1.0])))
    assert np.all(made.v_high[:, 0] == 0.0)
    assert np.all(made.v_low[:, 1] == 0.0)
    assert np.all(made.v_low[:, 0] < 0.0)
    assert np.all(made.v_high[:, 1] > 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"blocked_up": np.array([1.0, 0.0]), "blocked_down": np.array([1.0, 0.0])},
        {"free": np.array([0.0, 1.0])},
        {"mv_low": np.array([50.0, 0.0]), "mv_high": np.array([50.0, 100.0])},
    ],
)
def test_an_mv_without_room_is_told_to_stay(change: dict[str, np.ndarray]) -> None:
    made = instance(situation(**change))
    assert made.theta[:, -2].tolist() == [0.0] * N
    assert made.theta[:, -1].tolist() == [1.0] * N
    # Its bounds leave room all the same: interior-point methods need some.
    assert np.all(made.v_high[:, 0] - made.v_low[:, 0] > 0.01)
    assert np.all(made.u_high[:, 0] - made.u_low[:, 0] > 0.01)


def test_staying_at_a_steady_state_satisfies_the_program() -> None:
    here = situation()
    values = constraints(here, resting(here))
    _, _, lbg, ubg = transcription().bounds(instance(here))
    assert np.all(values >= lbg - 1e-9)
    assert np.all(values <= ubg + 1e-9)


def test_the_limit_gives_way_to_an_mv_outside_of_it() -> None:
    outside = situation(mv_high=np.array([40.0, 100.0]), mv_low=np.array([0.0, 60.0]))
    lbx, ubx, _, _ = transcription().bounds(instance(outside))
    x = resting(outside)
    assert np.all((x >= lbx - 1e-9) & (x <= ubx + 1e-9))


def test_moves_and_prediction_are_read_in_engineering_units() -> None:
    t, here = transcription(), situation(w=np.array([5.0, 0.0]))
    moves, prediction = t.read(resting(here), t.parameters(instance(here)))
    assert np.asarray(moves) == pytest.approx(np.full((N, 2), 50.0))
    x = here.x
    expected = np.array([x[0], x[1], x.mean()])
    assert np.asarray(prediction) == pytest.approx(np.tile(expected, (N, 1)))
    assert augmented().nz == 4
    assert len(MVS) == 2


def test_variables_and_trajectory_are_each_other_s_inverse() -> None:
    s, v = np.arange((N + 1) * 4.0).reshape(N + 1, 4), np.arange(N * 2.0).reshape(N, 2)
    again_s, again_v = transcription().trajectory(transcription().variables(s, v))
    assert np.array_equal(again_s, s)
    assert np.array_equal(again_v, v)


def test_between_blocks_there_is_no_move_to_decide() -> None:
    blocks = Horizon(HORIZON.step_s, N, HORIZON.cycle_s, blocks=(1, 2, 4))
    t = transcribe(make_stage(augmented(), MVS, CVS, blocks))
    assert [k for k, place in enumerate(t.moves) if place is not None] == [0, 1, 3]
    assert blocks.moving == (True, True, False, True, *[False] * 8)


def test_a_dropped_cv_is_neither_tracked_nor_limited() -> None:
    made = instance(situation(watched=np.array([1.0, 0.0]), cv_high=np.array([60.0, 45.0])))
    assert np.all(made.track[:, 0] > 0.0)
    assert np.all(made.track[:, 1] == 0.0)
    assert np.all(made.z_high[:, 0] == 6.0)
    assert np.all(np.isinf(made.z_high[:, 1]) & np.isinf(made.z_low[:, 1]))


def test_a_forecast_replaces_the_measured_disturbance_interval_by_interval() -> None:
    forecast = np.linspace(1.0, 2.0, N)[:, None]
    made = instance(structs.replace(situation(), forecast=forecast))
    assert made.theta[:, 2] == pytest.approx(forecast[:, 0])
    assert np.all(made.theta[:, :2] == 0.0)


def test_limits_that_cross_meet_half_way() -> None:
    made = instance(situation(cv_low=np.array([60.0, 0.0]), cv_high=np.array([50.0, 45.0])))
    assert made.z_low[:, 0].tolist() == made.z_high[:, 0].tolist() == [5.5] * N
    assert made.z_low[0, 1] == 0.0
    assert made.z_high[0, 1] == 4.5
