"""Grades with controlled error: coarse groups whose order is likely to be right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import FloatArray
from send_va.errors import Failure, InputError
from send_va.ranking.estimate_inputs import check_choice, numbers
from send_va.ranking.grade_bounds import smallest_possible_loss
from send_va.ranking.grade_exact import EXACT_UNITS, exact_loss, exact_tau
from send_va.ranking.grade_rate import largest_tau
from send_va.ranking.grade_search import Graded, borda_score, smallest_loss

Counting = Literal["drrank", "pairs"]

_BOUNDS = {
    True: "proved best: all grades of so few units were searched",
    False: "bound on any grades in any order: pairs shared out over small sets of units, each graded at its best, or "
    "costs lowered until they rise along the order",
}


@dataclass(frozen=True)
class Grades:
    """Units in grades, and how good the grades are.

    Attributes
    ----------
    grades : Series (units,)
        Grade of each unit from 1, the best (largest effects).
    objective : float
        With a loss ratio: ``(1 - loss_ratio) * discordance - loss_ratio * tau``, the smaller the better. With a
        discordance rate: minus tau.
    discordance : float
        Expected share of all pairs that are graded in the wrong order.
    tau : float
        Expected share of all pairs in the right order less that in the wrong order; Kendall's tau of grades and
        effects, pairs that share a grade counting zero.
    n_grades : int
    loss_ratio : float
        As given; with a discordance rate, the ratio at which its limit binds.
    discordance_limit : float or None
        Largest share of all pairs allowed in the wrong order; none with a loss ratio.
    gap : float
        How much smaller the objective of the best grades could be, at most. Zero is a proof that there are no better
        grades.
    gap_from : str
        How the gap is bounded.
    order : str
        Order of units the grades were found from.
    """

    grades: pd.Series[int]
    objective: float
    discordance: float
    tau: float
    n_grades: int
    loss_ratio: float
    discordance_limit: float | None
    gap: float
    gap_from: str
    order: str

    def __str__(self) -> str:
        return (
            f"{len(self.grades):,} units in {self.n_grades:,} grade{'s' if self.n_grades != 1 else ''}: "
            f"{self.discordance:.1%} of pairs expected in the wrong order, tau {self.tau:.3f}; "
            f"objective {self.objective:.4f}, at most {self.gap:.4f} above the smallest possible"
        )

    def _repr_html_(self) -> str:
        counts = self.grades.value_counts().sort_index().rename_axis("grade").rename("units")
        return f"<p>{self}</p>{counts.to_frame().to_html()}"


def grades(
    pairwise: FloatArray | pd.DataFrame,
    *,
    loss_ratio: float | None = None,
    discordance_rate: float | None = None,
    counting: Counting = "drrank",
) -> Grades:
    """Group units into grades that trade telling pairs apart against telling them apart wrongly.

    Parameters
    ----------
    pairwise : array or DataFrame (units, units)
        Entry (i, j) is P(theta_i > theta_j), as
        :func:`send_va.ranking.pairwise.pairwise_probabilities` returns. The diagonal is not read.
    loss_ratio : float, optional
        Gain of a pair in the right order over the cost of one in the wrong order, 0 to 1: the lambda of Kline, Rose &
        Walters and of their program drrank, as it is. A pair by itself is told apart above a probability of
        1 / (1 + loss_ratio), 80 % at 0.25. At 1 every unit has a grade of its own. 0.25 unless either is given.
    discordance_rate : float, optional
        Largest expected share of pairs in the wrong order, 0 to 1; the grades then have the largest tau within it.
    counting : {"drrank", "pairs"}
        What `discordance_rate` is a share of. ``"pairs"``: of all pairs, as the article says. ``"drrank"``: as the
        program, which counts every pair in the wrong order twice, over the sum of all probabilities; the same grades
        as at half the rate of ``"pairs"``, about.

    Returns
    -------
    Grades
        Up to 12 units, the best grades there are (`gap` zero). With more, grades are the best cuts of an order,
        improved by moving single units; `gap` says how much better any others could be. With a rate and
        more than 60 units, grades are not added only to use what is left of the limit.

    Raises
    ------
    InputError
        Both trade-offs given, either outside 0 to 1, a matrix that is not square, has fewer than two
        units, or holds anything but probabilities that sum to at most one over a pair.

    References
    ----------
    Kline, Rose & Walters (2024), doi:10.1257/aer.20230700.

    Examples
    --------
    >>> above = [[0, 0.6, 0.95], [0.4, 0, 0.9], [0.05, 0.1, 0]]
    >>> found = grades(np.array(above), loss_ratio=0.25)
    >>> found.grades.tolist(), round(found.discordance, 3)
    ([1, 1, 2], 0.05)
    """
    _check_choices(loss_ratio, discordance_rate, counting)
    above, names = _checked(pairwise)
    below = np.ascontiguousarray(above.T)
    pairs = len(above) * (len(above) - 1) / 2
    if discordance_rate is None:
        ratio = 0.25 if loss_ratio is None else float(loss_ratio)
        solution, order = smallest_loss(above, below, ratio)
        if len(above) <= EXACT_UNITS:
            solution = _no_worse(exact_loss(above, below, ratio), solution, ratio)
        objective, limit = solution.loss(ratio), None
    else:
        most_wrong = discordance_rate * (pairs if counting == "pairs" else 0.5 * float(above.sum()))
        solution, ratio, order = largest_tau(above, below, most_wrong)
        if len(above) <= EXACT_UNITS:
            solution = exact_tau(above, below, most_wrong, solution)
        objective, limit = -solution.tau, most_wrong / pairs
    gap = _gap(above, below, solution, ratio, None if limit is None else limit * pairs) / pairs
    return Grades(
        grades=pd.Series(solution.labels + 1, index=names, name="grade"),
        objective=objective / pairs,
        discordance=solution.wrong / pairs,
        tau=solution.tau / pairs,
        n_grades=int(solution.labels.max()) + 1,
        loss_ratio=ratio,
        discordance_limit=limit,
        gap=gap,
        gap_from=_BOUNDS[len(above) <= EXACT_UNITS],
        order=order,
    )


def _no_worse(exact: Graded, found: Graded, ratio: float) -> Graded:
    """The exact solution, unless the one found is as good: it has the fewest grades of its order."""
    return found if found.loss(ratio) <= exact.loss(ratio) + 1e-9 else exact


def _gap(above: FloatArray, below: FloatArray, solution: Graded, ratio: float, most_wrong: float | None) -> float:
    """Sum over pairs by which the objective could be smaller at most; never negative."""
    if len(above) <= EXACT_UNITS:
        return 0.0
    order = np.argsort(-borda_score(above, below), kind="stable")
    bound = smallest_possible_loss(above, below, order, ratio)
    if most_wrong is None:
        return max(solution.loss(ratio) - bound, 0.0)
    largest = ((1.0 - ratio) * most_wrong - bound) / ratio
    return max(largest - solution.tau, 0.0)


def _check_choices(loss_ratio: float | None, discordance_rate: float | None, counting: str) -> None:
    if loss_ratio is not None and discordance_rate is not None:
        raise InputError("both loss_ratio and discordance_rate are given", "Give one of them.")
    for name, value in (("loss_ratio", loss_ratio), ("discordance_rate", discordance_rate)):
        number = value is None or isinstance(value, int | float | np.number)
        if not number or (value is not None and not 0.0 <= value <= 1.0):
            raise InputError(f"{name} must lie between 0 and 1, not {value}")
    check_choice(counting, get_args(Counting), "counting")


def _checked(pairwise: FloatArray | pd.DataFrame) -> tuple[FloatArray, pd.Index]:
    """Contiguous copy with a zero diagonal, and the names of units."""
    if isinstance(pairwise, pd.DataFrame) and not pairwise.columns.equals(pairwise.index):
        raise InputError("rows and columns of pairwise have other labels", "Give units in one order, rows and columns.")
    square = "Give a square array (units, units) of probabilities, as pairwise_probabilities returns."
    values = np.array(numbers(pairwise, "pairwise", square), order="C")
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise InputError(f"pairwise has shape {values.shape}", "Give a square array (units, units).")
    if len(values) < 2:
        raise InputError(f"{len(values)} unit cannot be graded", "Give the probabilities of two units or more.")
    np.fill_diagonal(values, 0.0)
    within = np.isfinite(values) & (values >= -1e-9) & (values <= 1.0 + 1e-9)
    _refuse(~within.all(axis=1), "must hold probabilities, 0 to 1", "Leave units without an estimate out.")
    _refuse(
        (values + values.T > 1.0 + 1e-6).any(axis=1),
        "P(theta_i > theta_j) and P(theta_j > theta_i) must sum to at most one",
        "Entry (i, j) is the probability that unit i is above unit j.",
    )
    names = pairwise.index if isinstance(pairwise, pd.DataFrame) else pd.RangeIndex(len(values))
    return values, names


def _refuse(broken: NDArray[np.bool_], rule: str, remedy: str) -> None:
    at = np.flatnonzero(broken)
    if len(at):
        raise InputError(Failure.of_rows(rule, "pairwise", at.tolist(), remedy=remedy))
