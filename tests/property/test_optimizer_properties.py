"""Whatever the lab says, the optimizer stays within its bounds and keeps its head."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.optimizer.modifier_adaptation import OptimizerState, Visit, observe, propose
from controller.optimizer.problem import Decision, Disturbance, OptimizerProblem
from plant_models.process import Vector


def model(u: Vector, d: Vector) -> tuple[float, Vector]:
    objective = 10.0 - (u[0] - 1.0) ** 2 - (u[1] - 2.0) ** 2
    return float(objective), np.array([u[0] + 0.5 * u[1] - 2.0 + 0.3 * float(d[0])])


PROBLEM = OptimizerProblem(
    decisions=(
        Decision("a", "1", -1.0, 3.0, radius=0.5, probe=0.3),
        Decision("b", "1", 0.0, 4.0, radius=0.8, probe=0.5),
    ),
    disturbances=(Disturbance("c", "1", 1.0),),
    constraints=("a + b ≤ 2",),
    prior=model,
    sigma_objective=0.1,
    sigma_constraints=(0.02,),
)

inside_a = st.floats(-1.0, 3.0)
inside_b = st.floats(0.0, 4.0)
feed = st.floats(-1.0, 1.0)
any_number = st.one_of(
    st.floats(-20.0, 20.0), st.sampled_from([math.nan, math.inf, -math.inf, 1e9, -1e9])
)
visits = st.lists(
    st.builds(
        lambda a, b, c, objective, constraint: ((a, b), (c,), objective, (constraint,)),
        inside_a,
        inside_b,
        feed,
        any_number,
        any_number,
    ),
    min_size=1,
    max_size=7,
)
History = list[tuple[tuple[float, float], tuple[float], float, tuple[float]]]


def after(history: History) -> OptimizerState:
    state = OptimizerState()
    for k, (u, d, objective, constraints) in enumerate(history):
        state = observe(PROBLEM, state, Visit(k, u, d, objective, constraints))
    return state


def plant_visit(k: int, u: tuple[float, float], rng: np.random.Generator) -> Visit:
    objective, constraints = model(np.array(u), np.zeros(1))
    objective += 0.8 * u[0] + 0.1 * float(rng.standard_normal())
    constraint = float(constraints[0]) + 0.2 + 0.02 * float(rng.standard_normal())
    return Visit(k, u, (0.0,), objective, (constraint,))


@settings(max_examples=15, deadline=None)
@given(visits, feed)
def test_proposals_stay_within_bounds_and_reach(history: History, c: float) -> None:
    state = after(history)
    new, proposal = propose(PROBLEM, state, (c,), 100)
    if proposal is None:
        return
    target = np.array(list(proposal.targets.values()))
    assert np.all(np.isfinite(target))
    assert np.all(target >= PROBLEM.low - 1e-12)
    assert np.all(target <= PROBLEM.high + 1e-12)
    assert state.incumbent is not None
    reach = PROBLEM.radius_max if abs(c - state.incumbent.d[0]) > 0.25 else state.radius
    probe = np.array([v.probe for v in PROBLEM.decisions])
    allowed = probe if new.pending[-1].kind == "probe" else reach * PROBLEM.radius
    assert np.all(np.abs(target - np.array(state.incumbent.u)) <= allowed + 1e-9)


@settings(max_examples=8, deadline=None)
@given(visits, feed)
def test_same_inputs_give_the_same_answer(history: History, c: float) -> None:
    first, second = after(history), after(history)
    assert first == second
    assert propose(PROBLEM, first, (c,), 7) == propose(PROBLEM, second, (c,), 7)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 1000),
    st.sampled_from([math.nan, math.inf, 1e6, -1e6, 500.0]),
    st.sampled_from([math.nan, -math.inf, -40.0, 40.0, 0.0]),
    st.integers(0, 3),
)
def test_a_wild_visit_never_becomes_the_incumbent(
    seed: int, objective: float, constraint: float, place: int
) -> None:
    rng = np.random.default_rng(seed)
    places = [(0.0, 1.0), (0.3, 1.0), (0.0, 1.5), (0.3, 1.5)]
    state = OptimizerState()
    for k, u in enumerate(places):
        state = observe(PROBLEM, state, plant_visit(k, u, rng))
    before = state.incumbent
    state = observe(PROBLEM, state, Visit(9, places[place], (0.0,), objective, (constraint,)))
    assert state.incumbent == before
    assert all(abs(v.objective) < 100 for v in state.visits)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000))
def test_noise_alone_never_moves_the_incumbent_to_a_worse_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state = OptimizerState()
    u = (0.0, 1.0)
    for k in range(10):
        state = observe(PROBLEM, state, plant_visit(2 * k, u, rng))
        state, proposal = propose(PROBLEM, state, (0.0,), 2 * k)
        if proposal is not None:
            u = (proposal.targets["a"], proposal.targets["b"])
    assert state.incumbent is not None
    a, b = state.incumbent.u
    # The true optimum with a + b/2 ≤ 1.8 and the extra 0.8 a, by Lagrange: see the gradient.
    best = max(
        model(np.array([x, y]), np.zeros(1))[0] + 0.8 * x
        for x in np.linspace(0.0, 2.0, 81)
        for y in np.linspace(0.0, 3.0, 121)
        if x + 0.5 * y - 1.8 <= 1e-9
    )
    assert a + 0.5 * b - 1.8 <= 4 * 0.02
    assert model(np.array([a, b]), np.zeros(1))[0] + 0.8 * a >= best - 0.5
