"""A normal prior for the true values: mean and variance by restricted maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from send_va.effects import FloatArray

_GRID = 80


@dataclass(frozen=True)
class NormalPrior:
    """Mean and variance of the true values.

    Attributes
    ----------
    mean, variance : float
    mean_variance : float
        Sampling variance of `mean`, given `variance`.
    log_likelihood : float
        Restricted log-likelihood, constants included.
    """

    mean: float
    variance: float
    mean_variance: float
    log_likelihood: float


def fit_normal_prior(y: FloatArray, se: FloatArray) -> NormalPrior:
    """Mean and variance of the true values by restricted maximum likelihood; variance 0 where the data show none."""
    squared = se**2
    centred = float(np.sum((y - y.mean()) ** 2))
    if centred <= 1e-24 * float(np.sum(y**2)):
        return normal_prior_at(y, se, 0.0)
    # A variance above sum of squares / (n - 1) cannot be a stationary point: every weight would be below its inverse.
    top = 4.0 * centred / (len(y) - 1)
    trials = np.concatenate([[0.0], np.geomspace(1e-9 * top, top, _GRID)])
    best = int(np.argmax([_restricted(y, squared, float(t)) for t in trials]))
    low, high = float(trials[max(best - 1, 0)]), float(trials[min(best + 1, _GRID)])
    if _score(low, y, squared) <= 0.0:
        return normal_prior_at(y, se, low)
    return normal_prior_at(y, se, float(brentq(_score, low, high, args=(y, squared), xtol=1e-14 * top, rtol=1e-14)))


def normal_prior_at(y: FloatArray, se: FloatArray, variance: float) -> NormalPrior:
    """The prior with a variance that is known; its mean is the weighted mean of the estimates."""
    weight = 1.0 / (se**2 + variance)
    mean = float(weight @ y / weight.sum())
    return NormalPrior(mean, variance, float(1.0 / weight.sum()), _restricted(y, se**2, variance))


def normal_posterior(y: FloatArray, se: FloatArray, prior: NormalPrior) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Posterior mean, posterior SD and reliability; the SD counts that the prior mean is estimated."""
    reliability = prior.variance / (prior.variance + se**2)
    mean = prior.mean + reliability * (y - prior.mean)
    variance = reliability * se**2 + (1.0 - reliability) ** 2 * prior.mean_variance
    return mean, np.sqrt(variance), reliability


def _restricted(y: FloatArray, squared: FloatArray, variance: float) -> float:
    total = squared + variance
    weight = 1.0 / total
    mean = weight @ y / weight.sum()
    n = len(y)
    fit = np.sum(np.log(total)) + np.log(weight.sum()) - math.log(n) + weight @ (y - mean) ** 2
    return float(-0.5 * ((n - 1) * math.log(2.0 * math.pi) + fit))


def _score(variance: float, y: FloatArray, squared: FloatArray) -> float:
    weight = 1.0 / (squared + variance)
    mean = weight @ y / weight.sum()
    return float(weight**2 @ (y - mean) ** 2 - weight.sum() + (weight**2).sum() / weight.sum())
