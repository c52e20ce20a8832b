"""Imputation: draws that are right on average and in spread, that know of schools, and that repeat."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import BayesianRidge

from send_va.errors import InputError
from send_va.records.reader import Cohort
from send_va.sensitivity.imputation import _DrawnRegression, impute
from send_va.sensitivity.incomplete_records import IncompleteRecords, read_incomplete
from send_va.sensitivity.school_terms import adjusted_means

ROLES = {
    "pupil": "pupil",
    "school": "school",
    "outcome": "outcome",
    "prior": ["prior"],
    "sen_status": "sen_status",
    "sen_status_entry": "sen_before",
    "context": ["fsm6", "C(group)"],
}


def world(rng: np.random.Generator, schools: int = 40, size: int = 60, effect: float = 6.0) -> pd.DataFrame:
    """Outcomes in points: 5 a SD of prior attainment, school effects with an SD of `effect`, and pupils' own luck."""
    n = schools * size
    school = np.repeat(np.arange(schools), size)
    need = rng.random(n) < 0.2
    prior = 100.0 + 8.0 * (rng.normal(size=n) - 0.8 * need + rng.normal(0, 0.4, schools)[school])
    u = rng.normal(0.0, effect, schools)
    outcome = 50.0 + 5.0 * (prior - 100.0) / 8.0 + u[school] - 2.0 * need + rng.normal(0, 5.0, n)
    status = np.where(need, "K", "N")
    return pd.DataFrame(
        {
            "pupil": np.arange(n),
            "school": school + 1,
            "outcome": outcome.clip(0.0),
            "prior": prior,
            "sen_status": status,
            "sen_before": np.where(rng.random(n) < 0.1, "N", status),
            "fsm6": (rng.random(n) < 0.25) * 1.0,
            "group": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        }
    )


def records_of(pupils: pd.DataFrame, roles: dict = ROLES) -> IncompleteRecords:
    return read_incomplete(Cohort.from_pandas(pupils, roles))


def test_imputed_scores_follow_the_outcome_need_and_the_school() -> None:
    """Regressing the completed score on the outcome, need and school gives back what complete data give."""
    pupils = world(np.random.default_rng(1))
    truth = pupils["prior"].to_numpy()
    need = (pupils["sen_status"] == "K").to_numpy()
    gone = np.random.default_rng(2).random(len(pupils)) < np.where(need, 0.4, 0.2)
    drawn = impute(records_of(pupils.assign(prior=pupils["prior"].mask(gone))), imputations=5, seed=1)
    dummies = (pupils["school"].to_numpy()[:, None] == np.arange(1, 41)).astype(float)
    x = np.column_stack([pupils["outcome"], need, dummies])
    slopes = np.array([np.linalg.lstsq(x, drawn.completed(k)["prior"], rcond=None)[0][:2] for k in range(5)])
    known = np.linalg.lstsq(x, truth, rcond=None)[0][:2]
    # 600 of 2,400 scores are drawn: their noise moves the slope on the outcome by .02 and that on need by .5
    assert slopes[:, 0].mean() == pytest.approx(known[0], abs=0.05)
    assert slopes[:, 1].mean() == pytest.approx(known[1], abs=1.0)
    values = drawn.numbers["prior"]
    assert values.std() == pytest.approx(truth[gone].std(), rel=0.08)
    # schools differ by 6 points at the same score, which a model that knows them does not take for prior attainment
    blind = pupils.assign(
        prior=pupils["prior"].mask(gone), school=np.random.default_rng(4).permutation(pupils["school"])
    )
    without = impute(records_of(blind), imputations=5, seed=1).numbers["prior"]
    codes = pupils["school"].to_numpy()[gone]

    def error(drawn: np.ndarray) -> float:
        means = [drawn[:, codes == j].mean() - truth[gone][codes == j].mean() for j in np.unique(codes)]
        return float(np.sqrt(np.mean(np.square(means))))

    assert error(values) < 0.75 * error(without)


def test_same_seed_same_values_and_another_seed_others() -> None:
    pupils = world(np.random.default_rng(1), schools=12, size=25)
    pupils.loc[::5, "prior"] = np.nan
    pupils.loc[::17, "group"] = None
    pupils.loc[::13, "fsm6"] = np.nan
    records = records_of(pupils)
    one, same, other = (impute(records, imputations=2, seed=seed) for seed in (3, 3, 4))
    for name in ("prior", "fsm6"):
        assert one.numbers[name].tobytes() == same.numbers[name].tobytes()
        assert not np.array_equal(one.numbers[name], other.numbers[name])
        assert not np.array_equal(one.numbers[name][0], one.numbers[name][1])
    assert (one.categories["group"] == same.categories["group"]).all()
    completed = one.completed(1)
    assert not completed[["prior", "fsm6", "group"]].isna().any().any()
    assert set(completed["group"]) == {"a", "b", "c"}
    seen = pupils["prior"].notna()
    np.testing.assert_array_equal(completed.loc[seen, "prior"], pupils.loc[seen, "prior"])


def test_a_shift_moves_imputed_scores_of_the_named_status_only() -> None:
    pupils = world(np.random.default_rng(1), schools=12, size=25)
    pupils.loc[::4, "prior"] = np.nan
    drawn = impute(records_of(pupils), imputations=2, seed=1)
    moved = drawn.completed(0, -0.5, shifted=[1])
    change = (moved["prior"] - drawn.completed(0)["prior"]).to_numpy()
    shifted = pupils["prior"].isna() & (pupils["sen_status"] == "K")
    np.testing.assert_allclose(change[shifted], -0.5 * pupils["prior"].std())
    assert (change[~shifted] == 0.0).all()


def test_scores_are_held_to_the_range_only_when_asked() -> None:
    pupils = world(np.random.default_rng(3), schools=20, size=40)
    pupils["prior"] = pupils["prior"].clip(92.0, 108.0)
    pupils.loc[::3, "prior"] = np.nan
    records = records_of(pupils)
    free, held = (impute(records, imputations=2, seed=1, bounded=bounded) for bounded in (False, True))
    assert free.numbers["prior"].min() < 92.0 and free.numbers["prior"].max() > 108.0
    assert held.numbers["prior"].min() >= 92.0 - 1e-9 and held.numbers["prior"].max() <= 108.0 + 1e-9
    assert held.completed(0, 0.5)["prior"].max() <= 108.0 + 1e-9


def test_one_draw_of_the_regression_serves_all_pupils() -> None:
    """Coefficients vary between fits as their posterior says; within a fit every pupil has the same ones."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2))
    y = x @ [1.0, -1.0] + rng.normal(size=60)
    drawn = _DrawnRegression(np.random.default_rng(2))
    coefficients = np.array([drawn.fit(x.copy(), y.copy()).coef_ for _ in range(400)])
    known = BayesianRidge().fit(x, y)
    np.testing.assert_allclose(coefficients.mean(axis=0), known.coef_, atol=0.03)  # 400 draws with an SD of .13
    spread = np.cov(coefficients.T)
    np.testing.assert_allclose(spread, known.sigma_ * 58.0 / 56.0, rtol=0.3, atol=0.004)  # variances have 7 %
    mean, sd = drawn.predict(np.array([[0.0, 0.0], [1.0, 1.0]]), return_std=True)
    assert sd[0] == sd[1] and mean[1] - mean[0] == pytest.approx(drawn.coef_.sum())


def test_categories_come_from_the_same_school_and_kind() -> None:
    pupils = world(np.random.default_rng(1), schools=10, size=30)
    pupils["group"] = np.where(pupils["school"] <= 5, "a", "b")
    pupils.loc[pupils.index % 6 == 0, "group"] = None
    pupils.loc[pupils["school"] == 10, "group"] = None  # nobody to take from but the nation
    drawn = impute(records_of(pupils), imputations=3, seed=1)
    schools = pupils.loc[pupils["group"].isna(), "school"].to_numpy()
    values = drawn.categories["group"]
    assert (values[:, schools <= 5] == "a").all()
    assert (values[:, (schools > 5) & (schools < 10)] == "b").all()
    assert set(values[:, schools == 10].ravel()) == {"a", "b"}


def test_adjusted_means_are_best_linear_predictions() -> None:
    """With many schools, shrinking by estimated reliabilities beats plain means against the truth."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(2, 12, 400)
    school = np.repeat(np.arange(400), sizes)
    truth = rng.normal(0.0, 0.5, 400)
    values = truth[school] + rng.normal(size=len(school))
    adjusted = adjusted_means(values, school, 401)
    own = np.bincount(school, weights=values) / sizes
    best = own * 0.25 / (0.25 + 1.0 / sizes)
    assert np.mean((adjusted[:400] - truth) ** 2) < 0.6 * np.mean((own - truth) ** 2)
    np.testing.assert_allclose(adjusted[:400], best, atol=0.15)
    assert adjusted[400] == 0.0
    assert (adjusted_means(np.ones(6), np.array([0, 0, 1, 1, 2, 2]), 3) == 0.0).all()


def test_bad_input_is_refused() -> None:
    pupils = world(np.random.default_rng(1), schools=10, size=10)
    with pytest.raises(InputError, match="nothing to impute"):
        impute(records_of(pupils))
    pupils.loc[::4, "prior"] = np.nan
    with pytest.raises(InputError, match="at least 2"):
        impute(records_of(pupils), imputations=1)
