"""Adaptive Gauss-Hermite quadrature for one grouping with one random effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from send_va.multilevel.laplace_criterion import Likelihood
from send_va.multilevel.threads import one_blas_thread

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

_START_SD = 0.5
_ZERO_SD = 1e-3  # below it the SD counts as zero and has no standard error
_DIFFERENCE = 1e-2  # step of numerical second derivatives, in standard errors
_NEWTON_STEPS = 100
# Largest derivative of the log-likelihood, each parameter in its standard error: where the search ends, and at which an
# optimum counts as found.
_FLAT, _STATIONARY = 1e-4, 1e-3


class RowLikelihood(Likelihood, Protocol):
    """What quadrature needs besides derivatives: see `Binomial` and `Ordinal`."""

    def row_values(self, eta: FloatArray) -> FloatArray:
        """Log-likelihood of every row, shape (n,)."""
        ...

    def value(self, eta: FloatArray) -> float:
        """Log-likelihood with its constant."""
        ...


@dataclass(frozen=True)
class QuadratureSolution:
    """Estimates by adaptive quadrature.

    Attributes
    ----------
    beta : array, shape (p,) or (p + d,)
        Fixed effects, then cutpoints.
    sigma : float
        SD of the random effect.
    cov : array, shape (p + 1, p + 1) or (p + d + 1, p + d + 1)
        Covariance of `beta` and `sigma`, from the second derivatives of the log-likelihood.
    modes, mode_sds : array, shape (groups,)
        Conditional modes of the effects and their SDs given the parameters.
    llf : float
    converged : bool
    gradient : float
        Largest derivative of the log-likelihood, each parameter measured in its standard error; NaN where the
        second derivatives are not those of a maximum.
    evaluations : int
    message : str
    """

    beta: FloatArray
    sigma: float
    cov: FloatArray
    modes: FloatArray
    mode_sds: FloatArray
    llf: float
    converged: bool
    gradient: float
    evaluations: int
    message: str


def fixed_predictors(x: FloatArray, beta: FloatArray, offset: FloatArray) -> FloatArray:
    """Linear predictors (n, d): offset, fixed effects, and cutpoints where `beta` is longer than `x` is wide."""
    p = x.shape[1]
    eta = offset + (x @ beta[:p])[:, None]
    return np.asarray(eta + beta[p:] if len(beta) > p else eta)


def fit_without_groups(
    likelihood: RowLikelihood, x: FloatArray, *, cutpoints: bool, offset: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Estimate fixed effects and cutpoints where groups do not matter, by Newton's method.

    Parameters
    ----------
    likelihood : RowLikelihood
    x : array, shape (n, p)
    cutpoints : bool
    offset : array, shape (n, d)

    Returns
    -------
    beta : array, shape (p,) or (p + d,)
    information : array
        Their curvature there.
    """
    p, d = x.shape[1], likelihood.d
    beta = np.zeros(p + (d if cutpoints else 0))
    value = likelihood.value(offset)
    for _ in range(_NEWTON_STEPS):
        _, g, h = likelihood.derivatives(fixed_predictors(x, beta, offset))
        by_predictor = h.sum(axis=2)
        slope = x.T @ g.sum(axis=1)
        bend = x.T @ (x * by_predictor.sum(axis=1)[:, None])
        if cutpoints:
            slope = np.concatenate([slope, g.sum(axis=0)])
            cross = x.T @ by_predictor
            bend = np.block([[bend, cross], [cross.T, h.sum(axis=0)]])
        step = np.linalg.solve(bend, slope)
        if slope @ step < 1e-12:
            break
        scale = 1.0
        while (tried := likelihood.value(fixed_predictors(x, beta + scale * step, offset))) < value and scale > 1e-8:
            scale /= 2.0
        beta, value = beta + scale * step, tried
    return beta, bend


class MarginalLikelihood:
    """Log-likelihood with the random effect integrated out, and its exact gradient.

    The nodes move with the parameters; their movement is in the gradient, so that with one point it is the gradient
    of the Laplace approximation. Parameters: fixed effects, cutpoints, SD.
    """

    def __init__(
        self,
        likelihood: RowLikelihood,
        x: FloatArray,
        codes: IntArray,
        n_groups: int,
        z: FloatArray,
        points: int,
        cutpoints: bool,
        offset: FloatArray,
    ) -> None:
        self.likelihood, self.x, self.z, self.cutpoints = likelihood, x, z, cutpoints
        self.codes, self.n_groups, self.offset = codes, n_groups, offset
        nodes, weights = np.polynomial.hermite.hermgauss(points)
        self.nodes, self.log_weights = nodes, np.log(weights) + nodes**2
        self.u = np.zeros(n_groups)
        self.evaluations = 0
        self.constant = likelihood.value(offset) - float(likelihood.row_values(offset).sum())

    def base(self, theta: FloatArray) -> FloatArray:
        """Linear predictors (n, d) without the random effect."""
        return fixed_predictors(self.x, theta[:-1], self.offset)

    def _sum(self, rows: FloatArray) -> FloatArray:
        return np.bincount(self.codes, rows, self.n_groups)

    def _at(self, base: FloatArray, sigma: float, u: FloatArray) -> FloatArray:
        return np.asarray(base + sigma * self.z * u[self.codes][:, None])

    def _log_density(self, base: FloatArray, sigma: float, u: FloatArray) -> FloatArray:
        return np.asarray(self._sum(self.likelihood.row_values(self._at(base, sigma, u))) - 0.5 * u**2)

    def _modes(self, base: FloatArray, sigma: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Spherical modes of all groups by Newton's method with halving; gradient and curvature of the rows there."""
        u, value = self.u, self._log_density(base, sigma, self.u)
        for _ in range(_NEWTON_STEPS):
            _, g, h = self.likelihood.derivatives(self._at(base, sigma, u))
            slope = sigma * self._sum((g * self.z).sum(axis=1)) - u
            bend = 1.0 + sigma**2 * self._sum(np.einsum("nc,nce,ne->n", self.z, h, self.z))
            step = slope / bend
            if np.abs(step * np.sqrt(bend)).max() < 1e-9:
                break
            for _ in range(40):
                tried = self._log_density(base, sigma, u + step)
                worse = tried < value - 1e-12 * np.abs(value)
                if not worse.any():
                    break
                step = np.where(worse, 0.5 * step, step)
            u, value = u + step, tried
        self.u = u
        return u, g, h

    def effects(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Conditional modes of the groups' effects and their conditional SDs."""
        sigma = float(theta[-1])
        u, _, h = self._modes(self.base(theta), sigma)
        bend = 1.0 + sigma**2 * self._sum(np.einsum("nc,nce,ne->n", self.z, h, self.z))
        return sigma * u, sigma / np.sqrt(bend)

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Log-likelihood and gradient."""
        self.evaluations += 1
        sigma, base = float(theta[-1]), self.base(theta)
        u, g, h = self._modes(base, sigma)
        hz = np.einsum("nce,ne->nc", h, self.z)
        third = np.einsum("nabc,na,nb->nc", self.likelihood.third(self._at(base, sigma, u)), self.z, self.z)
        s1 = self._sum((g * self.z).sum(axis=1))
        s2 = self._sum((hz * self.z).sum(axis=1))
        s3 = self._sum((third * self.z).sum(axis=1))
        bend = 1.0 + sigma**2 * s2
        spread = np.sqrt(2.0 / bend)
        at_nodes = u + spread * self.nodes[:, None]  # (points, groups)
        log_terms = np.array([self._log_density(base, sigma, v) for v in at_nodes]) + self.log_weights[:, None]
        top = log_terms.max(axis=0)
        mass = np.exp(log_terms - top)
        log_integral = top + np.log(mass.sum(axis=0) * spread) - 0.5 * np.log(2.0 * np.pi)
        share = mass / mass.sum(axis=0)
        rows, by_sigma, a, b = self._node_scores(base, sigma, at_nodes, share)
        c = -(1.0 + b * spread) / (2.0 * bend)  # derivative by the curvature at the mode, through the spread
        move = (a + c * sigma**3 * s3) / bend  # derivative by the score at the mode, through the mode
        rows += (sigma**2 * c)[self.codes, None] * third - (sigma * move)[self.codes, None] * hz
        by_sigma += move * (s1 - sigma * u * s2) + c * (2.0 * sigma * s2 + sigma**2 * u * s3)
        fixed = [self.x.T @ rows.sum(axis=1)] + ([rows.sum(axis=0)] if self.cutpoints else [])
        gradient = np.concatenate([*fixed, [by_sigma.sum()]])
        return float(log_integral.sum()) + self.constant, gradient

    def _node_scores(
        self, base: FloatArray, sigma: float, at_nodes: FloatArray, share: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Weighted over nodes: score of the rows (n, d), by sigma, by the node, by the node times its abscissa."""
        rows = np.zeros_like(base)
        by_sigma, a, b = np.zeros(self.n_groups), np.zeros(self.n_groups), np.zeros(self.n_groups)
        for node, v, weight in zip(self.nodes, at_nodes, share, strict=True):
            _, g, _ = self.likelihood.derivatives(self._at(base, sigma, v))
            own = self._sum((g * self.z).sum(axis=1))
            rows += weight[self.codes, None] * g
            by_sigma += weight * v * own
            slope = weight * (sigma * own - v)
            a += slope
            b += slope * node
        return rows, by_sigma, a, b


@one_blas_thread
def fit_quadrature(
    likelihood: RowLikelihood,
    x: FloatArray,
    codes: IntArray,
    n_groups: int,
    z: FloatArray,
    *,
    points: int = 9,
    cutpoints: bool = False,
    offset: FloatArray | None = None,
) -> QuadratureSolution:
    """Maximise the likelihood with the random effect integrated out numerically.

    Parameters
    ----------
    likelihood : RowLikelihood
    x : array, shape (n, p)
        Fixed effects of all predictors.
    codes : integer array, shape (n,)
        Group of every row.
    n_groups : int
    z : array, shape (n, d)
        What the random effect of size one adds to the predictors.
    points : int, default 9
        Nodes a group. One is the Laplace approximation; 9 leave no visible error unless effects are very large.
    cutpoints : bool
        One free intercept for every predictor, after the fixed effects.
    offset : array, shape (n, d) or (d,), optional
        Added to the predictors. With cutpoints give the marginal predictors, so that the search starts where every
        category is possible.

    Returns
    -------
    QuadratureSolution
        `sigma` of zero is an estimate: the groups do not differ beyond chance.

    References
    ----------
    Pinheiro & Bates (1995), doi:10.1080/10618600.1995.10474663.

    Examples
    --------
    >>> import numpy as np
    >>> from send_va.multilevel.likelihoods import Binomial
    >>> rng = np.random.default_rng(2)
    >>> school = np.repeat(np.arange(400), 20)
    >>> p = 1.0 / (1.0 + np.exp(-rng.normal(size=400)[school]))
    >>> y = (rng.random(8000) < p).astype(float)
    >>> fit = fit_quadrature(Binomial(y, np.ones(8000)), np.ones((8000, 1)), school, 400, np.ones((8000, 1)))
    >>> fit.converged, round(fit.sigma, 1)
    (True, 1.0)
    """
    base = np.zeros((len(x), likelihood.d)) + (0.0 if offset is None else offset)
    marginal = MarginalLikelihood(likelihood, x, codes, n_groups, z, points, cutpoints, base)
    beta, information = fit_without_groups(likelihood, x, cutpoints=cutpoints, offset=base)
    centre = np.append(beta, _START_SD)
    rotate = np.eye(len(centre)) / np.sqrt(2.0 * n_groups)  # to steps of about one standard error
    rotate[:-1, :-1] = np.linalg.cholesky(np.linalg.inv(information))

    def deviance(at: FloatArray) -> tuple[float, FloatArray]:
        value, slope = marginal(centre + rotate @ at)
        return -value, -(rotate.T @ slope)

    result = minimize(deviance, np.zeros(len(centre)), jac=True, method="BFGS", options={"gtol": _FLAT})
    theta = centre + rotate @ np.asarray(result.x)
    theta[-1] = abs(theta[-1])
    cov = _covariance(marginal, theta, np.sqrt((rotate**2).sum(axis=1)))
    llf, slope = marginal(theta)
    flatness = float(np.abs(slope * np.sqrt(np.diag(cov))).max())
    modes, mode_sds = marginal.effects(theta)
    return QuadratureSolution(
        beta=theta[:-1],
        sigma=float(theta[-1]),
        cov=cov,
        modes=modes,
        mode_sds=mode_sds,
        llf=llf,
        converged=flatness < _STATIONARY,
        gradient=flatness,
        evaluations=marginal.evaluations,
        message=str(result.message),
    )


def _covariance(marginal: MarginalLikelihood, theta: FloatArray, se: FloatArray) -> FloatArray:
    """Inverse of the curvature at the estimates, by central differences of the gradient; NaN where it has none."""
    k = len(theta)
    curvature = np.zeros((k, k))
    for j in range(k):
        step = np.zeros(k)
        step[j] = _DIFFERENCE * se[j]
        curvature[j] = (marginal(theta - step)[1] - marginal(theta + step)[1]) / (2.0 * step[j])
    curvature = 0.5 * (curvature + curvature.T)
    free = np.arange(k if theta[-1] > _ZERO_SD else k - 1)
    cov = np.zeros((k, k))
    positive = np.linalg.eigvalsh(curvature[np.ix_(free, free)])[0] > 0.0
    cov[np.ix_(free, free)] = np.linalg.inv(curvature[np.ix_(free, free)]) if positive else np.nan
    return cov
