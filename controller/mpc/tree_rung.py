"""The scenario tree as a rung of the ladder: situations go to every branch, one plan comes back."""

from __future__ import annotations

import numpy as np

from controller.mpc.instance import Instance, gathered
from controller.mpc.solvers import Answer, Trajectory, make_solver
from controller.mpc.transcription import transcribe
from controller.mpc.tree import ScenarioTree
from plant_models.process import Vector


class TreeRung:
    """From an instance of the nominal problem to the plan of the tree's leader.

    Its first move is shared by all branches. The tree's iterate is kept in the trajectory that it
    leaves; it is longer than one of the nominal problem, and a solver begins cold from either one
    that is not its own.

    Args:
        sqp, ipopt: budgets of iterations; ipopt has its turn where SQP is refused.
    """

    def __init__(self, tree: ScenarioTree, sqp: int, ipopt: int) -> None:
        self.tree = tree
        program = transcribe(tree.stage)
        self._sqp = make_solver("sqp", program, sqp)
        self._ipopt = make_solver("ipopt", program, ipopt)
        nominal, count = tree.nominal, len(tree.paths)
        nx, n_mv, ny = nominal.augmented.nx, len(nominal.mvs), len(nominal.augmented.model.y)
        states = [np.arange(branch * nx, (branch + 1) * nx) for branch in range(count)]
        setpoints = [count * nx + np.arange(i * n_mv, (i + 1) * n_mv) for i in range(count)]
        self._of_branch = [np.concatenate(pair) for pair in zip(states, setpoints, strict=True)]
        leader = tree.leader
        self._leading_moves = slice(leader * n_mv, (leader + 1) * n_mv)
        self._leading_outputs = slice(leader * ny, (leader + 1) * ny)
        # Where branches are together their setpoints are one: the limits of the mover do, and the
        # variables of the others are free to be zero.
        self._idle = np.zeros((nominal.horizon.intervals, count), dtype=bool)
        self._stretch = np.ones((nominal.horizon.intervals, count))
        for k, (movers, factors) in enumerate(zip(tree.movers, tree.factors, strict=True)):
            self._idle[k] = movers != np.arange(count)
            self._stretch[k] = 1.0 / factors

    def __call__(self, instance: Instance, begin: Trajectory) -> Answer:
        """The first certified answer; else the last one, whose certificate says what is wrong.

        Raises:
            RuntimeError: a solver broke.
        """
        spread, start = self.instance(instance), self._begin(begin)
        first = self._sqp(spread, start)
        if not first.certificate.fault:
            return self._leading(first, f"sqp {first.status}")
        second = self._ipopt(spread, start)
        return self._leading(second, f"sqp {first.status}, ipopt {second.status}")

    def instance(self, nominal: Instance) -> Instance:
        """The instance of all branches: each as the nominal one, weighted by its share."""
        tree, count = self.tree, len(self.tree.paths)
        w, shared = tree.weights, tree.nominal.augmented

        def per_branch(rows: Vector, share: bool = False) -> Vector:
            factor = w if share else np.ones(count)
            return (rows[..., None, :] * factor[:, None]).reshape(*rows.shape[:-1], -1)

        def of_nodes(s: Vector) -> Vector:
            return self._nodes(s[None, :])[0]

        terminal = np.zeros((tree.stage.ns, tree.stage.ns))
        for index, weight in zip(self._of_branch, w, strict=True):
            terminal[np.ix_(index, index)] = weight * nominal.terminal
        n_mv = len(tree.nominal.mvs)
        idle, stretch = (np.repeat(part, n_mv, 1) for part in (self._idle, self._stretch))
        nw, nd = shared.nw, len(shared.model.d)
        flags = np.eye(len(nominal.theta), tree.robust_horizon)
        rest = nominal.theta[:, nw + nd :]
        theta = np.hstack(
            [
                nominal.theta[:, list(tree.disturbances)],
                nominal.theta[:, nw : nw + nd],
                flags,
                per_branch(rest[:, : rest.shape[1] - n_mv]),
                per_branch(rest[:, rest.shape[1] - n_mv :]),
            ]
        )
        return gathered(
            s0=of_nodes(nominal.s0),
            rest=per_branch(nominal.rest),
            rest_weight=per_branch(nominal.rest_weight, share=True),
            move_weight=per_branch(nominal.move_weight, share=True),
            terminal=terminal,
            terminal_at=of_nodes(nominal.terminal_at),
            theta=theta,
            wanted=per_branch(nominal.wanted),
            track=per_branch(nominal.track, share=True),
            price=per_branch(nominal.price, share=True),
            curve=per_branch(nominal.curve, share=True),
            v_low=np.where(idle, -1.0, stretch * per_branch(nominal.v_low)),
            v_high=np.where(idle, 1.0, stretch * per_branch(nominal.v_high)),
            u_low=np.where(idle, -np.inf, per_branch(nominal.u_low)),
            u_high=np.where(idle, np.inf, per_branch(nominal.u_high)),
            z_low=per_branch(nominal.z_low),
            z_high=per_branch(nominal.z_high),
        )

    def _nodes(self, s: Vector) -> Vector:
        """Nodes (n, ns) of one branch for all of them."""
        made = np.empty((len(s), self.tree.stage.ns))
        for index in self._of_branch:
            made[:, index] = s
        return made

    def _begin(self, begin: Trajectory) -> Trajectory:
        v = begin.v[:, None, :] * np.where(self._idle, 0.0, self._stretch)[:, :, None]
        return Trajectory(self._nodes(begin.s), v.reshape(len(v), -1), begin.iterate)

    def _leading(self, answer: Answer, status: str) -> Answer:
        tree, trajectory = self.tree, answer.trajectory
        return Answer(
            Trajectory(
                trajectory.s[:, self._of_branch[tree.leader]],
                tree.moves(trajectory.v)[:, tree.leader],
                trajectory.iterate,
            ),
            answer.moves[:, self._leading_moves],
            answer.prediction[:, self._leading_outputs],
            answer.cost,
            answer.iterations,
            status,
            answer.certificate,
        )
