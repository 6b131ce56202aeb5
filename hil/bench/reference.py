"""The reference: the same problem, solved to convergence at every step.

Written down from the case alone: multiple shooting with as many Runge–Kutta steps as production
takes; where the model is stiff, collocation at Radau points of degree 3 (order 5) on two elements
per step; where it is linear, the exact discrete model. IPOPT to 1e-8. It shares nothing with the
production transcription.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import casadi as ca
import numpy as np

from controller.estimation.augmented import substeps
from hil.bench.case import BenchCase
from hil.bench.side import Solved
from plant_models.integrate import rk4
from plant_models.process import Vector, nominal

DEGREE, ELEMENTS = 3, 2
STIFF = 8
"""From that many production steps per interval on, collocation is the cheaper way."""
OPTIONS: dict[str, Any] = {
    "print_time": False,
    "error_on_fail": False,
    "show_eval_warnings": False,
    "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 500, "tol": 1e-8},
}


class ConvergedSide:
    """The whole nonlinear program and IPOPT, started from the last solution."""

    def __init__(self, case: BenchCase) -> None:
        begun = perf_counter()
        self._case = case
        self._nx, self._nu, self._n = len(case.model.x), len(case.inputs), case.intervals
        self._steps = substeps(case.model, case.step_s)
        collocated = not case.linear and self._steps >= STIFF
        self._inner = self._nx * DEGREE * ELEMENTS if collocated else 0
        self._x_scale = np.array([v.span for v in case.model.x])
        self._x_place = nominal(case.model.x)
        self._u_scale = np.array([v.span for v in case.inputs])
        self._u_place = np.array([v.low for v in case.inputs])
        self._write()
        self._guess: Vector | None = None
        self._multipliers: dict[str, Any] = {}
        self._solved = Solved("", False, float("nan"))
        self._built_s = perf_counter() - begun

    def _write(self) -> None:
        case, n, nx, nu = self._case, self._n, self._nx, self._nu
        nz = len(case.zones)
        x, u = ca.MX.sym("x", nx, n + 1), ca.MX.sym("u", nu, n)
        inner, s = ca.MX.sym("inner", self._inner, n), ca.MX.sym("s", nz, n)
        x_now, u_now = ca.MX.sym("x_now", nx), ca.MX.sym("u_now", nu)
        residual = self._residual().map(n)(x[:, :n], inner, u, x[:, 1:])
        outputs = self._outputs().map(n)(x[:, 1:], u)
        cost: Any = 0.0
        constraints: list[Any] = [ca.vec(residual), x[:, 0] - self._scaled_x(x_now)]
        zeros = np.zeros(int(residual.numel()) + nx)
        low, high = [zeros], [zeros]
        reach = np.array([v.rate_per_s * case.step_s / v.span for v in case.inputs])
        before = self._scaled_u(u_now)
        for k in range(n):
            move, before = u[:, k] - before, u[:, k]
            cost += case.move_cost(move * self._u_scale) + case.rest_cost(self._u(u[:, k]))
            cost += case.node_cost(outputs[:, k])
            constraints.append(move)
            low.append(-reach)
            high.append(reach)
            for i, zone in enumerate(case.zones):
                cost += zone.weight * (s[i, k] + s[i, k] ** 2)
                value = outputs[zone.output, k] / zone.scale
                constraints += [value + s[i, k], value - s[i, k]]
                low.append(np.array([zone.low / zone.scale, -np.inf]))
                high.append(np.array([np.inf, zone.high / zone.scale]))
        v = ca.vertcat(ca.vec(x), ca.vec(u), ca.vec(inner), ca.vec(s))
        nlp = {"x": v, "p": ca.vertcat(x_now, u_now), "f": cost, "g": ca.vertcat(*constraints)}
        self._solve = ca.nlpsol("reference", "ipopt", nlp, OPTIONS)
        endless = np.full(nx * (n + 1), np.inf)
        inside = np.full(self._inner * n, np.inf)
        self._bounds = {
            "lbx": np.concatenate([-endless, np.zeros(nu * n), -inside, np.zeros(nz * n)]),
            "ubx": np.concatenate([endless, np.ones(nu * n), inside, np.full(nz * n, np.inf)]),
            "lbg": np.concatenate(low),
            "ubg": np.concatenate(high),
        }

    def _residual(self) -> ca.Function:
        """(x, inner, u, x at the end) -> what must vanish over one step; all scaled."""
        case, nx = self._case, self._nx
        x, u = ca.SX.sym("x", nx), ca.SX.sym("u", self._nu)
        inner, end = ca.SX.sym("inner", self._inner), ca.SX.sym("end", nx)
        if case.linear:
            a, b, drift = exact_step(case)
            flown = ca.mtimes(a, self._x(x)) + ca.mtimes(b, self._u(u)) + drift
            rows = [end - self._scaled_x(flown)]
        elif not self._inner:
            flow = rk4(case.model, case.step_s, self._steps)
            d, p = ca.DM(case.d), ca.DM(case.model.p_nominal)
            rows = [end - self._scaled_x(flow(self._x(x), self._u(u), d, p))]
        else:
            rows = self._collocation(x, inner, u)
            rows.append(end - inner[-nx:])
        return ca.Function("residual", [x, inner, u, end], [ca.vertcat(*rows)])

    def _collocation(self, x: Any, inner: Any, u: Any) -> list[Any]:
        """Collocation equations; the last point of an element is its end (Radau)."""
        case, nx = self._case, self._nx
        derivative, _, _ = ca.collocation_coeff(ca.collocation_points(DEGREE, "radau"))
        points = ca.reshape(inner, nx, DEGREE * ELEMENTS)
        length_s = case.step_s / ELEMENTS
        rows: list[Any] = []
        for element in range(ELEMENTS):
            own = points[:, element * DEGREE : (element + 1) * DEGREE]
            slopes = ca.mtimes(ca.horzcat(x, own), derivative)
            for j in range(DEGREE):
                rate = self._rate(self._x(own[:, j]), self._u(u)) / self._x_scale
                rows.append(slopes[:, j] - length_s * rate)
            x = own[:, -1]
        return rows

    def _rate(self, x: Any, u: Any) -> Any:
        model = self._case.model
        return model.f(x, u, ca.DM(self._case.d), ca.DM(model.p_nominal))

    def _outputs(self) -> ca.Function:
        """(x, u), both scaled -> outputs, in units."""
        model = self._case.model
        x, u = ca.SX.sym("x", self._nx), ca.SX.sym("u", self._nu)
        y = model.h(self._x(x), self._u(u), ca.DM(self._case.d), ca.DM(model.p_nominal))
        return ca.Function("outputs", [x, u], [y])

    def _x(self, scaled: Any) -> Any:
        return scaled * self._x_scale + self._x_place

    def _scaled_x(self, x: Any) -> Any:
        return (x - self._x_place) / self._x_scale

    def _u(self, scaled: Any) -> Any:
        return scaled * self._u_scale + self._u_place

    def _scaled_u(self, u: Any) -> Any:
        return (u - self._u_place) / self._u_scale

    @property
    def built_s(self) -> float:
        return self._built_s

    def move(self, x: Vector, u_before: Vector) -> Vector:
        nx, nu, n = self._nx, self._nu, self._n
        guess = self._guess
        if guess is None:
            here = self._scaled_x(x)
            inside = np.tile(here, n * self._inner // nx)
            inputs = np.tile(self._scaled_u(u_before), n)
            slack = np.zeros(len(self._case.zones) * n)
            guess = np.concatenate([np.tile(here, n + 1), inputs, inside, slack])
        parameters = np.concatenate([x, u_before])
        result = self._solve(x0=guess, p=parameters, **self._bounds, **self._multipliers)
        success = bool(self._solve.stats()["success"])
        self._solved = Solved("ipopt", success, float(result["f"]))
        self._guess = np.asarray(result["x"], dtype=np.float64).ravel()
        self._multipliers = {"lam_x0": result["lam_x"], "lam_g0": result["lam_g"]}
        first = self._guess[nx * (n + 1) : nx * (n + 1) + nu]
        return np.clip(self._u(first), self._u_place, self._u_place + self._u_scale)

    def solved(self) -> Solved:
        return self._solved


def exact_step(case: BenchCase) -> tuple[ca.DM, ca.DM, ca.DM]:
    """(A (nx, nx), B (nx, nu), c (nx,)) of a linear case: x one step later is A x + B u + c.

    Source: Van Loan (1978), Computing integrals involving the matrix exponential.
    """
    from scipy.linalg import expm

    model = case.model
    nx, nu = len(model.x), len(model.u)
    x, u = ca.SX.sym("x", nx), ca.SX.sym("u", nu)
    rate = model.f(x, u, ca.DM(case.d), ca.DM(model.p_nominal))
    derive = ca.Function("derive", [x, u], [ca.jacobian(rate, x), ca.jacobian(rate, u), rate])
    a, b, drift = (np.asarray(m, dtype=np.float64) for m in derive(np.zeros(nx), np.zeros(nu)))
    block = np.zeros((nx + nu + 1, nx + nu + 1))
    block[:nx] = np.hstack([a, b, drift])
    whole = np.asarray(expm(block * case.step_s), dtype=np.float64)
    return ca.DM(whole[:nx, :nx]), ca.DM(whole[:nx, nx : nx + nu]), ca.DM(whole[:nx, nx + nu])
