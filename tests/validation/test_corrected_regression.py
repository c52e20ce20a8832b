"""Regression on scores with error, against least squares and against the truth."""

import numpy as np
import pytest
import statsmodels.api as sm

from send_va.errors import InputError
from send_va.validation.corrected_regression import corrected_regression, error_variance_of, summed


def test_without_error_it_is_least_squares_with_cluster_robust_standard_errors() -> None:
    rng = np.random.default_rng(1)
    school = rng.integers(25, size=400)
    x = np.column_stack([np.ones(400), rng.standard_normal((400, 2)) + rng.standard_normal((25, 2))[school]])
    y = x @ [1.0, 2.0, -1.0] + rng.standard_normal(25)[school] + rng.standard_normal(400)
    found = corrected_regression(y, x, np.zeros_like(x), school)
    groups = {"groups": school, "use_correction": False}
    outside = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds=groups)
    np.testing.assert_allclose(found.coefficients, outside.params, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, outside.cov_params() * 25 / 24, rtol=1e-9)
    np.testing.assert_allclose(found.influence.sum(axis=0), 0.0, atol=1e-12)


def test_slopes_on_true_scores_and_their_standard_errors() -> None:
    """Over 120 draws: the mean within four Monte-Carlo errors, the standard error within 15 % of the spread."""
    found, se = [], []
    for k in range(120):
        rng = np.random.default_rng(k)
        school = np.repeat(np.arange(50), 20)
        true = 0.5 * rng.standard_normal(50)[school] + rng.standard_normal(1000)
        seen = true + 0.6 * rng.standard_normal(1000)
        x = np.column_stack([seen, np.ones(1000)])
        y = 0.8 * true + 0.3 * rng.standard_normal(50)[school] + 0.5 * rng.standard_normal(1000)
        noise = np.column_stack([error_variance_of(seen, 1.25 / 1.61), np.zeros(1000)])
        fit = corrected_regression(y, x, noise, school)
        found.append(fit.coefficients[0])
        se.append(fit.se[0])
    spread = np.std(found)
    assert abs(np.mean(found) - 0.8) < 4 * spread / np.sqrt(120)
    assert 0.85 < np.mean(se) / spread < 1.15


def test_error_variance_of_a_reliability_is_its_share_of_the_sum_of_squares() -> None:
    score = np.random.default_rng(1).normal(100.0, 7.0, 50)
    assert error_variance_of(score, 0.9).sum() == pytest.approx(0.1 * ((score - score.mean()) ** 2).sum())
    assert not error_variance_of(score, 1.0).any()


def test_sums_by_group() -> None:
    np.testing.assert_array_equal(summed(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 0]), 3), [[5], [0], [2]])


@pytest.mark.parametrize("reliability", [0.0, -0.1, 1.01, np.nan])
def test_reliability_out_of_range(reliability: float) -> None:
    with pytest.raises(InputError, match="reliability must be above 0"):
        error_variance_of(np.arange(3.0), reliability)


def test_error_variance_that_no_score_can_have() -> None:
    x = np.column_stack([np.ones(30), np.random.default_rng(1).standard_normal(30)])
    with pytest.raises(InputError, match="linearly dependent once errors"):
        corrected_regression(x[:, 1], x, np.column_stack([np.zeros(30), np.full(30, 2.0)]), np.arange(30) % 5)
    with pytest.raises(InputError, match="one school only"):
        corrected_regression(x[:, 1], x, np.zeros_like(x), np.zeros(30, dtype=int))
