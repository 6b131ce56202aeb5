"""The nonlinear-programming rungs of the ladder, each bounded by iterations, never by time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from controller.mpc.transcription import Transcription
from controller.mpc.verify import Certificate, certify
from plant_models.process import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Iterate:
    """Primal and dual variables of a program: a solution, or a warm start."""

    x: Vector
    lam_x: Vector
    lam_g: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Arguments:
    """One instance of the program: parameters and bounds."""

    p: Vector
    lbx: Vector
    ubx: Vector
    lbg: Vector
    ubg: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a solver returned, with our own certificate of it."""

    iterate: Iterate
    cost: float
    iterations: int
    status: str
    certificate: Certificate


Solver = Callable[[Arguments, Iterate], Answer]
"""A rung: program arguments and a first guess to an answer. Keeps no state between calls."""


def make_solver(name: str, transcription: Transcription, iterations: int) -> Solver:
    """A rung by name: `sqp` (Gauss–Newton SQP on HPIPM), `fatrop` or `ipopt`.

    The Gauss–Newton Hessian leaves out the curvature of the dynamics (Bock 1983); the two
    interior-point solvers use the exact one.
    """
    make = {"sqp": _sqp, "fatrop": _fatrop, "ipopt": _ipopt}[name]
    solve = make(transcription, iterations)
    check = transcription.check

    def solver(arguments: Arguments, guess: Iterate) -> Answer:
        result: Mapping[str, ca.DM] = solve(
            x0=guess.x,
            lam_x0=guess.lam_x,
            lam_g0=guess.lam_g,
            p=arguments.p,
            lbx=arguments.lbx,
            ubx=arguments.ubx,
            lbg=arguments.lbg,
            ubg=arguments.ubg,
        )
        stats: Mapping[str, Any] = solve.stats()
        iterate = Iterate(_flat(result["x"]), _flat(result["lam_x"]), _flat(result["lam_g"]))
        cost, g, gradient = check(iterate.x, arguments.p, iterate.lam_g, iterate.lam_x)
        certificate = certify(
            np.concatenate([iterate.x, _flat(g)]),
            _flat(gradient),
            np.concatenate([arguments.lbx, arguments.lbg]),
            np.concatenate([arguments.ubx, arguments.ubg]),
            np.concatenate([iterate.lam_x, iterate.lam_g]),
        )
        status = str(stats.get("unified_return_status") or stats.get("return_status", "unknown"))
        return Answer(iterate, float(cost), int(stats.get("iter_count", 0)), status, certificate)

    return solver


def _flat(value: ca.DM) -> Vector:
    return np.asarray(value, dtype=np.float64).ravel()


def _sqp(transcription: Transcription, iterations: int) -> ca.Function:
    nlp = transcription.nlp
    lam_f, lam_g = ca.SX.sym("lam_f"), ca.SX.sym("lam_g", nlp["g"].numel())
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


def _fatrop(transcription: Transcription, iterations: int) -> ca.Function:
    return ca.nlpsol(
        "fatrop",
        "fatrop",
        transcription.nlp,
        {
            "print_time": False,
            "error_on_fail": False,
            "show_eval_warnings": False,
            "structure_detection": "auto",
            "equality": list(transcription.equality),
            "fatrop": {"print_level": 0, "max_iter": iterations, "tol": 1e-6},
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
