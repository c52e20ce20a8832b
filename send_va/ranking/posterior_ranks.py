"""Ranks of schools from draws: what can be said of a place when effects are uncertain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from send_va.effects import FloatArray, SchoolEffects
from send_va.errors import Failure, InputError
from send_va.ranking.draw_places import draw_ranks
from send_va.ranking.estimate_inputs import check_fraction, column_numbers
from send_va.ranking.publication_rule import PublicationDecision, PublicationRule
from send_va.ranking.rank_probabilities import RankProbabilities, rank_probabilities

__all__ = ["Ranking", "draw_ranks", "rank"]


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
        Simultaneous bounds and grades come from unshrunken estimates and are empty where they were not given.
    measure : str
    coverage : float
        Of each school's rank interval, taken by itself.
    decision : PublicationDecision
        What withholds a position: symbols, clauses, counts. Where the effects rest on an assumption that labels do not
        tell, no school has a position whatever it says.
    """

    table: pd.DataFrame
    measure: str
    coverage: float
    decision: PublicationDecision

    def __str__(self) -> str:
        width = (self.table["rank_upper"] - self.table["rank_lower"] + 1).mean()
        return (
            f"Ranking of {len(self.table):,} schools by {self.measure}: the mean {self.coverage:.0%} rank interval "
            f"covers {width:,.0f} places; {int(self.table['published'].sum()):,} schools are given a position"
        )

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False))


def rank(
    effects: SchoolEffects,
    *,
    measure: str = "theta",
    coverage: float = 0.95,
    rule: PublicationRule | None = None,
    sets: pd.DataFrame | None = None,
    grades: pd.Series | None = None,
    disagreement: ArrayLike | None = None,
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
    sets : DataFrame, optional
        Simultaneous rank sets, columns lower and upper: one row a school that can be compared, in their order. The
        rule judges their width; without them that of the rank intervals.
    grades : Series, optional
        Grade of each school that can be compared, in their order; missing where there is none.
    disagreement : array, shape (schools,), optional
        Largest difference of another estimator, in pupil SDs, for all schools of the effects; for the rule.

    Returns
    -------
    Ranking
        ``expected_rank`` minimises squared error of the ranks; where intervals cover most places, exact ranks should
        not be shown. Schools with the same value in a draw share its places. Where the effects rest on an assumption
        that labels do not tell (``effects.attrs["assumes"]``), no school is given a position: ranks, quintiles and
        grades are missing.

    Raises
    ------
    InputError
        Unknown measure, coverage outside (0, 1), fewer than two schools that can be compared, or sets or grades that
        are not one a compared school.

    References
    ----------
    Lin, Louis, Paddock & Ridgeway (2006), doi:10.1214/06-BA130.
    Goldstein & Spiegelhalter (1996), doi:10.2307/2983325.

    Examples
    --------
    >>> from send_va.effects import school_effects
    >>> draws = np.random.default_rng(1).normal([3.0, 0.0], 1.0, (100, 2))
    >>> effects = school_effects(["a", "b"], {"theta": draws}, {}, n_pupils=np.array([90, 90]),
    ...     n_need=np.array([20, 9]), flag=["", ""], attrs={"estimator": "entry", "context": "cva"})
    >>> rank(effects).table[["school", "expected_rank", "published"]].to_numpy().tolist()
    [['a', 1.02, True], ['b', 1.98, False]]
    """
    check_fraction(coverage, "coverage")
    if not isinstance(effects, SchoolEffects):
        remedy = "Give what fit_value_added returns; for plain draws there is rank_probabilities."
        raise InputError(f"effects are {type(effects).__name__}, not SchoolEffects", remedy)
    draws = effects.draws(measure)
    compared = np.isfinite(draws).all(axis=0)
    n = int(compared.sum())
    if n < 2:
        raise InputError("one school cannot be ranked", "Give the effects of two schools or more.")
    found = rank_probabilities(draws if compared.all() else draws[:, compared], coverage=coverage, joint=False)
    names = [name for name, there in zip(effects.schools, compared, strict=True) if there]
    joint = _checked_sets(_by_name(sets, pd.DataFrame, "confidence_sets(...)", names), n)
    graded = _checked_grades(_by_name(grades, pd.Series, "grades(...).grades", names), n)
    decision = (rule or PublicationRule()).decide(
        effects.summary(measure, coverage),
        rank_width=_spread(_width(found, joint), compared, True),
        disagreement=disagreement,
    )
    assumed = str(effects.attrs.get("assumes") or "")
    table = _table(effects, found, joint, graded, compared, not assumed)
    reasons = decision.table["reason"].to_numpy(dtype=object, copy=True)
    if assumed:
        reasons[:] = assumed
    return Ranking(table.assign(published=reasons == "", reason=reasons), measure, coverage, decision)


def _table(
    effects: SchoolEffects,
    found: RankProbabilities,
    joint: pd.DataFrame | None,
    graded: FloatArray | None,
    compared: NDArray[np.bool_],
    shown: bool,
) -> pd.DataFrame:
    n = int(compared.sum())
    empty = np.full(n, np.nan)

    def places(values: ArrayLike) -> pd.Series:
        return pd.Series(_spread(values, compared, shown)).astype("Int64")

    of = found.table
    return pd.DataFrame(
        {
            "school": effects.schools,
            "estimator": effects.attrs["estimator"],
            "context": effects.attrs["context"],
            "expected_rank": _spread(of["expected_rank"], compared, shown),
            "rank_lower": places(of["rank_lower"]),
            "rank_upper": places(of["rank_upper"]),
            "rank_lower_simultaneous": places(empty if joint is None else joint["lower"]),
            "rank_upper_simultaneous": places(empty if joint is None else joint["upper"]),
        }
        | {f"p_quintile_{k}": _spread(of[f"p_group_{k}"], compared, shown) for k in range(1, 6)}
        | {"grade": places(empty if graded is None else graded)}
    )


def _spread(values: ArrayLike, compared: NDArray[np.bool_], shown: bool) -> FloatArray:
    """Values of compared schools among all schools; missing elsewhere, and everywhere if they must not be shown."""
    out = np.full(len(compared), np.nan)
    if shown:
        out[compared] = np.asarray(values, dtype=np.float64)
    return out


def _width(found: RankProbabilities, joint: pd.DataFrame | None) -> FloatArray:
    """Places in each school's rank set, as a share."""
    lower, upper = (found.table["rank_lower"], found.table["rank_upper"]) if joint is None else joint.T.to_numpy()
    width: FloatArray = (np.asarray(upper) - np.asarray(lower) + 1.0) / len(found.table)
    return width


def _by_name[Table: (pd.DataFrame, pd.Series)](
    given: Table | None, kind: type[Table], source: str, names: list[str]
) -> Table | None:
    """Rows in the order of the schools where they are named; as they are where they are only numbered."""
    if given is None:
        return None
    if not isinstance(given, kind):
        raise InputError(f"a {type(given).__name__} is given where a {kind.__name__} is needed", f"Give {source}.")
    if isinstance(given.index, pd.RangeIndex):
        return given
    named = given.set_axis(given.index.astype(str), axis=0)
    if sorted(named.index) != sorted(names):
        remedy = "Name them by school, one for each school that can be compared, or number them from 0 in that order."
        raise InputError("the index of sets or grades does not name the schools that are compared", remedy)
    return named.loc[names]


def _checked_sets(sets: pd.DataFrame | None, n: int) -> pd.DataFrame | None:
    if sets is None:
        return None
    missing = [name for name in ("lower", "upper") if name not in sets]
    if missing:
        raise InputError(Failure("is missing", column=name, remedy="Give confidence_sets().") for name in missing)
    if len(sets) != n:
        raise InputError(f"{len(sets)} rank sets for {n} schools", "Give one a school that can be compared.")
    remedy = f"Bounds are places from 1 to {n}, lower not above upper."
    bounds = pd.DataFrame({name: column_numbers(sets[name], name, remedy) for name in ("lower", "upper")})
    bad = ~((bounds["lower"] >= 1) & (bounds["lower"] <= bounds["upper"]) & (bounds["upper"] <= n))
    if bad.any():
        positions = np.flatnonzero(bad).tolist()
        raise InputError(Failure.of_rows("is no rank set", "sets", positions, remedy=remedy))
    return bounds


def _checked_grades(grades: pd.Series | None, n: int) -> FloatArray | None:
    if grades is None:
        return None
    if len(grades) != n:
        raise InputError(f"{len(grades)} grades for {n} schools", "Give one a school that can be compared.")
    remedy = "Grades are whole numbers from 1, the best."
    values = column_numbers(grades, "grades", remedy)
    bad = np.flatnonzero(~np.isnan(values) & ~((values >= 1) & (values == np.floor(values)) & np.isfinite(values)))
    if len(bad):
        raise InputError(Failure.of_rows("is no grade", "grades", bad.tolist(), remedy=remedy))
    return values
