"""Ranked limits: a quadratic program in which no rank is worsened for the sake of a later one.

For each rank, first 1, then 2 …: minimise the weighted slack of its rows, with the slack of the
earlier ranks frozen; then minimise the cost with all slacks frozen (Sorensen & Cutler 1998; Rao &
Rawlings 1999). When all rows can be kept, one solve proves it and no rank is visited.

Dense and solved by the dual active-set method of DAQP (Arnström, Bemporad & Axehill 2022): exact,
finite, and a function of its arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import daqp
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from plant_models.process import Vector

Indices = NDArray[np.intp]

# DAQP takes anything beyond as no limit at all.
INFINITE = 1e30
# Beside the slack itself, a little of its square: of several ways to give up equally much, the
# one that spreads it. Small enough that a zone is never left while it can be kept.
SPREAD = 1e-3
# What is not decided yet stays where it is; the slack found is off by half of this at most.
# (For a linear program the answer is exact below a threshold: Mangasarian & Meyer 1979.)
ANCHOR = 1e-5
# A frozen slack may grow by what so much of an MV's span does to it, but at least so much of a
# scale, or rounding would make later ranks infeasible.
PLAY = 1e-7
PRIMAL_TOLERANCE = 1e-9
# Of the gradient of the Lagrangian, relative to the multipliers.
STATIONARITY_TOLERANCE = 1e-9
# A row is given up when its slack is more than this, in scales.
GIVEN_UP = 1e-6
COARSER = 10.0
ITERATIONS = 300
# Second derivative of a slack, in scales per span squared, beyond which it decides a direction.
CURVED = 1e-4
# DAQP's words for: no feasible point, and equalities of which one follows from the others.
INFEASIBLE, DEPENDENT = -1, -6


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Which rows are of one rank, first rank first, and their weights, at most 1 in each rank."""

    ranks: tuple[int, ...]
    levels: tuple[Indices, ...]
    weight: Vector


def ranking(ranks: Sequence[int], weights: Sequence[float]) -> Ranking:
    """Sort rows (m,) by rank. Only the ratio of weights within a rank matters."""
    order = sorted(set(ranks))
    levels = tuple(np.flatnonzero(np.array(ranks) == rank) for rank in order)
    weight = np.array(weights, dtype=np.float64)
    for level in levels:
        weight[level] /= np.max(weight[level])
    return Ranking(tuple(order), levels, weight)


class RankedProgram(Struct, frozen=True, eq=False):
    """min gradient'v + v'hessian v/2 over v (n,) with low <= (v, rows v) <= high (n + m,).

    The limits of v are hard, those of the rows are soft by rank. Everything scaled to order one.

    Attributes:
        hessian: (n, n), positive definite.
        curvature: per level, what the slack's second derivative in v adds (n, n), positive
            semidefinite; None or empty for linear rows.
    """

    rows: Vector
    low: Vector
    high: Vector
    hessian: Vector
    gradient: Vector
    curvature: tuple[Vector | None, ...] = ()
    crossed: bool = False


class Stage(Struct, frozen=True, eq=False):
    """One solve: its `level` (None for the cost), and the duals of bounds and rows.

    Duals are positive at an upper limit. Those of a level price the limits in units of its
    weighted slack, those of the last stage in units of the cost.
    """

    level: int | None
    bounds: Vector
    rows: Vector


class RankedSolution(Struct, frozen=True, eq=False):
    """v (n,), slack per row (m,), and every stage that gave up something, the cost's last."""

    v: Vector
    slack: Vector
    stages: tuple[Stage, ...]
    solves: int


class UnsolvedError(ArithmeticError):
    """A quadratic program that must have a solution got none that can be believed."""


def solve_ranked(program: RankedProgram, order: Ranking) -> RankedSolution:
    """Solve a ranked program.

    Raises:
        UnsolvedError: the solver failed, or its answer does not meet the optimality conditions.
    """
    m, n = program.rows.shape
    if not program.crossed:
        answer = _quadratic(
            program.hessian, program.gradient, program.rows, program.low, program.high
        )
        if answer is not None:
            v, dual = answer
            return RankedSolution(v, np.zeros(m), (Stage(None, dual[:n], dual[n:]),), 1)
    try:
        return _by_rank(program, order, 1.0)
    except UnsolvedError:  # Gains far apart, and limits that meet at a small angle.
        return _by_rank(program, order, COARSER)


def _by_rank(program: RankedProgram, order: Ranking, coarse: float) -> RankedSolution:
    """One solve per rank over v and all slacks (n + m,), then one for the cost.

    Anchor and play are `coarse` times as large as usual. Rows of later ranks have no limits yet,
    slacks of earlier ranks are capped at what was found.
    """
    m, n = program.rows.shape
    low, high = np.full(n + 3 * m, -INFINITE), np.full(n + 3 * m, INFINITE)
    low[:n], high[:n], low[n : n + m] = program.low[:n], program.high[:n], 0.0
    row_low, row_high = program.low[n:], program.high[n:]
    rows, hessian = np.zeros((2 * m, n + m)), np.zeros((n + m, n + m))
    rows[:m, :n] = rows[m:, :n] = program.rows
    rows[:m, n:], rows[m:, n:] = np.eye(m), -np.eye(m)
    diagonal = hessian.ravel()[:: n + m + 1]
    anchor = coarse * ANCHOR
    diagonal[:] = anchor
    gradient, slack = np.zeros(n + m), np.zeros(m)
    play = coarse * PLAY * np.maximum(1.0, np.sqrt((program.rows**2).sum(axis=1)))
    stages: list[Stage] = []
    solves = 1
    for number, level in enumerate(order.levels):
        weight = order.weight[level]
        low[n + m + level], high[n + 2 * m + level] = row_low[level], row_high[level]
        gradient[n + level], diagonal[n + level] = weight, SPREAD * weight
        curve = program.curvature[number] if program.curvature else None
        if curve is not None:
            hessian[:n, :n] += curve
        answer = _quadratic(hessian, gradient, rows, low, high)
        solves += 1
        if answer is None:
            raise UnsolvedError(f"no answer for the slack of rank {order.ranks[number]}")
        found, dual = answer
        slack[level] = np.maximum(found[n + level], 0.0)
        gradient[n + level], diagonal[n + level] = 0.0, anchor
        high[n + level] = slack[level] + play[level]
        given_up = float(slack[level].max()) > GIVEN_UP
        if given_up:
            at = n + m
            of_rows = dual[at : at + m] + dual[at + m : at + 2 * m]
            stages.append(Stage(number, dual[:n], of_rows))
        if curve is not None:
            hessian[:n, :n] -= curve
            diagonal[:n] = anchor
            if given_up:
                # On the solutions of a convex program, what curves is the same everywhere.
                bends, along = np.linalg.eigh(curve)
                along = along.T[bends > CURVED]
                value = along @ found[:n]
                rows = np.concatenate([rows, np.pad(along, ((0, 0), (0, m)))])
                low = np.concatenate([low, value - PLAY])
                high = np.concatenate([high, value + PLAY])
    give = slack + play
    answer = _quadratic(
        program.hessian,
        program.gradient,
        np.concatenate([program.rows, rows[2 * m :, :n]]),
        np.concatenate([low[:n], row_low - give, low[n + 3 * m :]]),
        np.concatenate([high[:n], row_high + give, high[n + 3 * m :]]),
    )
    if answer is None:
        raise UnsolvedError("no answer with the slacks that were just found")
    v, dual = answer
    last = Stage(None, dual[:n], dual[n : n + m])
    return RankedSolution(v, slack, (*stages, last), solves + 1)


def _quadratic(
    hessian: Vector, gradient: Vector, rows: Vector, low: Vector, high: Vector
) -> tuple[Vector, Vector] | None:
    """Minimiser (n,) and duals (n + m,) of bounds and rows; None where no feasible point is found.

    Raises:
        UnsolvedError: neither was shown.
    """
    size = gradient.size
    found: tuple[Any, float, int, dict[str, Any]] = daqp.solve(
        hessian,
        gradient,
        rows,
        high,
        low,
        primal_tol=PRIMAL_TOLERANCE,
        iter_limit=ITERATIONS,
        eps_prox=0.0,
    )
    solution, _, flag, info = found
    if flag in (INFEASIBLE, DEPENDENT):
        return None
    if flag != 1:
        raise UnsolvedError(f"the active-set solver ended with {flag}")
    dual: Vector = info["lam"]
    residual = hessian.dot(solution)
    residual += gradient
    residual += dual[:size]
    residual += dual[size:].dot(rows)
    if not residual.dot(residual) <= STATIONARITY_TOLERANCE**2 * (1.0 + dual.dot(dual)):
        raise UnsolvedError("the active-set solver called a point optimal that is not")
    return solution, dual
