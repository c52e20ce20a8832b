"""Ranks of schools from draws: what can be said of a place when effects are uncertain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from send_va.effects import FloatArray, SchoolEffects
from send_va.errors import InputError
from send_va.ranking.publication_rule import PublicationRule


@dataclass(frozen=True)
class Ranking:
    """What the draws say about the order of schools.

    Attributes
    ----------
    table : DataFrame
        One row a school, in the order of the effects: school, estimator, context, expected_rank, rank_lower,
        rank_upper, rank_lower_simultaneous, rank_upper_simultaneous, p_quintile_1 ... p_quintile_5, grade, published,
        reason. Rank 1 is the highest value; quintile 1 is the fifth of schools with the highest values. Schools that
        cannot be compared take no place: their ranks are missing, and those of the others count the others only.
        Simultaneous bounds and grades need unshrunken estimates and are left empty here.
    measure : str
    coverage : float
        Of each school's rank interval, taken by itself.
    """

    table: pd.DataFrame
    measure: str
    coverage: float

    def __str__(self) -> str:
        width = (self.table["rank_upper"] - self.table["rank_lower"] + 1).mean()
        return (
            f"Ranking of {len(self.table):,} schools by {self.measure}: the mean {self.coverage:.0%} rank interval "
            f"covers {width:,.0f} places; {int(self.table['published'].sum()):,} schools are given a position"
        )

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def draw_ranks(draws: FloatArray) -> NDArray[np.int32]:
    """Rank schools within every draw, shape (draws, schools); 1 is the highest."""
    order = np.argsort(-draws, axis=1, kind="stable")
    ranks = np.empty(draws.shape, dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(1, draws.shape[1] + 1, dtype=np.int32)[None, :], axis=1)
    return ranks


def rank(
    effects: SchoolEffects,
    *,
    measure: str = "theta",
    coverage: float = 0.95,
    rule: PublicationRule | None = None,
) -> Ranking:
    """Rank schools from the draws of one measure.

    Parameters
    ----------
    effects : SchoolEffects
    measure : str
        What is ranked; ``theta`` unless there is a reason.
    coverage : float
        Of the rank interval of each school taken by itself.
    rule : PublicationRule, optional
        Which schools get a position.

    Returns
    -------
    Ranking
        ``expected_rank`` minimises squared error of the ranks; where intervals cover most places, exact ranks should
        not be shown. Where the effects rest on an assumption that labels do not tell (``effects.attrs["assumes"]``),
        no school is given a position: ranks and quintiles are missing.

    Raises
    ------
    InputError
        Unknown measure, coverage outside (0, 1), or fewer than two schools that can be compared.

    References
    ----------
    Lin, Louis, Paddock & Ridgeway (2006), doi:10.1214/06-BA130.
    Goldstein & Spiegelhalter (1996), doi:10.2307/2983325.
    """
    if not 0.0 < coverage < 1.0:
        raise InputError(f"coverage must lie between 0 and 1, not {coverage}")
    draws = effects.draws(measure)
    compared = np.isfinite(draws).all(axis=0)
    n, all_schools = int(compared.sum()), draws.shape[1]
    if n < 2:
        raise InputError("one school cannot be ranked", "Give the effects of two schools or more.")
    ranks = draw_ranks(draws[:, compared])
    tail = (1.0 - coverage) / 2.0
    lower = np.quantile(ranks, tail, axis=0, method="inverted_cdf")
    upper = np.quantile(ranks, 1.0 - tail, axis=0, method="inverted_cdf")
    quintile = (ranks - 1) * 5 // n  # 0 for the highest fifth
    reasons = (rule or PublicationRule()).reasons(effects.summary(measure, coverage))
    assumed = str(effects.attrs.get("assumes") or "")
    if assumed:
        reasons[:] = assumed

    def by_school(values: NDArray[np.number]) -> FloatArray:
        out = np.full(all_schools, np.nan)
        if not assumed:
            out[compared] = values
        return out

    empty = pd.array([None] * all_schools, dtype="Int64")
    table = pd.DataFrame(
        {
            "school": effects.schools,
            "estimator": effects.attrs["estimator"],
            "context": effects.attrs["context"],
            "expected_rank": by_school(ranks.mean(axis=0)),
            "rank_lower": pd.Series(by_school(lower)).astype("Int64"),
            "rank_upper": pd.Series(by_school(upper)).astype("Int64"),
            "rank_lower_simultaneous": empty,
            "rank_upper_simultaneous": empty,
        }
        | {f"p_quintile_{k + 1}": by_school((quintile == k).mean(axis=0)) for k in range(5)}
        | {"grade": empty, "published": reasons == "", "reason": reasons}
    )
    return Ranking(table, measure, coverage)
