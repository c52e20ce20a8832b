"""Compiled loops over places of schools within draws: the arrays are large, so each is read once, row by row."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int32]


@njit(cache=True, nogil=True)
def best_places(draws: Floats, descending: NDArray[np.intp], best: Places) -> bool:
    """Write the best place each school can claim in each draw, shape (draws, schools); return whether any are tied."""
    tied = False
    for i in range(draws.shape[0]):
        place = 1
        for k in range(draws.shape[1]):
            school = descending[i, k]
            if k > 0:
                if draws[i, school] == draws[i, descending[i, k - 1]]:
                    tied = True
                else:
                    place = k + 1
            best[i, school] = place
    return tied


@njit(cache=True, nogil=True)
def worst_places(draws: Floats, descending: NDArray[np.intp], worst: Places) -> None:
    """Write the worst place each school can be given in each draw, shape (draws, schools)."""
    n = draws.shape[1]
    for i in range(draws.shape[0]):
        place = n
        for k in range(n - 1, -1, -1):
            school = descending[i, k]
            if k < n - 1 and draws[i, school] != draws[i, descending[i, k + 1]]:
                place = k + 1
            worst[i, school] = place


@njit(cache=True, nogil=True)
def sum_places(best: Places, worst: Places, total: NDArray[np.int64]) -> None:
    """Add best and worst place over draws: twice the sum of mid-places, exact."""
    for i in range(best.shape[0]):
        for j in range(best.shape[1]):
            total[j] += best[i, j] + worst[i, j]


@njit(cache=True, nogil=True)
def count_at_most(best: Places, worst: Places, lasts: NDArray[np.int64], counts: Floats) -> None:
    """Add to ``counts[j, e]`` the draws in which school j takes place ``lasts[e]`` or a better one.

    Schools with the same value share their places: each counts by the share of them that are good enough.
    """
    for i in range(best.shape[0]):
        for j in range(best.shape[1]):
            first, last = best[i, j], worst[i, j]
            for e in range(len(lasts)):
                if last <= lasts[e]:
                    counts[j, e] += 1.0
                elif first <= lasts[e]:
                    counts[j, e] += (lasts[e] - first + 1) / (last - first + 1)


@njit(cache=True, nogil=True)
def score_moments(places: Places, score: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation over draws of each school's score, ``score[r - 1]`` being that of place r."""
    n_draws, n = places.shape
    mean, sd = np.zeros(n), np.zeros(n)
    for i in range(n_draws):
        for j in range(n):
            mean[j] += score[places[i, j] - 1]
    mean /= n_draws
    moved = np.zeros(n, dtype=np.bool_)
    for i in range(n_draws):
        for j in range(n):
            off = score[places[i, j] - 1] - mean[j]
            sd[j] += off * off
            moved[j] = moved[j] or places[i, j] != places[0, j]
    for j in range(n):  # a school that never moves has a mean that rounding puts a little off its score
        sd[j] = np.sqrt(sd[j] / max(n_draws - 1, 1)) if moved[j] else 0.0
    return mean, sd


@njit(cache=True, nogil=True)
def largest_deviations(
    best: Places, worst: Places, score: Floats, low: Floats, low_scale: Floats, high: Floats, high_scale: Floats
) -> Floats:
    """Largest distance of any school from its middle in each draw, in units of its scale.

    Best places are held against the middle and scale `low`, worst places against `high`.
    """
    n_draws, n = best.shape
    out = np.zeros(n_draws)
    for i in range(n_draws):
        largest = 0.0
        for j in range(n):
            above = (low[j] - score[best[i, j] - 1]) / low_scale[j]
            below = (score[worst[i, j] - 1] - high[j]) / high_scale[j]
            largest = max(largest, above, below)
        out[i] = largest
    return out


@njit(cache=True, nogil=True)
def count_inside(best: Places, worst: Places, lower: NDArray[np.int64], upper: NDArray[np.int64]) -> int:
    """Count draws in which every school lies between its bounds."""
    inside = 0
    for i in range(best.shape[0]):
        held = True
        for j in range(best.shape[1]):
            if best[i, j] < lower[j] or worst[i, j] > upper[j]:
                held = False
                break
        inside += held
    return inside


@njit(cache=True, nogil=True)
def count_block_wins(
    draws: Floats, descending: NDArray[np.intp], block: NDArray[np.intp], below: NDArray[np.int64], wins: Floats
) -> None:
    """Add to ``wins[a, b]`` the pairs of a school of block a and one of block b, the first being higher; ties by half.

    `below` is room for one number a block. A draw is walked through from its lowest school up: each school is higher
    than those already passed.
    """
    n = draws.shape[1]
    for i in range(draws.shape[0]):
        below[:] = 0
        k = n - 1
        while k >= 0:
            start = k
            while k >= 1 and draws[i, descending[i, k - 1]] == draws[i, descending[i, start]]:
                k -= 1
            for at in range(k, start + 1):
                own = block[descending[i, at]]
                for other in range(len(below)):
                    wins[own, other] += below[other]
            for at in range(k, start + 1):
                own = block[descending[i, at]]
                for other in range(k, start + 1):
                    if other != at:
                        wins[own, block[descending[i, other]]] += 0.5
            for at in range(k, start + 1):
                below[block[descending[i, at]]] += 1
            k -= 1
