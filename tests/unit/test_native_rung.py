"""The compiled real-time iteration: the general solvers' answers, a verdict on everything else."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from controller.estimation.augmented import augment
from controller.mpc.condensed import CondensedQp
from controller.mpc.instance import Instance, Instances
from controller.mpc.ladder import Ladder, PlannerState
from controller.mpc.native.library import RealTimeIteration
from controller.mpc.problem import ControlledVariable, Horizon, ManipulatedVariable, Situation
from controller.mpc.solvers import Answer, Solver, Trajectory, make_solver
from controller.mpc.stage import Stage, make_stage
from controller.mpc.target import target_calculation
from controller.mpc.transcription import transcribe
from controller.toolchain import compiled_rung
from plant_models import van_de_vusse
from tests.unit import small_application as small
from tests.unit.implicit_problems import resting

# The QP ends at a mean complementarity product of 1e-8.
TIGHT = (1e-7, 1e-7, 1e-6, 1e-7, 1e-7, 1e-6)
SQP_STEPS = 20
# Share of a span: where a limit is hardly active, an interior-point method stops that far away.
NEAR = 2e-4


@lru_cache(maxsize=4)
def tanks(*blocks: int) -> Stage:
    """The two tanks, linear, 6 intervals."""
    horizon = Horizon(30.0, 6, small.CYCLE_S, blocks)
    return make_stage(small.augmented(), small.MVS, small.CVS, horizon)


@lru_cache(maxsize=1)
def reactor() -> Stage:
    """The Van de Vusse reactor, strongly nonlinear, 5 explicit intervals."""
    augmented = augment(van_de_vusse.model(), (), 20.0, 20.0)
    mvs = (
        ManipulatedVariable("F", 0, "1/h", 3.0, 35.0, 0.5, 0.1, 0.01),
        ManipulatedVariable("Q", 1, "kJ/h", -9000.0, 0.0, 100.0, 0.1, 0.01),
    )
    cvs = (
        ControlledVariable("cB", 1, "mol/l", 0.0, 10.0, 1.0, 10.0, 0.1),
        ControlledVariable("T", 2, "degC", 50.0, 250.0, None, 10.0, 1.0),
    )
    return make_stage(augmented, mvs, cvs, Horizon(20.0, 5, 20.0))


@lru_cache(maxsize=8)
def rung(stage: Stage, budget: int = SQP_STEPS) -> RealTimeIteration:
    made = compiled_rung(stage, budget)
    return RealTimeIteration(made._library, stage, budget, TIGHT)  # pyright: ignore[reportPrivateUsage]


@lru_cache(maxsize=16)
def solver(stage: Stage, name: str) -> Solver:
    return make_solver(name, transcribe(stage), 80)


@lru_cache(maxsize=4)
def wish(stage: Stage) -> Any:
    return target_calculation(stage.augmented, stage.mvs, stage.cvs)


def at_rest(stage: Stage, **changes: object) -> Situation:
    return structs.replace(resting(stage), **changes)  # type: ignore[arg-type]


def posed(stage: Stage, terminal: Any = None, **changes: object) -> tuple[Instance, Trajectory]:
    """An instance of the problem, and where a cold start begins."""
    situation = at_rest(stage, **changes)
    instances = Instances(stage, terminal)
    instance = instances(situation, wish(stage)(situation))
    return instance, standing(stage, instance)


def standing(stage: Stage, instance: Instance) -> Trajectory:
    n = stage.horizon.intervals
    return Trajectory(np.tile(instance.s0, (n + 1, 1)), np.zeros((n, len(stage.mvs))))


def assert_same(answer: Answer, other: Answer, stage: Stage) -> None:
    assert answer.certificate.fault == "" == other.certificate.fault
    assert answer.cost == pytest.approx(other.cost, rel=1e-5, abs=1e-5)
    span = np.array([mv.span for mv in stage.mvs])
    assert np.abs((answer.moves - other.moves) / span).max() < NEAR
    width = np.array([v.span for v in stage.augmented.model.y])
    assert np.abs((answer.prediction - other.prediction) / width).max() < NEAR


INF = np.inf
CASES: dict[str, dict[str, object]] = {
    "setpoints": {},
    "an MV at its limit": {"setpoint": np.array([90.0, 70.0]), "mv_high": np.array([70.0, 60.0])},
    "an MV dropped out": {"free": np.array([1.0, 0.0])},
    "no MV at all": {"free": np.zeros(2)},
    "blocked up": {"blocked_up": np.array([1.0, 0.0])},
    "blocked down": {"blocked_down": np.ones(2), "setpoint": np.array([40.0, 30.0])},
    "blocked both ways": {"blocked_up": np.ones(2), "blocked_down": np.array([1.0, 0.0])},
    "equal limits": {"mv_low": np.array([50.0, 0.0]), "mv_high": np.array([50.0, 100.0])},
    "outside its limits": {"mv_high": np.array([45.0, 100.0])},
    "no zones": {"cv_low": np.full(2, -INF), "cv_high": np.full(2, INF)},
    "a zone left upwards": {"cv_high": np.array([48.0, 100.0]), "setpoint": np.full(2, np.nan)},
    "a zone left downwards": {"cv_low": np.array([0.0, 45.0]), "setpoint": np.full(2, np.nan)},
    "a zone without width": {"cv_low": np.array([54.0, 0.0]), "cv_high": np.array([54.0, 100.0])},
    "a setpoint outside its zone": {"cv_high": np.array([52.0, 41.0])},
    "a CV dropped": {"watched": np.array([0.0, 1.0])},
    "a forecast": {"forecast": np.linspace(1.0, 1.5, 6)[:, None]},
}


@pytest.mark.parametrize("case", CASES)
def test_a_linear_problem_is_its_qp_solved_in_one_iteration(case: str) -> None:
    stage = tanks()
    instance, begin = posed(stage, **CASES[case])
    answer = rung(stage)(instance, begin)
    assert answer.iterations == 1
    assert_same(answer, CondensedQp(stage)(instance, begin), stage)
    assert_same(answer, solver(stage, "ipopt")(instance, begin), stage)


@pytest.mark.parametrize("name", ["sqp", "ipopt"])
def test_the_other_rungs_answer_the_same(name: str) -> None:
    stage = tanks()
    for case in ("setpoints", "an MV dropped out", "a zone left upwards", "a zone without width"):
        instance, begin = posed(stage, **CASES[case])
        assert_same(rung(stage)(instance, begin), solver(stage, name)(instance, begin), stage)


@pytest.mark.parametrize("case", ["setpoints", "a zone left downwards", "an MV dropped out"])
def test_moves_stay_within_their_blocks(case: str) -> None:
    stage = tanks(1, 2)
    instance, begin = posed(stage, **CASES[case])
    answer = rung(stage)(instance, begin)
    assert_same(answer, solver(stage, "sqp")(instance, begin), stage)
    assert np.ptp(answer.moves[1:], axis=0).max() == 0.0
    # What a warm start says of moves that cannot be made does not count.
    wrong = Trajectory(begin.s, np.ones_like(begin.v))
    assert np.ptp(rung(stage)(instance, wrong).moves[1:], axis=0).max() == 0.0


REACTOR_CASES: dict[str, dict[str, object]] = {
    "setpoint": {},
    "a zone": {"cv_high": np.array([10.0, 113.0])},
    "an MV dropped out": {"free": np.array([0.0, 1.0])},
    "beside its rest": {"x": np.array([2.3, 0.9, 120.0, 118.0])},
}


@pytest.mark.parametrize("case", REACTOR_CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_nonlinear_problem_is_solved_to_its_optimum(case: str, weighted: bool) -> None:
    stage = reactor()
    root = np.random.default_rng(3).normal(size=(stage.ns, stage.ns))
    terminal = root @ root.T if weighted else None
    instance, begin = posed(stage, terminal, **REACTOR_CASES[case])
    answer = rung(stage)(instance, begin)
    assert answer.iterations > 1
    assert_same(answer, solver(stage, "sqp")(instance, begin), stage)
    interior = solver(stage, "ipopt")(instance, begin)
    assert answer.cost <= interior.cost + NEAR
    assert np.abs(answer.moves[0] / interior.moves[0] - 1.0).max() < 5e-3


def test_answers_do_not_depend_on_what_was_solved_before() -> None:
    stage = reactor()
    used, fresh = rung(stage), rung.__wrapped__(stage)
    posing = [posed(stage, **case) for case in REACTOR_CASES.values()]
    first = [used(*problem) for problem in posing]
    broken, begin = posed(stage)
    broken.s0[:] = np.nan
    used(broken, begin)
    for problem, before in reversed(list(zip(posing, first, strict=True))):
        for again in (used(*problem), fresh(*problem)):
            assert again.trajectory.s.tobytes() == before.trajectory.s.tobytes()
            assert again.trajectory.v.tobytes() == before.trajectory.v.tobytes()
            assert again.certificate == before.certificate


PARTS = [
    "s0",
    "rest",
    "rest_weight",
    "move_weight",
    "terminal",
    "terminal_at",
    "theta",
    "wanted",
    "track",
    "price",
    "curve",
    "v_low",
    "v_high",
    "u_low",
    "u_high",
    "z_low",
    "z_high",
]


@pytest.mark.parametrize("number", [np.inf, -np.inf, 1e300, 1e150, 1e60])
def test_what_ran_away_leaves_nothing_behind(number: float) -> None:
    """Also in the padding of the factors, where no later problem would overwrite it."""
    stage = reactor()
    used = rung.__wrapped__(stage)
    problem = posed(stage, **next(iter(REACTOR_CASES.values())))
    before = rung.__wrapped__(stage)(*problem)
    for part in PARTS:
        broken, begin = posed(stage, np.eye(stage.ns))
        getattr(broken, part)[:] = number
        used(broken, begin)
        again = used(*problem)
        assert again.trajectory.s.tobytes() == before.trajectory.s.tobytes(), part
        assert again.certificate == before.certificate, part


@pytest.mark.parametrize("part", PARTS)
def test_an_unknown_number_is_never_answered(part: str) -> None:
    stage = reactor()
    instance, begin = posed(stage)
    getattr(instance, part).flat[-1] = np.nan
    answer = rung(stage)(instance, begin)
    assert answer.certificate.fault == "the answer is not finite"


@pytest.mark.parametrize("number", [np.inf, -np.inf, 1e300, -1e300])
@pytest.mark.parametrize("part", ["s0", "theta", "terminal_at", "wanted"])
def test_a_number_out_of_this_world_is_refused(part: str, number: float) -> None:
    stage = reactor()
    instance, begin = posed(stage, np.eye(stage.ns))
    getattr(instance, part)[:] = number
    assert rung(stage)(instance, begin).certificate.fault


def test_an_unknown_warm_start_is_refused() -> None:
    stage = reactor()
    instance, begin = posed(stage)
    begin.s[2, 1] = np.nan
    assert rung(stage)(instance, begin).certificate.fault == "the answer is not finite"


def test_too_few_iterations_are_told() -> None:
    stage = reactor()
    instance, begin = posed(stage, x=np.array([2.3, 0.9, 120.0, 118.0]))
    answer = rung(stage, 1)(instance, begin)
    assert (answer.iterations, answer.status.split(",")[0]) == (1, "not_converged")
    assert answer.certificate.fault.startswith("not converged: defect")
    situation = at_rest(stage, x=np.array([2.3, 0.9, 120.0, 118.0]))
    rungs = (("rti", rung(stage, 1)), ("ipopt", solver(stage, "ipopt")))
    ladder = Ladder(stage, Instances(stage), rungs, 3)
    _, plan = ladder(PlannerState(), situation, wish(stage)(situation))
    assert plan.rung == "ipopt"
    assert plan.refused[0].startswith("rti: not converged: defect")


def test_what_does_not_fit_the_library_is_not_called() -> None:
    instance, begin = posed(tanks())
    with pytest.raises(RuntimeError, match="sizes compiled for"):
        rung(reactor())(instance, begin)
