"""At which size of a departure each school's quintile changes: a grid for all at once, then each its own root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.sensitivity.quintiles import Quintiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Crossings:
    """Smallest departures, up and down, that change a school's quintile.

    Attributes
    ----------
    more, less : array, shape (schools,)
        Smallest positive and negative departure (the latter as a negative number); missing where none on the grid
        does, or the school is not compared.
    more_to, less_to : integer array, shape (schools,)
        Quintile entered; 0 where missing.
    grid : array, shape (g,)
    values : array, shape (g, schools)
        What schools are ordered by, at every departure of the grid.
    quintiles : integer array, shape (g, schools)
        Each school's, moving alone.
    """

    more: Floats
    less: Floats
    more_to: Ints
    less_to: Ints
    grid: Floats
    values: Floats
    quintiles: Ints

    def share_changed(self, now: Quintiles) -> Floats:
        """Share of compared schools in another quintile at each departure of the grid, shape (g,)."""
        there = now.quintile > 0
        return np.asarray((self.quintiles[:, there] != now.quintile[there]).mean(axis=1))

    @property
    def nearest(self) -> Floats:
        """The smaller of both in size, signed."""
        up, down = np.nan_to_num(self.more, nan=np.inf), np.nan_to_num(self.less, nan=-np.inf)
        either = np.where(up <= -down, up, down)
        return np.where(np.isfinite(either), either, np.nan)


_SETTLED = 1e-6


def find_crossings(
    moved: Callable[[Floats], Floats], now: Quintiles, grid: Floats, *, refinements: int = 12
) -> Crossings:
    """Find where each school, moving alone, enters another quintile.

    Parameters
    ----------
    moved : callable
        From a departure of each school (schools,) to its value.
    now : Quintiles
        With no departure.
    grid : array, shape (g,)
        Ascending, zero among them.
    refinements : int
        Most steps of false position (Illinois) within the interval of the grid in which the quintile changes; 0 for a
        straight line between its ends.

    Returns
    -------
    Crossings
        A departure just beyond `more` changes the quintile, one just short of it does not. A quintile that is left and
        entered again between two points of the grid goes unseen.

    Raises
    ------
    InputError
        A grid without zero, or not ascending.

    References
    ----------
    Dowell & Jarratt (1971), doi:10.1007/BF01934364 (Illinois).

    Examples
    --------
    >>> now = Quintiles.of(np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    >>> found = find_crossings(lambda d: now.values - d, now, np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    >>> found.more.tolist(), found.less.tolist()
    ([1.0, 1.0, 1.0, 1.0, nan], [nan, -1.0, -1.0, -1.0, -1.0])
    """
    grid = np.asarray(grid, dtype=np.float64)
    if not (np.diff(grid) > 0).all() or 0.0 not in grid:
        raise InputError(f"departures {grid.tolist()} are not ascending, or lack zero")
    one = np.ones(len(now.values))
    values = np.stack([moved(size * one) for size in grid])
    quintiles = np.stack([now.if_moved(row) for row in values])
    start = int(np.flatnonzero(grid == 0.0)[0])
    ends = []
    for path in (range(start, len(grid)), range(start, -1, -1)):
        at = list(path)
        size = _root(moved, now, grid[at], values[at], refinements)
        to = np.where(np.isfinite(size), _entered(now, values[at]), 0)
        ends.append((size, to))
    (more, more_to), (less, less_to) = ends
    return Crossings(more, less, more_to, less_to, grid, values, quintiles)


def _leaves(now: Quintiles, values: Floats) -> NDArray[np.bool_]:
    """Whether values (k, schools) lie in another quintile than now."""
    return np.asarray((values >= now.up) | (values < now.down))


def _entered(now: Quintiles, values: Floats) -> Ints:
    """Quintile one step on in the direction in which each school first leaves its own."""
    out = _leaves(now, values)
    first = np.argmax(out, axis=0)
    up = np.take_along_axis(values, first[None], axis=0)[0] >= now.up
    return np.asarray(now.quintile + np.where(up, -1, 1))


def _root(moved: Callable[[Floats], Floats], now: Quintiles, grid: Floats, values: Floats, steps: int) -> Floats:
    out = _leaves(now, values)
    crosses = out.any(axis=0)
    k = np.maximum(np.argmax(out, axis=0), 1)
    column = np.arange(values.shape[1])
    near, far = grid[k - 1].copy(), grid[k].copy()
    line = np.where(values[k, column] >= now.up, now.up, now.down)
    line = np.where(crosses, line, 0.0)
    f_near, f_far = values[k - 1, column] - line, values[k, column] - line
    side, last = np.zeros(len(column)), near
    for _ in range(steps if crosses.any() else 0):
        at = _between(near, far, f_near, f_far)
        f_at = moved(np.where(crosses, at, 0.0)) - line
        beyond = np.where(f_far >= 0.0, f_at >= 0.0, f_at < 0.0) & (f_near != f_far)
        # Illinois: an end that stays twice counts half, so that both ends close in
        f_near = np.where(beyond & (side == 1.0), 0.5 * f_near, f_near)
        f_far = np.where(~beyond & (side == -1.0), 0.5 * f_far, f_far)
        near, f_near = np.where(beyond, near, at), np.where(beyond, f_near, f_at)
        far, f_far = np.where(beyond, at, far), np.where(beyond, f_at, f_far)
        side = np.where(beyond, 1.0, -1.0)
        settled, last = np.abs(at - last) <= _SETTLED * abs(grid[-1] - grid[0]), at
        if (settled | ~crosses).all():
            break
    return np.where(crosses, _between(near, far, f_near, f_far), np.nan)


def _between(near: Floats, far: Floats, f_near: Floats, f_far: Floats) -> Floats:
    """Where the line between two ends crosses zero."""
    apart = f_far - f_near
    share = np.divide(-f_near, apart, out=np.ones_like(apart), where=apart != 0.0)
    return np.asarray(near + np.clip(share, 0.0, 1.0) * (far - near))
