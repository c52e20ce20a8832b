"""Uncertainty of variance parameters: plausible fits around an estimate, for intervals that hold with few groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from send_va.errors import InputError
from send_va.multilevel.criterion import Criterion, pack
from send_va.multilevel.crossproducts import CrossProducts, FloatArray
from send_va.multilevel.inner_products import InnerProducts
from send_va.multilevel.nested import NestedSolution, column_sizes, solve_at
from send_va.multilevel.threads import one_blas_thread

_STEP = 1e-4  # of the factor's elements, columns at unit scale, in the difference of gradients
_FLATTEST = 1e-3  # curvature, relative to the largest, below which the normal approximation would run off


@one_blas_thread
def variance_draws(
    data: CrossProducts | InnerProducts,
    solution: NestedSolution,
    count: int,
    rng: np.random.Generator,
    *,
    curvature: FloatArray | None = None,
) -> list[NestedSolution]:
    """Draw variance parameters from their approximate posterior and solve for everything else given each draw.

    Elements of the relative covariance factor are normal around their estimate with the curvature of the restricted
    likelihood (flat prior on the scale of standard deviations); the residual variance is scaled inverse chi-squared
    given them. With thousands of groups this changes nothing; with twenty it widens intervals to what they should be.

    Parameters
    ----------
    data : CrossProducts or InnerProducts
        What `solution` was fitted to.
    solution : NestedSolution
    count : int
        Number of draws of the variance parameters.
    rng : numpy.random.Generator
    curvature : array, optional
        From :func:`variance_curvature` at a solution of a similar problem, which saves working it out again.

    Returns
    -------
    list of NestedSolution
        As `solution`, each at its own variance parameters; log-likelihood and convergence are those of `solution`.

    Raises
    ------
    InputError
        `count` below one.

    References
    ----------
    Gelman (2006), doi:10.1214/06-BA117A (flat priors on standard deviations).
    Rue, Martino & Chopin (2009), doi:10.1111/j.1467-9868.2008.00700.x (integrating over a normal approximation).
    """
    if count < 1:
        raise InputError(f"the number of variance draws must be at least 1, not {count}")
    inner, size, criterion, centre = _at_optimum(data, solution)
    spread = _spread(_curvature(criterion, centre) if curvature is None else curvature)
    drawn = []
    for _ in range(count):
        solved = solve_at(criterion, centre + spread @ rng.standard_normal(len(centre)), inner, size)
        scale = solved.rss / float(rng.chisquare(criterion.degrees))
        drawn.append(
            replace(
                solution,
                beta=solved.beta,
                beta_cov=solved.weight_of_beta * scale,
                scale=scale,
                covariances=tuple(scale * relative for relative in solved.covariances),
                modes=solved.modes,
                eliminated=solved.eliminated,
                weight_of_beta=solved.weight_of_beta,
            )
        )
    return drawn


@one_blas_thread
def variance_curvature(data: CrossProducts | InnerProducts, solution: NestedSolution) -> FloatArray:
    """Second derivatives of the deviance by the elements of the relative covariance factors, at their estimate.

    Returns
    -------
    array, shape (k, k)
        Columns at unit scale; symmetric, not necessarily positive definite where a variance is zero.
    """
    _, _, criterion, centre = _at_optimum(data, solution)
    return _curvature(criterion, centre)


def inverse_curvature(curvature: FloatArray) -> FloatArray:
    """Inverse of a curvature, the flattest directions bounded: where a search of a similar problem starts."""
    spread = _spread(curvature)
    return np.asarray(spread @ spread.T / 2.0)


def _at_optimum(
    data: CrossProducts | InnerProducts, solution: NestedSolution
) -> tuple[InnerProducts, FloatArray, Criterion, FloatArray]:
    size = column_sizes(data)
    scaled = InnerProducts.of(data, solution.levels[0], size)
    criterion = Criterion(scaled, solution.levels, solution.x, solution.y, solution.reml)
    relative = [covariance / solution.scale for covariance in solution.covariances]
    return InnerProducts.of(data, solution.levels[0]), size, criterion, pack(criterion, relative, size)


def _spread(curvature: FloatArray) -> FloatArray:
    """Root of the covariance that a curvature of the deviance stands for."""
    values, vectors = np.linalg.eigh(curvature)
    return np.asarray(vectors * np.sqrt(2.0 / np.maximum(values, _FLATTEST * values[-1])))


def _curvature(criterion: Criterion, centre: FloatArray) -> FloatArray:
    """Second derivatives of the deviance, by central differences of its exact gradient."""
    steps = _STEP * np.eye(len(centre))
    rows = np.array([(criterion(centre + step)[1] - criterion(centre - step)[1]) / (2.0 * _STEP) for step in steps])
    return np.asarray((rows + rows.T) / 2.0)
