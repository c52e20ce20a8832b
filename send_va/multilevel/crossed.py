"""REML and ML of Gaussian models with crossed groupings: arrays in, a frozen solution out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.crossed_criterion import (
    CrossedCriterion,
    Effects,
    Profile,
    no_residual_variance,
    require_groups,
)
from send_va.multilevel.crossed_products import CrossedProducts
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.kept_system import DenseSystem
from send_va.multilevel.search import Convergence
from send_va.multilevel.threads import one_blas_thread

_START = 0.3  # relative standard deviation of the first trial
_LONGEST, _MOST_STEPS = 1.5, 200  # largest change of an element in one step; steps before the search gives up
_LOWEST, _HIGHEST = -11.0, 7.0  # of a log diagonal element: zero for the criterion; no residual variance left
_NEAR_ZERO = 0.05  # diagonal element below which an exact zero is tried, and which is tried against one
_NO_WORSE = 1e-6  # deviance by which a zero may be worse and still be the estimate
_SINGULAR = 1e-6  # eigenvalue of a relative covariance, columns scaled to unit size, below which it counts as zero
# Largest gradient of the deviance, for a step of about one standard error, at which the search ends, and at which an
# optimum counts as found where rounding ends the search first.
_FLAT, _STATIONARY = 5e-5, 5e-3


@dataclass(frozen=True)
class CrossedSolution:
    """Estimates of a crossed Gaussian model, in the units of the columns given.

    Attributes
    ----------
    beta : array, shape (p,)
    beta_cov : array, shape (p, p)
    scale : float
        Residual variance of a record of weight one.
    covariances : tuple of array, shape (q, q)
        Covariance of the random effects of each grouping.
    llf : float
        Log-likelihood, restricted when `reml`.
    modes : tuple of array, shape (groups, q)
        Conditional means of each grouping's effects.
    mode_covariances : tuple of array, shape (groups, q, q)
        Conditional covariances given the fixed effects.
    by_column : tuple of array, shape (groups, q, p)
        How the conditional means move with the fixed effects.
    convergence : Convergence
        `gradient` is for steps of about one standard error; `at_boundary` counts groupings in the order given.
    reml : bool
    x, y : array and int
        Positions of the fixed-effects columns and the outcome among the columns.
    dense : bool
        Whether the equations of the kept groupings were factorised as a full matrix.
    """

    beta: FloatArray
    beta_cov: FloatArray
    scale: float
    covariances: tuple[FloatArray, ...]
    llf: float
    modes: tuple[FloatArray, ...]
    mode_covariances: tuple[FloatArray, ...]
    by_column: tuple[FloatArray, ...]
    convergence: Convergence
    reml: bool
    x: IntArray
    y: int
    dense: bool

    def effect_covariances(self, *, fixed: bool) -> list[FloatArray]:
        """Conditional covariance of every grouping's effects; `fixed` adds the uncertainty of the fixed effects."""
        if not fixed:
            return list(self.mode_covariances)
        return [
            own + by @ self.beta_cov @ by.transpose(0, 2, 1)
            for own, by in zip(self.mode_covariances, self.by_column, strict=True)
        ]


@one_blas_thread
def fit_crossed(data: CrossedProducts, *, reml: bool = True) -> CrossedSolution:
    """Estimate a Gaussian model with any mixture of crossed and nested groupings from sums.

    Parameters
    ----------
    data : CrossedProducts
        The last column is the outcome, the others are the fixed effects.
    reml : bool, default True
        Restricted maximum likelihood.

    Returns
    -------
    CrossedSolution
        A variance of zero is an estimate: see ``convergence.at_boundary``. Groupings need not be connected: a group
        that shares nothing with others is estimated from its own records.

    Raises
    ------
    InputError
        Groupings that cannot be told from records or from each other, fewer records than fixed effects, or an outcome
        the fixed effects reproduce.
    NotSupportedError
        So many closely linked groups remain that their equations do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from send_va.multilevel.crossed_products import crossed_products
    >>> rng = np.random.default_rng(1)
    >>> a, b, one = rng.integers(0, 30, 900), rng.integers(0, 20, 900), np.ones((900, 1))
    >>> y = rng.normal(size=30)[a] + rng.normal(size=20)[b] + rng.normal(size=900)
    >>> solution = fit_crossed(crossed_products(np.column_stack([one, y]), ["one", "y"], [a, b], [one, one]))
    >>> solution.convergence.converged, round(solution.scale, 1)
    (True, 1.1)
    """
    if data.n_records <= len(data.columns) - 1:
        raise InputError(
            f"{data.n_records:.0f} records cannot estimate {len(data.columns) - 1} coefficients",
            "Use fewer covariates.",
        )
    require_groups(data)
    criterion = CrossedCriterion(data, reml)
    criterion.require_residual()
    return _estimated(criterion, data)


def _estimated(criterion: CrossedCriterion, data: CrossedProducts) -> CrossedSolution:
    trial, gradient, message = _Search(criterion).run()
    factors, profile, effects = trial.factors, trial.profile, trial.effects
    size, p = criterion.size, criterion.p
    scale = float(profile.rss / criterion.degrees * size[-1] ** 2)
    lambdas = [basis @ factor for basis, factor in zip(criterion.bases, factors, strict=True)]
    at_boundary = tuple(t for t, factor in enumerate(factors) if np.linalg.eigvalsh(factor @ factor.T)[0] < _SINGULAR)
    return CrossedSolution(
        beta=profile.beta * size[-1] / size[:-1],
        beta_cov=scale * profile.weight_of_beta / np.outer(size[:-1], size[:-1]),
        scale=scale,
        covariances=tuple(scale * factor @ factor.T for factor in lambdas),
        llf=criterion.log_likelihood(profile, data.log_weights),
        modes=tuple(size[-1] * found.modes @ factor.T for found, factor in zip(effects, lambdas, strict=True)),
        mode_covariances=tuple(
            scale * factor @ found.inverse @ factor.T for found, factor in zip(effects, lambdas, strict=True)
        ),
        by_column=tuple(factor @ found.by_column * size[:-1] for found, factor in zip(effects, lambdas, strict=True)),
        convergence=Convergence(gradient < _STATIONARY, gradient, criterion.evaluations, at_boundary, message),
        reml=criterion.reml,
        x=np.arange(p),
        y=p,
        dense=isinstance(criterion.system, DenseSystem),
    )


@dataclass(frozen=True)
class _Trial:
    """The model at one point of the search."""

    theta: FloatArray
    factors: list[FloatArray]
    profile: Profile
    effects: list[Effects]
    slope: FloatArray


class _Search:
    """Quasi-Newton search over log diagonal and lower elements of the factors, in steps of about a standard error."""

    def __init__(self, criterion: CrossedCriterion) -> None:
        self.criterion = criterion
        self.sizes = [sums.q for sums in criterion.groups]
        self.is_diagonal = np.concatenate([_diagonal(q) for q in self.sizes])

    def run(self) -> tuple[_Trial, float, str]:
        """The model at its optimum, the largest remaining gradient, and how the search ended."""
        theta = np.where(self.is_diagonal, np.log(_START), 0.0)
        for _ in range(4):
            trial, step, message = self._descended(theta)
            escape = self._escape(trial)
            if escape is None:
                break
            theta = escape
        if np.any(self.is_diagonal & (trial.theta >= _HIGHEST)):
            raise no_residual_variance()
        zero = self._zeros(trial)
        gradient = float(np.abs(np.where(zero, 0.0, trial.slope * step)).max())
        if zero.any():
            factors = self._factors(trial.theta, zero)
            reduced = self.criterion.reduce(factors)
            effects = self.criterion.effects(reduced)
            trial = replace(trial, factors=factors, profile=reduced.profile, effects=effects)
        return trial, gradient, message

    def _descended(self, theta: FloatArray) -> tuple[_Trial, FloatArray, str]:
        """BFGS whose first step trusts the rough standard errors, and whose steps are halved until they gain."""
        here = self._tried(theta)
        step = self._standard_errors(here)
        inverse = np.diag(step**2)
        for _ in range(_MOST_STEPS):
            if np.abs(here.slope * step).max() < _FLAT:
                return here, step, "gradient is flat"
            move = -inverse @ here.slope
            move *= min(1.0, _LONGEST / np.abs(move).max())
            there = self._line_search(here, move)
            if there is None:
                return here, step, "no further gain within rounding"
            inverse = _updated(inverse, there.theta - here.theta, there.slope - here.slope)
            here = self._dropped(there)
            dropped = here.theta < _LOWEST
            inverse[dropped] = inverse[:, dropped] = 0.0
        return here, step, f"stopped after {_MOST_STEPS} steps"

    def _dropped(self, here: _Trial) -> _Trial:
        """Small diagonal elements that the criterion pushes down are put below the range where that is no loss."""
        for at in self._small(here.theta):
            if here.slope[at] > 0.0:
                theta = here.theta.copy()
                theta[at] = 2.0 * _LOWEST
                there = self._tried(theta)
                here = there if there.profile.value <= here.profile.value else here
        return here

    def _line_search(self, here: _Trial, move: FloatArray) -> _Trial | None:
        rounding = 1e-14 * self.criterion.degrees
        for _ in range(12):
            there = self._tried(here.theta + move)
            gain = here.profile.value - there.profile.value
            if gain > -1e-4 * float(here.slope @ move):
                return there
            if abs(gain) < rounding and np.abs(there.slope).max() < np.abs(here.slope).max():
                return there
            move = move / 2.0 if np.isfinite(gain) else move / 10.0
        return None

    def _tried(self, theta: FloatArray) -> _Trial:
        factors = self._factors(theta)
        reduced = self.criterion.reduce(factors)
        effects = self.criterion.effects(reduced)
        slopes = self.criterion.gradient(reduced.profile, effects, factors)
        slope = np.concatenate([part[np.tril_indices(len(part))] for part in slopes])
        elements = np.concatenate([factor[np.tril_indices(len(factor))] for factor in factors])
        beyond = self.is_diagonal & ((theta < _LOWEST) | (theta > _HIGHEST))
        slope = np.where(self.is_diagonal, slope * elements, slope)
        return _Trial(theta, factors, reduced.profile, effects, np.where(beyond, 0.0, slope))

    def _factors(self, theta: FloatArray, zero: NDArray[np.bool_] | None = None) -> list[FloatArray]:
        elements = np.where(self.is_diagonal, np.exp(np.clip(theta, _LOWEST, _HIGHEST)), theta)
        if zero is not None:
            elements = np.where(zero, 0.0, elements)
        factors, start = [], 0
        for q in self.sizes:
            factor = np.zeros((q, q))
            stop = start + q * (q + 1) // 2
            factor[np.tril_indices(q)] = elements[start:stop]
            factors.append(factor)
            start = stop
        return factors

    def _standard_errors(self, trial: _Trial) -> FloatArray:
        """Rough standard errors of the elements: groups count as far as their effects are not shrunken."""
        parts = []
        for sums, found, factor in zip(self.criterion.groups, trial.effects, trial.factors, strict=True):
            kept = 1.0 - np.einsum("gqq->gq", found.inverse)
            unshrunken = (factor**2).sum(axis=1) + sums.n_groups / np.trace(sums.own.sum(axis=0)) * sums.q
            curvature = 2.0 * np.maximum(kept.sum(axis=0), 1.0) / unshrunken[:, None]
            np.fill_diagonal(curvature, 4.0 * np.maximum((kept**2).sum(axis=0), 1.0))
            parts.append(1.0 / np.sqrt(curvature[np.tril_indices(len(factor))]))
        return np.concatenate(parts)

    def _value(self, theta: FloatArray, zero: NDArray[np.bool_] | None = None) -> float:
        return self.criterion.reduce(self._factors(theta, zero)).profile.value

    def _small(self, theta: FloatArray) -> list[int]:
        return np.flatnonzero(self.is_diagonal & (theta < np.log(_NEAR_ZERO))).tolist()

    def _escape(self, trial: _Trial) -> FloatArray | None:
        """A point with a higher variance where the search ran off to a zero that is no optimum."""
        for at in self._small(trial.theta):
            for element in (_NEAR_ZERO, 0.2 * _NEAR_ZERO):
                theta = trial.theta.copy()
                theta[at] = np.log(element)
                if self._value(theta) < trial.profile.value - _NO_WORSE:
                    return theta
        return None

    def _zeros(self, trial: _Trial) -> NDArray[np.bool_]:
        """Diagonal elements that are as likely to be exactly zero."""
        zero = np.zeros(len(trial.theta), dtype=bool)
        for at in self._small(trial.theta):
            more = zero.copy()
            more[at] = True
            if self._value(trial.theta, more) <= trial.profile.value + _NO_WORSE:
                zero = more
        return zero


def _updated(inverse: FloatArray, moved: FloatArray, turned: FloatArray) -> FloatArray:
    """BFGS update of the inverse curvature; unchanged where the criterion did not curve upwards."""
    curve = float(moved @ turned)
    if not curve > 1e-10 * float(np.sqrt((moved @ moved) * (turned @ turned))):
        return inverse
    project = np.eye(len(moved)) - np.outer(moved, turned) / curve
    return np.asarray(project @ inverse @ project.T + np.outer(moved, moved) / curve)


def _diagonal(q: int) -> NDArray[np.bool_]:
    rows, columns = np.tril_indices(q)
    return np.asarray(rows == columns)
