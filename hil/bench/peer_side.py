"""The peer: do-mpc's own MPC class, built from the same case, with its documented settings.

Defaults of do-mpc: orthogonal collocation of degree 2, one element per step, IPOPT with MUMPS,
nominal. Its documented ways to be quicker are taken: scaled variables, the full solution is not
stored, no output, and for a linear model the exact discrete one, which needs no collocation. What
its soft constraints lack, a quadratic penalty and the last node, is added between `prepare_nlp`
and `create_nlp`, as its manual describes; so are rate limits.
"""

from __future__ import annotations

import warnings
from time import perf_counter
from typing import Any

import casadi as ca
import numpy as np

from controller.errors import ModelError
from hil.bench.case import BenchCase, Zone
from hil.bench.reference import exact_step
from hil.bench.side import Solved
from plant_models.process import Vector

INSTALL = "Install it with: pip install 'loopwright[bench]'"


def require_do_mpc() -> Any:
    """The peer's package.

    Raises:
        ModelError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It names, as warnings, the optional parts of it that are not installed.
            warnings.simplefilter("ignore")
            import do_mpc
    except ImportError as error:
        raise ModelError("the peer do-mpc is not installed", mend=INSTALL) from error
    return do_mpc


class DoMpcSide:
    """do-mpc's controller in the closed loop.

    Args:
        degree, elements: of its collocation; only the proof that both sides solve the same
            problem takes others than the defaults.
    """

    def __init__(self, case: BenchCase, degree: int = 2, elements: int = 1) -> None:
        begun = perf_counter()
        self._case = case
        self._zones = _one_sided(case)
        package = require_do_mpc()
        self._model = self._write_model(package)
        self.controller = self._write_controller(package, degree, elements)
        self._first = True
        self._cost = ca.Function(
            "cost",
            [self.controller.opt_x, self.controller.opt_p],
            [self.controller.nlp_obj],
        )
        self._built_s = perf_counter() - begun

    @property
    def built_s(self) -> float:
        return self._built_s

    def move(self, x: Vector, u_before: Vector) -> Vector:
        if self._first:
            self.controller.x0, self.controller.u0 = x, u_before
            self.controller.set_initial_guess()
            self._first = False
        return self.controller.make_step(x).ravel()

    def solved(self) -> Solved:
        """Of the last step. The cost leaves out node 0, which no controller can change."""
        controller = self.controller
        cost = float(self._cost(controller.opt_x_num, controller.opt_p_num))
        x0 = np.asarray(controller.opt_p_num["_x0"]).ravel()
        y0 = np.asarray(self._outputs(ca.DM(x0), ca.DM(self._case.u0))).ravel()
        success = bool(controller.solver_stats["success"])
        return Solved("do-mpc", success, cost - float(self._case.node_cost(y0)))

    def _outputs(self, x: Any, u: Any) -> Any:
        model = self._case.model
        return model.h(x, u, ca.DM(self._case.d), ca.DM(model.p_nominal))

    def _write_model(self, package: Any) -> Any:
        case = self._case
        model = package.model.Model("discrete" if case.linear else "continuous", "SX")
        x = ca.vertcat(*(model.set_variable("_x", v.name) for v in case.model.x))
        u = ca.vertcat(*(model.set_variable("_u", v.name) for v in case.model.u))
        if case.linear:
            a, b, drift = exact_step(case)
            rhs = ca.mtimes(a, x) + ca.mtimes(b, u) + drift
        else:
            rhs = case.model.f(x, u, ca.DM(case.d), ca.DM(case.model.p_nominal))
        for i, variable in enumerate(case.model.x):
            model.set_rhs(variable.name, rhs[i])
        model.setup()
        # Setting up replaces the symbols.
        self._x = ca.vertcat(*(model.x[v.name] for v in case.model.x))
        self._u = ca.vertcat(*(model.u[v.name] for v in case.model.u))
        return model

    def _write_controller(self, package: Any, degree: int, elements: int) -> Any:
        case = self._case
        controller = package.controller.MPC(self._model)
        settings = controller.settings
        settings.n_horizon, settings.n_robust, settings.t_step = case.intervals, 0, case.step_s
        settings.collocation_deg, settings.collocation_ni = degree, elements
        settings.store_full_solution = False
        settings.supress_ipopt_output()
        for variable in case.model.x:
            controller.scaling["_x", variable.name] = variable.span
        for variable, given in zip(case.model.u, case.inputs, strict=True):
            controller.scaling["_u", variable.name] = given.span
            controller.bounds["lower", "_u", variable.name] = given.low
            controller.bounds["upper", "_u", variable.name] = given.high
        y = self._outputs(self._x, self._u)
        at_node = ca.SX(case.node_cost(y))
        controller.set_objective(lterm=at_node + case.rest_cost(self._u), mterm=at_node)
        # Its default move penalty counts in scaled inputs, which here are spans.
        moves = {v.name: g.move_weight for v, g in zip(case.model.u, case.inputs, strict=True)}
        controller.set_rterm(**moves)
        for name, zone, sign in self._zones:
            controller.set_nl_cons(
                name,
                sign * y[zone.output] / zone.scale,
                ub=sign * (zone.high if sign > 0 else zone.low) / zone.scale,
                soft_constraint=True,
                penalty_term_cons=zone.weight,
            )
        controller.prepare_nlp()
        self._soften(controller)
        self._limit_rates(controller)
        controller.create_nlp()
        return controller

    def _soften(self, controller: Any) -> None:
        """Quadratic penalties, and the zones at the last node.

        do-mpc puts soft constraints on nodes 0..N-1. Node 0 is measured and cannot be helped: its
        constraints are lifted and its slacks serve the last node.
        """
        case, v = self._case, controller.opt_x
        w = controller.opt_x_unscaled
        last = case.intervals
        y_last = self._outputs(w["_x", last, 0, -1], w["_u", last - 1, 0])
        for name, zone, sign in self._zones:
            for k in range(case.intervals):
                controller.nlp_obj += zone.weight * v["_eps", k, 0, name] ** 2
            limit = sign * (zone.high if sign > 0 else zone.low) / zone.scale
            controller.nlp_cons.append(
                sign * y_last[zone.output] / zone.scale - v["_eps", 0, 0, name]
            )
            controller.nlp_cons_lb.append(np.array([[-np.inf]]))
            controller.nlp_cons_ub.append(np.array([[limit]]))
        if self._zones:
            # Initial condition, collocation, continuity, then the constraints of node 0.
            first = 3
            size = controller.nlp_cons[first].shape
            if size != (len(self._zones), 1):
                raise ModelError(
                    f"this release of do-mpc orders its constraints differently ({size})",
                    mend="Use do-mpc 5",
                )
            controller.nlp_cons_ub[first] = np.full(size, np.inf)

    def _limit_rates(self, controller: Any) -> None:
        v, case = controller.opt_x, self._case
        before = controller.opt_p["_u_prev"] / ca.DM([g.span for g in case.inputs])
        reach = np.array([g.rate_per_s * case.step_s / g.span for g in case.inputs])
        limited = np.flatnonzero(np.isfinite(reach))
        for k in range(case.intervals):
            move = v["_u", k, 0] - before
            before = v["_u", k, 0]
            if limited.size:
                controller.nlp_cons.append(move[limited.tolist()])
                controller.nlp_cons_lb.append(-reach[limited].reshape(-1, 1))
                controller.nlp_cons_ub.append(reach[limited].reshape(-1, 1))


def _one_sided(case: BenchCase) -> list[tuple[str, Zone, int]]:
    """(name, zone, +1 for its upper and -1 for its lower limit) of every finite limit."""
    found: list[tuple[str, Zone, int]] = []
    for i, zone in enumerate(case.zones):
        if np.isfinite(zone.low):
            found.append((f"low_{i}", zone, -1))
        if np.isfinite(zone.high):
            found.append((f"high_{i}", zone, 1))
    return found
