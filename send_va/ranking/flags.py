"""Flags that allow for many units being looked at, and intervals for comparing pairs by eye."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.estimate_inputs import check_choice, check_estimates, check_fraction, unit_index, vector
from send_va.ranking.funnel import funnel_limits
from send_va.ranking.overdispersion import Overdispersion

Correction = Literal["bh", "by"]
Side = Literal["two-sided", "low", "high"]
_GROUPS = 1_000  # distinct standard errors above which they are taken in groups of equal size


def false_discovery_flags(
    z: ArrayLike, *, rate: float = 0.05, correction: Correction = "bh", side: Side = "two-sided"
) -> pd.DataFrame:
    """Units whose z scores stand out among all, at a false discovery rate.

    Parameters
    ----------
    z : array-like (units,)
        Standard normal for a unit in control, such as ``funnel_limits(...).table["z"]``.
    rate : float
        Expected share of flagged units that are in control, at most.
    correction : {"bh", "by"}
        Benjamini & Hochberg, for independent units; Benjamini & Yekutieli, for any dependence, which flags fewer.
    side : {"two-sided", "low", "high"}
        Which departures count.

    Returns
    -------
    DataFrame
        z, p_value, p_adjusted (the smallest rate at which the unit is flagged) and flag: -1 (low), 1 (high) or 0. No
        flag does not say that a unit is in control: a small one is rarely flagged.

    Raises
    ------
    InputError
        No units, entries that are not finite, a rate outside (0, 1), an unknown correction or side.

    References
    ----------
    Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x; Benjamini & Yekutieli (2001),
    doi:10.1214/aos/1013699998.

    Examples
    --------
    >>> from send_va.ranking.flags import false_discovery_flags
    >>> false_discovery_flags([-4.1, 0.3, 2.1, -0.6])["flag"].tolist()
    [-1, 0, 0, 0]
    """
    scores = vector(z, "z")
    check_fraction(rate, "rate")
    check_choice(correction, get_args(Correction), "correction")
    check_choice(side, get_args(Side), "side")
    if len(scores) == 0:
        raise InputError("no units given")
    p = {"two-sided": 2.0 * ndtr(-np.abs(scores)), "low": ndtr(scores), "high": ndtr(-scores)}[side]
    adjusted = np.asarray(false_discovery_control(p, method=correction))
    flag = np.where(adjusted <= rate, np.sign(scores), 0.0).astype(int)
    return pd.DataFrame({"z": scores, "p_value": p, "p_adjusted": adjusted, "flag": flag}, index=unit_index(z))


def flag_units(
    estimate: ArrayLike,
    se: ArrayLike,
    *,
    target: float | None = None,
    overdispersion: Overdispersion = "additive",
    winsorise: float = 0.10,
    rate: float = 0.05,
    correction: Correction = "bh",
    side: Side = "two-sided",
) -> pd.DataFrame:
    """Units further from a target than their standard errors and the usual spread of units explain.

    Parameters
    ----------
    estimate, se : array-like (units,)
        Unshrunken estimates and their standard errors.
    target, overdispersion, winsorise
        As for :func:`send_va.ranking.funnel.funnel_limits` of means.
    rate, correction, side
        As for :func:`false_discovery_flags`.

    Returns
    -------
    DataFrame
        As :func:`false_discovery_flags`. With overdispersion a flagged unit differs from the spread of units; without,
        it differs from the target, as most large units will.

    Raises
    ------
    InputError
        What either of the two functions refuses.

    References
    ----------
    Spiegelhalter (2005), doi:10.1002/sim.1970; Jones, Ohlssen & Spiegelhalter (2008),
    doi:10.1016/j.jclinepi.2007.04.017.

    Examples
    --------
    >>> from send_va.ranking.flags import flag_units
    >>> flag_units([0.1, -0.2, 0.0, 2.5, 0.2, -0.1], [0.3] * 6, winsorise=0.2)["flag"].tolist()
    [0, 0, 0, 1, 0, 0]
    """
    funnel = funnel_limits(
        estimate, se=se, kind="mean", target=target, overdispersion=overdispersion, winsorise=winsorise
    )
    return false_discovery_flags(funnel.table["z"], rate=rate, correction=correction, side=side)


@dataclass(frozen=True)
class ComparisonIntervals:
    """Intervals that two units are compared by: they differ where theirs do not overlap.

    Attributes
    ----------
    table : DataFrame
        One row a unit: estimate, se, lower, upper.
    multiplier : float
        Of the standard error; 1.386 where all are equal.
    average_error : float
        Share of pairs without a difference whose intervals do not overlap, averaged over all pairs.
    smallest_error, largest_error : float
        The same of the pairs with the most alike and with the most unlike standard errors.
    """

    table: pd.DataFrame
    multiplier: float
    average_error: float
    smallest_error: float
    largest_error: float

    def __str__(self) -> str:
        return (
            f"Comparison intervals of {len(self.table):,} units, estimate -+ {self.multiplier:.3f} se: error of a pair "
            f"{self.average_error:.3f} on average, from {self.smallest_error:.3f} to {self.largest_error:.3f}; "
            "for one pair chosen beforehand"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self.table.to_html()}"


def comparison_intervals(estimate: ArrayLike, se: ArrayLike, *, average_error: float = 0.05) -> ComparisonIntervals:
    """Intervals whose overlap tests the difference of a pair, at a stated error averaged over pairs.

    Parameters
    ----------
    estimate, se : array-like (units,)
        Estimates with independent normal errors, and their standard errors.
    average_error : float
        Over all pairs. Above 1,000 distinct standard errors the average is taken over 1,000 groups of them.

    Returns
    -------
    ComparisonIntervals
        They are shorter than confidence intervals and say nothing of one unit, nor of several pairs at once: of 1,000
        pairs without a difference about 50 do not overlap.

    Raises
    ------
    InputError
        Fewer than two units, lengths that differ, entries that are not finite, standard errors of zero or below,
        an error outside (0, 1).

    References
    ----------
    Goldstein & Healy (1995), The graphical presentation of a collection of means, doi:10.2307/2983411.

    Examples
    --------
    >>> from send_va.ranking.flags import comparison_intervals
    >>> print(comparison_intervals([0.4, 0.0, 0.1], [0.1, 0.1, 0.1]))
    Comparison intervals of 3 units, estimate -+ 1.386 se: error of a pair 0.050 on average, from 0.050 to 0.050; ...
    """
    y, s = check_estimates(estimate, se)
    check_fraction(average_error, "average_error")
    size, count = _groups(s)
    # By how much the distance at which two intervals part exceeds the standard error of the difference: 1 to sqrt(2).
    stretch = (size[:, None] + size) / np.hypot(size[:, None], size)
    pairs = np.outer(count, count)
    pairs[np.diag_indices(len(size))] = count * (count - 1.0)
    pairs /= pairs.sum()

    def excess(multiplier: float) -> float:
        return float(np.sum(pairs * 2.0 * ndtr(-multiplier * stretch))) - average_error

    highest = -NormalDist().inv_cdf(0.5 * average_error)
    multiplier = float(brentq(excess, 0.5 * highest, highest * 1.001, xtol=1e-13))
    worst = (s.min() + s.max()) / math.hypot(s.min(), s.max())
    best = _most_alike(s)
    table = pd.DataFrame(
        {"estimate": y, "se": s, "lower": y - multiplier * s, "upper": y + multiplier * s}, index=unit_index(estimate)
    )
    errors = [2.0 * NormalDist().cdf(-multiplier * at) for at in (best, worst)]
    return ComparisonIntervals(table, multiplier, excess(multiplier) + average_error, errors[0], errors[1])


def _groups(se: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distinct standard errors and how many units have each; group means where there are too many."""
    size, count = np.unique(se, return_counts=True)
    if len(size) <= _GROUPS:
        return size, count.astype(float)
    parts = np.array_split(np.sort(se), _GROUPS)
    return np.array([part.mean() for part in parts]), np.array([float(len(part)) for part in parts])


def _most_alike(se: FloatArray) -> float:
    """The stretch of the neighbouring pair with the smallest ratio of standard errors."""
    ordered = np.sort(se)
    return float(np.max((ordered[1:] + ordered[:-1]) / np.hypot(ordered[1:], ordered[:-1])))
