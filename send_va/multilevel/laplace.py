"""Laplace approximation of latent Gaussian models with crossed or nested random effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from send_va.errors import InputError
from send_va.multilevel.laplace_criterion import LaplaceCriterion, LaplaceMode, Likelihood
from send_va.multilevel.latent_system import Floats, LatentSystem, Term
from send_va.multilevel.search import Convergence

_START_SD = 0.4
_NEAR, _LONGEST = 1e-2, 0.7  # squared scaled gradient at which scoring ends; longest step of a parameter
_FAR = 1e25  # stands for a criterion that cannot be evaluated
_MANY = 100_000  # rows above which the search starts from the estimates of a quarter of the groups
# Largest derivative of the criterion by a parameter scaled to about one standard error at which the search ends (in
# studies of many rows, where an evaluation takes seconds), and at which an optimum counts as found.
_FLAT, _FLAT_ENOUGH, _STATIONARY = 2e-3, 1e-2, 2e-2


@dataclass(frozen=True)
class LatentDraw:
    """One joint draw: covariances, fixed effects (fixed,), effects by term (groups, q), the likelihood's own."""

    covariances: list[Floats]
    beta: Floats
    effects: list[Floats]
    shape: Floats


@dataclass(frozen=True)
class LaplaceSolution:
    """Estimates of a latent Gaussian model.

    Attributes
    ----------
    beta : array, shape (fixed,)
        Coefficients of `x`, then the cutpoints if the model has them.
    beta_cov : array, shape (fixed, fixed)
        Given the variances.
    covariances : tuple of array, shape (q, q)
        Covariance of the effects of each term, in the order given.
    modes : tuple of array, shape (groups, q)
    mode_covs : tuple of array, shape (groups, q, q)
        Given the variances (and given the fixed effects unless these were integrated).
    llf : float
        Laplace approximation of the log-likelihood; of the restricted one if fixed effects were integrated.
    parameters : array, shape (k,)
        Elements of the terms' Cholesky factors, logarithms on the diagonal; then the likelihood's own parameters.
    parameters_cov : array, shape (k, k)
        Their covariance, from the curvature of `llf`; zeros unless asked for.
    convergence : Convergence
    """

    beta: Floats
    beta_cov: Floats
    covariances: tuple[Floats, ...]
    modes: tuple[Floats, ...]
    mode_covs: tuple[Floats, ...]
    llf: float
    parameters: Floats
    parameters_cov: Floats
    convergence: Convergence
    criterion: LaplaceCriterion = field(repr=False)
    mode: LaplaceMode = field(repr=False)
    mode_derivatives: tuple[tuple[Floats, list[Floats]], ...] = field(default=(), repr=False)

    def draw(self, rng: np.random.Generator, likelihood: Likelihood | None = None) -> LatentDraw:
        """Draw variance parameters, fixed and random effects jointly from the Laplace approximation.

        The variance parameters are drawn from their normal approximation; the mode follows them to first order; fixed
        and random effects are drawn around it with the curvature at the estimates (Kass & Steffey 1989,
        doi:10.1080/01621459.1989.10478825). Without `parameters_cov` the variance parameters stay at the estimates.
        Safe to call from several threads.

        Parameters
        ----------
        rng : numpy.random.Generator
        likelihood : Likelihood, optional
            One that differs a little (its data were themselves drawn): the mode follows by one chord step.
        """
        criterion, mode = self.criterion, self.mode
        system, lambdas = criterion.system, criterion.lambdas(self.parameters)
        values, vectors = np.linalg.eigh(self.parameters_cov)
        shift = vectors @ (np.sqrt(np.clip(values, 0.0, None)) * rng.standard_normal(len(values)))
        fixed, deviations = system.draw(mode.factor, rng)
        if likelihood is not None:
            chord_fixed, chord = criterion.chord_step(mode, lambdas, likelihood)
            fixed = fixed + chord_fixed
            deviations = [a + b for a, b in zip(deviations, chord, strict=True)]
        beta = mode.beta.copy()
        beta[: len(fixed)] += fixed
        effects = [(u + dev) @ lam.T for u, dev, lam in zip(mode.u, deviations, lambdas, strict=True)]
        for by_one, (d_fixed, d_effects) in zip(shift, self.mode_derivatives, strict=False):
            beta[: len(fixed)] += by_one * d_fixed
            for effect, d in zip(effects, d_effects, strict=True):
                effect += by_one * d
        moved = self.parameters + shift
        shape = moved[len(moved) - criterion.n_shape :]
        return LatentDraw([lam @ lam.T for lam in criterion.lambdas(moved)], beta, effects, shape)


def fit_laplace(
    likelihood: Likelihood,
    x: Floats,
    terms: Sequence[Term],
    *,
    offset: Floats | None = None,
    cutpoints: bool = False,
    integrate_fixed: bool = True,
    parameters_cov: bool | Literal["expected"] = False,
    start_fixed: Floats | None = None,
    start_parameters: Floats | None = None,
) -> LaplaceSolution:
    """Estimate variances and effects by maximising the Laplace approximation of the likelihood.

    ``eta[i] = offset[i] + x[i] @ beta + cutpoints + sum over terms of design[i] @ effects[codes[i]]``, the effects of
    a term's groups being normal with one covariance. The term with the most groups is eliminated by blocks; no matrix
    is larger than the groups of the other terms together, squared.

    Parameters
    ----------
    likelihood : Likelihood
    x : array, shape (n, p)
        Covariates that move all predictors of a row together.
    terms : sequence of Term
        At least one.
    offset : array, shape (n, d), optional
    cutpoints : bool
        Give every predictor an intercept of its own.
    integrate_fixed : bool
        Integrate fixed effects out with the random ones (a restricted likelihood: variances are not biased by the
        number of covariates). Otherwise they maximise the Laplace likelihood, as in lme4's ``glmer``.
    parameters_cov : bool or "expected"
        Also estimate the covariance of the variance parameters: from the numerical curvature (one gradient for each),
        or from their expected information, as if groups were independent (standard errors within about 10 % of the
        observed in models of 120 and 300 schools); the likelihood's own parameters always from the curvature.
    start_fixed : array, shape (fixed,), optional
        Fixed effects to start from; zeros by default. Cutpoints of ordered categories must start apart.
    start_parameters : array, shape (k,), optional
        Variance parameters to start from, as `LaplaceSolution.parameters`.

    Returns
    -------
    LaplaceSolution

    Raises
    ------
    InputError
        Collinear covariates, or a search that cannot go uphill.

    References
    ----------
    Tierney & Kadane (1986), doi:10.1080/01621459.1986.10478240. Bates et al. (2015), doi:10.18637/jss.v067.i01.
    """
    shift = np.zeros((len(x), likelihood.d)) if offset is None else offset
    problem = _Problem(likelihood, x, tuple(terms), shift, cutpoints)
    criterion, parameters, information = _approached(problem, start_fixed, start_parameters)
    if not integrate_fixed:
        criterion = _with_outer_fixed(criterion)
    return _search(criterion, parameters, information, parameters_cov)


@dataclass(frozen=True)
class _Problem:
    """What is fitted to which rows."""

    likelihood: Likelihood
    x: Floats
    terms: tuple[Term, ...]
    offset: Floats
    cutpoints: bool

    def criterion(self) -> LaplaceCriterion:
        """With the fixed effects integrated out."""
        system = LatentSystem(self.x, self.terms, offset=self.offset, cutpoints=self.cutpoints, integrate_fixed=True)
        return LaplaceCriterion(self.likelihood, system)

    def of_rows(self, rows: NDArray[np.intp]) -> _Problem:
        """Of some of the rows, and the groups that occur in them."""
        part = []
        for term in self.terms:
            there, codes = np.unique(term.codes[rows], return_inverse=True)
            design = term.design[rows] if len(term.design) > 1 else term.design
            part.append(Term(codes.reshape(-1), len(there), design))
        return _Problem(self.likelihood.of_rows(rows), self.x[rows], tuple(part), self.offset[rows], self.cutpoints)


def _approached(
    problem: _Problem, fixed: Floats | None, parameters: Floats | None
) -> tuple[LaplaceCriterion, Floats, Floats]:
    """Criterion with the fixed effects integrated out, variance parameters near its optimum, information on them."""
    criterion = problem.criterion()
    if parameters is None and len(problem.x) > _MANY:
        parameters, fixed = _estimates_of_part(problem, fixed)
    if fixed is not None:
        criterion.beta = np.array(fixed, dtype=np.float64)
    if parameters is None:
        own = np.asarray(getattr(problem.likelihood, "shape", np.zeros(0)), dtype=np.float64)
        parameters = np.concatenate([criterion.pack([_START_SD * np.eye(term.q) for term in problem.terms]), own])
    return criterion, *_scoring_steps(criterion, parameters)


def _estimates_of_part(problem: _Problem, fixed: Floats | None) -> tuple[Floats | None, Floats | None]:
    """Rough variance parameters and fixed effects from a quarter of the groups of a term with large groups.

    Where these cannot be estimated, no parameters, and the fixed effects as they were.
    """
    large = [term for term in problem.terms if len(problem.x) >= 100 * term.n_groups]
    chosen = max(large or problem.terms, key=lambda term: term.n_groups)
    try:
        criterion, parameters, _ = _approached(problem.of_rows(np.flatnonzero(chosen.codes % 4 == 0)), fixed, None)
    except InputError:  # a covariate that is constant in these groups
        return None, fixed
    return parameters, criterion.beta


def _scoring_steps(criterion: LaplaceCriterion, parameters: Floats, steps: int = 4) -> tuple[Floats, Floats]:
    """Bring the variances near the optimum; returns parameters and rough information on each."""
    information = np.ones(len(parameters))
    for _ in range(steps):
        here = criterion.with_gradient(parameters)
        gradient, information = here.gradient, here.information
        if float((gradient**2 / information).max()) < _NEAR:
            break
        parameters = parameters + np.clip(gradient / information, -_LONGEST, _LONGEST)
    return parameters, information


def _with_outer_fixed(joint: LaplaceCriterion) -> LaplaceCriterion:
    criterion = LaplaceCriterion(joint.likelihood, joint.system.with_fixed(False))
    criterion.beta, criterion.u = joint.beta, joint.u
    return criterion


def _search(
    criterion: LaplaceCriterion,
    parameters: Floats,
    information: Floats,
    parameters_cov: bool | Literal["expected"],
) -> LaplaceSolution:
    """Quasi-Newton search over variance parameters and, if not integrated, fixed effects; both scaled."""
    system, k = criterion.system, criterion.n_parameters
    scale = np.concatenate([1.0 / np.sqrt(information), np.ones(0 if criterion.integrated else system.n_fixed)])
    rotate = np.eye(len(scale))
    centre = np.concatenate([parameters, criterion.beta[: len(scale) - k]])
    if not criterion.integrated:
        rotate[k:, k:] = _scale_of_fixed(criterion, parameters)
    rotate[:k, :k] = np.diag(scale[:k])

    def negative(at: Floats) -> tuple[float, Floats]:
        point = centre + rotate @ at
        outer = None if criterion.integrated else point[k:]
        kept = criterion.beta, criterion.u
        try:
            there = criterion.with_gradient(point[:k], outer)
        except InputError:  # a step of the search too far out for the mode to be found
            criterion.beta, criterion.u = kept
            return _FAR, np.zeros(len(at))
        return -there.value, -rotate.T @ there.gradient

    options: Any = {"gtol": _FLAT if system.n <= _MANY else _FLAT_ENOUGH, "maxiter": 200}
    found = minimize(negative, np.zeros(len(scale)), jac=True, method="BFGS", options=options)
    point = centre + rotate @ found.x
    flat = float(np.abs(np.asarray(found.jac, dtype=np.float64)).max())
    outer = None if criterion.integrated else point[k:]
    return _solution(criterion, point[:k], outer, flat, str(found.message), parameters_cov)


def _scale_of_fixed(criterion: LaplaceCriterion, parameters: Floats) -> Floats:
    """Lower Cholesky factor of the covariance of the fixed effects at the joint mode."""
    return np.linalg.cholesky(_fixed_covariance(criterion, parameters))


def _fixed_covariance(criterion: LaplaceCriterion, parameters: Floats) -> Floats:
    system = criterion.system.with_fixed(True)
    lambdas = criterion.lambdas(parameters)
    eta = system.predictors(criterion.beta, [a @ lam.T for a, lam in zip(criterion.u, lambdas, strict=True)])
    curvature = criterion.likelihood.derivatives(eta)[2]
    return system.covariances(system.factor(system.blocks(curvature), lambdas)).xx


def _solution(
    criterion: LaplaceCriterion,
    parameters: Floats,
    outer: Floats | None,
    flat: float,
    message: str,
    kind: bool | str,
) -> LaplaceSolution:
    here = criterion.with_gradient(parameters, outer)
    lambdas, mode, spread = criterion.lambdas(parameters), here.mode, here.spread
    k = criterion.n_parameters
    cov = np.zeros((k, k)) if not kind else _parameters_cov(criterion, parameters, outer, kind == "expected")
    small = [i for i, lam in enumerate(lambdas) if np.abs(np.diag(lam)).min() < 1e-3]
    return LaplaceSolution(
        beta=mode.beta if outer is None else outer,
        beta_cov=spread.xx if criterion.integrated else _fixed_covariance(criterion, parameters),
        covariances=tuple(lam @ lam.T for lam in lambdas),
        modes=tuple(u @ lam.T for u, lam in zip(mode.u, lambdas, strict=True)),
        mode_covs=tuple(lam @ spread.own[i] @ lam.T for i, lam in enumerate(lambdas)),
        llf=criterion.log_likelihood(mode),
        parameters=parameters,
        parameters_cov=cov,
        convergence=Convergence(flat < _STATIONARY, flat, criterion.evaluations, tuple(small), message),
        criterion=criterion,
        mode=mode,
        mode_derivatives=() if not kind else criterion.mode_derivatives(mode, parameters),
    )


def _parameters_cov(criterion: LaplaceCriterion, parameters: Floats, outer: Floats | None, expected: bool) -> Floats:
    """Inverse of the curvature of the criterion by the parameters; flat directions get no variance."""
    k = len(parameters)
    here = criterion.with_gradient(parameters, outer)
    information, curvature = here.information, np.diag(here.information)
    for j in range(k - criterion.n_shape if expected else 0, k):
        step = 0.3 / np.sqrt(information[j])
        moved = parameters.copy()
        moved[j] += step
        curvature[j] = (here.gradient - criterion.with_gradient(moved, outer).gradient)[:k] / step
        if expected:
            curvature[j, : k - criterion.n_shape] = 0.0
    criterion.return_to(parameters, here.mode)
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    inverse = np.where(values > 1.0, 1.0 / np.maximum(values, 1.0), 0.0)
    return np.asarray((vectors * inverse) @ vectors.T)
