"""Largest scaled differences between units, draw by draw: compiled functions.

Everything is on the scale of signed squares, ``q = d |d| / var(d)`` for a difference d, whose order is that of
``d / sd(d)``; its operations round monotonically, so that leaving out pairs that cannot win changes no bit. Units come
sorted by variance. `spread` holds the variances of the units, shape (n,), where estimates are independent, and the
variances of all differences, shape (n, n), with 1 on the diagonal, where they are not.

With independent estimates only few pairs can win. Below unit i, another unit wins over k if its draw is lower and its
variance smaller, so the best partner is a running minimum of the draws in order of variance; above it, a running
maximum. A draw of n units has of the order of log n of each.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Draws = NDArray[np.float32]
Ints = NDArray[np.int32]
Positions = NDArray[np.int64]
Bools = NDArray[np.bool_]

NO_PARTNER = -1
_ANY_ORDER = {"nnan", "nsz"}  # lets a maximum be vectorised; values are those of any order


@njit(cache=True, nogil=True, error_model="numpy")
def fill_spread(spread: Floats, unit: int, row: Floats) -> None:
    """Fill `row` with the variances of the differences between one unit and every unit."""
    if spread.ndim == 1:
        for k in range(len(row)):
            row[k] = spread[unit] + spread[k]
    else:
        for k in range(len(row)):
            row[k] = spread[unit, k]


@njit(cache=True, nogil=True)
def running_extremes(z: Draws, highest: Ints, lowest: Ints) -> tuple[int, int]:
    """Positions of running maxima and minima of one draw, and how many there are."""
    above = below = 1
    top = bottom = z[0]
    highest[0] = lowest[0] = 0
    for k in range(1, len(z)):
        if z[k] > top:
            top = z[k]
            highest[above] = k
            above += 1
        elif z[k] < bottom:
            bottom = z[k]
            lowest[below] = k
            below += 1
    return above, below


@njit(cache=True, nogil=True)
def count_candidates(z: Draws, counts: Positions) -> None:
    """Running maxima and minima of every draw: counts at 2d and 2d + 1."""
    highest, lowest = np.empty(z.shape[1], np.int32), np.empty(z.shape[1], np.int32)
    for d in range(len(z)):
        counts[2 * d], counts[2 * d + 1] = running_extremes(z[d], highest, lowest)


@njit(cache=True, nogil=True)
def fill_candidates(z: Draws, starts: Positions, members: Ints) -> None:
    """Write the running maxima and minima of every draw to ``members[starts[2d]:starts[2d + 2]]``."""
    highest, lowest = np.empty(z.shape[1], np.int32), np.empty(z.shape[1], np.int32)
    for d in range(len(z)):
        above, below = running_extremes(z[d], highest, lowest)
        members[starts[2 * d] : starts[2 * d + 1]] = highest[:above]
        members[starts[2 * d + 1] : starts[2 * d + 2]] = lowest[:below]


@njit(cache=True, nogil=True, error_model="numpy")
def pair_maxima(z: Draws, spread: Floats, maxima: Floats, above: Ints, below: Ints) -> None:
    """Largest q over all ordered pairs of independent units, for every draw; `above` and `below` are its pair."""
    highest, lowest = np.empty(z.shape[1], np.int32), np.empty(z.shape[1], np.int32)
    for d in range(len(z)):
        many, few = running_extremes(z[d], highest, lowest)
        best, first, second = 0.0, NO_PARTNER, NO_PARTNER
        for a in highest[:many]:
            for b in lowest[:few]:
                difference = np.float64(z[d, a]) - np.float64(z[d, b])
                q = difference * abs(difference) / (spread[a] + spread[b])
                if q > best:
                    best, first, second = q, a, b
        maxima[d], above[d], below[d] = best, first, second


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_ANY_ORDER)
def _row_largest(z: Draws, unit: int, row: Floats) -> float:
    best = 0.0
    value = np.float64(z[unit])
    for k in range(unit):
        difference = value - np.float64(z[k])
        best = max(best, difference * difference / row[k])
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def pair_maxima_dependent(z: Draws, spread: Floats, maxima: Floats, above: Ints, below: Ints) -> None:
    """As `pair_maxima`, by looking at every pair."""
    maxima[:] = 0.0
    above[:] = NO_PARTNER
    below[:] = NO_PARTNER
    for a in range(1, z.shape[1]):
        row = spread[a]
        for d in range(len(z)):
            best = _row_largest(z[d], a, row)
            if best <= maxima[d]:
                continue
            maxima[d] = best
            for b in range(a):
                difference = np.float64(z[d, a]) - np.float64(z[d, b])
                if difference * difference / row[b] == best:
                    above[d], below[d] = (a, b) if difference > 0.0 else (b, a)
                    break


@njit(cache=True, nogil=True, error_model="numpy")
def unit_maxima(
    z: Draws,
    spread: Floats,
    starts: Positions,
    members: Ints,
    first: int,
    sides: tuple[bool, bool],
    maxima: Floats,
    partner: Ints,
) -> None:
    """Largest q over the pairs of each independent unit, for every draw.

    Units are ``first`` and as many as `maxima` has rows; `maxima` and `partner` have shape (units, draws). `sides`:
    whether pairs with the unit above, and with it below, count. A partner above the unit is written as n + position.
    """
    n, units = z.shape[1], len(maxima)
    value, variance = np.empty(units), spread[first : first + units]
    best, who = np.empty(units), np.empty(units, np.int32)
    for d in range(len(z)):
        for i in range(units):
            value[i], best[i], who[i] = z[d, first + i], 0.0, NO_PARTNER
        for side in range(2):
            if not sides[1 - side]:
                continue
            sign, code = (-1.0, n) if side == 0 else (1.0, 0)
            for k in members[starts[2 * d + side] : starts[2 * d + side + 1]]:
                other, noise, coded = np.float64(z[d, k]), spread[k], np.int32(k + code)
                for i in range(units):
                    difference = sign * (value[i] - other)
                    q = difference * abs(difference) / (variance[i] + noise)
                    wins = q > best[i]
                    best[i] = q if wins else best[i]
                    who[i] = coded if wins else who[i]
        for i in range(units):
            maxima[i, d], partner[i, d] = best[i], who[i]


@njit(cache=True, nogil=True, error_model="numpy")
def unit_maxima_dependent(
    z: Draws, spread: Floats, first: int, sides: tuple[bool, bool], maxima: Floats, partner: Ints
) -> None:
    """As `unit_maxima`, by looking at every pair; draws are taken sixteen at a time to read `spread` less often."""
    n, units, step = z.shape[1], len(maxima), 16
    value, best, who = np.empty((step, units)), np.empty((step, units)), np.empty((step, units), np.int32)
    floor_up = 0.0 if sides[0] else -1.0
    floor_down = 0.0 if sides[1] else -1.0
    for start in range(0, len(z), step):
        many = min(step, len(z) - start)
        best[:] = 0.0
        who[:] = NO_PARTNER
        for d in range(many):
            for i in range(units):
                value[d, i] = z[start + d, first + i]
        for k in range(n):
            row = spread[k, first : first + units]
            for d in range(many):
                other, mine, largest, partners = np.float64(z[start + d, k]), value[d], best[d], who[d]
                for i in range(units):
                    difference = mine[i] - other
                    up = difference > 0.0
                    q = difference * difference / row[i]
                    q = q if (floor_up if up else floor_down) == 0.0 else -1.0
                    wins = q > largest[i]
                    largest[i] = q if wins else largest[i]
                    partners[i] = np.int32(k + (0 if up else n)) if wins else partners[i]
        for d in range(many):
            for i in range(units):
                maxima[i, start + d], partner[i, start + d] = best[d, i], who[d, i]


@njit(cache=True, nogil=True, error_model="numpy")
def evidence(estimate: Floats, unit: int, row: Floats, out: Floats) -> None:
    """Signed squares of the observed differences of one unit: above 0 where the unit's estimate is the higher one."""
    for k in range(len(row)):
        difference = estimate[unit] - estimate[k]
        out[k] = difference * abs(difference) / row[k] if k != unit else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def count_significant(
    estimate: Floats, spread: Floats, limit: float, first: int, n_above: Positions, n_below: Positions
) -> None:
    """Count the units significantly above and below each of some units; `limit` is a squared critical value."""
    n = len(estimate)
    row, observed = np.empty(n), np.empty(n)
    for i in range(len(n_above)):
        fill_spread(spread, first + i, row)
        evidence(estimate, first + i, row, observed)
        above = below = 0
        for k in range(n):
            below += observed[k] > limit
            above += -observed[k] > limit
        n_above[i], n_below[i] = above, below
