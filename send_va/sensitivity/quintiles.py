"""Quintiles of school effects, and how far each school is from the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.ranking.rank_probabilities import last_places
from send_va.ranking.table_places import FIFTHS, fifths, fifths_of_places, places_if_moved

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Quintiles:
    """Quintiles of schools by one number each; 1 holds the highest, as in rankings.

    Attributes
    ----------
    values : array, shape (schools,)
        What schools are ordered by; missing for a school that is not compared.
    quintile : integer array, shape (schools,)
        0 where missing.
    up, down : array, shape (schools,)
        A school alone enters a better quintile at a value of `up` or more, a worse one below `down`, all others
        staying as they are; infinite where there is none.
    """

    values: Floats
    quintile: Ints
    up: Floats
    down: Floats

    @classmethod
    def of(cls, values: Floats) -> Quintiles:
        """Order the schools.

        Raises
        ------
        InputError
            Fewer than five schools have a value.

        Examples
        --------
        >>> of = Quintiles.of(np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
        >>> of.quintile.tolist(), of.up.tolist(), of.down.tolist()
        ([1, 2, 3, 4, 5], [inf, 5.0, 4.0, 3.0, 2.0], [4.0, 3.0, 2.0, 1.0, -inf])
        """
        values = np.asarray(values, dtype=np.float64)
        there = np.isfinite(values)
        ordered = np.sort(values[there])[::-1]
        n = len(ordered)
        if n < FIFTHS:
            raise InputError(f"{n} schools have a value: quintiles need five", "Compare more schools.")
        lasts = last_places(FIFTHS, n)
        quintile = _whole_or_zero(fifths(values))
        enters = np.concatenate([[np.inf], ordered[lasts[:-1] - 1]])  # by quintile: the last value of the better one
        leaves = np.concatenate([ordered[lasts[:-1]], [-np.inf]])  # the first value of the worse one
        up, down = np.full(len(values), np.nan), np.full(len(values), np.nan)
        up[there], down[there] = enters[quintile[there] - 1], leaves[quintile[there] - 1]
        return cls(values, quintile, up, down)

    def if_moved(self, moved: Floats) -> Ints:
        """Quintile of each school if it alone had another value; 0 where missing.

        Examples
        --------
        >>> of = Quintiles.of(np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
        >>> of.if_moved(np.array([0.0, 4.5, 4.0, 2.0, 9.0])).tolist()
        [5, 2, 2, 4, 1]
        """
        schools = int(np.isfinite(self.values).sum())
        return _whole_or_zero(fifths_of_places(places_if_moved(self.values, moved), schools))


def _whole_or_zero(fifth: Floats) -> Ints:
    return np.asarray(np.nan_to_num(fifth), dtype=np.int64)


def whole(values: Ints) -> pd.api.extensions.ExtensionArray:
    """Whole numbers, 0 standing for missing."""
    return pd.array([value or None for value in values.tolist()], dtype="Int64")


def answers(yes: NDArray[np.bool_], asked: NDArray[np.bool_]) -> pd.api.extensions.ExtensionArray:
    """Yes or no, missing where not asked."""
    return pd.arrays.BooleanArray(np.asarray(yes, dtype=bool), ~np.asarray(asked, dtype=bool))
