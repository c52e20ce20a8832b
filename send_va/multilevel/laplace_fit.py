"""Maximum likelihood by the Laplace approximation: zero variances settled, standard errors from the full curvature."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from send_va.multilevel.glmm_result import Estimates, GlmmConvergence
from send_va.multilevel.laplace import LaplaceSolution, fit_laplace
from send_va.multilevel.laplace_criterion import Likelihood
from send_va.multilevel.random_terms import RandomTerm

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_DIFFERENCE = 0.02  # step of numerical second derivatives, in standard errors
_SMALL_SD, _ZERO_SD = 0.1, 1e-3  # an SD that is tried at zero, and one that counts as zero
_TINY = 1e-6  # the SD that stands for zero in the search, and the log-likelihood that is not a difference
_IDENTIFIED = 1e-4  # curvature by a parameter of about unit standard error below which the data do not show it
_STATIONARY = 1e-2  # largest derivative, each parameter in its standard error, at which an optimum counts as found
_RESTARTS = 3


def fit_by_laplace(
    likelihood: Likelihood,
    x: FloatArray,
    terms: Sequence[RandomTerm],
    rows: IntArray,
    *,
    offset: FloatArray,
    cutpoints: bool,
) -> Estimates:
    """Maximise the Laplace approximation over variances and fixed effects together.

    The search works on log SDs, for which zero is infinitely far away: SDs it leaves small are tried at zero, and those
    it drove to zero are tried off it. Standard errors come from the curvature by all parameters together, and the same
    curvature gives a last Newton step.

    Parameters
    ----------
    likelihood : Likelihood
        Of the m rows.
    x : array, shape (m, p)
    terms : sequence of RandomTerm
    rows : integer array, shape (m,)
        Rows of `terms` that are used.
    offset : array, shape (m, d)
    cutpoints : bool
        One free intercept for every predictor, after the fixed effects.

    Returns
    -------
    Estimates
    """
    latent = [term.term(rows, likelihood.d) for term in terms]
    fit = functools.partial(
        fit_laplace, likelihood, x, latent, offset=offset, cutpoints=cutpoints, integrate_fixed=False
    )
    solution = fit()
    for _ in range(_RESTARTS):
        off_zero = _off_zero(solution)
        if off_zero is None:
            break
        solution = fit(start_fixed=solution.beta, start_parameters=off_zero)
    return _estimates(solution, terms)


def _diagonals(solution: LaplaceSolution) -> IntArray:
    """Positions, among the parameters, of the logarithms of the factors' diagonals."""
    at, positions = 0, []
    for q, size in zip(solution.criterion.qs, solution.criterion.sizes, strict=True):
        row, column = np.tril_indices(q)
        positions.append(at + np.flatnonzero(row == column))
        at += size
    return np.concatenate(positions)


def _off_zero(solution: LaplaceSolution) -> FloatArray | None:
    """Parameters with a higher likelihood, where the search had taken a log SD so far that it is flat there."""
    for at in _diagonals(solution):
        if solution.parameters[at] < np.log(_ZERO_SD):
            tried = solution.parameters.copy()
            tried[at] = np.log(_SMALL_SD)
            if solution.criterion(tried, solution.beta) > solution.llf + _TINY:
                return tried
    return None


def _at_zero(solution: LaplaceSolution) -> FloatArray:
    """Parameters with small SDs set to zero where the likelihood is no lower for it."""
    parameters, llf = solution.parameters, solution.llf
    for at in _diagonals(solution):
        if parameters[at] < np.log(_SMALL_SD):
            tried = parameters.copy()
            tried[at] = np.log(_TINY)
            value = solution.criterion(tried, solution.beta)
            if value > llf - _TINY:
                parameters, llf = tried, value
    return parameters


def _estimates(solution: LaplaceSolution, terms: Sequence[RandomTerm]) -> Estimates:
    criterion, k = solution.criterion, len(solution.parameters)
    point = np.concatenate([_at_zero(solution), solution.beta])
    diagonals = _diagonals(solution)
    zero = diagonals[point[diagonals] < np.log(_ZERO_SD)]
    cov, slope, llf = _joint_covariance(solution, point, zero)
    better = point + np.nan_to_num(cov @ slope)
    if criterion(better[:k], better[k:]) > llf:
        point = better
    found = criterion.with_gradient(point[:k], point[k:])
    lambdas = criterion.lambdas(point[:k])
    flat = float(np.abs(found.gradient * np.sqrt(np.diag(cov))).max())
    term_of = np.repeat(range(len(terms)), criterion.sizes)

    def covariances_at(parameters: FloatArray) -> list[FloatArray]:
        return [lam @ lam.T for lam in criterion.lambdas(parameters)]

    return Estimates(
        beta=point[k:],
        beta_cov=cov[k:, k:],
        covariances=covariances_at(point[:k]),
        modes=[u @ lam.T for u, lam in zip(found.mode.u, lambdas, strict=True)],
        mode_covs=[lam @ found.spread.own[i] @ lam.T for i, lam in enumerate(lambdas)],
        parameters=point[:k],
        parameters_cov=cov[:k, :k],
        covariances_at=covariances_at,
        llf=found.value,
        convergence=GlmmConvergence(
            converged=flat < _STATIONARY,
            gradient=flat,
            evaluations=criterion.evaluations,
            at_boundary=tuple(terms[at].name for at in np.unique(term_of[zero])),
            message=solution.convergence.message,
        ),
    )


def _joint_covariance(
    solution: LaplaceSolution, point: FloatArray, zero: IntArray
) -> tuple[FloatArray, FloatArray, float]:
    """Covariance of variance parameters and fixed effects, gradient and log-likelihood at a point.

    The inverse of the numerical curvature; NaN where that is not the curvature of a maximum. Parameters at `zero`, and
    what they leave unidentified, have no covariance.
    """
    criterion = solution.criterion
    k = len(solution.parameters)
    groups = np.repeat([term.n_groups for term in criterion.system.terms], criterion.sizes)
    rotate = np.zeros((len(point), len(point)))
    rotate[range(k), range(k)] = 1.0 / np.sqrt(2.0 * groups)
    rotate[k:, k:] = np.linalg.cholesky(solution.beta_cov)
    directions = np.delete(rotate, zero, axis=1)

    def slope(at: FloatArray) -> tuple[float, FloatArray]:
        found = criterion.with_gradient(at[:k], at[k:])
        return found.value, found.gradient

    llf, here = slope(point)
    moved = np.array([slope(point + _DIFFERENCE * direction)[1] for direction in directions.T])
    curvature = (here - moved) @ directions / _DIFFERENCE
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    shown = values > _IDENTIFIED
    if not shown.all() and len(zero) == 0:
        return np.full_like(rotate, np.nan), here, llf
    root = directions @ (vectors[:, shown] / np.sqrt(values[shown]))
    return np.asarray(root @ root.T), here, llf
