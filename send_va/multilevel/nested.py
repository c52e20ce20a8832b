"""REML and ML of Gaussian models with nested groups, from cross-products: arrays in, a frozen solution out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from send_va.errors import InputError
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, IntArray
from send_va.multilevel.elimination import (
    Eliminated,
    Level,
    adjoint_factor,
    adjoint_products,
    eliminate,
    eliminate_prepared,
    sum_over_parents,
    unpack,
)
from send_va.multilevel.threads import one_blas_thread

_SINGULAR = 1e-6  # eigenvalue of a relative covariance, columns scaled to unit size, below which it counts as zero
# Largest gradient of the deviance, per square root of a record, at which the search ends, and at which an optimum
# counts as found where rounding ends the search first.
_FLAT, _STATIONARY = 1e-5, 2e-4


@dataclass(frozen=True)
class Convergence:
    """What the optimiser did, as data.

    Attributes
    ----------
    converged : bool
        True when the gradient is flat at an optimum, a variance of zero included.
    gradient : float
        Largest absolute derivative of the deviance by an element of ``Lambda`` (columns at unit scale).
    evaluations : int
        Evaluations of criterion and gradient.
    at_boundary : tuple of int
        Levels (0 = innermost) whose covariance is singular.
    message : str
        The optimiser's own words.
    """

    converged: bool
    gradient: float
    evaluations: int
    at_boundary: tuple[int, ...]
    message: str


@dataclass(frozen=True)
class NestedSolution:
    """Estimates of a nested Gaussian model, in the units of the columns given.

    Attributes
    ----------
    beta : array, shape (p,)
    beta_cov : array, shape (p, p)
    scale : float
        Residual variance of a record of weight one.
    covariances : tuple of array, shape (q, q)
        Covariance of the random effects of each level, innermost first.
    llf : float
        Log-likelihood, restricted when `reml`.
    levels : tuple of Level
    modes : tuple of array, shape (groups, q)
        Conditional means of each level's effects.
    convergence : Convergence
    reml : bool
    x, y : array and int
        Positions of the fixed-effects columns and the outcome among the columns.
    """

    beta: FloatArray
    beta_cov: FloatArray
    scale: float
    covariances: tuple[FloatArray, ...]
    llf: float
    levels: tuple[Level, ...]
    modes: tuple[FloatArray, ...]
    convergence: Convergence
    reml: bool
    x: IntArray
    y: int
    eliminated: tuple[Eliminated, ...]
    weight_of_beta: FloatArray  # (p, p), beta_cov / scale
    inverse_curvature: FloatArray  # of the deviance by the factor's elements, as the optimiser approximates it


class Criterion:
    """Deviance of a nested model as a function of the relative covariance factors, with its gradient."""

    def __init__(
        self, products: FloatArray, levels: Sequence[Level], x: IntArray, y: int, n_records: float, reml: bool
    ) -> None:
        self.levels, self.x, self.y, self.reml = tuple(levels), x, y, reml
        self.products = products
        self.innermost = np.ascontiguousarray(products[:, levels[0].z, :].transpose(1, 0, 2))
        self.summed = sum_over_parents(products, levels[0])
        self.degrees = n_records - (len(x) if reml else 0)
        self.evaluations = 0
        self.bases = _bases(products, levels, n_records)

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """Factors of the relative covariances, one a level."""
        return [basis @ lower for basis, lower in zip(self.bases, unpack(theta, self.levels), strict=True)]

    def forward(self, theta: FloatArray) -> list[Eliminated]:
        """Eliminate level by level."""
        factors = self.factors(theta)
        done = [eliminate_prepared(self.innermost, self.levels[0], factors[0], self.summed)]
        for level, factor in zip(self.levels[1:], factors[1:], strict=True):
            done.append(eliminate(done[-1].schur, level, factor))
        return done

    def fixed_effects(self, schur: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
        """Estimate, inverse of ``S_xx``, its log-determinant, and residual sum of squares."""
        s_xx, s_xy = schur[np.ix_(self.x, self.x)], schur[self.x, self.y]
        factor = cho_factor(s_xx, lower=True)
        beta = cho_solve(factor, s_xy)
        inverse = cho_solve(factor, np.eye(len(self.x)))
        logdet = 2.0 * float(np.log(np.diag(factor[0])).sum())
        return beta, inverse, logdet, float(schur[self.y, self.y] - s_xy @ beta)

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Deviance without its constant, and its gradient."""
        self.evaluations += 1
        done = self.forward(theta)
        beta, inverse, logdet, rss = self.fixed_effects(done[-1].schur)
        _refuse_no_residual(rss / self.degrees)
        value = sum(level.logdet for level in done) + self.degrees * float(np.log(rss / self.degrees))
        direction = np.zeros(self.products.shape[1])
        direction[self.x], direction[self.y] = -beta, 1.0
        bar = self.degrees / rss * np.outer(direction, direction)
        if self.reml:
            value += logdet
            bar[np.ix_(self.x, self.x)] += inverse
        factors = self.factors(theta)
        gradient: list[FloatArray] = []
        for at in reversed(range(len(self.levels))):
            by_factor = adjoint_factor(done[at], self.levels[at], factors[at], bar)
            gradient.insert(0, (self.bases[at].T @ by_factor)[np.tril_indices(self.levels[at].q)])
            if at > 0:
                bar = adjoint_products(done[at], self.levels[at], bar)
        return value, np.concatenate(gradient)

    def log_likelihood(self, theta: FloatArray) -> float:
        """Log-likelihood, constants included, for records of weight one."""
        done = self.forward(theta)
        _, _, logdet, rss = self.fixed_effects(done[-1].schur)
        deviance = sum(level.logdet for level in done) + self.degrees * (
            1.0 + float(np.log(2.0 * np.pi * rss / self.degrees))
        )
        return -0.5 * (deviance + (logdet if self.reml else 0.0))


@one_blas_thread
def fit_nested(
    data: CrossProducts,
    levels: Sequence[Level],
    x: IntArray,
    y: int,
    *,
    reml: bool = True,
    start: NestedSolution | None = None,
) -> NestedSolution:
    """Estimate a Gaussian model with nested random effects from cross-products.

    Parameters
    ----------
    data : CrossProducts
        One set of sums for every innermost group; groups are ordered by parent.
    levels : sequence of Level
        Innermost first.
    x : array, shape (p,)
        Positions of the fixed-effects columns.
    y : int
        Position of the outcome.
    reml : bool, default True
        Restricted maximum likelihood, which does not understate variances when groups are few.
    start : NestedSolution, optional
        Solution of a similar problem with the same levels, to start from.

    Returns
    -------
    NestedSolution
        A variance of zero is an estimate: see ``convergence.at_boundary``.

    Raises
    ------
    InputError
        Fewer records than fixed effects, or an outcome the fixed effects reproduce exactly.
    """
    n_records = float(data.counts.sum())
    _require_groups(data, levels)
    if n_records <= len(x):
        raise InputError(f"{n_records:.0f} records cannot estimate {len(x)} coefficients", "Use fewer covariates.")
    size = column_sizes(data)
    products = data.products / (size[:, None] * size)
    criterion = Criterion(products, levels, x, y, n_records, reml)
    _require_residual(criterion)
    theta = np.concatenate([0.3 * np.eye(level.q)[np.tril_indices(level.q)] for level in levels])
    inverse_curvature = np.eye(len(theta)) / data.n_groups
    if start is not None:
        theta = pack(criterion, [covariance / start.scale for covariance in start.covariances], size)
        inverse_curvature = start.inverse_curvature
    theta, inverse_curvature, convergence = _optimise(criterion, theta, inverse_curvature)
    return _solution(criterion, theta, inverse_curvature, convergence, data, size)


def _refuse_no_residual(scale: float) -> None:
    """`scale` is the residual variance as a share of the outcome's mean square."""
    if not scale > 1e-10:
        raise InputError(
            "the outcome does not vary within groups beyond its random effects: there is no residual variance",
            "Check that it is a result of the records, not of their groups.",
        )


def column_sizes(data: CrossProducts) -> FloatArray:
    """Root mean square of every column: the scale on which the optimiser works."""
    size = np.sqrt(np.diag(data.total) / data.counts.sum())
    size[size == 0.0] = 1.0
    return size


def _require_groups(data: CrossProducts, levels: Sequence[Level]) -> None:
    """Refuse groupings whose differences the records cannot show; groups without records do not count."""
    used = np.flatnonzero(data.counts > 0)
    sizes = [len(used)]
    for level in levels:
        if level.parent is not None:
            used = np.unique(level.parent[used])
            sizes.append(len(used))
    if min(sizes) < 2:
        raise InputError(
            "there is one group only, so no difference between groups can be estimated", "Give two groups or more."
        )
    if len(set(sizes)) < len(sizes):
        raise InputError("two groupings hold the same groups", "Leave one of them out.")
    if data.counts.max() <= 1:
        raise InputError(
            "every group has one record, so differences between groups cannot be told from those between records",
            "Use a coarser grouping.",
        )


def _require_residual(criterion: Criterion) -> None:
    total = criterion.products.sum(axis=0)
    try:
        rss = criterion.fixed_effects(total)[3]
    except np.linalg.LinAlgError as error:
        raise InputError(
            "the fixed-effects columns are not linearly independent", "Leave out the redundant ones."
        ) from error
    if not rss > 1e-12 * total[criterion.y, criterion.y]:
        raise InputError(
            "the outcome has no variation left: it is constant or an exact combination of the covariates",
            "Check that the outcome is not among the covariates.",
        )


def _bases(products: FloatArray, levels: Sequence[Level], n_records: float) -> list[FloatArray]:
    """Uncorrelated unit-size combinations of each level's columns: the search is as easy whatever their means."""
    total = products.sum(axis=0) / n_records
    lowers = [np.linalg.cholesky(total[np.ix_(level.z, level.z)]) for level in levels]
    return [np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True).T) for lower in lowers]


def pack(criterion: Criterion, relative: Sequence[FloatArray], size: FloatArray) -> FloatArray:
    """Elements that give these relative covariances (in the units of the columns)."""
    parts = []
    for level, basis, covariance in zip(criterion.levels, criterion.bases, relative, strict=True):
        scaled = covariance * size[level.z][:, None] * size[level.z]
        inverse = np.linalg.inv(basis)
        nudged = inverse @ scaled @ inverse.T + 1e-10 * np.eye(level.q)
        parts.append(np.linalg.cholesky(nudged)[np.tril_indices(level.q)])
    return np.concatenate(parts)


def _optimise(
    criterion: Criterion, theta: FloatArray, inverse_curvature: FloatArray
) -> tuple[FloatArray, FloatArray, Convergence]:
    """BFGS on the factor's elements, restarted where it stopped at a zero that is no optimum."""
    message = ""
    for _ in range(4):
        origin = criterion(theta)[0]

        def centred(point: FloatArray, origin: float = origin) -> tuple[float, FloatArray]:
            value, slope = criterion(point)
            return value - origin, slope

        options: Any = {"gtol": _FLAT * criterion.degrees**0.5, "maxiter": 500, "hess_inv0": inverse_curvature}
        result = minimize(centred, theta, jac=True, method="BFGS", options=options)
        theta, inverse_curvature, message = np.asarray(result.x), np.asarray(result.hess_inv), str(result.message)
        escape = _escape_from_zero(criterion, theta)
        if escape is None:
            break
        theta = escape
    gradient = float(np.abs(criterion(theta)[1]).max())
    at_boundary = tuple(
        at
        for at, factor in enumerate(unpack(theta, criterion.levels))
        if np.linalg.eigvalsh(factor @ factor.T)[0] < _SINGULAR
    )
    converged = gradient < _STATIONARY * criterion.degrees**0.5
    found = Convergence(converged, gradient, criterion.evaluations, at_boundary, message)
    return theta, (inverse_curvature + inverse_curvature.T) / 2.0, found


def _escape_from_zero(criterion: Criterion, theta: FloatArray) -> FloatArray | None:
    """A zero factor is stationary whatever the likelihood says: try a small variance in its null direction."""
    value = criterion(theta)[0]
    factors = unpack(theta, criterion.levels)
    for at, (level, factor) in enumerate(zip(criterion.levels, factors, strict=True)):
        values, vectors = np.linalg.eigh(factor @ factor.T)
        if values[0] >= _SINGULAR:
            continue
        bumped = np.linalg.cholesky(
            factor @ factor.T + 2e-5 * np.outer(vectors[:, 0], vectors[:, 0]) + 1e-12 * np.eye(level.q)
        )
        trial = [bumped if k == at else other for k, other in enumerate(factors)]
        point = np.concatenate([f[np.tril_indices(len(f))] for f in trial])
        if criterion(point)[0] < value - 1e-7:
            return point
    return None


@dataclass(frozen=True)
class Solved:
    """Everything that follows from variance parameters, in the units of the columns."""

    covariances: tuple[FloatArray, ...]  # relative to the residual variance
    eliminated: tuple[Eliminated, ...]
    beta: FloatArray
    weight_of_beta: FloatArray
    rss: float
    modes: tuple[FloatArray, ...]


def solve_at(criterion: Criterion, theta: FloatArray, data: CrossProducts, size: FloatArray) -> Solved:
    """Fixed effects and conditional means given the factor's elements (of columns at unit scale)."""
    levels = criterion.levels
    factors = [factor / size[level.z][:, None] for factor, level in zip(criterion.factors(theta), levels, strict=True)]
    done = [eliminate(data.products, levels[0], factors[0])]
    for level, factor in zip(levels[1:], factors[1:], strict=True):
        done.append(eliminate(done[-1].schur, level, factor))
    beta, inverse, _, rss = criterion.fixed_effects(done[-1].schur)
    direction = np.zeros(len(size))
    direction[criterion.x], direction[criterion.y] = -beta, 1.0
    relative = tuple(factor @ factor.T for factor in factors)
    return Solved(relative, tuple(done), beta, inverse, rss, conditional_modes(done, levels, direction))


def _solution(
    criterion: Criterion,
    theta: FloatArray,
    inverse_curvature: FloatArray,
    convergence: Convergence,
    data: CrossProducts,
    size: FloatArray,
) -> NestedSolution:
    log_size = float(np.log(size[criterion.x]).sum()) if criterion.reml else 0.0
    log_outcome = criterion.degrees * float(np.log(size[criterion.y]))
    solved = solve_at(criterion, theta, data, size)
    scale = solved.rss / criterion.degrees
    _refuse_no_residual(scale / size[criterion.y] ** 2)
    return NestedSolution(
        beta=solved.beta,
        beta_cov=solved.weight_of_beta * scale,
        scale=scale,
        covariances=tuple(scale * relative for relative in solved.covariances),
        llf=criterion.log_likelihood(theta) - log_outcome - log_size + 0.5 * data.log_weights,
        levels=criterion.levels,
        modes=solved.modes,
        convergence=convergence,
        reml=criterion.reml,
        x=criterion.x,
        y=criterion.y,
        eliminated=solved.eliminated,
        weight_of_beta=solved.weight_of_beta,
        inverse_curvature=inverse_curvature,
    )


def conditional_modes(
    done: Sequence[Eliminated], levels: Sequence[Level], direction: FloatArray
) -> tuple[FloatArray, ...]:
    """Conditional means of every level's effects, shape (groups, q), outermost first in computation.

    `direction` (m,) maps the columns to residuals: -beta at the fixed effects, 1 at the outcome.
    """
    effects: list[FloatArray] = []
    carried: FloatArray | None = None  # (groups of the outer level, m)
    for at in reversed(range(len(levels))):
        level = levels[at]
        if carried is None:
            mode = np.einsum("agm,m->ga", done[at].modes, direction)
            rows = np.broadcast_to(direction, (len(mode), len(direction))).copy()
        else:
            assert level.parent is not None
            rows = carried[level.parent].copy()
            mode = np.einsum("agm,gm->ga", done[at].modes, rows)
        effects.insert(0, mode)
        rows[:, level.z] -= mode
        carried = rows
    return tuple(effects)
