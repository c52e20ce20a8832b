"""Rows of a design that are the same, so that one stands for all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_WORTH_IT = 0.7  # share of distinct rows above which nothing is gained


def identical_rows(
    columns: Sequence[NDArray[np.float64]], codes: Sequence[NDArray[np.intp]]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find the distinct rows of several arrays side by side.

    Parameters
    ----------
    columns : sequence of array, shape (n, any)
    codes : sequence of integer array, shape (n,)

    Returns
    -------
    rows : integer array, shape (m,)
        One row for each distinct one; all rows, in order, where few are the same.
    which : integer array, shape (n,)
        Position in `rows` of every row's representative.

    Examples
    --------
    >>> import numpy as np
    >>> rows, which = identical_rows([np.array([[1.0], [2.0], [1.0], [1.0]])], [np.array([0, 0, 0, 0])])
    >>> rows.tolist(), which.tolist()
    ([0, 1], [0, 1, 0, 0])
    """
    everything = np.arange(len(codes[0]))
    values = np.column_stack([np.hstack(columns), *codes])
    # A hash: equal rows have equal sums, and sines of whole numbers are linearly independent over the rationals, so
    # that others differ but for rounding, which is found out below.
    which, distinct = pd.factorize(values @ np.sin(np.arange(1.0, values.shape[1] + 1.0)))
    if len(distinct) > _WORTH_IT * len(values):
        return everything, everything
    rows = np.flatnonzero(~pd.Series(which).duplicated().to_numpy()).astype(np.intp)
    if not np.array_equal(values[rows][which], values):
        return everything, everything
    return rows, which.astype(np.intp)
