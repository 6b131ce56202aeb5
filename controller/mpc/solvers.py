"""The nonlinear-programming rungs of the ladder, each bounded by iterations, never by time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from controller.mpc.instance import Instance
from controller.mpc.transcription import Transcription
from controller.mpc.verify import Certificate, certify
from plant_models.process import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Iterate:
    """Primal and dual variables of a nonlinear program: a solution, or a warm start."""

    x: Vector
    lam_x: Vector
    lam_g: Vector


class Trajectory(Struct, frozen=True, eq=False):
    """Where to begin: scaled states s (N+1, ns) and moves v (N, n_mv).

    `iterate` is the same with multipliers, where a nonlinear-programming solver made it; `active`
    tells per row of the condensed QP whether its upper (1) or lower (-1) limit was active; `inner`
    holds the stage values of implicit intervals (N, size), see `collocation.Collocation`.
    """

    s: Vector
    v: Vector
    iterate: Iterate | None = None
    active: NDArray[np.int8] | None = None
    inner: Vector | None = None


class Answer(Struct, frozen=True, eq=False):
    """What a solver returned, with our own certificate of it.

    Attributes:
        moves: setpoints (N, n_mv); prediction: outputs (N, ny); both in units.
    """

    trajectory: Trajectory
    moves: Vector
    prediction: Vector
    cost: float
    iterations: int
    status: str
    certificate: Certificate


Solver = Callable[[Instance, Trajectory], Answer]
"""A rung: an instance and where to begin to an answer. Keeps no state between calls."""


def make_solver(name: str, transcription: Transcription, iterations: int) -> Solver:
    """A rung by name: `sqp` (Gauss–Newton SQP on HPIPM) or `ipopt`.

    The Gauss–Newton Hessian leaves out the curvature of the dynamics (Bock 1983); IPOPT uses the
    exact one.
    """
    make = {"sqp": _sqp, "ipopt": _ipopt}[name]
    solve = make(transcription, iterations)
    constraints = int(transcription.nlp["g"].numel())

    def solver(instance: Instance, begin: Trajectory) -> Answer:
        p = transcription.parameters(instance)
        low_x, high_x, low_g, high_g = transcription.bounds(instance)
        guess = begin.iterate
        if guess is None or (guess.x.size, guess.lam_g.size) != (low_x.size, low_g.size):
            # None, or one of a scenario tree, which is longer.
            guess = cold(transcription.variables(begin.s, begin.v), constraints)
        result: Mapping[str, ca.DM] = solve(
            x0=guess.x,
            lam_x0=guess.lam_x,
            lam_g0=guess.lam_g,
            p=p,
            lbx=low_x,
            ubx=high_x,
            lbg=low_g,
            ubg=high_g,
        )
        stats: Mapping[str, Any] = solve.stats()
        iterate = Iterate(_flat(result["x"]), _flat(result["lam_x"]), _flat(result["lam_g"]))
        cost, g, gradient = transcription.check(iterate.x, p, iterate.lam_g, iterate.lam_x)
        certificate = certify(
            np.concatenate([iterate.x, _flat(g)]),
            _flat(gradient),
            np.concatenate([low_x, low_g]),
            np.concatenate([high_x, high_g]),
            np.concatenate([iterate.lam_x, iterate.lam_g]),
        )
        status = str(stats.get("unified_return_status") or stats.get("return_status", "unknown"))
        moves, prediction = transcription.read(iterate.x, p)
        return Answer(
            Trajectory(*transcription.trajectory(iterate.x), iterate),
            np.asarray(moves, dtype=np.float64),
            np.asarray(prediction, dtype=np.float64),
            float(cost),
            int(stats.get("iter_count", 0)),
            status,
            certificate,
        )

    return solver


def cold(x: Vector, constraints: int) -> Iterate:
    """A guess of the variables, and nothing known of the multipliers."""
    return Iterate(x, np.zeros(x.size), np.zeros(constraints))


def _flat(value: ca.DM) -> Vector:
    return np.asarray(value, dtype=np.float64).ravel()


def _sqp(transcription: Transcription, iterations: int) -> ca.Function:
    nlp = transcription.nlp
    lam_f, lam_g = ca.MX.sym("lam_f"), ca.MX.sym("lam_g", nlp["g"].numel())
    hessian = lam_f * ca.hessian(nlp["f"], nlp["x"])[0]
    return ca.nlpsol(
        "sqp",
        "sqpmethod",
        nlp,
        {
            "print_time": False,
            "print_header": False,
            "print_iteration": False,
            "print_status": False,
            "error_on_fail": False,
            "show_eval_warnings": False,
            "max_iter": iterations,
            "tol_du": 1e-5,
            "tol_pr": 1e-7,
            "hess_lag": ca.Function("gauss_newton", [nlp["x"], nlp["p"], lam_f, lam_g], [hessian]),
            "qpsol": "hpipm",
            "qpsol_options": {
                "print_time": False,
                "error_on_fail": False,
                "hpipm": {"mode": "robust"},
            },
        },
    )


def _ipopt(transcription: Transcription, iterations: int) -> ca.Function:
    return ca.nlpsol(
        "ipopt",
        "ipopt",
        transcription.nlp,
        {
            "print_time": False,
            "error_on_fail": False,
            "show_eval_warnings": False,
            "ipopt": {"print_level": 0, "sb": "yes", "max_iter": iterations, "tol": 1e-6},
        },
    )
