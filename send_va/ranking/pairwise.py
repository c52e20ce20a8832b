"""Probabilities that one unit's effect is above another's, for all pairs at once."""

from __future__ import annotations

from typing import overload

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.deconvolution import Prior
from send_va.ranking.draw_places import checked_draws
from send_va.ranking.estimate_inputs import vector
from send_va.ranking.grid_posterior import Posterior

MOST_GIGABYTES = 4.0
_BLOCK = 256  # units compared with all others at once
_TILE = 32


@overload
def pairwise_probabilities(draws: ArrayLike, *, most_gigabytes: float = ...) -> FloatArray: ...
@overload
def pairwise_probabilities(
    *,
    prior: Prior,
    estimate: ArrayLike,
    se: ArrayLike,
    split_ties: bool | None = ...,
    most_gigabytes: float = ...,
) -> FloatArray: ...
def pairwise_probabilities(
    draws: ArrayLike | None = None,
    *,
    prior: Prior | None = None,
    estimate: ArrayLike | None = None,
    se: ArrayLike | None = None,
    split_ties: bool | None = None,
    most_gigabytes: float = MOST_GIGABYTES,
) -> FloatArray:
    """Probability that each unit's effect is above each other's.

    Give draws, or a prior with estimates and standard errors. From draws, dependence between units is kept; from a
    prior, units are independent given the estimates.

    Parameters
    ----------
    draws : array-like (draws, units), optional
        Joint draws of the effects.
    prior : Prior, optional
        As :func:`send_va.ranking.deconvolution.deconvolve` returns.
    estimate, se : array-like (units,), optional
        Unshrunken estimates and standard errors, with `prior`.
    split_ties : bool, optional
        Share out the probability that both units lie on one grid point. By default where points stand for the
        intervals around them, as those of a log-spline do; not for a mixture, whose points are effects. Without it
        probabilities of a smooth prior sum to less than one, and grades put more pairs in the wrong order than they
        say (at 300 units and a rate of 5 %, 5.05 to 5.10 %); drrank does not split.
    most_gigabytes : float
        Size of the result that is refused beyond.

    Returns
    -------
    array (units, units)
        Entry (i, j) is P(theta_i > theta_j); the diagonal is zero. Entries (i, j) and (j, i) sum to one less the
        probability that both are equal. Above 0.8, the order of
        the pair is worth stating at a loss ratio of 0.25.

    Raises
    ------
    InputError
        Neither or both of draws and prior, draws that are not finite numbers or not in two dimensions, a prior of
        another kind, estimates that cannot be used, or a result beyond `most_gigabytes`.

    References
    ----------
    Kline, Rose & Walters (2024), doi:10.1257/aer.20230700.

    Examples
    --------
    >>> pairwise_probabilities([[0.1, 0.3], [0.2, 0.1], [0.0, 0.5], [0.1, 0.4]])
    array([[0.  , 0.25],
           [0.75, 0.  ]])
    """
    if draws is not None:
        if prior is not None or estimate is not None or se is not None:
            raise InputError("draws and a prior are given", "Give one of them.")
        values = checked_draws(draws, least=1)
        _check_size(values.shape[1], most_gigabytes)
        return _from_draws(values)
    if prior is None or estimate is None or se is None:
        raise InputError("nothing to compare", "Give draws, or a prior with estimate and se.")
    if not isinstance(prior, Prior):
        raise InputError(f"the prior is {type(prior).__name__}, not Prior", "Give what deconvolve returns.")
    _check_size(len(vector(estimate, "estimate")), most_gigabytes)
    split = prior.method == "spline" if split_ties is None else split_ties
    return _from_posterior(prior.posterior(estimate, se), 0.5 if split else 1.0)


def _from_draws(draws: FloatArray) -> FloatArray:
    """Share of draws in which each unit is above each other."""
    n = draws.shape[1]
    by_unit = np.ascontiguousarray(draws.T)
    above = np.zeros((n, n))
    _count_above(by_unit, above)
    above /= len(draws)
    return above


@njit(cache=True, nogil=True)
def _count_above(by_unit: FloatArray, above: FloatArray) -> None:
    """Count, for all pairs, draws with the first above the second; in tiles of units that stay in cache."""
    n, draws = by_unit.shape
    for tile in range(0, n, _TILE):
        for i in range(n):
            first = by_unit[i]
            for j in range(max(tile, i + 1), min(tile + _TILE, n)):
                second = by_unit[j]
                higher, lower = 0, 0
                for k in range(draws):
                    higher += first[k] > second[k]
                    lower += first[k] < second[k]
                above[i, j] = higher
                above[j, i] = lower


def _from_posterior(posterior: Posterior, own: float) -> FloatArray:
    """Sum over the grid of the weight of one unit times that of the other on all lower points, and 1 - `own` here."""
    weights = posterior.weights
    below = np.cumsum(weights, axis=1) - own * weights  # (units, points): probability of lying under each point
    n = len(weights)
    out = np.empty((n, n))
    for start in range(0, n, _BLOCK):
        np.matmul(weights[start : start + _BLOCK], below.T, out=out[start : start + _BLOCK])
    np.clip(out, 0.0, 1.0, out=out)
    np.fill_diagonal(out, 0.0)
    return out


def _check_size(units: int, most_gigabytes: float) -> None:
    gigabytes = 8e-9 * units**2
    if gigabytes > most_gigabytes:
        fits = int((most_gigabytes / 8e-9) ** 0.5)
        raise InputError(
            f"{units:,} units have {units:,} x {units:,} pairwise probabilities, which take {gigabytes:,.1f} GB; "
            f"the limit is {most_gigabytes:g} GB",
            f"Compare at most {fits:,} units at once, for instance within regions, or one pair at a time with "
            "chance_above.",
        )
