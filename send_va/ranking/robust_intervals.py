"""Shrinkage intervals whose average coverage does not rest on the shape of the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.cva_kernels import critical_values, worst_missing
from send_va.ranking.estimate_inputs import check_choice, check_estimates, check_fraction, refuse, unit_index, vector

Weighting = Literal["precision", "equal"]
_NODES = 1_000  # distinct values of m2 above which critical values are interpolated


@dataclass(frozen=True)
class RobustIntervals:
    """Robust empirical-Bayes intervals.

    Attributes
    ----------
    table : DataFrame
        One row a unit: estimate, se, mean, lower, upper, shrinkage (weight of the estimate), critical_value (multiplier
        of ``shrinkage * se``), normal_miss (how often the usual interval ``mean -+ z * sqrt(shrinkage) * se`` of units
        with this standard error would miss at worst: far above ``1 - coverage`` means that it rests on normality).
    location : float
        What estimates are shrunken to.
    mu2, kappa : float
        Second moment and kurtosis of true values around `location`, with their finite-sample corrections.
    mu2_uncorrected, kappa_uncorrected : float
        The same without; a negative moment says that the estimates differ less than their errors explain.
    coverage : float
        On average over units, at least.
    """

    table: pd.DataFrame
    location: float
    mu2: float
    kappa: float
    mu2_uncorrected: float
    kappa_uncorrected: float
    coverage: float

    def __str__(self) -> str:
        narrower = (self.table["upper"] - self.table["lower"]).mean() / self.table["se"].mean()
        usual = 2.0 * NormalDist().inv_cdf(0.5 + 0.5 * self.coverage)
        return (
            f"Robust {self.coverage:.0%} intervals of {len(self.table):,} units (mu2 {self.mu2:.3g}, kurtosis "
            f"{self.kappa:.3g}): mean width {narrower / usual:.0%} of the unshrunken intervals"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html()}"


def cva(m2: ArrayLike, kappa: float = math.inf, alpha: float = 0.05) -> FloatArray:
    """Critical value that keeps average coverage for any distribution of the bias.

    Parameters
    ----------
    m2 : array-like
        Second moment of the normalised bias (bias over standard error), any shape.
    kappa : float
        Bound on the kurtosis of the bias, at least 1; infinite for no bound.
    alpha : float
        Average probability of missing.

    Returns
    -------
    array of the shape of `m2`
        At least the normal quantile, which it is at ``m2 = 0``; grows with `m2` and `kappa`.

    Raises
    ------
    InputError
        Negative or non-finite `m2`, `kappa` below 1, `alpha` outside (0, 1).

    References
    ----------
    Armstrong, Kolesar & Plagborg-Moller (2022), Robust empirical Bayes confidence intervals, doi:10.3982/ECTA18597.

    Examples
    --------
    >>> from send_va.ranking.robust_intervals import cva
    >>> cva([0.0, 1.0, 4.0], kappa=3).round(3).tolist()
    [1.96, 2.812, 4.62]
    """
    shape = np.shape(m2)
    values = vector(np.ravel(np.asarray(m2)), "m2")
    refuse(values < 0.0, values, "m2", "is negative", "It is a mean of squares.")
    check_fraction(alpha, "alpha")
    if not kappa >= 1.0:
        raise InputError(f"kappa is {kappa}; a kurtosis is at least 1", "Use math.inf for no bound.")
    distinct, inverse = np.unique(values, return_inverse=True)
    return _critical_values(distinct, kappa, alpha)[inverse].reshape(shape)


def robust_intervals(
    estimate: ArrayLike,
    se: ArrayLike,
    *,
    coverage: float = 0.95,
    kappa: float | None = None,
    weighting: Weighting = "precision",
) -> RobustIntervals:
    """Shrunken estimates with intervals that cover on average whatever the distribution of the true values.

    Parameters
    ----------
    estimate, se : array-like (units,)
        Unshrunken estimates with normal errors, and their standard errors, in the unit of the outcome.
    coverage : float
        Least average coverage over units.
    kappa : float, optional
        Kurtosis of the true values; estimated unless given. ``math.inf`` uses the second moment only.
    weighting : {"precision", "equal"}
        Of units in the moments: ``1 / se**2`` or all alike.

    Returns
    -------
    RobustIntervals
        Of all units' intervals, `coverage` hold the true value. This says nothing of one chosen unit: among units with
        extreme true values fewer do. Moments are taken not to depend on the standard error; where they do, standardise
        by :func:`send_va.ranking.shrinkage.shrink` with ``prior="precision_dependent"`` first.

    Raises
    ------
    InputError
        Fewer than two units, lengths that differ, entries that are not finite, standard errors of zero or below,
        `kappa` below 1, coverage outside (0, 1), an unknown weighting.

    References
    ----------
    Armstrong, Kolesar & Plagborg-Moller (2022), Robust empirical Bayes confidence intervals, doi:10.3982/ECTA18597.

    Examples
    --------
    >>> from send_va.ranking.robust_intervals import robust_intervals
    >>> result = robust_intervals([0.9, -0.2, 0.1, -1.0, 0.4], [0.2, 0.2, 0.6, 0.2, 0.3], kappa=3)
    >>> result.table[["lower", "upper"]].round(2).iloc[0].tolist()
    [0.45, 1.21]
    """
    y, s = check_estimates(estimate, se)
    check_fraction(coverage, "coverage")
    check_choice(weighting, get_args(Weighting), "weighting")
    if kappa is not None and not kappa >= 1.0:
        raise InputError(f"kappa is {kappa}; a kurtosis is at least 1", "Use math.inf for no bound.")
    weight = 1.0 / s**2 if weighting == "precision" else np.ones(len(y))
    location = float(weight @ y / weight.sum())
    mu2, mu2_raw, kurtosis, kurtosis_raw = _moments(y - location, s, weight / weight.mean())
    kurtosis = kurtosis if kappa is None else kappa
    shrinkage, m2 = mu2 / (mu2 + s**2), s**2 / mu2
    multiplier = cva(m2, kurtosis, 1.0 - coverage)
    mean = location + shrinkage * (y - location)
    half = multiplier * shrinkage * s
    table = pd.DataFrame(
        {
            "estimate": y,
            "se": s,
            "mean": mean,
            "lower": mean - half,
            "upper": mean + half,
            "shrinkage": shrinkage,
            "critical_value": multiplier,
            "normal_miss": _normal_miss(m2, kurtosis, coverage),
        },
        index=unit_index(estimate),
    )
    return RobustIntervals(table, location, mu2, kurtosis, mu2_raw, kurtosis_raw, coverage)


def _moments(deviation: FloatArray, se: FloatArray, weight: FloatArray) -> tuple[float, float, float, float]:
    """Second moment and kurtosis, each corrected and not.

    The correction is the posterior mean of a moment under a flat prior on positive values, approximated from below:
    moments are not let fall below it, so that nothing is shrunken all the way.
    """
    total = weight.sum()
    second = float(weight @ (deviation**2 - se**2) / total)
    fourth = float(weight @ (deviation**4 - 6.0 * se**2 * deviation**2 + 3.0 * se**4) / total)
    least_second = float(2.0 * (weight**2 @ se**4) / (total * (weight @ se**2)))
    least_excess = float(32.0 * (weight**2 @ se**8) / (total * (weight @ se**4)))
    mu2 = max(second, least_second)
    kappa = max(fourth / mu2**2, 1.0 + least_excess / mu2**2)
    return mu2, second, kappa, fourth / second**2 if second != 0.0 else math.nan


def _critical_values(m2: FloatArray, kappa: float, alpha: float) -> FloatArray:
    """Critical values of increasing `m2`; beyond a thousand interpolated, to about 2e-5."""
    z = -NormalDist().inv_cdf(0.5 * alpha)
    if len(m2) <= _NODES or m2[0] <= 0.0:
        return critical_values(m2, float(kappa), alpha, z)
    nodes = np.geomspace(m2[0], m2[-1], _NODES)
    return np.interp(np.log(m2), np.log(nodes), critical_values(nodes, float(kappa), alpha, z))


def _normal_miss(m2: FloatArray, kappa: float, coverage: float) -> FloatArray:
    z = NormalDist().inv_cdf(0.5 + 0.5 * coverage)
    distinct, inverse = np.unique(m2, return_inverse=True)
    worst = np.array([worst_missing(value, float(kappa), z * math.sqrt(1.0 + value)) for value in distinct])
    return worst[inverse]
