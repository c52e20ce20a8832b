"""Regression on scores measured with error, with standard errors clustered by school."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError

Floats = NDArray[np.float64]
Codes = NDArray[np.integer]

_SINGULAR = 1e-9  # smallest eigenvalue of the cross-products, columns at unit size, that counts as positive


@dataclass(frozen=True, eq=False)
class CorrectedRegression:
    """Coefficients on true scores.

    Attributes
    ----------
    coefficients : array, shape (k,)
    covariance : array, shape (k, k)
        Clustered by school, the uncertainty of the correction included.
    influence : array, shape (schools, k)
        What each school adds to the error of the coefficients; rows add up to zero.
    residual : array, shape (n,)
        ``y - x'b`` with the scores as observed: errors of measurement are still in it.
    """

    coefficients: Floats
    covariance: Floats
    influence: Floats
    residual: Floats

    @property
    def se(self) -> Floats:
        """Standard errors, shape (k,)."""
        return np.sqrt(np.diag(self.covariance))


def corrected_regression(y: Floats, x: Floats, error_variance: Floats, school: Codes) -> CorrectedRegression:
    """Regress on columns of which some carry a known error variance.

    ``b = (sum x x' - Omega_i)^-1 sum x y`` with ``Omega_i`` the error variances of record i on the diagonal: errors are
    independent of each other, of the true scores and of the outcome. The estimating functions
    ``x_i (y_i - x_i'b) + Omega_i b`` have mean zero, and their sums by school make the standard errors.

    Parameters
    ----------
    y : array, shape (n,)
    x : array, shape (n, k)
        With a column of ones if there is to be an intercept.
    error_variance : array, shape (n, k)
        Zero for columns without error. :func:`error_variance_of` makes a column from a reliability.
    school : integer array, shape (n,)
        Cluster of each record, 0 to schools - 1; all of them must occur.

    Returns
    -------
    CorrectedRegression
        Without errors it is least squares with cluster-robust standard errors (factor ``G / (G - 1)``).

    Raises
    ------
    InputError
        One school only, or cross-products that no true scores can have once the error is taken out.

    References
    ----------
    Fuller (1987), Measurement Error Models, section 2.2, doi:10.1002/9780470316665.
    Liang & Zeger (1986), doi:10.1093/biomet/73.1.13 (the standard errors).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> true = rng.standard_normal(20_000)
    >>> x = np.column_stack([np.ones(20_000), true + 0.5 * rng.standard_normal(20_000)])
    >>> noise = np.column_stack([np.zeros(20_000), np.full(20_000, 0.25)])
    >>> found = corrected_regression(true, x, noise, np.arange(20_000) % 200)
    >>> round(float(found.coefficients[1]), 1)
    1.0
    """
    schools = int(school.max()) + 1
    if schools < 2:
        raise InputError("there is one school only, so nothing can be clustered by school", "Give two or more.")
    products = x.T @ x - np.diag(error_variance.sum(axis=0))
    _refuse_indefinite(products, x)
    bread = np.linalg.inv(products)
    coefficients = bread @ (x.T @ y)
    residual = y - x @ coefficients
    scores = summed(x * residual[:, None] + error_variance * coefficients, school, schools)
    influence = scores @ bread
    covariance = influence.T @ influence * (schools / (schools - 1.0))
    return CorrectedRegression(coefficients, covariance, influence, residual)


def error_variance_of(score: Floats, reliability: float) -> Floats:
    """Error variance of each record from the reliability of a score, shape (n,).

    ``(1 - reliability) (score - mean)^2``: its sum is the error's share of the sum of squares, and as it varies with
    the records, the uncertainty of the estimated variance is part of standard errors.

    Raises
    ------
    InputError
        A reliability that is not above 0 and at most 1.

    Examples
    --------
    >>> error_variance_of(np.array([-1.0, 0.0, 1.0]), 0.8).round(1)
    array([0.2, 0. , 0.2])
    """
    if not 0.0 < reliability <= 1.0:
        raise InputError(
            f"reliability must be above 0 and at most 1, not {reliability}",
            "Take it from the test's technical report, or from prior_reliability; 1 means no error.",
        )
    return np.asarray((1.0 - reliability) * (score - score.mean()) ** 2)


def summed(values: Floats, codes: Codes, groups: int) -> Floats:
    """Sums by group of the rows of an array, shape (groups, k)."""
    columns = [np.bincount(codes, weights=values[:, k], minlength=groups) for k in range(values.shape[1])]
    return np.stack(columns, axis=1)


def _refuse_indefinite(products: Floats, x: Floats) -> None:
    size = np.sqrt((x**2).sum(axis=0))
    size[size == 0.0] = 1.0
    if np.linalg.eigvalsh(products / np.outer(size, size))[0] <= _SINGULAR:
        raise InputError(
            "columns are linearly dependent once errors of measurement are taken out",
            "Leave out redundant columns, or check the unit of the error variance: it may be too large for the score.",
        )
