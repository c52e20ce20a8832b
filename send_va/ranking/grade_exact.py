"""Grades proved best, by dynamic programming over sets of few units."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.optimize import minimize_scalar

from send_va.effects import FloatArray
from send_va.ranking.grade_search import TIE, Graded, Ints, graded

EXACT_UNITS = 12  # 3 ** 12 pairs of a set and its best grade


@njit(cache=True, nogil=True)
def best_by_set(cost: FloatArray, loss: FloatArray, top: Ints, scratch: FloatArray) -> None:
    """Fill `loss` with the smallest loss of grading each set of units, and `top` with its best grade (a set).

    ``cost[i, j]`` is that of putting i above j. Sets are bit masks. The cost of a top grade above the rest of a set
    is the sum of its units' costs against the whole set less the costs within the grade.
    """
    n = len(cost)
    sets = 1 << n
    within, against = scratch[0], scratch[1]
    within[0], against[0], loss[0], top[0] = 0.0, 0.0, 0.0, 0
    for members in range(1, sets):
        u = 0
        while not (members >> u) & 1:
            u += 1
        rest = members & (members - 1)
        total = within[rest]
        for v in range(u + 1, n):
            if (rest >> v) & 1:
                total += cost[u, v] + cost[v, u]
        within[members] = total
    row = np.empty(n)
    for members in range(1, sets):
        for u in range(n):
            row[u] = 0.0
            if (members >> u) & 1:
                for v in range(n):
                    if v != u and (members >> v) & 1:
                        row[u] += cost[u, v]
        best, best_top = 0.0, members
        grade = 0
        while True:
            grade = (grade - members) & members  # next subset in increasing order
            if grade == members:
                break
            u = 0
            while not (grade >> u) & 1:
                u += 1
            against[grade] = against[grade & (grade - 1)] + row[u]
            value = against[grade] - within[grade] + loss[members ^ grade]
            if value < best - TIE:
                best, best_top = value, grade
        loss[members], top[members] = best, best_top


def exact_loss(above: FloatArray, below: FloatArray, ratio: float) -> Graded:
    """Grades with the smallest loss there is, for up to about 14 units."""
    n = len(above)
    _, top = _solve(below - ratio * above)
    labels, remaining, grade = np.empty(n, dtype=np.intp), (1 << n) - 1, 0
    while remaining:
        chosen = int(top[remaining])
        labels[[u for u in range(n) if (chosen >> u) & 1]] = grade
        remaining ^= chosen
        grade += 1
    return graded(above, below, labels)


def exact_tau(above: FloatArray, below: FloatArray, most_wrong: float, start: Graded) -> Graded:
    """Grades with the largest tau there is at the limit: branch and bound from a good solution.

    Grades are chosen from the top. The smallest losses of all sets, at the loss ratio where they bound tau most
    closely, bound what the units left can add.
    """
    n = len(above)
    everyone = (1 << n) - 1

    def bound(ratio: float) -> float:
        loss, _ = _solve(below - ratio * above)
        return float(((1.0 - ratio) * most_wrong - loss[everyone]) / ratio)

    ratio = float(minimize_scalar(bound, bounds=(1e-3, 1.0), method="bounded", options={"maxiter": 15}).x)
    loss, _ = _solve(below - ratio * above)
    sums = _sums_over_sets(np.stack([above, below]))
    labels = np.zeros(n, dtype=np.intp)
    best_labels = start.labels.copy()
    search_tau(sums, loss, ratio, most_wrong, start.tau, everyone, 0, 0.0, 0.0, labels, best_labels)
    return graded(above, below, best_labels)


@njit(cache=True, nogil=True)
def search_tau(
    sums: FloatArray,
    loss: FloatArray,
    ratio: float,
    most_wrong: float,
    best: float,
    left: int,
    grade: int,
    wrong: float,
    right: float,
    labels: Ints,
    best_labels: Ints,
) -> float:
    """Largest tau reachable; `best_labels` are replaced where it rises. Calls itself for the units left."""
    n = len(labels)
    if right - wrong > best + TIE:  # all units left share this grade
        best = right - wrong
        for u in range(n):
            best_labels[u] = grade if (left >> u) & 1 else labels[u]
    chosen = 0
    while True:
        chosen = (chosen - left) & left
        if chosen == left:
            return best
        rest = left ^ chosen
        more_right, more_wrong = 0.0, 0.0
        for u in range(n):
            if (chosen >> u) & 1:
                more_right += sums[0, u, rest]
                more_wrong += sums[1, u, rest]
        new_wrong, new_right = wrong + more_wrong, right + more_right
        if new_wrong > most_wrong:
            continue
        reach = new_right - new_wrong + ((1.0 - ratio) * (most_wrong - new_wrong) - loss[rest]) / ratio
        if reach <= best + TIE:
            continue
        for u in range(n):
            if (chosen >> u) & 1:
                labels[u] = grade
        best = search_tau(
            sums, loss, ratio, most_wrong, best, rest, grade + 1, new_wrong, new_right, labels, best_labels
        )


def _solve(cost: FloatArray) -> tuple[FloatArray, Ints]:
    sets = 1 << len(cost)
    loss, top = np.empty(sets), np.empty(sets, dtype=np.intp)
    best_by_set(cost, loss, top, np.empty((2, sets)))
    return loss, top


def _sums_over_sets(matrices: FloatArray) -> FloatArray:
    """Sum of each row over each set of columns, shape (matrices, rows, sets)."""
    count, n, _ = matrices.shape
    sums = np.zeros((count, n, 1 << n))
    for v in range(n):
        size = 1 << v
        sums[:, :, size : 2 * size] = sums[:, :, :size] + matrices[:, :, v : v + 1]
    return sums
