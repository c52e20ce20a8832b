"""Grades with a small expected loss: dynamic programming along an order, then moves of single units.

Throughout, `above` is the matrix P(theta_i > theta_j) and `below` its transpose, both contiguous, with zero diagonals.
Putting i above j is right with probability ``above[i, j]`` and wrong with probability ``below[i, j]``. Grades are
labels 0, 1, ...; 0 is the best. ``right`` and ``wrong`` are sums over pairs of units in different grades.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from send_va.effects import FloatArray

Ints = NDArray[np.intp]

TIE = 1e-10  # differences in summed probabilities that count as none
MOST_SWEEPS = 100
EXPECTED_WINS, SURE_WINS = "expected wins", "sure wins"
MOST_ROUNDS = 20


@dataclass(frozen=True)
class Graded:
    """One solution.

    Attributes
    ----------
    labels : array (units,)
        Grade of each unit from 0, the best.
    wrong, right : float
        Expected numbers of pairs that are graded in the wrong and in the right order.
    """

    labels: Ints
    wrong: float
    right: float

    @property
    def tau(self) -> float:
        """Expected number of pairs in the right order less those in the wrong one."""
        return self.right - self.wrong

    def loss(self, ratio: float) -> float:
        """``(1 - ratio) * wrong - ratio * tau``."""
        return self.wrong - ratio * self.right


@njit(cache=True, nogil=True)
def ordered_cost(above: FloatArray, below: FloatArray, order: Ints, ratio: float) -> FloatArray:
    """Cost of putting one unit above another, ``[k, a]``: the unit at place a above the unit at place k."""
    n = len(order)
    cost = np.empty((n, n))
    for k in range(n):
        lower = order[k]
        for a in range(n):
            upper = order[a]
            cost[k, a] = above[lower, upper] - ratio * below[lower, upper]
    return cost


@njit(cache=True, nogil=True)
def best_cuts(cost: FloatArray) -> tuple[Ints, float]:
    """Best grades among those that keep the order: grade of each place, and their loss.

    Cost is that of :func:`ordered_cost`; its upper triangle is not read. A grade of places j to k saves the costs
    of the pairs within. Among equals, the fewest grades.
    """
    n = len(cost)
    saved = np.zeros(n)  # of one grade from each place to the current one
    best, grades, first = np.zeros(n + 1), np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    everything = 0.0
    for k in range(n):
        best[k + 1], grades[k + 1], first[k + 1] = best[k], grades[k] + 1, k
        with_k = 0.0
        for j in range(k - 1, -1, -1):
            with_k += cost[k, j]
            saved[j] += with_k
            value = best[j] - saved[j]
            better = value < best[k + 1] - TIE
            equal = not better and value <= best[k + 1] + TIE
            if better or (equal and grades[j] + 1 < grades[k + 1]):
                best[k + 1], grades[k + 1], first[k + 1] = value, grades[j] + 1, j
        everything += with_k
    labels = np.empty(n, dtype=np.intp)
    k = n
    while k > 0:
        labels[first[k] : k] = grades[k] - 1
        k = first[k]
    return labels, everything + best[n]


@njit(cache=True, nogil=True)
def pair_sums(above: FloatArray, below: FloatArray, labels: Ints) -> tuple[float, float]:
    """Expected numbers of pairs in the wrong and in the right order."""
    wrong, right = 0.0, 0.0
    for i in range(len(labels)):
        row_wrong, row_right = 0.0, 0.0
        for j in range(len(labels)):
            if labels[i] < labels[j]:
                row_wrong += below[i, j]
                row_right += above[i, j]
        wrong += row_wrong
        right += row_right
    return wrong, right


@njit(cache=True, nogil=True)
def move_units(
    above: FloatArray,
    below: FloatArray,
    labels: Ints,
    reward: float,
    charge: float,
    wrong: float,
    most_wrong: float,
    new_grades: bool,
) -> float:
    """Move one unit at a time to another grade, or to one of its own, while the score rises; `labels` are changed.

    Grades of their own are tried with `new_grades` only. The score is ``reward * right - charge * wrong``; moves that
    raise `wrong` beyond `most_wrong` are left out. Returns `wrong` after the moves.
    """
    n = len(labels)
    size = np.zeros(n + 1, dtype=np.int64)
    for i in range(n):
        size[labels[i]] += 1
    grades = labels.max() + 1
    higher, lower = np.empty(n + 1), np.empty(n + 1)
    for _ in range(MOST_SWEEPS):
        moved = False
        for u in range(n):
            here = labels[u]
            higher[:grades] = 0.0
            lower[:grades] = 0.0
            for v in range(n):
                higher[labels[v]] += above[u, v]
                lower[labels[v]] += below[u, v]
            # right and wrong of u: at first on top of everything, then pushed down grade by grade
            right_u, wrong_u = higher[:grades].sum(), lower[:grades].sum()
            current_right, current_wrong = 0.0, 0.0
            for h in range(grades):
                if h < here:
                    current_right += lower[h]
                    current_wrong += higher[h]
                elif h > here:
                    current_right += higher[h]
                    current_wrong += lower[h]
            room = most_wrong - wrong + current_wrong
            score = reward * current_right - charge * current_wrong
            best_score, best_wrong, to, own = score + TIE, current_wrong, here, False
            for h in range(grades + 1):
                value = reward * right_u - charge * wrong_u
                if new_grades and value > best_score and wrong_u <= room:
                    best_score, best_wrong, to, own = value, wrong_u, h, True
                if h < grades:
                    right_u -= higher[h]
                    wrong_u -= lower[h]
                    value = reward * right_u - charge * wrong_u
                    if value > best_score and wrong_u <= room:
                        best_score, best_wrong, to, own = value, wrong_u, h, False
                    right_u += lower[h]
                    wrong_u += higher[h]
            if not own and to == here:
                continue
            moved = True
            wrong += best_wrong - current_wrong
            if own:
                for i in range(n):
                    if labels[i] >= to:
                        labels[i] += 1
                for h in range(grades, to, -1):
                    size[h] = size[h - 1]
                size[to] = 0
                grades += 1
                here = labels[u]
            labels[u] = to
            size[to] += 1
            size[here] -= 1
            if size[here] == 0:
                for i in range(n):
                    if labels[i] > here:
                        labels[i] -= 1
                for h in range(here, grades - 1):
                    size[h] = size[h + 1]
                grades -= 1
                size[grades] = 0
        if not moved:
            break
    return wrong


def graded(above: FloatArray, below: FloatArray, labels: Ints) -> Graded:
    """Count expected pairs of a solution."""
    wrong, right = pair_sums(above, below, labels)
    return Graded(labels, wrong, right)


def borda_score(above: FloatArray, below: FloatArray) -> FloatArray:
    """Expected number of units each is above, less those above it."""
    return np.asarray(above.sum(axis=1) - below.sum(axis=1))


def starting_orders(above: FloatArray, below: FloatArray, ratio: float) -> dict[str, Ints]:
    """Orders tried, best unit first: by expected wins, and by wins that are sure enough to be graded."""
    borda = borda_score(above, below)
    threshold = 1.0 / (1.0 + ratio)
    sure = np.count_nonzero(above > threshold, axis=1) - np.count_nonzero(below > threshold, axis=1)
    return {EXPECTED_WINS: np.argsort(-borda, kind="stable"), SURE_WINS: np.lexsort((-borda, -sure))}


def along(above: FloatArray, below: FloatArray, order: Ints, ratio: float) -> Graded:
    """Best cuts of an order."""
    by_place, _ = best_cuts(ordered_cost(above, below, order, ratio))
    labels = np.empty_like(by_place)
    labels[order] = by_place
    return graded(above, below, labels)


def smallest_loss(above: FloatArray, below: FloatArray, ratio: float) -> tuple[Graded, str]:
    """Grades with a small loss, and the order they were found from.

    From each order: best cuts, moves of units, and again along the order that the grades now imply, until the loss
    falls no more.
    """
    score = borda_score(above, below)
    best, found_from = Graded(np.zeros(len(above), dtype=np.intp), 0.0, 0.0), EXPECTED_WINS
    for name, start in starting_orders(above, below, ratio).items():
        order, previous = start, np.inf
        for _ in range(MOST_ROUNDS):
            labels = along(above, below, order, ratio).labels
            move_units(above, below, labels, ratio, 1.0, 0.0, np.inf, True)
            solution = graded(above, below, labels)
            loss = solution.loss(ratio)
            if loss < best.loss(ratio) - TIE:
                best, found_from = solution, name
            if loss >= previous - TIE:
                break
            previous = loss
            order = np.lexsort((-score, labels))
    return best, found_from
