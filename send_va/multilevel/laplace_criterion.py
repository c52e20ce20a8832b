"""The Laplace log-likelihood of a latent Gaussian model: its mode, its value and its exact gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from send_va.errors import InputError
from send_va.multilevel.latent_system import Covariances, Factor, Floats, LatentSystem

_SMALLEST_SD = 1e-6
_NEWTON_STEPS = 60
_SETTLED = 1e-8  # Newton decrement at which the mode counts as found
_SLOW = 0.05  # a chord step that shrinks the decrement by less than this asks for a new factor
_SHAPE_STEP = 1e-3


class Likelihood(Protocol):
    """Log-likelihood of rows given their d linear predictors (n, d); concave in them.

    A likelihood with parameters of its own has an attribute `shape` (array) and a method `with_shape`.
    """

    @property
    def d(self) -> int:
        """Linear predictors of a row."""
        ...

    def derivatives(self, eta: Floats) -> tuple[float, Floats, Floats]:
        """Sum over rows, gradient (n, d) and minus second derivative (n, d, d)."""
        ...

    def third(self, eta: Floats) -> Floats:
        """``third[i, a, b, c]``: derivative of minus the second derivative [i, a, b] by predictor c."""
        ...

    def of_rows(self, rows: NDArray[np.intp]) -> Likelihood:
        """That of some of the rows."""
        ...


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


@dataclass(frozen=True)
class Evaluation:
    """The criterion at one point.

    Attributes
    ----------
    value : float
        Laplace log-likelihood.
    gradient : array
        By the parameters, then by outer fixed effects.
    information : array, shape (k,)
        Rough information on each parameter.
    mode : LaplaceMode
    spread : Covariances
        Blocks of the inverse Hessian at the mode.
    """

    value: float
    gradient: Floats
    information: Floats
    mode: LaplaceMode
    spread: Covariances


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
        self.last: tuple[bytes, Evaluation] | None = None

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
        return LaplaceMode(beta, u, eta, value - half_squares(u), gradient, curvature, factor)

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
        """Take the longest of the step and its halves that raises the penalised log-likelihood.

        One that ends where a record is all but impossible (thresholds that cross) has no curvature to go on from.
        """
        at = value - half_squares(u)
        scale = 1.0
        for _ in range(30):
            new_beta = beta.copy()
            if self.integrated:
                new_beta += scale * step_fixed
            new_u = [a + scale * b for a, b in zip(u, step, strict=True)]
            eta = self.system.predictors(new_beta, [a @ lam.T for a, lam in zip(new_u, lambdas, strict=True)])
            there = self.likelihood.derivatives(eta)
            usable = np.isfinite(there[0]) and np.isfinite(there[2].sum())
            if usable and there[0] - half_squares(new_u) >= at - 1e-9 * abs(at):
                return new_beta, new_u, eta, there
            scale /= 2.0
        raise InputError("the search for the most likely effects cannot go uphill", "Look for extreme covariates.")

    def __call__(self, parameters: Floats, outer: Floats | None = None) -> float:
        """Laplace log-likelihood."""
        if outer is not None:
            self.beta = outer
        self.evaluations += 1
        return self.log_likelihood(self.find_mode(self.at(parameters)))

    def log_likelihood(self, mode: LaplaceMode) -> float:
        """Laplace log-likelihood at a mode."""
        return mode.value - 0.5 * mode.factor.logdet + 0.5 * self.system.inner_fixed * float(np.log(2 * np.pi))

    def with_gradient(self, parameters: Floats, outer: Floats | None = None) -> Evaluation:
        """Value and exact gradient; asked again at the same point, the criterion gives the same answer at no cost."""
        key = parameters.tobytes() + (b"" if outer is None else outer.tobytes())
        if self.last is None or self.last[0] != key:
            self.last = key, self._evaluated(parameters, outer)
        evaluation = self.last[1]
        self.return_to(parameters, evaluation.mode)
        return evaluation

    def return_to(self, parameters: Floats, mode: LaplaceMode) -> None:
        """Let the next search for a mode start from this one."""
        self.at(parameters)
        self.beta, self.u, self.factor = mode.beta, mode.u, mode.factor

    def _evaluated(self, parameters: Floats, outer: Floats | None) -> Evaluation:
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
            information.append(expected_information(spread.own[k], lam))
        gradient.append(self._by_shape(parameters, mode, rows, adjoint, adjoint_fixed))
        if outer is not None:
            effects = [a @ lam.T for a, lam in zip(adjoint, lambdas, strict=True)]
            moved = system.predictors(np.zeros_like(outer), effects) - system.offset
            total = mode.gradient - 0.5 * (pull - np.einsum("iab,ib->ia", mode.curvature, moved))
            gradient.append(system.scores(total)[0])
        information.append(np.full(self.n_shape, system.n / 20.0))
        value = self.log_likelihood(mode)
        return Evaluation(value, np.concatenate(gradient), np.concatenate(information), mode, spread)

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
        self.return_to(parameters, mode)
        fixed = (there.beta - mode.beta)[: self.system.inner_fixed] / _SHAPE_STEP
        return fixed, [(b - a) @ lam.T / _SHAPE_STEP for a, b, lam in zip(mode.u, there.u, lambdas, strict=True)]


def half_squares(u: Sequence[Floats]) -> float:
    """Half the squares of the standardised effects: minus their log density."""
    return 0.5 * sum(float(np.vdot(a, a)) for a in u)


def expected_information(own: Floats, lower: Floats) -> Floats:
    """Expected information on a term's parameters if groups were independent, from how far each is known."""
    known = np.clip(1.0 - np.diagonal(own, axis1=1, axis2=2), 0.0, 1.0)  # (groups, q)
    by_pair = known.T @ known
    scaled = by_pair / np.diag(lower)[:, None] ** 2
    scaled[np.diag_indices(len(lower))] = 2.0 * np.diag(by_pair)
    return np.maximum(scaled[np.tril_indices(len(lower))], 1.0)
