"""How small the loss of any grades could be: lower bounds that hold whatever the order."""

from __future__ import annotations

import numpy as np
from numba import njit

from send_va.effects import FloatArray
from send_va.ranking.grade_exact import best_by_set
from send_va.ranking.grade_search import Ints, best_cuts, ordered_cost

LINE = 7  # units solved together; time grows as 3 ** LINE / LINE ** 2


def smallest_possible_loss(above: FloatArray, below: FloatArray, order: Ints, ratio: float) -> float:
    """Largest of two lower bounds on the loss of any grades.

    One splits all pairs over small sets of units, each pair in one set, and grades each set at its best by itself. The
    other lowers costs until they rise along the order; a common order is then best, and its best cuts are exact.
    """
    cost = ordered_cost(above, below, order, ratio)
    by_sets = _bound_by_sets(cost, np.arange(len(order)))
    lower_costs(cost)
    return max(by_sets, float(best_cuts(cost)[1]))


@njit(cache=True, nogil=True)
def lower_costs(cost: FloatArray) -> None:
    """Replace ``cost[k, a]`` by the smallest among all places up to k and from a on.

    The result falls in k and rises in a. Then no loss rises where a unit swaps grades with an earlier one that is
    graded below it, so that some best grades keep the order.
    """
    n = len(cost)
    for k in range(n):
        running = np.inf
        for a in range(n - 1, -1, -1):
            if a != k:
                running = min(running, cost[k, a])
            if k > 0:
                running = min(running, cost[k - 1, a])
            cost[k, a] = running


def _bound_by_sets(cost: FloatArray, units: Ints) -> float:
    """Sum of the smallest losses of sets that hold each pair of the units once."""
    if len(units) <= LINE:
        return float(line_losses(cost, units[:, None], 1)) if len(units) > 1 else 0.0
    prime = _prime_from(max(-(-len(units) // LINE), LINE))
    places = np.full((LINE, prime), -1, dtype=np.intp)
    for group in range(LINE):
        members = units[group::LINE]
        places[group, : len(members)] = members
    within = sum(_bound_by_sets(cost, units[group::LINE]) for group in range(LINE))
    return float(line_losses(cost, places, prime)) + within


@njit(cache=True, nogil=True)
def line_losses(cost: FloatArray, places: Ints, slopes: int) -> float:
    """Sum of the smallest losses over all lines ``start + slope * group`` modulo the length of a group.

    Two places of different groups lie on one line, as the length is a prime; -1 is an empty place.
    """
    groups, length = places.shape
    sets = 1 << groups
    loss, top, scratch = np.empty(sets), np.empty(sets, dtype=np.intp), np.empty((2, sets))
    line = np.empty(groups, dtype=np.intp)
    total = 0.0
    for start in range(length):
        for slope in range(slopes):
            m = 0
            for group in range(groups):
                unit = places[group, (start + slope * group) % length]
                if unit >= 0:
                    line[m] = unit
                    m += 1
            small = np.zeros((m, m))
            for i in range(m):
                for j in range(m):
                    small[i, j] = cost[line[j], line[i]]
            best_by_set(small, loss, top, scratch)
            total += loss[(1 << m) - 1]
    return total


def _prime_from(n: int) -> int:
    while any(n % divisor == 0 for divisor in range(2, int(n**0.5) + 1)):
        n += 1
    return n
