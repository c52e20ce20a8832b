"""What draws say of the place of every school: expected ranks, intervals, and chances to be in a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.draw_places import DrawPlaces, draw_places, school_names
from send_va.ranking.estimate_inputs import check_fraction
from send_va.ranking.place_kernels import count_at_most, sum_places
from send_va.ranking.simultaneous_band import draws_needed, simultaneous_band
from send_va.ranking.threads import in_threads

Integers = NDArray[np.int64]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RankProbabilities:
    """What draws say of the place of every school.

    Attributes
    ----------
    table : DataFrame
        One row a school, in the order of the draws: school, expected_rank, rank_of_expected (1, 2, ...; schools with
        the same expected rank share the best), percentile (1 - expected_rank / (schools + 1), high is good),
        rank_lower, rank_upper (of the school by itself), rank_lower_joint, rank_upper_joint (of all schools at once;
        missing where there are too few draws), p_top, p_bottom, p_group_1 ... p_group_G (group 1 has the highest).
    coverage : float
        Of intervals, by themselves and jointly.
    top, bottom : int
        Places that p_top and p_bottom count.
    draws : int
    joint_multiple, joint_inside : float
        Half-width of the joint intervals in spreads of a school, and the share of draws they hold; missing without.
    """

    table: pd.DataFrame
    coverage: float
    top: int
    bottom: int
    draws: int
    joint_multiple: float
    joint_inside: float

    @property
    def groups(self) -> FloatArray:
        """Chance of each group, shape (schools, groups); rows sum to one."""
        return self.table.filter(regex=r"^p_group_\d+$").to_numpy(dtype=np.float64)

    def __str__(self) -> str:
        n = len(self.table)
        width = (self.table["rank_upper"] - self.table["rank_lower"] + 1).mean() / n
        joint = (self.table["rank_upper_joint"] - self.table["rank_lower_joint"] + 1).mean() / n
        together = "" if np.isnan(self.joint_multiple) else f", {joint:.0%} for intervals that hold for all at once"
        return (
            f"Places of {n:,} schools from {self.draws:,} draws: a {self.coverage:.0%} interval covers {width:.0%} of "
            f"places on average{together}"
        )

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def rank_probabilities(
    draws: FloatArray | DrawPlaces,
    *,
    schools: Sequence[str] | None = None,
    groups: int = 5,
    top: float = 0.1,
    bottom: float = 0.1,
    coverage: float = 0.95,
    joint: bool = True,
) -> RankProbabilities:
    """Count, over draws, the places each school takes.

    Parameters
    ----------
    draws : array, shape (draws, schools), or DrawPlaces
        Of schools that can be compared, in any unit; the highest value takes place 1, equal values share places.
    schools : sequence of str, optional
        Names; positions from 1 otherwise.
    groups : int
        Groups of equal size: 5 for quintiles. Place r of n belongs to group ``1 + (r - 1) * groups // n``.
    top, bottom : float
        Share of places that count as top or bottom, or from 1 on their number.
    coverage : float
        Of rank intervals.
    joint : bool
        Work out the intervals that hold for all schools at once too.

    Returns
    -------
    RankProbabilities
        The chance of a group is the chance that the school truly belongs to it, if the draws are right. Expected ranks
        have the smallest expected squared error of all ranks; where intervals cover most places, do not show them.

    Raises
    ------
    InputError
        Draws that cannot be ranked, coverage outside (0, 1), fewer than two groups, or a share that is not one.

    References
    ----------
    Lin, Louis, Paddock & Ridgeway (2006), doi:10.1214/06-BA130.
    Goldstein & Spiegelhalter (1996), doi:10.2307/2983325.

    Examples
    --------
    >>> table = rank_probabilities(np.array([[3.0, 1.0], [2.0, 1.0], [0.0, 1.0], [2.0, 0.0]]), groups=2).table
    >>> table["expected_rank"].tolist(), table["p_group_1"].tolist()
    ([1.25, 1.75], [0.75, 0.25])
    """
    check_fraction(coverage, "coverage")
    places = draws if isinstance(draws, DrawPlaces) else draw_places(draws)
    n = places.schools
    names = school_names(schools, n)
    n_top, n_bottom = places_of(top, n, "top"), places_of(bottom, n, "bottom")
    lasts = last_places(groups, n)
    expected = expected_ranks(places)
    at_most = chance_at_most(places, np.array([*lasts, n_top, n - n_bottom]))
    lower, upper = rank_intervals(places, coverage)
    table = {
        "school": names,
        "expected_rank": expected,
        "rank_of_expected": pd.Series(expected).rank(method="min").astype(np.int64),
        "percentile": 1.0 - expected / (n + 1),
        "rank_lower": lower,
        "rank_upper": upper,
    }
    table |= {f"rank_{side}_joint": pd.array([None] * n, dtype="Int64") for side in ("lower", "upper")}
    multiple = inside = float("nan")
    if joint and places.draws >= draws_needed(coverage):
        band = simultaneous_band(places, coverage)
        multiple, inside = band.multiple, band.inside
        # a skewed school's own interval can reach further than its part of the band; wider keeps the joint coverage
        table["rank_lower_joint"] = pd.array(np.minimum(band.lower, lower), dtype="Int64")
        table["rank_upper_joint"] = pd.array(np.maximum(band.upper, upper), dtype="Int64")
    chances = np.diff(at_most[:, :groups], axis=1, prepend=0.0)
    table |= {"p_top": at_most[:, groups], "p_bottom": 1.0 - at_most[:, groups + 1]}
    table |= {f"p_group_{k + 1}": chances[:, k] for k in range(groups)}
    return RankProbabilities(pd.DataFrame(table), coverage, n_top, n_bottom, places.draws, multiple, inside)


def expected_ranks(places: DrawPlaces) -> FloatArray:
    """Mean place of each school over draws, shape (schools,); ties count by the middle of the places shared."""
    total = np.zeros(places.schools, dtype=np.int64)
    sum_places(places.best, places.worst, total)
    expected: FloatArray = total / (2.0 * places.draws)
    return expected


def chance_at_most(places: DrawPlaces, lasts: Integers) -> FloatArray:
    """Chance that a school takes place ``lasts[e]`` or a better one, shape (schools, len(lasts))."""
    counts = np.zeros((places.schools, len(lasts)))

    def count(part: slice) -> None:
        count_at_most(places.best[:, part], places.worst[:, part], lasts, counts[part])

    in_threads(count, list(places.tiles()))
    return counts / places.draws


def rank_intervals(places: DrawPlaces, coverage: float) -> tuple[Integers, Integers]:
    """Places that hold each school, taken by itself, in a share `coverage` of draws; shapes (schools,).

    Ends are places that occur in the draws (inverted distribution function). Schools that are tied reach from the
    first to the last of the places they share.
    """
    tail = (1.0 - coverage) / 2.0
    lower, upper = np.empty(places.schools, dtype=np.int64), np.empty(places.schools, dtype=np.int64)

    def bound(part: slice) -> None:
        lower[part] = np.quantile(places.best[:, part], tail, axis=0, method="inverted_cdf")
        upper[part] = np.quantile(places.worst[:, part], 1.0 - tail, axis=0, method="inverted_cdf")

    in_threads(bound, list(places.tiles()))
    return lower, upper


def last_places(groups: int, n: int) -> Integers:
    """Last place of each of `groups` groups of `n` places, as equal in size as can be.

    Raises
    ------
    InputError
        Fewer than two groups.

    Examples
    --------
    >>> last_places(5, 12).tolist()
    [3, 5, 8, 10, 12]
    """
    if groups < 2:
        raise InputError(f"groups must be 2 or more, not {groups}")
    return -(-np.arange(1, groups + 1) * n // groups)


def places_of(share: float, n: int, name: str) -> int:
    """Places that a share of `n` means, rounded up; from 1 on it is their number.

    Raises
    ------
    InputError
        Not above 0, more places than schools, or a number from 1 on that is not whole.

    Examples
    --------
    >>> places_of(0.1, 25, "top"), places_of(0.1, 30, "top"), places_of(10, 30, "top")
    (3, 3, 10)
    """
    if not (0.0 < share < 1.0 or (1.0 <= share <= n and share == int(share))):
        raise InputError(f"{name} is {share}", f"Give a share between 0 and 1, or a whole number of places up to {n}.")
    return math.ceil(share * n - _ROUNDING) if share < 1.0 else int(share)
