"""Grades with a large tau among those that keep the expected number of pairs in the wrong order below a limit."""

from __future__ import annotations

import numpy as np

from send_va.effects import FloatArray
from send_va.ranking.grade_search import (
    EXPECTED_WINS,
    TIE,
    Graded,
    along,
    graded,
    move_units,
    smallest_loss,
    starting_orders,
)

BISECTIONS = 12  # of the loss ratio along an order
STEPS_BACK = 6  # bisections of the ratio at which units are moved; what is left of the limit is used afterwards
MOST_LED_BACK = 2
FILLING_STEPS = 16  # of the loss ratio, while the limit is used up
LEAST_RATIO = 0.02
FEW_UNITS = 60  # up to these, all starts are led back, and units may open grades of their own to use the limit


def largest_tau(above: FloatArray, below: FloatArray, most_wrong: float) -> tuple[Graded, float, str]:
    """Grades with a large tau and at most so many pairs expected in the wrong order.

    Bisection of the loss ratio finds where the limit binds for best cuts. What they use of the limit jumps there, so
    grades just beyond it are led back within by moves of units at a lower ratio, and moves then use what is left.
    Returns the grades, the loss ratio at which the limit binds, and the order.
    """
    solution, name = smallest_loss(above, below, 1.0)
    if solution.wrong <= most_wrong:
        return solution, 1.0, name
    order = starting_orders(above, below, 1.0)[EXPECTED_WINS]
    feasible = Graded(np.zeros(len(above), dtype=np.intp), 0.0, 0.0)
    beyond = {int(solution.labels.max()): (solution, 1.0)}  # by number of grades, nearest to the limit last
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        ratio = 0.5 * (low + high)
        solution = along(above, below, order, ratio)
        if solution.wrong <= most_wrong:
            low, feasible = ratio, solution
        else:
            high = ratio
            beyond.pop(int(solution.labels.max()), None)
            beyond[int(solution.labels.max())] = (solution, ratio)
    best = _fill(above, below, feasible, low, most_wrong)
    starts = list(beyond.values())
    for start, ratio in starts if len(above) <= FEW_UNITS else starts[-MOST_LED_BACK:]:
        for candidate in _led_back(above, below, start, ratio, most_wrong):
            filled = _fill(above, below, candidate, low, most_wrong)
            if filled.tau > best.tau + TIE:
                best = filled
    return best, 0.5 * (low + high), EXPECTED_WINS


def _led_back(above: FloatArray, below: FloatArray, start: Graded, ratio: float, most_wrong: float) -> list[Graded]:
    """Grades within the limit that moves of units reach from grades beyond it, if any."""
    low, high = 0.0, ratio
    from_here = start.labels
    found: list[Graded] = []
    for _ in range(STEPS_BACK):
        middle = 0.5 * (low + high) if found else 0.8 * high
        labels = from_here.copy()
        move_units(above, below, labels, middle, 1.0, 0.0, np.inf, False)
        solution = graded(above, below, labels)
        if solution.wrong <= most_wrong:
            low, found = middle, [solution]
        else:
            high, from_here = middle, labels
    return found


def _fill(above: FloatArray, below: FloatArray, solution: Graded, ratio: float, most_wrong: float) -> Graded:
    """Move units within what is left of the limit, those first that gain most for what they use of it."""
    labels, wrong = solution.labels.copy(), solution.wrong
    for reward in np.geomspace(max(ratio, LEAST_RATIO), 1.0, FILLING_STEPS):
        wrong = move_units(above, below, labels, float(reward), 1.0, wrong, most_wrong, len(labels) <= FEW_UNITS)
    filled = graded(above, below, labels)
    return filled if filled.wrong <= most_wrong else solution
