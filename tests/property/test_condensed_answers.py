"""The condensed QP of a linear model against the sparse program, on random situations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.mpc.condensed import CondensedQp
from controller.mpc.instance import Instance, Instances
from controller.mpc.problem import Situation
from controller.mpc.solvers import Answer, Solver, Trajectory, make_solver
from tests.unit.small_application import HORIZON, situation, stage, target, transcription

N = HORIZON.intervals


@lru_cache(maxsize=1)
def condensed() -> CondensedQp:
    return CondensedQp(stage())


@lru_cache(maxsize=1)
def sparse() -> Solver:
    return make_solver("ipopt", transcription(), 200)


def pairs(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    return st.tuples(*[st.floats(low, high)] * 2).map(np.array)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    low = draw(pairs(0.0, 45.0))
    cv_low = draw(pairs(0.0, 50.0))
    wanted = draw(pairs(10.0, 90.0))
    tracked = draw(st.tuples(st.booleans(), st.booleans()))
    blocked = draw(st.sampled_from([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]))
    return situation(
        x=draw(pairs(20.0, 80.0)),
        w=draw(pairs(-20.0, 20.0)),
        d=np.array([draw(st.floats(0.5, 1.5))]),
        u_now=draw(pairs(45.0, 55.0)),
        mv_low=low,
        mv_high=draw(pairs(56.0, 100.0)),
        cv_low=cv_low,
        cv_high=cv_low + draw(pairs(1.0, 60.0)),
        setpoint=np.where(tracked, wanted, np.nan),
        free=np.array(draw(st.sampled_from([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]))),
        blocked_up=np.array([blocked[0], 0.0]),
        blocked_down=np.array([blocked[1], 0.0]),
    )


def instance(here: Situation) -> Instance:
    return Instances(stage())(here, target()(here))


def beginning(made: Instance) -> Trajectory:
    return Trajectory(np.tile(made.s0, (N + 1, 1)), np.zeros((N, 2)))


def sparse_point(made: Instance, answer: Answer) -> np.ndarray:
    """The sparse program's variables at our moves: states by its own dynamics, least slacks."""
    s = [made.s0]
    slacks: list[np.ndarray] = []
    for v, theta, low, high in zip(
        answer.trajectory.v, made.theta, made.z_low, made.z_high, strict=True
    ):
        s.append(np.asarray(stage().interval(s[-1], v, theta)).ravel())
        z = np.asarray(stage().controlled(s[-1], theta)).ravel()
        slacks.append(np.maximum(np.maximum(low - z, z - high), 0.0))
    x = transcription().variables(np.array(s), answer.trajectory.v)
    for k, slack in enumerate(slacks[:-1]):
        begin = transcription().states[k + 2].start
        x[begin - 2 : begin] = slack
    x[-3:-1] = slacks[-1]
    return x


@settings(max_examples=40, deadline=None)
@given(situations())
def test_it_answers_as_the_sparse_program_does(here: Situation) -> None:
    made = instance(here)
    ours, theirs = condensed()(made, beginning(made)), sparse()(made, beginning(made))
    assert ours.certificate.fault == ""
    assert theirs.certificate.fault == ""
    # IPOPT widens every bound by 1e-8, which many prices of zones make visible in the cost.
    assert abs(ours.cost - theirs.cost) <= 1e-4 * max(1.0, abs(theirs.cost))
    # And it is an answer of the sparse program: same cost, inside the same bounds.
    t, x = transcription(), sparse_point(made, ours)
    nothing = np.zeros(t.nlp["g"].numel()), np.zeros(t.nlp["x"].numel())
    cost, g, _ = t.check(x, t.parameters(made), *nothing)
    assert abs(float(cost) - ours.cost) <= 1e-9 * max(1.0, abs(ours.cost))
    low_x, high_x, low_g, high_g = t.bounds(made)
    values = np.asarray(g).ravel()
    assert np.all((x >= low_x - 1e-7) & (x <= high_x + 1e-7))
    assert np.all((values >= low_g - 1e-7) & (values <= high_g + 1e-7))


def crowded(**changes: object) -> Situation:
    """A corner with narrow zones, where a foreign active set has led beside the answer."""
    plain = {"x": np.full(2, 20.0), "u_now": np.full(2, 45.0), "mv_high": np.full(2, 56.0),
             "cv_high": np.ones(2), "setpoint": np.full(2, np.nan)}  # fmt: skip
    return situation(**{**plain, **changes})


@settings(max_examples=40, deadline=None)
@given(situations(), situations())
@example(
    crowded(
        cv_low=np.array([0.0, 15.0]),
        cv_high=np.array([1.0, 17.0]),
        setpoint=np.array([10.0, np.nan]),
        blocked_down=np.array([1.0, 0.0]),
    ),
    crowded(),
)
def test_neither_history_nor_the_active_set_at_the_beginning_changes_it(
    here: Situation, other: Situation
) -> None:
    made, before = instance(here), instance(other)
    first = condensed()(made, beginning(made))
    elsewhere = condensed()(before, beginning(before))
    again = condensed()(made, beginning(made))
    assert again.moves.tobytes() == first.moves.tobytes()
    assert again.cost == first.cost
    assert again.iterations == first.iterations
    fresh = CondensedQp(stage())(made, beginning(made))
    assert fresh.moves.tobytes() == first.moves.tobytes()
    # A warm start may round differently; the answer is the same.
    for begun_at in (elsewhere, first):
        warm = condensed()(made, begun_at.trajectory)
        assert warm.certificate.fault == ""
        assert np.max(np.abs(warm.moves - first.moves)) <= 1e-4
