"""Linear models: the states eliminated, the dense QP over the moves solved by DAQP.

Condensing (Maciejowski 2002, section 3.1) leaves one variable per move. Everything but the
right-hand sides is constant for given weights and free MVs, so it is factorised once; DAQP
(Arnström, Bemporad & Axehill 2022) is a dual active-set method that begins at the active set of
the cycle before. Zones are soft by a linear and a quadratic price, as everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import casadi as ca
import daqp
import numpy as np
from numpy.typing import NDArray

from controller.errors import ModelError
from controller.mpc.instance import Instance
from controller.mpc.solvers import Answer, Trajectory
from controller.mpc.stage import Stage
from controller.mpc.verify import Certificate, certify
from plant_models.process import Vector

REGULARIZATION = 1e-8
ITERATIONS = 2000
# Different sets of weights and free MVs that are kept factorised.
KEPT = 8
ACTIVE, LOWER, SOFT = 1, 2, 8
INSIDE = 1e-7
"""Scaled slack below which a zone counts as kept."""
FAR = 1e6
"""Scaled distance at which a limit stands that does not exist."""
PRICELESS = 1e-9
"""Smallest quadratic price of slack, so that its reciprocal exists."""


@dataclass(frozen=True, slots=True, eq=False)
class _Response:
    """Rows over all nodes: start @ (s0, theta of an interval that is like all others, 1), or with
    a theta of its own in every interval `state` @ (s0, 1) + `drive` @ theta (N * nt,); and what
    moves @ v adds, v (moves,)."""

    start: Vector
    state: Vector
    drive: Vector
    moves: Vector

    def free(self, s0: Vector, theta: Vector) -> Vector:
        """Rows without any move."""
        if (theta == theta[0]).all():
            return self.start @ np.concatenate((s0, theta[0], _ONE))
        return self.state @ np.concatenate((s0, _ONE)) + self.drive @ theta.ravel()


_ONE = np.ones(1)


def _stack(parts: list[_Response]) -> _Response:
    return _Response(
        *(
            np.ascontiguousarray(np.vstack([getattr(p, name) for p in parts]))
            for name in ("start", "state", "drive", "moves")
        )
    )


def is_linear(stage: Stage) -> bool:
    """Whether intervals, CVs and outputs are affine with constant factors, the cost linear."""
    at, (after, z, y), cost = _expressions(stage)
    bent = ca.which_depends(ca.vertcat(after, z, y, cost), at, 2, True)
    return not any(bent)


def _expressions(stage: Stage) -> tuple[Any, tuple[Any, Any, Any], Any]:
    at = stage.symbol.sym("at", stage.ns + stage.nt)
    s, theta = at[: stage.ns], at[stage.ns :]
    still = stage.symbol.zeros(len(stage.mvs))
    _, y = stage.outputs(s, theta)
    three = (stage.interval(s, still, theta), stage.controlled(s, theta), y)
    return at, three, stage.economic(s, theta)


class _Condenser:
    """Eliminates the states: s_next = a (s + free v in the u-part) + e theta + c."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        at, three, cost = _expressions(stage)
        parts = [m for e in (*three, cost) for m in (ca.jacobian(e, at), e)]
        zero = np.zeros(stage.ns + stage.nt)
        values = ca.Function("linear", [at], [ca.densify(part) for part in parts])(zero)
        after, c, z, z_c, y, y_c, r, r_c = (np.asarray(v, dtype=np.float64) for v in values)
        ns = stage.ns
        self.a, self.e, self.c = after[:, :ns], after[:, ns:], c.ravel()
        self.cv = (z[:, :ns], z[:, ns:], z_c.ravel())
        self.output = (y[:, :ns], y[:, ns:], y_c.ravel())
        self.everything = (np.eye(ns), np.zeros((ns, stage.nt)), np.zeros(ns))
        self.rate = (r[:, :ns], r[:, ns:], r_c.ravel())

    def response(self, rows: tuple[Vector, Vector, Vector], nodes: list[int]) -> _Response:
        """How rows f s + g theta + h of some nodes (0 is behind the first interval) respond."""
        f, g, h = rows
        stage, count = self.stage, f.shape[0]
        n, n_mv, nx = stage.horizon.intervals, len(stage.mvs), stage.augmented.nx
        reach = [f]  # f a^k
        for _ in range(n):
            reach.append(reach[-1] @ self.a)
        sums = np.cumsum([r @ self.c for r in reach], axis=0)
        state = np.vstack([reach[k + 1] for k in nodes])
        drive = np.zeros((len(nodes), count, n, stage.nt))
        moves = np.zeros((len(nodes), count, n, n_mv))
        for row, k in enumerate(nodes):
            for j in range(k + 1):
                drive[row, :, j] = reach[k - j] @ self.e
                moves[row, :, j] = reach[k - j + 1][:, nx:]
            drive[row, :, k] += g
        moving = [k for k in range(n) if stage.horizon.moving[k]]
        size = len(nodes) * count
        constant = np.concatenate([sums[k] + h for k in nodes])[:, None]
        steady = drive.sum(axis=2).reshape(size, -1)
        return _Response(
            np.hstack([state, steady, constant]),
            np.hstack([state, constant]),
            drive.reshape(size, -1),
            moves[:, :, moving].reshape(size, -1),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """One factorised QP: what depends on free MVs and weights."""

    model: Any
    hessian: Vector
    rows: Vector
    response: Vector
    free: Vector
    sense: NDArray[np.intc]
    from_cvs: Vector
    from_setpoints: Vector
    from_end: Vector
    fixed: Vector
    price: Vector
    curve: Vector


class CondensedQp:
    """The rung for linear models. A function of its arguments: the factorised QPs are a cache of
    what follows from weights and free MVs, and every solve begins at the active set it is given.

    Raises:
        ModelError: the problem is not linear.
    """

    def __init__(self, stage: Stage) -> None:
        if not is_linear(stage):
            raise ModelError(
                f"model {stage.augmented.model.name} is not linear: its QP changes every cycle",
                mend="Leave the choice of the solver to Loopwright.",
            )
        self._stage = stage
        condenser, n, n_mv = _Condenser(stage), stage.horizon.intervals, len(stage.mvs)
        everywhere = list(range(n))
        self._moving = [k for k in everywhere if stage.horizon.moving[k]]
        parts = [
            condenser.response(condenser.cv, everywhere),
            condenser.response(condenser.everything, [n - 1]),
            condenser.response(condenser.output, everywhere),
            condenser.response(condenser.rate, everywhere),
        ]
        ends = np.cumsum([len(part.start) for part in parts]).tolist()
        self._cvs, self._end, self._outputs, self._rate = (
            slice(low, high) for low, high in zip([0, *ends[:-1]], ends, strict=True)
        )
        self._response = _stack(parts)
        setpoints = tuple(part[stage.augmented.nx :] for part in condenser.everything)
        self._setpoints = condenser.response(setpoints, everywhere).moves  # pyright: ignore[reportArgumentType]
        self._at_moves = np.concatenate([np.arange(k * n_mv, (k + 1) * n_mv) for k in self._moving])
        self._later = self._one_interval_on()
        self._kept: OrderedDict[bytes, _Prepared] = OrderedDict()

    def _one_interval_on(self) -> NDArray[np.intp] | None:
        """Per row of the QP the one that meant the same a cycle ago; None where rows mean the same
        from cycle to cycle, because an interval is longer than a cycle or moves come in blocks."""
        horizon = self._stage.horizon
        if horizon.cycle_s != horizon.step_s or horizon.blocks:
            return None
        n, n_mv, n_cv = horizon.intervals, len(self._stage.mvs), len(self._stage.cvs)
        begin, parts = 0, list[NDArray[np.intp]]()
        for width in (n_mv, n_mv, n_cv):
            rows = begin + np.arange(n * width).reshape(n, width)
            parts.append(np.concatenate([rows[1:], rows[-1:]]).ravel())
            begin += n * width
        return np.concatenate(parts)

    def __call__(self, instance: Instance, begin: Trajectory) -> Answer:
        answer = self._solved(instance, begin.active)
        if answer.certificate.fault and begin.active is not None:
            # Begun at an active set of another problem, rounding may end it beside the answer.
            return self._solved(instance, None)
        return answer

    def _solved(self, instance: Instance, active: NDArray[np.int8] | None) -> Answer:
        """The answer, begun at the active set of a cycle ago, or at none."""
        stage, qp = self._stage, self._prepared(instance)
        free = self._response.free(instance.s0, instance.theta)
        cvs, now = free[self._cvs], instance.s0[stage.augmented.nx :]
        gradient = (
            qp.from_cvs @ (cvs - instance.wanted.ravel())
            + qp.from_setpoints @ (now - instance.rest)
            + qp.from_end @ (free[self._end] - instance.terminal_at)
            + qp.fixed
        )
        moving = self._moving
        low = np.concatenate((instance.v_low[moving], instance.u_low[moving] - now), axis=None)
        high = np.concatenate((instance.v_high[moving], instance.u_high[moving] - now), axis=None)
        low = np.maximum(np.concatenate((low, instance.z_low.ravel() - cvs)), -FAR)
        high = np.minimum(np.concatenate((high, instance.z_high.ravel() - cvs)), FAR)
        qp.model.update(f=gradient, bupper=high, blower=low, sense=self._sense(qp, active))
        v, _, flag, info = qp.model.solve()
        lam = info["lam"]
        reached = free + qp.response @ v
        moves = np.zeros(instance.v_low.shape)
        moves[moving] = v.reshape(len(moving), -1)
        setpoints = now + np.cumsum(qp.free * moves, axis=0)
        slack, certificate = self._certify(qp, (v, lam), (gradient, low, high))
        y = reached[self._outputs].reshape(len(moves), -1)
        return Answer(
            Trajectory(
                np.repeat(instance.s0[None, :], len(moves) + 1, axis=0),
                moves,
                active=np.sign(lam).astype(np.int8),
            ),
            setpoints * stage.u_scale + stage.u_offset,
            y,
            self._cost(instance, reached, moves, setpoints, slack),
            int(info["iterations"]),
            f"DAQP exit flag {flag}",
            certificate,
        )

    def _sense(self, qp: _Prepared, active: NDArray[np.int8] | None) -> NDArray[np.intc]:
        """The kind of every row and whether it is active at the beginning."""
        if active is None or active.size != qp.sense.size:
            return qp.sense.copy()
        active = active if self._later is None else active[self._later]
        return qp.sense | np.where(active < 0, ACTIVE | LOWER, active).astype(np.intc)

    def _prepared(self, instance: Instance) -> _Prepared:
        free = instance.theta[0, self._stage.nt - len(self._stage.mvs) :]
        weights = (
            free,
            instance.track,
            instance.price,
            instance.curve,
            instance.rest_weight,
            instance.move_weight,
            instance.terminal,
        )
        key = b"".join(w.tobytes() for w in weights)
        found = self._kept.get(key)
        if found is None:
            found = self._factorize(instance, free)
            self._kept[key] = found
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return found

    def _factorize(self, instance: Instance, free: Vector) -> _Prepared:
        n, n_mv, moves = self._stage.horizon.intervals, len(self._stage.mvs), len(self._moving)
        scale = np.tile(free, moves)
        response, setpoints = self._response.moves * scale, self._setpoints * scale
        cvs, end = response[self._cvs], response[self._end]
        from_cvs = cvs.T * (2.0 * instance.track.ravel())
        from_setpoints = setpoints.T * np.tile(2.0 * instance.rest_weight, n)
        from_end = end.T @ (2.0 * instance.terminal)
        own = np.tile(2.0 * instance.move_weight, moves) + REGULARIZATION
        hessian = from_cvs @ cvs + from_setpoints @ setpoints + from_end @ end + np.diag(own)
        hessian = (hessian + hessian.T) / 2
        rows = np.ascontiguousarray(np.vstack([setpoints[self._at_moves], cvs]))
        size, zones, price = scale.size + len(rows), len(cvs), instance.price.ravel()
        curve = np.maximum(2.0 * instance.curve.ravel(), PRICELESS)
        model = daqp.Model()
        model.settings = {"primal_tol": 1e-9, "iter_limit": ITERATIONS}
        sense = np.zeros(size, dtype=np.intc)
        sense[size - zones :] = SOFT
        far = np.full(size, FAR)
        model.setup(hessian, np.zeros(scale.size), rows, far, -far, sense)
        rho, linear = np.ones(size), np.zeros(size)
        rho[size - zones :], linear[size - zones :] = 1.0 / curve, price
        model.soft_weights(rho_l=rho, rho_u=rho, w_l=linear, w_u=linear)
        return _Prepared(
            model=model,
            hessian=hessian,
            rows=rows,
            response=response,
            free=free,
            sense=sense,
            from_cvs=from_cvs,
            from_setpoints=from_setpoints.reshape(-1, n, n_mv).sum(axis=1),
            from_end=from_end,
            fixed=response[self._rate].sum(axis=0),
            price=price,
            curve=curve,
        )

    def _certify(
        self,
        qp: _Prepared,
        answer: tuple[Vector, Vector],
        given: tuple[Vector, Vector, Vector],
    ) -> tuple[Vector, Certificate]:
        """Slack of the zones (N * n_cv,) and the certificate of an answer."""
        (v, lam), (gradient, low, high), zones = answer, given, qp.price.size
        values = np.concatenate((v, qp.rows @ v))
        slack = np.maximum(np.maximum(low - values, values - high), 0.0)
        slack[: slack.size - zones] = 0.0
        priced, paid = slack[slack.size - zones :], np.abs(lam[lam.size - zones :])
        lagrangian = qp.hessian @ v + gradient + lam[: v.size] + lam[v.size :] @ qp.rows
        # In a zone that is left the multiplier is the slope of the price; at its limit, at most.
        over = paid - (qp.price + qp.curve * priced)
        mismatch = np.where(priced > INSIDE, np.abs(over), np.maximum(over, 0.0))
        gradient = np.concatenate((lagrangian, mismatch))
        return priced, certify(values, gradient, low - slack, high + slack, lam)

    def _cost(
        self, instance: Instance, reached: Vector, moves: Vector, setpoints: Vector, slack: Vector
    ) -> float:
        error, away = reached[self._cvs] - instance.wanted.ravel(), setpoints - instance.rest
        end = reached[self._end] - instance.terminal_at
        return float(
            instance.track.ravel() @ (error * error)
            + ((away * away) @ instance.rest_weight).sum()
            + ((moves * moves) @ instance.move_weight).sum()
            + end @ (instance.terminal @ end)
            + reached[self._rate].sum()
            + (instance.price.ravel() + instance.curve.ravel() * slack) @ slack
        )
