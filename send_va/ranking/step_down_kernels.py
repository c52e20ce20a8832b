"""Step-down: largest scaled differences over the pairs that are not yet rejected: compiled functions.

A pair (a above b) is rejected where its observed signed square exceeds `limit`, the squared critical value of the step
before. The same draws serve every step, so a draw's maximum can only fall, and it stays what it was unless the pair that
gave it is rejected. A quantile therefore needs new maxima only of draws that lie above it and have lost their pair.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from send_va.ranking.rank_set_kernels import (
    NO_PARTNER,
    Draws,
    Floats,
    Ints,
    Positions,
    evidence,
    fill_spread,
    running_extremes,
)

_ANY_ORDER = {"nnan", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_ANY_ORDER)
def _open_maximum(z: Draws, value: float, row: Floats, open_above: Floats, open_below: Floats) -> float:
    """Largest q of one unit over its open pairs; `open_above` and `open_below` are 1 for open pairs and 0 for others."""
    best = 0.0
    for k in range(len(row)):
        difference = value - np.float64(z[k])
        q = difference * abs(difference) / row[k]
        best = max(best, max(q * open_above[k], -q * open_below[k]))
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _open_partner(z: Draws, value: float, row: Floats, open_above: Floats, open_below: Floats, best: float) -> int:
    n = len(row)
    for k in range(n):
        difference = value - np.float64(z[k])
        q = difference * abs(difference) / row[k]
        if open_above[k] > 0.0 and q == best:
            return k
        if open_below[k] > 0.0 and -q == best:
            return n + k
    return NO_PARTNER


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
    spread: Floats,
    estimate: Floats,
    first: int,
    sides: tuple[bool, bool],
    stepdown: bool,
    order: int,
    fraction: float,
    maxima: Floats,
    partner: Ints,
    n_above: Positions,
    n_below: Positions,
) -> None:
    """Count the units significantly above and below each of some units, by each unit's own critical value.

    `maxima` and `partner` come from `unit_maxima` and are overwritten; `sides` as there.
    """
    n = z.shape[1]
    row, observed, open_above, open_below = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for i in range(len(maxima)):
        unit = first + i
        fill_spread(spread, unit, row)
        evidence(estimate, unit, row, observed)
        open_above[:] = 1.0 if sides[0] else 0.0
        open_below[:] = 1.0 if sides[1] else 0.0
        open_above[unit] = open_below[unit] = 0.0
        rejected = 0
        while True:
            limit = _unit_limit(z, unit, row, open_above, open_below, order, fraction, maxima[i], partner[i])
            above = below = 0
            for k in range(n):
                below += sides[0] and observed[k] > limit
                above += sides[1] and -observed[k] > limit
            n_above[i], n_below[i] = above, below
            if not stepdown or above + below == rejected:
                break
            rejected = above + below
            for k in range(n):
                if observed[k] > limit:
                    open_above[k] = 0.0
                if -observed[k] > limit:
                    open_below[k] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _unit_limit(
    z: Draws,
    unit: int,
    row: Floats,
    open_above: Floats,
    open_below: Floats,
    order: int,
    fraction: float,
    maxima: Floats,
    partner: Ints,
) -> float:
    """Squared critical value of one unit over its open pairs; brings those maxima up to date that it depends on."""
    n = len(row)
    while True:
        low, limit = root_quantile(maxima, order, fraction)
        changed = False
        for d in range(len(maxima)):
            k = partner[d]
            if maxima[d] < low or k == NO_PARTNER:
                continue
            if (open_above[k] if k < n else open_below[k - n]) > 0.0:
                continue
            value = np.float64(z[d, unit])
            best = _open_maximum(z[d], value, row, open_above, open_below)
            maxima[d] = best
            partner[d] = NO_PARTNER
            if best > 0.0:
                partner[d] = _open_partner(z[d], value, row, open_above, open_below, best)
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

    Units are taken in order of their bound over all pairs, until no bound exceeds the best open pair: at least half of the
    ordered pairs are open, so few units are looked at.
    """
    n = z.shape[1]
    highest, lowest = np.empty(n, np.int32), np.empty(n, np.int32)
    bounds, row, observed = np.empty(n), np.empty(n), np.empty(n)
    for d in which:
        few = running_extremes(z[d], highest, lowest)[1]
        _row_bounds(z[d], spread, lowest, few, bounds)
        best, first, second = 0.0, NO_PARTNER, NO_PARTNER
        while True:
            a = np.argmax(bounds)
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
