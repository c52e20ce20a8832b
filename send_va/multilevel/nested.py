"""REML and ML of Gaussian models with nested groups, from cross-products: arrays in, a frozen solution out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from send_va.errors import InputError
from send_va.multilevel.criterion import Criterion, pack, refuse_no_residual
from send_va.multilevel.crossproducts import CrossProducts, FloatArray, IntArray
from send_va.multilevel.elimination import Eliminated, Level, eliminate, eliminate_prepared
from send_va.multilevel.inner_products import InnerProducts
from send_va.multilevel.search import Convergence, newton_steps, optimise
from send_va.multilevel.threads import one_blas_thread


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


@one_blas_thread
def fit_nested(
    data: CrossProducts | InnerProducts,
    levels: Sequence[Level],
    x: IntArray,
    y: int,
    *,
    reml: bool = True,
    start: NestedSolution | None = None,
    newton: bool = False,
) -> NestedSolution:
    """Estimate a Gaussian model with nested random effects from cross-products.

    Parameters
    ----------
    data : CrossProducts or InnerProducts
        One set of sums for every innermost group; groups are ordered by parent.
    levels : sequence of Level
        Innermost first; the first one's columns are those of the rows of `InnerProducts`.
    x : array, shape (p,)
        Positions of the fixed-effects columns.
    y : int
        Position of the outcome.
    reml : bool, default True
        Restricted maximum likelihood, which does not understate variances when groups are few.
    start : NestedSolution, optional
        Solution of a similar problem with the same levels, to start from.
    newton : bool
        Begin with Newton steps by the inverse curvature of `start`, where that is exact (from
        :func:`send_va.multilevel.variance_draws.inverse_curvature`) and the problem nearly the same.

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
    criterion = Criterion(InnerProducts.of(data, levels[0], size), levels, x, y, reml)
    _require_residual(criterion)
    theta = np.concatenate([0.3 * np.eye(level.q)[np.tril_indices(level.q)] for level in levels])
    inverse_curvature = np.eye(len(theta)) / len(data.counts)
    if start is not None:
        theta = pack(criterion, [covariance / start.scale for covariance in start.covariances], size)
        inverse_curvature = start.inverse_curvature
    convergence = None
    if start is not None and newton:
        theta, convergence = newton_steps(criterion, theta, inverse_curvature)
    if convergence is None:
        theta, inverse_curvature, convergence = optimise(criterion, theta, inverse_curvature)
    return _solution(criterion, theta, inverse_curvature, convergence, InnerProducts.of(data, levels[0]), size)


def column_sizes(data: CrossProducts | InnerProducts) -> FloatArray:
    """Root mean square of every column: the scale on which the optimiser works."""
    size = np.sqrt(np.diag(data.total) / data.counts.sum())
    size[size == 0.0] = 1.0
    return size


def _require_groups(data: CrossProducts | InnerProducts, levels: Sequence[Level]) -> None:
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
    total = criterion.data.total
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


@dataclass(frozen=True)
class Solved:
    """Everything that follows from variance parameters, in the units of the columns."""

    covariances: tuple[FloatArray, ...]  # relative to the residual variance
    eliminated: tuple[Eliminated, ...]
    beta: FloatArray
    weight_of_beta: FloatArray
    rss: float
    modes: tuple[FloatArray, ...]


def solve_at(criterion: Criterion, theta: FloatArray, data: InnerProducts, size: FloatArray) -> Solved:
    """Fixed effects and conditional means given the factor's elements (of columns at unit scale)."""
    levels = criterion.levels
    factors = [factor / size[level.z][:, None] for factor, level in zip(criterion.factors(theta), levels, strict=True)]
    done = [eliminate_prepared(data.rows, levels[0], factors[0], data.summed)]
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
    data: InnerProducts,
    size: FloatArray,
) -> NestedSolution:
    log_size = float(np.log(size[criterion.x]).sum()) if criterion.reml else 0.0
    log_outcome = criterion.degrees * float(np.log(size[criterion.y]))
    solved = solve_at(criterion, theta, data, size)
    scale = solved.rss / criterion.degrees
    refuse_no_residual(scale / size[criterion.y] ** 2)
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
