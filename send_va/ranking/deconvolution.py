"""The distribution of true effects behind noisy estimates, and each unit's posterior under it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import BSpline
from scipy.optimize import OptimizeResult, minimize, minimize_scalar
from scipy.special import logsumexp, softmax

from send_va.effects import FloatArray
from send_va.errors import InputError
from send_va.ranking.estimate_inputs import check_choice, check_estimates
from send_va.ranking.grid_posterior import Posterior
from send_va.ranking.mixture_prior import fit_mixture_prior, log_normal, scaled_likelihood

Method = Literal["spline", "mixture"]

SMALLEST_PENALTY = 4e-5  # without any, log-densities can run off to infinity
LARGEST_PENALTY = 0.3
MOST_ENTRIES = 400_000_000  # of units x grid points held at once: 3.2 GB


@dataclass(frozen=True)
class Prior:
    """Distribution of true effects over units, as probabilities of grid points.

    Attributes
    ----------
    grid : array (points,)
        Values of the effect, increasing.
    density : array (points,)
        Probability of each grid point; sums to one.
    method : str
        ``"spline"``, ``"mixture"``, or ``"point"`` where all estimates are equal.
    penalty : float
        Weight of the penalty of the log-spline; 0 for a mixture.
    log_likelihood : float
        Of the estimates, without the penalty.
    converged : bool
        Whether the solver met its tolerance.
    """

    grid: FloatArray
    density: FloatArray
    method: str
    penalty: float
    log_likelihood: float
    converged: bool

    @property
    def mean(self) -> float:
        """Mean of true effects."""
        return float(self.density @ self.grid)

    @property
    def sd(self) -> float:
        """Standard deviation of true effects."""
        return math.sqrt(max(float(self.density @ (self.grid - self.mean) ** 2), 0.0))

    def posterior(self, estimate: ArrayLike, se: ArrayLike) -> Posterior:
        """Posterior of each unit given its estimate and standard error.

        Raises
        ------
        InputError
            Estimates or standard errors that :func:`deconvolve` refuses.
        """
        y, s = check_estimates(estimate, se, fewest=0)
        _check_size(len(y), len(self.grid))
        with np.errstate(divide="ignore"):
            log_weight = log_normal(y, s, self.grid) + np.log(self.density)
        return Posterior(self.grid, softmax(log_weight, axis=1))

    def __str__(self) -> str:
        kind = {"spline": "log-spline", "mixture": "mixture of points", "point": "one point"}[self.method]
        ending = "" if self.converged else "; the solver did not converge"
        return (
            f"Prior ({kind}) on {len(self.grid):,} points from {self.grid[0]:.4g} to {self.grid[-1]:.4g}: "
            f"mean {self.mean:.4g}, SD {self.sd:.4g}{ending}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>"


def deconvolve(
    estimate: ArrayLike,
    se: ArrayLike,
    *,
    method: Method = "spline",
    grid: int | ArrayLike = 1_000,
    degrees: int = 5,
    penalty: float | None = None,
) -> Prior:
    """Estimate the distribution of true effects from estimates with known standard errors.

    Estimates are taken as normal around the true effects, and effects as independent of the standard errors. Where
    precise units have other effects than noisy ones, take the dependence out first.

    Parameters
    ----------
    estimate, se : array-like (units,)
        Unshrunken estimates and their standard errors, in one unit of measurement.
    method : {"spline", "mixture"}
        ``"spline"``: a smooth density whose logarithm is a natural cubic spline (Efron 2016). ``"mixture"``: the
        distribution that makes the estimates most likely among all on the grid, a few points of mass.
    grid : int or array-like
        Number of equally spaced points between the smallest and the largest estimate, or the points themselves.
    degrees : int
        Columns of the spline; 5 as in Kline, Rose & Walters.
    penalty : float, optional
        Weight of the length of the spline's coefficients, whose columns are centred and of length one. Unless given,
        it is chosen between 4e-5 and 0.3 so that mean and SD of the prior come as near as possible to the mean of the
        estimates and their SD less noise.

    Returns
    -------
    Prior
        With an `sd` well below the noise of single units, most of what sets the estimates apart is noise. A penalty
        of 4e-5 means that the prior spreads at least as widely as the estimates less noise at every penalty tried.

    Raises
    ------
    InputError
        Estimates that are not finite, standard errors that are not above zero, fewer than two units (for the spline:
        fewer than `degrees` + 2), a grid that is not increasing or leaves all estimates without probability,
        or one that does not fit in memory with so many units.

    References
    ----------
    Efron (2016), doi:10.1093/biomet/asv068.
    Kline, Rose & Walters (2024), doi:10.1257/aer.20230700.
    Koenker & Mizera (2014), doi:10.1080/01621459.2013.869224.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> estimate = rng.normal(0, 0.25, 2_000) + rng.normal(0, 0.15, 2_000)
    >>> prior = deconvolve(estimate, np.full(2_000, 0.15), grid=200)
    >>> round(prior.sd, 2)
    0.25
    """
    check_choice(method, get_args(Method), "method")
    y, s = check_estimates(estimate, se, fewest=0)
    fewest = degrees + 2 if method == "spline" else 2
    if len(y) < fewest:
        raise InputError(
            f"{len(y)} units are too few to estimate a prior of this kind: it takes {fewest}",
            "Give more units, or take a normal prior.",
        )
    if penalty is not None and not (math.isfinite(penalty) and penalty >= 0.0):
        raise InputError(f"penalty must be zero or above, not {penalty}")
    if y.min() == y.max() and isinstance(grid, int | np.integer):
        log_likelihood = float(log_normal(y, s, y[:1]).sum())
        return Prior(y[:1].copy(), np.ones(1), "point", 0.0, log_likelihood, True)
    points = _grid_points(grid, y, degrees)
    if method == "mixture":
        mixture = fit_mixture_prior(y, s, support=points)
        return Prior(points, mixture.weight, method, 0.0, mixture.log_likelihood, mixture.converged)
    likelihood, largest = scaled_likelihood(y, s, points)
    spline = _LogSpline(points, likelihood, degrees)
    used = spline.matching_penalty(y, s) if penalty is None else float(penalty)
    result = spline.fit(used)
    density = spline.density(result.x)
    log_likelihood = float((np.log(likelihood @ density) + largest).sum())
    return Prior(points, density, method, used, log_likelihood, bool(result.success))


def natural_spline_basis(x: FloatArray, degrees: int) -> FloatArray:
    """Natural cubic splines without a constant, shape (points, degrees), as ``ns(x, df)`` of R makes them.

    Inner knots are quantiles of `x`. The penalty of a log-spline depends on the basis and not only on what it spans,
    so the rotation that takes out curvature at both ends is that of R: Householder reflections.
    """
    inner = np.quantile(x, np.arange(1, degrees) / degrees)
    knots = np.concatenate([np.repeat(x[0], 4), inner, np.repeat(x[-1], 4)])
    splines = BSpline(knots, np.eye(len(knots) - 4), 3)
    curvature = splines.derivative(2)(np.array([x[0], x[-1]]))[:, 1:]  # (2, degrees + 2)
    rotation, _ = np.linalg.qr(curvature.T, mode="complete")
    return np.asarray(splines(x)[:, 1:] @ rotation[:, 2:])


class _LogSpline:
    """Penalised likelihood of the coefficients of a log-density."""

    def __init__(self, points: FloatArray, likelihood: FloatArray, degrees: int) -> None:
        basis = natural_spline_basis(points, degrees)
        basis = basis - basis.mean(axis=0)
        self.basis = basis / np.linalg.norm(basis, axis=0)
        self.points = points
        self.likelihood = likelihood
        self._start = self._normal_start()

    def density(self, coefficients: FloatArray) -> FloatArray:
        """Probability of each grid point."""
        return np.asarray(softmax(self.basis @ coefficients))

    def _normal_start(self) -> FloatArray:
        """Coefficients of about a normal density with the moments of the average likelihood."""
        share = (self.likelihood / self.likelihood.sum(axis=1, keepdims=True)).mean(axis=0)
        mean = share @ self.points
        variance = share @ (self.points - mean) ** 2
        log_density = -0.5 * (self.points - mean) ** 2 / variance
        return np.asarray(np.linalg.lstsq(self.basis, log_density - log_density.mean(), rcond=None)[0])

    def _objective(self, coefficients: FloatArray, penalty: float) -> tuple[float, FloatArray, FloatArray]:
        """Minus the penalised log-likelihood, its gradient and its Hessian."""
        log_density = self.basis @ coefficients
        density = np.exp(log_density - logsumexp(log_density))
        fitted = self.likelihood @ density
        length = math.sqrt(coefficients @ coefficients + 1e-20)  # smooth at zero
        column = density * ((1.0 / fitted) @ self.likelihood)  # posterior mass of each point, over units
        by_unit = (self.likelihood @ (density[:, None] * self.basis)) / fitted[:, None]
        prior_mean, n = density @ self.basis, len(fitted)
        gradient = n * prior_mean - column @ self.basis + penalty * coefficients / length
        hessian = (
            (self.basis.T * (n * density - column)) @ self.basis
            - n * np.outer(prior_mean, prior_mean)
            + by_unit.T @ by_unit
            + penalty * (np.eye(len(coefficients)) / length - np.outer(coefficients, coefficients) / length**3)
        )
        return float(-np.log(fitted).sum() + penalty * length), gradient, hessian

    def fit(self, penalty: float) -> OptimizeResult:
        """Coefficients that minimise minus the log-likelihood plus the penalty."""
        scale = math.sqrt(len(self.points))  # coefficients grow with it, as columns have length one
        n = len(self.likelihood)

        def value(x: FloatArray) -> tuple[float, FloatArray]:
            objective, gradient, _ = self._objective(scale * x, penalty)
            return objective / n, scale / n * gradient

        def hessian(x: FloatArray) -> FloatArray:
            return np.asarray(scale**2 / n * self._objective(scale * x, penalty)[2])

        result = minimize(
            value,
            self._start / scale,
            jac=True,
            hess=hessian,
            method="trust-exact",
            options={"gtol": 1e-8, "maxiter": 500},
        )
        result.x = scale * result.x
        return result

    def matching_penalty(self, y: FloatArray, s: FloatArray) -> float:
        """Penalty at which mean and SD of the prior are nearest those of the estimates less noise."""
        n, mean = len(y), float(y.mean())
        squared = (y - mean) ** 2
        variance = float(y.var(ddof=1) - np.mean(s**2))
        sd = math.sqrt(max(variance, 0.0))
        mean_error = float(np.sum(s**2)) / n**2
        signal = max(float(np.sum((squared - s**2) * s**2)), 0.0)
        variance_error = (2.0 * float(np.sum(s**4)) + 4.0 * signal) / n**2
        sd_error = variance_error / max(4.0 * variance, 2.0 * math.sqrt(variance_error))

        def gap(penalty: float) -> float:
            density = self.density(self.fit(penalty).x)
            prior_mean = float(density @ self.points)
            prior_sd = math.sqrt(max(float(density @ (self.points - prior_mean) ** 2), 0.0))
            return (prior_mean - mean) ** 2 / mean_error + (prior_sd - sd) ** 2 / sd_error

        def log_gap(log_penalty: float) -> float:
            return gap(math.exp(log_penalty))

        ends = (math.log(SMALLEST_PENALTY), math.log(LARGEST_PENALTY))
        found = minimize_scalar(log_gap, bounds=ends, method="bounded", options={"xatol": 0.05})
        tried = (SMALLEST_PENALTY, LARGEST_PENALTY, math.exp(float(found.x)))
        return min(tried, key=gap)


def _grid_points(grid: int | ArrayLike, y: FloatArray, degrees: int) -> FloatArray:
    """Grid of the prior: given, or equally spaced over the range of the estimates."""
    if isinstance(grid, int | np.integer):
        if grid < degrees + 2:
            raise InputError(f"a grid of {grid} points is too short", f"Take {degrees + 2} points or more.")
        _check_size(len(y), int(grid))
        return np.linspace(y.min(), y.max(), int(grid))
    points = np.asarray(grid, dtype=float)
    if points.ndim != 1 or len(points) < 2 or not np.isfinite(points).all() or np.any(np.diff(points) <= 0.0):
        raise InputError("the grid must be two or more finite values in increasing order")
    _check_size(len(y), len(points))
    return points


def _check_size(units: int, points: int) -> None:
    if units * points > MOST_ENTRIES:
        raise InputError(
            f"{units:,} units on {points:,} grid points take {units * points * 8e-9:,.1f} GB",
            f"Take at most {MOST_ENTRIES // units:,} grid points, or estimate the prior from a sample of units.",
        )
