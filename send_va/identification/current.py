"""The label now: need, the label before transfer, and the leniency of school and authority."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from send_va.identification import kernels
from send_va.identification.kernels import Floats, Ints
from send_va.multilevel.laplace import LaplaceSolution, fit_laplace
from send_va.multilevel.latent_system import Term

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PART = 16_384  # rows a task
# Where labels hardly change, ``kappa`` and ``rho`` say the same: a weak normal prior keeps the search from running off.
START_KAPPA, PRIOR_SD_KAPPA = 0.7, 0.7
_OBSERVED_UP_TO = 10_000  # pupils


def covariance_kind(rows: int) -> Literal[True, "expected"]:
    """How the uncertainty of variances is estimated: in large studies it matters little, and costs minutes."""
    return True if rows <= _OBSERVED_UP_TO else "expected"


@dataclass(frozen=True)
class CurrentLabel:
    """Likelihood of the label now given the label before transfer.

    ``status >= c iff kappa * need + eta_c + w > 0`` with ``w`` standard normal and need = ``base + sqrt(r) e``; the
    label before says that judged need lies between `low` and `high`.

    Attributes
    ----------
    status : integer array, shape (n,)
    base : array, shape (n,)
        Need that is explained by background and school, in SDs of judged need.
    low, high : array, shape (n,)
    d : int
    shape : array, shape (1,)
        ``kappa``.
    reliability : float
        Share of judged need, net of what is explained, that is need.
    """

    status: Ints
    base: Floats
    low: Floats
    high: Floats
    d: int
    shape: Floats = field(default_factory=lambda: np.array([START_KAPPA]))
    reliability: float = 1.0

    def with_shape(self, shape: Floats) -> CurrentLabel:
        """The same with another ``kappa``."""
        return replace(self, shape=np.array(shape))

    def of_rows(self, rows: Ints) -> CurrentLabel:
        """That of some of the pupils."""
        status, base, low, high = self.status[rows], self.base[rows], self.low[rows], self.high[rows]
        return replace(self, status=status, base=base, low=low, high=high)

    def derivatives(self, eta: Floats) -> tuple[float, Floats, Floats]:
        """Log-likelihood, gradient (n, d) and minus second derivative (n, d, d).

        The log-likelihood includes the label before and the weak prior of ``kappa``.
        """
        total, gradient, curvature, _ = self._by_parts(eta, False)
        return total, gradient, curvature

    def third(self, eta: Floats) -> Floats:
        """Derivative of minus the second derivative, (n, d, d, d)."""
        return self._by_parts(eta, True)[3]

    def _by_parts(self, eta: Floats, with_third: bool) -> tuple[float, Floats, Floats, Floats]:
        """Derivatives, rows cut into parts of fixed size that the cores share; the result does not depend on cores."""
        kappa, n = float(self.shape[0]), len(eta)

        def part(start: int) -> tuple[float, Floats, Floats, Floats]:
            at = slice(start, start + _PART)
            rows = (eta[at], self.status[at], self.base[at], self.low[at], self.high[at])
            return kernels.current_derivatives(*rows, kappa, self.reliability, _NODES, _WEIGHTS, with_third)

        if n <= _PART:
            parts = [part(0)]
        else:
            with ThreadPoolExecutor(max_workers=os.cpu_count()) as cores:
                parts = list(cores.map(part, range(0, n, _PART)))
        total, *arrays = zip(*parts, strict=True)
        gradient, curvature, third = (np.concatenate(array) for array in arrays)
        prior = -0.5 * ((kappa - START_KAPPA) / PRIOR_SD_KAPPA) ** 2
        return float(sum(total)) + prior, gradient, curvature, third


def fit_current(
    likelihood: CurrentLabel, entry: Ints, terms: Sequence[Term], start: LaplaceSolution | None = None
) -> LaplaceSolution:
    """Fit leniency of schools and authorities, ``kappa`` and ``rho``, given the equation of the label before.

    Parameters
    ----------
    likelihood : CurrentLabel
    entry : integer array, shape (n,)
        Label before transfer; its indicators carry ``rho``.
    terms : sequence of Term
        Schools, and authorities where known.
    start : LaplaceSolution, optional
        An earlier fit of a similar model.

    Returns
    -------
    LaplaceSolution
        ``beta`` holds ``rho`` for each label before that occurs, then the national thresholds with a minus sign.
    """
    x = np.column_stack([entry == level for level in range(1, likelihood.d + 1)]).astype(np.float64)
    shares = np.array([(likelihood.status >= c).mean() for c in range(1, likelihood.d + 1)])
    cut = -np.log((1.0 - shares) / shares)  # starts apart and below zero
    begin = np.concatenate([np.full(likelihood.d, 1.5), cut])
    return fit_laplace(
        likelihood,
        x,
        terms,
        cutpoints=True,
        start_fixed=begin if start is None else start.beta,
        start_parameters=None if start is None else start.parameters,
        parameters_cov=covariance_kind(len(entry)),
    )
