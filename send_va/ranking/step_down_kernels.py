"""Step-down: largest scaled differences over the pairs that are not yet rejected: compiled functions.

A pair (a above b) is rejected where its observed signed square exceeds `limit`, the squared critical value of the step
before. The same draws serve every step, so a draw's maximum can only fall, and it stays what it was unless the pair
that gave it is rejected. A quantile therefore needs new maxima only of draws that lie above it and have lost their
pair.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from send_va.ranking.rank_set_kernels import (
    NO_PARTNER,
    Bools,
    Draws,
    Floats,
    Ints,
    Positions,
    evidence,
    fill_spread,
    running_extremes,
)

BLOCK = 64  # units whose draws are bounded together


@njit(cache=True, nogil=True)
def block_extremes(z: Draws, lowest: Draws, highest: Draws) -> None:
    """Lowest and highest value of each block of units, for every draw; shape (draws, blocks)."""
    n = z.shape[1]
    for d in range(len(z)):
        for block in range(lowest.shape[1]):
            first = block * BLOCK
            low = high = z[d, first]
            for k in range(first + 1, min(n, first + BLOCK)):
                low, high = min(low, z[d, k]), max(high, z[d, k])
            lowest[d, block], highest[d, block] = low, high


@njit(cache=True, nogil=True, error_model="numpy")
def _open_maximum(
    z: Draws,
    lowest: Draws,
    highest: Draws,
    unit: int,
    row: Floats,
    smallest: Floats,
    open_above: Bools,
    open_below: Bools,
    bounds: Floats,
) -> tuple[float, int]:
    """Largest q of one unit over its open pairs in one draw, and the partner.

    Blocks are taken in order of their bounds, by extremes and the `smallest` variance, until none exceeds the best.
    """
    n = len(row)
    value = np.float64(z[unit])
    for block in range(len(bounds)):
        above, below = value - np.float64(lowest[block]), np.float64(highest[block]) - value
        reach = max(above, below)
        bounds[block] = reach * abs(reach) / smallest[block]
    best, partner = 0.0, NO_PARTNER
    while True:
        block = int(np.argmax(bounds))
        if bounds[block] <= best:
            return best, partner
        bounds[block] = 0.0
        for k in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            difference = value - np.float64(z[k])
            q = difference * abs(difference) / row[k]
            if q > best and open_above[k]:
                best, partner = q, k
            elif -q > best and open_below[k]:
                best, partner = -q, n + k


@njit(cache=True, nogil=True)
def root_quantile(maxima: Floats, order: int, fraction: float) -> tuple[float, float]:
    """Order statistic `order` of the maxima, and the squared quantile between the roots of it and the next."""
    if order + 1 >= len(maxima):
        last = maxima.max()
        return last, last
    parted = np.partition(maxima, order)
    low, high = parted[order], parted[order + 1 :].min()
    root = np.sqrt(low) + fraction * (np.sqrt(high) - np.sqrt(low))
    return low, root * root


@njit(cache=True, nogil=True, error_model="numpy")
def unit_counts(
    z: Draws,
    extremes: tuple[Draws, Draws],
    spread: Floats,
    estimate: Floats,
    first: int,
    sides: tuple[bool, bool],
    stepdown: bool,
    place: tuple[int, float],
    maxima: Floats,
    partner: Ints,
    n_above: Positions,
    n_below: Positions,
) -> None:
    """Count the units significantly above and below each of some units, by each unit's own critical value.

    `extremes` come from `block_extremes`, `maxima` and `partner` from `unit_maxima`; the latter two are overwritten.
    `sides` as there; `place` is the order statistic and the fraction of `root_quantile`.
    """
    n, blocks = z.shape[1], extremes[0].shape[1]
    row, observed, smallest = np.empty(n), np.empty(n), np.empty(blocks)
    open_above, open_below = np.empty(n, np.bool_), np.empty(n, np.bool_)
    for i in range(len(maxima)):
        unit = first + i
        fill_spread(spread, unit, row)
        evidence(estimate, unit, row, observed)
        for block in range(blocks):
            smallest[block] = row[block * BLOCK : (block + 1) * BLOCK].min()
        open_above[:], open_below[:] = sides
        open_above[unit] = open_below[unit] = False
        rejected = 0
        while True:
            limit = _unit_limit(z, extremes, unit, row, smallest, open_above, open_below, place, maxima[i], partner[i])
            above = below = 0
            for k in range(n):
                below += sides[0] and observed[k] > limit
                above += sides[1] and -observed[k] > limit
            n_above[i], n_below[i] = above, below
            if not stepdown or above + below == rejected:
                break
            rejected = above + below
            for k in range(n):
                open_above[k] = open_above[k] and observed[k] <= limit
                open_below[k] = open_below[k] and -observed[k] <= limit


@njit(cache=True, nogil=True, error_model="numpy")
def _unit_limit(
    z: Draws,
    extremes: tuple[Draws, Draws],
    unit: int,
    row: Floats,
    smallest: Floats,
    open_above: Bools,
    open_below: Bools,
    place: tuple[int, float],
    maxima: Floats,
    partner: Ints,
) -> float:
    """Squared critical value of one unit over its open pairs; brings those maxima up to date that it depends on."""
    n, bounds = len(row), np.empty(len(smallest))
    lowest, highest = extremes
    while True:
        low, limit = root_quantile(maxima, place[0], place[1])
        changed = False
        for d in range(len(maxima)):
            k = partner[d]
            if maxima[d] < low or k == NO_PARTNER:
                continue
            if open_above[k] if k < n else open_below[k - n]:
                continue
            maxima[d], partner[d] = _open_maximum(
                z[d], lowest[d], highest[d], unit, row, smallest, open_above, open_below, bounds
            )
            changed = True
        if not changed:
            return limit


@njit(cache=True, nogil=True, error_model="numpy")
def _row_bounds(z: Draws, spread: Floats, lowest: Ints, few: int, bounds: Floats) -> None:
    """Largest q of every unit over all units below it, open or not."""
    n = len(z)
    bounds[:] = 0.0
    if spread.ndim == 1:
        for b in lowest[:few]:
            other, noise = np.float64(z[b]), spread[b]
            for a in range(n):
                difference = np.float64(z[a]) - other
                q = difference * abs(difference) / (spread[a] + noise)
                bounds[a] = max(bounds[a], q)
    else:
        for b in range(n):
            other, row = np.float64(z[b]), spread[b]
            for a in range(n):
                difference = np.float64(z[a]) - other
                q = difference * abs(difference) / row[a]
                bounds[a] = max(bounds[a], q) if a != b else bounds[a]


@njit(cache=True, nogil=True, error_model="numpy")
def open_pair_maxima(
    z: Draws,
    spread: Floats,
    estimate: Floats,
    limit: float,
    which: Positions,
    maxima: Floats,
    above: Ints,
    below: Ints,
) -> None:
    """Largest q over all ordered pairs whose observed signed square is at most `limit`, for the draws `which`.

    Units are taken in order of their bound over all pairs, until no bound exceeds the best open pair: at least half of
    the ordered pairs are open, so few units are looked at.
    """
    n = z.shape[1]
    highest, lowest = np.empty(n, np.int32), np.empty(n, np.int32)
    bounds, row, observed = np.empty(n), np.empty(n), np.empty(n)
    for d in which:
        few = running_extremes(z[d], highest, lowest)[1]
        _row_bounds(z[d], spread, lowest, few, bounds)
        best, first, second = 0.0, NO_PARTNER, NO_PARTNER
        while True:
            a = int(np.argmax(bounds))
            if bounds[a] <= best:
                break
            bounds[a] = 0.0
            fill_spread(spread, a, row)
            evidence(estimate, a, row, observed)
            for b in range(n):
                difference = np.float64(z[d, a]) - np.float64(z[d, b])
                q = difference * abs(difference) / row[b]
                if q > best and observed[b] <= limit:
                    best, first, second = q, a, b
        maxima[d], above[d], below[d] = best, first, second
