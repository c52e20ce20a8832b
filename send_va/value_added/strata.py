"""Residual variance by need status: REML with one residual variance a stratum, by re-weighting cross-products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from send_va.multilevel.crossproducts import CrossProducts, FloatArray, IntArray
from send_va.multilevel.elimination import Level
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.prediction import direction_moments

_TOLERANCE = 1e-5  # relative change of a residual variance between passes
_PASSES = 50


@dataclass(frozen=True)
class StratifiedSolution:
    """A solution with its residual variance in every stratum.

    Attributes
    ----------
    solution : NestedSolution
        Of the re-weighted cross-products.
    products : CrossProducts
        The re-weighted cross-products, summed over strata.
    residual_variance : array, shape (strata,)
        In squared outcome units.
    passes : int
        Re-weighting passes.
    settled : bool
        False when the variances still moved after the last pass.
    """

    solution: NestedSolution
    products: CrossProducts
    residual_variance: FloatArray
    passes: int
    settled: bool


def combine(strata: Sequence[CrossProducts], precision: FloatArray) -> CrossProducts:
    """Weighted sum of the cross-products of disjoint strata of the same groups."""
    total = strata[0].weighted(float(precision[0]))
    for part, weight in zip(strata[1:], precision[1:], strict=True):
        total = total + part.weighted(float(weight))
    return total


def fit_strata(
    strata: Sequence[CrossProducts], levels: Sequence[Level], x: IntArray, y: int, *, reml: bool = True
) -> StratifiedSolution:
    """Fit a nested model in which every stratum of records has its own residual variance.

    Alternates the fit with the exact expectation step for the residual variances, so that at the end they are
    stationary points of the (restricted) likelihood.

    Parameters
    ----------
    strata : sequence of CrossProducts
        Same columns and groups, disjoint records; strata without records are allowed.
    levels, x, y
        As in :func:`send_va.multilevel.nested.fit_nested`.

    Returns
    -------
    StratifiedSolution

    References
    ----------
    Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, section 5.2, doi:10.1007/b98882.
    """
    counts = np.array([part.counts.sum() for part in strata])
    precision = np.ones(len(strata))
    start = None
    settled, passes = False, 0
    while not settled and passes < _PASSES:
        passes += 1
        products = combine(strata, precision)
        solution = fit_nested(products, levels, x, y, reml=reml, start=start)
        moments = direction_moments(solution)
        expected = np.array([_expected_squares(part, *moments) for part in strata])
        current = solution.scale / precision
        variance = np.where(counts > 0, expected / np.maximum(counts, 1.0), current)
        settled = bool(np.all(np.abs(variance / current - 1.0) < _TOLERANCE))
        precision = precision if settled else float((variance * counts).sum() / counts.sum()) / variance
        start = solution
    return StratifiedSolution(solution, products, current, passes, settled)


def _expected_squares(part: CrossProducts, mean: FloatArray, spread: FloatArray) -> float:
    """Expected sum of squared residuals of a stratum given the data: squares at the means plus their uncertainty."""
    at_mean = np.einsum("gm,gmk,gk->", mean, part.products, mean, optimize=True)
    return float(at_mean + np.vdot(part.products, spread))
