"""The linear-quadratic regulator of the problem: the cost behind its horizon, and the rung that
needs no solver.

Source: Rawlings, Mayne & Diehl 2017, sections 1.3 and 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import casadi as ca
import numpy as np
from scipy.linalg import LinAlgError, solve_discrete_are

from controller.errors import ModelError
from controller.estimation.augmented import operating_point
from controller.mpc.instance import Instance
from controller.mpc.stage import Stage
from plant_models.process import Vector

REGULARIZATION = 1e-8
# At the target already: what the prediction may wander about there, in spans.
NEAR = 0.02


def lqr_weight(stage: Stage) -> Vector:
    """Weight (ns, ns) on the squared distance of the last node from the target.

    It is the cost-to-go of the linear-quadratic regulator at the operating point, with the weights
    of the CVs that have a setpoint, of resting values and of moves. With it and without active
    limits, the horizon's length does not matter.

    Raises:
        ModelError: the problem has no such cost: something neither settles nor is weighed.
    """
    tracked = np.array([cv.weight if cv.setpoint is not None else 0.0 for cv in stage.cvs])
    a, weight, moves = _linear_quadratic(stage, tracked)
    # What the last node costs by itself is in the problem already.
    rest = _cost_to_go(a, a[:, stage.augmented.nx :], weight, moves) - weight
    return (rest + rest.T) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Regulator:
    """Moves toward the target by a fixed gain, cut to rates and limits.

    Attributes:
        gain: (n_mv, ns), from the distance to the target to the move, both scaled.
    """

    stage: Stage
    gain: Vector

    def __call__(self, instance: Instance) -> tuple[Vector, Vector] | str:
        """Setpoints (N, n_mv) and outputs (N, ny) in units as the model foresees them; or why this
        is not the way: the numbers run away, or it does not lead toward the target."""
        stage = self.stage
        s, nx = instance.s0, stage.augmented.nx
        free = instance.theta[:, stage.nt - len(stage.mvs) :]
        begun = float(np.max(np.abs(s - instance.terminal_at)))
        setpoints: list[Vector] = []
        outputs: list[Vector] = []
        for k in range(stage.horizon.intervals):
            v = -self.gain @ (s - instance.terminal_at)
            v = np.clip(v, instance.v_low[k], instance.v_high[k]) * stage.horizon.moving[k]
            v = np.clip(s[nx:] + v, instance.u_low[k], instance.u_high[k]) - s[nx:]
            s = np.asarray(stage.interval(s, v, instance.theta[k]), dtype=np.float64).ravel()
            if not np.isfinite(s).all():
                return "the prediction is not finite"
            s[nx:] = np.where(free[k] > 0, s[nx:], instance.s0[nx:])
            u, y = stage.outputs(s, instance.theta[k])
            setpoints.append(np.asarray(u, dtype=np.float64).ravel())
            outputs.append(np.asarray(y, dtype=np.float64).ravel())
        ended = float(np.max(np.abs(s - instance.terminal_at)))
        if not np.all(np.isfinite(outputs)):
            return "the prediction is not finite"
        if ended > max(begun, NEAR):
            return f"it would lead away from the target: from {begun:.2g} to {ended:.2g} spans"
        return np.array(setpoints), np.array(outputs)


def regulator(stage: Stage) -> Regulator | str:
    """The regulator of a problem at its operating point, every CV weighed; or why there is none."""
    weights = np.array([cv.weight for cv in stage.cvs])
    a, weight, moves = _linear_quadratic(stage, weights)
    b = a[:, stage.augmented.nx :]
    try:
        cost = _cost_to_go(a, b, weight, moves)
    except ModelError as error:
        return error.what
    gain = np.linalg.solve(moves + b.T @ cost @ b, b.T @ cost @ a)
    return Regulator(stage, np.asarray(gain, dtype=np.float64))


def _cost_to_go(a: Vector, b: Vector, weight: Vector, moves: Vector) -> Vector:
    try:
        return np.asarray(solve_discrete_are(a, b, weight, moves), dtype=np.float64)
    except (LinAlgError, ValueError) as error:
        raise ModelError(
            f"there is no LQR at the operating point: {error}",
            mend="Give every MV a target_weight, or write mpc: {terminal: none}.",
        ) from error


def _linear_quadratic(stage: Stage, weights: Vector) -> tuple[Vector, Vector, Vector]:
    """State matrix (ns, ns), weight of the states (ns, ns) and of the moves (n_mv, n_mv), scaled.

    `weights` are those of the CVs, (n_cv,).
    """
    augmented = stage.augmented
    x, u, d = operating_point(augmented.model)
    index, n_mv = [mv.input for mv in stage.mvs], len(stage.mvs)
    s = np.concatenate(
        [(x - stage.x_offset) / stage.x_scale, (u[index] - stage.u_offset) / stage.u_scale]
    )
    theta = np.concatenate([np.zeros(augmented.nw), d, u, np.ones(n_mv)])
    at, t = ca.MX.sym("s", stage.ns), ca.MX.sym("theta", stage.nt)
    slopes = ca.Function(
        "slopes",
        [at, t],
        [
            ca.densify(ca.jacobian(stage.interval(at, np.zeros(n_mv), t), at)),
            ca.densify(ca.jacobian(stage.controlled(at, t), at)),
        ],
    )
    a, c = (np.asarray(m, dtype=np.float64) for m in slopes(s, theta))
    weight = c.T @ (weights[:, None] * c)
    weight[augmented.nx :, augmented.nx :] += np.diag([mv.target_weight for mv in stage.mvs])
    moves = np.diag([max(mv.move_suppression, REGULARIZATION) for mv in stage.mvs])
    return a, weight, moves
