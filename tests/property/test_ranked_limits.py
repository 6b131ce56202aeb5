"""Ranked limits never trade a higher rank for a lower one, shown against independent solvers."""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from scipy.optimize import linprog

from controller.mpc.ranked import (
    GIVEN_UP,
    PLAY,
    SPREAD,
    RankedProgram,
    RankedSolution,
    Ranking,
    ranking,
    solve_ranked,
)

# What scipy's and cvxpy's solvers and ours may differ by, in scales.
ALIKE = 2e-6


@dataclass(frozen=True)
class Case:
    """A random plant of one to four MVs, one to six CVs and one to three ranks."""

    program: RankedProgram
    order: Ranking


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rows = rng.normal(size=(m, n))
    if draw(st.booleans()):
        rows[rng.random((m, n)) < 0.4] = 0.0
    low = 1.5 * rng.normal(size=m)
    setpoints = np.array(draw(st.lists(st.booleans(), min_size=m, max_size=m)))
    high = low + np.where(setpoints, 0.0, np.abs(rng.normal(size=m)))
    low = np.where(~setpoints & (rng.random(m) < 0.3), -np.inf, low)
    ranks = draw(st.lists(st.integers(1, 3), min_size=m, max_size=m))
    program = RankedProgram(
        rows,
        np.concatenate([np.zeros(n), low]),
        np.concatenate([np.ones(n), high]),
        np.diag(rng.uniform(1e-4, 1.0, n)),
        rng.normal(size=n),
    )
    return Case(program, ranking(ranks, rng.uniform(0.5, 5.0, m).tolist()))


def violation(program: RankedProgram, v: np.ndarray) -> np.ndarray:
    n, y = v.size, program.rows @ v
    return np.maximum(np.maximum(program.low[n:] - y, y - program.high[n:]), 0.0)


def least(case: Case, number: int, caps: np.ndarray) -> tuple[float, np.ndarray]:
    """Least weighted slack of one level by HiGHS, with the slacks capped; and those slacks."""
    program, level = case.program, case.order.levels[number]
    m, n = program.rows.shape
    unit = np.eye(m)
    a = np.block([[-program.rows, -unit], [program.rows, -unit]])
    b = np.concatenate([-program.low[n:], program.high[n:]])
    cost = np.zeros(n + m)
    cost[n + level] = case.order.weight[level]
    kept = np.isfinite(b)
    bounds = [*zip(program.low[:n], program.high[:n], strict=True), *((0.0, c) for c in caps)]
    found = linprog(cost, A_ub=a[kept], b_ub=b[kept], bounds=bounds)
    assert found.status == 0, found.message
    return float(found.fun), found.x[n + level]


@settings(max_examples=150, deadline=None)
@given(cases())
def test_no_rank_is_worse_for_the_sake_of_a_later_one(case: Case) -> None:
    solution = solve_ranked(case.program, case.order)
    n = solution.v.size
    assert np.all(solution.v >= case.program.low[:n] - 1e-7)
    assert np.all(solution.v <= case.program.high[:n] + 1e-7)
    final = violation(case.program, solution.v)
    caps = np.full(final.size, np.inf)
    for number, level in enumerate(case.order.levels):
        best, slack = least(case, number, caps)
        weight = case.order.weight[level]
        # The little square spreads slack: it may cost that much of the plain sum, and no more.
        spread = 0.5 * SPREAD * float(weight @ slack**2)
        assert float(weight @ final[level]) <= best + spread + ALIKE
        caps[level] = np.maximum(final[level], solution.slack[level]) + PLAY


@settings(max_examples=60, deadline=None)
@given(cases())
def test_later_ranks_change_nothing_for_earlier_ones(case: Case) -> None:
    """Without the last rank, the others give up exactly the same."""
    if len(case.order.levels) < 2:
        return
    *earlier, last = case.order.levels
    n = case.program.gradient.size
    low, high = case.program.low.copy(), case.program.high.copy()
    low[n + last], high[n + last] = -np.inf, np.inf
    alone = solve_ranked(structs.replace(case.program, low=low, high=high), case.order)
    together = solve_ranked(case.program, case.order)
    for level in earlier:
        assert together.slack[level] == pytest.approx(alone.slack[level], abs=ALIKE)


def reference(case: Case) -> np.ndarray:
    """The same sequence written in cvxpy, solved by Clarabel; the slack of every row."""
    program, order = case.program, case.order
    m, n = program.rows.shape
    low, high = program.low[n:], program.high[n:]
    v, s = cp.Variable(n), cp.Variable(m, nonneg=True)
    y = program.rows @ v
    limits = [v >= program.low[:n], v <= program.high[:n]]
    slack = np.zeros(m)
    for level in order.levels:
        bounded = level[np.isfinite(low[level])]
        limits += [y[bounded] + s[bounded] >= low[bounded], y[level] - s[level] <= high[level]]
        weight = order.weight[level]
        cost = weight @ s[level] + 0.5 * SPREAD * weight @ cp.square(s[level])
        cp.Problem(cp.Minimize(cost), limits).solve(
            solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
        )
        slack[level] = np.maximum(s.value[level], 0.0)
        limits.append(s[level] <= slack[level] + PLAY)
    return slack


@settings(max_examples=25, deadline=None)
@given(cases())
def test_the_slacks_are_those_of_the_program_written_in_cvxpy(case: Case) -> None:
    solution = solve_ranked(case.program, case.order)
    expected = reference(case)
    # The play of one rank moves the next ones, more so where limits meet at a small angle.
    assert solution.slack == pytest.approx(expected, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(cases(), cases())
def test_answers_do_not_depend_on_what_was_solved_before(first: Case, second: Case) -> None:
    def bits(solution: RankedSolution) -> tuple[bytes, ...]:
        duals = [part for stage in solution.stages for part in (stage.bounds, stage.rows)]
        return tuple(a.tobytes() for a in (solution.v, solution.slack, *duals))

    before = bits(solve_ranked(first.program, first.order))
    solve_ranked(second.program, second.order)
    assert bits(solve_ranked(first.program, first.order)) == before


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_cost_is_the_least_with_the_slacks_that_were_found(case: Case) -> None:
    """Optimality conditions of the last stage: stationary, right signs, nothing for free."""
    program, solution = case.program, solve_ranked(case.program, case.order)
    last = solution.stages[-1]
    assert last.level is None
    n, v = solution.v.size, solution.v
    if len(solution.stages) == 1 and np.all(solution.slack <= GIVEN_UP):
        gradient = program.hessian @ v + program.gradient + last.bounds + last.rows @ program.rows
        assert np.max(np.abs(gradient)) <= 1e-5 * max(1.0, float(np.max(np.abs(last.rows))))
    values = np.concatenate([v, program.rows @ v])
    play = PLAY * np.maximum(1.0, np.linalg.norm(program.rows, axis=1))
    give = np.concatenate([np.zeros(n), solution.slack + play])
    dual = np.concatenate([last.bounds, last.rows])
    scale = max(1.0, float(np.max(np.abs(dual))))
    high = np.minimum(program.high + give - values, 1e3)
    low = np.minimum(values - program.low + give, 1e3)
    assert np.all(np.where(dual > 0, dual * high, 0.0) <= 1e-5 * scale)
    assert np.all(np.where(dual < 0, -dual * low, 0.0) <= 1e-5 * scale)
