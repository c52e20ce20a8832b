"""Which choice matters: against statsmodels and brute force."""

from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.anova import anova_lm

from send_va.errors import InputError
from send_va.sensitivity.choice_variance import EXACT, REST, SHARED_OUT, choice_variance


def crossing(*levels: int) -> pd.DataFrame:
    return pd.DataFrame(list(product(*(range(n) for n in levels))), columns=[f"c{k}" for k in range(len(levels))])


def sums_of_squares(choices: pd.DataFrame, value: np.ndarray) -> pd.Series:
    """Of one school, from statsmodels."""
    names = [f"C({name})" for name in choices.columns]
    formula = "y ~ " + " + ".join([*names, *(":".join(pair) for pair in combinations(names, 2))])
    return anova_lm(smf.ols(formula, choices.assign(y=value)).fit(), typ=2)["sum_sq"]


def test_a_full_crossing_gives_the_analysis_of_variance_of_statsmodels() -> None:
    choices = crossing(3, 2, 4)
    values = np.random.default_rng(1).standard_normal((24, 5)) + np.array(choices["c2"])[:, None]
    for school in (values[:, :1], values):
        found = choice_variance(choices, school)
        whole = sum(sums_of_squares(choices, value) for value in school.T)
        expected = whole / whole.sum()
        assert found.method == EXACT and found.n_schools == school.shape[1]
        # both solve the same 17 normal equations: differences are rounding
        np.testing.assert_allclose(found.table["share"], expected, atol=1e-12)
        assert found.table["term"].tolist() == ["c0", "c1", "c2", "c0 x c1", "c0 x c2", "c1 x c2", REST]
        np.testing.assert_allclose(found.variance, school.var(axis=0).mean())


def test_missing_specifications_are_averaged_over_all_orders_of_choices() -> None:
    choices = crossing(2, 3, 4).drop(index=[1, 6, 11]).reset_index(drop=True)
    value = np.random.default_rng(2).standard_normal(len(choices)) + choices["c0"].to_numpy() * choices["c1"].to_numpy()
    found = choice_variance(choices, value[:, None])
    names = list(choices.columns)

    def explained(terms: list[str]) -> float:
        return float(smf.ols("y ~ 1" + "".join(f" + {t}" for t in terms), choices.assign(y=value)).fit().rsquared)

    gains = dict.fromkeys(names, 0.0)
    for order in permutations(names):
        for at, name in enumerate(order):
            before = [f"C({other})" for other in order[:at]]
            gains[name] += (explained([*before, f"C({name})"]) - explained(before)) / 6
    shares = found.table.set_index("term")["share"]
    assert found.method == SHARED_OUT
    np.testing.assert_allclose(shares[names], [gains[name] for name in names], atol=1e-12)
    everything = [f"C({a}) * C({b})" for a, b in combinations(names, 2)]
    np.testing.assert_allclose(1.0 - shares[REST], explained(everything), atol=1e-10)
    np.testing.assert_allclose(shares.sum(), 1.0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    levels=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.0, 3.0), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_shares_are_shares_and_a_choice_that_does_nothing_has_none(
    levels: list[int], weights: list[float], seed: int
) -> None:
    choices = crossing(*levels)
    rng = np.random.default_rng(seed)
    values = sum(w * rng.standard_normal((4, 3))[choices[n]] for w, n in zip(weights, choices.columns, strict=False))
    found = choice_variance(choices, np.asarray(values))
    shares = found.table.set_index("term")["share"]
    assert ((shares >= 0.0) & (shares <= 1.0 + 1e-9)).all()
    assert shares.sum() == pytest.approx(1.0 if found.variance > 0 else 0.0, abs=1e-6)
    if found.variance > 1e-6:  # below that there is nothing but rounding
        assert found.table.loc[found.table["order"] > 1, "share"].max() == pytest.approx(0.0, abs=1e-6)  # additive
    for weight, name in zip(weights, choices.columns, strict=False):
        if weight == 0.0 and name in shares.index and found.variance > 1e-6:
            assert shares[name] == pytest.approx(0.0, abs=1e-9)


def test_schools_in_other_tables_are_analysed_by_themselves() -> None:
    """The mean over schools of what each says alone, weighted by how much it varies."""
    choices = crossing(2, 3, 2)
    values = np.random.default_rng(3).standard_normal((12, 6))
    values[[2, 7], 1] = np.nan  # no full crossing
    values[6:, 4] = np.nan  # a full crossing of fewer values
    values[1:, 5] = np.nan  # one table says nothing of choices
    found = choice_variance(choices, values)
    alone = [choice_variance(choices, values[:, [k]]) for k in range(5)]
    parts = sum(one.variance * one.table["share"] for one in alone)
    np.testing.assert_allclose(found.table["share"], parts / sum(one.variance for one in alone), atol=1e-12)
    assert (found.n_schools, found.n_exact, found.method) == (5, 4, SHARED_OUT)
    assert [one.method for one in alone] == [EXACT, SHARED_OUT, EXACT, EXACT, EXACT]
    assert alone[4].table.set_index("term").loc["c0", "share"] == 0.0
    assert "12 specifications, 5 schools (shared out)" in str(found)
    nobody = choice_variance(choices, np.full((12, 2), np.nan))
    assert nobody.n_schools == 0 and np.isnan(nobody.variance) and (nobody.table["share"] == 0.0).all()


def test_repeated_specifications_and_other_numbers_of_rows_are_refused() -> None:
    choices = crossing(2, 2)
    with pytest.raises(InputError, match="4 specifications, but 3 rows"):
        choice_variance(choices, np.zeros((3, 2)))
    with pytest.raises(InputError, match="the same specification twice"):
        choice_variance(pd.concat([choices, choices]), np.zeros((8, 2)))
    many = pd.DataFrame(np.eye(11, dtype=int), columns=[f"c{k}" for k in range(11)])
    with pytest.raises(InputError, match="11 choices with missing specifications"):
        choice_variance(many, np.zeros((11, 1)))
