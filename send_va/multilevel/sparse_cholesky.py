"""Sparse Cholesky factor of a symmetric matrix of fixed pattern, and the elements of its inverse on that pattern.

SciPy has no sparse Cholesky and no selected inverse. The packages that bind CHOLMOD come with a copyleft licence
(cvxopt) or without wheels (scikit-sparse), so the textbook algorithms stand here as compiled loops: elimination tree
and row subtrees for the pattern, a left-looking factorisation, and the Takahashi recursion for the inverse.

References
----------
Davis (2006), Direct Methods for Sparse Linear Systems, doi:10.1137/1.9780898718881 (chapter 4).
Erisman & Tinney (1975), doi:10.1145/360680.360704 (elements of the inverse on the pattern of the factor).
Liu (1985), doi:10.1145/214392.214398 (multiple minimum degree ordering).
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import spilu

from send_va.multilevel.crossproducts import FloatArray, IntArray


@dataclass(frozen=True)
class Pattern:
    """Non-zeros of the factor, rows and columns in elimination order.

    Attributes
    ----------
    order : array, shape (n,)
        ``order[k]`` is the row of the matrix eliminated as number k.
    position : array, shape (n,)
        The inverse of `order`.
    starts : array, shape (n + 1,)
        Where each column begins among `rows`.
    rows : array, shape (non-zeros,)
        Rows of each column, ascending, the diagonal first.
    """

    order: IntArray
    position: IntArray
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def operations(self) -> float:
        """Multiplications of one factorisation: the sum of squared column counts."""
        return float((np.diff(self.starts).astype(np.float64) ** 2).sum())


def fill_reducing_order(matrix: sp.csc_array) -> IntArray:
    """Minimum-degree order of a symmetric pattern.

    SuperLU computes it; an incomplete factorisation that drops everything spares the numerical work.

    Parameters
    ----------
    matrix : sparse array, shape (n, n)
        Any symmetric matrix with the pattern; values do not matter.
    """
    n = matrix.shape[0]
    dominant = sp.csc_matrix(abs(matrix) + sp.diags_array(np.asarray(abs(matrix).sum(axis=0)).ravel() + 1.0))
    options = {"SymmetricMode": True}
    factor = spilu(
        dominant, drop_tol=1.0, fill_factor=1.0, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options
    )
    order = np.empty(n, dtype=np.intp)
    order[factor.perm_c] = np.arange(n)
    return order


def analyse(matrix: sp.csc_array, most_nonzeros: float) -> Pattern | None:
    """Pattern of the Cholesky factor; None where it would hold more than `most_nonzeros`.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> chain = sp.diags_array([np.ones(4), np.ones(3), np.ones(3)], offsets=[0, 1, -1], format="csc")
    >>> len(analyse(chain, 100).rows)
    7
    """
    order = fill_reducing_order(matrix)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    upper = sp.csc_array(sp.triu(matrix[order][:, order], format="csc"))
    starts, columns = upper.indptr.astype(np.int64), upper.indices.astype(np.int64)
    parent = _elimination_tree(starts, columns)
    counts = _column_counts(starts, columns, parent)
    if counts.sum() > most_nonzeros:
        return None
    edges = np.concatenate([[0], np.cumsum(counts)])
    return Pattern(order, position, edges, _fill_pattern(starts, columns, parent, edges))


@numba.njit(cache=True, nogil=True)
def _elimination_tree(starts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    n = len(starts) - 1
    parent = np.full(n, -1, dtype=np.int64)
    ancestor = np.full(n, -1, dtype=np.int64)
    for k in range(n):
        for at in range(starts[k], starts[k + 1]):
            i = rows[at]
            while i != -1 and i < k:
                above = ancestor[i]
                ancestor[i] = k
                if above == -1:
                    parent[i] = k
                i = above
    return parent


@numba.njit(cache=True, nogil=True)
def _column_counts(starts: NDArray[np.int64], rows: NDArray[np.int64], parent: NDArray[np.int64]) -> NDArray[np.int64]:
    n = len(parent)
    counts = np.ones(n, dtype=np.int64)
    seen = np.full(n, -1, dtype=np.int64)
    for k in range(n):
        seen[k] = k
        for at in range(starts[k], starts[k + 1]):
            i = rows[at]
            while seen[i] != k:
                counts[i] += 1
                seen[i] = k
                i = parent[i]
    return counts


@numba.njit(cache=True, nogil=True)
def _fill_pattern(
    starts: NDArray[np.int64], rows: NDArray[np.int64], parent: NDArray[np.int64], edges: NDArray[np.int64]
) -> NDArray[np.int64]:
    n = len(parent)
    filled = np.empty(edges[n], dtype=np.int64)
    free = edges[:n].copy()
    seen = np.full(n, -1, dtype=np.int64)
    for k in range(n):
        filled[free[k]] = k
        free[k] += 1
        seen[k] = k
        for at in range(starts[k], starts[k + 1]):
            i = rows[at]
            while seen[i] != k:
                filled[free[i]] = k
                free[i] += 1
                seen[i] = k
                i = parent[i]
    return filled


@numba.njit(cache=True, nogil=True)
def find(starts: NDArray[np.int64], rows: NDArray[np.int64], i: int, j: int) -> int:
    """Place of element (i, j), in elimination order, among the stored lower triangle."""
    column, row = min(i, j), max(i, j)
    low, high = starts[column], starts[column + 1] - 1
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return int(low)


@numba.njit(cache=True, nogil=True)
def places(
    starts: NDArray[np.int64], rows: NDArray[np.int64], i: NDArray[np.integer], j: NDArray[np.integer]
) -> NDArray[np.int64]:
    """:func:`find` for many elements."""
    found = np.empty(len(i), dtype=np.int64)
    for k in range(len(i)):
        found[k] = find(starts, rows, i[k], j[k])
    return found


@numba.njit(cache=True, nogil=True)
def factorise(starts: NDArray[np.int64], rows: NDArray[np.int64], values: FloatArray) -> bool:
    """Overwrite the lower triangle by its Cholesky factor, column by column; False where it is not positive."""
    n = len(starts) - 1
    work = np.zeros(n)
    head = np.full(n, -1, dtype=np.int64)  # columns whose next element stands in this row
    link = np.full(n, -1, dtype=np.int64)
    at = starts[:n].copy()
    for j in range(n):
        for t in range(starts[j], starts[j + 1]):
            work[rows[t]] = values[t]
        k = head[j]
        while k != -1:
            following = link[k]
            ljk = values[at[k]]
            for t in range(at[k], starts[k + 1]):
                work[rows[t]] -= ljk * values[t]
            at[k] += 1
            if at[k] < starts[k + 1]:
                row = rows[at[k]]
                link[k] = head[row]
                head[row] = k
            k = following
        if not work[j] > 0.0:
            return False
        root = np.sqrt(work[j])
        values[starts[j]] = root
        for t in range(starts[j] + 1, starts[j + 1]):
            values[t] = work[rows[t]] / root
        at[j] = starts[j] + 1
        if at[j] < starts[j + 1]:
            row = rows[at[j]]
            link[j] = head[row]
            head[row] = j
    return True


@numba.njit(cache=True, nogil=True)
def solve_lower(starts: NDArray[np.int64], rows: NDArray[np.int64], values: FloatArray, right: FloatArray) -> None:
    """Overwrite `right` (n, m) by ``L^-1 right``."""
    for j in range(len(starts) - 1):
        right[j] /= values[starts[j]]
        for t in range(starts[j] + 1, starts[j + 1]):
            right[rows[t]] -= values[t] * right[j]


@numba.njit(cache=True, nogil=True)
def solve_upper(starts: NDArray[np.int64], rows: NDArray[np.int64], values: FloatArray, right: FloatArray) -> None:
    """Overwrite `right` (n, m) by ``L'^-1 right``."""
    for j in range(len(starts) - 2, -1, -1):
        for t in range(starts[j] + 1, starts[j + 1]):
            right[j] -= values[t] * right[rows[t]]
        right[j] /= values[starts[j]]


@numba.njit(cache=True, nogil=True)
def selected_inverse(starts: NDArray[np.int64], rows: NDArray[np.int64], values: FloatArray) -> FloatArray:
    """Elements of ``(L L')^-1`` on the pattern of L: Takahashi's recursion, last column first."""
    n = len(starts) - 1
    inverse = np.empty_like(values)
    work = np.zeros(n)
    for j in range(n - 1, -1, -1):
        first, last = starts[j] + 1, starts[j + 1]
        for t in range(first, last):
            work[rows[t]] = 0.0
        for t in range(first, last):
            k = rows[t]
            work[k] += inverse[starts[k]] * values[t]
            at = starts[k] + 1
            for s in range(t + 1, last):
                while rows[at] < rows[s]:
                    at += 1
                work[rows[s]] += inverse[at] * values[t]
                work[k] += inverse[at] * values[s]
        root = values[starts[j]]
        product = 0.0
        for t in range(first, last):
            inverse[t] = -work[rows[t]] / root
            product += values[t] * inverse[t]
        inverse[starts[j]] = (1.0 / root - product) / root
    return inverse
