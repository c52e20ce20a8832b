"""Ranks from draws: against counting by hand, and against the normal theory of two schools."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from send_va.effects import SchoolEffects, school_effects
from send_va.errors import InputError
from send_va.ranking import PublicationRule, rank
from send_va.ranking.posterior_ranks import draw_ranks


def effects(draws: np.ndarray, n_need: np.ndarray | None = None) -> SchoolEffects:
    n = draws.shape[1]
    count = np.full(n, 50) if n_need is None else n_need
    known = {"theta": {"reliability": np.linspace(0.1, 0.9, n)}}
    return school_effects(
        [f"s{k}" for k in range(n)],
        {"theta": draws},
        known,
        n_pupils=count,
        n_need=count,
        flag=[""] * n,
        attrs={"estimator": "labelled", "context": "cva"},
    )


def test_ranks_of_draws_by_hand() -> None:
    assert draw_ranks(np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])).tolist() == [[1, 3, 2], [3, 1, 2]]


def test_two_normal_schools() -> None:
    """P(first > second) is Phi(d / sqrt(2) / sd); expected rank is 2 minus it; within four Monte-Carlo errors."""
    rng = np.random.default_rng(1)
    draws = rng.normal([0.5, 0.0], 1.0, (20_000, 2))
    table = rank(effects(draws)).table
    wins = norm.cdf(0.5 / np.sqrt(2))
    assert table["expected_rank"][0] == pytest.approx(2 - wins, abs=4 * np.sqrt(0.25 / 20_000))
    assert table["p_quintile_1"][0] == pytest.approx(wins, abs=4 * np.sqrt(0.25 / 20_000))
    assert table[["rank_lower", "rank_upper"]].to_numpy().tolist() == [[1, 2], [1, 2]]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_properties(schools: int, seed: int) -> None:
    """Expected ranks sum to those of any order; quintile probabilities sum to one; intervals hold the median rank."""
    draws = np.random.default_rng(seed).normal(size=(200, schools))
    table = rank(effects(draws)).table
    assert table["expected_rank"].sum() == pytest.approx(schools * (schools + 1) / 2)
    np.testing.assert_allclose(table.filter(like="p_quintile").sum(axis=1), 1.0)
    median = np.median(draw_ranks(draws), axis=0)
    assert (table["rank_lower"] <= median).all()
    assert (table["rank_upper"] >= median).all()
    assert table["rank_lower"].min() >= 1
    assert table["rank_upper"].max() <= schools


def test_publication_rule_gives_its_reason() -> None:
    need = np.array([9, 10, 50, 50, 50])
    rule = PublicationRule(minimum_need=10, minimum_reliability=0.4)
    table = rank(effects(np.random.default_rng(1).normal(size=(50, 5)), need), rule=rule).table
    assert table["published"].tolist() == [False, False, True, True, True]
    assert table["reason"].tolist()[:2] == ["fewer than 10 pupils with need", "u: reliability below 0.4"]


def with_a_school_not_compared() -> SchoolEffects:
    draws = np.random.default_rng(1).normal([3.0, 0.0, 0.0, -3.0], 1.0, (200, 4))
    draws[:, 1] = np.nan
    return effects(draws)


def test_sets_and_grades_go_to_the_schools_that_are_compared() -> None:
    sets = pd.DataFrame({"lower": [1, 1, 2], "rank": [1, 2, 3], "upper": [2, 3, 3]})
    ranking = rank(with_a_school_not_compared(), sets=sets, grades=pd.Series([1, None, 2], dtype="Int64"))
    table = ranking.table
    assert table["rank_lower_simultaneous"].tolist() == [1, pd.NA, 1, 2]
    assert table["rank_upper_simultaneous"].tolist() == [2, pd.NA, 3, 3]
    assert table["grade"].tolist() == [1, pd.NA, pd.NA, 2]
    assert table["rank_lower"].isna().tolist() == [False, True, False, False]
    assert str(table["grade"].dtype) == "Int64"
    assert ranking.decision.table["symbol"].tolist() == ["", "x", "", ""]


def test_named_sets_and_grades_go_to_their_schools_in_any_order() -> None:
    effects = with_a_school_not_compared()
    names = [name for name, gone in zip(effects.schools, [False, True, False, False], strict=True) if not gone]
    sets = pd.DataFrame({"lower": [1, 1, 2], "upper": [2, 3, 3]}, index=names)
    grades = pd.Series([1, 2, 3], index=names)
    table = rank(effects, sets=sets[::-1], grades=grades[::-1]).table
    assert table["rank_lower_simultaneous"].tolist() == [1, pd.NA, 1, 2]
    assert table["grade"].tolist() == [1, pd.NA, 2, 3]
    with pytest.raises(InputError, match="does not name the schools that are compared"):
        rank(effects, grades=pd.Series([1, 2, 3], index=["a", "b", "z"]))
    with pytest.raises(InputError, match="effects are ndarray, not SchoolEffects"):
        rank(np.zeros((5, 2)))  # type: ignore[arg-type]


def test_the_rule_judges_the_width_of_sets_and_of_intervals_without_them() -> None:
    sets = pd.DataFrame({"lower": [1, 1, 2], "upper": [2, 3, 3]})
    rule = PublicationRule(maximum_rank_width=0.7)
    given = rank(with_a_school_not_compared(), sets=sets, rule=rule).table
    assert given["published"].tolist() == [True, False, False, True]
    assert given["reason"][2] == "u: rank set covers more than 70 % of places"
    own = rank(with_a_school_not_compared(), rule=rule).table
    assert own["published"].tolist() == [True, False, True, True]


def test_an_assumption_hides_sets_and_grades_too() -> None:
    assumed = with_a_school_not_compared()
    assumed.data.attrs["assumes"] = "half of it is need"
    sets = pd.DataFrame({"lower": [1, 1, 2], "upper": [2, 3, 3]})
    table = rank(assumed, sets=sets, grades=pd.Series([1, 1, 2])).table
    shown = ["expected_rank", "rank_lower", "rank_lower_simultaneous", "p_quintile_1", "grade"]
    assert table[shown].isna().all(axis=None)
    assert (table["reason"] == "half of it is need").all()


def test_draws_that_are_all_equal_give_every_school_every_place() -> None:
    """A variance of zero: the order of the file decides nothing."""
    table = rank(effects(np.zeros((50, 4)))).table
    assert table["expected_rank"].tolist() == [2.5] * 4
    assert table[["rank_lower", "rank_upper"]].to_numpy().tolist() == [[1, 4]] * 4


def test_sets_and_grades_that_fit_no_school_are_refused() -> None:
    some = with_a_school_not_compared()
    with pytest.raises(InputError, match="2 rank sets for 3 schools"):
        rank(some, sets=pd.DataFrame({"lower": [1, 1], "upper": [2, 2]}))
    with pytest.raises(InputError, match="upper: is missing"):
        rank(some, sets=pd.DataFrame({"lower": [1, 1, 1]}))
    with pytest.raises(InputError, match=r"sets: is no rank set; 2 rows fail; rows 1, 3"):
        rank(some, sets=pd.DataFrame({"lower": [0, 1, 3], "upper": [2, 2, 4]}))
    with pytest.raises(InputError, match="4 grades for 3 schools"):
        rank(some, grades=pd.Series([1, 1, 1, 2]))
    with pytest.raises(InputError, match=r"grades: is no grade; 1 row fails; rows 2"):
        rank(some, grades=pd.Series([1, 0, 2]))
    with pytest.raises(InputError, match="grades: is no grade; 1 row fails; rows 3"):
        rank(some, grades=pd.Series([1, 2, np.inf]))
    with pytest.raises(InputError, match="grades: is not a number; 2 rows fail; rows 1, 2; values 'A', 'B'"):
        rank(some, grades=pd.Series(["A", "B", None]))
    with pytest.raises(InputError, match=r"a list is given where a Series is needed. Give grades\(...\).grades"):
        rank(some, grades=[1, 1, 2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lower: is not a number; 1 row fails; rows 1; values 'c'"):
        rank(some, sets=pd.DataFrame({"lower": ["c", 1, 1], "upper": [2, 2, 3]}))
    with pytest.raises(InputError, match="a ndarray is given where a DataFrame is needed"):
        rank(some, sets=np.ones((3, 2)))  # type: ignore[arg-type]


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="one school"):
        rank(effects(np.zeros((5, 1))))
    with pytest.raises(InputError, match="coverage"):
        rank(effects(np.zeros((5, 3))), coverage=1.0)
    with pytest.raises(InputError, match="no measure"):
        rank(effects(np.zeros((5, 3))), measure="gap")
