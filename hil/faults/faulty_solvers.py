"""Solvers that fail, each below its own certificate: the place where a real one would go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import numpy as np
from msgspec import structs

from controller.errors import ScenarioError
from controller.mpc.condensed import CondensedQp
from controller.mpc.instance import PARTS, Instance, gathered
from controller.mpc.native.generate import generate
from controller.mpc.native.library import RealTimeIteration, load
from controller.mpc.regulator import Regulator
from controller.mpc.solvers import Answer, Iterate, Solver, Trajectory, make_solver
from controller.mpc.stage import Stage
from controller.mpc.transcription import Transcription, transcribe
from controller.mpc.verify import certify
from controller.toolchain import PROBE, compiled, compiled_rung
from plant_models.process import Vector

Failure = Literal["infeasible", "cap", "wrong", "exception", "nan"]

DISPLACED = 0.05
"""Spans by which the state is wrong that a wrong solver believes in."""
AWAY = 0.05
"""Spans between the solution and where a solver begins whose iterations do not suffice: far enough
for every rung, near enough for the model to have numbers there."""
CAP = 1
"""Iterations of a solver whose iterations do not suffice."""


def failing(name: str, solver: Solver, stage: Stage, failure: Failure, where: str) -> Solver:
    """The rung `name` as it fails.

    infeasible: the problem asks for setpoints that the rate limits cannot reach.
    cap: the iterations end far from the solution. (On a linear model one iteration of sqp is
        enough from anywhere; its answer is then accepted, and rightly so.)
    wrong: the answer to another problem, with the status of a success; the certificate is, as
        always, that of the problem asked.
    nan: an answer that is no number, with the status of a success.
    exception: RuntimeError.

    Nothing here depends on earlier calls or on time, so a run with such a solver can be replayed.

    Raises:
        ScenarioError: the rung is none of those that are known here.
        ModelError: the compiled solver that lies does not compile.
    """
    if failure == "infeasible":
        return lambda instance, begin: solver(_unreachable(instance), begin)
    if failure == "exception":
        return _raises
    if name == "rti":
        return _compiled(stage, failure)
    if name == "condensed":
        return _Condensed(stage, failure)
    if name in ("sqp", "ipopt"):
        return _nonlinear(name, solver, transcribe(stage), failure)
    raise ScenarioError(
        f"{name} cannot be made to fail by {failure}",
        where=where,
        mend="Use infeasible or exception",
    )


def failing_regulator(regulator: Regulator, failure: Failure, where: str) -> Regulator:
    """The regulator with a gain that is no number, or one that leads away from the target.

    Raises:
        ScenarioError: neither nan nor wrong is asked for.
    """
    if failure not in ("nan", "wrong"):
        raise ScenarioError(
            f"lqr is no solver: it cannot fail by {failure}", where=where, mend="Use nan or wrong"
        )
    return Regulator(regulator.stage, regulator.gain * (np.nan if failure == "nan" else -1.0))


def _raises(instance: Instance, begin: Trajectory) -> NoReturn:
    raise RuntimeError("a fault of the scenario")


def _unreachable(instance: Instance) -> Instance:
    """The same with limits further away than the largest moves of the whole horizon reach.

    Every limit by itself stands in order, low below high: it takes the solver to find out.
    """
    now = instance.s0[instance.s0.size - instance.rest.size :]
    beyond = now + np.abs(instance.v_high).sum(axis=0) + 1.0
    return _changed(
        instance,
        u_low=np.broadcast_to(beyond, instance.u_low.shape),
        u_high=np.broadcast_to(beyond + 1.0, instance.u_high.shape),
    )


def _displaced(instance: Instance) -> Instance:
    """The same with another state of the process; the setpoints are as they are."""
    s0 = instance.s0.copy()
    s0[: s0.size - instance.rest.size] += DISPLACED
    return _changed(instance, s0=s0)


def _changed(instance: Instance, **parts: Vector) -> Instance:
    return gathered(**{**{name: getattr(instance, name) for name in PARTS}, **parts})


def _far(begin: Trajectory) -> Trajectory:
    """A cold start, away from where the process is by turns to one side and to the other."""
    sides = np.where(np.arange(len(begin.s)) % 2, AWAY, -AWAY)[:, None]
    return Trajectory(begin.s + sides, np.zeros_like(begin.v))


# --- nonlinear programming ---------------------------------------------------------------------


def _nonlinear(name: str, solver: Solver, program: Transcription, failure: Failure) -> Solver:
    if failure == "cap":
        short = make_solver(name, program, CAP)
        return lambda instance, begin: short(instance, _far(begin))

    def lying(instance: Instance, begin: Trajectory) -> Answer:
        if failure == "wrong":
            return _certified(program, instance, solver(_displaced(instance), begin))
        answer = solver(instance, begin)
        iterate = _iterate(answer)
        lost = structs.replace(
            answer, trajectory=structs.replace(answer.trajectory, iterate=_no_number(iterate))
        )
        return _certified(program, instance, lost)

    return lying


def _iterate(answer: Answer) -> Iterate:
    if answer.trajectory.iterate is None:
        raise RuntimeError("a nonlinear-programming rung answers with its iterate")
    return answer.trajectory.iterate


def _no_number(iterate: Iterate) -> Iterate:
    return Iterate(np.full(iterate.x.size, np.nan), iterate.lam_x, iterate.lam_g)


def _certified(program: Transcription, instance: Instance, answer: Answer) -> Answer:
    """The answer as the rung would hand it on: its status, and the certificate of `instance`."""
    iterate, p = _iterate(answer), program.parameters(instance)
    low_x, high_x, low_g, high_g = program.bounds(instance)
    cost, g, gradient = program.check(iterate.x, p, iterate.lam_g, iterate.lam_x)
    moves, prediction = program.read(iterate.x, p)
    certificate = certify(
        np.concatenate([iterate.x, np.asarray(g, dtype=np.float64).ravel()]),
        np.asarray(gradient, dtype=np.float64).ravel(),
        np.concatenate([low_x, low_g]),
        np.concatenate([high_x, high_g]),
        np.concatenate([iterate.lam_x, iterate.lam_g]),
    )
    return Answer(
        Trajectory(*program.trajectory(iterate.x), iterate),
        np.asarray(moves, dtype=np.float64),
        np.asarray(prediction, dtype=np.float64),
        float(cost),
        answer.iterations,
        answer.status,
        certificate,
    )


# --- the compiled real-time iteration ------------------------------------------------------------

# The library's certificate is compiled with its QP solver, so the lie is compiled in between.
_LIES: Mapping[Failure, str] = {
    "wrong": f"""
static int lying_solve_qp(Qp *qp, int budget, double tolerance) {{
    double asked[NX];
    for (int i = 0; i < NX; i++) asked[i] = qp->b[0][i], qp->b[0][i] += {DISPLACED!r};
    int said = solve_qp(qp, budget, tolerance);
    for (int i = 0; i < NX; i++) qp->b[0][i] = asked[i];
    return abs(said);
}}
#define solve_qp lying_solve_qp
""",
    "nan": """
static int lying_solve_qp(Qp *qp, int budget, double tolerance) {
    int said = solve_qp(qp, budget, tolerance);
    for (int k = 0; k < N; k++) qp->v[k][0] = NAN;
    return abs(said);
}
#define solve_qp lying_solve_qp
""",
}
_QP = '#include "qp.c"\n'
_LIE = '#include "lie.c"\n'


def _compiled(stage: Stage, failure: Failure) -> Solver:
    if failure == "cap":
        short = compiled_rung(stage, CAP)
        return lambda instance, begin: short(instance, _far(begin))
    files = dict(generate(stage).files)
    if _QP not in files["rti.c"]:
        raise ScenarioError(
            "the compiled solver is not built as this fault expects it", where="solver_faults"
        )
    files["rti.c"] = files["rti.c"].replace(_QP, _QP + _LIE)
    files["lie.c"] = _LIES[failure]
    return RealTimeIteration(load(compiled(files, PROBE), stage), stage, CAP)


# --- the condensed QP ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lying:
    """DAQP's model, with another answer than it found and the flag of a success."""

    model: Any
    bend: Callable[[Vector], Vector]

    def update(self, **problem: Any) -> None:
        self.model.update(**problem)

    def solve(self) -> tuple[Vector, float, int, dict[str, Any]]:
        v, cost, _, info = self.model.solve()
        return self.bend(v), cost, 1, info


class _Condensed(CondensedQp):
    """The condensed rung on a QP solver that fails."""

    def __init__(self, stage: Stage, failure: Failure) -> None:
        super().__init__(stage)
        self._failure = failure

    def __call__(self, instance: Instance, begin: Trajectory) -> Answer:
        # A cold start: the active set of the cycle before is half the way already.
        return super().__call__(instance, _far(begin) if self._failure == "cap" else begin)

    def _prepared(self, instance: Instance) -> Any:
        found = super()._prepared(instance)
        match self._failure:
            case "cap":
                found.model.settings = {**found.model.settings, "iter_limit": CAP}
                return found
            case "nan":
                return replace(found, model=_Lying(found.model, lambda v: v * np.nan))
            case _:
                return replace(found, model=_Lying(found.model, lambda v: v + DISPLACED))
