"""The equations left when the largest grouping is eliminated: dense or sparse, whichever costs less.

Both systems hold the symmetric matrix ``H = I + K - W'W``: `K` from the groupings that stay, `W` (sparse, one row for
every eliminated coefficient) from the one that went. They factorise it, solve with it and give the elements of its
inverse that variances need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular

from send_va.errors import NotSupportedError
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.sparse_cholesky import (
    Pattern,
    analyse,
    factorise,
    find,
    places,
    selected_inverse,
    solve_lower,
    solve_upper,
)

_SMALL = 300  # coefficients up to which a dense factorisation takes no time worth saving
_FULL = 0.25  # share of non-zeros before elimination from which fill need not be measured
# Multiplications a second that LAPACK and the loops of sparse_cholesky reach on one core. On two, LAPACK nearly halves
# the time of 3,400 effects on an idle machine and multiplies it on a busy one, where its threads wait for each other.
_DENSE_SPEED, _SPARSE_SPEED = 3e10, 6e8
_MOST_BYTES = 8e9


@dataclass(frozen=True)
class Layout:
    """Where the numbers of the kept system stand; the same for every variance.

    Attributes
    ----------
    size : int
        Number of kept coefficients.
    rows, columns : array
        Element of `K` (row >= column) of every entry of the value vector.
    w_starts, w_columns : array
        `W` in compressed rows.
    q : int
        Rows of `W` for each eliminated group.
    """

    size: int
    rows: IntArray
    columns: IntArray
    w_starts: NDArray[np.int64]
    w_columns: NDArray[np.int64]
    q: int


class KeptFactor(Protocol):
    """A factorised system ``H = L L'``."""

    @property
    def logdet(self) -> float:
        """``log|H|``."""

    def half_solve(self, right: FloatArray) -> FloatArray:
        """``L^-1 right``, rows in the factor's own order."""

    def back_solve(self, half: FloatArray) -> FloatArray:
        """``L'^-1 half``, rows in the layout's order."""

    def invert(self) -> KeptInverse:
        """Elements of ``H^-1``; the factor cannot be used afterwards."""


class KeptInverse(Protocol):
    """Elements of ``H^-1``."""

    def elements(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Elements that belong to one group, or to two groups that share an eliminated one."""

    def quadratic_forms(self, w: FloatArray) -> FloatArray:
        """``W_g H^-1 W_g'`` of every eliminated group g, shape (groups, q, q)."""


class KeptSystem(Protocol):
    """A layout with what could be prepared once."""

    @property
    def layout(self) -> Layout:
        """Where the numbers stand."""

    def factorise(self, values: FloatArray, w: FloatArray) -> KeptFactor:
        """Factorise ``I + K - W'W`` given the entries of `K` and `W`."""


def kept_system(layout: Layout) -> KeptSystem:
    """Choose the cheaper of the two systems by the fill that a symbolic factorisation measures.

    Raises
    ------
    NotSupportedError
        Neither fits into the memory allowed.
    """
    if layout.size <= _SMALL:
        return DenseSystem(layout)
    pattern = _analysed(layout)
    dense_seconds = float(layout.size) ** 3 / _DENSE_SPEED
    fits = 8.0 * layout.size**2 <= _MOST_BYTES
    if pattern is not None and (3.0 * pattern.operations / _SPARSE_SPEED < dense_seconds or not fits):
        return SparseSystem(layout, pattern)
    if not fits:
        raise NotSupportedError(
            f"{layout.size:,} effects remain after the largest grouping is eliminated, and they are linked so closely "
            f"that their equations need more than {_MOST_BYTES / 1e9:.0f} GB. Leave out a grouping or a random slope, "
            "or merge small groups."
        )
    return DenseSystem(layout)


def _analysed(layout: Layout) -> Pattern | None:
    n = layout.size
    W = sp.csr_array(
        (np.ones(len(layout.w_columns)), layout.w_columns, layout.w_starts), shape=(len(layout.w_starts) - 1, n)
    )
    kept = sp.csc_array((np.ones(len(layout.rows)), (layout.rows, layout.columns)), shape=(n, n))
    linked = sp.csc_array(W.T @ W + kept + kept.T + sp.eye_array(n))
    if linked.nnz > _FULL * n**2 and 8.0 * n**2 <= _MOST_BYTES:
        return None
    return analyse(linked, most_nonzeros=_MOST_BYTES / 16.0)


@dataclass(frozen=True)
class DenseSystem:
    """The kept system as a full matrix."""

    layout: Layout

    def factorise(self, values: FloatArray, w: FloatArray) -> DenseFactor:
        """Factorise ``I + K - W'W``; its lower triangle is the upper one of the array's transpose."""
        at = self.layout
        matrix = np.zeros((at.size, at.size))
        matrix[at.rows, at.columns] = values
        matrix[np.diag_indices(at.size)] += 1.0
        _subtract_dense(at.w_starts, at.w_columns, w, matrix)
        factor, info = lapack.dpotrf(matrix.T, lower=0, clean=0, overwrite_a=1)
        if info:
            raise np.linalg.LinAlgError("the kept system is not positive definite")
        return DenseFactor(at, factor, 2.0 * float(np.log(np.diag(factor)).sum()))


@dataclass(frozen=True)
class DenseFactor:
    """``H = U'U`` with the upper triangle `upper`."""

    layout: Layout
    upper: FloatArray
    logdet: float

    def half_solve(self, right: FloatArray) -> FloatArray:
        """``U'^-1 right``."""
        return np.asarray(solve_triangular(self.upper, right, trans="T", check_finite=False))

    def back_solve(self, half: FloatArray) -> FloatArray:
        """``U^-1 half``."""
        return np.asarray(solve_triangular(self.upper, half, check_finite=False))

    def invert(self) -> DenseInverse:
        """Overwrite the factor by the inverse."""
        inverse, _ = lapack.dpotri(self.upper, lower=0, overwrite_c=1)
        return DenseInverse(self.layout, inverse.T)


@dataclass(frozen=True)
class DenseInverse:
    """The lower triangle of ``H^-1``."""

    layout: Layout
    lower: FloatArray

    def elements(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Elements of the inverse."""
        return np.asarray(self.lower[np.maximum(rows, columns), np.minimum(rows, columns)])

    def quadratic_forms(self, w: FloatArray) -> FloatArray:
        """``W_g H^-1 W_g'``, shape (groups, q, q)."""
        at = self.layout
        return np.asarray(_quadratic_dense(at.w_starts, at.w_columns, w, self.lower, at.q))


@dataclass(frozen=True)
class SparseSystem:
    """The kept system on the pattern of its Cholesky factor."""

    layout: Layout
    pattern: Pattern

    def factorise(self, values: FloatArray, w: FloatArray) -> SparseFactor:
        """Factorise ``I + K - W'W``."""
        at, pattern = self.layout, self.pattern
        rows, columns = pattern.position[at.rows], pattern.position[at.columns]
        filled = np.bincount(
            places(pattern.starts, pattern.rows, rows, columns), weights=values, minlength=len(pattern.rows)
        )
        filled[pattern.starts[:-1]] += 1.0
        _subtract_sparse(at.w_starts, pattern.position[at.w_columns], w, pattern.starts, pattern.rows, filled)
        if not factorise(pattern.starts, pattern.rows, filled):
            raise np.linalg.LinAlgError("the kept system is not positive definite")
        return SparseFactor(at, pattern, filled, 2.0 * float(np.log(filled[pattern.starts[:-1]]).sum()))


@dataclass(frozen=True)
class SparseFactor:
    """``P H P' = L L'``."""

    layout: Layout
    pattern: Pattern
    values: FloatArray
    logdet: float

    def half_solve(self, right: FloatArray) -> FloatArray:
        """``L^-1 P right``."""
        half = np.ascontiguousarray(right[self.pattern.order])
        solve_lower(self.pattern.starts, self.pattern.rows, self.values, half)
        return half

    def back_solve(self, half: FloatArray) -> FloatArray:
        """``P' L'^-1 half``."""
        solved = half.copy()
        solve_upper(self.pattern.starts, self.pattern.rows, self.values, solved)
        return np.asarray(solved[self.pattern.position])

    def invert(self) -> SparseInverse:
        """Elements of the inverse on the pattern."""
        inverse = selected_inverse(self.pattern.starts, self.pattern.rows, self.values)
        return SparseInverse(self.layout, self.pattern, inverse)


@dataclass(frozen=True)
class SparseInverse:
    """Elements of ``H^-1`` on the pattern of the factor."""

    layout: Layout
    pattern: Pattern
    values: FloatArray

    def elements(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """Elements of the inverse that the pattern holds."""
        pattern = self.pattern
        at = places(pattern.starts, pattern.rows, pattern.position[rows], pattern.position[columns])
        return np.asarray(self.values[at])

    def quadratic_forms(self, w: FloatArray) -> FloatArray:
        """``W_g H^-1 W_g'``, shape (groups, q, q)."""
        at, pattern = self.layout, self.pattern
        columns = pattern.position[at.w_columns]
        return np.asarray(_quadratic_sparse(at.w_starts, columns, w, pattern.starts, pattern.rows, self.values, at.q))


@numba.njit(cache=True, nogil=True)
def _subtract_dense(
    w_starts: NDArray[np.int64], w_columns: NDArray[np.int64], w: FloatArray, matrix: FloatArray
) -> None:
    for row in range(len(w_starts) - 1):
        for s in range(w_starts[row], w_starts[row + 1]):
            for t in range(w_starts[row], s + 1):  # columns ascend within a row of W
                matrix[w_columns[s], w_columns[t]] -= w[s] * w[t]


@numba.njit(cache=True, nogil=True)
def _subtract_sparse(
    w_starts: NDArray[np.int64],
    w_columns: NDArray[np.integer],
    w: FloatArray,
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: FloatArray,
) -> None:
    for row in range(len(w_starts) - 1):
        for s in range(w_starts[row], w_starts[row + 1]):
            for t in range(w_starts[row], s + 1):
                values[find(starts, rows, w_columns[s], w_columns[t])] -= w[s] * w[t]


@numba.njit(cache=True, nogil=True)
def _quadratic_dense(
    w_starts: NDArray[np.int64], w_columns: NDArray[np.int64], w: FloatArray, lower: FloatArray, q: int
) -> FloatArray:
    groups = (len(w_starts) - 1) // q
    result = np.zeros((groups, q, q))
    for g in range(groups):
        for a in range(q):
            for b in range(a + 1):
                total = 0.0
                for s in range(w_starts[g * q + a], w_starts[g * q + a + 1]):
                    for t in range(w_starts[g * q + b], w_starts[g * q + b + 1]):
                        i, j = w_columns[s], w_columns[t]
                        total += w[s] * w[t] * lower[max(i, j), min(i, j)]
                result[g, a, b] = total
                result[g, b, a] = total
    return result


@numba.njit(cache=True, nogil=True)
def _quadratic_sparse(
    w_starts: NDArray[np.int64],
    w_columns: NDArray[np.integer],
    w: FloatArray,
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    inverse: FloatArray,
    q: int,
) -> FloatArray:
    groups = (len(w_starts) - 1) // q
    result = np.zeros((groups, q, q))
    for g in range(groups):
        for a in range(q):
            for b in range(a + 1):
                total = 0.0
                for s in range(w_starts[g * q + a], w_starts[g * q + a + 1]):
                    for t in range(w_starts[g * q + b], w_starts[g * q + b + 1]):
                        total += w[s] * w[t] * inverse[find(starts, rows, w_columns[s], w_columns[t])]
                result[g, a, b] = total
                result[g, b, a] = total
    return result


def stacked_blocks(n_groups: int, q: int, offset: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the (groups, q, q) diagonal blocks of a grouping that begins at `offset`."""
    index = offset + np.arange(n_groups * q).reshape(n_groups, q)
    rows = np.broadcast_to(index[:, :, None], (n_groups, q, q))
    columns = np.broadcast_to(index[:, None, :], (n_groups, q, q))
    return rows.ravel(), columns.ravel()


def concatenated(parts: Sequence[IntArray]) -> IntArray:
    """Index arrays end to end; an empty array of none."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.intp)
