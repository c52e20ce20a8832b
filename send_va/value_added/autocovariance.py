"""Autocovariances of school effects over cohorts, from products of unshrunken estimates of the same school."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray

BEYOND = {"between": 0.5, "decay": 0.0, "hold": 1.0}  # share of the way from falling on to staying
FEWEST_SCHOOLS = 10  # with estimates in both cohorts, below which a lag has no standard error worth the name
_PASSES = 4  # weights, national means and autocovariances settle to three digits in two


@dataclass(frozen=True, eq=False)
class Autocovariance:
    """How the effects of a school in two cohorts go together, by how many years lie between them.

    Attributes
    ----------
    moments : array, shape (lags,)
        Estimate at lag 0, 1, ... years, squared outcome units; missing where fewer than ten schools have estimates in
        two cohorts so far apart. Lag 0 is the variance between schools in one cohort.
    covariance : array, shape (lags, lags)
        Sampling covariance of the moments, by the (infinitesimal) jackknife over schools; missing where they are.
    pairs : integer array, shape (lags,)
        Products that enter: pairs of estimates, or single ones at lag 0.
    fitted : array, shape (lags,)
        The nearest sequence that is convex, decreasing and not negative: what forecasts use.
    means : array, shape (years,)
        National mean of the estimates of each cohort, which has been removed; outcome units.
    """

    moments: FloatArray
    covariance: FloatArray
    pairs: NDArray[np.int64]
    fitted: FloatArray
    means: FloatArray

    @property
    def last_lag(self) -> int:
        """The largest lag that is estimated, in years."""
        return int(np.flatnonzero(np.isfinite(self.moments))[-1])

    @property
    def correlation(self) -> FloatArray:
        """Moments divided by the one at lag 0; missing where no variance is left. Can exceed 1 by chance."""
        first = self.moments[0]
        return self.moments / first if first > 0 else np.full(len(self.moments), np.nan)

    @property
    def correlation_se(self) -> FloatArray:
        """Standard errors of the correlations, by the delta method."""
        gradient = np.eye(len(self.moments))
        gradient[:, 0] -= self.correlation
        known = np.isfinite(self.moments)
        held = np.where(known[:, None] & known, self.covariance, 0.0)
        variance = np.einsum("ia,ab,ib->i", gradient, held, gradient) / self.moments[0] ** 2
        return np.where(known, np.sqrt(np.clip(variance, 0.0, None)), np.nan)

    def drawn(self, draws: int, rng: np.random.Generator) -> FloatArray:
        """Sequences from the sampling distribution of the moments, in antithetic pairs, shape (draws, lags)."""
        known = np.flatnonzero(np.isfinite(self.moments))
        values, vectors = np.linalg.eigh(self.covariance[np.ix_(known, known)])
        root = vectors * np.sqrt(np.clip(values, 0.0, None))
        moments = np.full((draws, len(self.moments)), np.nan)
        half = rng.standard_normal((-(-draws // 2), len(known))) @ root.T
        moments[:, known] = self.moments[known] + np.concatenate([half, -half])[:draws]
        se = np.sqrt(np.diag(self.covariance))
        return np.stack([convex_sequence(row, se) for row in moments])


def autocovariance(estimate: FloatArray, error: FloatArray, years: FloatArray | NDArray[np.int64]) -> Autocovariance:
    """Estimate autocovariances by weighted products of estimates.

    National means by cohort are removed. ``E[a_jt a_jt'] = sigma_|t-t'| + e_jtt'``: the known error covariance is
    subtracted from every product, which is weighted by its precision. Stationary: how far two cohorts of a school go
    together depends on the years between them only, and the spread between schools is the same in every cohort.

    Parameters
    ----------
    estimate : array, shape (schools, years)
        Unshrunken estimates, missing where there is none; outcome units.
    error : array, shape (schools, years, years)
        Their error covariance given the true effects. Off the diagonal: errors that cohorts of a school share.
    years : array, shape (years,)
        Calendar years, ascending; gaps are allowed.

    Returns
    -------
    Autocovariance
        ``correlation`` near 1 at all lags: schools do not change. Falling: results of years ago say little of today.

    Raises
    ------
    InputError
        Fewer than two cohorts, or fewer than ten schools with estimates in two of them.

    References
    ----------
    Chetty, Friedman & Rockoff (2014), doi:10.1257/aer.104.9.2593, section I and appendix A (drift).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> lasting, passing = rng.standard_normal((4000, 1)), rng.standard_normal((4000, 3))
    >>> found = autocovariance(lasting + passing, np.zeros((4000, 3, 3)), np.array([2023, 2024, 2025]))
    >>> found.correlation.round(1)  # half of the variance lasts
    array([1. , 0.5, 0.5])
    """
    _require_two_cohorts(estimate, years)
    lag = np.abs(np.subtract.outer(years, years)).astype(np.int64)
    n_lags = int(lag.max()) + 1
    first, second = np.triu_indices(len(years))
    at = lag[first, second]
    known = np.isfinite(estimate[:, first] * estimate[:, second])  # (schools, pairs)
    schools = np.array([known[:, at == k].any(axis=1).sum() for k in range(n_lags)])
    enough = schools >= FEWEST_SCHOOLS
    if not enough[1:].any():
        raise InputError(
            f"{int(schools[1:].max())} schools have estimates in two cohorts; drift needs {FEWEST_SCHOOLS} or more",
            "Check that a school has the same identifier in every cohort.",
        )
    sigma = _start(estimate, error, n_lags)
    for _ in range(_PASSES):
        means, share = _national_means(estimate, error, sigma[0])
        products, weights = _products(estimate - means, error, share, sigma[lag], (first, second), known)
        moments, influence = _moments(products, weights, at, n_lags)
        moments[~enough] = np.nan
        covariance = influence.T @ influence * (len(estimate) / (len(estimate) - 1))
        covariance[~enough] = covariance[:, ~enough] = np.nan
        sigma = convex_sequence(moments, np.sqrt(np.diag(covariance)))
    pairs = np.array([known[:, at == k].sum() for k in range(n_lags)], dtype=np.int64)
    return Autocovariance(moments, covariance, pairs, sigma, means)


def _require_two_cohorts(estimate: FloatArray, years: FloatArray | NDArray[np.int64]) -> None:
    if len(years) < 2:
        raise InputError(
            "one cohort says nothing of how schools change",
            "Give the records of two cohorts or more (three for an average of three years), and the role cohort.",
        )
    if not np.isfinite(estimate).any(axis=0).all():
        empty = [str(year) for year, some in zip(years, np.isfinite(estimate).any(axis=0), strict=True) if not some]
        raise InputError(f"no school has an estimate in {', '.join(empty)}", "Leave these cohorts out.")


def _start(estimate: FloatArray, error: FloatArray, n_lags: int) -> FloatArray:
    """All variance beyond error, and as much at every lag: weights need no more to begin with."""
    noise = np.diagonal(error, axis1=1, axis2=2)
    left = np.nanmean((estimate - np.nanmean(estimate, axis=0)) ** 2 - noise)
    return np.full(n_lags, max(float(left), 0.1 * float(np.nanmean(noise[np.isfinite(estimate)]))))


def _national_means(estimate: FloatArray, error: FloatArray, variance: float) -> tuple[FloatArray, FloatArray]:
    """Precision-weighted means by cohort, and the share of each school in them, (schools, years)."""
    total = variance + np.diagonal(error, axis1=1, axis2=2)
    least = np.finfo(np.float64).tiny
    weights = np.where(np.isfinite(estimate), 1.0 / np.maximum(total, least), 0.0)
    share = weights / weights.sum(axis=0)
    return np.nansum(share * np.nan_to_num(estimate), axis=0), share


def _products(
    centred: FloatArray,
    error: FloatArray,
    share: FloatArray,
    sigma: FloatArray,
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    known: NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """Products of estimates less their error, and weights, (schools, pairs).

    Around a mean that the school itself is a share ``h`` of, a square is too small by the factor ``1 - h``. The weight
    is the inverse variance of a product of normal deviations, ``v_t v_t' + c_tt'^2``.
    """
    first, second = pairs
    left = np.sqrt((1.0 - share[:, first]) * (1.0 - share[:, second]))
    products = centred[:, first] * centred[:, second] / np.maximum(left, 0.5) - error[:, first, second]
    total = sigma[0, 0] + np.diagonal(error, axis1=1, axis2=2)
    shared = sigma[first, second] + error[:, first, second]
    variance = total[:, first] * total[:, second] + shared**2
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(known & (variance > 0), 1.0 / variance, 0.0)
    return np.where(known, products, 0.0), weights


def _moments(
    products: FloatArray, weights: FloatArray, at: NDArray[np.int64], n_lags: int
) -> tuple[FloatArray, FloatArray]:
    """Weighted means by lag, and the influence of every school on each, (schools, lags)."""
    moments = np.full(n_lags, np.nan)
    influence = np.full((len(products), n_lags), np.nan)
    for k in range(n_lags):
        of_lag = at == k
        weight = weights[:, of_lag]
        total = weight.sum()
        if total > 0:
            summed = (weight * products[:, of_lag]).sum(axis=1)
            moments[k] = summed.sum() / total
            influence[:, k] = (summed - moments[k] * weight.sum(axis=1)) / total
    return moments, influence


def convex_sequence(moments: FloatArray, se: FloatArray) -> FloatArray:
    """The convex, decreasing sequence without negative values that is nearest to the moments, in standard errors.

    Such a sequence is positive definite, and stays so if it is held at its last value or falls on geometrically
    (Polya's criterion), so that forecasts at any horizon are proper.

    Parameters
    ----------
    moments : array, shape (lags,)
        At lags 0, 1, ...; missing ones are filled in by the fit. Beyond the last known one it is held.
    se : array, shape (lags,)

    Returns
    -------
    array, shape (lags,)

    References
    ----------
    Polya (1949), Remarks on characteristic functions, Proc. First Berkeley Symposium, 115-123.

    Examples
    --------
    >>> convex_sequence(np.array([1.0, 0.5, 0.6]), np.ones(3)).round(2)
    array([1.  , 0.55, 0.55])
    """
    known = np.flatnonzero(np.isfinite(moments))
    last = int(known[-1])
    lags = np.arange(len(moments))
    knots = np.arange(1, last + 1)
    basis = np.column_stack([np.ones(len(lags)), np.clip(1.0 - lags[:, None] / knots, 0.0, None)])
    least = 1e-6 * max(float(np.abs(moments[known]).max()), np.finfo(np.float64).tiny)
    weight = 1.0 / np.maximum(se[known], least)
    scale = 1.0 / weight.max()
    coefficients, _ = nnls(basis[known] * (scale * weight)[:, None], scale * weight * moments[known])
    return np.asarray(basis @ coefficients)


def extended(fitted: FloatArray, last: int, to: int, held: float) -> FloatArray:
    """Autocovariances up to lag `to`, where records reach to lag `last` only.

    Parameters
    ----------
    fitted : array, shape (lags,)
        Convex and decreasing.
    last : int
        The largest estimated lag, at least 1.
    to : int
    held : float
        1: they stay at their last value. 0: they fall on by the last factor. In between: this share of the way.

    Returns
    -------
    array, shape (to + 1,)
        Again convex and decreasing.

    Examples
    --------
    >>> extended(np.array([1.0, 0.8, 0.6]), 2, 4, 0.0)
    array([1.    , 0.8   , 0.6   , 0.45  , 0.3375])
    >>> extended(np.array([1.0, 0.8, 0.6]), 2, 4, 1.0)
    array([1. , 0.8, 0.6, 0.6, 0.6])
    """
    factor = float(fitted[last] / fitted[last - 1]) if fitted[last - 1] > 0 else 0.0
    more = np.arange(1, max(to - last, 0) + 1)
    tail = fitted[last] * (held + (1.0 - held) * factor**more)
    return np.concatenate([fitted[: last + 1], tail])[: to + 1]


def held_share(beyond: str) -> float:
    """Share of the way from falling on to staying, by the name of the assumption.

    Raises
    ------
    InputError
        With the allowed values.

    Examples
    --------
    >>> held_share("between")
    0.5
    """
    if beyond not in BEYOND:
        raise InputError(f"beyond cannot be {beyond!r}", f"Choose from {', '.join(BEYOND)}.")
    return BEYOND[beyond]
