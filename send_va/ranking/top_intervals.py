"""Intervals for the units with the largest estimates, corrected for having been chosen by them (winner's curse)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtri

from send_va.errors import InputError
from send_va.ranking.estimate_inputs import check_choice, check_fraction, whole_number
from send_va.ranking.noisy_estimates import NoisyEstimates, noisy_estimates

FloatArray = NDArray[np.float64]
Method = Literal["hybrid", "conditional", "projection"]

_PROJECTION_SHARE = 0.1  # of the error probability, given to the projection step of the hybrid; AKM's choice
_FARTHEST = 1e4  # standard errors from the estimate within which conditional intervals are looked for
_HALVINGS = 60


def top_intervals(
    estimate: ArrayLike, se: ArrayLike, top: int = 10, coverage: float = 0.95, *, method: Method = "hybrid"
) -> pd.DataFrame:
    """Intervals and median-unbiased estimates of the values of the `top` units with the largest estimates.

    The largest of many estimates are large partly by luck, so that their ordinary intervals lie too high. Given the
    estimates of all other units, a unit is among the top k exactly where its own exceeds the k-th largest of the
    others; its estimate is then a normal one cut off from below at that number, whatever the values of the others. That
    holds for independent estimates and is what is inverted here, with no simulation.

    Parameters
    ----------
    estimate : array-like, shape (n,)
        Unshrunken estimates, in outcome units.
    se : array-like, shape (n,)
        Standard errors of independent estimates.
    top : int
        How many; with units that equal the last of them more are shown.
    coverage : float
    method : {"hybrid", "conditional", "projection"}
        ``"conditional"``: covers with exactly this probability given that the unit is in the top, but where the unit
        only just is, the interval reaches down without bound. ``"hybrid"`` (default): conditional within the projection
        interval at a tenth of the error probability, so that no interval reaches further than that one; over the
        units shown, the expected share that is covered is at least `coverage`. ``"projection"``: the estimate give or
        take the critical value for all n units at once; wider, but all units are covered together with
        this probability, those of the top included. Take it for statements about several of the units together.

    Returns
    -------
    DataFrame
        One row a unit of the top, largest estimate first, with the index of the estimates: ``rank``, ``estimate``,
        ``corrected`` (as likely above as below the true value; within half a tenth of the error probability for the
        hybrid; the estimate itself for the projection), ``lower``, ``upper``. `corrected` far below `estimate` says
        that the place in the top may be luck; corrected values need not fall from row to row. A unit that only just is
        in the top has a long interval, which may end below its estimate; one that equals the first unit left out has
        the projection interval and no `corrected`. What is corrected is being in the top, not the place there: for
        a statement about the first unit alone ask for ``top=1``.

    Raises
    ------
    InputError
        As for `confidence_sets`; standard errors that are not one a unit; `top` outside 1 to n; a coverage outside
        (0, 1); an unknown method.

    References
    ----------
    Andrews, Kitagawa & McCloskey (2024), Inference on Winners, doi:10.1093/qje/qjad043; there k = 1.

    Examples
    --------
    >>> from send_va.ranking.top_intervals import top_intervals
    >>> top_intervals([1.0, 0.8, 0.4, 0.0], [0.25, 0.25, 0.25, 0.25], top=2).round(2)
       rank  estimate  corrected  lower  upper
    0     1       1.0       1.00   0.45    1.5
    1     2       0.8       0.78   0.13    1.3
    """
    check_choice(method, get_args(Method), "method")
    check_fraction(coverage, "coverage")
    if np.ndim(se) != 1:
        raise InputError(
            f"se: has {np.ndim(se)} dimensions, and intervals of the top are for independent estimates",
            "Give one standard error a unit.",
        )
    units = noisy_estimates(estimate, se)
    top = whole_number(top, "top")
    if not 1 <= top <= units.n:
        raise InputError(f"top must lie between 1 and the number of units, {units.n:,}, not {top}")
    chosen, cut = _selected(units, top)
    x, sd = units.values[chosen], np.sqrt(units.variances[chosen])
    bounds = corrected_bounds(x, sd, cut, units.n, coverage, method)
    return pd.DataFrame(
        {
            "rank": pd.Series(x).rank(ascending=False, method="min").astype(int).to_numpy(),
            "estimate": x,
            "corrected": bounds[0],
            "lower": bounds[1],
            "upper": bounds[2],
        },
        index=units.index[units.order[chosen]],
    )


def corrected_bounds(
    x: FloatArray, sd: FloatArray, cut: FloatArray, n: int, coverage: float, method: Method
) -> FloatArray:
    """Corrected estimates, lower and upper bounds of estimates seen because they exceed `cut`: shape (3, units).

    `n` is the number of estimates that they were chosen from.
    """
    error = 1.0 - coverage
    if method == "projection":
        around = _projection_reach(error, n) * sd
        return np.stack([x, x - around, x + around])
    share = _PROJECTION_SHARE if method == "hybrid" else 0.0
    kept = coverage / (1.0 - share * error)  # coverage given that the projection interval covers
    levels = np.array([0.5, (1.0 + kept) / 2.0, (1.0 - kept) / 2.0])
    reach = _projection_reach(share * error, n) if share else _FARTHEST
    bounds = x + sd * _solve((cut - x) / sd, levels, reach, hybrid=share > 0.0)
    tied = x <= cut
    around = _projection_reach(_PROJECTION_SHARE * error, n) * sd
    bounds[:, tied] = np.stack([np.full(len(x), np.nan), x - around, x + around])[:, tied]
    return np.asarray(bounds)


def _selected(units: NoisyEstimates, top: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Positions of the units in the top, largest first, and the k-th largest estimate of the others for each."""
    n = units.n
    by_value = np.lexsort((units.order, -units.values))
    last = units.values[by_value[top - 1]]
    chosen = by_value[units.values[by_value] >= last]
    following = units.values[by_value[top]] if top < n else -np.inf
    return chosen, np.full(len(chosen), following)


def _projection_reach(error: float, n: int) -> float:
    """Standard errors within which all n independent estimates lie of their values, but with probability `error`."""
    return float(ndtri(0.5 + 0.5 * (1.0 - error) ** (1.0 / n)))


def _solve(cut: FloatArray, levels: FloatArray, reach: float, *, hybrid: bool) -> FloatArray:
    """Values, in standard errors from the estimate, at which the estimate is the given quantiles of its distribution.

    The distribution is normal about the value, cut off below at `cut`, and in the hybrid at `reach` on both sides of
    the value. Its probability below the estimate falls in the value, so that bisection finds the solution, shape
    (levels, units).
    """
    low = np.full((len(levels), len(cut)), -reach)
    high = -low
    for _ in range(_HALVINGS):
        value = 0.5 * (low + high)
        start = cut - value
        if hybrid:
            start = np.maximum(start, -reach)
        with np.errstate(divide="ignore", invalid="ignore"):  # log(0) where bisection comes to an end of the range
            whole = _log_probability(start, np.full_like(value, reach if hybrid else np.inf))
            share = np.exp(_log_probability(start, np.minimum(-value, reach)) - whole)
        above = share > levels[:, None]
        low, high = np.where(above, value, low), np.where(above, high, value)
    return np.asarray(0.5 * (low + high))


def _log_probability(start: FloatArray, end: FloatArray) -> FloatArray:
    """Logarithm of the standard normal probability between two points, accurate in both tails; start < end."""
    flip = start > 0.0
    upper, lower = log_ndtr(np.where(flip, -start, end)), log_ndtr(np.where(flip, -end, start))
    return np.asarray(upper + np.log(-np.expm1(np.minimum(lower - upper, 0.0))))
