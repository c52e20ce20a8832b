"""Best linear predictors of school effects from estimates of several cohorts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.crossproducts import FloatArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is predicted of every school.

    Attributes
    ----------
    mean : array, shape (schools,)
        Zero (the average school) where there is no estimate in any cohort.
    sd : array, shape (schools,)
        Of the prediction error, at known autocovariances.
    reliability : array, shape (schools,)
        Share of the variance of what is predicted that is known of this school: the expected R squared.
    """

    mean: FloatArray
    sd: FloatArray
    reliability: FloatArray


def best_linear(
    estimate: FloatArray, error: FloatArray, between: FloatArray, to_target: FloatArray, target_variance: float
) -> Prediction:
    """Predict a target from all estimates of a school, by solving its (years x years) system.

    ``mean_j = c' (Sigma + E_j)^-1 a_j`` over the cohorts in which the school has an estimate.

    Parameters
    ----------
    estimate : array, shape (schools, years)
        Deviations from the national mean of the cohort; missing where there is none.
    error : array, shape (schools, years, years)
    between : array, shape (years, years)
        Covariance of a school's true effects in these cohorts.
    to_target : array, shape (years,)
        Covariance of each with the target.
    target_variance : float
        Squared outcome units.

    Returns
    -------
    Prediction
        With normal effects and errors, the conditional mean and SD; without, still the best linear predictor.

    Examples
    --------
    >>> one = best_linear(np.array([[2.0, np.nan]]), np.full((1, 2, 2), 1.0), np.eye(2), np.array([0.5, 0.0]), 1.0)
    >>> round(float(one.mean[0]), 6), round(float(one.reliability[0]), 6)
    (0.5, 0.125)
    """
    known = np.isfinite(estimate)
    both = known[:, :, None] & known[:, None, :]
    total = np.where(both, between + error, np.eye(len(between)))  # (schools, years, years)
    side = np.where(known, to_target, 0.0)[:, :, None]
    weights = _solved(total, side)[:, :, 0]
    mean = (weights * np.where(known, estimate, 0.0)).sum(axis=1)
    explained = np.clip((weights * side[:, :, 0]).sum(axis=1), 0.0, target_variance)
    share = explained / target_variance if target_variance > 0 else np.zeros(len(estimate))
    return Prediction(mean, np.sqrt(target_variance - explained), share)


def _solved(total: FloatArray, side: FloatArray) -> FloatArray:
    """Solve, with a touch on the diagonal where exact estimates of unchanging schools make a system singular."""
    size = np.einsum("jtt->j", total) / total.shape[1]
    touched = total + (1e-10 * size)[:, None, None] * np.eye(total.shape[1])
    return np.asarray(np.linalg.solve(touched, side))


def plain_average(estimate: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Precision-weighted mean over the cohorts in which a school has an estimate.

    Parameters
    ----------
    estimate : array, shape (schools, years)
    error : array, shape (schools, years, years)

    Returns
    -------
    tuple of array, shape (schools,)
        The average and its standard error (missing without an estimate), and the number of cohorts in it.

    Examples
    --------
    >>> average, se, n = plain_average(np.array([[1.0, 4.0, np.nan]]), np.diag([1.0, 2.0, 1.0])[None])
    >>> float(average[0]), round(float(se[0]), 3), int(n[0])
    (2.0, 0.816, 2)
    """
    known = np.isfinite(estimate)
    variance = np.diagonal(error, axis1=1, axis2=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(known, 1.0 / np.maximum(variance, np.finfo(np.float64).tiny), 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    both = known[:, :, None] & known[:, None, :]
    se = np.sqrt(np.einsum("jt,jts,js->j", weights, np.where(both, error, 0.0), weights))
    average = np.where(known.any(axis=1), (weights * np.where(known, estimate, 0.0)).sum(axis=1), np.nan)
    return average, np.where(known.any(axis=1), se, np.nan), known.sum(axis=1)
