"""One pass over the records for crossed groupings: sums within every grouping and within every pair of groupings.

The likelihood of a Gaussian model with groupings t = 1..T depends on the records only through ``[X y]'W[X y]``, the
sums ``Z_t'W[X y]``, the block-diagonal ``Z_t'W Z_t`` and the sparse ``Z_s'W Z_t``, whose blocks are the pairs of groups
that share a record. No array here is larger than the number of such pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray, IntArray


@dataclass(frozen=True)
class GroupSums:
    """Sums within the groups of one grouping.

    Attributes
    ----------
    own : array, shape (groups, q, q)
        ``sum_i w_i z_i z_i'`` over the records of each group.
    cross : array, shape (groups, q, m)
        ``sum_i w_i z_i r_i'``, where ``r_i`` is the row of fixed-effects columns and outcome.
    counts : array, shape (groups,)
        Number of records.
    """

    own: FloatArray
    cross: FloatArray
    counts: FloatArray

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.own)

    @property
    def q(self) -> int:
        """Random effects per group."""
        return int(self.own.shape[1])


@dataclass(frozen=True)
class PairSums:
    """Sums within the pairs of groups, of two groupings, that share a record.

    Attributes
    ----------
    first, second : int
        Positions of the two groupings.
    left, right : array, shape (pairs,)
        Group of the first and of the second grouping.
    values : array, shape (pairs, q_first, q_second)
        ``sum_i w_i z_i(first) z_i(second)'``.
    """

    first: int
    second: int
    left: IntArray
    right: IntArray
    values: FloatArray

    def turned(self) -> PairSums:
        """The same sums with the groupings in the other order."""
        return PairSums(self.second, self.first, self.right, self.left, self.values.transpose(0, 2, 1))


@dataclass(frozen=True)
class CrossedProducts:
    """Everything a crossed Gaussian model needs of the records.

    Attributes
    ----------
    columns : tuple of str
        Names of the m columns: fixed effects, then the outcome.
    total : array, shape (m, m)
    groups : tuple of GroupSums
    pairs : tuple of PairSums
        One for every two groupings, in the order (0, 1), (0, 2), ..., (1, 2), ...
    n_records : float
    center : array, shape (m,)
        What was subtracted from the columns.
    log_weights : float
        ``sum_i log(w_i)`` over records with a precision weight; 0 without.
    """

    columns: tuple[str, ...]
    total: FloatArray
    groups: tuple[GroupSums, ...]
    pairs: tuple[PairSums, ...]
    n_records: float
    center: FloatArray
    log_weights: float = 0.0


def crossed_products(
    rows: FloatArray,
    columns: Sequence[str],
    codes: Sequence[IntArray],
    effects: Sequence[FloatArray],
    *,
    center: FloatArray | None = None,
    weights: FloatArray | None = None,
    frequencies: FloatArray | None = None,
) -> CrossedProducts:
    """Sum products of columns within groups and pairs of groups.

    Parameters
    ----------
    rows : array, shape (n, m)
        Fixed-effects columns and outcome, one record a row.
    columns : sequence of str, length m
    codes : sequence of integer arrays, shape (n,)
        Group of every record, 0 to groups - 1 without gaps, one array for each grouping.
    effects : sequence of arrays, shape (n, q)
        Random-effects columns of each grouping, as they are: only `rows` are centred.
    center : array, shape (m,), optional
        Subtracted from the columns of `rows`; zeros by default.
    weights, frequencies : array, shape (n,), optional
        Precision weights (residual variance is ``scale / weight``); how many identical records a row stands for.

    Returns
    -------
    CrossedProducts

    Raises
    ------
    InputError
        Shapes that do not match.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((3, 1))
    >>> y = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 5.0]])
    >>> sums = crossed_products(y, ["one", "y"], [np.array([0, 0, 1]), np.array([0, 1, 1])], [one, one])
    >>> sums.pairs[0].left, sums.pairs[0].right
    (array([0, 0, 1]), array([0, 1, 1]))
    """
    n, m = rows.shape
    if len(columns) != m or any(len(part) != n for part in (*codes, *effects)):
        raise InputError("columns, group codes and random effects must describe the same rows and columns")
    shift = np.zeros(m) if center is None else np.asarray(center, dtype=np.float64)
    moved = rows - shift if shift.any() else rows
    given = [part for part in (weights, frequencies) if part is not None]
    factor: FloatArray | None = np.prod(given, axis=0) if given else None
    weighted = moved if factor is None else moved * factor[:, None]
    scaled = [Z if factor is None else Z * factor[:, None] for Z in effects]
    times = np.ones(n) if frequencies is None else frequencies
    groups = tuple(
        _group_sums(moved, code, Z, right, frequencies) for code, Z, right in zip(codes, effects, scaled, strict=True)
    )
    pairs = tuple(
        _pair_sums(s, t, (codes[s], codes[t]), scaled[s], effects[t])
        for s, t in itertools.combinations(range(len(codes)), 2)
    )
    log_weights = 0.0 if weights is None else float(np.log(weights) @ times)
    return CrossedProducts(tuple(columns), moved.T @ weighted, groups, pairs, float(times.sum()), shift, log_weights)


def _group_sums(
    rows: FloatArray, codes: IntArray, Z: FloatArray, weighted: FloatArray, frequencies: FloatArray | None
) -> GroupSums:
    n, q = Z.shape
    counts = np.bincount(codes, weights=frequencies).astype(np.float64)
    own = np.empty((len(counts), q, q))
    cross = np.empty((len(counts), q, rows.shape[1]))
    for a in range(q):
        member = sp.csr_array((weighted[:, a], codes, np.arange(n + 1)), shape=(n, len(counts)))
        cross[:, a] = member.T @ rows
        for b in range(a + 1):
            own[:, a, b] = own[:, b, a] = np.bincount(codes, weights=weighted[:, a] * Z[:, b])
    return GroupSums(own, cross, counts)


def _pair_sums(
    first: int, second: int, codes: tuple[IntArray, IntArray], weighted: FloatArray, Z: FloatArray
) -> PairSums:
    width = int(codes[1].max()) + 1
    keys, at = np.unique(codes[0].astype(np.int64) * width + codes[1], return_inverse=True)
    values = np.empty((len(keys), weighted.shape[1], Z.shape[1]))
    for a in range(values.shape[1]):
        for b in range(values.shape[2]):
            values[:, a, b] = np.bincount(at, weights=weighted[:, a] * Z[:, b])
    return PairSums(first, second, (keys // width).astype(np.intp), (keys % width).astype(np.intp), values)
