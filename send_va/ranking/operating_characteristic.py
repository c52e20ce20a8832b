"""How often schools are put on the wrong side of a line, and the order that puts fewest there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.draw_places import DrawPlaces, draw_places
from send_va.ranking.estimate_inputs import refuse
from send_va.ranking.rank_probabilities import chance_at_most, expected_ranks

_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatingCharacteristic:
    """Schools put above a line, and how many of them belong there.

    Attributes
    ----------
    gamma : float
        The line as a percentile: .8 separates the highest fifth.
    places_above : int
        Places above the line.
    p_above : array, shape (schools,)
        Chance that each school truly lies above.
    rank : int array, shape (schools,)
        Order by that chance, 1 the likeliest; equal chances in the order of expected ranks. The first `places_above`
        are the schools to put above the line.
    false_above : float
        Share of the schools put above that are expected to lie below.
    false_below : float
        Share of the schools put below that are expected to lie above.
    misclassified : float
        Share of all schools expected to be on the wrong side.
    oc : float
        ``false_above + false_below``: 0 without error, 1 for an order by chance.
    """

    gamma: float
    places_above: int
    p_above: FloatArray
    rank: NDArray[np.int64]
    false_above: float
    false_below: float
    misclassified: float
    oc: float

    def __str__(self) -> str:
        return (
            f"Line at percentile {100 * self.gamma:g}: of {self.places_above:,} schools put above it "
            f"{self.false_above:.0%} are expected to lie below, of {len(self.rank) - self.places_above:,} put below it "
            f"{self.false_below:.0%} above; OC {self.oc:.2f} (1 is chance)"
        )


def operating_characteristic(
    draws: FloatArray | DrawPlaces, gamma: float = 0.8, *, order: ArrayLike | None = None
) -> OperatingCharacteristic:
    """Expected misclassification above and below a line, by the best order or by a given one.

    With R the place counted from the lowest school and n schools, a school lies above the line where
    ``R / (n + 1) > gamma``. The order by ``P(R / (n + 1) > gamma)`` has the fewest schools on the wrong side.

    Parameters
    ----------
    draws : array, shape (draws, schools), or DrawPlaces
        Of schools that can be compared.
    gamma : float
        Percentile of the line.
    order : array, shape (schools,), optional
        Ranks to judge instead of the best ones, 1 the highest: expected ranks, say. Ties are split by position.

    Returns
    -------
    OperatingCharacteristic
        An OC near 1 means that the line tells nothing; compare it between lines and between orders.

    Raises
    ------
    InputError
        Draws that cannot be ranked, a line with no school on one side, or an order that is not one number a school.

    References
    ----------
    Lin, Louis, Paddock & Ridgeway (2006), doi:10.1214/06-BA130.

    Examples
    --------
    >>> draws = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0], [3.0, 2.0, 1.0]])
    >>> found = operating_characteristic(draws, 0.6)
    >>> found.p_above.tolist(), found.false_above, found.false_below
    ([0.75, 0.25, 0.0], 0.25, 0.125)
    """
    places = draws if isinstance(draws, DrawPlaces) else draw_places(draws)
    n = places.schools
    above = n - int(np.floor(gamma * (n + 1) + _ROUNDING)) if 0.0 < gamma < 1.0 else 0
    if not 0 < above < n:
        raise InputError(
            f"gamma {gamma} leaves all {n} schools on one side of the line",
            f"Give a percentile between {1 / (n + 1):.3g} and {n / (n + 1):.3g}.",
        )
    p_above = chance_at_most(places, np.array([above]))[:, 0]
    rank = _ranks((expected_ranks(places), -p_above) if order is None else (_checked_order(order, n),))
    put_above = rank <= above
    wrong_above, wrong_below = float((1.0 - p_above[put_above]).sum()), float(p_above[~put_above].sum())
    false_above, false_below = wrong_above / above, wrong_below / (n - above)
    return OperatingCharacteristic(
        gamma,
        above,
        p_above,
        rank,
        false_above,
        false_below,
        (wrong_above + wrong_below) / n,
        false_above + false_below,
    )


def operating_characteristics(draws: FloatArray | DrawPlaces, gammas: ArrayLike) -> pd.DataFrame:
    """Operating characteristic at several lines, by the best order of each and by expected ranks.

    Returns
    -------
    DataFrame
        gamma, places_above, false_above, false_below, misclassified, oc (best order), oc_expected_rank.

    Raises
    ------
    InputError
        As :func:`operating_characteristic`.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(np.arange(9.0), 2.0, (200, 9))
    >>> operating_characteristics(draws, [0.5, 0.8])["places_above"].tolist()
    [4, 1]
    """
    places = draws if isinstance(draws, DrawPlaces) else draw_places(draws)
    expected = expected_ranks(places)
    rows = []
    for gamma in np.atleast_1d(np.asarray(gammas, dtype=np.float64)):
        best = operating_characteristic(places, float(gamma))
        usual = operating_characteristic(places, float(gamma), order=expected)
        rows.append(
            {
                "gamma": best.gamma,
                "places_above": best.places_above,
                "false_above": best.false_above,
                "false_below": best.false_below,
                "misclassified": best.misclassified,
                "oc": best.oc,
                "oc_expected_rank": usual.oc,
            }
        )
    return pd.DataFrame(rows)


def _checked_order(order: ArrayLike, n: int) -> FloatArray:
    values = np.asarray(order, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"order has shape {values.shape} for {n} schools", "Give one rank a school.")
    refuse(~np.isfinite(values), values, "order", "is not finite", "Give a rank to each school.")
    return values


def _ranks(keys: tuple[FloatArray, ...]) -> NDArray[np.int64]:
    """Ranks from 1 by the last key, then those before it, then position."""
    rank = np.empty(len(keys[0]), dtype=np.int64)
    rank[np.lexsort(keys)] = np.arange(1, len(rank) + 1)
    return rank
