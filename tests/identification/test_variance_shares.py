"""Shares and correlations: their arithmetic, and their intervals against draws from the normal they assume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from send_va.errors import InputError
from send_va.identification.variance_shares import (
    correlation_with_interval,
    median_odds_ratio,
    shares_with_intervals,
)

LOGISTIC = np.pi**2 / 3


@settings(max_examples=60, deadline=None)
@given(
    variances=st.lists(st.floats(1e-4, 10), min_size=1, max_size=4),
    relative=st.floats(0.0, 0.5),
    residual=st.sampled_from([1.0, LOGISTIC]),
)
def test_shares_add_up_and_lie_inside_their_intervals(variances, relative, residual):
    found = np.array(variances)
    share, lower, upper = shares_with_intervals(found, np.diag((relative * found) ** 2), residual)
    assert share.sum() == pytest.approx(1)
    np.testing.assert_allclose(share[:-1] / share[-1], found / residual)
    assert ((lower <= share + 1e-12) & (share <= upper + 1e-12)).all()
    assert ((lower >= 0) & (upper <= 1)).all()


def test_intervals_of_shares_hold_the_middle_95_per_cent_of_draws():
    variances, relative_cov = np.array([0.2, 0.05]), np.array([[0.0004, 0.0003], [0.0003, 0.0036]])
    draws = np.exp(np.log(variances) + np.random.default_rng(3).multivariate_normal([0, 0], relative_cov, 200_000))
    total = draws.sum(axis=1) + LOGISTIC
    drawn = np.column_stack([draws / total[:, None], LOGISTIC / total])
    share, lower, upper = shares_with_intervals(variances, relative_cov * np.outer(variances, variances), LOGISTIC)
    # Log odds of a share are not quite linear in the log variances: up to 0.2 % of a bound at these sizes.
    np.testing.assert_allclose(np.quantile(drawn, 0.025, axis=0), lower, rtol=3e-3)
    np.testing.assert_allclose(np.quantile(drawn, 0.975, axis=0), upper, rtol=3e-3)
    np.testing.assert_allclose(np.median(drawn, axis=0), share, rtol=3e-3)


def test_a_variance_at_zero_has_no_upper_bound_and_leaves_the_others_alone():
    with_zero = shares_with_intervals(np.array([0.3, 0.0]), np.diag([1e-4, 0.0]), 1.0)
    without = shares_with_intervals(np.array([0.3]), np.array([[1e-4]]), 1.0)
    for found, expected in zip(with_zero, without, strict=True):
        np.testing.assert_allclose(found[[0, 2]], expected)
    assert (with_zero[0][1], with_zero[1][1]) == (0.0, 0.0)
    assert np.isnan(with_zero[2][1])


def test_the_interval_of_a_correlation_is_fishers_for_a_sample_covariance():
    # Variances and covariance of a bivariate normal sample of n: Cov = (s_ik s_jl + s_il s_jk) / n; the delta method
    # then gives Fisher's 1 / sqrt(n) on the z scale whatever the correlation.
    n, rho, sds = 400, 0.7, (0.5, 2.0)
    s = np.array([[sds[0] ** 2, rho * sds[0] * sds[1]], [rho * sds[0] * sds[1], sds[1] ** 2]])
    places = [(0, 0), (1, 1), (1, 0)]
    cov = np.array([[(s[i, k] * s[j, m] + s[i, m] * s[j, k]) / n for k, m in places] for i, j in places])
    found, lower, upper = correlation_with_interval(np.array([s[0, 0], s[1, 1], s[1, 0]]), cov)
    assert found == pytest.approx(rho)
    reach = 1.959964 / np.sqrt(n)
    assert (lower, upper) == pytest.approx((np.tanh(np.arctanh(rho) - reach), np.tanh(np.arctanh(rho) + reach)))


def test_a_correlation_without_variance_or_at_one_has_no_interval():
    assert np.isnan(correlation_with_interval(np.array([0.2, 0.0, 0.0]), np.eye(3))).all()
    found, lower, upper = correlation_with_interval(np.array([0.2, 0.2, 0.2]), np.eye(3))
    assert found == 1.0
    assert np.isnan([lower, upper]).all()


def test_the_median_odds_ratio_is_that_of_pairs_of_groups():
    effects = np.random.default_rng(4).normal(0, 0.6, (400_000, 2))
    drawn = np.median(np.exp(np.abs(effects[:, 0] - effects[:, 1])))
    assert median_odds_ratio(0.36) == pytest.approx(drawn, rel=5e-3)  # Monte Carlo error of the median: 0.1 %
    assert median_odds_ratio(0.0) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shares_with_intervals(np.array([0.1]), np.eye(2), 1.0), "1 variances need a 1 x 1 covariance"),
        (lambda: shares_with_intervals(np.array([-0.1]), np.eye(1), 1.0), "a variance is negative or no number"),
        (lambda: shares_with_intervals(np.array([np.nan]), np.eye(1), 1.0), "a variance is negative or no number"),
        (lambda: shares_with_intervals(np.array([0.1]), np.eye(1), 0.0), "residual variance not above zero"),
        (lambda: correlation_with_interval(np.ones(2), np.eye(3)), "two effects have three components"),
        (lambda: median_odds_ratio(-0.1), "a variance of -0.1 is negative"),
    ],
)
def test_numbers_that_are_no_variances_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
