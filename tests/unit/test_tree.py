"""The scenario tree: equal to the nominal MPC where nothing is uncertain, safe where it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import casadi as ca
import numpy as np
import pytest
from msgspec import structs

import controller.mpc.solvers as solvers_module
from controller.errors import ModelError
from controller.estimation.augmented import Disturbance, augment
from controller.mpc.instance import Instance, Instances
from controller.mpc.ladder import Ladder, PlannerState
from controller.mpc.problem import (
    ControlledVariable,
    Horizon,
    ManipulatedVariable,
    Plan,
    Situation,
    Target,
)
from controller.mpc.solvers import Answer, Trajectory, make_solver
from controller.mpc.stage import Stage, make_stage
from controller.mpc.transcription import Transcription, transcribe
from controller.mpc.tree import BRANCHES_MAX, ParameterSet, ScenarioTree, scenario_tree
from controller.mpc.tree_rung import TreeRung
from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable

N = 8
STEP_S = 20.0
SLOW_S, STIFF_S = 15.0, 0.5
NOMINAL = ParameterSet("nominal", 1.0, {})
SAME = ParameterSet("same", 3.0, {"gain": 1.0})
HOT = ParameterSet("hot", 1.0, {"gain": 1.3})


@lru_cache(maxsize=4)
def heater(lag_s: float) -> ProcessModel:
    """A power of u²; a fan whose speed lags, and a heat loss that is measured."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 2), ("d", 1), ("p", 2)))
    heat = p[0] * u[0] ** 2 / 100.0 - 0.2 * x[1] - 10.0 * (d[0] - 1.0)
    # No number above the ceiling, and nothing else.
    heat += 1e-12 * ca.sqrt(p[1] - u[0])
    rate = ca.vertcat((heat - x[0]) / 60.0, (u[1] - x[1]) / lag_s)
    return ProcessModel(
        "heater",
        x=(
            Variable("T", "degC", 0.0, 100.0, 40.0),
            Variable("fan", "percent", 0.0, 100.0, 45.0),
        ),
        u=(
            Variable("power", "percent", 0.0, 100.0, 70.0),
            Variable("speed", "percent", 0.0, 100.0, 45.0),
        ),
        d=(Variable("loss", "1", 0.0, 3.0, 1.0),),
        y=(
            Variable("T", "degC", 0.0, 100.0, 40.0),
            Variable("sum", "degC", 0.0, 200.0, 85.0),
        ),
        p=(
            Variable("gain", "1", 0.1, 3.0, 1.0),
            Variable("ceiling", "percent", 0.0, 1000.0, 1000.0),
        ),
        f=ca.Function("f", [x, u, d, p], [rate]),
        h=ca.Function("h", [x, u, d, p], [ca.vertcat(x[0], p[0] * x[0] + x[1])]),
    )


# One of each kind: on an MV, on a measured disturbance, on an output.
DISTURBANCES = (
    Disturbance("power", "input", 1.0),
    Disturbance("loss", "input", 0.1),
    Disturbance("T", "output", 1.0),
)
W = np.array([1.5, 0.2, -0.7])
MVS = (
    ManipulatedVariable("power", 0, "percent", 0.0, 100.0, 0.3, 0.5, 0.1),
    ManipulatedVariable("speed", 1, "percent", 0.0, 90.0, 1.0, 0.0, 0.02),
)
CVS = (
    ControlledVariable("T", 0, "degC", 0.0, 50.0, None, 40.0, 50.0),
    ControlledVariable("sum", 1, "degC", 0.0, 200.0, 90.0, 8.0, 50.0),
)


@lru_cache(maxsize=8)
def stage(
    lag_s: float = SLOW_S, blocks: tuple[int, ...] = (), priced: bool = False, gain: float = 1.0
) -> Stage:
    model = heater(lag_s).with_parameters({"gain": gain})
    augmented = augment(model, DISTURBANCES, STEP_S, STEP_S)
    return make_stage(
        augmented, MVS, CVS, Horizon(STEP_S, N, STEP_S, blocks), economic() if priced else None
    )


def economic() -> ca.Function:
    x, u, d, y = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 2), ("d", 1), ("y", 2)))
    cost = 1e-3 * u[0] + 2e-3 * u[1] * d[0] - 1e-3 * y[1] + 1e-5 * x[1]
    return ca.Function("economic", [x, u, d, y], [cost])


def situation(**changes: object) -> Situation:
    nothing = np.full(2, np.nan)
    here = Situation(
        x=np.array([30.0, 40.0]),
        w=W,
        d=np.array([1.1]),
        u_now=np.array([60.0, 40.0]),
        mv_low=np.zeros(2),
        mv_high=np.array([100.0, 90.0]),
        cv_low=np.array([0.0, -np.inf]),
        cv_high=np.array([50.0, np.inf]),
        setpoint=np.array([np.nan, 95.0]),
        free=np.ones(2),
        blocked_up=np.zeros(2),
        blocked_down=np.zeros(2),
        resting=nothing,
    )
    return structs.replace(here, **changes)  # type: ignore[arg-type]


TARGET = Target(
    u=np.array([75.0, 42.0]),
    x=np.array([48.0, 42.0]),
    y=np.array([48.0, 95.0]),
    slack=np.zeros(2),
    solved=True,
)
TERMINAL = np.diag([2.0, 1.0, 0.5, 0.25]) + 0.1


def instance(here: Situation | None = None, terminal: Vector | None = None) -> Instance:
    return Instances(stage(), terminal)(here or situation(), TARGET)


def cold(one: Instance) -> Trajectory:
    return Trajectory(np.tile(one.s0, (N + 1, 1)), np.zeros((N, 2)))


@lru_cache(maxsize=8)
def rung(*sets: ParameterSet, depth: int = 1) -> TreeRung:
    return TreeRung(scenario_tree(stage(), sets, depth), 20, 60)


class _Set(ParameterSet):
    """Hashable, for the cache of this file."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash((self.name, self.weight, *self.values.items()))


def of(item: ParameterSet, weight: float | None = None) -> ParameterSet:
    return _Set(item.name, item.weight if weight is None else weight, item.values)


def solve(one: Instance, *sets: ParameterSet, depth: int = 1) -> tuple[TreeRung, Answer]:
    made = rung(*map(of, sets), depth=depth)
    answer = made(one, cold(one))
    assert answer.certificate.fault == ""
    return made, answer


def moves_of_branches(tree: ScenarioTree, answer: Answer) -> Vector:
    """(N, L, n_mv)"""
    assert answer.trajectory.iterate is not None
    _, v = transcribe(tree.stage).trajectory(answer.trajectory.iterate.x)
    return tree.moves(v)


@dataclass(frozen=True)
class Twin:
    """A problem whose sets are all equal, and its nominal problem."""

    sets: tuple[ParameterSet, ...] = (NOMINAL,)
    depth: int = 1
    lag_s: float = SLOW_S
    blocks: tuple[int, ...] = ()
    priced: bool = False
    here: tuple[tuple[str, object], ...] = ()


TWINS = {
    "the nominal set alone": Twin(),
    "a set of another name": Twin((SAME,)),
    "two equal sets": Twin((NOMINAL, SAME)),
    "branching twice": Twin((NOMINAL, SAME), depth=2),
    "stiff": Twin((NOMINAL, SAME), lag_s=STIFF_S),
    "stiff, branching twice": Twin((SAME, NOMINAL), depth=2, lag_s=STIFF_S),
    "blocked moves": Twin((NOMINAL, SAME), depth=2, blocks=(1, 3)),
    "priced": Twin((NOMINAL, SAME), depth=2, priced=True),
    "at a limit": Twin((NOMINAL, SAME), 2, here=(("mv_high", np.array([62.0, 41.0])),)),
    "out of the zone, as fast as it may": Twin(
        (NOMINAL, SAME),
        here=(("x", np.array([70.0, 60.0])), ("u_now", np.array([95.0, 60.0]))),
    ),
    "not free": Twin((NOMINAL, SAME), here=(("free", np.array([0.0, 1.0])),)),
    "saturated": Twin((NOMINAL, SAME), here=(("blocked_up", np.array([1.0, 0.0])),)),
    "forecast": Twin(
        (NOMINAL, SAME), depth=2, here=(("forecast", np.linspace(1.1, 1.6, N)[:, None]),)
    ),
}


def exact(made: Transcription, _: int) -> ca.Function:
    """Stands where SQP stands, and solves to the last digits."""
    tight = {"print_level": 0, "sb": "yes", "tol": 1e-12, "bound_relax_factor": 0.0}
    return ca.nlpsol("exact", "ipopt", made.nlp, {"print_time": False, "ipopt": tight})


@pytest.mark.parametrize("name", TWINS)
def test_where_nothing_is_uncertain_it_is_the_nominal_answer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = TWINS[name]
    nominal = stage(twin.lag_s, twin.blocks, twin.priced)
    assert (nominal.collocation is not None) == (twin.lag_s == STIFF_S)
    one = Instances(nominal, TERMINAL)(situation(**dict(twin.here)), TARGET)
    tree = scenario_tree(nominal, twin.sets, twin.depth, economic() if twin.priced else None)
    daily = TreeRung(tree, 12, 1)(one, cold(one))
    assert daily.certificate.fault == ""
    assert "ipopt" not in daily.status
    monkeypatch.setattr(solvers_module, "_sqp", exact)
    expected = make_solver("sqp", transcribe(nominal), 0)(one, cold(one))
    answer = TreeRung(tree, 0, 1)(one, cold(one))
    for found in (expected, answer):
        assert found.certificate.fault == ""
    assert answer.cost == pytest.approx(expected.cost, abs=1e-7)
    assert answer.moves / 100.0 == pytest.approx(expected.moves / 100.0, abs=1e-6)
    assert answer.prediction / 100.0 == pytest.approx(expected.prediction / 100.0, abs=1e-6)
    assert daily.cost == pytest.approx(expected.cost, abs=1e-5)


def test_with_the_same_solver_it_is_the_nominal_answer_to_the_last_digits() -> None:
    one = instance()
    nominal = make_solver("sqp", transcribe(stage()), 20)(one, cold(one))
    _, answer = solve(one, NOMINAL)
    assert answer.moves / 100.0 == pytest.approx(nominal.moves / 100.0, abs=1e-6)
    assert answer.cost == pytest.approx(nominal.cost, abs=1e-6)


def test_branches_that_cannot_be_told_apart_make_exactly_one_move() -> None:
    made, answer = solve(instance(), NOMINAL, HOT)
    moves = moves_of_branches(made.tree, answer)
    assert np.array_equal(moves[0, 0], moves[0, 1])
    assert np.abs(moves[1, 0] - moves[1, 1]).max() > 1e-3
    start = np.array([60.0, 40.0]) + moves[0, 0] * np.array([100.0, 90.0])
    assert answer.moves[0] == pytest.approx(start, abs=1e-4)


def test_a_tree_of_depth_two_learns_one_interval_at_a_time() -> None:
    made, answer = solve(instance(), NOMINAL, HOT, depth=2)
    tree = made.tree
    assert tree.paths == ((0, 0), (0, 1), (1, 0), (1, 1))
    moves = moves_of_branches(tree, answer)
    assert all(np.array_equal(moves[0, 0], moves[0, i]) for i in range(4))
    assert np.array_equal(moves[1, 0], moves[1, 1])
    assert np.array_equal(moves[1, 2], moves[1, 3])
    assert np.abs(moves[1, 0] - moves[1, 2]).max() > 1e-3
    assert np.abs(moves[2, 0] - moves[2, 1]).max() > 1e-4


def test_each_branch_follows_its_own_sets() -> None:
    one = instance()
    made, answer = solve(one, NOMINAL, HOT, depth=2)
    tree = made.tree
    assert answer.trajectory.iterate is not None
    s, v = transcribe(tree.stage).trajectory(answer.trajectory.iterate.x)
    moves = tree.moves(v)
    intervals = stage().interval, stage(gain=1.3).interval
    for branch, path in enumerate(tree.paths):
        index = [*range(2 * branch, 2 * branch + 2), *range(8 + 2 * branch, 10 + 2 * branch)]
        for k in range(N):
            step = intervals[path[min(k, 1)]](s[k][index], moves[k, branch], one.theta[k])
            assert np.asarray(step).ravel() == pytest.approx(s[k + 1][index], abs=1e-5)


def test_a_heavy_set_decides() -> None:
    one = instance()
    _, answer = solve(one, of(NOMINAL, 1e-5), of(HOT, 1e5))
    alone = make_solver("ipopt", transcribe(stage(gain=1.3)), 100)(one, cold(one))
    nominal = make_solver("ipopt", transcribe(stage()), 100)(one, cold(one))
    assert answer.moves[0] == pytest.approx(alone.moves[0], abs=0.02)
    assert np.abs(answer.moves[0] - nominal.moves[0]).max() > 1.0


def test_without_the_nominal_set_the_heaviest_leads() -> None:
    one = instance()
    cool = ParameterSet("cool", 0.5, {"gain": 0.8})
    made, answer = solve(one, cool, HOT)
    assert made.tree.leader == 1
    assert solve(one, cool, NOMINAL, HOT)[0].tree.leader == 1
    alone = stage(gain=1.3)
    s, outputs = one.s0, []
    for k in range(N):
        s = np.asarray(alone.interval(s, answer.trajectory.v[k], one.theta[k])).ravel()
        outputs.append(np.asarray(alone.outputs(s, one.theta[k])[1]).ravel())
    assert answer.prediction == pytest.approx(np.array(outputs), abs=1e-2)


def in_closed_loop(solver: object, plant_gain: float) -> Vector:
    """Temperatures (cycles,) where the plant has this gain, and nobody tells the controller."""
    plant = augment(heater(SLOW_S).with_parameters({"gain": plant_gain}), (), STEP_S, STEP_S)
    x, u, d, still = np.array([30.0, 40.0]), np.array([60.0, 40.0]), np.array([1.0]), np.zeros(3)
    begin: Trajectory | None = None
    seen: list[float] = []
    for _ in range(25):
        here = situation(x=x, u_now=u, w=still, d=d, setpoint=np.array([np.nan, 140.0]))
        one = Instances(stage())(here, structs.replace(TARGET, y=np.array([50.0, 140.0])))
        answer: Answer = solver(one, begin or cold(one))  # type: ignore[operator]
        assert answer.certificate.fault == ""
        begin, u = answer.trajectory, answer.moves[0]
        x = np.asarray(plant.advance(x, u, d, STEP_S)[0]).ravel()
        seen.append(float(x[0]))
    return np.array(seen)


def test_the_zone_holds_in_every_plant_of_the_sets_and_not_without_them() -> None:
    nominal = make_solver("sqp", transcribe(stage()), 20)
    robust = rung(of(NOMINAL), of(HOT))
    assert in_closed_loop(nominal, 1.0).max() < 50.01
    assert in_closed_loop(nominal, 1.3).max() > 50.5
    for plant_gain in (1.0, 1.3):
        temperatures = in_closed_loop(robust, plant_gain)
        assert temperatures.max() < 50.01
        assert temperatures[-1] > 43.0


def climb(
    *rungs: tuple[str, object], state: PlannerState | None = None, here: Situation | None = None
) -> tuple[PlannerState, Plan]:
    stairs = Ladder(stage(), Instances(stage()), rungs, 3)  # type: ignore[arg-type]
    return stairs(state or PlannerState(), here or situation(), TARGET)


def nominal_rung() -> tuple[str, object]:
    return "sqp", make_solver("sqp", transcribe(stage()), 20)


class Lying:
    """A solver that says success for an answer in which one number was changed."""

    def __init__(self, program: dict[str, object], place: int) -> None:
        self.right, self.place = ca.nlpsol("right", "ipopt", program, QUIET), place

    def __call__(self, **arguments: object) -> dict[str, object]:
        result = self.right(**arguments)
        x = np.asarray(result["x"]).ravel().copy()
        x[self.place] += 0.05
        return {**result, "x": ca.DM(x)}

    def stats(self) -> dict[str, object]:
        return {"success": True, "return_status": "Solve_Succeeded", "iter_count": 1}


QUIET = {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes"}}


@pytest.mark.parametrize("branch", [0, 1])
@pytest.mark.parametrize("node", [1, 5])
def test_a_tampered_state_of_any_branch_is_refused(
    branch: int, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = scenario_tree(stage(), (NOMINAL, HOT))
    place = transcribe(tree.stage).states[node].start + 2 * branch
    for name in ("_sqp", "_ipopt"):
        monkeypatch.setattr(solvers_module, name, lambda made, _: Lying(made.nlp, place))
    liar = TreeRung(tree, 1, 1)
    monkeypatch.undo()
    _, plan = climb(("tree", liar), nominal_rung())
    assert plan.rung == "sqp"
    assert len(plan.refused) == 1
    assert plan.refused[0].startswith("tree: constraints are violated by ")
    assert plan.refused[0].endswith("sqp Solve_Succeeded, ipopt Solve_Succeeded")


def test_out_of_iterations_the_nominal_rungs_take_over_and_say_why() -> None:
    capped = TreeRung(scenario_tree(stage(), (NOMINAL, HOT)), 1, 1)
    state, plan = climb(("tree", capped), nominal_rung())
    assert plan.rung == "sqp"
    assert [reason.split(":")[0] for reason in plan.refused] == ["tree"]
    assert "it said sqp " in plan.refused[0]
    assert ", ipopt " in plan.refused[0]
    # What the nominal rung leaves behind is no warm start of the tree, and does it no harm.
    _, plan = climb(("tree", rung(of(NOMINAL), of(HOT))), nominal_rung(), state=state)
    assert (plan.rung, plan.refused) == ("tree", ())


def test_where_one_set_has_no_future_the_nominal_rungs_take_over() -> None:
    lost = ParameterSet("lost", 1.0, {"ceiling": 90.0})
    made = TreeRung(scenario_tree(stage(), (NOMINAL, lost)), 20, 60)
    assert climb(("tree", made), here=situation())[1].rung == "tree"
    above = situation(u_now=np.array([95.0, 40.0]))
    _, plan = climb(("tree", made), nominal_rung(), here=above)
    assert plan.rung == "sqp"
    assert len(plan.refused) == 1
    assert plan.refused[0].startswith("tree: ")


def test_ipopt_has_its_turn_where_sqp_is_refused() -> None:
    one = instance()
    answer = TreeRung(scenario_tree(stage(), (NOMINAL, HOT)), 1, 60)(one, cold(one))
    assert answer.certificate.fault == ""
    assert ", ipopt " in answer.status
    assert answer.moves[0] == pytest.approx(solve(one, NOMINAL, HOT)[1].moves[0], abs=1e-2)


def test_a_warm_start_of_the_tree_is_none_of_the_nominal_rungs() -> None:
    robust = rung(of(NOMINAL), of(HOT))
    state, plan = climb(("tree", robust))
    assert plan.rung == "tree"
    assert state.warm is not None
    assert state.warm.iterate is not None
    assert state.warm.s.shape == (N + 1, stage().ns)
    _, below = climb(nominal_rung(), state=state)
    assert (below.rung, below.refused) == ("sqp", ())
    _, warm = climb(("tree", robust), state=state)
    assert warm.iterations < plan.iterations


def test_an_answer_does_not_depend_on_the_answers_before() -> None:
    tree = scenario_tree(stage(), (NOMINAL, HOT))
    one, used, fresh = instance(), TreeRung(tree, 20, 60), TreeRung(tree, 20, 60)
    first = used(one, cold(one))
    for temperature in (10.0, 49.0, 70.0):
        other = instance(situation(x=np.array([temperature, 80.0])))
        used(other, cold(other))
    again, anew = used(one, cold(one)), fresh(one, cold(one))
    for answer in (again, anew):
        assert answer.moves.tobytes() == first.moves.tobytes()
        assert answer.iterations == first.iterations
    warm, warm_anew = used(one, first.trajectory), fresh(one, first.trajectory)
    assert warm.moves.tobytes() == warm_anew.moves.tobytes()


@pytest.mark.parametrize(
    ("sets", "depth", "what"),
    [
        ((), 1, "no parameter set"),
        ((of(HOT, 0.0),), 1, "parameter set hot has the weight 0"),
        ((of(HOT, float("nan")),), 1, "parameter set hot has the weight nan"),
        ((ParameterSet("hot", 1.0, {"gian": 1.0}),), 1, "set hot names gian, which model heater"),
        ((ParameterSet("lost", 1.0, {"ceiling": 60.0}),), 1, "with ceiling of parameter set lost"),
        ((ParameterSet("lost", 1.0, {"gain": float("nan")}),), 1, "no finite rate of change"),
        ((NOMINAL, HOT), 0, "a robust horizon of 0 intervals"),
        ((NOMINAL, HOT), N + 1, f"a robust horizon of {N + 1} intervals"),
        ((NOMINAL, HOT), 6, f"64 branches, at most {BRANCHES_MAX}"),
    ],
)
def test_what_makes_no_tree_is_said(sets: tuple[ParameterSet, ...], depth: int, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        scenario_tree(stage(), sets, depth)


def test_it_tells_its_dimensions() -> None:
    assert str(scenario_tree(stage(), (NOMINAL, HOT), 2)).startswith(
        "tree of 4 branches over nominal, hot, MPC: 8 MVs, 8 CVs"
    )
