"""One pass over the records: per-group sufficient statistics of a Gaussian multilevel model.

The likelihood of a linear mixed model with nested groups depends on the records only through, for every innermost
group, the sum of ``w_i * m_i m_i'``, where ``m_i`` is the row of all design columns and the outcome.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_BLOCK_ROWS = 32_768  # rows gathered at a time: the block stays in the processor's cache


@dataclass(frozen=True)
class CrossProducts:
    """Sums of products of every pair of columns, within every group.

    Two sets made from disjoint records of the same columns and groups add up with ``+``, so any engine that can sum
    products by group can make them.

    Attributes
    ----------
    columns : tuple of str
        Names of the m columns: design columns and the outcome.
    products : array, shape (groups, m, m)
        ``sum_i w_i (m_i - center)(m_i - center)'`` over the records of each group.
    counts : array, shape (groups,)
        Number of records; with frequency weights, their sum.
    center : array, shape (m,)
        What was subtracted from each column before multiplying (keeps digits when a column is far from zero).
    log_weights : float
        ``sum_i log(w_i)`` over records with a precision weight; 0 without.
    """

    columns: tuple[str, ...]
    products: FloatArray
    counts: FloatArray
    center: FloatArray
    log_weights: float = 0.0

    def __add__(self, other: CrossProducts) -> CrossProducts:
        """Combine two partitions of the records."""
        if self.columns != other.columns or self.products.shape != other.products.shape:
            raise InputError("cross-products of different columns or groups cannot be added")
        if not np.array_equal(self.center, other.center):
            raise InputError("cross-products with different centres cannot be added")
        return replace(
            self,
            products=self.products + other.products,
            counts=self.counts + other.counts,
            log_weights=self.log_weights + other.log_weights,
        )

    @property
    def n_groups(self) -> int:
        """Number of innermost groups."""
        return len(self.products)

    @property
    def total(self) -> FloatArray:
        """Sum over groups, shape (m, m)."""
        return np.asarray(self.products.sum(axis=0))

    def index(self, names: Sequence[str]) -> IntArray:
        """Positions of `names` among the columns."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise InputError(f"cross-products hold no column {', '.join(missing)}", f"They hold {self.columns}.")
        return np.array([self.columns.index(name) for name in names], dtype=np.intp)

    def select(self, names: Sequence[str]) -> CrossProducts:
        """Keep some of the columns: another covariate subset costs no pass over the records."""
        at = self.index(names)
        return replace(self, columns=tuple(names), products=self.products[:, at[:, None], at], center=self.center[at])

    def weighted(self, precision: float) -> CrossProducts:
        """Give every record the same precision weight on top of its own."""
        return replace(
            self,
            products=self.products * precision,
            log_weights=self.log_weights + float(self.counts.sum()) * float(np.log(precision)),
        )

    def with_group_constants(self, names: Sequence[str], values: FloatArray, intercept: str) -> CrossProducts:
        """Add columns that are constant within groups (school means, say) without another pass.

        Parameters
        ----------
        names : sequence of str, length k
            Names of the new columns.
        values : array, shape (groups, k)
            Value of each new column in each group.
        intercept : str
            The column of ones: its products are the sums of the other columns.
        """
        one = int(self.index([intercept])[0])
        sums = self.products[:, one, :]  # (groups, m)
        center = np.concatenate([self.center, values.mean(axis=0)])
        values = values - values.mean(axis=0)
        cross = values[:, :, None] * sums[:, None, :]  # (groups, k, m)
        own = values[:, :, None] * values[:, None, :] * self.products[:, one, one][:, None, None]
        products = np.concatenate(
            [np.concatenate([self.products, cross.transpose(0, 2, 1)], 2), np.concatenate([cross, own], 2)], 1
        )
        return replace(self, columns=(*self.columns, *names), products=products, center=center)


def cross_products(
    rows: FloatArray,
    codes: NDArray[np.integer],
    n_groups: int,
    columns: Sequence[str],
    *,
    center: FloatArray | None = None,
    weights: FloatArray | None = None,
    frequencies: FloatArray | None = None,
) -> CrossProducts:
    """Sum products of columns within groups, in one pass over the records.

    Parameters
    ----------
    rows : array, shape (n, m)
        Design columns and outcome, one record a row, in any order.
    codes : integer array, shape (n,)
        Group of each record, 0 to ``n_groups - 1``. Groups without records stay at zero.
    n_groups : int
        Number of groups.
    columns : sequence of str, length m
        Names of the columns.
    center : array, shape (m,), optional
        Subtracted from the columns; zeros by default.
    weights : array, shape (n,), optional
        Precision weights: the residual variance of record i is ``scale / weights[i]``.
    frequencies : array, shape (n,), optional
        How many identical records a row stands for.

    Returns
    -------
    CrossProducts

    Raises
    ------
    InputError
        Shapes that do not match, or weights that are not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> cp = cross_products(np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 5.0]]), np.array([0, 0, 1]), 2, ["one", "y"])
    >>> cp.products[0]
    array([[ 2.,  6.],
           [ 6., 20.]])
    """
    n, m = rows.shape
    if len(columns) != m or len(codes) != n:
        raise InputError(f"{m} columns and {n} rows were given with {len(columns)} names and {len(codes)} group codes")
    factor = _row_factor(n, weights, frequencies)
    shift = np.zeros(m) if center is None else np.asarray(center, dtype=np.float64)
    small = codes.astype(np.uint16) if n_groups <= np.iinfo(np.uint16).max else codes  # 16-bit sorts by radix
    order = np.argsort(small, kind="stable")
    per_group = np.bincount(codes, minlength=n_groups)
    products = np.zeros((n_groups, m, m))
    _sum_segments(rows, order, np.concatenate([[0], np.cumsum(per_group)]), shift, factor, products)
    counts = per_group.astype(np.float64)
    if frequencies is not None:
        counts = np.bincount(codes, weights=frequencies, minlength=n_groups)
    log_weights = 0.0
    if weights is not None:
        log_weights = float((np.log(weights) * (1.0 if frequencies is None else frequencies)).sum())
    return CrossProducts(tuple(columns), products, counts, shift, log_weights)


def _row_factor(n: int, weights: FloatArray | None, frequencies: FloatArray | None) -> FloatArray | None:
    factor = None
    for name, given in (("weights", weights), ("frequencies", frequencies)):
        if given is None:
            continue
        if given.shape != (n,) or not np.all(np.isfinite(given)) or np.any(given <= 0):
            raise InputError(f"{name} must be one positive, finite number a record", "Leave out records of weight 0.")
        if name == "frequencies" and np.all(given == 1.0):
            continue  # one record a row gives the sums of no frequencies to the last bit
        factor = given if factor is None else factor * given
    return factor


def _sum_segments(
    rows: FloatArray,
    order: IntArray,
    starts: IntArray,
    shift: FloatArray,
    factor: FloatArray | None,
    out: FloatArray,
) -> None:
    """Fill `out` (groups, m, m); groups are gathered in blocks so that a shuffled file costs little more."""
    n_groups, group = len(starts) - 1, 0
    moved = bool(shift.any())
    while group < n_groups:
        last = int(np.searchsorted(starts, starts[group] + _BLOCK_ROWS, side="right")) - 1
        last = min(max(last, group + 1), n_groups)
        at = order[starts[group] : starts[last]]
        block = rows.take(at, axis=0)
        if moved:
            block -= shift
        right = block if factor is None else block * factor.take(at)[:, None]
        offsets = (starts[group : last + 1] - starts[group]).tolist()
        for j, (start, stop) in enumerate(itertools.pairwise(offsets), start=group):
            if stop > start:
                np.dot(block[start:stop].T, right[start:stop], out=out[j])
        group = last
