"""Places of schools within draws, ties shared: what every statement about ranks is counted from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from send_va.effects import FloatArray
from send_va.errors import Failure, InputError
from send_va.ranking.place_kernels import Places, best_places, worst_places
from send_va.ranking.threads import in_threads

_TILE = 256  # draws sorted at once by a thread, and schools whose places are sorted at once


@dataclass(frozen=True)
class DrawPlaces:
    """Places of schools in every draw; 1 is the highest value.

    Attributes
    ----------
    best, worst : int32 array, shape (draws, schools)
        First and last of the places that schools with the same value share. Without ties they are one array.
    """

    best: Places
    worst: Places

    @property
    def draws(self) -> int:
        """Number of draws."""
        return int(self.best.shape[0])

    @property
    def schools(self) -> int:
        """Number of schools, which is the number of places."""
        return int(self.best.shape[1])

    def tiles(self) -> Iterator[slice]:
        """Slices of schools, a few hundred each."""
        return (slice(start, start + _TILE) for start in range(0, self.schools, _TILE))

    @property
    def tied(self) -> bool:
        """Some schools have the same value in some draw."""
        return self.worst is not self.best

    def of_draws(self, rows: slice) -> DrawPlaces:
        """Places in some of the draws."""
        best = self.best[rows]
        return DrawPlaces(best, self.worst[rows] if self.tied else best)


def draw_places(draws: FloatArray) -> DrawPlaces:
    """Place schools within every draw.

    Schools with the same value share the places they take together: no order of the file decides. Memory beyond the
    draws is one 32-bit number a school and draw (136 MB at 3,400 schools and 10,000 draws), two where values are tied.

    Parameters
    ----------
    draws : array, shape (draws, schools)
        Finite, in any unit.

    Returns
    -------
    DrawPlaces

    Raises
    ------
    InputError
        Not a table of finite numbers, or fewer than two schools.

    Examples
    --------
    >>> places = draw_places(np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]]))
    >>> places.best.tolist(), places.worst.tolist()
    ([[1, 3, 2], [3, 1, 1]], [[1, 3, 2], [3, 2, 2]])
    """
    draws = checked_draws(draws)
    best = np.empty(draws.shape, dtype=np.int32)

    def place(rows: slice) -> bool:
        return bool(best_places(draws[rows], descending(draws[rows]), best[rows]))

    rows = [slice(start, start + _TILE) for start in range(0, draws.shape[0], _TILE)]
    if not any(in_threads(place, rows)):
        return DrawPlaces(best, best)
    worst = np.empty(draws.shape, dtype=np.int32)
    in_threads(lambda part: worst_places(draws[part], descending(draws[part]), worst[part]), rows)
    return DrawPlaces(best, worst)


def draw_ranks(draws: FloatArray) -> Places:
    """Rank schools within every draw, shape (draws, schools); 1 is the highest, ties in the order given.

    Examples
    --------
    >>> draw_ranks(np.array([[0.0, 5.0, 5.0]])).tolist()
    [[3, 1, 2]]
    """
    ranks = np.empty(draws.shape, dtype=np.int32)
    count = np.arange(1, draws.shape[1] + 1, dtype=np.int32)[None, :]
    for start in range(0, draws.shape[0], _TILE):
        rows = slice(start, start + _TILE)
        np.put_along_axis(ranks[rows], np.argsort(-draws[rows], axis=1, kind="stable"), count, axis=1)
    return ranks


def draw_table(draws: ArrayLike) -> FloatArray:
    """Draws as numbers of shape (draws, schools), some of which may be missing.

    Raises
    ------
    InputError
        Not numbers, or not a table.
    """
    try:
        table = np.asarray(draws, dtype=np.float64)
    except (TypeError, ValueError):
        remedy = 'Give an array of shape (draws, schools); of SchoolEffects, effects.draws("theta").'
        raise InputError(f"draws are {type(draws).__name__}, not a table of numbers", remedy) from None
    if table.ndim != 2:
        raise InputError(f"draws have shape {table.shape}", "Give a table of shape (draws, schools).")
    return table


def checked_draws(draws: ArrayLike, least: int = 2) -> FloatArray:
    """Draws as an array of floats, refused where they cannot be ranked.

    Raises
    ------
    InputError
        Not a table of numbers, fewer than `least` schools, no draw, or a value that is not finite.
    """
    table: FloatArray = np.ascontiguousarray(draw_table(draws))
    if table.shape[0] < 1:
        raise InputError("there is no draw", "Give one row a draw.")
    if table.shape[1] < least:
        there = "one school" if table.shape[1] else "no school"
        raise InputError(f"the draws are of {there}", f"Give {least} columns or more, one for each school.")
    bad = np.flatnonzero(~np.isfinite(table.sum(axis=0)))
    if len(bad):
        remedy = "Rows are positions of schools. Leave out schools that cannot be compared."
        raise InputError(Failure.of_rows("is not finite", "draws", bad.tolist(), remedy=remedy))
    return table


def school_names(schools: Sequence[object] | None, count: int) -> list[str]:
    """Names of the columns of draws, or of the rows of a table: as given, positions from 1 otherwise.

    Raises
    ------
    InputError
        More or fewer names than schools.

    Examples
    --------
    >>> school_names(None, 2), school_names([100234, 100567], 2)
    (['1', '2'], ['100234', '100567'])
    """
    names = [str(k + 1) for k in range(count)] if schools is None else [str(name) for name in schools]
    if len(names) != count:
        raise InputError(f"{len(names)} names for {count} schools", "Give one name a school.")
    return names


def descending(draws: FloatArray) -> NDArray[np.intp]:
    """Positions of schools in every draw, from the highest value; the order among equal values is any."""
    return np.argsort(-draws, axis=1)
