"""Empirical-Bayes shrinkage of unit estimates under three priors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from send_va.effects import FloatArray
from send_va.errors import BoundaryWarning
from send_va.ranking.estimate_inputs import check_choice, check_estimates, check_fraction, unit_index
from send_va.ranking.mixture_prior import MixturePrior, fit_mixture_prior, mixture_posterior
from send_va.ranking.normal_prior import fit_normal_prior, normal_posterior
from send_va.ranking.precision_prior import fit_location_scale

Prior = Literal["normal", "mixture", "precision_dependent"]
Shape = Literal["mixture", "normal"]
FEWEST_FOR_SHAPE = 50  # below it the standardised prior is normal


@dataclass(frozen=True)
class Shrinkage:
    """Shrunken estimates, and the prior they are shrunken to.

    Attributes
    ----------
    table : DataFrame
        One row a unit, in the order and with the labels of the estimates: estimate, se, prior_mean, prior_sd, mean, sd,
        lower, upper, reliability. Reliability is ``prior_sd**2 / (prior_sd**2 + se**2)``: the share of the variance of
        such an estimate that lies between units; an estimate with reliability below one half says less of its unit than
        the average of all units does.
    prior : str
    shape : str
        ``"normal"`` or ``"mixture"``: the shape that was used, which for a precision-dependent prior is the normal one
        where units are few or the mixture did not converge.
    coverage : float
        Of each unit's interval, if the prior is right.
    parameters : mapping of str to float
        normal: mean, variance, mean_se. mixture: mean, variance, gap (bound on the log-likelihood still to be gained).
        precision_dependent: location_bandwidth, scale_bandwidth (in log se), floored (units whose prior SD is the
        floor) and gap.
    distribution : DataFrame or None
        Value and probability of every point mass of a mixture with more than a millionth; standardised values for a
        precision-dependent prior.
    log_likelihood : float
        Of the estimates; restricted for the normal prior, so not to be compared with the others.
    converged : bool
    """

    table: pd.DataFrame
    prior: str
    shape: str
    coverage: float
    parameters: Mapping[str, float]
    distribution: pd.DataFrame | None
    log_likelihood: float
    converged: bool

    def __str__(self) -> str:
        state = "" if self.converged else "; not converged"
        middle = self.table["reliability"].median()
        prior = f"prior {self.prior} ({self.shape})"
        return f"{len(self.table):,} units shrunken, {prior}: median reliability {middle:.2f}{state}"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html()}"


def shrink(
    estimate: ArrayLike,
    se: ArrayLike,
    prior: Prior = "normal",
    coverage: float = 0.95,
    *,
    shape: Shape = "mixture",
) -> Shrinkage:
    """Posterior means of true values from unshrunken estimates, with the prior estimated from all units.

    Parameters
    ----------
    estimate, se : array-like (units,)
        Unshrunken estimates with independent normal errors, and their standard errors, in the unit of the outcome.
    prior : {"normal", "mixture", "precision_dependent"}
        ``normal``: mean and variance by restricted maximum likelihood; posterior SDs count that the mean is estimated.
        ``mixture``: point masses on a grid by nonparametric maximum likelihood; better where true values are skewed or
        in clusters. ``precision_dependent``: mean and SD of true values are smooth functions of log `se`; better where
        precision predicts the value, as where small cohorts differ from large ones.
    coverage : float
        Of the interval of each unit. Those of a mixture end at point masses and are too short where its shape is poorly
        known: :func:`send_va.ranking.robust_intervals.robust_intervals` covers on average whatever the shape.
    shape : {"mixture", "normal"}
        Shape of the precision-dependent prior after its mean and SD are taken out; normal below 50 units anyway.

    Returns
    -------
    Shrinkage
        ``table["mean"]`` is the best guess of each true value. Ranks of these means are closer together than those of
        the true values; they are not a ranking with its uncertainty. A variance of 0 (all means equal) says that the
        estimates differ by no more than their standard errors explain.

    Warns
    -----
    BoundaryWarning
        The normal prior's variance is 0.

    Raises
    ------
    InputError
        Fewer than two units, lengths that differ, entries that are not finite, standard errors of zero or below,
        an unknown prior or shape, or coverage outside (0, 1).

    References
    ----------
    Koenker & Mizera (2014), doi:10.1080/01621459.2013.869224. Chen (2022), Empirical Bayes when estimation precision
    predicts parameters, doi:10.48550/arXiv.2212.14444. Morris (1983), doi:10.1080/01621459.1983.10477920.

    Examples
    --------
    >>> from send_va.ranking.shrinkage import shrink
    >>> shrink([0.9, -0.2, 0.1, -1.0], [0.2, 0.2, 0.6, 0.2]).table["mean"].round(2).tolist()
    [0.84, -0.19, 0.04, -0.94]
    """
    y, s = check_estimates(estimate, se)
    check_choice(prior, get_args(Prior), "prior")
    check_choice(shape, get_args(Shape), "shape")
    check_fraction(coverage, "coverage")
    index = unit_index(estimate)
    if prior == "normal":
        return _normal(y, s, coverage, index)
    if prior == "mixture":
        return _mixture(y, s, coverage, index)
    return _precision_dependent(y, s, coverage, index, shape)


def _normal(y: FloatArray, se: FloatArray, coverage: float, index: pd.Index) -> Shrinkage:
    prior = fit_normal_prior(y, se)
    if prior.variance == 0.0:
        warnings.warn(
            "the variance of true values is estimated at 0: every unit is given the mean of all and reliability 0",
            BoundaryWarning,
            stacklevel=3,
        )
    mean, sd, _ = normal_posterior(y, se, prior)
    half = _half_width(sd, coverage)
    spread = np.full(len(y), np.sqrt(prior.variance))
    table = _table(index, y, se, np.full(len(y), prior.mean), spread, (mean, sd, mean - half, mean + half))
    parameters = {"mean": prior.mean, "variance": prior.variance, "mean_se": float(np.sqrt(prior.mean_variance))}
    return Shrinkage(table, "normal", "normal", coverage, parameters, None, prior.log_likelihood, True)


def _mixture(y: FloatArray, se: FloatArray, coverage: float, index: pd.Index) -> Shrinkage:
    prior = fit_mixture_prior(y, se)
    spread = np.full(len(y), np.sqrt(prior.variance))
    posterior = mixture_posterior(y, se, prior, coverage)
    table = _table(index, y, se, np.full(len(y), prior.mean), spread, posterior)
    parameters = {"mean": prior.mean, "variance": prior.variance, "gap": prior.gap}
    masses = _masses(prior)
    return Shrinkage(table, "mixture", "mixture", coverage, parameters, masses, prior.log_likelihood, prior.converged)


def _precision_dependent(y: FloatArray, se: FloatArray, coverage: float, index: pd.Index, shape: Shape) -> Shrinkage:
    by_precision = fit_location_scale(y, se)
    location, scale = by_precision.location, by_precision.scale
    z, z_se = (y - location) / scale, se / scale
    fitted = fit_mixture_prior(z, z_se) if shape == "mixture" and len(y) >= FEWEST_FOR_SHAPE else None
    mixture = fitted if fitted is not None and fitted.converged else None
    if mixture is not None:
        mean, sd, lower, upper = mixture_posterior(z, z_se, mixture, coverage)
        prior_mean, prior_sd = location + scale * mixture.mean, scale * np.sqrt(mixture.variance)
        log_likelihood = mixture.log_likelihood
    else:
        mean, sd = z / (1.0 + z_se**2), z_se / np.sqrt(1.0 + z_se**2)
        half = _half_width(sd, coverage)
        lower, upper, prior_mean, prior_sd = mean - half, mean + half, location, scale
        log_likelihood = float(-0.5 * np.sum(np.log(2.0 * np.pi * (1.0 + z_se**2)) + z**2 / (1.0 + z_se**2)))
    posterior = tuple(location + scale * part for part in (mean, lower, upper))
    table = _table(index, y, se, prior_mean, prior_sd, (posterior[0], scale * sd, posterior[1], posterior[2]))
    parameters = {
        "location_bandwidth": by_precision.location_bandwidth,
        "scale_bandwidth": by_precision.scale_bandwidth,
        "floored": float(by_precision.floored),
        "gap": fitted.gap if fitted is not None else 0.0,
    }
    return Shrinkage(
        table,
        "precision_dependent",
        "mixture" if mixture is not None else "normal",
        coverage,
        parameters,
        _masses(mixture) if mixture is not None else None,
        log_likelihood - float(np.sum(np.log(scale))),
        fitted is None or fitted.converged,
    )


def _half_width(sd: FloatArray, coverage: float) -> FloatArray:
    return NormalDist().inv_cdf(0.5 + 0.5 * coverage) * sd


def _masses(prior: MixturePrior) -> pd.DataFrame:
    kept = prior.weight > 1e-6
    return pd.DataFrame({"value": prior.support[kept], "probability": prior.weight[kept]})


def _table(
    index: pd.Index,
    y: FloatArray,
    se: FloatArray,
    prior_mean: FloatArray,
    prior_sd: FloatArray,
    posterior: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
) -> pd.DataFrame:
    mean, sd, lower, upper = posterior
    columns = {"estimate": y, "se": se, "prior_mean": prior_mean, "prior_sd": prior_sd}
    columns |= {"mean": mean, "sd": sd, "lower": lower, "upper": upper}
    return pd.DataFrame(columns | {"reliability": prior_sd**2 / (prior_sd**2 + se**2)}, index=index)
