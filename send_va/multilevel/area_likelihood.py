"""Likelihood, variance components and predictions of the area model: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from send_va.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_MOST_STEPS = 200
# Newton decrement (twice the log-likelihood still to be gained under the expected information) at which scoring stops.
_DECREMENT = 1e-12
# The same where rounding in the log-likelihood (about 1e-12 of it) hides any further gain.
_DECREMENT_AT_ROUNDING = 1e-8


@dataclass(frozen=True)
class AreaPoint:
    """The area model at given variances; every quantity follows from ``y ~ N(X b, V)``.

    ``V = diag(se**2 + tau2) + area_variance * Z Z'`` with Z the area indicators; ``P`` is the matrix that maps `y` to
    ``V**-1 (y - X b_hat)``. No n x n matrix is formed.

    Attributes
    ----------
    y, se : ndarray, shape (n,)
    X : ndarray, shape (n, p)
    area : ndarray of int, shape (n,)
        Area of each row, 0 ... K - 1; all zero, with `area_variance` 0, where there is no area level.
    tau2, area_variance : float
    """

    y: FloatArray
    X: FloatArray
    se: FloatArray
    area: IntArray
    tau2: float
    area_variance: float

    @cached_property
    def weight(self) -> FloatArray:
        """1 / (se**2 + tau2), shape (n,)."""
        return 1.0 / (self.se**2 + self.tau2)

    @cached_property
    def area_weight(self) -> FloatArray:
        """Sum of the weights of each area, shape (K,)."""
        return self.by_area(self.weight)

    @cached_property
    def shrink(self) -> FloatArray:
        """The factor c of each area in ``V**-1 = W - c w w'``, shape (K,)."""
        return self.area_variance / (1.0 + self.area_variance * self.area_weight)

    def by_area(self, values: FloatArray) -> FloatArray:
        """Sum rows within areas: (n,) -> (K,), (n, m) -> (K, m)."""
        areas = int(self.area.max()) + 1
        if values.ndim == 1:
            return np.bincount(self.area, weights=values, minlength=areas)
        return np.column_stack([np.bincount(self.area, weights=column, minlength=areas) for column in values.T])

    def solve(self, values: FloatArray) -> FloatArray:
        """Return ``V**-1 values`` for values of shape (n, m)."""
        weighted = self.weight[:, None] * values
        return weighted - self.weight[:, None] * (self.shrink[:, None] * self.by_area(weighted))[self.area]

    @cached_property
    def weighted_design(self) -> FloatArray:
        """``V**-1 X``, shape (n, p)."""
        return self.solve(self.X)

    @cached_property
    def area_design(self) -> FloatArray:
        """``Z' V**-1 X``, shape (K, p)."""
        return self.by_area(self.weighted_design)

    @cached_property
    def information(self) -> FloatArray:
        """``X' V**-1 X``, shape (p, p)."""
        return self.X.T @ self.weighted_design

    @cached_property
    def cov_params(self) -> FloatArray:
        """Covariance of the fixed effects given the variances, shape (p, p)."""
        inverse = cho_solve(cho_factor(self.information), np.eye(self.X.shape[1]))
        return 0.5 * (inverse + inverse.T)

    @cached_property
    def params(self) -> FloatArray:
        """Fixed effects, shape (p,)."""
        return self.cov_params @ (self.weighted_design.T @ self.y)

    @cached_property
    def weighted_residual(self) -> FloatArray:
        """``V**-1 (y - X b_hat)``, shape (n,)."""
        return self.solve((self.y - self.X @ self.params)[:, None])[:, 0]

    def llf(self, reml: bool) -> float:
        """Return the log-likelihood, or the restricted one with metafor's constant, ``+ log|X'X| / 2``."""
        rows, columns = self.X.shape
        log_det = -np.log(self.weight).sum() + np.log1p(self.area_variance * self.area_weight).sum()
        total = log_det + float((self.y - self.X @ self.params) @ self.weighted_residual)
        if not reml:
            return float(-0.5 * (rows * np.log(2 * np.pi) + total))
        total += np.linalg.slogdet(self.information)[1] - np.linalg.slogdet(self.X.T @ self.X)[1]
        return float(-0.5 * ((rows - columns) * np.log(2 * np.pi) + total))

    def score(self, reml: bool) -> tuple[FloatArray, FloatArray]:
        """Return gradient (2,) and expected information (2, 2) of the log-likelihood in (tau2, area_variance)."""
        w, c, s, inflation = self.weight, self.shrink, self.area_weight, 1.0 + self.area_variance * self.area_weight
        square, cube = self.by_area(w**2), self.by_area(w**3)
        trace = np.array([(w.sum() - c @ square), (s / inflation).sum()])
        cross = float((square / inflation**2).sum())
        own = float((w**2).sum() - 2 * c @ cube + (c * square) @ (c * square))
        information = np.array([[own, cross], [cross, float(((s / inflation) ** 2).sum())]])
        if reml:
            VU = self.solve(self.weighted_design)
            MA, MB = (
                self.cov_params @ (self.weighted_design.T @ self.weighted_design),
                self.cov_params @ (self.area_design.T @ self.area_design),
            )
            MAA = self.cov_params @ (self.weighted_design.T @ VU)
            MAB = self.cov_params @ (self.by_area(VU).T @ self.area_design)
            MBB = self.cov_params @ ((self.area_design.T * (s / inflation)) @ self.area_design)
            trace -= np.array([np.trace(MA), np.trace(MB)])
            mixed = np.sum(MA * MB.T) - 2 * np.trace(MAB)
            information += np.array(
                [[np.sum(MA * MA.T) - 2 * np.trace(MAA), mixed], [mixed, np.sum(MB * MB.T) - 2 * np.trace(MBB)]]
            )
        quadratic = np.array(
            [self.weighted_residual @ self.weighted_residual, float((self.by_area(self.weighted_residual) ** 2).sum())]
        )
        return 0.5 * (quadratic - trace), 0.5 * information

    @cached_property
    def p_diagonal(self) -> FloatArray:
        """Diagonal of P, shape (n,)."""
        return (
            self.weight
            - self.shrink[self.area] * self.weight**2
            - self._quadratic(self.weighted_design, self.weighted_design)
        )

    @cached_property
    def pz_diagonal(self) -> FloatArray:
        """Entry of ``P Z`` of each row and its own area, shape (n,)."""
        own = self.weight / (1.0 + self.area_variance * self.area_weight[self.area])
        return own - self._quadratic(self.weighted_design, self.area_design[self.area])

    @cached_property
    def zpz_diagonal(self) -> FloatArray:
        """Diagonal of ``Z' P Z``, shape (K,)."""
        return self.area_weight / (1.0 + self.area_variance * self.area_weight) - self._quadratic(
            self.area_design, self.area_design
        )

    def _quadratic(self, left: FloatArray, right: FloatArray) -> FloatArray:
        return np.asarray(np.sum((left @ self.cov_params) * right, axis=1))


@dataclass(frozen=True)
class AreaArrays:
    """Fitted area model, unlabelled.

    Attributes
    ----------
    at : AreaPoint
        The model at the estimated variances: `params`, `cov_params`, predictions.
    tau2, area_variance : float
        Variance between units within areas, and between areas; outcome units squared.
    variance_cov : ndarray, shape (2, 2)
        Inverse expected information of the two; zero rows where a variance is on its boundary or not estimated.
    llf : float
        Log-likelihood at the estimate.
    reml, converged : bool
    decrement : float
        Newton decrement at the last step; below 1e-12 when converged.
    """

    at: AreaPoint
    tau2: float
    area_variance: float
    variance_cov: FloatArray
    llf: float
    reml: bool
    converged: bool
    decrement: float


def fit_area_arrays(
    y: FloatArray, X: FloatArray, se: FloatArray, area: IntArray | None = None, *, reml: bool = True
) -> AreaArrays:
    """Estimate ``y_j ~ N(theta_j, se_j**2)``, ``theta_j = x_j'b + v_area + u_j``, by Fisher scoring.

    Variances are kept at zero or above by an active set; scoring starts from the best of a few points, zero included,
    because the restricted likelihood can have a second mode at zero.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Published estimates.
    X : ndarray, shape (n, p)
        Design matrix of full column rank, p < n.
    se : ndarray, shape (n,)
        Standard errors of `y`, above zero.
    area : ndarray of int, shape (n,), optional
        Area of each row, 0 ... K - 1. Without it there is no area level.
    reml : bool
        Restricted (default, not biased down by p) or full maximum likelihood.

    Returns
    -------
    AreaArrays
        Read `tau2` beside the mean of ``se**2``: their ratio is what decides how far estimates are shrunk.

    Raises
    ------
    InputError
        Fewer rows than columns plus one, or a standard error that is not above zero.

    References
    ----------
    Fay, R. E., & Herriot, R. A. (1979). Estimates of income for small places. JASA 74, 269-277.
    https://doi.org/10.1080/01621459.1979.10482505

    Viechtbauer, W. (2005). Bias and efficiency of meta-analytic variance estimators in the random-effects model.
    Journal of Educational and Behavioral Statistics 30, 261-293. https://doi.org/10.3102/10769986030003261

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([0.5, -0.3, 0.1, 0.9, -0.8])
    >>> fit = fit_area_arrays(y, np.ones((5, 1)), np.full(5, 0.2))
    >>> round(fit.tau2, 4), round(float(np.var(y, ddof=1)) - 0.04, 4)
    (0.402, 0.402)
    """
    if len(y) <= X.shape[1]:
        raise InputError(f"{len(y)} rows cannot support {X.shape[1]} fixed effects", "Use fewer covariates.")
    if not (se > 0).all():
        raise InputError(f"{int((~(se > 0)).sum())} standard errors are not above zero", "Leave those rows out.")
    rows_area = np.zeros(len(y), dtype=np.int64) if area is None else area
    free = np.array([True, area is not None])

    def at(variances: FloatArray) -> AreaPoint:
        return AreaPoint(y, X, se, rows_area, float(variances[0]), float(variances[1]))

    variances = _start(at, y, X, se, free, reml)
    value, converged = at(variances).llf(reml), False
    for _ in range(_MOST_STEPS):
        gradient, information = at(variances).score(reml)
        active = free & ~((variances == 0) & (gradient <= 0))
        step = np.zeros(2)
        step[active] = np.linalg.solve(information[np.ix_(active, active)], gradient[active])
        decrement = float(step @ gradient)
        if converged := decrement < _DECREMENT:
            break
        variances, value, moved = _line_search(at, variances, step, value, reml)
        if not moved:
            converged = decrement < _DECREMENT_AT_ROUNDING
            break
    inside = active & (variances > 0)
    variance_cov = np.zeros((2, 2))
    variance_cov[np.ix_(inside, inside)] = np.linalg.inv(information[np.ix_(inside, inside)])
    return AreaArrays(
        at=at(variances),
        tau2=float(variances[0]),
        area_variance=float(variances[1]),
        variance_cov=variance_cov,
        llf=value,
        reml=reml,
        converged=converged,
        decrement=decrement,
    )


def _start(
    at: Callable[[FloatArray], AreaPoint],
    y: FloatArray,
    X: FloatArray,
    se: FloatArray,
    free: NDArray[np.bool_],
    reml: bool,
) -> FloatArray:
    residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    excess = max(float(np.mean(residual**2) - np.mean(se**2)), 0.05 * float(np.mean(se**2)))
    shares = (0.1, 0.5) if free[1] else (0.0,)
    candidates = [np.zeros(2)]
    candidates += [size * excess * np.array([1 - share, share]) for size in (0.2, 1.0, 3.0) for share in shares]
    return max(candidates, key=lambda variances: at(variances).llf(reml))


def _line_search(
    at: Callable[[FloatArray], AreaPoint], variances: FloatArray, step: FloatArray, value: float, reml: bool
) -> tuple[FloatArray, float, bool]:
    """Halve the step until the log-likelihood rises; components that would turn negative stop at zero."""
    for halvings in range(30):
        proposal = np.maximum(variances + step / 2**halvings, 0.0)
        proposed = at(proposal).llf(reml)
        if proposed > value:
            return proposal, proposed, True
    return variances, value, False
