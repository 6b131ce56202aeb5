"""The solve ladder: each rung is reached when those above fail, and no lie gets through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

import controller.mpc.solvers as solvers_module
from controller.mpc.instance import Instance, Instances
from controller.mpc.ladder import Ladder, PlannerState, make_ladder
from controller.mpc.problem import Plan, Situation
from controller.mpc.regulator import Regulator, regulator
from controller.mpc.solvers import Answer, Solver, Trajectory, make_solver
from controller.mpc.verify import Certificate
from tests.unit.small_application import BUDGETS, HORIZON, situation, stage, target, transcription

GOOD: Mapping[str, Solver] = {
    name: make_solver(name, transcription(), budget) for name, budget in BUDGETS
}
AGE_MAX = 3


def ladder(*solvers: tuple[str, Solver]) -> Ladder:
    return Ladder(stage(), Instances(stage()), solvers, AGE_MAX)


def climb(
    stairs: Ladder, state: PlannerState | None = None, here: Situation | None = None
) -> tuple[PlannerState, Plan]:
    here = here or situation()
    return stairs(state or PlannerState(), here, target()(here))


def crashes(_: Instance, __: Trajectory) -> Answer:
    raise RuntimeError("Assertion 'QP' failed\nat line 3")


def crashes_silently(_: Instance, __: Trajectory) -> Answer:
    raise RuntimeError


class Lying:
    """Stands where a compiled solver stands, says success, and returns what it likes."""

    def __init__(self, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        self.change = change
        self.right = solvers_module._ipopt(transcription(), 80)

    def __call__(self, **arguments: np.ndarray) -> dict[str, np.ndarray]:
        result = self.right(**arguments)
        return self.change({k: np.asarray(v).ravel() for k, v in result.items()})

    def stats(self) -> dict[str, object]:
        return {"success": True, "return_status": "Solve_Succeeded", "iter_count": 3}


def wrong_point(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**result, "x": result["x"] + 0.01}


def not_optimal(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # Feasible, but the prices belong to another problem.
    return {**result, "lam_g": np.zeros_like(result["lam_g"])}


def not_finite(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = result["x"].copy()
    x[7] = np.nan
    return {**result, "x": x}


def endless_price(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**result, "lam_x": np.full_like(result["lam_x"], np.inf)}


LIES = {
    "wrong point": (wrong_point, "constraints are violated"),
    "not optimal": (not_optimal, "not stationary"),
    "not finite": (not_finite, "the answer is not finite"),
    "endless price": (endless_price, "not finite"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_solver_that_lies_is_caught(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, fault = LIES[lie]
    liar = Lying(change)
    monkeypatch.setattr(solvers_module, "_sqp", lambda *_: liar)
    stairs = ladder(("liar", make_solver("sqp", transcription(), 1)), ("ipopt", GOOD["ipopt"]))
    _, plan = climb(stairs)
    assert plan.rung == "ipopt"
    assert len(plan.refused) == 1
    assert plan.refused[0].startswith("liar: ")
    assert fault in plan.refused[0]
    assert "it said Solve_Succeeded" in plan.refused[0]


def test_an_honest_solver_in_the_liar_s_place_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Lying(lambda result: result)
    monkeypatch.setattr(solvers_module, "_sqp", lambda *_: honest)
    _, plan = climb(ladder(("honest", make_solver("sqp", transcription(), 1))))
    assert plan.rung == "honest"
    assert plan.refused == ()


def outside(instance: Instance, guess: Trajectory) -> Answer:
    """Certified by mistake, and beyond the limits of an MV."""
    answer = GOOD["ipopt"](instance, guess)
    good = Certificate(0.0, 0.0, 0.0, "")
    return structs.replace(answer, moves=answer.moves + 500.0, certificate=good)


def test_every_rung_in_order_with_its_reason() -> None:
    stairs = ladder(
        ("crash", crashes), ("mute", crashes_silently), ("outside", outside), ("sqp", GOOD["sqp"])
    )
    _, plan = climb(stairs)
    assert plan.rung == "sqp"
    assert [reason.split(":")[0] for reason in plan.refused] == ["crash", "mute", "outside"]
    assert plan.refused[0] == "crash: broke: Assertion 'QP' failed"
    assert plan.refused[1] == "mute: broke: without a word"
    assert "would go to" in plan.refused[2]


@pytest.mark.parametrize("rung", [name for name, _ in BUDGETS])
def test_each_solver_rung_is_reached(rung: str) -> None:
    names = [name for name, _ in BUDGETS]
    above = names[: names.index(rung)]
    stairs = ladder(*((name, crashes) for name in above), (rung, GOOD[rung]))
    state, plan = climb(stairs)
    assert plan.rung == rung
    assert plan.age == 0
    assert [reason.split(":")[0] for reason in plan.refused] == above
    assert plan.kkt_residual < 1e-4
    assert state.warm is not None


def test_the_three_solvers_agree() -> None:
    plans = [climb(ladder((name, GOOD[name])))[1] for name, _ in BUDGETS]
    for plan in plans[1:]:
        assert plan.cost == pytest.approx(plans[0].cost, rel=1e-4)
        assert plan.moves == pytest.approx(plans[0].moves, abs=0.05)


def test_the_shifted_plan_ages_and_expires_and_then_holds() -> None:
    state, first = climb(ladder(("sqp", GOOD["sqp"])))
    broken = ladder(("sqp", crashes))
    rungs: list[str] = []
    for age in range(1, AGE_MAX + 1):
        state, plan = climb(broken, state)
        rungs.append(plan.rung)
        assert plan.age == age
        begun = int(age * HORIZON.cycle_s // HORIZON.step_s)
        assert plan.moves[0] == pytest.approx(first.moves[begun])
        assert plan.moves.shape == first.moves.shape
        assert plan.refused[0].startswith("sqp: broke")
        assert state.warm is None
    state, plan = climb(broken, state)
    assert rungs == ["shifted"] * AGE_MAX
    assert plan.rung == "hold"
    assert plan.refused[1] == f"shifted: the last plan is {AGE_MAX + 1} cycles old, 3 allowed"
    assert plan.moves == pytest.approx(np.full((HORIZON.intervals, 2), 50.0))
    state, plan = climb(ladder(("sqp", GOOD["sqp"])), state)
    assert plan.rung == "sqp"
    assert state.age == 0


def test_a_shifted_plan_beyond_new_limits_is_refused() -> None:
    state, first = climb(ladder(("sqp", GOOD["sqp"])))
    assert first.moves[-1, 0] > 51.0
    tighter = situation(mv_high=np.array([51.0, 100.0]))
    _, plan = climb(ladder(), state, tighter)
    assert plan.rung == "hold"
    assert plan.refused[0].startswith("shifted: Q1 would go to")


def test_in_a_shifted_plan_an_mv_that_is_not_free_stays() -> None:
    state, _ = climb(ladder(("sqp", GOOD["sqp"])))
    _, plan = climb(ladder(), state, situation(free=np.array([0.0, 1.0])))
    assert plan.rung == "shifted"
    assert np.all(plan.moves[:, 0] == 50.0)


def test_without_any_plan_it_holds() -> None:
    _, plan = climb(ladder())
    assert plan.rung == "hold"
    assert plan.moves == pytest.approx(np.full((HORIZON.intervals, 2), 50.0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": np.array([np.nan, 35.0])}, "T1 = nan degC is not plausible"),
        ({"x": np.array([50.0, 1e200])}, "T2 = 1e+200 degC is not plausible"),
        ({"u_now": np.array([np.inf, 50.0])}, "Q1 = inf percent is not plausible"),
        ({"d": np.array([-1e300])}, "feed = -1e+300 kg/s is not plausible"),
        ({"w": np.array([1e200, 0.0])}, "a disturbance of 1e+200 on Q1 is not plausible"),
    ],
)
def test_what_is_not_plausible_is_not_solved_for(
    change: dict[str, np.ndarray], reason: str
) -> None:
    asked: list[object] = []

    def ask(instance: Instance, guess: Trajectory) -> Answer:
        asked.append(instance)
        return GOOD["sqp"](instance, guess)

    here = situation()
    lost = structs.replace(here, **change)
    _, plan = ladder(("sqp", ask))(PlannerState(), lost, target()(here))
    assert plan.rung == "hold"
    assert plan.refused == (f"solvers: {reason}",)
    assert asked == []


def test_an_mv_that_is_not_free_is_not_moved() -> None:
    for name, _ in BUDGETS:
        _, plan = climb(ladder((name, GOOD[name])), here=situation(free=np.array([1.0, 0.0])))
        assert plan.rung == name
        assert plan.moves[:, 1] == pytest.approx(np.full(HORIZON.intervals, 50.0), abs=1e-4)


def test_plans_respect_limits_and_rates() -> None:
    far = situation(setpoint=np.array([90.0, 70.0]), mv_high=np.array([70.0, 60.0]))
    for name, _ in BUDGETS:
        _, plan = climb(ladder((name, GOOD[name])), here=far)
        assert plan.rung == name
        assert np.all(plan.moves <= np.array([70.0, 60.0]) + 1e-3)
        steps = np.diff(np.vstack([[50.0, 50.0], plan.moves]), axis=0)
        assert np.max(np.abs(steps[0])) <= 5.0 + 1e-3
        assert np.max(np.abs(steps[1:])) <= 15.0 + 1e-3


@pytest.mark.parametrize("name", [name for name, _ in BUDGETS])
def test_a_solve_is_a_function_of_its_arguments(name: str) -> None:
    stairs = ladder((name, GOOD[name]))
    fresh = make_ladder(stage(), [(name, dict(BUDGETS)[name])], AGE_MAX)
    state, first = climb(stairs)
    for w in (3.0, -8.0, 20.0):  # other problems in between leave no trace
        climb(stairs, here=situation(w=np.array([w, -w]), setpoint=np.array([80.0, 20.0])))
    for other in (stairs, fresh):
        again_state, again = climb(other)
        assert again.moves.tobytes() == first.moves.tobytes()
        assert again.cost == first.cost
        assert again.iterations == first.iterations
        assert state.warm is not None
        assert again_state.warm is not None
        assert _bytes(again_state.warm) == _bytes(state.warm)
    warm, warm_again = climb(stairs, state)[1], climb(fresh, state)[1]
    assert warm.moves.tobytes() == warm_again.moves.tobytes()


def _bytes(warm: Trajectory) -> bytes:
    return warm.s.tobytes() + warm.v.tobytes()


def regulated(*solvers: tuple[str, Solver]) -> Ladder:
    return replace(ladder(*solvers), regulator=regulator(stage()))


def test_without_solver_and_plan_the_regulator_leads_to_the_target() -> None:
    stairs, here = regulated(("sqp", crashes)), situation()
    to = target()(here)
    _, plan = stairs(PlannerState(), here, to)
    assert plan.rung == "lqr"
    assert plan.refused == ("sqp: broke: Assertion 'QP' failed",)
    assert plan.prediction[-1, :2] == pytest.approx([55.0, 40.0], abs=0.5)
    assert plan.moves[-1] == pytest.approx(to.u, abs=2.0)
    steps = np.diff(np.vstack([[50.0, 50.0], plan.moves]), axis=0)
    assert np.max(np.abs(steps[0])) <= 5.0 + 1e-9
    assert np.max(np.abs(steps[1:])) <= 15.0 + 1e-9


def test_a_plan_that_is_not_too_old_comes_before_the_regulator() -> None:
    state, _ = climb(ladder(("sqp", GOOD["sqp"])))
    for _ in range(AGE_MAX):
        state, plan = climb(regulated(), state)
        assert plan.rung == "shifted"
    _, plan = climb(regulated(), state)
    assert plan.rung == "lqr"


def test_the_regulator_respects_limits_and_mvs_that_stay() -> None:
    here = situation(
        setpoint=np.array([90.0, 70.0]), mv_high=np.array([52.0, 60.0]), free=np.array([1.0, 0.0])
    )
    _, plan = climb(regulated(), here=here)
    assert plan.rung == "lqr"
    assert plan.moves[:, 0].max() == pytest.approx(52.0)
    assert np.all(plan.moves[:, 1] == 50.0)


def test_a_regulator_that_leads_away_is_refused() -> None:
    good = regulator(stage())
    assert not isinstance(good, str)
    wrong = replace(ladder(), regulator=replace(good, gain=-good.gain))
    _, plan = climb(wrong)
    assert plan.rung == "hold"
    assert plan.refused[0].startswith("lqr: it would lead away from the target")


def test_without_a_target_there_is_nothing_to_regulate_to() -> None:
    here = situation()
    lost = structs.replace(target()(here), solved=False)
    _, plan = regulated()(PlannerState(), here, lost)
    assert plan.rung == "hold"
    assert plan.refused == ()


def test_without_a_gain_the_reason_is_told() -> None:
    _, plan = climb(ladder())
    assert plan.rung == "hold"
    assert plan.refused == ("lqr: there is none",)


def test_a_regulator_that_breaks_is_refused_with_its_reason() -> None:
    class Broken(Regulator):
        def __call__(self, instance: Instance) -> tuple[np.ndarray, np.ndarray] | str:
            raise RuntimeError("evaluation failed")

    good = regulator(stage())
    assert not isinstance(good, str)
    _, plan = climb(replace(ladder(), regulator=Broken(stage(), good.gain)))
    assert plan.rung == "hold"
    assert plan.refused == ("lqr: broke: evaluation failed",)
