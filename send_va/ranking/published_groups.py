"""How likely published groups are to be right: the chance, from draws, that each school belongs where it was put."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from send_va.effects import FloatArray
from send_va.errors import Failure, InputError
from send_va.ranking.draw_places import school_names
from send_va.ranking.estimate_inputs import numbers
from send_va.ranking.rank_probabilities import RankProbabilities

_ROUNDING = 1e-6


@dataclass(frozen=True)
class PublishedGroups:
    """Published groups held against draws.

    Attributes
    ----------
    table : DataFrame
        One row a school: school, assigned, p_correct, p_next (the true group is the one above or below), likeliest
        (the group with the highest chance; the better one at equal chances), p_likeliest.
    by_group : DataFrame
        assigned, schools, expected_correct: the share of each published group expected to belong to it.
    expected_correct : float
        Share of all schools expected to be in the group they were put in.
    """

    table: pd.DataFrame
    by_group: pd.DataFrame
    expected_correct: float

    def __str__(self) -> str:
        next_to = float(self.table["p_next"].mean())
        return (
            f"Published groups of {len(self.table):,} schools: {self.expected_correct:.0%} are expected to be in their "
            f"true group, {next_to:.0%} in the one next to it"
        )

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def published_groups(
    probabilities: RankProbabilities | FloatArray, assigned: ArrayLike, *, schools: Sequence[str] | None = None
) -> PublishedGroups:
    """Work out how likely each school is to belong to the group it was put in.

    Parameters
    ----------
    probabilities : RankProbabilities, or array of shape (schools, groups)
        Chance of each group; group 1 has the highest values.
    assigned : array of int, shape (schools,)
        Published group of each school, 1 to the number of groups.
    schools : sequence of str, optional
        Names, where `probabilities` is an array; positions from 1 otherwise.

    Returns
    -------
    PublishedGroups
        Groups drawn at random would be right for one school in as many as there are groups.

    Raises
    ------
    InputError
        Lengths disagree, rows are no probabilities, or a group does not exist.

    Examples
    --------
    >>> found = published_groups(np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]]), [1, 1, 2])
    >>> found.table["p_correct"].tolist(), round(found.expected_correct, 3)
    ([0.7, 0.4, 0.5], 0.533)
    """
    if isinstance(probabilities, RankProbabilities):
        chances, names = probabilities.groups, probabilities.table["school"].tolist()
    else:
        chances = numbers(probabilities, "probabilities", "Give (schools, groups), or RankProbabilities.")
        if chances.ndim != 2 or not chances.size:
            raise InputError(f"chances of groups have shape {chances.shape}", "Give (schools, groups).")
        names = school_names(schools, len(chances))
    given = numbers(assigned, "assigned", "Number the groups from 1, the highest.")
    _check(chances, given)
    n, groups = chances.shape
    group = given.astype(np.int64)
    row = np.arange(n)
    beside = np.pad(chances, ((0, 0), (1, 1)))
    table = pd.DataFrame(
        {
            "school": names,
            "assigned": group,
            "p_correct": chances[row, group - 1],
            "p_next": beside[row, group - 1] + beside[row, group + 1],
            "likeliest": chances.argmax(axis=1) + 1,
            "p_likeliest": chances.max(axis=1),
        }
    )
    sizes = np.bincount(group - 1, minlength=groups)
    correct = np.bincount(group - 1, weights=chances[row, group - 1], minlength=groups)
    share = np.divide(correct, sizes, out=np.full(groups, np.nan), where=sizes > 0)
    by_group = pd.DataFrame({"assigned": np.arange(1, groups + 1), "schools": sizes, "expected_correct": share})
    return PublishedGroups(table, by_group, float(table["p_correct"].mean()))


def _check(chances: FloatArray, given: FloatArray) -> None:
    n, groups = chances.shape
    if given.shape != (n,):
        raise InputError(f"{given.size} groups and {n} names for {n} schools", "Give one a school.")
    wrong = ~(np.isfinite(chances).all(axis=1) & (chances >= 0.0).all(axis=1))
    wrong |= ~(np.abs(chances.sum(axis=1) - 1.0) < _ROUNDING)
    if wrong.any():
        remedy = "Chances of groups are 0 or more and sum to one for each school."
        raise InputError(
            Failure.of_rows("are no probabilities", "chances", np.flatnonzero(wrong).tolist(), remedy=remedy)
        )
    bad = np.flatnonzero(~np.isin(given, np.arange(1, groups + 1)))
    if len(bad):
        remedy = f"Number the groups from 1 (highest) to {groups}, and leave out schools without a published group."
        values = given[bad].tolist()
        raise InputError(Failure.of_rows("names no group", "assigned", bad.tolist(), values=values, remedy=remedy))
