"""A prior of point masses on a grid, estimated by nonparametric maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.grid_posterior import Posterior

_BLOCK = 8_192  # units whose likelihood rows are worked on at once
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class MixturePrior:
    """Point masses.

    Attributes
    ----------
    support : array (points,)
        Increasing values.
    weight : array (points,)
        Their probabilities, summing to 1.
    log_likelihood : float
    gap : float
        Bound on how far `log_likelihood` is below the largest that any prior on this grid reaches: the duality gap,
        computed from the weights and not from the solver's path.
    iterations : int
    converged : bool
        Whether `gap` is below the tolerance.
    """

    support: FloatArray
    weight: FloatArray
    log_likelihood: float
    gap: float
    iterations: int
    converged: bool

    @property
    def mean(self) -> float:
        """Mean of the true values."""
        return float(self.weight @ self.support)

    @property
    def variance(self) -> float:
        """Variance of the true values."""
        return float(self.weight @ (self.support - self.mean) ** 2)


def default_support(y: FloatArray, se: FloatArray) -> FloatArray:
    """Equally spaced values from the smallest to the largest estimate, no maximum lies outside.

    At least 300, and more, up to 1,000, where these stand further apart than half the smallest standard error.
    """
    low, high = float(y.min()), float(y.max())
    if high <= low:
        return np.array([low])
    points = int(np.clip(math.ceil((high - low) / (0.5 * float(se.min()))), 300, 1_000))
    return np.linspace(low, high, points)


def fit_mixture_prior(
    y: FloatArray,
    se: FloatArray,
    *,
    support: FloatArray | None = None,
    tolerance: float = 1e-6,
    most_iterations: int = 200,
) -> MixturePrior:
    """Probabilities on a grid that maximise the likelihood of the estimates.

    A primal-dual interior-point method on the convex problem; see Koenker & Mizera (2014),
    doi:10.1080/01621459.2013.869224, and Gilraine, Gu & McMillan (2020), doi:10.3386/w27094, for teachers.

    Parameters
    ----------
    tolerance : float
        Of the duality gap, in log-likelihood of all units together.
    """
    grid = default_support(y, se) if support is None else support
    likelihood, offset = scaled_likelihood(y, se, grid)
    weight, iterations = _interior_point(likelihood, tolerance, most_iterations)
    fitted = likelihood @ weight
    gap = _gap(likelihood, fitted)
    total = float(np.sum(np.log(fitted)) + offset.sum())
    return MixturePrior(grid, weight, total, gap, iterations, gap <= tolerance)


def mixture_posterior(
    y: FloatArray, se: FloatArray, prior: MixturePrior, coverage: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Posterior mean, SD and equal-tailed interval, whose ends are support values, each of shape (units,)."""
    mean, sd, lower, upper = (np.empty(len(y)) for _ in range(4))
    for start in range(0, len(y), _BLOCK):
        rows = slice(start, start + _BLOCK)
        density = scaled_likelihood(y[rows], se[rows], prior.support)[0] * prior.weight
        density /= density.sum(axis=1, keepdims=True)
        posterior = Posterior(prior.support, density)
        mean[rows], sd[rows] = posterior.mean, posterior.sd
        lower[rows], upper[rows] = posterior.interval(coverage)
    return mean, sd, lower, upper


def log_normal(y: FloatArray, se: FloatArray, support: FloatArray) -> FloatArray:
    """Log-density of each estimate at each true value, shape (units, points); minus infinity where too far apart."""
    log_density: FloatArray = (y[:, None] - support) / se[:, None]
    with np.errstate(over="ignore"):
        np.square(log_density, out=log_density)
    log_density *= -0.5
    log_density -= (np.log(se) + _LOG_SQRT_2PI)[:, None]
    return log_density


def scaled_likelihood(y: FloatArray, se: FloatArray, support: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows scaled to a largest entry of 1, shape (units, points), and the logarithms taken out of them.

    Raises
    ------
    InputError
        Estimates without probability at any of the values.
    """
    density = log_normal(y, se, support)
    largest = density.max(axis=1)
    if not np.isfinite(largest).all():
        raise InputError("the grid lies so far from some estimates that they have no probability", "Widen the grid.")
    density -= largest[:, None]
    np.exp(density, out=density)
    return density, largest


def _gap(likelihood: FloatArray, fitted: FloatArray) -> float:
    """Log-likelihood any other weights can gain at most, by scaling ``1 / fitted`` to a feasible point of the dual."""
    n = len(fitted)
    return n * math.log(max(float(((1.0 / fitted) @ likelihood).max()) / n, 1.0))


def _interior_point(likelihood: FloatArray, tolerance: float, most_iterations: int) -> tuple[FloatArray, int]:
    """Minimise ``-mean(log(L x)) + sum(x)`` over x >= 0, whose solution sums to one.

    Newton steps on ``gradient(x) = z, x z = centre`` for a falling centre; the primal step falls back until the
    barrier function goes down, so iterates cannot leave the domain.
    """
    n, points = likelihood.shape
    x, z = np.full(points, 1.0 / points), np.ones(points)
    for iteration in range(1, most_iterations + 1):
        fitted = likelihood @ x
        gradient = 1.0 - ((1.0 / fitted) @ likelihood) / n
        if n * math.log(max(1.0 - float(gradient.min()), 1.0) * float(x.sum())) <= tolerance:
            return x / x.sum(), iteration
        centre = 0.1 * float(x @ z) / points
        step = _newton(likelihood, fitted, x, z, gradient - centre / x)
        z_step = (centre - z * step) / x - z
        length = _line_search(likelihood, fitted, x, step, centre, float((gradient - centre / x) @ step))
        x = x + length * step
        z = z + _to_boundary(z, z_step) * z_step
    return x / x.sum(), most_iterations


def _newton(
    likelihood: FloatArray, fitted: FloatArray, x: FloatArray, z: FloatArray, barrier_gradient: FloatArray
) -> FloatArray:
    """Solve ``(H + diag(z / x)) step = -barrier_gradient``, scaled by sqrt(x) to be well conditioned."""
    n, points = likelihood.shape
    root = np.sqrt(x)
    hessian = np.zeros((points, points))
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = likelihood[rows] / fitted[rows, None] * root
        hessian += block.T @ block
    hessian /= n
    hessian[np.diag_indices(points)] += z + 1e-14 * (1.0 + np.trace(hessian))
    return np.asarray(root * cho_solve(cho_factor(hessian, lower=True), -root * barrier_gradient))


def _to_boundary(value: FloatArray, step: FloatArray) -> float:
    """The longest step, at most 1, that leaves half a hundredth of every entry."""
    falling = step < 0.0
    return min(1.0, 0.995 * float(np.min(-value[falling] / step[falling], initial=np.inf)))


def _line_search(
    likelihood: FloatArray, fitted: FloatArray, x: FloatArray, step: FloatArray, centre: float, slope: float
) -> float:
    """Halve the step until the barrier function falls by a part of what its slope says."""
    fitted_step = likelihood @ step
    length = _to_boundary(x, step)
    for _ in range(40):
        moved = fitted + length * fitted_step
        if moved.min() > 0.0:
            change = -np.mean(np.log(moved / fitted)) + length * step.sum()
            change -= centre * float(np.sum(np.log1p(length * step / x)))
            if change <= 1e-4 * length * slope + 1e-15:
                return length
        length *= 0.5
    return length
