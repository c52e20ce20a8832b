"""The profiled deviance of nested Gaussian models, with its gradient, as a function of their variance parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from send_va.errors import InputError
from send_va.multilevel.crossproducts import FloatArray, IntArray
from send_va.multilevel.elimination import (
    Eliminated,
    Level,
    adjoint_factor,
    adjoint_products,
    eliminate,
    eliminate_prepared,
    unpack,
)
from send_va.multilevel.inner_products import InnerProducts


class Criterion:
    """Deviance of a nested model as a function of the relative covariance factors, with its gradient."""

    def __init__(self, data: InnerProducts, levels: Sequence[Level], x: IntArray, y: int, reml: bool) -> None:
        self.levels, self.x, self.y, self.reml = tuple(levels), x, y, reml
        self.data = data
        n_records = float(data.counts.sum())
        self.degrees = n_records - (len(x) if reml else 0)
        self.evaluations = 0
        self._last: tuple[FloatArray, float, FloatArray] | None = None
        self.bases = _bases(data.total / n_records, levels)

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """Factors of the relative covariances, one a level."""
        return [basis @ lower for basis, lower in zip(self.bases, unpack(theta, self.levels), strict=True)]

    def forward(self, theta: FloatArray) -> list[Eliminated]:
        """Eliminate level by level."""
        factors = self.factors(theta)
        done = [eliminate_prepared(self.data.rows, self.levels[0], factors[0], self.data.summed)]
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
        """Deviance without its constant, and its gradient; the last result is kept."""
        if self._last is not None and np.array_equal(self._last[0], theta):
            return self._last[1], self._last[2].copy()
        self.evaluations += 1
        done = self.forward(theta)
        beta, inverse, logdet, rss = self.fixed_effects(done[-1].schur)
        refuse_no_residual(rss / self.degrees)
        value = sum(level.logdet for level in done) + self.degrees * float(np.log(rss / self.degrees))
        direction = np.zeros(len(self.data.total))
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
        self._last = (theta.copy(), value, np.concatenate(gradient))
        return value, self._last[2].copy()

    def log_likelihood(self, theta: FloatArray) -> float:
        """Log-likelihood, constants included, for records of weight one."""
        return -0.5 * (self(theta)[0] + self.degrees * (1.0 + float(np.log(2.0 * np.pi))))


def refuse_no_residual(scale: float) -> None:
    """Refuse an outcome without residual variance; `scale` is that variance as a share of the outcome's mean square."""
    if not scale > 1e-10:
        raise InputError(
            "the outcome does not vary within groups beyond its random effects: there is no residual variance",
            "Check that it is a result of the records, not of their groups.",
        )


def _bases(mean: FloatArray, levels: Sequence[Level]) -> list[FloatArray]:
    """Uncorrelated unit-size combinations of each level's columns: the search is as easy whatever their means."""
    lowers = [np.linalg.cholesky(mean[np.ix_(level.z, level.z)]) for level in levels]
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
