"""Places and fifths of schools under many specifications, and what they say of every school."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from send_va.multilevel.crossproducts import FloatArray
from send_va.ranking.table_places import FIFTHS, fifths

SHARES = tuple(f"share_quintile_{k}" for k in range(1, FIFTHS + 1))


def places(theta: FloatArray) -> FloatArray:
    """Place of every school in its specification, as a share of the table: (rank - 1/2) / schools, 0 the top.

    Parameters
    ----------
    theta : array, shape (..., schools)
        Missing where a school is not in the table.

    Returns
    -------
    array, shape (..., schools)
        Schools with the same value share their places.

    Examples
    --------
    >>> places(np.array([3.0, np.nan, 1.0])).tolist()
    [0.25, nan, 0.75]
    """
    there = np.isfinite(theta)
    rank = rankdata(np.where(there, -theta, np.inf), axis=-1)
    n = there.sum(axis=-1, keepdims=True)
    return np.where(there, (rank - 0.5) / np.maximum(n, 1), np.nan)


def quintiles(theta: FloatArray) -> NDArray[np.int8]:
    """Fifth of the table every school is in: 1 the highest, 0 where it is not in the table.

    Place r of n belongs to fifth ``1 + (r - 1) * 5 // n``, as everywhere in the package.

    Examples
    --------
    >>> quintiles(np.array([9.0, 8.0, 7.0, 6.0, 5.0, np.nan, 4.0])).tolist()
    [1, 1, 2, 3, 4, 0, 5]
    """
    rows = theta.reshape(-1, theta.shape[-1])
    return np.nan_to_num(np.stack([fifths(row) for row in rows])).astype(np.int8).reshape(theta.shape)


def by_school(schools: NDArray[np.str_], theta: FloatArray, reference: int) -> pd.DataFrame:
    """Sum up every school over the specifications it is in.

    Parameters
    ----------
    schools : string array, shape (schools,)
    theta : array, shape (specifications, schools)
    reference : int
        Row of the reference specification.

    Returns
    -------
    DataFrame
        One row a school: school; n_specifications it is in; share_quintile_1 ... share_quintile_5, shares of those (1
        the highest fifth); modal_quintile (the higher of two as frequent); reference_quintile, missing where it is not
        in the reference table; lowest, median, highest effect in pupil SDs; best_place, median_place, worst_place as
        shares of the table (0 the top); place_range, from best to worst; depends: not always in the same fifth.
    """
    fifth, place = quintiles(theta), places(theta)
    n = (fifth > 0).sum(axis=0)
    counts = np.stack([(fifth == k).sum(axis=0) for k in range(1, FIFTHS + 1)], axis=1)
    shares = counts / np.where(n > 0, n, np.nan)[:, None]
    seen = n > 0
    effect, order = (np.full((3, len(schools)), np.nan) for _ in range(2))
    for out, values in ((effect, theta), (order, place)):
        out[:, seen] = np.nanquantile(values[:, seen], [0.0, 0.5, 1.0], axis=0)
    table = pd.DataFrame({"school": schools, "n_specifications": n})
    table[list(SHARES)] = shares
    table["modal_quintile"] = _known(counts.argmax(axis=1) + 1, seen)
    table["reference_quintile"] = _known(fifth[reference], fifth[reference] > 0)
    table[["lowest", "median", "highest"]] = effect.T
    table[["best_place", "median_place", "worst_place"]] = order.T
    table["place_range"] = order[2] - order[0]
    table["depends"] = (counts > 0).sum(axis=1) > 1
    return table


def _known(values: NDArray[np.integer], there: NDArray[np.bool_]) -> pd.Series:
    return pd.Series(values, dtype="Int64").where(pd.Series(there))
