"""The optimizer reaches the plant's optimum, on exact cases exactly, on noisy ones as promised."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import casadi as ca
import msgspec
import numpy as np
import pytest

from controller.errors import ModelError
from controller.optimizer.advisor import AdvisorState
from controller.optimizer.expression import compile_expression
from controller.optimizer.gaussian_process import Kernel, fit
from controller.optimizer.modifier_adaptation import (
    OptimizerState,
    Visit,
    is_probing,
    observe,
    propose,
)
from controller.optimizer.problem import (
    Decision,
    Economics,
    Limit,
    OptimizerProblem,
    build_problem,
)
from controller.optimizer.steady import Refusal
from controller.optimizer.surrogate import Surrogate
from controller.optimizer.trust_region import best_step
from controller.signal import Proposal
from plant_models.process import Vector
from plant_models.williams_otto import two_reaction_model

OBJECTIVE = "(F_A + F_B) * (1043.38 * xP + 20.92 * xE) - 79.23 * F_A - 118.34 * F_B"


def load_campaign() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "optimizer_campaign.py"
    spec = importlib.util.spec_from_file_location("optimizer_campaign", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


campaign = load_campaign()


def bowl(u: Vector, d: Vector) -> tuple[float, Vector]:
    """A model whose optimum is at (1, 1), with one linear limit; d shifts the limit."""
    objective = -((u[0] - 1.0) ** 2) - 2.0 * (u[1] - 1.0) ** 2
    return float(objective), np.array([u[0] + u[1] - 4.0 + float(np.sum(d))])


def bowl_problem(**changes: object) -> OptimizerProblem:
    problem = OptimizerProblem(
        decisions=(
            Decision("a", "kg/s", -5.0, 5.0, radius=2.0, probe=0.5),
            Decision("b", "degC", -5.0, 5.0, radius=2.0, probe=0.5),
        ),
        disturbances=(),
        constraints=("a + b ≤ 4",),
        prior=bowl,
        sigma_objective=1e-4,
        sigma_constraints=(1e-4,),
        beta=0.0,
    )
    return replace(problem, **changes)  # pyright: ignore[reportArgumentType]


def affine_plant(u: tuple[float, float]) -> tuple[float, float]:
    """The bowl plus an affine error in the objective and in the limit."""
    objective, constraints = bowl(np.array(u), np.zeros(0))
    return objective + 3.0 + 4.0 * u[0] - 1.0 * u[1], float(constraints[0]) + 1.5 + 0.5 * u[1]


def visited(problem: OptimizerProblem, places: list[tuple[float, float]]) -> OptimizerState:
    state = OptimizerState()
    for k, u in enumerate(places):
        objective, constraint = affine_plant(u)
        state = observe(problem, state, Visit(k, u, (), objective, (constraint,)))
    return state


SQUARE = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)]


def target_of(proposal: Proposal | None) -> tuple[float, ...]:
    assert proposal is not None
    return tuple(proposal.targets.values())


# ---- expression -------------------------------------------------------------------------------


def test_expression_evaluates_numbers_and_symbols_alike() -> None:
    expression = compile_expression("-(a + 2) * b ** 2 / 4 - 1e1")
    assert expression.names == ("a", "b")
    assert expression({"a": 1.0, "b": 2.0}) == -13.0
    a, b = ca.SX.sym("a"), ca.SX.sym("b")
    symbolic = ca.Function("e", [a, b], [expression.symbolic({"a": a, "b": b})])
    assert float(symbolic(1.0, 2.0)) == -13.0


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "a.b", "a if b else c", "[a]", "a +", "'x'", "a[0]", "lambda: 1", "True",
     "a @ b", "a // b", "1e999", "~a", "a < b", "", "1j"],
)  # fmt: skip
def test_expression_refuses_all_but_arithmetic(text: str) -> None:
    with pytest.raises(ModelError, match=r"\+ - \* /"):
        compile_expression(text)


def test_expression_refuses_bottomless_nesting() -> None:
    with pytest.raises(ModelError):
        compile_expression("-" * 500 + "a")


def test_expression_says_which_name_is_missing() -> None:
    with pytest.raises(ModelError, match=r"called xQ.*Use one of: xP"):
        compile_expression("xP * xQ")({"xP": 1.0})


@pytest.mark.parametrize("text", ["1 / a", "(a - 1) ** 0.5", "10.0 ** (400 + a)"])
def test_undefined_value_is_nan_and_never_an_exception(text: str) -> None:
    assert math.isnan(compile_expression(text)({"a": 0.0}))


# ---- Gaussian process --------------------------------------------------------------------------


def test_gaussian_process_equals_the_closed_form() -> None:
    rng = np.random.default_rng(1)
    points, at = rng.normal(size=(7, 3)), rng.normal(size=(2, 3))
    values, sigma = rng.normal(size=7), np.linspace(0.1, 0.4, 7)
    kernel = Kernel(offset=2.0, slope=0.7, curvature=0.4, length=1.3)
    process = fit(points, values, sigma, kernel)

    def k(a: Vector, b: Vector) -> float:
        bend = 0.16 * math.exp(-float((a - b) @ (a - b)) / (2 * 1.69))
        return 4.0 + 0.49 * float(a @ b) + bend

    gram = np.array([[k(a, b) for b in points] for a in points]) + np.diag(sigma**2)
    cross = np.array([[k(a, b) for b in points] for a in at])
    own = np.array([[k(a, b) for b in at] for a in at])
    centre = np.mean(values)
    mean, covariance = process.predict(at)
    np.testing.assert_allclose(mean, centre + cross @ np.linalg.solve(gram, values - centre))
    np.testing.assert_allclose(
        covariance, own - cross @ np.linalg.solve(gram, cross.T), rtol=1e-8, atol=1e-10
    )
    one_mean, one_sd = process.predict_one(at[0])
    assert one_mean == pytest.approx(mean[0])
    assert one_sd == pytest.approx(math.sqrt(covariance[0, 0]))
    centred = values - centre
    evidence = -0.5 * (
        centred @ np.linalg.solve(gram, centred)
        + np.linalg.slogdet(gram)[1]
        + 7 * math.log(2 * math.pi)
    )
    assert process.evidence == pytest.approx(float(evidence))


# ---- modifier adaptation -----------------------------------------------------------------------


def test_affine_mismatch_is_solved_in_one_unfiltered_step() -> None:
    problem = bowl_problem()
    state = replace(visited(problem, SQUARE), radius=2.0)
    _, proposal = propose(problem, state, (), 10)
    # KKT, by hand: maximise 4a − b − (a − 1)² − 2 (b − 1)² on a = 2.5 − 1.5 b:
    # −1.5 (4 − 2 (a − 1)) + (−1 − 4 (b − 1)) = 0  →  −6 + 3a − 3 + 3 − 4b = 0.
    b = (-6.0 + 3 * 2.5) / (4 + 4.5)
    assert target_of(proposal) == pytest.approx((2.5 - 1.5 * b, b), abs=5e-3)
    assert proposal is not None
    assert proposal.why.startswith("Move to a 2.23")
    assert "up to a + b ≤ 4" in proposal.why


def test_exact_modifiers_give_the_kkt_point() -> None:
    problem = bowl_problem()
    points = np.array(SQUARE)
    believed = np.array([problem.believed(u, np.zeros(0)) for u in points])
    errors = np.array([affine_plant(u) for u in SQUARE]) - believed
    affine = Kernel(offset=100.0, slope=100.0, curvature=0.0, length=1.0)
    noise = np.full(4, 1e-6)
    processes = tuple(fit(points / 2.0, errors[:, i], noise, affine) for i in range(2))
    surrogate = Surrogate(problem, np.zeros(2), processes)
    target = best_step(problem, surrogate, np.zeros(2), np.zeros(0), 2.0)
    b = (-6.0 + 3 * 2.5) / (4 + 4.5)
    assert target == pytest.approx((2.5 - 1.5 * b, b), abs=2e-5)


def test_affine_mismatch_without_active_limit_is_solved_in_one_step() -> None:
    problem = bowl_problem()
    shifted = replace(problem, prior=lambda u, d: (bowl(u, d)[0], bowl(u, d)[1] - 50.0))
    state = OptimizerState()
    for k, u in enumerate(SQUARE):
        objective, constraint = affine_plant(u)
        state = observe(shifted, state, Visit(k, u, (), objective, (constraint - 50.0,)))
    _, proposal = propose(shifted, replace(state, radius=2.0), (), 10)
    assert target_of(proposal) == pytest.approx((3.0, 0.75), abs=5e-3)


def test_first_visits_probe_then_steps_follow() -> None:
    problem = bowl_problem()
    state = visited(problem, SQUARE[:1])
    for k in range(3):
        assert is_probing(problem, state)
        state, proposal = propose(problem, state, (), 10 + k)
        assert proposal is not None
        assert "Probe" in proposal.why
    assert not is_probing(problem, state)
    assert len(state.pending) == 3
    assert len({move.u for move in state.pending}) == 3


def test_a_measured_gain_moves_the_incumbent_and_grows_the_region() -> None:
    problem = bowl_problem()
    state = replace(visited(problem, SQUARE), radius=0.5)
    state, proposal = propose(problem, state, (), 10)
    u = target_of(proposal)
    objective, constraint = affine_plant((u[0], u[1]))
    after = observe(problem, state, Visit(11, u, (), objective, (constraint,)))
    assert after.incumbent is not None
    assert after.incumbent.u == u
    assert after.radius == pytest.approx(0.75)
    assert after.pending == ()


def test_a_measured_loss_is_rejected_shrinks_the_region_and_leads_back() -> None:
    problem = bowl_problem(gate=1e9)
    state = replace(visited(problem, SQUARE), radius=0.5)
    state, proposal = propose(problem, state, (), 10)
    before = state.incumbent
    u = target_of(proposal)
    worse = observe(problem, state, Visit(11, u, (), -50.0, (3.0,)))
    assert worse.incumbent == before
    assert worse.radius == pytest.approx(0.3)
    assert worse.unsafe
    _, back = propose(problem, worse, (), 12)
    assert before is not None
    assert target_of(back) == before.u
    assert back is not None
    assert back.why.startswith("Back to the last safe point")


def test_an_outlier_is_set_aside_and_a_second_alike_is_a_changed_plant() -> None:
    problem = bowl_problem()
    state = visited(problem, SQUARE)
    wild = observe(problem, state, Visit(5, (0.5, 0.5), (), 900.0, (-1.0,)))
    assert wild.visits == state.visits
    assert wild.incumbent == state.incumbent
    assert wild.suspect is not None
    calm = observe(problem, wild, Visit(6, (0.5, 0.5), (), *pair(affine_plant((0.5, 0.5)))))
    assert calm.suspect is None
    changed = observe(problem, wild, Visit(6, (0.0, 0.5), (), 890.0, (-1.0,)))
    assert [v.objective for v in changed.visits] == [900.0, 890.0]
    assert not changed.probed


def pair(values: tuple[float, float]) -> tuple[float, tuple[float]]:
    return values[0], (values[1],)


def test_repeated_samples_are_averaged_and_do_not_push_out_the_others() -> None:
    problem = bowl_problem(sigma_objective=1.0, points=6)
    state = visited(problem, SQUARE)
    for k in range(30):
        objective, constraint = affine_plant((0.5, 0.5))
        noise = 0.5 if k % 2 else -0.5
        visit = Visit(10 + k, (0.5, 0.5), (), objective + noise, (constraint,))
        state = observe(problem, state, visit)
    assert len(state.visits) == 4
    assert state.visits[-1].repeats == 8
    assert state.visits[-1].objective == pytest.approx(affine_plant((0.5, 0.5))[0], abs=0.1)


def test_only_the_last_points_are_remembered() -> None:
    problem = bowl_problem(points=5, gate=1e9)
    places = [(0.3 * k, -0.2 * k) for k in range(9)]
    state = visited(problem, places)
    assert [v.time_ns for v in state.visits] == [4, 5, 6, 7, 8]


def test_state_survives_storage() -> None:
    problem = bowl_problem()
    state, _ = propose(problem, visited(problem, SQUARE), (), 10)
    stored = AdvisorState(optimizer=state, taken=("a",), refused=(Refusal("b", "late"),))
    packed = msgspec.msgpack.encode(stored)
    assert msgspec.msgpack.decode(packed, type=AdvisorState) == stored


# ---- Williams–Otto -----------------------------------------------------------------------------


def williams_otto() -> tuple[OptimizerProblem, Economics]:
    return campaign.williams_otto_problem(True, 0.0, 2.0)


def test_prior_is_the_steady_state_of_the_model() -> None:
    problem, _ = williams_otto()
    objective, constraints = problem.prior(np.array([4.633143, 76.233088]), np.array([1.8275]))
    assert objective == pytest.approx(82.09, abs=6e-3)
    np.testing.assert_allclose(constraints, [0.0, 0.0], atol=1e-6)
    assert problem.constraints == ("xA ≤ 0.12", "xG ≤ 0.08")


def test_lower_limits_count_too() -> None:
    decision = {"F_B_sp": Decision("F_B", "kg/s", 3.0, 6.0, 0.3, 0.2)}
    limit = Limit("xP", low=0.1, high=0.2, backoff=0.01, sigma=1e-4)
    problem, economics = build_problem(
        two_reaction_model(), OBJECTIVE, decision, [limit], sigma_objective=0.5
    )
    assert problem.constraints == ("xP ≤ 0.2", "xP ≥ 0.1")
    assert economics.constraints({"xP": 0.15}) == pytest.approx((-0.04, -0.04))


@pytest.mark.parametrize(
    ("objective", "given", "output", "message"),
    [
        ("xQ", "F_B_sp", "xA", "called xQ"),
        (OBJECTIVE, "F_C_sp", "xA", "no input F_C_sp"),
        (OBJECTIVE, "F_B_sp", "xQ", "no output xQ"),
    ],
)
def test_unknown_names_are_refused(objective: str, given: str, output: str, message: str) -> None:
    decision = {given: Decision("F_B", "kg/s", 3.0, 6.0, 0.3, 0.2)}
    with pytest.raises(ModelError, match=message):
        build_problem(
            two_reaction_model(), objective, decision, [Limit(output, 0.1)], sigma_objective=0.5
        )


@pytest.mark.slow
def test_williams_otto_is_optimised_without_breaking_limits() -> None:
    problem, economics = williams_otto()
    runs = [campaign.static_run(problem, economics, seed, 10) for seed in range(4)]
    outcome = campaign.summary("constrained", "static", runs, excluded=1)
    assert outcome.gap_mean < 1.0
    assert outcome.violating == 0.0


def test_a_feed_step_is_followed_at_once() -> None:
    problem, economics = williams_otto()
    points = campaign.static_run(problem, economics, 2, 10, 8)
    # The very next point, before any lab result at the new feed, is safe and near the optimum.
    assert points[8].excess < 1e-3
    assert points[8].gap < 15.0
    assert points[10].gap < 4.0
