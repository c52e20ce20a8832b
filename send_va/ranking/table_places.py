"""Places and fifths of one table of values: what a reader of a league table sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from send_va.effects import FloatArray

FIFTHS = 5


def table_places(values: FloatArray) -> FloatArray:
    """Place of every school in a table; 1 is the highest value.

    Parameters
    ----------
    values : array, shape (schools,)
        Missing where a school is not in the table.

    Returns
    -------
    array, shape (schools,)
        One more than the number of schools with a higher value, so equal schools share a place; missing where `values`
        is.

    Examples
    --------
    >>> table_places(np.array([0.2, 0.5, np.nan, 0.2]))
    array([ 2.,  1., nan,  2.])
    """
    return places_among(values, values)


def places_among(values: FloatArray, table: FloatArray) -> FloatArray:
    """Place that each value would have in a table of others: one more than the number of schools above it.

    Examples
    --------
    >>> places_among(np.array([0.3]), np.array([0.2, 0.5, np.nan, 0.2]))
    array([2.])
    """
    ordered = np.sort(table[np.isfinite(table)])
    above = len(ordered) - np.searchsorted(ordered, values, side="right")
    return np.where(np.isfinite(values), 1.0 + above, np.nan)


def places_if_moved(table: FloatArray, moved: FloatArray) -> FloatArray:
    """Place of each school if it alone had another value, all others staying as they are.

    Examples
    --------
    >>> places_if_moved(np.array([0.2, 0.5, np.nan, 0.3]), np.array([0.6, 0.5, 0.9, 0.1]))
    array([ 1.,  1., nan,  3.])
    """
    itself = table > moved
    return np.where(np.isfinite(table), places_among(moved, table) - itself, np.nan)


def fifths(values: FloatArray) -> FloatArray:
    """Fifth of the table that every school is in; 1 holds the highest values.

    Place r of n is in fifth ``1 + (r - 1) * 5 // n``.

    Examples
    --------
    >>> fifths(np.array([0.1, 0.5, 0.4, np.nan, 0.2, 0.3]))
    array([ 5.,  1.,  2., nan,  4.,  3.])
    """
    return fifths_of_places(table_places(values), int(np.isfinite(values).sum()))


def fifths_of_places(places: FloatArray, schools: int) -> FloatArray:
    """Fifth of the table that holds each place, of a table of so many schools."""
    return np.asarray(1.0 + (places - 1.0) * FIFTHS // max(schools, 1))


def share_in_other_fifth(values: FloatArray, others: FloatArray) -> float:
    """Share of the schools in both tables that are in another fifth of the one than of the other.

    Both tables are cut down to the schools they share. Missing where they share none.

    Examples
    --------
    >>> share_in_other_fifth(np.arange(5.0), np.array([1.0, 0.0, 2.0, 3.0, 4.0]))
    0.4
    """
    both: NDArray[np.bool_] = np.isfinite(values) & np.isfinite(others)
    if not both.any():
        return float("nan")
    return float((fifths(values[both]) != fifths(others[both])).mean())
