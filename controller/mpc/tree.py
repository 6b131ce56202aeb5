"""Robust MPC: one move that suits several parameter sets of the model, whichever one is true.

The future branches at the start of each interval of the robust horizon, once per parameter set;
after that every branch keeps its last set. Branches that cannot be told apart yet share their move
(non-anticipativity), all others react to what they saw, so that this is less timid than one
sequence of moves for every case.

The tree is written as the MPC of one plant: all branches side by side, each with the MVs and CVs of
its own, weighted. Where branches are together, the heaviest of them moves all: its variable is
scaled so that its own weight makes it cost what the move costs all of them, and the variables of
the others do nothing. So every solver, its stage structure and its certificate stay as they are.

Source: Scokaert & Mayne (1998), Min-max feedback model predictive control for constrained linear
systems, IEEE Trans. Autom. Control 43; Lucia, Finkler & Engell (2013), Multi-stage nonlinear model
predictive control applied to a semi-batch polymerization reactor under uncertainty, J. Process
Control 23.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from controller.errors import ModelError
from controller.estimation.augmented import Disturbance, augment
from controller.mpc.collocation import Collocation
from controller.mpc.stage import Stage, make_stage
from plant_models.process import ProcessModel, Vector, jacobian_x, names, nominal
from plant_models.variable import Variable

BRANCHES_MAX = 32
"""Nine take 0.2 s on a reactor of four states, and the work grows faster than their number."""


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """One way the process may be: parameters that differ from the model's, in their units, and
    how much this case counts. The nominal set has no values."""

    name: str
    weight: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class ScenarioTree:
    """The branches of a problem, and the problem of all of them side by side.

    Attributes:
        nominal: the problem of one branch with the model's own parameters.
        stage: of all branches; its vectors hold one branch after the other.
        paths: per branch, the number of its parameter set in each interval of the robust
            horizon, (L, R); the last one stays.
        weights: share of each branch in the cost, (L,); their sum is 1.
        movers: per interval of the robust horizon and branch, which branch moves it, (R, L).
        factors: what the mover's variable is multiplied with, (R, L).
        leader: the branch whose plan is shown: the nominal one, else the heaviest.
        disturbances: per disturbance of `stage`, which one of the nominal problem it is.
    """

    nominal: Stage
    stage: Stage
    sets: tuple[ParameterSet, ...]
    paths: tuple[tuple[int, ...], ...]
    weights: Vector
    movers: NDArray[np.intp]
    factors: Vector
    leader: int
    disturbances: tuple[int, ...]

    @property
    def robust_horizon(self) -> int:
        return len(self.movers)

    def moves(self, v: Vector) -> Vector:
        """Moves that each branch makes, (N, L, n_mv), of the variables v (N, L * n_mv)."""
        made = v.reshape(len(v), len(self.paths), -1).copy()
        for k, (movers, factors) in enumerate(zip(self.movers, self.factors, strict=True)):
            made[k] = made[k, movers] * factors[:, None]
        return made

    def __str__(self) -> str:
        labels = ", ".join(item.name for item in self.sets)
        return f"tree of {len(self.paths)} branches over {labels}, {self.stage}"


def scenario_tree(
    nominal_stage: Stage,
    sets: Sequence[ParameterSet],
    robust_horizon: int = 1,
    economic: ca.Function | None = None,
) -> ScenarioTree:
    """The tree over parameter sets.

    Args:
        nominal_stage: the problem to be made robust.
        sets: all cases; the nominal one among them where it counts.
        robust_horizon: number of intervals at whose start the tree branches.
        economic: as of `make_stage`, for one branch.

    Raises:
        ModelError: no set, a weight that is not positive, a parameter the model does not have, one
            that leaves it without finite numbers, a robust horizon outside the horizon, or more
            than `BRANCHES_MAX` branches.
    """
    _require(nominal_stage, sets, robust_horizon)
    paths = tuple(product(range(len(sets)), repeat=robust_horizon))
    weights = np.array([np.prod([sets[i].weight for i in path]) for path in paths])
    weights /= weights.sum()
    movers = np.array([_movers(paths, weights, k) for k in range(robust_horizon)])
    factors = np.array([_factors(weights, row) for row in movers])
    plain = [path for path in paths if not any(sets[i].values for i in path)]
    leader = paths.index(plain[0]) if plain else int(np.argmax(weights))
    stage, own = _side_by_side(nominal_stage, sets, paths, economic, weights)
    flags = len(own) + len(nominal_stage.augmented.model.d)
    shared = _sharing(stage, movers, factors, flags)
    return ScenarioTree(
        nominal_stage, shared, tuple(sets), paths, weights, movers, factors, leader, tuple(own)
    )


def _require(stage: Stage, sets: Sequence[ParameterSet], robust_horizon: int) -> None:
    model = stage.augmented.model
    if not sets:
        raise ModelError("the scenario tree has no parameter set", mend="Give at least one.")
    for item in sets:
        if not 0.0 < item.weight < float("inf"):
            raise ModelError(
                f"parameter set {item.name} has the weight {item.weight:g}",
                mend="Give it a positive weight.",
            )
        unknown = sorted(set(item.values) - set(names(model.p)))
        if unknown:
            raise ModelError(
                f"parameter set {item.name} names {', '.join(unknown)}, which model {model.name} "
                f"does not have",
                mend=f"Choose among {', '.join(names(model.p)) or 'none: it has no parameters'}.",
            )
        _require_finite(model, item)
    if not 1 <= robust_horizon <= stage.horizon.intervals:
        raise ModelError(
            f"a robust horizon of {robust_horizon} intervals does not lie in a horizon of "
            f"{stage.horizon.intervals}",
            mend="Shorten it; 1 is the rule.",
        )
    count = len(sets) ** robust_horizon
    if count > BRANCHES_MAX:
        raise ModelError(
            f"{len(sets)} parameter sets over {robust_horizon} intervals make {count} branches, "
            f"at most {BRANCHES_MAX} are solved in time",
            mend="Shorten the robust horizon, or drop a set.",
        )


def _require_finite(model: ProcessModel, item: ParameterSet) -> None:
    bad = [name for name, value in item.values.items() if not isfinite(value)]
    point = nominal(model.x), nominal(model.u), nominal(model.d)
    if not bad:
        p = model.with_parameters(item.values).p_nominal
        slopes = (np.asarray(function(*point, p)) for function in (model.f, jacobian_x(model)))
        bad = [] if all(np.isfinite(slope).all() for slope in slopes) else list(item.values)
    if bad:
        raise ModelError(
            f"with {', '.join(bad)} of parameter set {item.name}, model {model.name} has no finite "
            f"rate of change at its nominal point",
            mend="Correct these values.",
        )


def _movers(paths: Sequence[tuple[int, ...]], weights: Vector, k: int) -> list[int]:
    """Per branch the heaviest of those that have the same past at the start of interval k."""
    together = [[i for i, other in enumerate(paths) if other[:k] == path[:k]] for path in paths]
    return [max(group, key=lambda i: float(weights[i])) for group in together]


def _factors(weights: Vector, movers: NDArray[np.intp]) -> Vector:
    """Where weight w of the mover stands for weight W of its group: sqrt(w / W), so that
    w v² = W (move)²."""
    groups = np.bincount(movers, weights, minlength=weights.size)
    return np.sqrt(weights[movers] / groups[movers])


def _side_by_side(
    stage: Stage,
    sets: Sequence[ParameterSet],
    paths: Sequence[tuple[int, ...]],
    economic: ca.Function | None,
    weights: Vector,
) -> tuple[Stage, list[int]]:
    """The problem of all branches without sharing, and whose disturbance each one is."""
    augmented, horizon = stage.augmented, stage.horizon
    model, count = augmented.model, len(paths)
    shared = {variable.name for variable in model.d}
    disturbances: list[Disturbance] = []
    own: list[int] = []
    for number, q in enumerate(augmented.disturbances):
        # A measured disturbance is one for all branches, and so is what adds to it.
        one = q.kind == "input" and q.on in shared
        places = [q.on] if one else [_of_branch(q.on, branch) for branch in range(count)]
        disturbances += [replace(q, on=place) for place in places]
        own += [number] * len(places)
    all_branches = augment(
        _all_branches(model, sets, paths), tuple(disturbances), horizon.cycle_s, horizon.step_s
    )
    mvs = [
        replace(mv, input=branch * len(model.u) + mv.input)
        for branch in range(count)
        for mv in stage.mvs
    ]
    cvs = [
        replace(cv, output=branch * len(model.y) + cv.output)
        for branch in range(count)
        for cv in stage.cvs
    ]
    cost = None if economic is None else _expected(all_branches.model, economic, weights)
    return make_stage(all_branches, mvs, cvs, horizon, cost), own


def _of_branch(name: str, branch: int) -> str:
    return f"{name} in branch {branch}"


def _all_branches(
    model: ProcessModel, sets: Sequence[ParameterSet], paths: Sequence[tuple[int, ...]]
) -> ProcessModel:
    """All branches side by side. Behind the measured disturbances stands one flag per interval of
    the robust horizon, 1.0 in it and 0.0 elsewhere."""
    count, depth, symbol = len(paths), len(paths[0]), model.symbol
    all_x, all_u = symbol.sym("x", len(model.x) * count), symbol.sym("u", len(model.u) * count)
    d, p = symbol.sym("d", len(model.d) + depth), symbol.sym("p", 0)
    measured, flags = d[: len(model.d)], d[len(model.d) :]
    tables = [model.with_parameters(item.values).p_nominal for item in sets]
    f: list[Any] = []
    h: list[Any] = []
    for branch, path in enumerate(paths):
        own_x = all_x[branch * len(model.x) : (branch + 1) * len(model.x)]
        own_u = all_u[branch * len(model.u) : (branch + 1) * len(model.u)]
        parameters: Any = ca.DM(tables[path[-1]])
        for k, i in enumerate(path[:-1]):
            if i != path[-1]:
                parameters = parameters + flags[k] * ca.DM(tables[i] - tables[path[-1]])
        f.append(model.f(own_x, own_u, measured, parameters))
        h.append(model.h(own_x, own_u, measured, parameters))
    point = [all_x, all_u, d, p]
    return ProcessModel(
        name=f"{model.name}, {count} branches",
        x=_repeated(model.x, count),
        u=_repeated(model.u, count),
        d=(*model.d, *(Variable(f"interval {k}", "1", 0.0, 1.0, 0.0) for k in range(depth))),
        y=_repeated(model.y, count),
        p=(),
        f=ca.Function("f", point, [ca.vertcat(*f)]),
        h=ca.Function("h", point, [ca.vertcat(*h)]),
        dt_s=model.dt_s,
        source=model.source,
        z=_repeated(model.z, count),
    )


def _repeated(variables: Sequence[Variable], count: int) -> tuple[Variable, ...]:
    return tuple(
        replace(variable, name=_of_branch(variable.name, branch))
        for branch in range(count)
        for variable in variables
    )


def _expected(model: ProcessModel, economic: ca.Function, weights: Vector) -> ca.Function:
    """The economic cost of one branch, weighted over all of them."""
    sizes = [int(economic.numel_in(i)) for i in range(4)]
    parts = (("x", model.x), ("u", model.u), ("d", model.d), ("y", model.y))
    x, u, d, y = (model.symbol.sym(name, len(variables)) for name, variables in parts)
    cost: Any = 0.0
    for branch, weight in enumerate(weights.tolist()):
        cut_x, cut_u, cut_y = (
            part[branch * size : (branch + 1) * size]
            for part, size in ((x, sizes[0]), (u, sizes[1]), (y, sizes[3]))
        )
        cost += weight * economic(cut_x, cut_u, d[: sizes[2]], cut_y)
    return ca.Function("economic", [x, u, d, y], [cost])


def _sharing(stage: Stage, movers: NDArray[np.intp], factors: Vector, begin: int) -> Stage:
    """The same problem, where movers move their groups while the flags (from `begin` in theta)
    say so."""
    depth, count = movers.shape
    n_mv = len(stage.mvs) // count

    def made(v: Any, theta: Any) -> Any:
        flags, by_branch = theta[begin : begin + depth], ca.reshape(v, n_mv, count)
        moves = (1.0 - ca.sum1(flags)) * by_branch
        for k in range(depth):
            factor = ca.repmat(ca.DM(factors[k]).T, n_mv, 1)
            moves += flags[k] * factor * by_branch[:, movers[k].tolist()]
        return ca.vec(moves)

    def symbols(*sizes: int) -> list[Any]:
        return [stage.symbol.sym(f"a{i}", size) for i, size in enumerate(sizes)]

    s, v, theta = at = symbols(stage.ns, len(stage.mvs), stage.nt)
    interval = ca.Function(
        "interval",
        at,
        [stage.interval(s, made(v, theta), theta)],
        ["s", "v", "theta"],
        ["next"],
    )
    if stage.collocation is None:
        return replace(stage, interval=interval)
    old = stage.collocation
    s, v, theta, inner = at = symbols(stage.ns, len(stage.mvs), stage.nt, old.size)
    equations = ca.Function("equations", at, list(old.equations(s, made(v, theta), theta, inner)))
    return replace(
        stage, interval=interval, collocation=Collocation(old.steps, old.rate, equations)
    )
