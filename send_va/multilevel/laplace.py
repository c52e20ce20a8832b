"""Laplace approximation of latent Gaussian models with crossed or nested random effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from scipy.optimize import minimize

from send_va.errors import InputError
from send_va.multilevel.latent_system import Factor, Floats, LatentSystem, Term

_SMALLEST_SD = 1e-6
_START_SD = 0.4
_NEWTON_STEPS = 60
_SETTLED = 1e-8  # Newton decrement at which the mode counts as found
_SLOW = 0.05  # a chord step that shrinks the decrement by less than this asks for a new factor
_SHAPE_STEP = 1e-3
_NEAR, _LONGEST = 1e-2, 0.7  # squared scaled gradient at which scoring ends; longest step of a parameter
_FAR = 1e25  # stands for a criterion that cannot be evaluated
_FLAT = 2e-3  # largest derivative of the criterion by a parameter scaled to about one standard error


class Likelihood(Protocol):
    """Log-likelihood of rows given their d linear predictors (n, d); concave in them.

    A likelihood with parameters of its own has an attribute `shape` (array) and a method `with_shape`.
    """

    @property
    def d(self) -> int:
        """Linear predictors of a row."""
        ...

    def value(self, eta: Floats) -> float:
        """Sum over rows."""
        ...

    def derivatives(self, eta: Floats) -> tuple[float, Floats, Floats]:
        """Sum over rows, gradient (n, d) and minus second derivative (n, d, d)."""
        ...

    def third(self, eta: Floats) -> Floats:
        """``third[i, a, b, c]``: derivative of minus the second derivative [i, a, b] by predictor c."""
        ...


@dataclass(frozen=True)
class LaplaceConvergence:
    """What the search did, as data.

    Attributes
    ----------
    converged : bool
    gradient : float
        Largest derivative of the criterion by a parameter scaled to about one standard error.
    evaluations : int
    at_boundary : tuple of int
        Terms with a variance at zero.
    message : str
    """

    converged: bool
    gradient: float
    evaluations: int
    at_boundary: tuple[int, ...]
    message: str


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
    convergence : LaplaceConvergence
    """

    beta: Floats
    beta_cov: Floats
    covariances: tuple[Floats, ...]
    modes: tuple[Floats, ...]
    mode_covs: tuple[Floats, ...]
    llf: float
    parameters: Floats
    parameters_cov: Floats
    convergence: LaplaceConvergence
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


@dataclass(frozen=True)
class LatentDraw:
    """One joint draw: covariances, fixed effects (fixed,), effects by term (groups, q), the likelihood's own."""

    covariances: list[Floats]
    beta: Floats
    effects: list[Floats]
    shape: Floats


@dataclass(frozen=True)
class LaplaceMode:
    """The mode at one set of variances, with everything the gradient needs."""

    beta: Floats
    u: list[Floats]
    eta: Floats
    value: float  # log-likelihood at the mode minus half the squared effects
    gradient: Floats
    curvature: Floats
    factor: Factor


class LaplaceCriterion:
    """The Laplace log-likelihood as a function of the terms' Cholesky factors (and outer fixed effects)."""

    def __init__(self, likelihood: Likelihood, system: LatentSystem) -> None:
        self.likelihood, self.system = likelihood, system
        self.qs = [term.q for term in system.terms]
        self.sizes = [q * (q + 1) // 2 for q in self.qs]
        self.n_shape = len(getattr(likelihood, "shape", ()))
        self.n_parameters = sum(self.sizes) + self.n_shape
        self.u = [np.zeros((term.n_groups, term.q)) for term in system.terms]
        self.beta = np.zeros(system.n_fixed)
        self.factor: Factor | None = None
        self.evaluations = 0

    @property
    def integrated(self) -> bool:
        """Whether the fixed effects are integrated out with the random ones."""
        return self.system.inner_fixed > 0

    def lambdas(self, parameters: Floats) -> list[Floats]:
        """Cholesky factors of the terms' covariances."""
        out, at = [], 0
        for q, size in zip(self.qs, self.sizes, strict=True):
            lower = np.zeros((q, q))
            lower[np.tril_indices(q)] = parameters[at : at + size]
            diagonal = np.exp(np.clip(np.diag(lower), np.log(_SMALLEST_SD), 5.0))
            lower[np.diag_indices(q)] = diagonal
            out.append(lower)
            at += size
        return out

    def pack(self, lambdas: Sequence[Floats]) -> Floats:
        """Parameters of Cholesky factors."""
        parts = []
        for lower in lambdas:
            free = lower.copy()
            free[np.diag_indices(len(free))] = np.log(np.maximum(np.diag(free), _SMALLEST_SD))
            parts.append(free[np.tril_indices(len(free))])
        return np.concatenate(parts)

    def at(self, parameters: Floats) -> list[Floats]:
        """Cholesky factors of the terms, with the likelihood set to its own parameters."""
        if self.n_shape:
            self.likelihood = self.likelihood.with_shape(parameters[-self.n_shape :])  # type: ignore[attr-defined]
        return self.lambdas(parameters)

    def find_mode(self, lambdas: Sequence[Floats]) -> LaplaceMode:
        """Newton steps to the joint mode, with chord steps between factorisations."""
        system, likelihood = self.system, self.likelihood
        beta, u = self.beta, self.u
        factor, before = self.factor, np.inf  # that of the last mode serves for the first steps
        fresh = False
        eta = system.predictors(beta, [a @ lam.T for a, lam in zip(u, lambdas, strict=True)])
        value, gradient, curvature = likelihood.derivatives(eta)
        if not (np.isfinite(gradient).all() and np.isfinite(curvature).all()):  # last mode impossible with these SDs
            u = [np.zeros_like(a) for a in u]
            eta = system.predictors(beta, [a @ lam.T for a, lam in zip(u, lambdas, strict=True)])
            value, gradient, curvature = likelihood.derivatives(eta)
        for _ in range(_NEWTON_STEPS):
            if factor is None:
                factor, fresh = system.factor(system.blocks(curvature), lambdas), True
            fixed, scores = self._scores(gradient, u, lambdas)
            step_fixed, step = system.solve(factor, fixed, scores)
            decrement = float(fixed @ step_fixed) + sum(float(np.vdot(a, b)) for a, b in zip(scores, step, strict=True))
            if decrement < _SETTLED and fresh:
                beta, u, eta, (value, gradient, curvature) = self._step(beta, u, step_fixed, step, lambdas, value)
                break
            if not fresh and not _SETTLED <= decrement <= _SLOW * before:
                factor, before = None, np.inf
                continue
            before = decrement
            beta, u, eta, (value, gradient, curvature) = self._step(beta, u, step_fixed, step, lambdas, value)
            fresh = False
        assert factor is not None
        self.beta, self.u, self.factor = beta, u, factor
        return LaplaceMode(beta, u, eta, value - _half_squares(u), gradient, curvature, factor)

    def _scores(self, gradient: Floats, u: list[Floats], lambdas: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        fixed, scores = self.system.scores(gradient)
        return fixed[: self.system.inner_fixed], [s @ lam - a for s, lam, a in zip(scores, lambdas, u, strict=True)]

    def _step(
        self,
        beta: Floats,
        u: list[Floats],
        step_fixed: Floats,
        step: list[Floats],
        lambdas: Sequence[Floats],
        value: float,
    ) -> tuple[Floats, list[Floats], Floats, tuple[float, Floats, Floats]]:
        """Take the longest of the step and its halves that raises the penalised log-likelihood."""
        at = value - _half_squares(u)
        scale = 1.0
        for _ in range(30):
            new_beta = beta.copy()
            if self.integrated:
                new_beta += scale * step_fixed
            new_u = [a + scale * b for a, b in zip(u, step, strict=True)]
            eta = self.system.predictors(new_beta, [a @ lam.T for a, lam in zip(new_u, lambdas, strict=True)])
            there = self.likelihood.derivatives(eta)
            if np.isfinite(there[0]) and there[0] - _half_squares(new_u) >= at - 1e-9 * abs(at):
                return new_beta, new_u, eta, there
            scale /= 2.0
        raise InputError("the search for the most likely effects cannot go uphill", "Look for extreme covariates.")

    def __call__(self, parameters: Floats, outer: Floats | None = None) -> float:
        """Laplace log-likelihood."""
        if outer is not None:
            self.beta = outer
        self.evaluations += 1
        return self._value(self.find_mode(self.at(parameters)))

    def _value(self, mode: LaplaceMode) -> float:
        return mode.value - 0.5 * mode.factor.logdet + 0.5 * self.system.inner_fixed * float(np.log(2 * np.pi))

    def with_gradient(
        self, parameters: Floats, outer: Floats | None = None
    ) -> tuple[float, Floats, Floats, LaplaceMode]:
        """Value, gradient by parameters (then outer fixed effects), rough information on each, and the mode."""
        if outer is not None:
            self.beta = outer
        self.evaluations += 1
        system = self.system
        lambdas = self.at(parameters)
        mode = self.find_mode(lambdas)
        spread = system.covariances(mode.factor)
        rows = system.predictor_covariance(spread, lambdas)
        pull = np.einsum("iab,iabc->ic", rows, self.likelihood.third(mode.eta))
        pull_fixed, pull_scores = system.scores(pull)
        inner = pull_fixed[: system.inner_fixed]
        adjoint_fixed, adjoint = system.solve(
            mode.factor, inner, [s @ lam for s, lam in zip(pull_scores, lambdas, strict=True)]
        )
        gradient, information = [], []
        for k, (u, lam) in enumerate(zip(mode.u, lambdas, strict=True)):
            moment = u.T @ u + spread.own[k].sum(axis=0)
            cross = u.T @ adjoint[k]
            inside = moment - len(u) * np.eye(len(lam)) - 0.5 * (cross + cross.T)
            by_lambda = np.linalg.solve(lam.T, inside.T)  # d criterion / d lambda
            by_lambda[np.diag_indices(len(lam))] *= np.diag(lam)
            gradient.append(by_lambda[np.tril_indices(len(lam))])
            information.append(_information(spread.own[k], lam))
        gradient.append(self._by_shape(parameters, mode, rows, adjoint, adjoint_fixed))
        if outer is not None:
            effects = [a @ lam.T for a, lam in zip(adjoint, lambdas, strict=True)]
            moved = system.predictors(np.zeros_like(outer), effects) - system.offset
            total = mode.gradient - 0.5 * (pull - np.einsum("iab,ib->ia", mode.curvature, moved))
            gradient.append(system.scores(total)[0])
        information.append(np.full(self.n_shape, system.n / 20.0))
        return self._value(mode), np.concatenate(gradient), np.concatenate(information), mode

    def _by_shape(
        self, parameters: Floats, mode: LaplaceMode, rows: Floats, adjoint: list[Floats], fixed: Floats
    ) -> Floats:
        """Derivative by the likelihood's own parameters: its rows are differenced at the mode's predictors.

        `rows` is the covariance of the predictors, `adjoint` and `fixed` solve the normal equations for the pull of
        the curvature on the mode.
        """
        out = np.zeros(self.n_shape)
        lambdas = self.lambdas(parameters)
        for k in range(self.n_shape):
            moved = np.zeros(len(parameters))
            moved[len(parameters) - self.n_shape + k] = _SHAPE_STEP
            self.at(parameters + moved)
            up = self.likelihood.derivatives(mode.eta)
            self.at(parameters - moved)
            down = self.likelihood.derivatives(mode.eta)
            value, gradient, curvature = (
                (np.asarray(a) - np.asarray(b)) / (2 * _SHAPE_STEP) for a, b in zip(up, down, strict=True)
            )
            score_fixed, scores = self.system.scores(gradient)
            implicit = float(score_fixed[: len(fixed)] @ fixed) + sum(
                float(np.vdot(s @ lam, a)) for s, lam, a in zip(scores, lambdas, adjoint, strict=True)
            )
            out[k] = float(value) - 0.5 * float(np.vdot(rows, curvature)) - 0.5 * implicit
        self.at(parameters)
        return out

    def chord_step(
        self, mode: LaplaceMode, lambdas: Sequence[Floats], likelihood: Likelihood
    ) -> tuple[Floats, list[Floats]]:
        """Step from a mode towards that of another likelihood, with the curvature at hand; standardised effects."""
        fixed, scores = self._scores(likelihood.derivatives(mode.eta)[1], mode.u, lambdas)
        return self.system.solve(mode.factor, fixed, scores)

    def mode_derivatives(self, mode: LaplaceMode, parameters: Floats) -> tuple[tuple[Floats, list[Floats]], ...]:
        """Derivative of the mode by every parameter: inner fixed effects, and effects in their own units."""
        lambdas = self.lambdas(parameters)
        return tuple(self._mode_derivative(mode, lambdas, parameters, k) for k in range(self.n_parameters))

    def _mode_derivative(
        self, mode: LaplaceMode, lambdas: Sequence[Floats], parameters: Floats, k: int
    ) -> tuple[Floats, list[Floats]]:
        """Derivative of the mode (effects in their own units) by one parameter."""
        if k >= len(parameters) - self.n_shape:
            return self._mode_by_shape(mode, lambdas, parameters, k)
        step = 1e-5
        moved = parameters.copy()
        moved[k] += step
        change = [(b - a) / step for a, b in zip(lambdas, self.lambdas(moved), strict=True)]
        right = [u @ np.linalg.solve(lam, d).T for u, lam, d in zip(mode.u, lambdas, change, strict=True)]
        # standardised right-hand side: (Lambda^-1 dLambda + its transpose) u
        right = [r + u @ np.linalg.solve(lam, d) for r, u, lam, d in zip(right, mode.u, lambdas, change, strict=True)]
        fixed, effects = self.system.solve(mode.factor, np.zeros(self.system.inner_fixed), right)
        return fixed, [e @ lam.T for e, lam in zip(effects, lambdas, strict=True)]

    def _mode_by_shape(
        self, mode: LaplaceMode, lambdas: Sequence[Floats], parameters: Floats, k: int
    ) -> tuple[Floats, list[Floats]]:
        moved = parameters.copy()
        moved[k] += _SHAPE_STEP
        there = self.find_mode(self.at(moved))
        self.at(parameters)
        fixed = (there.beta - mode.beta)[: self.system.inner_fixed] / _SHAPE_STEP
        return fixed, [(b - a) @ lam.T / _SHAPE_STEP for a, b, lam in zip(mode.u, there.u, lambdas, strict=True)]


def _half_squares(u: Sequence[Floats]) -> float:
    return 0.5 * sum(float(np.vdot(a, a)) for a in u)


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
    n = len(x)
    shift = np.zeros((n, likelihood.d)) if offset is None else offset
    joint = LatentSystem(x, terms, offset=shift, cutpoints=cutpoints, integrate_fixed=True)
    criterion = LaplaceCriterion(likelihood, joint)
    if start_fixed is not None:
        criterion.beta = np.array(start_fixed, dtype=np.float64)
    if start_parameters is None:
        own = np.asarray(getattr(likelihood, "shape", np.zeros(0)), dtype=np.float64)
        parameters = np.concatenate([criterion.pack([_START_SD * np.eye(term.q) for term in terms]), own])
    else:
        parameters = start_parameters
    parameters, information = _scoring_steps(criterion, parameters)
    if not integrate_fixed:
        criterion = _with_outer_fixed(
            criterion, LatentSystem(x, terms, offset=shift, cutpoints=cutpoints, integrate_fixed=False)
        )
    return _search(criterion, parameters, information, parameters_cov)


def _scoring_steps(criterion: LaplaceCriterion, parameters: Floats, steps: int = 4) -> tuple[Floats, Floats]:
    """Bring the variances near the optimum; returns parameters and rough information on each."""
    information = np.ones(len(parameters))
    for _ in range(steps):
        _, gradient, information, _ = criterion.with_gradient(parameters)
        if float((gradient**2 / information).max()) < _NEAR:
            break
        parameters = parameters + np.clip(gradient / information, -_LONGEST, _LONGEST)
    return parameters, information


def _information(own: Floats, lower: Floats) -> Floats:
    """Expected information on a term's parameters if groups were independent, from how far each is known."""
    known = np.clip(1.0 - np.diagonal(own, axis1=1, axis2=2), 0.0, 1.0)  # (groups, q)
    by_pair = known.T @ known
    scaled = by_pair / np.diag(lower)[:, None] ** 2
    scaled[np.diag_indices(len(lower))] = 2.0 * np.diag(by_pair)
    return np.maximum(scaled[np.tril_indices(len(lower))], 1.0)


def _with_outer_fixed(joint: LaplaceCriterion, system: LatentSystem) -> LaplaceCriterion:
    criterion = LaplaceCriterion(joint.likelihood, system)
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
            value, gradient, *_ = criterion.with_gradient(point[:k], outer)
        except InputError:  # a step of the search too far out for the mode to be found
            criterion.beta, criterion.u = kept
            return _FAR, np.zeros(len(at))
        return -value, -rotate.T @ gradient

    found = minimize(negative, np.zeros(len(scale)), jac=True, method="BFGS", options={"gtol": _FLAT, "maxiter": 200})
    point = centre + rotate @ found.x
    flat = float(np.abs(np.asarray(found.jac, dtype=np.float64)).max())
    return _solution(criterion, point[:k], flat, str(found.message), parameters_cov)


def _scale_of_fixed(criterion: LaplaceCriterion, parameters: Floats) -> Floats:
    """Lower Cholesky factor of the covariance of the fixed effects at the joint mode."""
    return np.linalg.cholesky(_fixed_covariance(criterion, parameters))


def _fixed_covariance(criterion: LaplaceCriterion, parameters: Floats) -> Floats:
    outer = criterion.system
    system = LatentSystem(outer.x, outer.terms, offset=outer.offset, cutpoints=outer.cutpoints, integrate_fixed=True)
    lambdas = criterion.lambdas(parameters)
    eta = system.predictors(criterion.beta, [a @ lam.T for a, lam in zip(criterion.u, lambdas, strict=True)])
    curvature = criterion.likelihood.derivatives(eta)[2]
    return system.covariances(system.factor(system.blocks(curvature), lambdas)).xx


def _solution(
    criterion: LaplaceCriterion, parameters: Floats, flat: float, message: str, kind: bool | str
) -> LaplaceSolution:
    lambdas = criterion.at(parameters)
    outer = None if criterion.integrated else criterion.beta
    mode = criterion.find_mode(lambdas)
    spread = criterion.system.covariances(mode.factor)
    k = criterion.n_parameters
    cov = np.zeros((k, k)) if not kind else _parameters_cov(criterion, parameters, kind == "expected")
    small = [i for i, lam in enumerate(lambdas) if np.abs(np.diag(lam)).min() < 1e-3]
    return LaplaceSolution(
        beta=mode.beta if outer is None else outer,
        beta_cov=spread.xx if criterion.integrated else _fixed_covariance(criterion, parameters),
        covariances=tuple(lam @ lam.T for lam in lambdas),
        modes=tuple(u @ lam.T for u, lam in zip(mode.u, lambdas, strict=True)),
        mode_covs=tuple(lam @ spread.own[i] @ lam.T for i, lam in enumerate(lambdas)),
        llf=criterion._value(mode),
        parameters=parameters,
        parameters_cov=cov,
        convergence=LaplaceConvergence(flat < 10 * _FLAT, flat, criterion.evaluations, tuple(small), message),
        criterion=criterion,
        mode=mode,
        mode_derivatives=() if not kind else criterion.mode_derivatives(mode, parameters),
    )


def _parameters_cov(criterion: LaplaceCriterion, parameters: Floats, expected: bool) -> Floats:
    """Inverse of the curvature of the criterion by the parameters; flat directions get no variance."""
    k = len(parameters)
    _, at, information, _ = criterion.with_gradient(parameters)
    curvature = np.diag(information)
    for j in range(k - criterion.n_shape if expected else 0, k):
        step = 0.3 / np.sqrt(information[j])
        moved = parameters.copy()
        moved[j] += step
        curvature[j] = (at - criterion.with_gradient(moved)[1]) / step
        if expected:
            curvature[j, : k - criterion.n_shape] = 0.0
    criterion.find_mode(criterion.at(parameters))
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    inverse = np.where(values > 1.0, 1.0 / np.maximum(values, 1.0), 0.0)
    return np.asarray((vectors * inverse) @ vectors.T)
