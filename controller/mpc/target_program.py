"""The target as a nonlinear program: slower, for where successive linearization does not converge.

One interior-point solve (IPOPT) per rank, then one for the cost, each certified on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from controller.estimation.augmented import AugmentedModel
from controller.mpc.linearization import S_PER_H, placement
from controller.mpc.problem import ControlledVariable, ManipulatedVariable, Situation
from controller.mpc.ranked import ANCHOR, GIVEN_UP, SPREAD, Ranking, Stage, UnsolvedError
from controller.mpc.verify import certify
from plant_models.process import Vector, nominal

# An interior point needs an inside: so much a frozen slack may grow, in scales.
PLAY = 1e-6
ITERATIONS = 100
TRACE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class NonlinearAnswer:
    """Scaled states (nx,) and MVs (n_mv,), y (ny,) in its units, slack per CV in scales (n_cv,),
    and the stages."""

    states: Vector
    mvs: Vector
    y: Vector
    slack: Vector
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True, eq=False)
class NonlinearTarget:
    """min rank_weight'(slack + its square) or the cost, over (x, MVs, slack), subject to
    f(x, u, d, w) = 0 and the limits."""

    solve: ca.Function
    check: ca.Function
    read: ca.Function
    ranking: Ranking
    sizes: tuple[int, int, int, int]
    x_span: Vector
    x_nominal: Vector
    index: tuple[int, ...]
    base: Vector
    span: Vector

    def __call__(
        self, situation: Situation, low: Vector, high: Vector, wish: Vector, weight: Vector
    ) -> NonlinearAnswer:
        """Solve rank by rank, from the present state.

        Args:
            low, high: limits (n + m,) as in the ranked program; wish, weight: (n,).

        Raises:
            UnsolvedError: one of the solves cannot be certified.
        """
        nx, n_mv, k, n_cv = self.sizes
        n = n_mv + k
        now = (situation.u_now[list(self.index)] - self.base) / self.span
        xs = (situation.x - self.x_nominal) / self.x_span
        v = np.concatenate([xs, np.clip(now, low[:n_mv], high[:n_mv]), np.zeros(n_cv)])
        fixed = np.concatenate([situation.d, situation.w, situation.u_now, wish, weight, xs])
        free, cap = np.full(nx, np.inf), np.full(n_cv, np.inf)
        nothing = np.full(n_cv, np.inf)
        row_low, row_high = np.full(n_cv, -np.inf), np.full(n_cv, np.inf)
        stages: list[Stage] = []
        p = fixed
        for number in range(len(self.ranking.levels) + 1):
            rank_weight, cost = np.zeros(n_cv), 1.0
            level = np.zeros(0, dtype=np.intp)
            if number < len(self.ranking.levels):
                level = self.ranking.levels[number] - k
                level, cost = level[level >= 0], 0.0
                if not level.size:
                    continue  # The rates of integrating states are equalities here.
                rank_weight[level] = self.ranking.weight[level + k]
                row_low[level], row_high[level] = low[n + k + level], high[n + k + level]
            p = np.concatenate([fixed, rank_weight, [cost]])
            lbx = np.concatenate([-free, low[:n_mv], np.zeros(n_cv)])
            ubx = np.concatenate([free, high[:n_mv], cap])
            lbg = np.concatenate([np.zeros(nx), row_low, -nothing])
            ubg = np.concatenate([np.zeros(nx), nothing, row_high])
            v, lam_x, lam_g = self._certified(v, p, lbx, ubx, lbg, ubg)
            slack = np.maximum(v[nx + n_mv :], 0.0)
            cap[level] = slack[level] + PLAY
            if cost or float(slack[level].max()) > GIVEN_UP:
                # An interior point leaves a trace of a price on every limit.
                rows = _clear(lam_g[nx : nx + n_cv] + lam_g[nx + n_cv :])
                stages.append(
                    Stage(
                        None if cost else number,
                        np.concatenate([_clear(lam_x[nx : nx + n_mv]), np.zeros(k)]),
                        np.concatenate([np.zeros(k), rows]),
                    )
                )
        y = np.asarray(self.read(v, p)).ravel()
        slack = np.where(np.isinf(cap), 0.0, np.maximum(cap - PLAY, 0.0))
        return NonlinearAnswer(v[:nx], v[nx : nx + n_mv], y, slack, tuple(stages))

    def _certified(
        self, guess: Vector, p: Vector, lbx: Vector, ubx: Vector, lbg: Vector, ubg: Vector
    ) -> tuple[Vector, Vector, Vector]:
        try:
            result = self.solve(x0=guess, p=p, lbx=lbx, ubx=ubx, lbg=lbg, ubg=ubg)
        except RuntimeError as error:  # CasADi reports every plugin failure as this type.
            raise UnsolvedError(f"broke: {error}") from error
        v, lam_x, lam_g = (np.asarray(result[key]).ravel() for key in ("x", "lam_x", "lam_g"))
        g, gradient = (np.asarray(m).ravel() for m in self.check(v, p, lam_g, lam_x))
        fault = certify(
            np.concatenate([v, g]),
            gradient,
            np.concatenate([lbx, lbg]),
            np.concatenate([ubx, ubg]),
            np.concatenate([lam_x, lam_g]),
        ).fault
        if fault:
            raise UnsolvedError(fault)
        return v, lam_x, lam_g


def _clear(duals: Vector) -> Vector:
    return np.where(np.abs(duals) > TRACE, duals, 0.0)


def nonlinear_target(
    augmented: AugmentedModel,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    cost_of: tuple[Vector, Vector],
    ranking: Ranking,
    integrating: int,
) -> NonlinearTarget:
    """Build the program once; arguments as for the linearizer."""
    model = augmented.model
    nx, nu, nd, nw = len(model.x), len(model.u), len(model.d), augmented.nw
    n_mv, n_cv, n = len(mvs), len(cvs), len(mvs) + integrating
    x_span, x_nominal = np.array([v.span for v in model.x]), nominal(model.x)
    v = ca.MX.sym("v", nx + n_mv + n_cv)
    xs, us, slack = v[:nx], v[nx : nx + n_mv], v[nx + n_mv :]
    sizes = [nd, nw, nu, n, n, nx, n_cv, 1]
    p = ca.MX.sym("p", sum(sizes))
    d, w, u_now, wish, weight, xs_now, rank_weight, economic = ca.vertsplit(
        p, [0, *np.cumsum(sizes).tolist()]
    )
    place, low = placement(mvs, nu)
    is_mv = place > 0
    u = u_now - ca.mtimes(is_mv, ca.mtimes(is_mv.T, u_now)) + ca.mtimes(place, us) + low
    x = xs * ca.DM(x_span) + ca.DM(x_nominal)
    y = augmented.output(x, u, d, w)
    rows = y[[cv.output for cv in cvs]] / ca.DM([cv.scale for cv in cvs])
    cost = (
        ca.dot(ca.DM(cost_of[0]), us)
        + ca.dot(ca.DM(cost_of[1]), y)
        + ca.dot(weight[:n_mv], (us - wish[:n_mv]) ** 2) / 2
    )
    anchor = ca.sumsqr(us - wish[:n_mv]) * ANCHOR / 2
    # What integrates may rest anywhere: where it is, unless a limit wants otherwise.
    rest = ca.sumsqr(xs - xs_now) * ANCHOR / 2 if integrating else 0.0
    f = (
        ca.dot(rank_weight, slack + SPREAD * slack**2 / 2)
        + economic * cost
        + (1 - economic) * anchor
        + rest
    )
    # Time is scaled by an hour so that balances and limits are of the same order.
    balance = augmented.derivative(x, u, d, w) / ca.DM(x_span) * S_PER_H
    g = ca.vertcat(balance, rows + slack, rows - slack)
    lam_g, lam_x = ca.MX.sym("lam_g", g.numel()), ca.MX.sym("lam_x", v.numel())
    gradient = ca.gradient(f, v) + ca.jtimes(g, v, lam_g, True) + lam_x
    solve = ca.nlpsol(
        "target_ipopt",
        "ipopt",
        {"x": v, "p": p, "f": f, "g": g},
        {
            "print_time": False,
            "error_on_fail": False,
            "show_eval_warnings": False,
            "ipopt": {"print_level": 0, "sb": "yes", "max_iter": ITERATIONS, "tol": 1e-8},
        },
    )
    return NonlinearTarget(
        solve,
        ca.Function("check", [v, p, lam_g, lam_x], [g, gradient]),
        ca.Function("read", [v, p], [y]),
        ranking,
        (nx, n_mv, integrating, n_cv),
        x_span,
        x_nominal,
        tuple(mv.input for mv in mvs),
        np.array([mv.low for mv in mvs]),
        np.array([mv.span for mv in mvs]),
    )
