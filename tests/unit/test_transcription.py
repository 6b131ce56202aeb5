"""The program of the controller: its size, its dynamics, its bounds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.small_application import HORIZON, MVS, augmented, situation, target, transcription

N = HORIZON.intervals


def stages(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States (N + 1, 4) and controls (N, 4) of a vector of variables."""
    full = np.concatenate([vector, np.zeros(transcription().stage_control)]).reshape(N + 1, 8)
    return full[:, :4], full[:-1, 4:]


def test_its_size() -> None:
    t = transcription()
    assert (t.stage_state, t.stage_control) == (4, 4)
    assert t.nlp["x"].numel() == (N + 1) * 4 + N * 4
    assert len(t.equality) == t.nlp["g"].numel()
    assert sum(t.equality) == (N + 1) * 4
    assert "12 intervals of 30 s" in str(t)


def test_bounds_and_parameters_fit_the_program() -> None:
    t = transcription()
    lbx, ubx, lbg, ubg = t.bounds(situation())
    assert lbx.size == ubx.size == t.nlp["x"].numel() == t.guess(situation()).size
    assert lbg.size == ubg.size == t.nlp["g"].numel()
    assert np.all(lbx <= ubx)
    assert np.all(lbg <= ubg)
    equal = np.array(t.equality)
    assert np.all(lbg[equal] == ubg[equal])
    assert t.parameters(situation(), target()(situation())).size == t.nlp["p"].numel()


def test_the_rate_counts_a_cycle_first_and_an_interval_later() -> None:
    _, controls = stages(transcription().bounds(situation())[1])
    moves = controls[:, :2]
    assert moves[0] == pytest.approx([0.05, 0.05])  # 0.5 %/s for 10 s, of a span of 100 %
    assert moves[1:] == pytest.approx(np.full((N - 1, 2), 0.15))


def test_a_saturated_output_blocks_its_direction() -> None:
    blocked = situation(blocked_up=np.array([1.0, 0.0]), blocked_down=np.array([0.0, 1.0]))
    lbx, ubx, _, _ = transcription().bounds(blocked)
    low, high = stages(lbx)[1][:, :2], stages(ubx)[1][:, :2]
    assert np.all(high[:, 0] == 0.0)
    assert np.all(low[:, 1] == 0.0)
    assert np.all(low[:, 0] < 0.0)
    assert np.all(high[:, 1] > 0.0)


def test_staying_at_a_steady_state_satisfies_the_program() -> None:
    t, here = transcription(), situation()
    _, g, _ = t.check(t.guess(here), t.parameters(here, target()(here)),
                      np.zeros(t.nlp["g"].numel()), np.zeros(t.nlp["x"].numel()))  # fmt: skip
    _, _, lbg, ubg = t.bounds(here)
    values = np.asarray(g).ravel()
    assert np.all(values >= lbg - 1e-9)
    assert np.all(values <= ubg + 1e-9)


def test_the_limit_gives_way_to_an_mv_outside_of_it() -> None:
    outside = situation(mv_high=np.array([40.0, 100.0]), mv_low=np.array([0.0, 60.0]))
    t = transcription()
    _, g, _ = t.check(t.guess(outside), t.parameters(outside, target()(outside)),
                      np.zeros(t.nlp["g"].numel()), np.zeros(t.nlp["x"].numel()))  # fmt: skip
    _, _, lbg, ubg = t.bounds(outside)
    values = np.asarray(g).ravel()
    assert np.all((values >= lbg - 1e-9) & (values <= ubg + 1e-9))


def test_moves_and_prediction_are_read_in_engineering_units() -> None:
    t, here = transcription(), situation(w=np.array([5.0, 0.0]))
    states = np.tile(t.guess(here)[:8], N + 1)[: t.nlp["x"].numel()].copy()
    moves, prediction = t.read(states, t.parameters(here, target()(here)))
    assert np.asarray(moves) == pytest.approx(np.full((N, 2), 50.0))
    x = here.x
    expected = np.array([x[0], x[1], x.mean()])
    assert np.asarray(prediction) == pytest.approx(np.tile(expected, (N, 1)))
    assert augmented().nz == 4
    assert len(MVS) == 2
