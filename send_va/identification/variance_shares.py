"""Shares of a variance by level, and correlations of effects, with intervals by the delta method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from send_va.errors import InputError

FloatArray = NDArray[np.float64]

SMALLEST_VARIANCE = 1e-6  # below it the engine counts a variance as zero, where its logarithm is not near normal


def shares_with_intervals(
    variances: FloatArray, sampling_cov: FloatArray, residual: float, coverage: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Share of the variance at each level, the residual last, with intervals.

    The logarithms of the variances are taken as jointly normal and the interval is made for the log odds of a share, so
    that it stays between 0 and 1. The residual variance is a constant of the latent scale.

    Parameters
    ----------
    variances : ndarray, shape (levels,)
        Of the levels' effects on the latent scale.
    sampling_cov : ndarray, shape (levels, levels)
        Covariance of the estimates in `variances`, as `GlmmFit.cov_variance_components`.
    residual : float
        Variance within the lowest level: ``pi**2 / 3`` under the logit link, 1 under the probit link.
    coverage : float, default 0.95

    Returns
    -------
    share, lower, upper : ndarray, shape (levels + 1,)
        Shares add up to 1. A level whose variance was estimated at zero has share and lower 0 and upper not a number:
        the fit does not say how large it may be.

    Raises
    ------
    InputError
        A variance is negative or no number, the residual variance is not above zero, or the shapes do not agree.

    References
    ----------
    Goldstein, H., Browne, W., & Rasbash, J. (2002). Partitioning variation in multilevel models. Understanding
    Statistics, 1(4), 223-231. https://doi.org/10.1207/S15328031US0104_02

    Examples
    --------
    >>> share, lower, upper = shares_with_intervals(np.array([0.25, 0.04]), np.diag([1e-4, 4e-5]), np.pi**2 / 3)
    >>> share.round(3), lower.round(3), upper.round(3)
    (array([0.07 , 0.011, 0.919]), array([0.065, 0.008, 0.913]), array([0.075, 0.015, 0.925]))
    """
    estimated = np.asarray(variances, dtype=np.float64)
    levels = len(estimated)
    if sampling_cov.shape != (levels, levels):
        raise InputError(f"{levels} variances need a {levels} x {levels} covariance, not one of {sampling_cov.shape}")
    if not (np.all(estimated >= 0) and np.all(np.isfinite(estimated)) and residual > 0):
        raise InputError("a variance is negative or no number, or the residual variance not above zero")
    absent = estimated < SMALLEST_VARIANCE
    present = np.append(estimated, residual)
    share = present / present.sum()
    others = present.sum() - present
    # log odds of share k: log v_k - log others_k; derivative by v_j: 1 / v_k for j = k, -1 / others_k otherwise.
    slope = np.repeat(-1.0 / others[:, None], levels, axis=1)  # (levels + 1, levels)
    slope[np.arange(levels), np.arange(levels)] = 1.0 / np.where(absent, 1.0, estimated)
    reach = norm.ppf(0.5 + coverage / 2.0) * np.sqrt(np.einsum("kj,jl,kl->k", slope, sampling_cov, slope))
    with np.errstate(divide="ignore"):
        log_odds = np.log(present) - np.log(others)
    lower, upper = (1.0 / (1.0 + np.exp(-(log_odds + sign * reach))) for sign in (-1.0, 1.0))
    none = np.append(absent, False)
    return np.where(none, 0.0, share), np.where(none, 0.0, lower), np.where(none, np.nan, upper)


def correlation_with_interval(
    components: FloatArray, sampling_cov: FloatArray, coverage: float = 0.95
) -> tuple[float, float, float]:
    """Correlation of two effects of a group.

    Parameters
    ----------
    components : ndarray, shape (3,)
        Variance of the first effect, variance of the second, covariance: the rows of `GlmmFit.variance_components`.
    sampling_cov : ndarray, shape (3, 3)
        Covariance of these estimates.
    coverage : float, default 0.95

    Returns
    -------
    correlation, lower, upper : float
        The interval is made on Fisher's z scale and stays within -1 and 1. All three are not a number where a variance
        was estimated at zero; the bounds are where the correlation was estimated at -1 or 1.

    Raises
    ------
    InputError
        The shapes are not (3,) and (3, 3).

    References
    ----------
    Fisher, R. A. (1921). On the probable error of a coefficient of correlation deduced from a small sample. Metron, 1.

    Examples
    --------
    >>> correlation, lower, upper = correlation_with_interval(np.array([1.0, 1.0, 0.6]), np.diag([0.01, 0.01, 0.01]))
    >>> round(correlation, 3), round(lower, 3), round(upper, 3)
    (0.6, 0.346, 0.772)
    """
    if components.shape != (3,) or sampling_cov.shape != (3, 3):
        raise InputError(f"two effects have three components, not {components.shape} with {sampling_cov.shape}")
    first, last, covariance = components
    if min(first, last) < SMALLEST_VARIANCE:
        return np.nan, np.nan, np.nan
    correlation = float(np.clip(covariance / np.sqrt(first * last), -1.0, 1.0))
    if 1.0 - abs(correlation) < SMALLEST_VARIANCE:
        return correlation, np.nan, np.nan
    slope = np.array([-0.5 * correlation / first, -0.5 * correlation / last, 1.0 / np.sqrt(first * last)])
    se = np.sqrt(slope @ sampling_cov @ slope) / (1.0 - correlation**2)
    reach = norm.ppf(0.5 + coverage / 2.0) * se
    z = np.arctanh(correlation)
    return correlation, float(np.tanh(z - reach)), float(np.tanh(z + reach))


def median_odds_ratio(variance: float) -> float:
    """Median of the odds ratio between two groups drawn at random, the higher to the lower.

    Parameters
    ----------
    variance : float
        Of the groups' effects on the logit scale.

    Returns
    -------
    float
        1 when groups do not differ; 2 when the odds of being identified typically double from one group to another,
        for pupils alike in what the model holds.

    Raises
    ------
    InputError
        The variance is negative.

    References
    ----------
    Larsen, K., & Merlo, J. (2005). Appropriate assessment of neighborhood effects on individual health. American
    Journal of Epidemiology, 161(1), 81-88. https://doi.org/10.1093/aje/kwi017

    Examples
    --------
    >>> round(median_odds_ratio(0.25), 2)
    1.61
    """
    if variance < 0:
        raise InputError(f"a variance of {variance} is negative", "Check the fit.")
    return float(np.exp(np.sqrt(2.0 * variance) * norm.ppf(0.75)))
