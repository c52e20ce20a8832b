"""Sparse Cholesky factor and selected inverse against dense algebra."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.multilevel.sparse_cholesky import (
    Pattern,
    analyse,
    factorise,
    places,
    selected_inverse,
    solve_lower,
    solve_upper,
)


def positive(rng: np.random.Generator, n: int, links: int) -> sp.csc_array:
    i, j = rng.integers(0, n, (2, links))
    lower = sp.csc_array((rng.normal(size=links), (i, j)), shape=(n, n))
    return sp.csc_array(lower @ lower.T + 0.5 * sp.eye_array(n))


def filled(matrix: sp.csc_array, pattern: Pattern) -> np.ndarray:
    """Lower triangle of the reordered matrix on the pattern of its factor."""
    entries = sp.coo_array(matrix)
    i, j = pattern.position[entries.row], pattern.position[entries.col]
    at = places(pattern.starts, pattern.rows, i[i >= j], j[i >= j])
    return np.bincount(at, weights=entries.data[i >= j], minlength=len(pattern.rows))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 80))
def test_factor_solution_and_inverse_equal_dense_algebra(seed: int, n: int, links: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = positive(rng, n, links)
    pattern = analyse(matrix, n**2)
    values = filled(matrix, pattern)
    assert factorise(pattern.starts, pattern.rows, values)
    lower = np.zeros((n, n))
    columns = np.repeat(np.arange(n), np.diff(pattern.starts))
    lower[pattern.rows, columns] = values
    reordered = matrix.toarray()[np.ix_(pattern.order, pattern.order)]
    np.testing.assert_allclose(lower @ lower.T, reordered, atol=1e-10)
    right = rng.normal(size=(n, 3))
    solved = right.copy()
    solve_lower(pattern.starts, pattern.rows, values, solved)
    solve_upper(pattern.starts, pattern.rows, values, solved)
    np.testing.assert_allclose(reordered @ solved, right, atol=1e-8)
    inverse = np.linalg.inv(reordered)
    selected = selected_inverse(pattern.starts, pattern.rows, values)
    np.testing.assert_allclose(selected, inverse[pattern.rows, columns], atol=1e-8)


def test_a_chain_does_not_fill() -> None:
    """A tridiagonal matrix of order n has a factor with 2n - 1 non-zeros in a minimum-degree order."""
    n = 500
    chain = sp.diags_array([np.full(n, 2.0), -np.ones(n - 1), -np.ones(n - 1)], offsets=[0, 1, -1], format="csc")
    assert len(analyse(chain, 1e6).rows) == 2 * n - 1


def test_too_much_fill_is_reported_before_it_is_stored() -> None:
    assert analyse(positive(np.random.default_rng(1), 50, 400), 60) is None


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan])
def test_a_matrix_that_is_not_positive_definite_has_no_factor(value: float) -> None:
    matrix = sp.csc_array(np.diag([1.0, 1.0, 1.0]))
    pattern = analyse(matrix, 9)
    values = filled(matrix, pattern)
    values[-1] = value
    assert not factorise(pattern.starts, pattern.rows, values)
