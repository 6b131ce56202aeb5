"""Balances written out number by number are solved as exactly as their condition allows."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest

from controller.mpc.linearization import solution_of


def written_out(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    a, b = ca.SX.sym("a", *matrix.shape), ca.SX.sym("b", *right.shape)
    return np.asarray(ca.Function("solved", [a, b], [solution_of(a, b)])(matrix, right))


def conditioned(condition: float, seed: int) -> np.ndarray:
    """A random 4 by 4 matrix with singular values from 1 down to 1 / condition."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    right, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    return left @ np.diag(np.geomspace(1.0, 1.0 / condition, 4)) @ right


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e8])
@pytest.mark.parametrize("seed", range(6))
def test_the_error_grows_with_the_condition_and_not_with_its_square(
    condition: float, seed: int
) -> None:
    matrix = conditioned(condition, seed)
    wanted = np.random.default_rng(seed + 100).standard_normal((4, 3))
    found = written_out(matrix, matrix @ wanted)
    assert np.abs(found - wanted).max() < 100.0 * condition * np.finfo(float).eps


@pytest.mark.parametrize(
    "matrix", [np.array([[0.1, 0.3], [0.2, 0.6]]), np.zeros((2, 2)), conditioned(1e16, 3)]
)
def test_what_is_singular_has_no_answer(matrix: np.ndarray) -> None:
    assert np.isnan(written_out(matrix, np.eye(len(matrix)))).all()


def test_columns_of_any_size_are_solved() -> None:
    matrix = np.array([[0.0, 1e6], [1e-3, 0.0]])
    found = written_out(matrix, np.array([[2e6], [3e-3]]))
    assert found.ravel() == pytest.approx([3.0, 2.0], rel=1e-12)
