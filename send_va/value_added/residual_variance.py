r"""Residual variance as a function of the probability of need, by re-weighted passes.

Need is latent, so there are no groups of pupils with one variance each. A pupil with probability ``pi`` has need or has
not: the residual variance moves from that without need to that with need, and in between the spread of what was left to
chance comes on top,

    v(pi) = v0 + v1 pi + v2 pi (1 - pi)
          = v(0) (1 - pi)^2 + 2 c pi (1 - pi) + v(1) pi^2.

The second form (Bernstein polynomials) is what is estimated: with coefficients above zero, v is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.nested import NestedSolution, fit_nested
from send_va.multilevel.prediction import direction_moments
from send_va.value_added.changing_products import NeedColumns, design_rows, weighted_products
from send_va.value_added.full_rank import require_full_rank
from send_va.value_added.pupil_design import PupilDesign

_FLOOR = 0.1  # least coefficient, as a share of the mean squared residual: nobody counts for more than ten
_NUDGE = 1e-9  # towards v2 = 0, where probabilities of 0 and 1 alone leave it open
_TOLERANCE = 1e-3  # largest relative change of a pupil's variance between passes
_PASSES = 12


@dataclass(frozen=True)
class ResidualVariance:
    """``v(pi)``, in squared outcome units.

    Attributes
    ----------
    without, between, with_need : float
        Coefficients of ``(1 - pi)^2``, ``2 pi (1 - pi)`` and ``pi^2``; the first is v(0), the last v(1).
    """

    without: float
    between: float
    with_need: float

    def at(self, pi: FloatArray) -> FloatArray:
        """Residual variance at each probability."""
        return np.asarray(_basis(pi) @ np.array([self.without, self.between, self.with_need]))

    @property
    def coefficients(self) -> tuple[float, float, float]:
        """``v0``, ``v1`` and ``v2`` of ``v0 + v1 pi + v2 pi (1 - pi)``."""
        return (
            self.without,
            self.with_need - self.without,
            2.0 * self.between - self.without - self.with_need,
        )


@dataclass(frozen=True)
class WeightedFit:
    """A model with its residual variance function settled.

    Attributes
    ----------
    solution : NestedSolution
    products : CrossProducts
        Precision-weighted.
    weights : array, shape (n,)
        Precision of each pupil, 1 on the scale of the mean residual variance; in order of the design's rows.
    residual : ResidualVariance
    passes : int
    settled : bool
        False when variances still moved after the last pass.
    """

    solution: NestedSolution
    products: CrossProducts
    weights: FloatArray
    residual: ResidualVariance
    passes: int
    settled: bool


def fit_weighted(
    design: PupilDesign,
    columns: NeedColumns,
    scores: FloatArray,
    prior_reference: float,
    *,
    by_need: bool = True,
    start: WeightedFit | None = None,
) -> WeightedFit:
    """Fit by REML with residual variance ``v(pi)``.

    Alternates the fit with a weighted regression of expected squared residuals, given the data (the uncertainty of
    fixed and random effects included), on the Bernstein polynomials of ``pi``.

    Parameters
    ----------
    design, columns, scores, prior_reference
        As in :func:`send_va.value_added.changing_products.design_rows`; ``pi`` is the first column of `scores`.
    by_need : bool
        False: one residual variance for all.
    start : WeightedFit, optional
        Of another context, whose variance function and variances are where the passes start.

    Returns
    -------
    WeightedFit

    Raises
    ------
    CollinearityError
        A covariate is constant or a combination of others; they are named.

    References
    ----------
    Carroll & Ruppert (1988), Transformation and Weighting in Regression, chapter 3, doi:10.1201/9780203735268.
    """
    rows, pi = design_rows(design, columns, scores, prior_reference), scores[:, 0]
    times = np.ones(len(pi)) if design.frequencies is None else design.frequencies
    variance = np.ones(len(pi)) if start is None or not by_need else start.residual.at(pi)
    solution, settled, passes = None if start is None else start.solution, False, 0
    while True:
        passes += 1
        weights = _mean(variance, times) / variance
        products = weighted_products(design, columns, rows, weights)
        if passes == 1:
            total = products.total[np.ix_(columns.x, columns.x)]
            require_full_rank(total, columns.fixed, design.context, len(design.schools))
        solution = fit_nested(products, [columns.level], columns.x, columns.y, start=solution)
        if not by_need:
            scale = solution.scale
            return WeightedFit(solution, products, weights, ResidualVariance(scale, scale, scale), passes, True)
        current = solution.scale / weights
        residual = _regressed(_expected_squares(design, columns, rows, solution), pi, current, times)
        variance = residual.at(pi)
        settled = bool(np.abs(variance / current - 1.0).max() < _TOLERANCE)
        if settled or passes == _PASSES:
            return WeightedFit(solution, products, weights, residual, passes, settled)


def _basis(pi: FloatArray) -> FloatArray:
    return np.stack([(1.0 - pi) ** 2, 2.0 * pi * (1.0 - pi), pi**2], axis=-1)


def _mean(values: FloatArray, times: FloatArray) -> float:
    return float((values * times).sum() / times.sum())


def _regressed(squares: FloatArray, pi: FloatArray, current: FloatArray, times: FloatArray) -> ResidualVariance:
    """Regress squares, whose variance is twice the square of `current`, on the basis, coefficients above a floor.

    Each square counts `times` (n,).
    """
    least = _FLOOR * _mean(squares, times)
    often = np.sqrt(times)
    basis = _basis(pi) / current[:, None] * often[:, None]
    normal = basis.T @ basis
    straight = np.array([-0.5, 1.0, -0.5])  # times the coefficients it is v2 / 2
    normal += _NUDGE * np.trace(normal) * np.outer(straight, straight)
    root = np.linalg.cholesky(normal)
    above, _ = nnls(root.T, solve_triangular(root, basis.T @ ((squares - least) / current * often), lower=True))
    return ResidualVariance(*(float(least + value) for value in above))


def _expected_squares(
    design: PupilDesign, columns: NeedColumns, rows: FloatArray, solution: NestedSolution
) -> FloatArray:
    """Expected squared residual of every pupil given the data, shape (n,)."""
    mean, spread = direction_moments(solution)
    at, group_level = _held_positions(design, columns)
    squares = np.empty(len(rows))
    for school, (start, stop) in enumerate(zip(design.starts[:-1].tolist(), design.starts[1:].tolist(), strict=True)):
        if stop == start:
            continue
        own = _with_school_means(rows[start:stop], at, group_level[school], mean.shape[1])
        squares[start:stop] = (own @ mean[school]) ** 2 + np.einsum("im,im->i", own @ spread[school], own)
    return squares


def _held_positions(design: PupilDesign, columns: NeedColumns) -> tuple[NDArray[np.intp], FloatArray]:
    """Places of pupils' columns among those held, and the values of the others (school means), (schools, m)."""
    at = np.array([k for k, name in enumerate(columns.held) if name not in design.mean_names], dtype=np.intp)
    constant = np.zeros((len(design.schools), len(columns.held)))
    for mean, name in zip((design.means - design.means.mean(axis=0)).T, design.mean_names, strict=True):
        if name in columns.held:
            constant[:, columns.held.index(name)] = mean
    return at, constant


def _with_school_means(rows: FloatArray, at: NDArray[np.intp], constant: FloatArray, m: int) -> FloatArray:
    full = np.broadcast_to(constant, (len(rows), m)).copy()
    full[:, at] = rows
    return full
